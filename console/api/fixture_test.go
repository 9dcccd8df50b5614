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

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/console/api"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/runcontroller"
	"squirrel.dev/apikey-operator/test/framework/testenv"
	"squirrel.dev/apikey-operator/webhook/authn"
)

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	testenv.Main(m)
}

// fixture is a namespace with a controller and a console.
type fixture struct {
	*testenv.Fixture
	*console
	stopController func()
	// reader and writer are keys to call with: one that may read, one that may write.
	reader, writer *keyclient.CreateResult
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	t.Parallel()
	return newSecondFixture(t)
}

// newSecondFixture returns one more fixture for a test that already has one.
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

// allowConsole gives consoles the rights that they need in the namespace, and no others.
func (f *fixture) allowConsole() {
	f.Helper()
	meta := metav1.ObjectMeta{Namespace: f.Namespace, Name: "console"}
	framework.Must(f, f.Env.Client.Create(f.Context(), &rbacv1.Role{
		ObjectMeta: meta,
		Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{v1alpha1.GroupVersion.Group},
			Resources: []string{"apikeys"},
			Verbs:     []string{"get", "list", "watch", "create", "patch", "delete"},
		}},
	}))
	framework.Must(f, f.Env.Client.Create(f.Context(), &rbacv1.RoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: f.consoles()}},
	}))
}

// consoles is the group of users that are consoles of the namespace.
func (f *fixture) consoles() string { return "consoles-of-" + f.Namespace }

func (f *fixture) consoleConfig() *rest.Config {
	f.Helper()
	config := f.Env.User(f, "console", f.consoles())
	config.QPS = -1
	return config
}

// console is an API that is served.
type console struct {
	t      testing.TB
	url    string
	client *http.Client
}

// startConsole serves one more API until the test ends, and returns when it is ready.
func (f *fixture) startConsole(change ...func(*api.Options)) *console {
	f.Helper()
	config := f.consoleConfig()
	kubernetes, err := client.NewWithWatch(config, client.Options{Scheme: f.Env.Scheme})
	framework.Must(f, err)
	keyring, catalog, printed := authn.NewKeyring(), api.NewKeyCache(), &framework.Buffer{}
	options := api.Options{
		Namespace:     f.Namespace,
		Version:       "v0.0.0-test",
		Managers:      api.WriteAccessManages,
		Authenticator: authn.NewAuthenticator(keyring, 0, time.Now),
		KeyCache:      catalog,
		Kubernetes:    kubernetes,
		Metrics:       api.NewMetrics(prometheus.NewRegistry()),
		Log:           slog.New(slog.NewTextHandler(printed, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&options)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = keyring.Run(ctx, config, f.Namespace) })
	running.Go(func() { _ = catalog.Run(ctx, kubernetes, f.Namespace) })
	server := httptest.NewServer(api.NewAPI(options))
	f.Cleanup(func() {
		server.Close()
		stop()
		running.Wait()
		if told := printed.String(); strings.Contains(told, token.Prefix) || strings.Contains(told, "sha256:") {
			f.Errorf("the log tells a token or a hash:\n%s", told)
		}
	})
	framework.Eventually(f, "the console has heard of the keys", func() bool { return keyring.Synced() && catalog.Synced() })
	return &console{t: f, url: server.URL, client: http.DefaultClient}
}

// issue creates a key by the Kubernetes API.
func (f *fixture) issue(appName string, read, write bool) *keyclient.CreateResult {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), framework.Timeout)
	defer cancel()
	created, err := keyclient.Create(ctx, f.Env.Client, keyclient.CreateOptions{
		Namespace: f.Namespace, AppName: appName, ReadAccess: read, WriteAccess: write,
	})
	framework.Must(f, err)
	return created
}

// keys returns the APIKeys of the namespace, but those that call the API.
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

// shown is a key as the API shows it.
type shown struct {
	ID          string     `json:"id"`
	AppName     string     `json:"app_name"`
	Token       string     `json:"token"`
	ReadAccess  bool       `json:"read_access"`
	WriteAccess bool       `json:"write_access"`
	IsActive    bool       `json:"is_active"`
	CreatedAt   time.Time  `json:"created_at"`
	UpdatedAt   time.Time  `json:"updated_at"`
	ExpiresAt   *time.Time `json:"expires_at"`
}

// answer is an answer of the API.
type answer struct {
	protocol string // HTTP/1.1
	status   int
	header   http.Header
	body     string
}

// request returns a request, given its method and its path with its query.
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

// call sends a request.
func (c *console) call(methodAndPath, token string, body ...string) answer {
	c.t.Helper()
	return c.send(c.request(methodAndPath, token, body...))
}

// send sends a request, and holds the answer to openapi.json. Any goroutine may do so.
func (c *console) send(request *http.Request) answer {
	c.t.Helper()
	response, err := c.client.Do(request)
	if err != nil {
		c.t.Error(err)
		return answer{}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	got := answer{protocol: response.Proto, status: response.StatusCode, header: response.Header, body: string(body)}
	if err := errors.Join(err, describedByOpenAPI(request, got)); err != nil {
		c.t.Errorf("%s %s: the answer %d %s is not what openapi.json says: %v", request.Method, request.URL, got.status, got.body, err)
	}
	return got
}

// refused fails the test unless the answer is an error of this status and text.
func (a answer) refused(t testing.TB, status int, message string) {
	t.Helper()
	quoted, err := json.Marshal(message)
	framework.Must(t, err)
	want := fmt.Sprintf(`{"errorCode":%d,"errorMessage":%s,"payload":null}`, status, quoted)
	if a.status != status || a.body != want {
		t.Errorf("the answer is %d %s, want %d %s", a.status, a.body, status, want)
	}
}

// payload reads the payload of a success.
func payload[P any](t testing.TB, a answer) P {
	t.Helper()
	var content struct {
		ErrorCode    int
		ErrorMessage *string
		Payload      P
	}
	decoder := json.NewDecoder(strings.NewReader(a.body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&content); a.status != http.StatusOK || err != nil || content.ErrorCode != 0 || content.ErrorMessage != nil {
		t.Fatalf("the answer is %d %s (%v)", a.status, a.body, err)
	}
	return content.Payload
}

// shownAs is how the API shows an APIKey.
func shownAs(key *v1alpha1.APIKey, active bool) shown {
	s := shown{
		ID:          string(key.UID),
		AppName:     key.Spec.AppName,
		ReadAccess:  key.Spec.ReadAccess,
		WriteAccess: key.Spec.WriteAccess,
		IsActive:    active,
		CreatedAt:   key.CreationTimestamp.Time,
		UpdatedAt:   key.CreationTimestamp.Time,
	}
	if key.Spec.ExpiresAt != nil {
		s.ExpiresAt = &key.Spec.ExpiresAt.Time
	}
	return s
}
