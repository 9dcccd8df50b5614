// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
	"squirrel.dev/apikey-operator/webhook/authn"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// run feeds a new Keyring from a Kubernetes API until the test ends.
func run(t *testing.T, config *rest.Config, namespace string) *authn.Keyring {
	t.Helper()
	keyring := authn.NewKeyring()
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := keyring.Run(ctx, config, namespace); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	return keyring
}

// create creates an issued key, as its owner and the controller do.
func create(t *testing.T, env *testenv.Env, namespace, name, plaintext string) *v1alpha1.APIKey {
	t.Helper()
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1alpha1.APIKeySpec{AppName: "App " + name, ReadAccess: true},
	}
	succeed(t, env.Client.Create(t.Context(), key))
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash(plaintext), Hint: "sq_", NotBefore: new(metav1.Now())}}
	succeed(t, env.Client.Status().Update(t.Context(), key))
	return key
}

// verdict returns what a Keyring says of a token, to be asked until it says what is wanted.
func verdict(keyring *authn.Keyring, namespace, plaintext string) func() outcome {
	return func() outcome { return outcomeOf(decide(keyring, namespace, plaintext)) }
}

func eventually(g *WithT, get any) AsyncAssertion {
	return g.Eventually(get).WithTimeout(framework.Timeout).WithPolling(5 * time.Millisecond)
}

func TestTheKeyringFollowsTheKubernetesAPI(t *testing.T) {
	g := NewWithT(t)
	env := testenv.Shared(t)
	shop, bank := env.Namespace(t), env.Namespace(t)
	listed := create(t, env, shop, "listed", "listed's")
	everywhere, shopOnly := run(t, env.Config, metav1.NamespaceAll), run(t, env.Config, shop)

	both := []*authn.Keyring{everywhere, shopOnly}
	for _, keyring := range both {
		eventually(g, verdict(keyring, shop, "listed's")).Should(Equal(granted(string(listed.UID))))
		g.Expect(decide(keyring, shop, "listed's").Key).To(HaveField("AppName", "App listed"))
	}

	added := create(t, env, shop, "added", "added's")
	for _, keyring := range both {
		eventually(g, verdict(keyring, shop, "added's")).Should(Equal(granted(string(added.UID))))
	}

	added.Spec.Active = new(false)
	g.Expect(env.Client.Update(t.Context(), added)).To(Succeed())
	for _, keyring := range both {
		eventually(g, verdict(keyring, shop, "added's")).Should(
			Equal(outcome{authn.Unauthenticated, authn.ReasonKeyDeactivated, string(added.UID)}))
	}

	g.Expect(env.Client.Delete(t.Context(), listed)).To(Succeed())
	for _, keyring := range both {
		eventually(g, verdict(keyring, shop, "listed's")).Should(Equal(unknown))
	}

	elsewhere := create(t, env, bank, "elsewhere", "elsewhere's")
	after := create(t, env, shop, "after", "after's") // whoever has seen this has seen the one before
	for _, keyring := range both {
		eventually(g, verdict(keyring, shop, "after's")).Should(Equal(granted(string(after.UID))))
	}
	eventually(g, verdict(everywhere, bank, "elsewhere's")).Should(Equal(granted(string(elsewhere.UID))))
	g.Expect(verdict(shopOnly, bank, "elsewhere's")()).To(Equal(unknown))
}

func TestInvariant9_AuthenticationGoesOnFromMemoryWhileTheAPIIsAway(t *testing.T) {
	g := NewWithT(t)
	env := testenv.Start(t)
	shop := env.Namespace(t)
	kept, revoked := create(t, env, shop, "kept", "kept's"), create(t, env, shop, "revoked", "revoked's")
	running := run(t, env.Config, metav1.NamespaceAll)
	eventually(g, verdict(running, shop, "revoked's")).Should(Equal(granted(string(revoked.UID))))

	env.StopAPIServer()
	restarted := run(t, env.Config, metav1.NamespaceAll)
	ready := authn.NewAuthenticator(restarted, 0, clock).Ready
	eventually(g, ready).Should(MatchError(ContainSubstring("connection refused")))
	g.Expect(verdict(restarted, shop, "kept's")()).To(Equal(outcome{authn.Unavailable, authn.ReasonNotSynced, ""}))
	g.Expect(verdict(restarted, shop, "nobody's")()).To(Equal(outcome{authn.Unavailable, authn.ReasonNotSynced, ""}))
	g.Expect(verdict(running, shop, "kept's")()).To(Equal(granted(string(kept.UID))))
	g.Expect(verdict(running, shop, "revoked's")()).To(Equal(granted(string(revoked.UID))))
	g.Expect(verdict(running, shop, "nobody's")()).To(Equal(unknown))

	g.Expect(env.StartAPIServer(t.Context())).To(Succeed())
	g.Expect(env.Client.Delete(t.Context(), revoked)).To(Succeed())
	deleted := time.Now()
	eventually(g, verdict(running, shop, "revoked's")).Should(Equal(unknown))
	t.Logf("the key was refused %v after it was deleted", time.Since(deleted).Round(time.Millisecond))
	g.Expect(verdict(running, shop, "kept's")()).To(Equal(granted(string(kept.UID))))
	eventually(g, ready).Should(Succeed())
	g.Expect(verdict(restarted, shop, "kept's")()).To(Equal(granted(string(kept.UID))))
	g.Expect(verdict(restarted, shop, "revoked's")()).To(Equal(unknown))
}

func TestInvariant9_ListsAreConsistent(t *testing.T) {
	g := NewWithT(t)
	env := testenv.Shared(t)
	shop := env.Namespace(t)
	key := create(t, env, shop, "k", "t")
	recorder := &recorder{}
	config := rest.CopyConfig(env.Config)
	config.Wrap(recorder.wrap)
	keyring := run(t, config, shop)

	eventually(g, recorder.lists).Should(HaveLen(2)) // at the start, and since the first watch expired
	for _, query := range recorder.lists() {
		g.Expect(query).To(Equal(url.Values{"limit": {"10000"}}), "any resourceVersion would allow for a cache that lags")
	}
	eventually(g, verdict(keyring, shop, "t")).Should(Equal(granted(string(key.UID))))
}

// recorder keeps the queries of lists, and answers the first watch that it began too long ago.
type recorder struct {
	next    http.RoundTripper
	mutex   sync.Mutex
	queries []url.Values
	expired bool
}

func (r *recorder) wrap(next http.RoundTripper) http.RoundTripper {
	r.next = next
	return r
}

func (r *recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	switch query := request.URL.Query(); {
	case !query.Has("watch"):
		r.queries = append(r.queries, query)
	case !r.expired:
		r.expired = true
		return &http.Response{
			StatusCode: http.StatusGone, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(expired)),
		}, nil
	}
	return r.next.RoundTrip(request)
}

func (r *recorder) lists() []url.Values {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return slices.Clone(r.queries)
}

// expired is what an API server says of an instant that it has forgotten.
const expired = `{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"Expired","code":410,"message":"too old"}`

func TestWhatCannotBeReadInAnObjectTakesNoOtherDown(t *testing.T) {
	object := func(name, spec, status string) string {
		return fmt.Sprintf(`{"apiVersion":"keys.squirrel.dev/v1alpha1","kind":"APIKey",
			"metadata":{"namespace":"shop","name":%[1]q,"uid":"uid-of-%[1]s","resourceVersion":"5","generation":1,
				"creationTimestamp":"2027-01-01T00:00:00Z","annotations":{"k":"v"},"managedFields":[{"manager":"x","fieldsV1":{"f:spec":{}}}]},
			"spec":{"appName":"App","readAccess":true,"writeAccess":false,"active":true,"secret":{"key":"token"}%[2]s},
			"status":{"conditions":[{"type":"Ready","status":"True"}],"tokens":[{"hash":%[3]q,"hint":"sq_","notBefore":"2027-01-01T00:00:00Z"%[4]s}]}}`,
			name, spec, token.Hash(name), status)
	}
	const unreadable = `"2027-06-01t00:00:00+99:99"`
	objects := []string{
		object("sound", "", ""),
		object("future", `,"expiresAt":"2027-06-01T00:00:00Z"`, `,"notAfter":"2027-06-01T00:00:00.5+02:00"`),
		object("null", `,"expiresAt":null,"active":null`, `,"notAfter":null`),
		object("past", `,"expiresAt":"2027-02-01T00:00:00Z"`, ""),
		object("unreadable-end", `,"expiresAt":`+unreadable, ""),
		object("unreadable-supersession", "", `,"notAfter":`+unreadable),
		object("unreadable-active", `,"active":"no"`, ""),
		object("unreadable-access", `,"readAccess":"true","writeAccess":true`, ""),
		object("unreadable-both-accesses", `,"readAccess":"true","writeAccess":1`, ""),
		object("unreadable-ttl", `,"secret":{"ttl":"a while"}`, ""),
		object("unreadable-app", `,"appName":7`, ""),
		object("unreadable-status-of-no-token", "", `,"claimedAt":7,"hint":[]`),
		strings.Replace(object("unreadable-deletion", "", ""), `"generation"`, `"deletionTimestamp":true,"generation"`, 1),
		strings.Replace(object("unreadable-record-of-its-end", "", ""), `"conditions"`, `"deactivatedAt":"soon","conditions"`, 1),
		strings.Replace(object("unreadable-conditions", "", ""), `[{"type"`, `["Ready",{"type"`, 1),
		strings.Replace(object("unreadable-token-beside-it", "", ""), `"tokens":[`, `"tokens":["sha256:",{"hash":7,"notBefore":"2027-01-01T00:00:00Z"},`, 1),
		object("unreadable-handover", "", `,"notBefore":"long ago"`),
		strings.Replace(object("unreadable-tokens", "", ""), `"tokens":[`, `"tokens":7,"other":[`, 1),
		strings.Replace(object("unreadable-status", "", ""), `"status":{"c`, `"status":[],"other":{"c`, 1),
		strings.Replace(object("unreadable-spec", "", ""), `"spec":{`, `"spec":"none","other":{`, 1),
		strings.Replace(object("unreadable-metadata", "", ""), `"metadata":{`, `"metadata":"none","other":{`, 1),
		strings.Replace(object("unreadable-hash", "", ""), "sha256:", "sha257:", 1),
		strings.Replace(object("deleted", "", ""), `"generation"`, `"deletionTimestamp":"2027-01-01T00:00:00Z","generation"`, 1),
		strings.Replace(object("ended", "", ""), `"conditions"`, `"deactivatedAt":"2027-01-01T00:00:00Z","conditions"`, 1),
		strings.Replace(object("not-issued", "", ""), `"notBefore"`, `"other"`, 1),
	}
	want := map[string]outcome{
		"sound":                   granted("uid-of-sound"),
		"future":                  granted("uid-of-future"),
		"null":                    granted("uid-of-null"),
		"past":                    {authn.Unauthenticated, authn.ReasonKeyExpired, "uid-of-past"},
		"unreadable-end":          {authn.Unauthenticated, authn.ReasonKeyExpired, "uid-of-unreadable-end"},
		"unreadable-supersession": {authn.Unauthenticated, authn.ReasonTokenSuperseded, "uid-of-unreadable-supersession"},
		"unreadable-hash":         unknown,

		"unreadable-active":             {authn.Unauthenticated, authn.ReasonKeyExpired, "uid-of-unreadable-active"},
		"unreadable-access":             {authn.Forbidden, authn.ReasonNoReadAccess, "uid-of-unreadable-access"},
		"unreadable-both-accesses":      {authn.Forbidden, authn.ReasonNoReadAccess, "uid-of-unreadable-both-accesses"},
		"unreadable-ttl":                granted("uid-of-unreadable-ttl"),
		"unreadable-app":                granted("uid-of-unreadable-app"),
		"unreadable-status-of-no-token": granted("uid-of-unreadable-status-of-no-token"),
		"unreadable-deletion":           {authn.Unauthenticated, authn.ReasonKeyExpired, "uid-of-unreadable-deletion"},
		"unreadable-record-of-its-end":  {authn.Unauthenticated, authn.ReasonKeyExpired, "uid-of-unreadable-record-of-its-end"},
		"unreadable-conditions":         granted("uid-of-unreadable-conditions"),
		"unreadable-token-beside-it":    granted("uid-of-unreadable-token-beside-it"),
		"unreadable-handover":           unknown,
		"unreadable-tokens":             unknown,
		"unreadable-status":             unknown,
		"unreadable-spec":               {authn.Unauthenticated, authn.ReasonKeyExpired, "uid-of-unreadable-spec"},
		"unreadable-metadata":           unknown,
		"deleted":                       {authn.Unauthenticated, authn.ReasonKeyDeactivated, "uid-of-deleted"},
		"ended":                         {authn.Unauthenticated, authn.ReasonKeyExpired, "uid-of-ended"},
		"not-issued":                    unknown,
	}
	t.Run("listed", func(t *testing.T) {
		g := NewWithT(t)
		api := serveAPI(t)
		keyring := run(t, api.config, metav1.NamespaceAll)
		g.Expect(api.awaitList()).To(BeEmpty())
		api.answer(listOf("another page", objects[:4]...))
		g.Expect(api.awaitList()).To(Equal("another page"))
		g.Expect(keyring.Synced()).To(BeFalse(), "before the last page")
		api.answer(listOf("", objects[4:]...))
		eventually(g, keyring.Synced).Should(BeTrue())
		for name, outcome := range want {
			expect(t, keyring, "shop", name, outcome)
		}
	})
	t.Run("watched", func(t *testing.T) {
		g := NewWithT(t)
		api := serveAPI(t)
		keyring := run(t, api.config, metav1.NamespaceAll)
		api.awaitList()
		api.answer(listOf(""))
		for _, added := range objects {
			api.tell(`{"type":"ADDED","object":` + added + `}`)
		}
		eventually(g, keyring.Len).Should(Equal(len(objects) - 5)) // all but those without a token that counts
		for name, outcome := range want {
			expect(t, keyring, "shop", name, outcome)
		}
	})
}

func TestInvariant10_AFieldThatCannotBeReadEndsOnlyItsOwnKey(t *testing.T) {
	g := NewWithT(t)
	env := testenv.Shared(t)
	shop := env.Namespace(t)
	sound, broken := create(t, env, shop, "sound", "sound's"), create(t, env, shop, "broken", "broken's")
	set := func(active any) {
		env.ChangeStored(t, shop, "broken", func(object map[string]any) { object["spec"].(map[string]any)["active"] = active })
	}
	set("yes")
	listing := run(t, env.Config, shop)
	eventually(g, verdict(listing, shop, "sound's")).Should(Equal(granted(string(sound.UID))))
	g.Expect(verdict(listing, shop, "broken's")()).To(Equal(outcome{authn.Unauthenticated, authn.ReasonKeyExpired, string(broken.UID)}))
	set(true)
	eventually(g, verdict(listing, shop, "broken's")).Should(Equal(granted(string(broken.UID))))
	set(7)
	eventually(g, verdict(listing, shop, "broken's")).Should(Equal(outcome{authn.Unauthenticated, authn.ReasonKeyExpired, string(broken.UID)}))
	later := create(t, env, shop, "later", "later's")
	eventually(g, verdict(listing, shop, "later's")).Should(Equal(granted(string(later.UID))))
}

func TestInvariant4_NoKeyIsLostWhenAListExpiresBetweenItsPages(t *testing.T) {
	g := NewWithT(t)
	api := serveAPI(t)
	keyring := run(t, api.config, metav1.NamespaceAll)
	const first, second = `{"kind":"APIKey","metadata":{"namespace":"shop","name":"a"}}`, `{"kind":"APIKey","metadata":{"namespace":"shop","name":"b"},
		"spec":{"readAccess":true},"status":{"tokens":[{"hash":%q,"notBefore":"2026-01-01T00:00:00Z"}]}}`
	api.awaitList()
	api.answer(listOf("forgotten", first))
	g.Expect(api.awaitList()).To(Equal("forgotten"))
	api.answerWith(http.StatusGone, expired)

	g.Expect(api.awaitList()).To(BeEmpty(), "all is listed again")
	g.Expect(keyring.Synced()).To(BeFalse())
	api.answer(listOf("remembered", first))
	g.Expect(api.awaitList()).To(Equal("remembered"))
	api.answer(listOf("", fmt.Sprintf(second, token.Hash("b"))))
	eventually(g, keyring.Synced).Should(BeTrue())
	expect(t, keyring, "shop", "b", granted(""))
}

func TestInvariant4_AnAnswerThatIsNoListIsNotTakenForAnEmptyOne(t *testing.T) {
	for answer, problem := range map[string]string{
		`{}`:                                   `the response to a list of APIKeys must have the kind APIKeyList, not ""`,
		`{"kind":"Status","status":"Success"}`: `the response to a list of APIKeys must have the kind APIKeyList, not "Status"`,
		`<html>`:                               `unable to decode a list of APIKeys`,
		`{"kind":"APIKeyList","metadata":{},"items":{}}`:         `cannot unmarshal JSON object into Go []authn.parsedKey within "/items"`,
		`{"kind":"APIKeyList","metadata":{},"items":[7]}`:        `unable to decode a list of APIKeys`,
		`{"kind":"APIKeyList","metadata":{},"items":[{"kind":"A`: `unexpected EOF`,
	} {
		t.Run(answer, func(t *testing.T) {
			g := NewWithT(t)
			api := serveAPI(t)
			keyring := run(t, api.config, metav1.NamespaceAll)
			api.awaitList()
			api.answer(answer)
			api.awaitList()
			g.Expect(authn.NewAuthenticator(keyring, 0, clock).Ready()).To(MatchError(ContainSubstring(problem)))
			api.answer(`{"kind":"APIKeyList","metadata":{"resourceVersion":"5"},"items":null}`)
			eventually(g, keyring.Synced).Should(BeTrue())
		})
	}
}

func TestTheFeedEndsWhileTheAPIIsSilent(t *testing.T) {
	for name, reach := range map[string]func(*api){
		"in a list":  func(*api) {},
		"in a watch": func(a *api) { a.answer(listOf("")); <-a.watched },
	} {
		t.Run(name, func(t *testing.T) {
			api := serveAPI(t)
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- authn.NewKeyring().Run(ctx, api.config, metav1.NamespaceAll) }()
			api.awaitList()
			reach(api)
			stop()
			NewWithT(t).Eventually(ended).WithTimeout(framework.Timeout).Should(Receive(BeNil()))
		})
	}
}

func TestAListedKeyTakesFewAllocations(t *testing.T) {
	const keys, managers = 2_000, 20
	g := NewWithT(t)
	api := serveAPI(t)
	keyring := run(t, api.config, metav1.NamespaceAll)
	all := make([]string, keys)
	for i := range all {
		manager := `{"manager":"kubectl","operation":"Update","fieldsV1":{"f:spec":{".":{},"f:appName":{},"f:readAccess":{}}}}`
		all[i] = fmt.Sprintf(`{"apiVersion":"keys.squirrel.dev/v1alpha1","kind":"APIKey",
			"metadata":{"namespace":"shop","name":"key-%[1]d","uid":"uid-%[1]d","resourceVersion":"5","managedFields":[%[2]s]},
			"spec":{"appName":"App %[1]d","readAccess":true,"writeAccess":false,"active":true},
			"status":{"tokens":[{"hash":%[3]q,"hint":"sq_","notBefore":"2027-01-01T00:00:00Z"}]}}`,
			i, strings.Repeat(manager+",", managers-1)+manager, token.Hash(fmt.Sprint(i)))
	}
	list := listOf("", all...)
	api.awaitList()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	api.answer(list)
	eventually(g, keyring.Synced).Should(BeTrue())
	runtime.ReadMemStats(&after)
	expect(t, keyring, "shop", "1", granted("uid-1"))

	// Most of an object is managedFields, which allocate nothing.
	perKey := float64(after.Mallocs-before.Mallocs) / keys
	t.Logf("%.1f allocations per key", perKey)
	g.Expect(perKey).To(BeNumerically("<", 30))
}

func TestInvariant9_ABookmarkIsAWordFromTheAPI(t *testing.T) {
	g := NewWithT(t)
	api := serveAPI(t)
	keyring := run(t, api.config, metav1.NamespaceAll)
	api.awaitList()
	api.answer(listOf(""))
	eventually(g, keyring.Synced).Should(BeTrue())

	before := time.Now()
	lastWordAfterThat := func() bool { return keyring.Staleness(before) < 0 }
	g.Expect(lastWordAfterThat()).To(BeFalse())
	api.tell(`{"type":"BOOKMARK","object":{"apiVersion":"keys.squirrel.dev/v1alpha1","kind":"APIKey",
		"metadata":{"resourceVersion":"6","creationTimestamp":null},"spec":{"appName":""}}}`)
	eventually(g, lastWordAfterThat).Should(BeTrue())
}

// framework.Timeout is how long a test waits for something that happens at once.
// api is an API server that says what it is told to, as one does that is too old, or too broken, to be had otherwise.
type api struct {
	t       *testing.T
	config  *rest.Config
	lists   chan string // the continue token of each list that is asked for
	answers chan answer // to lists
	watched chan struct{}
	events  chan string // of a watch
}

type answer struct {
	status int
	body   string
}

func serveAPI(t *testing.T) *api {
	t.Helper()
	a := &api{t: t, lists: make(chan string), answers: make(chan answer), watched: make(chan struct{}, 10), events: make(chan string)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Query().Has("watch") {
			a.watched <- struct{}{}
			a.serveWatch(w, r)
		} else {
			a.serveList(w, r)
		}
	}))
	t.Cleanup(server.Close)
	a.config = &rest.Config{Host: server.URL}
	return a
}

func (a *api) serveList(w http.ResponseWriter, r *http.Request) {
	select {
	case a.lists <- r.URL.Query().Get("continue"):
	case <-r.Context().Done():
		return
	}
	select {
	case answer := <-a.answers:
		w.WriteHeader(answer.status)
		_, _ = io.WriteString(w, answer.body)
	case <-r.Context().Done():
	}
}

// serveWatch sends nothing before the first event, not even headers.
func (a *api) serveWatch(w http.ResponseWriter, r *http.Request) {
	for {
		select {
		case event := <-a.events:
			_, _ = io.WriteString(w, event+"\n")
			_ = http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// awaitList waits until a list is asked for, and returns the continue token.
func (a *api) awaitList() string {
	a.t.Helper()
	select {
	case asked := <-a.lists:
		return asked
	case <-time.After(framework.Timeout):
		a.t.Fatal("no list was asked for")
		return ""
	}
}

// answer answers the list that was asked for.
func (a *api) answer(body string) { a.t.Helper(); a.answerWith(http.StatusOK, body) }

func (a *api) answerWith(status int, body string) {
	a.t.Helper()
	select {
	case a.answers <- answer{status, body}:
	case <-time.After(framework.Timeout):
		a.t.Fatal("nobody waits for an answer")
	}
}

// tell sends an event to whoever watches.
func (a *api) tell(event string) {
	a.t.Helper()
	select {
	case a.events <- event:
	case <-time.After(framework.Timeout):
		a.t.Fatal("nobody watches")
	}
}

// listOf returns a page of a list. Another one follows it if next is not empty.
func listOf(next string, objects ...string) string {
	return fmt.Sprintf(`{"apiVersion":"keys.squirrel.dev/v1alpha1","kind":"APIKeyList","metadata":{"resourceVersion":"5","continue":%q},"items":[%s]}`,
		next, strings.Join(objects, ","))
}

func TestAConfigThatCannotWorkIsAnError(t *testing.T) {
	err := authn.NewKeyring().Run(t.Context(), &rest.Config{Host: "not a host"}, metav1.NamespaceAll)
	const want = `cannot watch APIKeys: parse "http://not a host": invalid character " " in host name`
	if err == nil || err.Error() != want {
		t.Errorf("Run() = %v, want %s", err, want)
	}
}
