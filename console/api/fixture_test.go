// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/console/api"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/runcontroller"
	"squirrel.dev/apikey-operator/test/framework/testenv"
	"squirrel.dev/apikey-operator/webhook/authn"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// fixture is a namespace with a controller and a console.
type fixture struct {
	*testenv.Fixture
	*console
	stopController func()
	// reader and writer are keys for requests: one has read access, the other write access.
	reader, writer *keyclient.CreateResult
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	t.Parallel()
	return newSecondFixture(t)
}

// newSecondFixture returns another fixture for a test that has one already.
func newSecondFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{Fixture: testenv.NewFixture(t, testenv.Shared(t))}
	f.stopController = runcontroller.Start(t, f.Env, f.Namespace)
	f.allowConsole()
	f.reader = f.issue("Reader", true, false)
	f.writer = f.issue("Writer", false, true)
	f.console = f.startConsole()
	return f
}

// allowConsole grants the group of the consoles the permissions that a console needs in the namespace.
func (f *fixture) allowConsole() {
	f.Helper()
	named := metav1.ObjectMeta{Namespace: f.Namespace, Name: "console"}
	framework.Must(f, f.Env.Client.Create(f.Context(), &rbacv1.Role{
		ObjectMeta: named,
		Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{v1alpha1.GroupVersion.Group},
			Resources: []string{"apikeys"},
			Verbs:     []string{"get", "list", "watch", "create", "patch", "delete"},
		}},
	}))
	framework.Must(f, f.Env.Client.Create(f.Context(), &rbacv1.RoleBinding{
		ObjectMeta: named,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: named.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: f.consoles()}},
	}))
}

// consoles returns the group of the consoles of the namespace.
func (f *fixture) consoles() string { return "consoles-of-" + f.Namespace }

func (f *fixture) consoleConfig() *rest.Config {
	f.Helper()
	config := f.Env.User(f, "console", f.consoles())
	config.QPS = -1
	return config
}

// console is a server of the API.
type console struct {
	t      testing.TB
	url    string
	client *http.Client

	authenticator *authn.Authenticator // nil if the console is another process
}

// startConsole serves another API until the test ends. It waits until the API is ready.
func (f *fixture) startConsole(change ...func(*api.Options)) *console {
	f.Helper()
	config := f.consoleConfig()
	kubernetes, err := client.NewWithWatch(config, client.Options{Scheme: f.Env.Scheme})
	framework.Must(f, err)
	keyring, logged := authn.NewKeyring(), &framework.Buffer{}
	keys := api.NewKeyCache(keyring)
	options := api.Options{
		Namespace:     f.Namespace,
		Version:       "v0.0.0-test",
		Managers:      api.WriteAccessManages,
		Authenticator: authn.NewAuthenticator(keyring, 0, time.Now),
		KeyCache:      keys,
		Client:        kubernetes,
		APIServerTime: time.Now,
		Metrics:       api.NewMetrics(prometheus.NewRegistry()),
		Log:           slog.New(slog.NewTextHandler(logged, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&options)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = keys.Run(ctx, kubernetes, f.Namespace) })
	handler := api.NewHandler(options)
	running.Go(func() { _ = handler.EndUnconfirmed(ctx) })
	server := httptest.NewServer(handler)
	f.Cleanup(func() {
		server.Close()
		stop()
		running.Wait()
		if text := logged.String(); strings.Contains(text, token.Prefix) || strings.Contains(text, "sha256:") {
			f.Errorf("the log contains a token or a hash:\n%s", text)
		}
	})
	framework.Eventually(f, "the console has listed the keys", keyring.Synced)
	return &console{t: f, url: server.URL, client: http.DefaultClient, authenticator: options.Authenticator}
}

// issue creates a key through the Kubernetes API, and waits until the console accepts it.
func (f *fixture) issue(appName string, read, write bool) *keyclient.CreateResult {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), framework.Timeout)
	defer cancel()
	created, err := keyclient.Create(ctx, f.Env.Client, keyclient.CreateOptions{
		Namespace: f.Namespace, AppName: appName, ReadAccess: read, WriteAccess: write,
	})
	framework.Must(f, err)
	if f.console != nil { // it lists the first keys when it starts
		framework.Eventually(f, "the console accepts the key", func() bool {
			return f.authenticator.Accepts(f.Namespace, created.Key.Name, string(created.Key.UID))
		})
	}
	return created
}

// deactivate deactivates a key through the API.
func (f *fixture) deactivate(id string) deactivatedKey {
	f.Helper()
	return payload[deactivatedKey](f, f.call("DELETE /api/v1/api-keys/"+id, f.writer.Token))
}

// keys returns the APIKeys of the namespace without reader and writer.
func (f *fixture) keys() []v1alpha1.APIKey {
	f.Helper()
	list := &v1alpha1.APIKeyList{}
	framework.Must(f, f.Env.Client.List(f.Context(), list, client.InNamespace(f.Namespace)))
	var others []v1alpha1.APIKey
	for _, key := range list.Items {
		if key.UID != f.reader.Key.UID && key.UID != f.writer.Key.UID {
			others = append(others, key)
		}
	}
	return others
}

// apiKey is a key in a response.
type apiKey struct {
	ID             string     `json:"id"`
	Name           string     `json:"name"`
	AppName        string     `json:"app_name"`
	Token          string     `json:"token"`
	Hint           *string    `json:"hint"`
	ReadAccess     bool       `json:"read_access"`
	WriteAccess    bool       `json:"write_access"`
	IsActive       bool       `json:"is_active"`
	State          string     `json:"state"`
	Reason         *string    `json:"reason"`
	Message        *string    `json:"message"`
	Manager        bool       `json:"manager"`
	Bootstrap      bool       `json:"bootstrap"`
	CreatedAt      time.Time  `json:"created_at"`
	UpdatedAt      time.Time  `json:"updated_at"`
	ExpiresAt      *time.Time `json:"expires_at"`
	Rotating       bool       `json:"rotating"`
	NextRotationAt *time.Time `json:"next_rotation_at"`
	LastUsedAt     *time.Time `json:"last_used_at"`
	UnusedSince    *time.Time `json:"unused_since"`

	*CamelCase // of responses below /v1
}

// deactivatedKey is a key in the response to its deactivation.
type deactivatedKey struct {
	apiKey
	HandedTo *struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"handed_to"`
}

// CamelCase has the names of the Squirrel backend.
type CamelCase struct {
	AppName        string     `json:"appName"`
	ReadAccess     bool       `json:"readAccess"`
	WriteAccess    bool       `json:"writeAccess"`
	IsActive       bool       `json:"isActive"`
	CreatedAt      time.Time  `json:"createdAt"`
	UpdatedAt      time.Time  `json:"updatedAt"`
	ExpiresAt      *time.Time `json:"expiresAt"`
	NextRotationAt *time.Time `json:"nextRotationAt"`
	LastUsedAt     *time.Time `json:"lastUsedAt"`
	UnusedSince    *time.Time `json:"unusedSince"`
}

// below returns the key as responses below a base path contain it.
func (k apiKey) below(base string) apiKey {
	k.CamelCase = nil
	if base == "/v1" {
		k.CamelCase = &CamelCase{
			k.AppName, k.ReadAccess, k.WriteAccess, k.IsActive, k.CreatedAt, k.UpdatedAt, k.ExpiresAt, k.NextRotationAt,
			k.LastUsedAt, k.UnusedSince,
		}
	}
	return k
}

// response is a response of the API.
type response struct {
	protocol string // HTTP/1.1
	status   int
	header   http.Header
	body     string
}

// request returns a request with this method, path and query.
func (c *console) request(methodAndPath, token string, body ...string) *http.Request {
	c.t.Helper()
	method, path, _ := strings.Cut(methodAndPath, " ")
	request, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, strings.NewReader(strings.Join(body, "")))
	framework.Must(c.t, err)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		request.Header.Set("X-API-Key", token)
	}
	return request
}

// call sends a request and returns the response.
func (c *console) call(methodAndPath, token string, body ...string) response {
	c.t.Helper()
	return c.send(c.request(methodAndPath, token, body...))
}

// send sends a request, and checks the response against openapi.json. It may run in any goroutine.
func (c *console) send(request *http.Request) response {
	c.t.Helper()
	received, err := c.client.Do(request)
	if err != nil {
		c.t.Error(err)
		return response{}
	}
	defer received.Body.Close()
	body, err := io.ReadAll(received.Body)
	got := response{protocol: received.Proto, status: received.StatusCode, header: received.Header, body: string(body)}
	if err := errors.Join(err, checkAgainstOpenAPI(request, got)); err != nil {
		c.t.Errorf("%s %s: the response %d %s does not match openapi.json: %v", request.Method, request.URL, got.status, got.body, err)
	}
	return got
}

// assertError checks that the response is an error with this status and message.
func (r response) assertError(t testing.TB, status int, message string) {
	t.Helper()
	quoted, err := json.Marshal(message)
	framework.Must(t, err)
	want := fmt.Sprintf(`{"errorCode":%d,"errorMessage":%s,"payload":null}`, status, quoted)
	if r.status != status || r.body != want {
		t.Errorf("the response is %d %s, want %d %s", r.status, r.body, status, want)
	}
}

// payload returns the payload of a successful response.
func payload[P any](t testing.TB, r response) P {
	t.Helper()
	return payloadOf[P](t, r, http.StatusOK)
}

// payloadOf returns the payload of a successful response with this status.
func payloadOf[P any](t testing.TB, r response, status int) P {
	t.Helper()
	var content struct {
		ErrorCode    int
		ErrorMessage *string
		Payload      P
	}
	decoder := json.NewDecoder(strings.NewReader(r.body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&content); r.status != status || err != nil || content.ErrorCode != 0 || content.ErrorMessage != nil {
		t.Fatalf("the response is %d %s (%v)", r.status, r.body, err)
	}
	return content.Payload
}

// apiKeyOf returns an APIKey as responses contain it below /api/v1.
func apiKeyOf(object *v1alpha1.APIKey, active bool) apiKey {
	k := apiKey{
		ID:          string(object.UID),
		Name:        object.Name,
		AppName:     object.Spec.AppName,
		ReadAccess:  object.Spec.ReadAccess,
		WriteAccess: object.Spec.WriteAccess,
		IsActive:    active,
		State:       "pending",
		CreatedAt:   object.CreationTimestamp.Time,
		UpdatedAt:   object.CreationTimestamp.Time,
	}
	switch {
	case active:
		k.State = "active"
	case object.Spec.Active != nil && !*object.Spec.Active:
		k.State = "deactivated"
	}
	if object.Spec.TokenHint != "" {
		k.Hint = &object.Spec.TokenHint
	}
	if ready := meta.FindStatusCondition(object.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		k.Reason, k.Message = &ready.Reason, &ready.Message
	}
	if object.Spec.ExpiresAt != nil {
		k.ExpiresAt = &object.Spec.ExpiresAt.Time
	}
	if tokens := object.Status.Tokens; len(tokens) > 0 && tokens[0].NotBefore != nil {
		k.UnusedSince = &tokens[0].NotBefore.Time
	}
	return k
}
