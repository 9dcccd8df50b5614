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

// imported is a token that was not minted here, with characters that have several encodings.
var imported = `p"ss/w&rd+<with>%odd=characters;` + token.New()

// TestInvariant1_PlaintextIsOnlyInTheOneTimeSecrets runs the processes through a scenario, and searches all their logs, requests, responses
// and objects for its tokens.
func TestInvariant1_PlaintextIsOnlyInTheOneTimeSecrets(t *testing.T) {
	t.Parallel() // it mostly waits. All other tests in the shared control plane have ended by then
	s := &scenario{fixture: newFixture(t, testenv.Shared(t)), tokens: map[string]string{"imported": imported}, places: places{}}
	s.issueKeys()
	s.createConflicts()
	s.restartControllerWithWebhook()
	s.sendTokens()
	s.deactivateKey()
	s.awaitSecretAfterRefusal()
	s.recordKubectl()
	s.recordMetrics()
	s.stop()
	s.recordLogs()
	s.recordObjects()
	s.assertComplete()

	want := map[string][]string{
		s.dataOf("plain-token"):   {"plain-token"},
		s.dataOf("named-secret"):  {"named-secret"},
		s.dataOf("refused-token"): {"refused-token again"},
	}
	if diff := cmp.Diff(want, s.places.search(s.tokens)); diff != "" {
		t.Errorf("places with tokens (-want +got):\n%s", diff)
	}
}

// scenario is a run of a controller with its admission webhook and of an authenticator, both with debug logs. It records what they write.
type scenario struct {
	*fixture
	controller, authenticator *operator.Process
	controllerMetrics         string
	stopped                   []*operator.Process

	mu      sync.Mutex
	tokens  map[string]string // by the name of their Secret
	places  places
	refusal string
}

// record adds content to a place.
func (s *scenario) record(place, content string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.places[place] = append(s.places[place], content...)
}

// issueKeys issues keys in all ways. The first Secret of one key is refused with an error that repeats the request.
func (s *scenario) issueKeys() {
	s.Helper()
	s.startController("--webhook=false")
	s.CreateKey("plain")
	s.CreateKey("ended")
	s.CreateKey("refused")
	s.CreateKey("named", func(key *v1alpha1.APIKey) {
		key.Spec.Secret = &v1alpha1.TokenSecret{Name: "named-secret", Key: "api.key", TTL: &metav1.Duration{Duration: time.Hour}}
	})
	s.CreateKey("imported", func(key *v1alpha1.APIKey) {
		key.Spec.TokenHash, key.Spec.TokenHint = token.Hash(imported), token.Hint(imported)
	})
	for _, name := range []string{"plain", "ended", "named", "imported"} {
		s.WaitForReady(name, v1alpha1.ReasonIssued)
	}
	framework.Eventually(s, "a Secret is refused", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.refusal != ""
	})
}

// startController runs a controller behind a proxy that records its requests, except the bodies of Secrets.
func (s *scenario) startController(args ...string) {
	s.Helper()
	api := startProxy(s, s.Env.Config, func(forward http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			createsSecret := request.Method == http.MethodPost && strings.HasSuffix(request.URL.Path, "/secrets")
			dump, err := httputil.DumpRequest(request, true)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			head, body, _ := bytes.Cut(dump, []byte("\r\n\r\n"))
			s.record("requests of the controller", string(head))
			if !createsSecret {
				s.record("requests of the controller", string(body))
			} else if refusal := s.interceptSecret(body); refusal != nil {
				respondError(w, refusal)
				return
			}
			forward.ServeHTTP(w, request)
		})
	})
	s.controllerMetrics = binaries.FreeAddress(s)
	s.controller = operator.StartController(s, api.config,
		append(args, "--log-level=debug", "--metrics-bind-address="+s.controllerMetrics)...)
}

// interceptSecret records the token of a Secret that the controller creates, and refuses the first Secret of the key "refused".
func (s *scenario) interceptSecret(body []byte) *apierrors.StatusError {
	decoded, err := runtime.Decode(clientgoscheme.Codecs.UniversalDeserializer(), body)
	if err != nil {
		s.Error(err)
		return nil
	}
	secret := decoded.(*corev1.Secret)
	s.mu.Lock()
	defer s.mu.Unlock()
	name := secret.Name
	if _, exists := s.tokens[name]; exists {
		name += " again"
	}
	for _, value := range secret.Data {
		s.tokens[name] = string(value)
	}
	if name != "refused-token" {
		return nil
	}
	s.refusal = "no such Secret here: " + string(body) + " with the token " + s.tokens[name]
	return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, name, errors.New(s.refusal))
}

func (s *scenario) createConflicts() {
	s.Helper()
	s.Create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: "same-secret-token"},
		Data:       map[string][]byte{"token": []byte("of another application")},
	})
	s.CreateKey("same-secret")
	s.CreateKey("same-name", func(key *v1alpha1.APIKey) { key.Spec.AppName = "App plain" })
	s.CreateKey("same-hash", func(key *v1alpha1.APIKey) { key.Spec.TokenHash = token.Hash(imported) })
	s.WaitForReady("same-secret", v1alpha1.ReasonSecretConflict)
	s.WaitForReady("same-name", v1alpha1.ReasonAppNameConflict)
	s.WaitForReady("same-hash", v1alpha1.ReasonTokenHashConflict)
}

// restartControllerWithWebhook also creates a key of which the webhook warns.
func (s *scenario) restartControllerWithWebhook() {
	s.Helper()
	s.controller.Kill()
	s.stopped = append(s.stopped, s.controller)
	root, err := controlplane.FindRepository()
	framework.Must(s, err)
	port, certDir := s.Env.Webhook(s, filepath.Join(root, "config", "webhook", "validating.yaml"))
	s.startController("--webhook=true", "--webhook-listen-address=127.0.0.1:"+strconv.Itoa(port), "--webhook-cert-dir="+certDir)
	framework.Eventually(s, "the webhook is ready", func() bool {
		status, _ := s.get(s.controller.Address("health"), "/readyz")
		return status == http.StatusOK
	})
	manifest := "{apiVersion: keys.squirrel.dev/v1alpha1, kind: APIKey, metadata: {name: same-hash-again}, " +
		"spec: {appName: same-hash-again, readAccess: true, tokenHash: '" + token.Hash(imported) + "'}}"
	output, err := s.Env.ControlPlane.Kubectl(s.Context(), manifest, "create", "--filename=-", "--namespace="+s.Namespace)
	framework.Must(s, err)
	s.record("warning of the webhook", output)
	s.WaitForReady("same-hash-again", v1alpha1.ReasonTokenHashConflict)
}

// sendTokens sends each token to the authenticator, in valid and invalid requests.
func (s *scenario) sendTokens() {
	s.Helper()
	s.authenticator = startAuthenticator(s, s.Env.Config, "--log-level=debug", "--shutdown-delay=0")
	gateway := s.authenticator.Address("authenticator")
	for name, secret := range s.tokensIssued() {
		want := http.StatusOK
		if name == "refused-token" || name == "same-secret-token" { // the API server refused their Secrets
			want = http.StatusUnauthorized
		}
		s.awaitStatus(gateway, secret, want)
		for _, request := range s.requestsWith(secret, gateway) {
			s.recordResponse(request)
		}
		for _, request := range malformedRequestsWith(secret) {
			s.recordRawResponse(gateway, request)
		}
	}
}

func (s *scenario) tokensIssued() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.tokens)
}

// requestsWith returns requests with a token in each place where a client or a gateway could send it.
func (s *scenario) requestsWith(secret, gateway string) []*http.Request {
	s.Helper()
	uri := "/orders/" + url.PathEscape(secret) + "?api_key=" + url.QueryEscape(secret)
	review, form := http.Header{"Content-Type": {"application/json"}}, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	var requests []*http.Request
	for _, endpoint := range []struct {
		address string
		header  http.Header
		body    string // of a POST
	}{
		{gateway + "/auth/envoy/" + s.Namespace + uri, nil, ""},
		{gateway + "/auth/nginx/" + s.Namespace, http.Header{"X-Original-Method": {"GET"}, "X-Original-Uri": {uri}}, ""},
		{gateway + "/auth/nginx/" + s.Namespace, http.Header{"X-Original-Uri": {uri}}, ""},
		{gateway + "/auth/forward/" + s.Namespace, http.Header{"X-Forwarded-Method": {"GET"}, "X-Forwarded-Uri": {uri}}, ""},
		{gateway + "/auth/forward/" + s.Namespace, http.Header{"X-Forwarded-Method": {"DELETE"}, "X-Forwarded-Uri": {uri}}, ""},
		{gateway + "/auth/forward/" + s.Namespace, http.Header{"X-Forwarded-Method": {secret}}, ""},
		{gateway + "/auth/forward/elsewhere", http.Header{"X-Forwarded-Method": {"GET"}}, ""},
		{gateway + "/auth/forward" + uri, http.Header{"X-Forwarded-Method": {"GET"}}, ""},
		{gateway + uri, nil, ""},
		{s.authenticator.Address("health") + uri, nil, ""},
		{s.authenticator.Address("metrics") + uri, nil, ""},
		{s.controllerMetrics + uri, nil, ""},
		{gateway + "/auth/tokenreview/" + s.Namespace + "?token=" + url.QueryEscape(secret), review, reviewOf("authentication.k8s.io/v1", secret)},
		{gateway + "/auth/tokenreview/" + s.Namespace, review, reviewOf("authentication.k8s.io/v1beta1", secret)},
		{gateway + "/auth/tokenreview/" + s.Namespace, review, reviewOf(secret, secret)},
		{gateway + "/auth/tokenreview/" + s.Namespace, review, reviewOf("authentication.k8s.io/v1", secret) + secret},
		{gateway + "/auth/tokenreview/" + s.Namespace, http.Header{"Content-Type": {secret}}, secret},
		{gateway + "/auth/introspect/" + s.Namespace, form, "token=" + url.QueryEscape(secret)},
		{gateway + "/auth/introspect/" + s.Namespace, form, "token=" + url.QueryEscape(secret) + "&token=" + url.QueryEscape(secret)},
		{gateway + "/auth/introspect/" + s.Namespace, form, secret + "=%"},
		{gateway + "/auth/introspect/" + s.Namespace + "?token=" + url.QueryEscape(secret), form, "token=" + url.QueryEscape(secret)},
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
			if endpoint.body != "" {
				method = http.MethodPost
			}
			request, err := http.NewRequestWithContext(s.Context(), method, "http://"+endpoint.address, strings.NewReader(endpoint.body))
			framework.Must(s, err)
			maps.Copy(request.Header, endpoint.header)
			maps.Copy(request.Header, credential)
			requests = append(requests, request)
		}
	}
	return requests
}

// reviewOf returns a TokenReview in JSON.
func reviewOf(version, secret string) string {
	return fmt.Sprintf(`{"apiVersion":%q,"kind":"TokenReview","spec":{"token":%q}}`, version, secret)
}

// malformedRequestsWith returns requests that are not valid HTTP, or too large for the authenticator.
func malformedRequestsWith(secret string) []string {
	return []string{
		secret + "\r\n\r\n",
		"GET /" + secret + "\x00 HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nX-API-Key: " + secret + "\r\n" + secret + "\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X-API-Key: "+secret+"\r\n", 2000) + "\r\n",
	}
}

func (s *scenario) recordResponse(request *http.Request) {
	s.Helper()
	response, err := http.DefaultClient.Do(request)
	framework.Must(s, err)
	defer response.Body.Close()
	dump, err := httputil.DumpResponse(response, true)
	framework.Must(s, err)
	s.record("responses", string(dump))
}

// recordRawResponse sends bytes over a TCP connection.
func (s *scenario) recordRawResponse(address, request string) {
	s.Helper()
	connection, err := net.DialTimeout("tcp", address, framework.Timeout)
	framework.Must(s, err)
	defer connection.Close()
	framework.Must(s, connection.SetDeadline(time.Now().Add(framework.Timeout)))
	_, _ = io.WriteString(connection, request) // the server may close the connection early
	response, _ := io.ReadAll(connection)
	s.record("responses to malformed requests", string(response))
}

func (s *scenario) deactivateKey() {
	s.Helper()
	s.deactivate("ended")
	s.WaitForReady("ended", v1alpha1.ReasonDeactivated)
	s.awaitStatus(s.authenticator.Address("authenticator"), s.tokensIssued()["ended-token"], http.StatusUnauthorized)
}

// awaitSecretAfterRefusal waits until the controller has retried, with another token, and an event reports the refusal.
func (s *scenario) awaitSecretAfterRefusal() {
	s.Helper()
	s.WaitForReady("refused", v1alpha1.ReasonIssued)
	s.awaitStatus(s.authenticator.Address("authenticator"), s.tokenFrom("refused-token", "token"), http.StatusOK)
	framework.Eventually(s, "an event reports the refusal", func() bool {
		events := &eventsv1.EventList{}
		framework.Must(s, s.Env.Client.List(s.Context(), events, client.InNamespace(s.Namespace)))
		return slices.ContainsFunc(events.Items, func(event eventsv1.Event) bool {
			return event.Regarding.Name == "refused" && event.Reason == v1alpha1.ReasonSecretRefused
		})
	})
}

func (s *scenario) recordKubectl() {
	s.Helper()
	for _, command := range [][]string{{"get", "apikeys", "--output=wide"}, {"describe", "apikeys"}, {"describe", "secrets"}, {"events"}} {
		s.record("kubectl "+strings.Join(command, " "), s.kubectl(command...))
	}
}

func (s *scenario) recordMetrics() {
	s.Helper()
	for process, address := range map[string]string{"controller": s.controllerMetrics, "authenticator": s.authenticator.Address("metrics")} {
		status, text := s.get(address, "/metrics")
		if status != http.StatusOK || !strings.Contains(text, "apikey_") {
			s.Errorf("the metrics of the %s: got %d %s, want 200 and apikey_", process, status, text)
		}
		s.record("metrics of the "+process, text)
	}
}

func (s *scenario) stop() {
	s.Helper()
	framework.Must(s, s.authenticator.Stop())
	framework.Must(s, s.controller.Stop())
	s.stopped = append(s.stopped, s.authenticator, s.controller)
}

func (s *scenario) recordLogs() {
	s.Helper()
	for _, process := range s.stopped {
		s.record("log of the "+process.Subcommand, process.Output())
	}
	for _, process := range s.Env.Processes() {
		content, err := os.ReadFile(process.Log())
		framework.Must(s, err)
		s.record("log of "+process.Name(), string(content))
	}
}

// recordObjects records every object of the API in each version. The data of one-time Secrets is a place apart.
func (s *scenario) recordObjects() {
	s.Helper()
	config := rest.CopyConfig(s.Env.Config)
	config.WarningHandler = rest.NoWarnings{} // of deprecated kinds
	resources, err := discovery.NewDiscoveryClientForConfig(config)
	framework.Must(s, err)
	objects, err := dynamic.NewForConfig(config)
	framework.Must(s, err)
	_, groups, err := resources.ServerGroupsAndResources()
	framework.Must(s, err)
	for _, group := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list"}}, groups) {
		version, err := schema.ParseGroupVersion(group.GroupVersion)
		framework.Must(s, err)
		for _, resource := range group.APIResources {
			list, err := objects.Resource(version.WithResource(resource.Name)).List(s.Context(), metav1.ListOptions{})
			framework.Must(s, err)
			for _, object := range list.Items {
				if object.Object["type"] == string(v1alpha1.SecretTypeToken) && object.GetNamespace() == s.Namespace {
					s.record(s.dataOf(object.GetName()), string(marshal(s, object.Object["data"])))
					delete(object.Object, "data")
				}
				place := group.GroupVersion + " " + resource.Name + " " + object.GetNamespace() + "/" + object.GetName()
				s.record(place, string(marshal(s, object.Object)))
			}
		}
	}
}

func (s *scenario) dataOf(secret string) string {
	return "data of the Secret " + s.Namespace + "/" + secret
}

// assertComplete checks that the scenario has minted and recorded what the search needs.
func (s *scenario) assertComplete() {
	s.Helper()
	want := []string{"ended-token", "imported", "named-secret", "plain-token", "refused-token", "refused-token again", "same-secret-token"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(s.tokens))); diff != "" {
		s.Errorf("tokens of the scenario (-want +got):\n%s", diff)
	}
	if found := (places{"refusal": []byte(s.refusal)}).search(s.tokens); !slices.Equal(found["refusal"], []string{"refused-token"}) {
		s.Errorf("the refusal repeats the tokens %v, want refused-token", found)
	}
	for place, content := range map[string]string{
		"requests of the controller":      "PUT /apis/keys.squirrel.dev/v1alpha1/namespaces/" + s.Namespace + "/apikeys/plain/status",
		"warning of the webhook":          "already has this token hash",
		"responses":                       "X-Auth-Key-Id",
		"responses to malformed requests": "400 Bad Request",
		"kubectl events":                  v1alpha1.ReasonSecretRefused,
		"log of the controller":           `"reason":"Issued"`,
		"log of the authenticator":        `"msg":"Denied"`,
		"log of kube-apiserver":           "apiserver",
		"metrics of the authenticator":    "apikey_authentications_total",
		"keys.squirrel.dev/v1alpha1 apikeys " + s.Namespace + "/plain": token.Hash(s.tokens["plain-token"]),
		"v1 secrets " + s.Namespace + "/plain-token":                   "ownerReferences",
	} {
		if !bytes.Contains(s.places[place], []byte(content)) {
			s.Errorf("%q does not contain %q", place, content)
		}
	}
}
