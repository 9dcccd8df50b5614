// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// brought is a token that somebody made elsewhere, with characters that are written in many ways.
var brought = `p"ss/w&rd+<with>%odd=characters;` + token.New()

// TestInvariant1_PlaintextIsInTheOneTimeSecretsAndNowhereElse searches all that a whole run leaves behind for every token of the run.
func TestInvariant1_PlaintextIsInTheOneTimeSecretsAndNowhereElse(t *testing.T) {
	t.Parallel() // it waits more than it works; nothing else works in this control plane then
	run := &wholeRun{fixture: newFixture(t, testenv.Shared(t)), tokens: map[string]string{"brought": brought}, places: haystack{}}
	run.issueKeys()
	run.makeConflicts()
	run.restartTheControllerWithItsWebhook()
	run.useTheKeys()
	run.endAKey()
	run.awaitTheRefusedSecret()
	run.showTheKeys()
	run.askForMetrics()
	run.stop()
	run.collectLogs()
	run.collectObjects()
	run.assertItWasAWholeRun()

	want := map[string][]string{
		run.dataOf("plain-token"):   {"plain-token"},
		run.dataOf("named-secret"):  {"named-secret"},
		run.dataOf("refused-token"): {"refused-token again"},
	}
	if diff := cmp.Diff(want, run.places.search(run.tokens)); diff != "" {
		t.Errorf("where the tokens are (-want +got):\n%s", diff)
	}
}

// wholeRun is a life of a controller with its admission webhook and of an authenticator, both as talkative as they can be.
type wholeRun struct {
	*fixture
	controller, authenticator *operator.Process
	controllerMetrics         string
	ended                     []*operator.Process

	mu      sync.Mutex
	tokens  map[string]string // by the Secret that they were to be handed over in
	places  haystack
	refusal string
}

func (r *wholeRun) note(place, content string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.places[place] = append(r.places[place], content...)
}

// issueKeys has keys issued in all ways, and the Secret of one refused with words that repeat what was sent.
func (r *wholeRun) issueKeys() {
	r.Helper()
	r.startController("--webhook=false")
	r.CreateKey("plain")
	r.CreateKey("ended")
	r.CreateKey("refused")
	r.CreateKey("named", func(key *v1alpha1.APIKey) {
		key.Spec.Secret = &v1alpha1.TokenSecret{Name: "named-secret", Key: "api.key", TTL: &metav1.Duration{Duration: time.Hour}}
	})
	r.CreateKey("brought", func(key *v1alpha1.APIKey) {
		key.Spec.TokenHash, key.Spec.TokenHint = token.Hash(brought), token.Hint(brought)
	})
	for _, name := range []string{"plain", "ended", "named", "brought"} {
		r.WaitForReady(name, v1alpha1.ReasonIssued)
	}
	framework.Eventually(r.TB, "a Secret was refused", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.refusal != ""
	})
}

// startController runs a controller whose calls are noted, all but what it writes to Secrets.
func (r *wholeRun) startController(args ...string) {
	r.Helper()
	api := startProxy(r.TB, r.Env.Config, func(forward http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			createsSecret := request.Method == http.MethodPost && strings.HasSuffix(request.URL.Path, "/secrets")
			call, err := httputil.DumpRequest(request, true)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			head, body, _ := bytes.Cut(call, []byte("\r\n\r\n"))
			r.note("calls of the controller", string(head))
			if !createsSecret {
				r.note("calls of the controller", string(body))
			} else if refusal := r.judgeSecret(body); refusal != nil {
				refuse(w, refusal)
				return
			}
			forward.ServeHTTP(w, request)
		})
	})
	r.controllerMetrics = binaries.FreeAddress(r.TB)
	r.controller = operator.StartController(r.TB, api.config,
		append(args, "--log-level=debug", "--metrics-bind-address="+r.controllerMetrics)...)
}

// judgeSecret learns the token of a Secret that is to be created, and refuses the first one of the refused key.
func (r *wholeRun) judgeSecret(body []byte) *apierrors.StatusError {
	decoded, err := runtime.Decode(clientgoscheme.Codecs.UniversalDeserializer(), body)
	if err != nil {
		r.Error(err)
		return nil
	}
	secret := decoded.(*corev1.Secret)
	r.mu.Lock()
	defer r.mu.Unlock()
	name := secret.Name
	if _, known := r.tokens[name]; known {
		name += " again"
	}
	for _, value := range secret.Data {
		r.tokens[name] = string(value)
	}
	if name != "refused-token" {
		return nil
	}
	r.refusal = "no such Secret here: " + string(body) + " with the token " + r.tokens[name]
	return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, name, errors.New(r.refusal))
}

func (r *wholeRun) makeConflicts() {
	r.Helper()
	framework.Must(r.TB, r.Env.Client.Create(r.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: "planted-token"},
		Data:       map[string][]byte{"token": []byte("somebody else's")},
	}))
	r.CreateKey("planted")
	r.CreateKey("same-name", func(key *v1alpha1.APIKey) { key.Spec.AppName = "App plain" })
	r.CreateKey("same-hash", func(key *v1alpha1.APIKey) { key.Spec.TokenHash = token.Hash(brought) })
	r.WaitForReady("planted", v1alpha1.ReasonSecretConflict)
	r.WaitForReady("same-name", v1alpha1.ReasonAppNameConflict)
	r.WaitForReady("same-hash", v1alpha1.ReasonTokenHashConflict)
}

// restartTheControllerWithItsWebhook has the webhook refuse a key, too.
func (r *wholeRun) restartTheControllerWithItsWebhook() {
	r.Helper()
	r.controller.Kill()
	r.ended = append(r.ended, r.controller)
	root, err := controlplane.FindRepository()
	framework.Must(r.TB, err)
	port, certDir := r.Env.Webhook(r.TB, filepath.Join(root, "config", "webhook", "validating.yaml"))
	r.startController("--webhook=true", "--webhook-listen-address=127.0.0.1:"+strconv.Itoa(port), "--webhook-cert-dir="+certDir)
	framework.Eventually(r.TB, "the webhook is ready", func() bool {
		status, _ := r.health(r.controller.Address("health"), "/readyz")
		return status == http.StatusOK
	})
	err = r.Env.Client.Create(r.Context(), &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: "same-hash-again"},
		Spec:       v1alpha1.APIKeySpec{AppName: "another", ReadAccess: true, TokenHash: token.Hash(brought)},
	})
	if err == nil {
		r.Fatal("the webhook admitted a second key with the same hash")
	}
	r.note("refusal of the webhook", err.Error())
}

// useTheKeys sends each token in all ways, right and wrong ones.
func (r *wholeRun) useTheKeys() {
	r.Helper()
	r.authenticator = startAuthenticator(r.TB, r.Env.Config, "--log-level=debug", "--shutdown-delay=0")
	gateway := r.authenticator.Address("authenticator")
	for name, secret := range r.tokensSoFar() {
		want := http.StatusOK
		if name == "refused-token" {
			want = http.StatusUnauthorized
		}
		r.awaitAnswer(gateway, secret, want)
		for _, request := range r.requestsWith(secret, gateway) {
			r.noteAnswer(request)
		}
		for _, bytes := range brokenRequestsWith(secret) {
			r.noteAnswerTo(gateway, bytes)
		}
	}
}

func (r *wholeRun) tokensSoFar() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.tokens)
}

// requestsWith returns requests with a token in every place that a client or a gateway could put it.
func (r *wholeRun) requestsWith(secret, gateway string) []*http.Request {
	r.Helper()
	uri := "/orders/" + url.PathEscape(secret) + "?api_key=" + url.QueryEscape(secret)
	review, form := http.Header{"Content-Type": {"application/json"}}, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	var requests []*http.Request
	for _, ask := range []struct {
		address string
		header  http.Header
		body    string // of a POST
	}{
		{gateway + "/auth/envoy/" + r.Namespace + uri, nil, ""},
		{gateway + "/auth/nginx/" + r.Namespace, http.Header{"X-Original-Method": {"GET"}, "X-Original-Uri": {uri}}, ""},
		{gateway + "/auth/nginx/" + r.Namespace, http.Header{"X-Original-Uri": {uri}}, ""},
		{gateway + "/auth/forward/" + r.Namespace, http.Header{"X-Forwarded-Method": {"GET"}, "X-Forwarded-Uri": {uri}}, ""},
		{gateway + "/auth/forward/" + r.Namespace, http.Header{"X-Forwarded-Method": {"DELETE"}, "X-Forwarded-Uri": {uri}}, ""},
		{gateway + "/auth/forward/" + r.Namespace, http.Header{"X-Forwarded-Method": {secret}}, ""},
		{gateway + "/auth/forward/elsewhere", http.Header{"X-Forwarded-Method": {"GET"}}, ""},
		{gateway + "/auth/forward" + uri, http.Header{"X-Forwarded-Method": {"GET"}}, ""},
		{gateway + uri, nil, ""},
		{r.authenticator.Address("health") + uri, nil, ""},
		{r.authenticator.Address("metrics") + uri, nil, ""},
		{r.controllerMetrics + uri, nil, ""},
		{gateway + "/auth/tokenreview/" + r.Namespace + "?token=" + url.QueryEscape(secret), review, reviewOf("authentication.k8s.io/v1", secret)},
		{gateway + "/auth/tokenreview/" + r.Namespace, review, reviewOf("authentication.k8s.io/v1beta1", secret)},
		{gateway + "/auth/tokenreview/" + r.Namespace, review, reviewOf(secret, secret)},
		{gateway + "/auth/tokenreview/" + r.Namespace, review, reviewOf("authentication.k8s.io/v1", secret) + secret},
		{gateway + "/auth/tokenreview/" + r.Namespace, http.Header{"Content-Type": {secret}}, secret},
		{gateway + "/auth/introspect/" + r.Namespace, form, "token=" + url.QueryEscape(secret)},
		{gateway + "/auth/introspect/" + r.Namespace, form, "token=" + url.QueryEscape(secret) + "&token=" + url.QueryEscape(secret)},
		{gateway + "/auth/introspect/" + r.Namespace, form, secret + "=%"},
		{gateway + "/auth/introspect/" + r.Namespace + "?token=" + url.QueryEscape(secret), form, "token=" + url.QueryEscape(secret)},
	} {
		for _, credential := range []http.Header{
			{"X-Api-Key": {secret}},
			{"X-Api-Key": {secret, secret}},
			{"X-Api-Key": {secret + "," + secret}},
			{"X-Api-Key": {secret + "x"}},
			{"Authorization": {"Bearer " + secret}},
			{"Authorization": {secret}},
			{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+secret))}},
			{"Cookie": {"api_key=" + url.QueryEscape(secret)}},
		} {
			method := http.MethodGet
			if ask.body != "" {
				method = http.MethodPost
			}
			request, err := http.NewRequestWithContext(r.Context(), method, "http://"+ask.address, strings.NewReader(ask.body))
			framework.Must(r.TB, err)
			maps.Copy(request.Header, ask.header)
			maps.Copy(request.Header, credential)
			requests = append(requests, request)
		}
	}
	return requests
}

// reviewOf returns a TokenReview.
func reviewOf(version, secret string) string {
	return fmt.Sprintf(`{"apiVersion":%q,"kind":"TokenReview","spec":{"token":%q}}`, version, secret)
}

// brokenRequestsWith returns what is no HTTP, or more than the authenticator takes.
func brokenRequestsWith(secret string) []string {
	return []string{
		secret + "\r\n\r\n",
		"GET /" + secret + "\x00 HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nX-API-Key: " + secret + "\r\n" + secret + "\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X-API-Key: "+secret+"\r\n", 2000) + "\r\n",
	}
}

func (r *wholeRun) noteAnswer(request *http.Request) {
	r.Helper()
	response, err := http.DefaultClient.Do(request)
	framework.Must(r.TB, err)
	defer response.Body.Close()
	answer, err := httputil.DumpResponse(response, true)
	framework.Must(r.TB, err)
	r.note("answers", string(answer))
}

func (r *wholeRun) noteAnswerTo(address, request string) {
	r.Helper()
	connection, err := net.DialTimeout("tcp", address, framework.Timeout)
	framework.Must(r.TB, err)
	defer connection.Close()
	framework.Must(r.TB, connection.SetDeadline(time.Now().Add(framework.Timeout)))
	_, _ = io.WriteString(connection, request) // the other side may hang up early
	answer, _ := io.ReadAll(connection)
	r.note("answers to what is no HTTP", string(answer))
}

func (r *wholeRun) endAKey() {
	r.Helper()
	r.deactivate("ended")
	r.WaitForReady("ended", v1alpha1.ReasonDeactivated)
	r.awaitAnswer(r.authenticator.Address("authenticator"), r.tokensSoFar()["ended-token"], http.StatusUnauthorized)
}

// awaitTheRefusedSecret waits until the controller has tried again, and a Secret with another token was let through.
func (r *wholeRun) awaitTheRefusedSecret() {
	r.Helper()
	r.WaitForReady("refused", v1alpha1.ReasonIssued)
	r.awaitAnswer(r.authenticator.Address("authenticator"), r.handedOver("refused-token", "token"), http.StatusOK)
	framework.Eventually(r.TB, "an event tells of it", func() bool {
		events := &eventsv1.EventList{}
		framework.Must(r.TB, r.Env.Client.List(r.Context(), events, client.InNamespace(r.Namespace)))
		return slices.ContainsFunc(events.Items, func(event eventsv1.Event) bool {
			return event.Regarding.Name == "refused" && event.Reason == v1alpha1.ReasonSecretRefused
		})
	})
}

func (r *wholeRun) showTheKeys() {
	r.Helper()
	for _, command := range [][]string{{"get", "apikeys", "--output=wide"}, {"describe", "apikeys"}, {"describe", "secrets"}, {"events"}} {
		r.note("kubectl "+strings.Join(command, " "), r.kubectl(command...))
	}
}

func (r *wholeRun) askForMetrics() {
	r.Helper()
	for process, address := range map[string]string{"controller": r.controllerMetrics, "authenticator": r.authenticator.Address("metrics")} {
		status, text := r.health(address, "/metrics")
		if status != http.StatusOK || !strings.Contains(text, "apikey_") {
			r.Errorf("the metrics of the %s are answered %d %s", process, status, text)
		}
		r.note("metrics of the "+process, text)
	}
}

func (r *wholeRun) stop() {
	r.Helper()
	framework.Must(r.TB, r.authenticator.Stop())
	framework.Must(r.TB, r.controller.Stop())
	r.ended = append(r.ended, r.authenticator, r.controller)
}

func (r *wholeRun) collectLogs() {
	r.Helper()
	for _, process := range r.ended {
		r.note("log of the "+process.Subcommand, process.Output())
	}
	for _, process := range r.Env.Processes() {
		content, err := os.ReadFile(process.Log())
		framework.Must(r.TB, err)
		r.note("log of "+process.Name(), string(content))
	}
}

// collectObjects notes every object of the API, in each of its versions, and of the one-time Secrets the data for themselves.
func (r *wholeRun) collectObjects() {
	r.Helper()
	config := rest.CopyConfig(r.Env.Config)
	config.WarningHandler = rest.NoWarnings{} // of deprecated kinds
	resources, err := discovery.NewDiscoveryClientForConfig(config)
	framework.Must(r.TB, err)
	objects, err := dynamic.NewForConfig(config)
	framework.Must(r.TB, err)
	_, groups, err := resources.ServerGroupsAndResources()
	framework.Must(r.TB, err)
	for _, group := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list"}}, groups) {
		version, err := schema.ParseGroupVersion(group.GroupVersion)
		framework.Must(r.TB, err)
		for _, resource := range group.APIResources {
			list, err := objects.Resource(version.WithResource(resource.Name)).List(r.Context(), metav1.ListOptions{})
			framework.Must(r.TB, err)
			for _, object := range list.Items {
				if object.Object["type"] == string(v1alpha1.SecretTypeToken) && object.GetNamespace() == r.Namespace {
					r.note(r.dataOf(object.GetName()), string(marshal(r.TB, object.Object["data"])))
					delete(object.Object, "data")
				}
				place := group.GroupVersion + " " + resource.Name + " " + object.GetNamespace() + "/" + object.GetName()
				r.note(place, string(marshal(r.TB, object.Object)))
			}
		}
	}
}

func (r *wholeRun) dataOf(secret string) string {
	return "data of the Secret " + r.Namespace + "/" + secret
}

// assertItWasAWholeRun checks that there was something to find.
func (r *wholeRun) assertItWasAWholeRun() {
	r.Helper()
	want := []string{"brought", "ended-token", "named-secret", "plain-token", "refused-token", "refused-token again"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(r.tokens))); diff != "" {
		r.Errorf("tokens of the run (-want +got):\n%s", diff)
	}
	if found := (haystack{"refusal": []byte(r.refusal)}).search(r.tokens); !slices.Equal(found["refusal"], []string{"refused-token"}) {
		r.Errorf("the refusal repeats %v", found)
	}
	for place, content := range map[string]string{
		"calls of the controller":      "PUT /apis/keys.squirrel.dev/v1alpha1/namespaces/" + r.Namespace + "/apikeys/plain/status",
		"refusal of the webhook":       "already has this token hash",
		"answers":                      "X-Auth-Key-Id",
		"answers to what is no HTTP":   "400 Bad Request",
		"kubectl events":               v1alpha1.ReasonSecretRefused,
		"log of the controller":        `"reason":"Issued"`,
		"log of the authenticator":     `"msg":"refused"`,
		"log of kube-apiserver":        "apiserver",
		"metrics of the authenticator": "apikey_authentications_total",
		"keys.squirrel.dev/v1alpha1 apikeys " + r.Namespace + "/plain": token.Hash(r.tokens["plain-token"]),
		"v1 secrets " + r.Namespace + "/plain-token":                   "ownerReferences",
	} {
		if !bytes.Contains(r.places[place], []byte(content)) {
			r.Errorf("%q is not in %q", content, place)
		}
	}
}
