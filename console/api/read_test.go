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
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/console/api"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/webhook/authn"
)

const (
	keyRequired      = "A valid API key is required: send it in the X-API-Key header, or as Authorization: Bearer."
	noReadAccess     = "API key does not have read access"
	noWriteAccess    = "API key does not have write access"
	notFound         = "This path does not exist: see /api/v1/openapi.json for the paths that do."
	methodNotAllowed = "This path does not support this method: see the Allow header for the methods that it supports, and " +
		"/api/v1/openapi.json for what they do."
	notReady  = "API keys cannot be checked at the moment: try again."
	unknownID = "00000000-0000-0000-0000-000000000000"
)

func TestOpenRoutes_NeedNoKey(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"/api/v1/health", "/v1/health"} {
		got := payload[map[string]string](t, f.call("GET "+path, ""))
		if diff := gocmp.Diff(map[string]string{"status": "healthy"}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	want := map[string]any{
		"name": "apikey-operator", "version": "v0.0.0-test", "namespace": f.Namespace, "service_url": nil,
		"health": "/api/v1/health", "openapi": "/api/v1/openapi.json", "api_keys": "/api/v1/api-keys",
	}
	if diff := gocmp.Diff(want, payload[map[string]any](t, f.call("GET /", ""))); diff != "" {
		t.Errorf("GET / (-want +got):\n%s", diff)
	}
	want["service_url"] = "https://api.example.com"
	c := f.startConsole(func(o *api.Options) { o.ServiceURL = "https://api.example.com" })
	if diff := gocmp.Diff(want, payload[map[string]any](t, c.call("GET /", ""))); diff != "" {
		t.Errorf("GET / with a service URL (-want +got):\n%s", diff)
	}
	if got := f.call("HEAD /api/v1/health", ""); got.status != 200 || got.body != "" {
		t.Errorf("the response to HEAD is %d %q", got.status, got.body)
	}
	f.call("GET /nothing", "").assertError(t, 404, notFound)
	f.call("OPTIONS /api/v1/health", "").assertError(t, 405, methodNotAllowed)
}

// needKey are requests that need a key, whether the path exists or not.
var needKey = []string{
	"GET /api-keys", "POST /api-keys", "GET /api-keys/count", "DELETE /api-keys/x", "PUT /api-keys", "GET /nothing", "BREW /nothing", "GET /", "GET ",
}

func TestWithoutKey_AllPathsBelowABaseReturn401(t *testing.T) {
	f := newFixture(t)
	for _, base := range []string{"/api/v1", "/v1"} {
		for _, request := range needKey {
			method, path, _ := strings.Cut(request, " ")
			got := f.call(method+" "+base+path, "")
			got.assertError(t, 401, keyRequired)
			if challenge := got.header.Get("WWW-Authenticate"); challenge != `Bearer realm="apikey-operator"` {
				t.Errorf("%s: WWW-Authenticate is %q", request, challenge)
			}
		}
	}
}

func TestInvariant6_AKeyOfAnotherNamespaceIsRefused(t *testing.T) {
	f := newFixture(t)
	other := newSecondFixture(t)
	f.call("GET /api/v1/api-keys", other.reader.Token).assertError(t, 401, keyRequired)
	f.call("POST /api/v1/api-keys", other.writer.Token, `{}`).assertError(t, 401, keyRequired)
	payload[int](t, other.call("GET /api/v1/api-keys/count", other.reader.Token)) // where it is valid
}

func TestAccess_ReadsNeedReadAccessAndAllOthersWriteAccess(t *testing.T) {
	f := newFixture(t)
	for _, request := range []string{"GET /api/v1/api-keys", "GET /v1/api-keys/count", "OPTIONS /v1/api-keys", "GET /v1/nothing"} {
		f.call(request, f.writer.Token).assertError(t, 401, noReadAccess)
	}
	for _, request := range []string{"POST /api/v1/api-keys", "DELETE /v1/api-keys/x", "PATCH /v1/nothing"} {
		f.call(request, f.reader.Token).assertError(t, 401, noWriteAccess)
	}
	if got := f.call("HEAD /api/v1/api-keys", f.reader.Token); got.status != 200 || got.body != "" {
		t.Errorf("the response to HEAD is %d %q", got.status, got.body)
	}
	request := f.request("GET /api/v1/api-keys/count", "")
	request.Header.Set("Authorization", "Bearer "+f.reader.Token)
	payload[int](t, f.send(request))
}

func TestUnknownPathsAndMethods_Return404And405(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"", "/", "/nothing", "/api-keys//", "/api-keys/x/y", "//api-keys", "/../v1/api-keys"} {
		f.call("GET /api/v1"+path, f.reader.Token).assertError(t, 404, notFound)
	}
	for request, allow := range map[string]string{
		"PUT /api/v1/api-keys":          "GET, HEAD, POST",
		"BREW /v1/api-keys":             "GET, HEAD, POST",
		"DELETE /api/v1/api-keys/count": "GET, HEAD",
		"PUT /api/v1/api-keys/x":        "DELETE, GET, HEAD, PATCH",
		"DELETE /v1/api-keys/self":      "GET, HEAD",
		"POST /v1/health":               "GET, HEAD",
		"DELETE /":                      "GET, HEAD",
	} {
		got := f.call(request, f.writer.Token)
		got.assertError(t, 405, methodNotAllowed)
		if got.header.Get("Allow") != allow {
			t.Errorf("%s: Allow is %q, want %q", request, got.header.Get("Allow"), allow)
		}
	}
}

// createUnissued creates keys that no controller issues, and returns all keys of the namespace in the order of the list.
func (f *fixture) createUnissued(appNames ...string) []v1alpha1.APIKey {
	f.Helper()
	f.stopController()
	for i, appName := range appNames {
		framework.Must(f, f.Env.Client.Create(f.Context(), &v1alpha1.APIKey{
			ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: fmt.Sprintf("unissued-%d", i)},
			Spec:       v1alpha1.APIKeySpec{AppName: appName, ReadAccess: true},
		}))
	}
	list := &v1alpha1.APIKeyList{}
	framework.Must(f, f.Env.Client.List(f.Context(), list, client.InNamespace(f.Namespace)))
	slices.SortFunc(list.Items, func(a, b v1alpha1.APIKey) int {
		return cmp.Or(
			a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
			createdAt(&a).Compare(createdAt(&b)),
			strings.Compare(a.Name, b.Name),
		)
	})
	framework.Eventually(f, "the console lists all keys", func() bool { return f.count("") == len(list.Items) })
	return list.Items
}

// createdAt returns the time in the annotation of a key, or the zero time.
func createdAt(key *v1alpha1.APIKey) time.Time {
	at, _ := time.Parse(time.RFC3339Nano, key.Annotations["keys.squirrel.dev/created-at"])
	return at
}

func (f *fixture) count(query string) int {
	f.Helper()
	return payload[int](f, f.call("GET /api/v1/api-keys/count"+query, f.reader.Token))
}

func (f *fixture) list(query string) []apiKey {
	f.Helper()
	return payload[[]apiKey](f, f.call("GET /api/v1/api-keys"+query, f.reader.Token))
}

func TestList_IsInOrderOfCreation(t *testing.T) {
	f := newFixture(t)
	keys := f.createUnissued("b", "a", "c")
	var want, wantActive []apiKey
	for i := range keys {
		issued := keys[i].UID == f.reader.Key.UID || keys[i].UID == f.writer.Key.UID
		want = append(want, apiKeyOf(&keys[i], issued))
		if issued {
			wantActive = append(wantActive, apiKeyOf(&keys[i], true))
		}
	}
	for query, want := range map[string][]apiKey{
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
		t.Errorf("Link on the last page is %q", got.header.Get("Link"))
	}
}

func TestList_PagesStayCompleteWhileKeysAreDeleted(t *testing.T) {
	f := newFixture(t)
	keys := f.createUnissued("a", "b", "c", "d", "e")
	var listed []string
	page := "/v1/api-keys?limit=2"
	for page != "" {
		request := f.request("GET "+page, f.reader.Token)
		got := f.send(request)
		keys := payload[[]apiKey](t, got)
		for _, key := range keys {
			listed = append(listed, key.ID)
		}
		page = nextPage(t, request.URL, got.header)
		if last := keys[len(keys)-1]; page != "" && last.AppName != "Reader" && last.AppName != "Writer" { // the next page must not need it
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

// recordUse records a use of the tokens of a key, each an hour before the former one, and waits until the console has seen that.
func (f *fixture) recordUse(key *v1alpha1.APIKey, at metav1.Time) {
	f.Helper()
	framework.Must(f, retry.RetryOnConflict(retry.DefaultRetry, func() error {
		framework.Must(f, f.Env.Client.Get(f.Context(), client.ObjectKeyFromObject(key), key))
		for i := range key.Status.Tokens {
			key.Status.Tokens[i].LastUsedAt = new(metav1.NewTime(at.Add(-time.Duration(i) * time.Hour)))
		}
		return f.Env.Client.Status().Update(f.Context(), key)
	}))
	framework.Eventually(f, "the console has seen the use", func() bool {
		return slices.ContainsFunc(f.list(""), func(k apiKey) bool { return k.ID == string(key.UID) && k.LastUsedAt != nil })
	})
}

func TestLastUse_IsInAllResponsesWithAKey(t *testing.T) {
	f := newFixture(t)
	created := f.create(readOnly)
	issued := f.details(created.ID).Tokens[0].IssuedAt
	if created.LastUsedAt != nil || created.UnusedSince == nil || !created.UnusedSince.Equal(issued) {
		t.Errorf("the key that was never used is %+v, and its token was issued at %s", created, issued)
	}
	rotated := f.rotate(created.ID, `{"overlap": "1h"}`)
	if issued = f.details(created.ID).Tokens[0].IssuedAt; rotated.LastUsedAt != nil || !rotated.UnusedSince.Equal(issued) {
		t.Errorf("the rotated key is %+v, and its token was issued at %s", rotated, issued)
	}
	used := metav1.NewTime(issued.Add(48 * time.Hour).UTC())
	f.recordUse(f.object(created.ID), used)
	text := used.Format(time.RFC3339)
	inSnakeCase := fmt.Sprintf(`"last_used_at":"%s","unused_since":"%s"`, text, text)
	inCamelCase := fmt.Sprintf(`"lastUsedAt":"%s","unusedSince":"%s"`, text, text)
	for _, c := range []struct {
		request, token string
		body           []string
	}{
		{"GET /v1/api-keys", f.reader.Token, nil},
		{"GET /api/v1/api-keys/" + created.ID, f.reader.Token, nil},
		{"GET /v1/api-keys/self", rotated.Token, nil},
		{"PATCH /v1/api-keys/" + created.ID, f.writer.Token, []string{`{"write_access": true}`}},
		{"DELETE /api/v1/api-keys/" + created.ID, f.writer.Token, nil},
		{"GET /v1/api-keys/" + created.ID, f.reader.Token, nil}, // which has ended
	} {
		got := f.call(c.request, c.token, c.body...).body
		if !strings.Contains(got, inSnakeCase) || strings.Contains(got, inCamelCase) != strings.Contains(c.request, " /v1") {
			t.Errorf("the response to %s is %s, want %s", c.request, got, inSnakeCase)
		}
	}
}

func TestLastUse_OfEachTokenIsInTheDetails(t *testing.T) {
	f := newFixture(t)
	created := f.create(readOnly)
	f.rotate(created.ID, `{"overlap": "1h"}`)
	if tokens := f.details(created.ID).Tokens; len(tokens) != 2 || tokens[0].LastUsedAt != nil || tokens[1].LastUsedAt != nil {
		t.Errorf("the tokens that were never used are %+v", tokens)
	}
	updated := f.details(created.ID).UpdatedAt
	used := metav1.NewTime(time.Now().Add(-time.Minute).Truncate(time.Second).UTC())
	f.recordUse(f.object(created.ID), used)
	got := f.details(created.ID)
	if tokens := got.Tokens; len(tokens) != 2 || !tokens[0].LastUsedAt.Equal(used.Time) || !tokens[1].LastUsedAt.Equal(used.Add(-time.Hour)) {
		t.Errorf("the tokens are %+v, used at %s", tokens, used)
	}
	if !got.UpdatedAt.Equal(updated) {
		t.Errorf("a use changes updated_at from %s to %s", updated, got.UpdatedAt)
	}
}

func TestList_SelectsUnusedAndExpiringKeys(t *testing.T) {
	f := newFixture(t)
	f.stopController()
	now := time.Now().Truncate(time.Second)
	at := func(d time.Duration) *metav1.Time { return new(metav1.NewTime(now.Add(d))) }
	const day = 24 * time.Hour
	for i, name := range []string{"unused", "unused-too", "unused-three", "used", "new", "expiring", "unissued"} {
		key := f.apply(name, v1alpha1.APIKeySpec{AppName: name, ReadAccess: true}, nil)
		record := v1alpha1.TokenRecord{Hash: token.Hash(token.New()), Hint: "sq_abcd", NotBefore: at(-100 * day)}
		switch name {
		case "unissued":
			continue
		case "used":
			record.LastUsedAt = at(-time.Hour)
		case "new":
			record.NotBefore = at(-day)
		case "expiring":
			key.Spec.ExpiresAt, record.NotBefore = at(20*day), at(-day)
			framework.Must(t, f.Env.Client.Update(t.Context(), key))
		default:
			record.LastUsedAt = at(-time.Duration(91+i) * day)
		}
		key.Status.Tokens = []v1alpha1.TokenRecord{record}
		framework.Must(t, f.Env.Client.Status().Update(t.Context(), key))
	}
	framework.Eventually(t, "the console has seen all keys", func() bool { return f.count("?active_only=true") == 8 && f.count("") == 9 })
	for query, want := range map[string][]string{
		"unused_for=90d":                          {"unused", "unused-three", "unused-too"},
		"unused_for=13w":                          {"unused", "unused-three", "unused-too"}, // 91 days
		"unused_for=92d":                          {"unused-three", "unused-too"},
		"unused_for=1y":                           nil,
		"unused_for=1d12h&active_only=true":       {"unused", "unused-three", "unused-too"},
		"expires_within=30d":                      {"expiring"},
		"expires_within=480h":                     {"expiring"},
		"expires_within=19d":                      nil,
		"expires_within=30d&unused_for=90d":       nil,
		"unused_for=90d&unused_for=1000d&other=1": nil, // the last one counts
	} {
		var got []string
		for _, key := range f.list("?" + query) {
			got = append(got, key.Name)
		}
		slices.Sort(got)
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
		if count := f.count("?" + query); count != len(want) {
			t.Errorf("%s: the count is %d", query, count)
		}
	}
	var pages []int
	for page := "/v1/api-keys?unused_for=90d&limit=1&active_only=1"; page != ""; {
		request := f.request("GET "+page, f.reader.Token)
		got := f.send(request)
		pages = append(pages, len(payload[[]apiKey](t, got)))
		page = nextPage(t, request.URL, got.header)
	}
	if diff := gocmp.Diff([]int{1, 1, 1}, pages); diff != "" {
		t.Errorf("the pages of unused keys (-want +got):\n%s", diff)
	}
	got := f.call("GET /v1/api-keys?expires_within=3650d&unused_for=36h&limit=1", f.reader.Token)
	if got.header.Get("Link") != "" || got.body != `{"errorCode":0,"errorMessage":null,"payload":[]}` {
		t.Errorf("the response is %s, with the link %q", got.body, got.header.Get("Link"))
	}
}

// remove deletes the APIKey of a key, and waits until the console has seen that.
func (f *fixture) remove(id string) {
	f.Helper()
	before := f.count("")
	for _, key := range f.keys() {
		if string(key.UID) == id {
			framework.Must(f, f.Env.Client.Delete(f.Context(), &key))
		}
	}
	framework.Eventually(f, "the console has seen the deletion", func() bool { return f.count("") == before-1 })
}

// nextPage returns the path and query in a Link header, or "".
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

func TestInvalidQueries_AreRefused(t *testing.T) {
	const (
		notBoolean  = "The query parameter %s must be true or false."
		badLimit    = "The query parameter limit must be an integer of at least 1; omit it to list all keys."
		badContinue = "The query parameter continue must be the one in the Link header of the previous page; omit it to list from the first key."
		badUnused   = "The query parameter unused_for must be a duration of at least 1d, such as 90d, because the last use of a key is recorded once a day."
		badExpires  = "The query parameter expires_within must be a duration of more than 0s, such as 12h or 30d."
		badQuery    = "The query of the URL is invalid: separate its parameters by & and percent-encode their values."
	)
	f := newFixture(t)
	for query, want := range map[string]string{
		"?active_only=":               fmt.Sprintf(notBoolean, "active_only"),
		"?active_only=yes":            fmt.Sprintf(notBoolean, "active_only"),
		"?active_only=1&active_only":  fmt.Sprintf(notBoolean, "active_only"),
		"?limit=0":                    badLimit,
		"?limit=-1":                   badLimit,
		"?limit=1e3":                  badLimit,
		"?limit=99999999999999999999": badLimit,
		"?continue=":                  badContinue,
		"?continue=%00":               badContinue,
		"?continue=5":                 badContinue,
		"?continue=MTIzNA":            badContinue, // 1234
		"?continue=MTIzNC8":           badContinue, // 1234/
		"?continue=MTIzNC8x":          badContinue, // 1234/1
		"?continue=MTIzNC8xLw":        badContinue, // 1234/1/
		"?continue=KzEvMi9h":          badContinue, // +1/2/a
		"?unused_for=":                badUnused,
		"?unused_for=90":              badUnused,
		"?unused_for=0d":              badUnused,
		"?unused_for=23h":             badUnused,
		"?unused_for=-90d":            badUnused,
		"?unused_for=1.5d":            badUnused,
		"?unused_for=90+d":            badUnused,
		"?unused_for=300y":            badUnused,
		"?unused_for=90d&unused_for":  badUnused,
		"?expires_within=":            badExpires,
		"?expires_within=0":           badExpires,
		"?expires_within=0s":          badExpires,
		"?expires_within=30":          badExpires,
		"?expires_within=-30d":        badExpires,
		"?expires_within=soon":        badExpires,
		"?limit=%zz":                  badQuery,
		"?a;b":                        badQuery,
	} {
		f.call("GET /api/v1/api-keys"+query, f.reader.Token).assertError(t, 422, want)
	}
	f.call("GET /v1/api-keys/count?unused_for=1h", f.reader.Token).assertError(t, 422, badUnused)
	f.call("GET /v1/api-keys/count?expires_within=never", f.reader.Token).assertError(t, 422, badExpires)
	f.call("DELETE /v1/api-keys/"+unknownID+"?force=maybe", f.writer.Token).assertError(t, 422, fmt.Sprintf(notBoolean, "force"))
}

func TestInvariant4_BeforeTheFirstListAllResponsesAre503(t *testing.T) {
	f := newFixture(t)
	console := f.startConsole(func(o *api.Options) {
		keyring := authn.NewKeyring() // that stays empty
		o.Authenticator, o.KeyCache = authn.NewAuthenticator(keyring, 0, time.Now), api.NewKeyCache(keyring)
	})
	console.call("GET /api/v1/api-keys", f.reader.Token).assertError(t, 503, notReady)
	console.call("GET /v1/nothing", "sq_unknown").assertError(t, 503, notReady)
	got := console.call("GET /api/v1/health", "")
	got.assertError(t, 503, notReady)
	if got.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After is %q", got.header.Get("Retry-After"))
	}
}

func TestInvariant10_AKeyWithAnUnreadableFieldIsListedWithTheOthers(t *testing.T) {
	f := newFixture(t)
	sound, broken, ttl := f.issue("Sound", true, false), f.issue("Broken", true, false), f.issue("Ends", true, false)
	change := func(key *v1alpha1.APIKey, field string, value any) {
		f.Env.UpdateInEtcd(t, f.Namespace, key.Name, func(object map[string]any) { object["spec"].(map[string]any)[field] = value })
	}
	change(broken.Key, "expiresAt", "never")
	change(ttl.Key, "secret", map[string]any{"ttl": "a while"})
	c := f.startConsole()
	active := map[string]bool{}
	for _, key := range payload[[]apiKey](t, c.call("GET /api/v1/api-keys", f.reader.Token)) {
		active[key.ID] = key.IsActive
	}
	for key, want := range map[*keyclient.CreateResult]bool{sound: true, broken: false, ttl: true} {
		if got, listed := active[string(key.Key.UID)]; !listed || got != want {
			t.Errorf("%q is listed: %t, active: %t, want %t", key.Key.Spec.AppName, listed, got, want)
		}
		status := map[bool]int{true: 200, false: 401}[want]
		if got := c.call("GET /api/v1/api-keys/count", key.Token); got.status != status {
			t.Errorf("the response to %q is %d %s, want %d", key.Key.Spec.AppName, got.status, got.body, status)
		}
	}
}
