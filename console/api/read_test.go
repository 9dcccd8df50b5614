// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/console/api"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/test/framework"
)

const (
	keyRequired   = "A valid API key is required: send it in the X-API-Key header, or as Authorization: Bearer."
	noReadAccess  = "API key does not have read access"
	noWriteAccess = "API key does not have write access"
	nothingThere  = "There is nothing at this path: /api/v1/openapi.json says what there is."
	noSuchMethod  = "This path does not take this method: the Allow header says which it takes, and /api/v1/openapi.json what they do."
	notReady      = "API keys cannot be checked at the moment: try again."
	somethingElse = "00000000-0000-0000-0000-000000000000"
)

func TestWhatIsOpenToAnybody(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"/api/v1/health", "/v1/health"} {
		got := payload[map[string]string](t, f.call("GET "+path, ""))
		if diff := gocmp.Diff(map[string]string{"status": "healthy"}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	want := map[string]string{
		"name": "apikey-operator", "version": "v0.0.0-test",
		"health": "/api/v1/health", "openapi": "/api/v1/openapi.json", "api_keys": "/api/v1/api-keys",
	}
	if diff := gocmp.Diff(want, payload[map[string]string](t, f.call("GET /", ""))); diff != "" {
		t.Errorf("GET / (-want +got):\n%s", diff)
	}
	if got := f.call("HEAD /api/v1/health", ""); got.status != 200 || got.body != "" {
		t.Errorf("HEAD is answered %d %q", got.status, got.body)
	}
	f.call("GET /nothing", "").refused(t, 404, nothingThere)
	f.call("OPTIONS /api/v1/health", "").refused(t, 405, noSuchMethod)
}

// guarded are requests that need a key, whether there is such a call or not.
var guarded = []string{
	"GET /api-keys", "POST /api-keys", "GET /api-keys/count", "DELETE /api-keys/x", "PUT /api-keys", "GET /nothing", "BREW /nothing", "GET /", "GET ",
}

func TestWithoutAKeyNothingIsTold(t *testing.T) {
	f := newFixture(t)
	for _, base := range []string{"/api/v1", "/v1"} {
		for _, request := range guarded {
			method, path, _ := strings.Cut(request, " ")
			got := f.call(method+" "+base+path, "")
			got.refused(t, 401, keyRequired)
			if challenge := got.header.Get("WWW-Authenticate"); challenge != `Bearer realm="apikey-operator"` {
				t.Errorf("%s: WWW-Authenticate is %q", request, challenge)
			}
		}
	}
}

func TestInvariant6_AKeyOfAnotherNamespaceIsRefused(t *testing.T) {
	f := newFixture(t)
	other := newSecondFixture(t)
	f.call("GET /api/v1/api-keys", other.reader.Token).refused(t, 401, keyRequired)
	f.call("POST /api/v1/api-keys", other.writer.Token, `{}`).refused(t, 401, keyRequired)
	payload[int](t, other.call("GET /api/v1/api-keys/count", other.reader.Token)) // which is good at home
}

func TestReadingNeedsReadAccessAndAllElseWriteAccess(t *testing.T) {
	f := newFixture(t)
	for _, request := range []string{"GET /api/v1/api-keys", "GET /v1/api-keys/count", "OPTIONS /v1/api-keys", "GET /v1/nothing"} {
		f.call(request, f.writer.Token).refused(t, 401, noReadAccess)
	}
	for _, request := range []string{"POST /api/v1/api-keys", "DELETE /v1/api-keys/x", "PATCH /v1/nothing"} {
		f.call(request, f.reader.Token).refused(t, 401, noWriteAccess)
	}
	if got := f.call("HEAD /api/v1/api-keys", f.reader.Token); got.status != 200 || got.body != "" {
		t.Errorf("HEAD is answered %d %q", got.status, got.body)
	}
	request := f.request("GET /api/v1/api-keys/count", "")
	request.Header.Set("Authorization", "Bearer "+f.reader.Token)
	payload[int](t, f.send(request))
}

func TestWithAKeyItIsToldWhatIsNotThere(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"", "/", "/nothing", "/api-keys/", "/api-keys/count/", "/api-keys//", "/api-keys/x/y", "//api-keys", "/../v1/api-keys"} {
		f.call("GET /api/v1"+path, f.reader.Token).refused(t, 404, nothingThere)
	}
	for request, allow := range map[string]string{
		"PUT /api/v1/api-keys":          "GET, HEAD, POST",
		"BREW /v1/api-keys":             "GET, HEAD, POST",
		"DELETE /api/v1/api-keys/count": "GET, HEAD",
		"PUT /api/v1/api-keys/x":        "DELETE",
		"POST /v1/health":               "GET, HEAD",
		"DELETE /":                      "GET, HEAD",
	} {
		got := f.call(request, f.writer.Token)
		got.refused(t, 405, noSuchMethod)
		if got.header.Get("Allow") != allow {
			t.Errorf("%s: Allow is %q, want %q", request, got.header.Get("Allow"), allow)
		}
	}
}

// declare creates unissued keys as kubectl does, and returns all of the namespace in the order that they are listed in.
func (f *fixture) declare(appNames ...string) []v1alpha1.APIKey {
	f.Helper()
	f.stopController()
	for i, appName := range appNames {
		framework.Must(f, f.Env.Client.Create(f.Context(), &v1alpha1.APIKey{
			ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: fmt.Sprintf("declared-%d", i)},
			Spec:       v1alpha1.APIKeySpec{AppName: appName, ReadAccess: true},
		}))
	}
	list := &v1alpha1.APIKeyList{}
	framework.Must(f, f.Env.Client.List(f.Context(), list, client.InNamespace(f.Namespace)))
	slices.SortFunc(list.Items, func(a, b v1alpha1.APIKey) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(string(a.UID), string(b.UID)))
	})
	framework.Eventually(f, "the console has heard of all keys", func() bool { return f.count("") == len(list.Items) })
	return list.Items
}

func (f *fixture) count(query string) int {
	f.Helper()
	return payload[int](f, f.call("GET /api/v1/api-keys/count"+query, f.reader.Token))
}

func (f *fixture) list(query string) []shown {
	f.Helper()
	return payload[[]shown](f, f.call("GET /api/v1/api-keys"+query, f.reader.Token))
}

func TestTheListIsInTheOrderOfCreation(t *testing.T) {
	f := newFixture(t)
	keys := f.declare("b", "a", "c")
	var want, wantActive []shown
	for i := range keys {
		called := keys[i].UID == f.reader.Key.UID || keys[i].UID == f.writer.Key.UID
		want = append(want, shownAs(&keys[i], called))
		if called {
			wantActive = append(wantActive, shownAs(&keys[i], true))
		}
	}
	for query, want := range map[string][]shown{
		"": want, "?active_only=false": want, "?active_only=0": want, "?limit=1000000": want,
		"?active_only=true": wantActive, "?active_only=True": wantActive,
	} {
		if diff := gocmp.Diff(want, f.list(query)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", query, diff)
		}
	}
	if all, active := f.count(""), f.count("?active_only=true"); all != 5 || active != 2 {
		t.Errorf("%d keys, %d of them active", all, active)
	}
	if got := f.call("GET /v1/api-keys?active_only=true&limit=2", f.reader.Token); got.header.Get("Link") != "" {
		t.Errorf("there is no next page, and Link is %q", got.header.Get("Link"))
	}
}

func TestPagesAreWholeWhileKeysComeAndGo(t *testing.T) {
	f := newFixture(t)
	keys := f.declare("a", "b", "c", "d", "e")
	var listed []string
	page := "/v1/api-keys?limit=2"
	for page != "" {
		request := f.request("GET "+page, f.reader.Token)
		got := f.send(request)
		keys := payload[[]shown](t, got)
		for _, key := range keys {
			listed = append(listed, key.ID)
		}
		page = nextPage(t, request.URL, got.header)
		if last := keys[len(keys)-1]; page != "" && last.AppName != "Reader" && last.AppName != "Writer" { // the next page is found although its predecessor is gone
			f.remove(last.ID)
		}
	}
	var want []string
	for i := range keys {
		want = append(want, string(keys[i].UID))
	}
	if diff := gocmp.Diff(want, listed); diff != "" {
		t.Errorf("the pages (-want +got):\n%s", diff)
	}
}

// remove deletes a key as kubectl does, and waits until the console has heard of it.
func (f *fixture) remove(id string) {
	f.Helper()
	before := f.count("")
	for _, key := range f.keys() {
		if string(key.UID) == id {
			framework.Must(f, f.Env.Client.Delete(f.Context(), &key))
		}
	}
	framework.Eventually(f, "the console has heard that a key is gone", func() bool { return f.count("") == before-1 })
}

// nextPage returns the path and query that a Link header leads to, or "".
func nextPage(t *testing.T, from *url.URL, header http.Header) string {
	t.Helper()
	link := header.Get("Link")
	if link == "" {
		return ""
	}
	target, ok := strings.CutSuffix(link, `>; rel="next"`)
	if !ok || target[0] != '<' {
		t.Fatalf("Link is %q", link)
	}
	reference, err := url.Parse(target[1:])
	framework.Must(t, err)
	return from.ResolveReference(reference).RequestURI()
}

func TestQueriesThatCannotBeRightAreRefused(t *testing.T) {
	const (
		eitherTrueOrFalse = "The query parameter %s must be true or false."
		badLimit          = "The query parameter limit must be a whole number, 1 or more; without it, all keys are listed."
		badContinue       = "The query parameter continue must be as the Link header of the page before has it; without it, the list starts from the beginning."
	)
	f := newFixture(t)
	for query, want := range map[string]string{
		"?active_only=":               fmt.Sprintf(eitherTrueOrFalse, "active_only"),
		"?active_only=yes":            fmt.Sprintf(eitherTrueOrFalse, "active_only"),
		"?active_only=1&active_only":  "The query parameter active_only is there more than once: give it once.",
		"?activeOnly=true":            `The query parameter "activeOnly" is unknown here: this call takes active_only, limit and continue.`,
		"?limit=0":                    badLimit,
		"?limit=-1":                   badLimit,
		"?limit=1e3":                  badLimit,
		"?limit=99999999999999999999": badLimit,
		"?continue=":                  badContinue,
		"?continue=%00":               badContinue,
		"?continue=5":                 badContinue,
		"?continue=MTIzNA":            badContinue, // 1234
		"?continue=MTIzNC8":           badContinue, // 1234/
		"?continue=KzEvYQ":            badContinue, // +1/a
		"?limit=%zz":                  "The query of the URL cannot be read: separate its parameters by & and percent-encode their values.",
		"?a;b":                        "The query of the URL cannot be read: separate its parameters by & and percent-encode their values.",
	} {
		f.call("GET /api/v1/api-keys"+query, f.reader.Token).refused(t, 422, want)
	}
	f.call("GET /v1/api-keys/count?limit=1", f.reader.Token).
		refused(t, 422, `The query parameter "limit" is unknown here: this call takes active_only.`)
	f.call("POST /v1/api-keys?force=true", f.writer.Token, `{}`).
		refused(t, 422, `The query parameter "force" is unknown here: this call takes none.`)
	f.call("DELETE /v1/api-keys/"+somethingElse+"?force=maybe", f.writer.Token).refused(t, 422, fmt.Sprintf(eitherTrueOrFalse, "force"))
}

func TestInvariant4_BeforeTheKeysAreKnownEveryAnswerIsUnavailable(t *testing.T) {
	f := newFixture(t)
	console := f.startConsole(func(o *api.Options) {
		o.KeyCache = api.NewKeyCache() // which nobody fills
	})
	console.call("GET /api/v1/api-keys", f.reader.Token).refused(t, 503, notReady)
	console.call("GET /v1/nothing", "sq_unknown").refused(t, 503, notReady)
	got := console.call("GET /api/v1/health", "")
	got.refused(t, 503, notReady)
	if got.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After is %q", got.header.Get("Retry-After"))
	}
}

func TestInvariant10_AKeyWithAFieldThatCannotBeReadIsListedBesideTheOthers(t *testing.T) {
	f := newFixture(t)
	sound, broken, ttl := f.issue("Sound", true, false), f.issue("Broken", true, false), f.issue("Ends", true, false)
	change := func(key *v1alpha1.APIKey, field string, value any) {
		f.Env.UpdateInEtcd(t, f.Namespace, key.Name, func(object map[string]any) { object["spec"].(map[string]any)[field] = value })
	}
	change(broken.Key, "expiresAt", "never")
	change(ttl.Key, "secret", map[string]any{"ttl": "a while"})
	c := f.startConsole()
	active := map[string]bool{}
	for _, key := range payload[[]shown](t, c.call("GET /api/v1/api-keys", f.reader.Token)) {
		active[key.ID] = key.IsActive
	}
	for key, want := range map[*keyclient.CreateResult]bool{sound: true, broken: false, ttl: true} {
		if got, listed := active[string(key.Key.UID)]; !listed || got != want {
			t.Errorf("%q is listed: %t, active: %t, want %t", key.Key.Spec.AppName, listed, got, want)
		}
		status := map[bool]int{true: 200, false: 401}[want]
		if got := c.call("GET /api/v1/api-keys/count", key.Token); got.status != status {
			t.Errorf("%q is answered %d %s, want %d", key.Key.Spec.AppName, got.status, got.body, status)
		}
	}
}
