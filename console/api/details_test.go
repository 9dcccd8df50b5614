// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/test/framework"
)

// keyDetails is a key with its details in a response.
type keyDetails struct {
	apiKey
	Conditions []struct {
		Type               string    `json:"type"`
		Status             string    `json:"status"`
		Reason             string    `json:"reason"`
		Message            string    `json:"message"`
		LastTransitionTime time.Time `json:"last_transition_time"`
	} `json:"conditions"`
	Imported      bool               `json:"imported"`
	Tokens        []keyToken         `json:"tokens"`
	Secret        map[string]*string `json:"secret"`
	SecretName    *string            `json:"secret_name"`
	DeactivatedAt *time.Time         `json:"deactivated_at"`
	CreatedBy     *string            `json:"created_by"`
	ManagedBy     *string            `json:"managed_by"`
	HashDeclared  *string            `json:"hash_declared_by"`
	Manifest      string             `json:"manifest"`
}

// keyToken is a token of a key in a response.
type keyToken struct {
	Hint       *string    `json:"hint"`
	IssuedAt   time.Time  `json:"issued_at"`
	ExpiresAt  *time.Time `json:"expires_at"`
	LastUsedAt *time.Time `json:"last_used_at"`
}

// callerKey is the key of the caller in a response.
type callerKey struct {
	apiKey
	Namespace     string  `json:"namespace"`
	MayList       bool    `json:"may_list"`
	MayManage     bool    `json:"may_manage"`
	ManageProblem *string `json:"manage_problem"`
}

// apply creates an APIKey through the Kubernetes API.
func (f *fixture) apply(name string, spec v1alpha1.APIKeySpec, labels map[string]string) *v1alpha1.APIKey {
	f.Helper()
	key := &v1alpha1.APIKey{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: name, Labels: labels}, Spec: spec}
	framework.Must(f, f.Env.Client.Create(f.Context(), key))
	return key
}

// details returns a key with its details.
func (f *fixture) details(id string) keyDetails {
	f.Helper()
	got := f.call("GET /api/v1/api-keys/"+id, f.reader.Token)
	if strings.Contains(got.body, "sha256:") {
		f.Errorf("the response contains a hash: %s", got.body)
	}
	return payload[keyDetails](f, got)
}

// awaitDetails returns a key with its details once it has this state and reason.
func (f *fixture) awaitDetails(id, state, reason string) keyDetails {
	f.Helper()
	var found keyDetails
	framework.Eventually(f, fmt.Sprintf("the key is %s (%s)", state, reason), func() bool {
		listed := ""
		for _, k := range f.list("") {
			if k.ID == id && k.Reason != nil && k.State == state {
				listed = *k.Reason
			}
		}
		if listed != reason {
			return false
		}
		found = f.details(id)
		return found.State == state && *found.Reason == reason
	})
	return found
}

func TestState_IsThatOfTheServer(t *testing.T) {
	f := newFixture(t)
	read := func(appName string, change ...func(*v1alpha1.APIKeySpec)) v1alpha1.APIKeySpec {
		spec := v1alpha1.APIKeySpec{AppName: appName, ReadAccess: true}
		for _, c := range change {
			c(&spec)
		}
		return spec
	}
	holder := f.apply("holder", read("Held"), nil)
	f.awaitDetails(string(holder.UID), "active", "Issued")
	waiting := f.apply("waiting", read("Held"), nil)
	expired := f.apply("expired", read("Expired", func(s *v1alpha1.APIKeySpec) { s.ExpiresAt = new(metav1.NewTime(time.Now().Add(-time.Hour))) }), nil)
	ended := f.apply("ended", read("Ended", func(s *v1alpha1.APIKeySpec) { s.Active = new(false) }), nil)
	for _, c := range []struct {
		key                    *v1alpha1.APIKey
		state, reason, message string
	}{
		{waiting, "stalled", "AppNameConflict",
			`App name "Held" is held by APIKey "holder": deactivate or delete that key, or create this one with another app name.`},
		{expired, "expired", "Expired", "The key has expired and is no longer accepted."},
		{ended, "deactivated", "Deactivated", "The key was deactivated and is no longer accepted."},
	} {
		got := f.awaitDetails(string(c.key.UID), c.state, c.reason)
		if got.IsActive || got.Name != c.key.Name || *got.Message != c.message {
			t.Errorf("%s is %+v, %q", c.key.Name, got.apiKey, *got.Message)
		}
	}
	f.stopController()
	pending := f.apply("pending", read("Pending"), nil)
	f.awaitDetails(string(pending.UID), "pending", "Pending")
	if got := f.deactivate(string(holder.UID)); got.State != "deactivated" || *got.Reason != "Deactivated" || got.Message != nil {
		t.Errorf("the key whose end is not recorded yet is %+v", got.apiKey)
	}
}

func TestGet_ReturnsAllOfAKeyButItsHash(t *testing.T) {
	f := newFixture(t)
	declared := v1alpha1.APIKeySpec{
		AppName: "Minted", ReadAccess: true, ExpiresAt: new(metav1.NewTime(time.Now().Add(time.Hour).Truncate(time.Second))),
		Secret: &v1alpha1.TokenSecret{Key: "api-key", TTL: &metav1.Duration{Duration: time.Hour}},
	}
	object := f.apply("minted", declared, map[string]string{
		"team": "shop", "keys.squirrel.dev/manager": "true", "keys.squirrel.dev/bootstrap": "true",
	})
	got := f.awaitDetails(string(object.UID), "active", "Issued")
	framework.Must(t, f.Env.Client.Get(t.Context(), client.ObjectKeyFromObject(object), object))
	if !got.Manager || !got.Bootstrap || got.Imported || got.CreatedBy != nil || got.ManagedBy != nil || got.DeactivatedAt != nil ||
		*got.Hint != object.Status.Tokens[0].Hint || *got.SecretName != "minted-token" {
		t.Errorf("the key is %+v", got)
	}
	want := map[string]*string{"name": nil, "key": new("api-key"), "ttl": new("1h0m0s")}
	if diff := cmp.Diff(want, got.Secret); diff != "" {
		t.Errorf("secret (-want +got):\n%s", diff)
	}
	for i, c := range object.Status.Conditions {
		if g := got.Conditions[i]; g.Type != c.Type || g.Status != string(c.Status) || g.Reason != c.Reason || g.Message != c.Message ||
			!g.LastTransitionTime.Equal(c.LastTransitionTime.Time) {
			t.Errorf("the condition is %+v, want %+v", g, c)
		}
	}
	manifest := `apiVersion: keys.squirrel.dev/v1alpha1
kind: APIKey
metadata:
  labels:
    team: shop
  name: minted
  namespace: ` + f.Namespace + `
spec:
  appName: Minted
  expiresAt: "` + declared.ExpiresAt.UTC().Format(time.RFC3339) + `"
  readAccess: true
  secret:
    key: api-key
    ttl: 1h0m0s
  writeAccess: false
`
	if diff := cmp.Diff(manifest, got.Manifest); diff != "" {
		t.Errorf("manifest (-want +got):\n%s", diff)
	}
}

func TestGet_TheManifestOfAnImportedKeyDeclaresAKey(t *testing.T) {
	f := newFixture(t)
	created := f.create(readOnly)
	got := f.details(created.ID)
	if !got.Imported || got.Secret != nil || got.SecretName != nil || *got.CreatedBy != string(f.writer.Key.UID) ||
		*got.Hint != token.Hint(created.Token) {
		t.Errorf("the key is %+v", got)
	}
	f.call("DELETE /v1/api-keys/"+created.ID, f.writer.Token)
	f.awaitDetails(created.ID, "deactivated", "Deactivated")
	framework.Eventually(t, "the controller has recorded the deactivation", func() bool { return f.details(created.ID).DeactivatedAt != nil })
	f.remove(created.ID)
	declared := &v1alpha1.APIKey{}
	framework.Must(t, yaml.UnmarshalStrict([]byte(got.Manifest), declared))
	framework.Must(t, f.Env.Client.Create(t.Context(), declared))
	f.awaitDetails(string(declared.UID), "active", "Issued")
}

// A tool that applies the key from Git may revert a change, so the web console warns of it. The change itself works.
func TestGet_NamesTheToolThatManagesAKey(t *testing.T) {
	f := newFixture(t)
	for name, c := range map[string]struct{ label, tool string }{
		"flux": {"kustomize.toolkit.fluxcd.io/name", "Flux"},
		"argo": {"argocd.argoproj.io/instance", "Argo CD"},
	} {
		object := f.apply(name, v1alpha1.APIKeySpec{AppName: name, ReadAccess: true}, map[string]string{c.label: "shop", "team": "shop"})
		got := f.awaitDetails(string(object.UID), "active", "Issued")
		if got.ManagedBy == nil || *got.ManagedBy != c.tool || strings.Contains(got.Manifest, c.label) || !strings.Contains(got.Manifest, "team: shop") {
			t.Errorf("the key is managed by %v, want %s; its manifest is\n%s", got.ManagedBy, c.tool, got.Manifest)
		}
		payload[apiKey](t, f.call("PATCH /api/v1/api-keys/"+got.ID, f.writer.Token, `{"write_access": true}`))
		f.deactivate(got.ID)
	}
}

func TestGet_UnknownIDsAreNotFound(t *testing.T) {
	f := newFixture(t)
	gone := f.create(readOnly).ID
	f.remove(gone)
	for _, id := range []string{unknownID, gone, f.reader.Key.Name, "selfish"} {
		f.call("GET /api/v1/api-keys/"+id, f.reader.Token).assertError(t, 404, keyNotFound)
	}
	f.call("GET /api/v1/api-keys/"+unknownID, f.writer.Token).assertError(t, 401, noReadAccess)
}

func TestSelf_TellsEachValidKeyWhatItMayDo(t *testing.T) {
	f := newFixture(t)
	manager := f.issue("Manager", true, true)
	f.label(manager, `"true"`)
	strict := f.startConsole(labelled)
	framework.Eventually(t, "the label is known", func() bool {
		return payload[callerKey](t, strict.call("GET /api/v1/api-keys/self", manager.Token)).Manager
	})
	notManager := f.notManager(f.writer)
	for name, c := range map[string]struct {
		console      *console
		key          *keyclient.CreateResult
		list, manage bool
		problem      *string
	}{
		"a reader":                {console: f.console, key: f.reader, list: true, problem: new(noWriteAccess)},
		"a writer":                {console: f.console, key: f.writer, manage: true},
		"a reader, labelled":      {console: strict, key: f.reader, list: true, problem: new(noWriteAccess)},
		"a writer, no label":      {console: strict, key: f.writer, problem: &notManager},
		"a manager, both, strict": {console: strict, key: manager, list: true, manage: true},
	} {
		got := payload[callerKey](t, c.console.call("GET /api/v1/api-keys/self", c.key.Token))
		want := callerKey{apiKey: got.apiKey, Namespace: f.Namespace, MayList: c.list, MayManage: c.manage, ManageProblem: c.problem}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(callerKey{})); diff != "" || got.ID != string(c.key.Key.UID) || !got.IsActive {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	f.call("GET /api/v1/api-keys/self", "").assertError(t, 401, keyRequired)
	f.call("GET /api/v1/api-keys/self", "sq_unknown").assertError(t, 401, keyRequired)
}

// Keys that a script creates within a second are listed in the order of their creation, here and by kubectl apikey list.
func TestList_KeysOfOneSecondAreInTheOrderOfTheirCreation(t *testing.T) {
	f := newFixture(t)
	var created []string
	for i := range 12 {
		created = append(created, f.create(fmt.Sprintf(`{"app_name": "App %d", "read_access": true, "write_access": false}`, (i*7)%12)).ID)
	}
	var listed []string
	page := "?limit=5"
	for page != "" {
		got := f.call("GET /v1/api-keys"+page, f.reader.Token)
		for _, k := range payload[[]apiKey](t, got) {
			if k.ID != string(f.reader.Key.UID) && k.ID != string(f.writer.Key.UID) {
				listed = append(listed, k.ID)
			}
		}
		_, page, _ = strings.Cut(strings.TrimSuffix(got.header.Get("Link"), `>; rel="next"`), "<")
	}
	if diff := cmp.Diff(created, listed); diff != "" {
		t.Errorf("the list (-created +listed):\n%s", diff)
	}
}

func TestPaths_ASlashAtTheEndIsIgnored(t *testing.T) {
	f := newFixture(t)
	following := *f.client // another client, because all tests share this one
	following.CheckRedirect = nil
	f.client = &following
	created := payload[apiKey](t, f.call("POST /v1/api-keys/", f.writer.Token, readOnly))
	payload[keyDetails](t, f.call("GET /v1/api-keys/"+created.ID+"/", f.reader.Token))
	payload[callerKey](t, f.call("GET /api/v1/api-keys/self/", f.reader.Token))
	payload[[]apiKey](t, f.call("GET /v1/api-keys/?active_only=true", f.reader.Token))
	payload[int](t, f.call("GET /v1/api-keys/count/", f.reader.Token))
	payload[apiKey](t, f.call("PATCH /v1/api-keys/"+created.ID+"/", f.writer.Token, `{"write_access": true}`))
	payload[deactivatedKey](t, f.call("DELETE /v1/api-keys/"+created.ID+"/", f.writer.Token))
	payload[map[string]string](t, f.call("GET /v1/health/", ""))
	f.call("GET /v1/api-keys//", f.reader.Token).assertError(t, 404, notFound)
}

func TestQueries_UnknownParametersAreIgnoredAndTheLastOfRepeatedOnesCounts(t *testing.T) {
	f := newFixture(t)
	f.createUnissued("a")
	for query, want := range map[string]int{
		"?activeOnly=true": 3, "?_=1&active_only=true": 2, "?active_only=true&active_only=false": 3, "?active_only=x&active_only=1": 2,
	} {
		if got := f.count(query); got != want {
			t.Errorf("%s: %d keys, want %d", query, got, want)
		}
	}
	if got := f.list("?limit=1&skip=5"); len(got) != 1 {
		t.Errorf("the keys are %v", got)
	}
	f.call("POST /v1/api-keys?force=true&utm=x", f.writer.Token, `{}`).assertError(t, 422, "app_name is required and must be a string. "+
		"read_access is required and must be true or false, without quotes. write_access is required and must be true or false, without quotes.")
}

// Clients of the Squirrel backend read names in camelCase. Other clients get each value once.
func TestCamelCase_IsBesideSnakeCaseBelowV1Alone(t *testing.T) {
	f := newFixture(t)
	for base, want := range map[string][]string{
		"/api/v1": nil,
		"/v1":     {"appName", "createdAt", "expiresAt", "isActive", "lastUsedAt", "nextRotationAt", "readAccess", "unusedSince", "updatedAt", "writeAccess"},
	} {
		for _, path := range []string{"/api-keys/self", "/api-keys/" + string(f.reader.Key.UID), "/api-keys?limit=1"} {
			text := f.call("GET "+base+path, f.reader.Token).body
			var camel []string
			for _, name := range []string{
				"appName", "createdAt", "expiresAt", "isActive", "lastUsedAt", "nextRotationAt", "readAccess", "unusedSince", "updatedAt",
				"writeAccess",
			} {
				quoted, _ := json.Marshal(name)
				if strings.Contains(text, string(quoted)+":") {
					camel = append(camel, name)
				}
			}
			if diff := cmp.Diff(want, camel); diff != "" {
				t.Errorf("%s%s (-want +got):\n%s", base, path, diff)
			}
		}
	}
}
