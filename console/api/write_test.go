// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	stdcmp "cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/console/api"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/webhook/authn"
)

const (
	readOnly        = `{"app_name": "Frontend App", "read_access": true, "write_access": false}`
	alreadyInactive = "The key is already inactive."
	keyNotFound     = "No key has this ID. An ID is a UUID, as in the list of keys."
	ownKey          = "This is the key that authenticates the request: to deactivate it, add force=true to the query."
)

// create creates a key through the API.
func (f *fixture) create(body string) apiKey {
	f.Helper()
	return payload[apiKey](f, f.call("POST /api/v1/api-keys", f.writer.Token, body))
}

func TestCreate_TheKeyIsAcceptedAtOnce(t *testing.T) {
	f := newFixture(t)
	expiresAt := time.Now().Add(time.Hour).Truncate(time.Second).UTC()
	for name, call := range map[string]struct {
		base, body string
		expiresAt  *time.Time
	}{
		"snake_case": {"/api/v1", `{"app_name": "Snake", "read_access": true, "write_access": false, "expires_at": null}`, nil},
		"camelCase": {"/v1", fmt.Sprintf(`{"appName": "Camel", "readAccess": true, "writeAccess": false, "expiresAt": %q}`,
			expiresAt.In(time.FixedZone("", 3600)).Format(time.RFC3339)), &expiresAt},
	} {
		t.Run(name, func(t *testing.T) {
			created := payload[apiKey](t, f.call("POST "+call.base+"/api-keys", f.writer.Token, call.body))
			if len(created.Token) != token.Length || !strings.HasPrefix(created.Token, token.Prefix) {
				t.Errorf("the token has %d characters", len(created.Token))
			}
			listed := payload[[]apiKey](t, f.call("GET /api/v1/api-keys", created.Token))
			var object *v1alpha1.APIKey
			for _, key := range f.keys() {
				if string(key.UID) == created.ID {
					object = &key
				}
			}
			if object == nil {
				t.Fatalf("no APIKey has the ID %s", created.ID)
			}
			want := apiKeyOf(object, true)
			if !slices.ContainsFunc(listed, func(k apiKey) bool { return cmp.Equal(want, k) }) {
				t.Errorf("the list does not contain %v: %v", want, listed)
			}
			want.Token = created.Token
			if diff := cmp.Diff(want.below(call.base), created); diff != "" {
				t.Errorf("the created key (-want +got):\n%s", diff)
			}
			wantSpec := v1alpha1.APIKeySpec{
				AppName: created.AppName, ReadAccess: true, Active: new(true),
				TokenHash: token.Hash(created.Token), TokenHint: token.Hint(created.Token),
			}
			if call.expiresAt != nil {
				wantSpec.ExpiresAt = new(metav1.NewTime(*call.expiresAt))
			}
			if diff := cmp.Diff(wantSpec, object.Spec); diff != "" {
				t.Errorf("spec (-want +got):\n%s", diff)
			}
			at, err := time.Parse(time.RFC3339Nano, object.Annotations["keys.squirrel.dev/created-at"])
			if err != nil || at.Sub(object.CreationTimestamp.Time).Abs() > framework.Timeout {
				t.Errorf("the annotations are %v", object.Annotations)
			}
			delete(object.Annotations, "keys.squirrel.dev/created-at")
			by := map[string]string{"keys.squirrel.dev/created-by": string(f.writer.Key.UID)}
			if diff := cmp.Diff(by, object.Annotations); diff != "" {
				t.Errorf("annotations (-want +got):\n%s", diff)
			}
			if !regexp.MustCompile(`^(snake|camel)-[a-z2-7]{8}$`).MatchString(object.Name) {
				t.Errorf("the name is %q", object.Name)
			}
		})
	}
}

func TestCreate_AnAppNameInUseIsAConflict(t *testing.T) {
	f := newFixture(t)
	first := f.create(readOnly)
	f.call("POST /v1/api-keys", f.writer.Token, readOnly).
		assertError(t, 409, `An active key has the app name "Frontend App": deactivate that key, or choose another app name. `+
			`It is the key with the ID `+first.ID+`.`)
	if keys := f.keys(); len(keys) != 1 || string(keys[0].UID) != first.ID {
		t.Errorf("the keys are %v", keys)
	}
	named := func(appName string) string { return strings.Replace(readOnly, "Frontend App", appName, 1) }
	cafe := f.create(named("Caf\u00e9"))
	f.call("POST /v1/api-keys", f.writer.Token, named("Cafe\u0301")).
		assertError(t, 409, "An active key has the app name \"Cafe\u0301\": deactivate that key, or choose another app name. "+
			"It is the key with the ID "+cafe.ID+".")
	payload[deactivatedKey](t, f.call("DELETE /v1/api-keys/"+first.ID, f.writer.Token))
	if second := f.create(readOnly); second.ID == first.ID || second.Token == first.Token {
		t.Errorf("the second key is the first: %s", second.ID)
	}
}

// The Squirrel backend reports the conflict before other problems of the key.
func TestCreate_AConflictIsReportedBeforeMissingAccess(t *testing.T) {
	f := newFixture(t)
	first := f.create(readOnly)
	f.call("POST /v1/api-keys", f.writer.Token, `{"appName": "Frontend App", "readAccess": false, "writeAccess": false}`).
		assertError(t, 409, `An active key has the app name "Frontend App": deactivate that key, or choose another app name. `+
			`It is the key with the ID `+first.ID+`.`)
}

func TestCreate_AHolderIsFoundBeforeAKeyIsWritten(t *testing.T) {
	f := newFixture(t)
	f.stopController() // it would stall a second key
	waiting := f.apply("waiting", v1alpha1.APIKeySpec{AppName: "Frontend App", ReadAccess: true}, nil)
	framework.Eventually(t, "the console lists the key", func() bool { return f.count("") == 3 })
	f.call("POST /api/v1/api-keys", f.writer.Token, readOnly).assertError(t, 409,
		`A key that is not issued yet has the app name "Frontend App": deactivate that key, or choose another app name. `+
			`It is the key with the ID `+string(waiting.UID)+`.`)
	if keys := f.keys(); len(keys) != 1 {
		t.Errorf("the keys are %v", keys)
	}
}

// A console that has not seen the end of the holder yet asks the Kubernetes API.
func TestCreate_AnAppNameIsFreeAsSoonAsItsHolderHasEnded(t *testing.T) {
	f := newFixture(t)
	other := f.startConsole()
	for i := range 10 {
		created := payload[apiKey](t, f.call("POST /api/v1/api-keys", f.writer.Token, readOnly))
		if i%2 == 0 {
			payload[deactivatedKey](t, f.call("DELETE /v1/api-keys/"+created.ID, f.writer.Token))
		} else {
			f.deleteKeys()
		}
		second := payload[apiKey](t, other.call("POST /api/v1/api-keys", f.writer.Token, readOnly))
		framework.Eventually(t, "the first console knows the key", func() bool { return f.call("GET /v1/api-keys/"+second.ID, f.reader.Token).status == 200 })
		f.deactivate(second.ID)
	}
}

func TestDeactivate_NamesTheKeyThatGetsTheAppName(t *testing.T) {
	f := newFixture(t)
	holder := f.create(readOnly)
	var waiting []*v1alpha1.APIKey
	for _, name := range []string{"second", "third"} {
		key := f.apply(name, v1alpha1.APIKeySpec{AppName: "Frontend App", ReadAccess: true}, nil)
		f.awaitDetails(string(key.UID), "stalled", "AppNameConflict")
		waiting = append(waiting, key)
	}
	slices.SortFunc(waiting, func(a, b *v1alpha1.APIKey) int {
		return stdcmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), stdcmp.Compare(a.UID, b.UID))
	})
	if got := f.deactivate(string(waiting[1].UID)); got.HandedTo != nil {
		t.Errorf("a key that holds no app name hands it to %v", got.HandedTo)
	}
	if got := f.deactivate(holder.ID); got.HandedTo == nil || got.HandedTo.ID != string(waiting[0].UID) || got.HandedTo.Name != waiting[0].Name {
		t.Errorf("the app name is handed to %v, want %s", got.HandedTo, waiting[0].Name)
	}
	f.awaitDetails(string(waiting[0].UID), "active", "Issued")
	if got := f.deactivate(string(waiting[0].UID)); got.HandedTo != nil {
		t.Errorf("the app name is handed to %v", got.HandedTo)
	}
}

func TestCreate_InvalidBodiesAreRefused(t *testing.T) {
	const (
		notJSON     = `The body is not JSON in UTF-8: send an object such as {"app_name": "Frontend App", "read_access": true, "write_access": false}.`
		notAnObject = `The body must be a JSON object, such as {"app_name": "Frontend App", "read_access": true, "write_access": false}.`
		badAppName  = "app_name must be 1 to 255 printable characters of any language, without leading or trailing space."
		badTime     = "expires_at must be a date and time with a time zone (RFC 3339), such as 2027-06-01T00:00:00Z, or null."
		noAccess    = "A key needs read_access, write_access or both."
		missing     = "app_name is required and must be a string. read_access is required and must be true or false, without quotes. " +
			"write_access is required and must be true or false, without quotes."
	)
	with := func(field string) string { return strings.TrimSuffix(readOnly, "}") + ", " + field + "}" }
	named := func(appName string) string { return strings.Replace(readOnly, "Frontend App", appName, 1) }
	f := newFixture(t)
	for _, c := range []struct {
		body   string
		status int
		want   string
	}{
		{``, 400, notJSON},
		{`hello`, 400, notJSON},
		{`app_name=Frontend&read_access=true`, 400, notJSON},
		{readOnly + `x`, 400, notJSON},
		{readOnly + readOnly, 400, notJSON},
		{named("\xff"), 400, notJSON},
		{strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000), 400, notJSON},
		{strings.Repeat(" ", 64<<10) + readOnly, 413, "The body is longer than 65536 bytes."},
		{`{"app_name": "` + strings.Repeat("x", 10<<20) + `"}`, 413, "The body is longer than 65536 bytes."},
		{`null`, 422, notAnObject},
		{`[` + readOnly + `]`, 422, notAnObject},
		{`"Frontend App"`, 422, notAnObject},
		{`{}`, 422, missing},
		{`{"app_name": null, "read_access": null, "write_access": null}`, 422, missing},
		{`{"app_name": 7, "read_access": "true", "write_access": 0}`, 422, missing},
		{with(`"app_name": "Other"`), 422, `The body repeats a field: duplicate field "app_name".`},
		{with(`"appName": "Other"`), 422, "The field app_name is given twice, in snake_case and in camelCase: give it once."},
		{with(`"App_Name": "Other", "token": {"a": []}`), 422,
			`The field "App_Name" is unknown: a key has app_name, read_access, write_access and expires_at. ` +
				`The field "token" is unknown: a key has app_name, read_access, write_access and expires_at.`},
		{with(`"token_hash": "sha256:0"`), 422, `The field "token_hash" is unknown: a key has app_name, read_access, write_access and expires_at.`},
		{strings.Replace(readOnly, "true", "false", 1), 422, noAccess},
		{with(`"expires_at": "tomorrow"`), 422, badTime},
		{with(`"expires_at": "2027-06-01"`), 422, badTime},
		{with(`"expires_at": "2027-06-01T00:00:00"`), 422, badTime},
		{with(`"expires_at": 1811808000`), 422, badTime},
		{with(`"expires_at": "9999-01-01T00:00:00Z"`), 422, "expires_at must be before the year 9999."},
		{named(`\ud800`), 422, "app_name contains an invalid character."},
		{named(""), 422, badAppName},
		{named(" Frontend"), 422, badAppName},
		{named(`a\u0000b`), 422, badAppName},
		{named(`a\nb`), 422, badAppName},
		{named(strings.Repeat("ü", 256)), 422, badAppName},
	} {
		f.call("POST /api/v1/api-keys", f.writer.Token, c.body).assertError(t, c.status, c.want)
	}
	if got := f.call("POST /api/v1/api-keys", f.writer.Token, with(`"expires_at": "2001-01-01T00:00:00Z"`)); got.status != 422 ||
		!strings.Contains(got.body, "expires_at must be in the future; it is now 2") {
		t.Errorf("the response is %d %s", got.status, got.body)
	}
	if keys := f.keys(); len(keys) != 0 {
		t.Errorf("the keys are %v", keys)
	}
	payload[apiKey](t, f.call("POST /api/v1/api-keys", f.writer.Token, named(strings.Repeat("ü", 255))))
}

func TestCreate_NeedsTheContentTypeOfJSON(t *testing.T) {
	f := newFixture(t)
	for i, c := range []struct {
		contentType string
		status      int
	}{
		{"", 415}, {"application/x-www-form-urlencoded", 415}, {"text/json", 415}, {"json", 415},
		{"application/json", 200}, {"Application/JSON; charset=utf-8", 200},
	} {
		body := fmt.Sprintf(`{"app_name": "App %d", "read_access": true, "write_access": false}`, i)
		request := f.request("POST /v1/api-keys", f.writer.Token, body)
		request.Header.Set("Content-Type", c.contentType)
		got := f.send(request)
		if c.status == 415 {
			got.assertError(t, 415, "The body must be JSON: set Content-Type to application/json.")
		} else {
			payload[apiKey](t, got)
		}
	}
}

func TestDeactivate_TheKeyIsRefusedAtOnce(t *testing.T) {
	f := newFixture(t)
	created := f.create(readOnly)
	deactivated := f.deactivate(created.ID).apiKey
	f.call("GET /api/v1/api-keys", created.Token).assertError(t, 401, keyRequired)
	keys := f.keys()
	if len(keys) != 1 || *keys[0].Spec.Active || string(keys[0].UID) != created.ID {
		t.Fatalf("the keys are %v", keys)
	}
	want := apiKeyOf(&keys[0], false)
	want.UpdatedAt, want.Reason, want.Message = deactivated.UpdatedAt, deactivated.Reason, deactivated.Message
	if diff := cmp.Diff(want, deactivated); diff != "" || deactivated.UpdatedAt.Before(created.UpdatedAt) {
		t.Errorf("the deactivated key, updated at %s (-want +got):\n%s", deactivated.UpdatedAt, diff)
	}
	isListed := func(k apiKey) bool {
		early := k.UpdatedAt.Before(deactivated.UpdatedAt)
		// The controller records the end, perhaps later.
		k.UpdatedAt, k.Reason, k.Message = deactivated.UpdatedAt, deactivated.Reason, deactivated.Message
		return !early && cmp.Equal(deactivated, k)
	}
	if listed := f.list(""); !slices.ContainsFunc(listed, isListed) {
		t.Errorf("the list does not contain %v: %v", deactivated, listed)
	}
	if all, active := f.count(""), f.count("?active_only=true"); all != 3 || active != 2 {
		t.Errorf("%d keys, %d of them active", all, active)
	}
	f.call("DELETE /v1/api-keys/"+created.ID, f.writer.Token).assertError(t, 409, alreadyInactive)
}

func TestDeactivate_OneOfTwoConcurrentRequestsSucceeds(t *testing.T) {
	f := newFixture(t)
	other := f.startConsole()
	created := f.create(readOnly)
	framework.Eventually(f, "both consoles know the key", func() bool {
		return len(payload[[]apiKey](t, other.call("GET /v1/api-keys?active_only=true", f.reader.Token))) == 3
	})
	statuses := make([]int, 2)
	var deactivating sync.WaitGroup
	for i, c := range []*console{f.console, other} {
		deactivating.Go(func() { statuses[i] = c.call("DELETE /v1/api-keys/"+created.ID, f.writer.Token).status })
	}
	deactivating.Wait()
	if statuses[0]+statuses[1] != 200+409 {
		t.Errorf("the statuses are %v", statuses)
	}
}

func TestDeactivate_UnknownIDsAreNotFound(t *testing.T) {
	f := newFixture(t)
	gone := f.create(readOnly).ID
	f.remove(gone)
	for _, id := range []string{unknownID, gone, f.writer.Key.Name, "x", "%00", "..", "Frontend%20App", strings.Repeat("9", 4000)} {
		f.call("DELETE /api/v1/api-keys/"+id, f.writer.Token).assertError(t, 404, keyNotFound)
		f.call("DELETE /v1/api-keys/"+id+"?force=true", f.writer.Token).assertError(t, 404, keyNotFound)
	}
}

func TestDeactivate_TheCallersKeyNeedsForce(t *testing.T) {
	f := newFixture(t)
	self := "DELETE /api/v1/api-keys/" + string(f.writer.Key.UID)
	f.call(self, f.writer.Token).assertError(t, 409, ownKey)
	f.call(self+"?force=false", f.writer.Token).assertError(t, 409, ownKey)
	payload[int](t, f.call("GET /v1/api-keys/count", f.reader.Token))
	if got := payload[deactivatedKey](t, f.call(self+"?force=true", f.writer.Token)); got.IsActive || got.ID != string(f.writer.Key.UID) {
		t.Errorf("the payload is %v", got)
	}
	f.call(self+"?force=true", f.writer.Token).assertError(t, 401, keyRequired)
}

func TestDeactivate_AKeyWhoseExpiryIsNotOnRecord(t *testing.T) {
	f := newFixture(t)
	f.stopController() // it would record the expiry
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "expired"},
		Spec:       v1alpha1.APIKeySpec{AppName: "Expired", ReadAccess: true, ExpiresAt: new(metav1.NewTime(time.Now().Add(-time.Minute)))},
	}
	framework.Must(t, f.Env.Client.Create(t.Context(), key))
	framework.Eventually(f, "the console lists the key", func() bool { return f.count("") == 3 })
	if got := payload[deactivatedKey](t, f.call("DELETE /v1/api-keys/"+string(key.UID), f.writer.Token)); got.IsActive || got.ID != string(key.UID) {
		t.Errorf("the payload is %v", got)
	}
	f.call("DELETE /v1/api-keys/"+string(key.UID), f.writer.Token).assertError(t, 409, alreadyInactive)
}

func TestFailuresOfTheKubernetesAPI_AreServerErrors(t *testing.T) {
	const (
		denied  = "The Kubernetes API denied the request of this server, and nothing was changed: see the log of this server."
		noWrite = "The Kubernetes API cannot be reached, and nothing was changed: try again."
		noRead  = "The Kubernetes API cannot be reached: try again."
	)
	f := newFixture(t)
	unprivileged, err := client.NewWithWatch(f.Env.User(t, "unprivileged"), client.Options{Scheme: f.Env.Scheme})
	framework.Must(t, err)
	c := f.startConsole(func(o *api.Options) { o.Client = unprivileged })
	c.call("POST /v1/api-keys", f.writer.Token, readOnly).assertError(t, 500, denied)
	c.call("DELETE /v1/api-keys/"+string(f.reader.Key.UID), f.writer.Token).assertError(t, 500, denied)
	c.call("PATCH /v1/api-keys/"+string(f.reader.Key.UID), f.writer.Token, `{"write_access": true}`).assertError(t, 500, denied)
	c.call("GET /v1/api-keys/"+string(f.reader.Key.UID), f.reader.Token).assertError(t, 500, denied)

	broken := f.consoleConfig()
	broken.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if strings.Contains(r.URL.Path, "/apikeys") {
				return nil, errors.New("the network is down")
			}
			return next.RoundTrip(r)
		})
	})
	unreachable, err := client.NewWithWatch(broken, client.Options{Scheme: f.Env.Scheme})
	framework.Must(t, err)
	c = f.startConsole(func(o *api.Options) { o.Client = unreachable })
	c.call("POST /v1/api-keys", f.writer.Token, readOnly).assertError(t, 503, noWrite)
	c.call("DELETE /v1/api-keys/"+string(f.reader.Key.UID), f.writer.Token).assertError(t, 503, noWrite)
	c.call("PATCH /v1/api-keys/"+string(f.reader.Key.UID), f.writer.Token, `{"write_access": true}`).assertError(t, 503, noWrite)
	c.call("GET /v1/api-keys/"+string(f.reader.Key.UID), f.reader.Token).assertError(t, 503, noRead)
	if keys := f.keys(); len(keys) != 0 {
		t.Errorf("the keys are %v", keys)
	}
}

func TestChangesThatThisServerDoesNotSee_AreNotReportedAsDone(t *testing.T) {
	const (
		notAccepted = "The key was not accepted within 10s, and was deleted. Check that the controller is running, and try again."
		notSeen     = "The key is deactivated, but this server has not seen that within 10s: it may accept the key for a while longer."
	)
	f := newFixture(t)
	watching, stopWatching := context.WithCancel(t.Context())
	keyring := authn.NewKeyring()
	var running sync.WaitGroup
	running.Go(func() { _ = keyring.Run(watching, f.consoleConfig(), f.Namespace) })
	framework.Eventually(f, "the keys are listed", keyring.Synced)
	stopWatching()
	running.Wait()
	outdated := f.startConsole(func(o *api.Options) { o.Authenticator = authn.NewAuthenticator(keyring, 0, time.Now) })

	var calling sync.WaitGroup
	calling.Go(func() { outdated.call("POST /v1/api-keys", f.writer.Token, readOnly).assertError(t, 503, notAccepted) })
	calling.Go(func() {
		outdated.call("DELETE /v1/api-keys/"+string(f.reader.Key.UID), f.writer.Token).assertError(t, 503, notSeen)
	})
	calling.Wait()
	if keys := f.keys(); len(keys) != 0 {
		t.Errorf("left: %v", keys)
	}
	f.call("GET /v1/api-keys", f.reader.Token).assertError(t, 401, keyRequired) // by a console that has seen the deactivation
}

func TestCreate_AKeyThatEndsBeforeItIsAcceptedIsReported(t *testing.T) {
	f := newFixture(t)
	f.stopController()
	for name, end := range map[string]func(*v1alpha1.APIKey) error{
		"deleted": func(key *v1alpha1.APIKey) error { return f.Env.Client.Delete(t.Context(), key) },
		"deactivated": func(key *v1alpha1.APIKey) error {
			key.Spec.Active = new(false)
			return f.Env.Client.Update(t.Context(), key)
		},
		"expired": func(key *v1alpha1.APIKey) error {
			key.Status.DeactivatedAt = new(metav1.Now())
			return f.Env.Client.Status().Update(t.Context(), key)
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan response, 1)
			go func() { got <- f.call("POST /v1/api-keys", f.writer.Token, readOnly) }()
			framework.Eventually(t, "the key waits for the controller", func() bool { return len(f.keys()) == 1 })
			framework.Must(t, end(&f.keys()[0]))
			(<-got).assertError(t, 503, "The key has ended or was deleted before its creation was finished: try again.")
			if keys := f.keys(); len(keys) != 0 {
				t.Errorf("left: %v", keys)
			}
		})
	}
}

func TestCreate_ACancelledRequestLeavesNoKey(t *testing.T) {
	f := newFixture(t)
	f.stopController()
	ctx, cancel := context.WithCancel(t.Context())
	cancelled := make(chan error, 1)
	go func() {
		response, err := f.client.Do(f.request("POST /v1/api-keys", f.writer.Token, readOnly).WithContext(ctx))
		if err == nil {
			err = response.Body.Close()
		}
		cancelled <- err
	}()
	framework.Eventually(f, "the key waits for the controller", func() bool { return len(f.keys()) == 1 })
	cancel()
	if err := <-cancelled; !errors.Is(err, context.Canceled) {
		t.Errorf("the error of the cancelled request is %v", err)
	}
	framework.Eventually(f, "the key is gone", func() bool { return len(f.keys()) == 0 })
}

func TestMetrics_CountResponses(t *testing.T) {
	f := newFixture(t)
	registry := prometheus.NewRegistry()
	console := f.startConsole(func(o *api.Options) { o.Metrics = api.NewMetrics(registry) })
	for _, request := range []string{"GET /v1/api-keys", "HEAD /api/v1/api-keys", "GET /api/v1/api-keys?limit=0", "GET /v1/nothing", "BREW /v1/api-keys"} {
		console.call(request, f.reader.Token)
	}
	console.call("DELETE /v1/api-keys/x", "")
	got := map[string]float64{}
	families, err := registry.Gather()
	framework.Must(t, err)
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			name := family.GetName()
			for _, label := range metric.GetLabel() {
				name += " " + label.GetValue()
			}
			got[name] = metric.GetCounter().GetValue()
		}
	}
	want := map[string]float64{
		"apikey_management_answers_total deactivateKey 401": 1,
		"apikey_management_answers_total listKeys 200":      2,
		"apikey_management_answers_total listKeys 422":      1,
		"apikey_management_answers_total none 401":          1,
		"apikey_management_answers_total none 404":          1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the counters (-want +got):\n%s", diff)
	}
}

// roundTripper is a function as an http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestPanic_Returns500(t *testing.T) {
	f := newFixture(t)
	console := f.startConsole(func(o *api.Options) { o.Client = nil })
	console.call("POST /v1/api-keys", f.writer.Token, readOnly).assertError(t, 500, "An internal error occurred; the log of this server has the details. "+
		"The request may have taken effect: list the keys to check.")
	payload[int](t, console.call("GET /v1/api-keys/count", f.reader.Token))
}

func TestInvariant4_AnUnknownKeyGets503UntilTheBootstrapKeyIsReady(t *testing.T) {
	f := newFixture(t)
	pending := errors.New("not yet")
	console := f.startConsole(func(o *api.Options) { o.BootstrapReady = func() error { return pending } })
	const unknown = "1111111111111111111111111111111111111111111111111111111111111111"
	console.call("GET /v1/api-keys", unknown).assertError(t, 503, notReady)
	console.call("GET /v1/health", "").assertError(t, 503, notReady)
	console.call("GET /v1/api-keys", "").assertError(t, 401, keyRequired)
	payload[int](t, console.call("GET /v1/api-keys/count", f.reader.Token))
	pending = nil
	console.call("GET /v1/api-keys", unknown).assertError(t, 401, keyRequired)
}
