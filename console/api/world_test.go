// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bytes"
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
	"squirrel.dev/apikey-operator/test/framework/runcontroller"
	"squirrel.dev/apikey-operator/test/framework/testenv"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// patience bounds every wait for something that must come.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	testenv.Main(m)
}

// world is one namespace with a controller, and a console for it.
type world struct {
	*testing.T
	*console
	env            *testenv.Env
	namespace      string
	stopController func()
	// reader and writer are keys to call with: one that may read, one that may write.
	reader, writer *keyclient.CreateResult
}

func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	return newWorldBeside(t)
}

// newWorldBeside returns one more world for a test.
func newWorldBeside(t *testing.T) *world {
	t.Helper()
	env := testenv.Shared(t)
	w := &world{T: t, env: env, namespace: env.Namespace(t)}
	w.stopController = runcontroller.Start(t, env, w.namespace)
	w.allowConsole()
	w.reader = w.issue("Reader", true, false)
	w.writer = w.issue("Writer", false, true)
	w.console = w.startConsole()
	return w
}

// allowConsole gives consoles the rights that they need in the namespace, and no others.
func (w *world) allowConsole() {
	w.Helper()
	meta := metav1.ObjectMeta{Namespace: w.namespace, Name: "console"}
	must(w.T, w.env.Client.Create(w.Context(), &rbacv1.Role{
		ObjectMeta: meta,
		Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{v1alpha1.GroupVersion.Group},
			Resources: []string{"apikeys"},
			Verbs:     []string{"get", "list", "watch", "create", "patch", "delete"},
		}},
	}))
	must(w.T, w.env.Client.Create(w.Context(), &rbacv1.RoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: w.consoles()}},
	}))
}

// consoles is the group of users that are consoles of the namespace.
func (w *world) consoles() string { return "consoles-of-" + w.namespace }

func (w *world) consoleConfig() *rest.Config {
	w.Helper()
	config := w.env.User(w.T, "console", w.consoles())
	config.QPS = -1
	return config
}

// console is an API that is served.
type console struct {
	t      *testing.T
	url    string
	client *http.Client
}

// startConsole serves one more API until the test ends, and returns when it is ready.
func (w *world) startConsole(change ...func(*api.Options)) *console {
	w.Helper()
	config := w.consoleConfig()
	kubernetes, err := client.NewWithWatch(config, client.Options{Scheme: w.env.Scheme})
	must(w.T, err)
	keyring, catalog, printed := authn.NewKeyring(), api.NewKeyCache(), &lockedBuffer{}
	options := api.Options{
		Namespace:     w.namespace,
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
	running.Go(func() { _ = keyring.Run(ctx, config, w.namespace) })
	running.Go(func() { _ = catalog.Run(ctx, kubernetes, w.namespace) })
	server := httptest.NewServer(api.NewAPI(options))
	w.Cleanup(func() {
		server.Close()
		stop()
		running.Wait()
		if told := printed.String(); strings.Contains(told, token.Prefix) || strings.Contains(told, "sha256:") {
			w.Errorf("the log tells a token or a hash:\n%s", told)
		}
	})
	w.eventually("the console has heard of the keys", func() bool { return keyring.Synced() && catalog.Synced() })
	return &console{t: w.T, url: server.URL, client: http.DefaultClient}
}

// issue creates a key by the Kubernetes API.
func (w *world) issue(appName string, read, write bool) *keyclient.CreateResult {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	created, err := keyclient.Create(ctx, w.env.Client, keyclient.CreateOptions{
		Namespace: w.namespace, AppName: appName, ReadAccess: read, WriteAccess: write,
	})
	must(w.T, err)
	return created
}

// keys returns the APIKeys of the namespace, but those that call the API.
func (w *world) keys() []v1alpha1.APIKey {
	w.Helper()
	list := &v1alpha1.APIKeyList{}
	must(w.T, w.env.Client.List(w.Context(), list, client.InNamespace(w.namespace)))
	var others []v1alpha1.APIKey
	for _, key := range list.Items {
		if key.UID != w.reader.Key.UID && key.UID != w.writer.Key.UID {
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
	must(c.t, err)
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
	must(t, err)
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

// lockedBuffer is a buffer that many write.
type lockedBuffer struct {
	mu      sync.Mutex
	content bytes.Buffer
}

func (b *lockedBuffer) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.content.Write(text)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.content.String()
}

func (w *world) eventually(what string, condition func() bool) {
	w.Helper()
	testenv.Eventually(w.T, patience, 10*time.Millisecond, what, condition)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
