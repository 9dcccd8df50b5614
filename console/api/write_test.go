// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
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
	noSuchKey       = "There is no key of this id. An id is a UUID, as the list of keys has it."
	ownKey          = "This is the key that the call is made with: add force=true to the query to deactivate it all the same."
)

// create creates a key by the API.
func (f *fixture) create(body string) shown {
	f.Helper()
	return payload[shown](f, f.call("POST /api/v1/api-keys", f.writer.Token, body))
}

func TestACreatedKeyCanBeUsedAtOnce(t *testing.T) {
	f := newFixture(t)
	expiresAt := time.Now().Add(time.Hour).Truncate(time.Second).UTC()
	for name, call := range map[string]struct {
		path, body string
		expiresAt  *time.Time
	}{
		"snake_case": {"/api/v1/api-keys", `{"app_name": "Snake", "read_access": true, "write_access": false, "expires_at": null}`, nil},
		"camelCase": {"/v1/api-keys", fmt.Sprintf(`{"appName": "Camel", "readAccess": true, "writeAccess": false, "expiresAt": %q}`,
			expiresAt.In(time.FixedZone("", 3600)).Format(time.RFC3339)), &expiresAt},
	} {
		t.Run(name, func(t *testing.T) {
			created := payload[shown](t, f.call("POST "+call.path, f.writer.Token, call.body))
			if len(created.Token) != token.Length || !strings.HasPrefix(created.Token, token.Prefix) {
				t.Errorf("the token has %d characters", len(created.Token))
			}
			listed := payload[[]shown](t, f.call("GET /api/v1/api-keys", created.Token)) // with the new key
			var declared *v1alpha1.APIKey
			for _, key := range f.keys() {
				if string(key.UID) == created.ID {
					declared = &key
				}
			}
			if declared == nil {
				t.Fatalf("there is no APIKey of the id %s", created.ID)
			}
			want := shownAs(declared, true)
			if !slices.ContainsFunc(listed, func(s shown) bool { return cmp.Equal(want, s) }) {
				t.Errorf("it is not listed as %v, but so: %v", want, listed)
			}
			want.Token = created.Token
			if diff := cmp.Diff(want, created); diff != "" {
				t.Errorf("it is created so (-want +got):\n%s", diff)
			}
			wantSpec := v1alpha1.APIKeySpec{
				AppName: created.AppName, ReadAccess: true, Active: new(true),
				TokenHash: token.Hash(created.Token), TokenHint: token.Hint(created.Token),
			}
			if call.expiresAt != nil {
				wantSpec.ExpiresAt = new(metav1.NewTime(*call.expiresAt))
			}
			if diff := cmp.Diff(wantSpec, declared.Spec); diff != "" {
				t.Errorf("spec (-want +got):\n%s", diff)
			}
			by := map[string]string{"keys.squirrel.dev/created-by": string(f.writer.Key.UID)}
			if diff := cmp.Diff(by, declared.Annotations); diff != "" {
				t.Errorf("annotations (-want +got):\n%s", diff)
			}
			if !regexp.MustCompile(`^(snake|camel)-[a-z2-7]{8}$`).MatchString(declared.Name) {
				t.Errorf("its name is %q", declared.Name)
			}
		})
	}
}

func TestAnAppNameBelongsToOneActiveKey(t *testing.T) {
	f := newFixture(t)
	first := f.create(readOnly)
	f.call("POST /v1/api-keys", f.writer.Token, readOnly).
		refused(t, 409, `An active key has the app name "Frontend App": deactivate that key, or choose another app name. `+
			`It is the key with id `+first.ID+`.`)
	if keys := f.keys(); len(keys) != 1 || string(keys[0].UID) != first.ID {
		t.Errorf("the keys are %v", keys)
	}
	named := func(appName string) string { return strings.Replace(readOnly, "Frontend App", appName, 1) }
	cafe := f.create(named("Caf\u00e9"))
	f.call("POST /v1/api-keys", f.writer.Token, named("Cafe\u0301")).
		refused(t, 409, "An active key has the app name \"Cafe\u0301\": deactivate that key, or choose another app name. "+
			"It is the key with id "+cafe.ID+".")
	payload[shown](t, f.call("DELETE /v1/api-keys/"+first.ID, f.writer.Token))
	if second := f.create(readOnly); second.ID == first.ID || second.Token == first.Token {
		t.Errorf("the second key is the first: %s", second.ID)
	}
}

func TestBodiesThatCannotBeRightAreRefused(t *testing.T) {
	const (
		notJSON     = `The body is not JSON in UTF-8: send an object such as {"app_name": "Frontend App", "read_access": true, "write_access": false}.`
		notAnObject = `The body must be a JSON object, such as {"app_name": "Frontend App", "read_access": true, "write_access": false}.`
		badAppName  = "app_name must be 1 to 255 printable characters of any language, without leading or trailing space."
		badTime     = "expires_at must be a date and time with its zone, such as 2027-06-01T00:00:00Z (RFC 3339), or null."
		noAccess    = "A key needs at least one of read_access and write_access."
		missing     = "app_name must be there, and be a string. read_access must be there, and be true or false (without quotes). " +
			"write_access must be there, and be true or false (without quotes)."
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
		{with(`"app_name": "Other"`), 422, `The body has the same field more than once: duplicate field "app_name".`},
		{with(`"appName": "Other"`), 422, "The field app_name is there by both of its names: give it once."},
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
		{named(`\ud800`), 422, "app_name has something in it that is no character."},
		{named(""), 422, badAppName},
		{named(" Frontend"), 422, badAppName},
		{named(`a\u0000b`), 422, badAppName},
		{named(`a\nb`), 422, badAppName},
		{named(strings.Repeat("ü", 256)), 422, badAppName},
	} {
		f.call("POST /api/v1/api-keys", f.writer.Token, c.body).refused(t, c.status, c.want)
	}
	if got := f.call("POST /api/v1/api-keys", f.writer.Token, with(`"expires_at": "2001-01-01T00:00:00Z"`)); got.status != 422 ||
		!strings.Contains(got.body, "expires_at must be in the future, and it is now 2") {
		t.Errorf("the answer is %d %s", got.status, got.body)
	}
	if keys := f.keys(); len(keys) != 0 {
		t.Errorf("the keys are %v", keys)
	}
	payload[shown](t, f.call("POST /api/v1/api-keys", f.writer.Token, named(strings.Repeat("ü", 255))))
}

func TestABodyMustSayThatItIsJSON(t *testing.T) {
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
			got.refused(t, 415, "The body must be JSON: send it with Content-Type: application/json.")
		} else {
			payload[shown](t, got)
		}
	}
}

func TestADeactivatedKeyIsRefusedAtOnce(t *testing.T) {
	f := newFixture(t)
	created := f.create(readOnly)
	ended := payload[shown](t, f.call("DELETE /api/v1/api-keys/"+created.ID, f.writer.Token))
	f.call("GET /api/v1/api-keys", created.Token).refused(t, 401, keyRequired)
	keys := f.keys()
	if len(keys) != 1 || *keys[0].Spec.Active || string(keys[0].UID) != created.ID {
		t.Fatalf("the keys are %v", keys)
	}
	want := shownAs(&keys[0], false)
	want.UpdatedAt = ended.UpdatedAt
	if diff := cmp.Diff(want, ended); diff != "" || ended.UpdatedAt.Before(created.UpdatedAt) {
		t.Errorf("it ended at %s (-want +got):\n%s", ended.UpdatedAt, diff)
	}
	isEnded := func(s shown) bool {
		early := s.UpdatedAt.Before(ended.UpdatedAt)
		s.UpdatedAt = ended.UpdatedAt // when the controller has recorded the end, it is then, which may be later
		return !early && cmp.Equal(ended, s)
	}
	if listed := f.list(""); !slices.ContainsFunc(listed, isEnded) {
		t.Errorf("it is not listed as %v, but so: %v", ended, listed)
	}
	if all, active := f.count(""), f.count("?active_only=true"); all != 3 || active != 2 {
		t.Errorf("%d keys, %d of them active", all, active)
	}
	f.call("DELETE /v1/api-keys/"+created.ID, f.writer.Token).refused(t, 409, alreadyInactive)
}

func TestOfTwoDeactivationsAtOnceOneSucceeds(t *testing.T) {
	f := newFixture(t)
	other := f.startConsole()
	created := f.create(readOnly)
	framework.Eventually(f, "both consoles know the key", func() bool {
		return len(payload[[]shown](t, other.call("GET /v1/api-keys?active_only=true", f.reader.Token))) == 3
	})
	statuses := make([]int, 2)
	var deactivating sync.WaitGroup
	for i, c := range []*console{f.console, other} {
		deactivating.Go(func() { statuses[i] = c.call("DELETE /v1/api-keys/"+created.ID, f.writer.Token).status })
	}
	deactivating.Wait()
	if statuses[0]+statuses[1] != 200+409 {
		t.Errorf("the answers are %v", statuses)
	}
}

func TestIDsThatAreNoKeysAreNotFound(t *testing.T) {
	f := newFixture(t)
	gone := f.create(readOnly).ID
	f.remove(gone)
	for _, id := range []string{somethingElse, gone, f.writer.Key.Name, "x", "%00", "..", "Frontend%20App", strings.Repeat("9", 4000)} {
		f.call("DELETE /api/v1/api-keys/"+id, f.writer.Token).refused(t, 404, noSuchKey)
		f.call("DELETE /v1/api-keys/"+id+"?force=true", f.writer.Token).refused(t, 404, noSuchKey)
	}
}

func TestAKeyDeactivatesItselfByForceOnly(t *testing.T) {
	f := newFixture(t)
	self := "DELETE /api/v1/api-keys/" + string(f.writer.Key.UID)
	f.call(self, f.writer.Token).refused(t, 409, ownKey)
	f.call(self+"?force=false", f.writer.Token).refused(t, 409, ownKey)
	payload[int](t, f.call("GET /v1/api-keys/count", f.reader.Token))
	if got := payload[shown](t, f.call(self+"?force=true", f.writer.Token)); got.IsActive || got.ID != string(f.writer.Key.UID) {
		t.Errorf("the answer is %v", got)
	}
	f.call(self+"?force=true", f.writer.Token).refused(t, 401, keyRequired)
}

func TestAKeyWhoseExpiryIsNotOnRecordCanBeDeactivated(t *testing.T) {
	f := newFixture(t)
	f.stopController() // which would record the expiry
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "expired"},
		Spec:       v1alpha1.APIKeySpec{AppName: "Expired", ReadAccess: true, ExpiresAt: new(metav1.NewTime(time.Now().Add(-time.Minute)))},
	}
	framework.Must(t, f.Env.Client.Create(t.Context(), key))
	framework.Eventually(f, "the console has heard of the key", func() bool { return f.count("") == 3 })
	if got := payload[shown](t, f.call("DELETE /v1/api-keys/"+string(key.UID), f.writer.Token)); got.IsActive || got.ID != string(key.UID) {
		t.Errorf("the answer is %v", got)
	}
	f.call("DELETE /v1/api-keys/"+string(key.UID), f.writer.Token).refused(t, 409, alreadyInactive)
}

func TestFailuresOfTheKubernetesAPIAreNotTheCallers(t *testing.T) {
	const (
		refused    = "The Kubernetes API refused what this server asked of it, and nothing was changed. The log of this server says more."
		notRemoved = "The key was not accepted within 10s, and could not be removed again either: look for it in the list of keys."
		noAnswer   = "The Kubernetes API did not answer as it should: try again."
	)
	f := newFixture(t)
	unauthorized, err := client.NewWithWatch(f.Env.User(t, "nobody"), client.Options{Scheme: f.Env.Scheme})
	framework.Must(t, err)
	noRights := f.startConsole(func(o *api.Options) { o.Kubernetes = unauthorized })
	noRights.call("POST /v1/api-keys", f.writer.Token, readOnly).refused(t, 500, refused)
	noRights.call("DELETE /v1/api-keys/"+string(f.reader.Key.UID), f.writer.Token).refused(t, 500, refused)

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
	away := f.startConsole(func(o *api.Options) { o.Kubernetes = unreachable })
	away.call("POST /v1/api-keys", f.writer.Token, readOnly).refused(t, 503, notRemoved)
	away.call("DELETE /v1/api-keys/"+string(f.reader.Key.UID), f.writer.Token).refused(t, 503, noAnswer)
	if keys := f.keys(); len(keys) != 0 {
		t.Errorf("the keys are %v", keys)
	}
}

func TestAChangeThatThisServerDoesNotHearOfIsNotCalledDone(t *testing.T) {
	const (
		notAccepted = "The key was not accepted within 10s, and nothing is left of it. Is the controller running? Try again."
		notHeard    = "The key is deactivated, but this server has not heard so within 10s: it may be accepted for a while longer."
	)
	f := newFixture(t)
	hearing, stopHearing := context.WithCancel(t.Context())
	keyring := authn.NewKeyring()
	var listening sync.WaitGroup
	listening.Go(func() { _ = keyring.Run(hearing, f.consoleConfig(), f.Namespace) })
	framework.Eventually(f, "the keys are known", keyring.Synced)
	stopHearing()
	listening.Wait()
	deaf := f.startConsole(func(o *api.Options) { o.Authenticator = authn.NewAuthenticator(keyring, 0, time.Now) })

	var calling sync.WaitGroup
	calling.Go(func() { deaf.call("POST /v1/api-keys", f.writer.Token, readOnly).refused(t, 503, notAccepted) })
	calling.Go(func() {
		deaf.call("DELETE /v1/api-keys/"+string(f.reader.Key.UID), f.writer.Token).refused(t, 503, notHeard)
	})
	calling.Wait()
	if keys := f.keys(); len(keys) != 0 {
		t.Errorf("left: %v", keys)
	}
	f.call("GET /v1/api-keys", f.reader.Token).refused(t, 401, keyRequired) // by one who hears
}

func TestACallerWhoGoesAwayLeavesNoKey(t *testing.T) {
	f := newFixture(t)
	f.stopController()
	calling, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		response, err := f.client.Do(f.request("POST /v1/api-keys", f.writer.Token, readOnly).WithContext(calling))
		if err == nil {
			err = response.Body.Close()
		}
		left <- err
	}()
	framework.Eventually(f, "the key waits for the controller", func() bool { return len(f.keys()) == 1 })
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the caller got an answer: %v", err)
	}
	framework.Eventually(f, "the key is gone", func() bool { return len(f.keys()) == 0 })
}

func TestAnswersAreCounted(t *testing.T) {
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

// roundTripper does what it is to do with a call to the API.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestAPanicIsAnAnswerToo(t *testing.T) {
	f := newFixture(t)
	console := f.startConsole(func(o *api.Options) { o.Kubernetes = nil })
	console.call("POST /v1/api-keys", f.writer.Token, readOnly).refused(t, 500, "Something went wrong in this server, and its log says what. "+
		"Whether the call took effect is not known: list the keys to see.")
	payload[int](t, console.call("GET /v1/api-keys/count", f.reader.Token))
}

func TestInvariant4_AnUnknownKeyMayBeTheBootstrapKeyUntilThatIsSettled(t *testing.T) {
	f := newFixture(t)
	pending := errors.New("not yet")
	console := f.startConsole(func(o *api.Options) { o.Bootstrapped = func() error { return pending } })
	const unknown = "1111111111111111111111111111111111111111111111111111111111111111"
	console.call("GET /v1/api-keys", unknown).refused(t, 503, notReady)
	console.call("GET /v1/health", "").refused(t, 503, notReady)
	console.call("GET /v1/api-keys", "").refused(t, 401, keyRequired)
	payload[int](t, console.call("GET /v1/api-keys/count", f.reader.Token))
	pending = nil
	console.call("GET /v1/api-keys", unknown).refused(t, 401, keyRequired)
}
