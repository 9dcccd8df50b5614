// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
)

const (
	alreadyRotating = "A rotation of this key is under way, or has just ended, and only its own response has the new token. Wait until it " +
		"has ended. If you do not have the new token then, rotate the key again."
	ownTokenEnds = "This is the key that authenticates the request, and its token would end at once: to rotate it, add force=true to the query."
)

// rotatedKey is a key in the response to its rotation.
type rotatedKey struct {
	apiKey
	FormerTokenExpiresAt *time.Time `json:"former_token_expires_at"`
	HandedTo             *struct {
		SecretName string `json:"secret_name"`
		Key        string `json:"key"`
	} `json:"handed_to"`
}

// rotate rotates the token of an imported key through the API.
func (f *fixture) rotate(id, body string) rotatedKey {
	f.Helper()
	return payload[rotatedKey](f, f.call("POST /api/v1/api-keys/"+id+"/rotate", f.writer.Token, body))
}

// object returns the APIKey with an ID.
func (f *fixture) object(id string) *v1alpha1.APIKey {
	f.Helper()
	list := &v1alpha1.APIKeyList{}
	framework.Must(f, f.Env.Client.List(f.Context(), list, client.InNamespace(f.Namespace)))
	for i := range list.Items {
		if string(list.Items[i].UID) == id {
			return &list.Items[i]
		}
	}
	f.Fatalf("no APIKey has the ID %s", id)
	return nil
}

// assertAccepted checks that the console accepts a token for reads, or refuses it.
func (f *fixture) assertAccepted(name, token string, accepted bool) {
	f.Helper()
	if status := f.call("GET /v1/api-keys/count", token).status; (status == http.StatusOK) != accepted {
		f.Errorf("the status of a read with %s is %d", name, status)
	}
}

func TestRotate_TheNewTokenIsAcceptedAtOnce(t *testing.T) {
	f := newFixture(t)
	created := f.create(readOnly)
	tokens := []string{created.Token}
	for _, c := range []struct {
		base    string
		body    []string
		overlap time.Duration
	}{
		{"/api/v1", nil, 24 * time.Hour},
		{"/v1", []string{`{}`}, 24 * time.Hour},
		{"/v1", []string{`{"overlap": "36h"}`}, 36 * time.Hour},
	} {
		before := f.object(created.ID)
		start := time.Now().Truncate(time.Second)
		got := payload[rotatedKey](t, f.call("POST "+c.base+"/api-keys/"+created.ID+"/rotate", f.writer.Token, c.body...))
		if len(got.Token) != token.Length || token.Hint(got.Token) != *got.Hint {
			t.Errorf("the token has %d characters, and the hint is %s", len(got.Token), *got.Hint)
		}
		if got.FormerTokenExpiresAt == nil || got.HandedTo != nil {
			t.Fatalf("the former token is accepted until %v, and the new one is handed to %v", got.FormerTokenExpiresAt, got.HandedTo)
		}
		if late := got.FormerTokenExpiresAt.Sub(start.Add(c.overlap)); late < 0 || late > framework.Timeout {
			t.Errorf("%s: the former token is accepted until %s", c.body, got.FormerTokenExpiresAt)
		}
		want := created
		want.Token, want.Hint, want.UpdatedAt, want.UnusedSince = got.Token, got.Hint, got.UpdatedAt, got.UnusedSince
		if diff := cmp.Diff(want.below(c.base), got.apiKey); diff != "" {
			t.Errorf("the key (-want +got):\n%s", diff)
		}
		tokens = append(tokens, got.Token)
		for _, issued := range tokens {
			f.assertAccepted("a token", issued, true)
		}
		object := f.object(created.ID)
		if object.Spec.TokenHash != token.Hash(got.Token) || object.Spec.TokenHint != *got.Hint || object.Spec.AppName != before.Spec.AppName {
			t.Errorf("the spec is %+v", object.Spec)
		}
		details := f.details(created.ID)
		if len(details.Tokens) != len(tokens) {
			t.Fatalf("the tokens are %v", details.Tokens)
		}
		for i, shown := range details.Tokens {
			record := object.Status.Tokens[i]
			ends := i > 0
			if *shown.Hint != record.Hint || !shown.IssuedAt.Equal(record.NotBefore.Time) || (shown.ExpiresAt != nil) != ends ||
				(ends && !shown.ExpiresAt.Equal(record.NotAfter.Time)) {
				t.Errorf("token %d is %v, want %v", i, shown, record)
			}
		}
	}
}

func TestRotate_WithoutAnOverlapFormerTokensAreRefusedAtOnce(t *testing.T) {
	f := newFixture(t)
	created := f.create(readOnly)
	first := f.rotate(created.ID, `{"overlap": "1h"}`)
	second := f.rotate(created.ID, `{"overlap": "0s"}`)
	if second.FormerTokenExpiresAt != nil {
		t.Errorf("the former token is accepted until %s", second.FormerTokenExpiresAt)
	}
	f.assertAccepted("the new token", second.Token, true)
	f.assertAccepted("the former token", first.Token, false)
	f.assertAccepted("the first token", created.Token, false)
	if details := f.details(created.ID); len(details.Tokens) != 1 || *details.Tokens[0].Hint != *second.Hint {
		t.Errorf("the tokens are %v", details.Tokens)
	}
}

// mint creates a key whose token the controller mints, and returns it once it is issued, with its token.
func (f *fixture) mint(name string, change ...func(*v1alpha1.APIKeySpec)) (key *v1alpha1.APIKey, minted string) {
	f.Helper()
	spec := v1alpha1.APIKeySpec{AppName: name, ReadAccess: true, Secret: &v1alpha1.TokenSecret{Key: "api-key"}}
	for _, c := range change {
		c(&spec)
	}
	key = f.apply(name, spec, nil)
	return key, f.tokenIn(*f.awaitDetails(string(key.UID), "active", "Issued").SecretName)
}

// tokenIn returns the token in a Secret.
func (f *fixture) tokenIn(name string) string {
	f.Helper()
	secret := &corev1.Secret{}
	framework.Must(f, f.Env.Client.Get(f.Context(), client.ObjectKey{Namespace: f.Namespace, Name: name}, secret))
	return string(secret.Data["api-key"])
}

func TestRotate_TheControllerHandsOverATokenThatItMints(t *testing.T) {
	f := newFixture(t)
	key, former := f.mint("minted")
	got := payloadOf[rotatedKey](t, f.call("POST /api/v1/api-keys/"+string(key.UID)+"/rotate", f.writer.Token, `{"overlap": "1h"}`), 202)
	minted := f.tokenIn("minted-token")
	if got.Token != "" || got.HandedTo == nil || got.HandedTo.SecretName != "minted-token" || got.HandedTo.Key != "api-key" || got.Rotating ||
		*got.Hint != token.Hint(minted) || minted == former {
		t.Errorf("the response is %+v", got)
	}
	if got.FormerTokenExpiresAt == nil || time.Until(*got.FormerTokenExpiresAt)-time.Hour > 0 {
		t.Errorf("the former token is accepted until %v", got.FormerTokenExpiresAt)
	}
	f.assertAccepted("the new token", minted, true)
	f.assertAccepted("the former token", former, true)
	details := f.details(got.ID)
	if len(details.Tokens) != 2 || details.Rotating || *details.SecretName != "minted-token" || strings.Contains(details.Manifest, "rotation") {
		t.Errorf("the key is %+v", details)
	}
}

func TestRotate_ARotationThatIsNotFinishedIsReported(t *testing.T) {
	f := newFixture(t)
	imported := f.create(readOnly)
	key, former := f.mint("minted", func(spec *v1alpha1.APIKeySpec) { spec.Secret.Name = "named" })
	f.stopController()
	var rotating sync.WaitGroup
	rotating.Go(func() {
		got := f.call("POST /v1/api-keys/"+imported.ID+"/rotate", f.writer.Token)
		got.assertError(t, 503, "The new token was not accepted within 10s, and the former one stays (status: The imported token is accepted.). "+
			"Check that the controller is running, and try again.")
		if spec := f.object(imported.ID).Spec; spec.TokenHash != token.Hash(imported.Token) || spec.TokenHint != *imported.Hint {
			t.Errorf("the spec is %+v", spec)
		}
	})
	rotating.Go(func() {
		got := payloadOf[rotatedKey](t, f.call("POST /api/v1/api-keys/"+string(key.UID)+"/rotate", f.writer.Token), 202)
		if got.HandedTo.SecretName != "named" || !got.Rotating || got.FormerTokenExpiresAt != nil || *got.Hint != token.Hint(former) {
			t.Errorf("the response is %+v", got)
		}
	})
	rotating.Wait()
	f.call("POST /v1/api-keys/"+string(key.UID)+"/rotate", f.writer.Token).assertError(t, 409, alreadyRotating)
	if details := f.details(string(key.UID)); !details.Rotating || len(details.Tokens) != 1 {
		t.Errorf("the key is %+v", details)
	}
	f.assertAccepted("the imported token", imported.Token, true)
	f.assertAccepted("the minted token", former, true)
}

func TestRotate_AKeyHasAtMostFiveTokens(t *testing.T) {
	f := newFixture(t)
	created := f.create(readOnly)
	for range apikey.MaxTokens - 1 {
		f.rotate(created.ID, `{"overlap": "2h"}`)
	}
	before := f.object(created.ID)
	want := fmt.Sprintf("The new token was not accepted within 10s, and the former one stays (status: Waiting until %s, when a superseded token "+
		"ends: a key has at most 5 tokens. To rotate earlier, shorten spec.rotation.overlap. After a leak, rotate with an overlap of 0s, which does not wait.). "+
		"Check that the controller is running, and try again.",
		apikey.NextEnd(before).UTC().Format(time.RFC3339))
	f.call("POST /v1/api-keys/"+created.ID+"/rotate", f.writer.Token).assertError(t, 503, want)
	if diff := cmp.Diff(before.Spec, f.object(created.ID).Spec); diff != "" {
		t.Errorf("spec (-before +after):\n%s", diff)
	}
	last := f.rotate(created.ID, `{"overlap": "0s"}`)
	f.assertAccepted("the last token", last.Token, true)
	f.assertAccepted("the first token", created.Token, false)
	if details := f.details(created.ID); len(details.Tokens) != 1 {
		t.Errorf("the tokens are %v", details.Tokens)
	}
}

// A request that begins after the other rotation has ended is another rotation.
func TestRotate_ConcurrentRequestsReturnDifferentTokensOrAConflict(t *testing.T) {
	f := newFixture(t)
	created := f.create(readOnly)
	other := f.startConsole()
	responses := make([]response, 4)
	var rotating sync.WaitGroup
	for i := range responses {
		c := []*console{f.console, other}[i%2]
		rotating.Go(func() { responses[i] = c.call("POST /v1/api-keys/"+created.ID+"/rotate", f.writer.Token) })
	}
	rotating.Wait()
	accepted := map[string]bool{created.Token: true}
	for _, r := range responses {
		if r.status == http.StatusConflict {
			r.assertError(t, 409, alreadyRotating)
			continue
		}
		accepted[payload[rotatedKey](t, r).Token] = true
	}
	for issued := range accepted {
		f.assertAccepted("a token", issued, true)
	}
	if details := f.details(created.ID); len(accepted) < 2 || len(details.Tokens) != len(accepted) {
		t.Errorf("%d tokens were returned, and the tokens are %v", len(accepted)-1, details.Tokens)
	}
}

func TestRotate_InvalidBodiesChangeNothing(t *testing.T) {
	const (
		notJSON     = `The body is not JSON in UTF-8: send an object such as {"overlap": "24h"}.`
		notAnObject = `The body must be a JSON object, such as {"overlap": "24h"}.`
		noDuration  = "overlap must be a duration in whole seconds, such as 0s, 90m or 24h, of at most 999999h."
	)
	f := newFixture(t)
	created := f.create(readOnly)
	path := "POST /api/v1/api-keys/" + created.ID + "/rotate"
	for _, c := range []struct {
		body   string
		status int
		want   string
	}{
		{`24h`, 400, notJSON},
		{`null`, 422, notAnObject},
		{`{"overlap": null}`, 422, noDuration},
		{`{"overlap": 24}`, 422, noDuration},
		{`{"overlap": "24"}`, 422, noDuration},
		{`{"overlap": "1d"}`, 422, noDuration},
		{`{"overlap": "-1h"}`, 422, noDuration},
		{`{"overlap": "1500ms"}`, 422, noDuration},
		{`{"overlap": "999999h1s"}`, 422, noDuration},
		{`{"overlap": "1h", "overlap": "2h"}`, 422, `The body repeats a field: duplicate field "overlap".`},
		{`{"Overlap": "1h"}`, 422, `The field "Overlap" is unknown: a rotation has overlap.`},
		{`{"token_hash": "x", "overlap": "x"}`, 422, `The field "token_hash" is unknown: a rotation has overlap. ` + noDuration},
	} {
		f.call(path, f.writer.Token, c.body).assertError(t, c.status, c.want)
	}
	request := f.request(path, f.writer.Token, `{"overlap": "1h"}`)
	request.Header.Set("Content-Type", "text/plain")
	f.send(request).assertError(t, 415, "The body must be JSON: set Content-Type to application/json.")
	f.call(path+"?force=perhaps", f.writer.Token).assertError(t, 422, "The query parameter force must be true or false.")
	f.call(path, f.reader.Token).assertError(t, 401, noWriteAccess)
	f.call("POST /v1/api-keys/"+unknownID+"/rotate", f.writer.Token).assertError(t, 404, keyNotFound)
	if keys := f.keys(); len(keys) != 1 || keys[0].Generation != 1 {
		t.Errorf("the keys are %v", keys)
	}
	payload[rotatedKey](t, f.call(path, f.writer.Token, `{"overlap": "999999h"}`))
}

func TestRotate_KeysWithoutATokenToRotateAreRefused(t *testing.T) {
	f := newFixture(t)
	imported := func(appName string) v1alpha1.APIKeySpec {
		return v1alpha1.APIKeySpec{AppName: appName, ReadAccess: true, TokenHash: token.Hash(appName)}
	}
	bootstrap := f.apply("bootstrap", imported("Bootstrap"), map[string]string{v1alpha1.LabelBootstrap: "true"})
	ended := f.create(readOnly)
	f.deactivate(ended.ID)
	f.awaitDetails(string(bootstrap.UID), "active", "Issued")
	f.stopController()
	pending := f.apply("pending", imported("Pending"), nil)
	framework.Eventually(t, "the console lists the keys", func() bool { return f.count("") == 5 })
	for id, want := range map[string]string{
		string(bootstrap.UID): "This is the bootstrap key of a console: to rotate it, delete the key file and restart that console.",
		string(pending.UID):   "The key is not issued yet, so it has no token to rotate: see its state.",
		ended.ID:              cannotChange,
	} {
		f.call("POST /v1/api-keys/"+id+"/rotate?force=true", f.writer.Token).assertError(t, 409, want)
	}
}

func TestRotate_AHashThatAToolDeclaresNeedsForce(t *testing.T) {
	f := newFixture(t)
	for tool, metadata := range map[string]string{
		"Flux":          `{"labels": {"kustomize.toolkit.fluxcd.io/name": "shop"}}`,
		"kubectl apply": `{"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}}`,
	} {
		created := f.create(fmt.Sprintf(`{"app_name": %q, "read_access": true, "write_access": false}`, tool))
		key, _ := f.mint(strings.ReplaceAll(strings.ToLower(tool), " ", "-"))
		for _, object := range []*v1alpha1.APIKey{key, f.object(created.ID)} {
			patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata": `+metadata+`}`))
			framework.Must(t, f.Env.Client.Patch(t.Context(), object, patch))
		}
		if details := f.details(created.ID); details.HashDeclared == nil || *details.HashDeclared != tool {
			t.Errorf("the hash is declared by %v, want %s", details.HashDeclared, tool)
		}
		path := "POST /v1/api-keys/" + created.ID + "/rotate"
		f.call(path, f.writer.Token).assertError(t, 409, tool+" would set the former token back: replace spec.tokenHash in the manifest of the "+
			"key, or add force=true to the query.")
		payload[rotatedKey](t, f.call(path+"?force=true", f.writer.Token))
		if details := f.details(string(key.UID)); details.HashDeclared != nil {
			t.Errorf("the hash of a minted token is declared by %s", *details.HashDeclared)
		}
		payloadOf[rotatedKey](t, f.call("POST /v1/api-keys/"+string(key.UID)+"/rotate", f.writer.Token), 202)
	}
}

func TestRotate_TheCallersTokenEndsAtOnceOnlyWithForce(t *testing.T) {
	f := newFixture(t)
	self := f.issue("Self", true, true)
	path := "POST /api/v1/api-keys/" + string(self.Key.UID) + "/rotate"
	first := payload[rotatedKey](t, f.call(path, self.Token))
	f.assertAccepted("the former token", self.Token, true)
	f.call(path, self.Token, `{"overlap": "0s"}`).assertError(t, 409, ownTokenEnds)
	f.call(path+"?force=false", first.Token, `{"overlap": "0s"}`).assertError(t, 409, ownTokenEnds)
	second := payload[rotatedKey](t, f.call(path+"?force=true", first.Token, `{"overlap": "0s"}`))
	f.assertAccepted("the new token", second.Token, true)
	for _, former := range []string{self.Token, first.Token} {
		f.call(path, former).assertError(t, 401, keyRequired)
	}

	f.UpdateKey(f.object(string(self.Key.UID)).Name, func(key *v1alpha1.APIKey) {
		key.Spec.Rotation = &v1alpha1.Rotation{Overlap: &metav1.Duration{}}
	})
	f.call(path, second.Token).assertError(t, 409, ownTokenEnds)
	payload[rotatedKey](t, f.call(path, second.Token, `{"overlap": "1m"}`))
}

func TestLabelledManagers_RotateNoKeyWithAccessThatTheyLack(t *testing.T) {
	f := newFixture(t)
	f.label(f.writer, `"true"`)
	manager := f.issue("Manager", true, true)
	f.label(manager, `"true"`)
	app := f.issue("An App", true, true)
	c := f.startConsole(labelled)
	reading, writing := f.issue("Reading", true, false), f.issue("Writing", false, true)
	for _, managing := range []string{f.writer.Token, manager.Token} {
		c.awaitStatus(f, "DELETE /v1/api-keys/"+unknownID, managing, http.StatusNotFound)
	}
	c.awaitStatus(f, "GET /v1/api-keys/self", writing.Token, http.StatusOK)
	read, write := "POST /v1/api-keys/"+string(reading.Key.UID)+"/rotate", "POST /v1/api-keys/"+string(writing.Key.UID)+"/rotate"

	c.call(read, app.Token).assertError(t, 403, f.notManager(app))
	c.call("POST /v1/api-keys/"+string(app.Key.UID)+"/rotate", app.Token).assertError(t, 403, f.notManager(app)) // its own token
	c.call(read, f.writer.Token).assertError(t, 403, "This key has no read access, so it may not rotate the token of a key that has it: "+
		"use a key with both.")
	payload[rotatedKey](t, c.call(write, f.writer.Token))
	payload[rotatedKey](t, c.call(read, manager.Token))
	payload[rotatedKey](t, f.call(read, f.writer.Token)) // by a console where each writer manages
}

// The key of a body that arrives late may have ended in between.
func TestInvariant5_AKeyThatEndsBeforeItsRequestBodyArrivesRotatesNoKey(t *testing.T) {
	f := newFixture(t)
	f.label(f.writer, `"true"`)
	server := f.startConsole(labelled)
	const end = "DELETE /v1/api-keys/" + unknownID
	server.awaitStatus(f, end, f.writer.Token, http.StatusNotFound)
	sendBody, received := server.sendHeaders("POST /v1/api-keys/"+string(f.writer.Key.UID)+"/rotate", f.writer.Token)
	f.label(f.writer, "null")
	server.awaitStatus(f, end, f.writer.Token, http.StatusForbidden)
	sendBody(`{"overlap": "1h"}`)
	(<-received).assertError(t, 403, f.notManager(f.writer))
}

func TestNextRotation_IsThatOfTheSpec(t *testing.T) {
	f := newFixture(t)
	interval := &metav1.Duration{Duration: 48 * time.Hour}
	key, _ := f.mint("scheduled", func(spec *v1alpha1.APIKeySpec) { spec.Rotation = &v1alpha1.Rotation{Interval: interval} })
	want := f.object(string(key.UID)).Status.Tokens[0].NotBefore.Add(interval.Duration).UTC()
	details := f.details(string(key.UID))
	if details.Rotating || details.NextRotationAt == nil || !details.NextRotationAt.Equal(want) {
		t.Errorf("the next rotation is at %v, want %s", details.NextRotationAt, want)
	}
	if !strings.Contains(details.Manifest, "  rotation:\n    interval: 48h0m0s\n") {
		t.Errorf("the manifest is\n%s", details.Manifest)
	}
	for _, k := range f.list("") {
		if isScheduled := k.ID == details.ID; isScheduled != (k.NextRotationAt != nil) {
			t.Errorf("the next rotation of %s is at %v", k.Name, k.NextRotationAt)
		}
	}
	if ended := f.deactivate(details.ID); ended.NextRotationAt != nil || ended.Rotating || len(f.details(details.ID).Tokens) != 0 {
		t.Errorf("the ended key is %+v", ended)
	}
}

// No client has a token that a rotation is handing over.
func TestTokens_AreThoseThatAreHandedOverAndAccepted(t *testing.T) {
	f := newFixture(t)
	key, _ := f.mint("minted")
	f.stopController()
	framework.Must(t, f.Env.Client.Get(t.Context(), client.ObjectKeyFromObject(key), key))
	record := func(name string, issued, ends *metav1.Time) v1alpha1.TokenRecord {
		return v1alpha1.TokenRecord{Hash: token.Hash(name), Hint: name, NotBefore: issued, NotAfter: ends}
	}
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	soon, past := metav1.NewTime(now.Add(time.Hour)), metav1.NewTime(now.Add(-time.Minute))
	claim := record("claim", &now, nil)
	claim.ClaimedAt = &now
	key.Status.Tokens = []v1alpha1.TokenRecord{record("", &now, nil), record("former", &past, &soon), record("ended", &past, &past), claim}
	framework.Must(t, f.Env.Client.Status().Update(t.Context(), key))
	want := []keyToken{{IssuedAt: now.UTC()}, {Hint: new("former"), IssuedAt: past.UTC(), ExpiresAt: new(soon.UTC())}}
	details := f.details(string(key.UID))
	if diff := cmp.Diff(want, details.Tokens); diff != "" || !details.Rotating || apikey.ClaimOf(key) == nil {
		t.Errorf("rotating is %t, and the tokens (-want +got):\n%s", details.Rotating, diff)
	}
	framework.Eventually(t, "the list shows the rotation", func() bool {
		for _, k := range f.list("") {
			if k.Rotating {
				return k.ID == details.ID
			}
		}
		return false
	})
	f.call(fmt.Sprintf("POST /v1/api-keys/%s/rotate", details.ID), f.writer.Token).assertError(t, 409, alreadyRotating)
}
