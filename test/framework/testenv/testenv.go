// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package testenv starts a real Kubernetes control plane. The tests of a package share one:
//
//	func TestMain(m *testing.M) { testenv.Main(m) }
//
//	func TestSomething(t *testing.T) {
//		env := testenv.Shared(t)
//		f := testenv.NewFixture(t, env)
//		f.CreateKey("frontend")
//		...
//
// A test that stops the API server, or changes cluster-wide objects, starts its own with [Start].
package testenv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/go-logr/logr"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/test/framework"
)

// Env is a control plane. [StartEmpty] alone does not install the APIKey resource.
type Env struct {
	*controlplane.ControlPlane

	// Scheme has the types of Kubernetes and of this repository.
	Scheme *runtime.Scheme
	// Config has full access.
	Config *rest.Config
	// Client has full access and no cache.
	Client client.WithWatch

	dir string
}

// shared is the control plane of a package's tests. The first call of Shared starts it.
var shared struct {
	running context.Context // from Main
	once    sync.Once
	env     *Env
	err     error
}

// Main runs the tests of a package, stops their shared control plane, and exits. It discards the logs of controller-runtime.
func Main(m *testing.M) {
	running, stopListening := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	shared.running = running
	log.SetLogger(logr.Discard())
	code := make(chan int, 1)
	go func() { code <- m.Run() }()
	select {
	case result := <-code:
		os.Exit(max(result, stopShared()))
	case <-running.Done():
		stopListening() // a second signal ends the process at once
		stopShared()
		os.Exit(130)
	}
}

func stopShared() (code int) {
	shared.once.Do(func() {}) // waits for a running start, and prevents a later one
	if shared.env == nil {
		return 0
	}
	if err := shared.env.stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// Shared returns the control plane that the tests of a package share. The TestMain of the package must call [Main].
func Shared(t testing.TB) *Env {
	t.Helper()
	if shared.running == nil {
		t.Fatal("add to this package: func TestMain(m *testing.M) { testenv.Main(m) }")
	}
	shared.once.Do(func() { shared.env, shared.err = startInstalled(shared.running) })
	framework.Must(t, shared.err)
	return shared.env
}

// Start returns a control plane for this test alone, whose API server has these additional flags.
func Start(t testing.TB, apiServerFlags ...string) *Env {
	t.Helper()
	env, err := startInstalled(t.Context(), apiServerFlags...)
	framework.Must(t, err)
	stopAfter(t, env)
	return env
}

// StartEmpty returns a control plane for this test alone, in which the APIKey resource is not installed.
func StartEmpty(t testing.TB) *Env {
	t.Helper()
	env, err := start(t.Context(), "")
	framework.Must(t, err)
	stopAfter(t, env)
	return env
}

func stopAfter(t testing.TB, env *Env) {
	t.Helper()
	t.Cleanup(func() {
		if err := env.stop(); err != nil {
			t.Error(err)
		}
	})
}

// startInstalled starts a control plane with the APIKey resource of this repository.
func startInstalled(ctx context.Context, apiServerFlags ...string) (*Env, error) {
	root, err := controlplane.FindRepository()
	if err != nil {
		return nil, err
	}
	return start(ctx, filepath.Join(root, "config", "crd"), apiServerFlags...)
}

func start(ctx context.Context, crdDir string, apiServerFlags ...string) (*Env, error) {
	assets, err := controlplane.FindAssets()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "apikey-operator-test-")
	if err != nil {
		return nil, err
	}
	plane, err := controlplane.Start(ctx, controlplane.Options{
		Dir:    dir,
		LogDir: filepath.Join(dir, "log"),
		Assets: assets,
		CRDDir: crdDir,

		APIServerFlags: apiServerFlags,
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	env := &Env{ControlPlane: plane, Scheme: newScheme(), Config: plane.AdminConfig(), dir: dir}
	env.Client, err = client.NewWithWatch(env.Config, client.Options{Scheme: env.Scheme})
	if err != nil {
		return nil, errors.Join(err, env.stop())
	}
	return env, nil
}

func (e *Env) stop() error {
	e.Kill()
	return os.RemoveAll(e.dir)
}

func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err) // a bug: two types have the same kind
		}
	}
	return scheme
}

// Namespace creates a namespace for this test. It is not deleted: the control plane is discarded with it.
func (e *Env) Namespace(t testing.TB) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	framework.Must(t, e.Client.Create(t.Context(), namespace))
	return namespace.Name
}

// User returns the credentials of a user in these groups. RBAC decides what the user may do.
func (e *Env) User(t testing.TB, name string, groups ...string) *rest.Config {
	t.Helper()
	config, err := e.UserConfig(name, groups...)
	framework.Must(t, err)
	return config
}

// ServiceAccount returns the credentials of an existing ServiceAccount, which are a token.
func (e *Env) ServiceAccount(t testing.TB, namespace, name string) *rest.Config {
	t.Helper()
	config, err := e.ServiceAccountConfig(t.Context(), namespace, name)
	framework.Must(t, err)
	return config
}

// Kubeconfig writes a kubeconfig file into a temporary directory of the test, and returns its path.
func (e *Env) Kubeconfig(t testing.TB, config *rest.Config) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	framework.Must(t, controlplane.WriteKubeconfig(path, config, metav1.NamespaceDefault))
	return path
}

// Kubectl runs kubectl with full access, and returns its standard output and error.
func (e *Env) Kubectl(t testing.TB, args ...string) (string, error) {
	t.Helper()
	return e.ControlPlane.Kubectl(t.Context(), "", args...)
}

// Apply applies manifests, or what the arguments name, with `kubectl apply --server-side`. A conflict of field managers ends the test, and
// a warning fails it.
func (e *Env) Apply(t testing.TB, manifests string, args ...string) {
	t.Helper()
	output, err := e.ControlPlane.Kubectl(t.Context(), manifests, append([]string{"apply", "--server-side"}, args...)...)
	framework.Must(t, err)
	result := "serverside-applied"
	if slices.Contains(args, "--dry-run=server") {
		result += " (server dry run)"
	}
	ExpectEachApplied(t, output, result)
}

// ExpectEachApplied expects that `kubectl apply` printed this result for each object, and nothing else.
func ExpectEachApplied(t testing.TB, output, result string) {
	t.Helper()
	for line := range strings.SplitSeq(strings.TrimSpace(output), "\n") {
		if !strings.HasSuffix(line, " "+result) {
			t.Errorf("kubectl apply: got %q, want \"... %s\"", line, result)
		}
	}
}

// Kustomization writes a kustomization.yaml and returns its directory. In the content, CONFIG stands for the directory config.
func Kustomization(t testing.TB, config, content string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	config, err := filepath.Abs(config)
	framework.Must(t, err)
	config, err = filepath.Rel(dir, config)
	framework.Must(t, err)
	content = strings.ReplaceAll(content, "CONFIG", config)
	framework.Must(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(content), 0o600))
	return dir
}

// InstallCertManagerCRDs installs the CustomResourceDefinitions of the version of cert-manager whose controllers hack/cert-manager has.
func (e *Env) InstallCertManagerCRDs(t testing.TB) {
	t.Helper()
	e.InstallCRDs(t, "github.com/cert-manager/cert-manager@v1.21.2", "deploy/crds")
}

// InstallCRDs installs the CustomResourceDefinitions in a directory of a Go module, which it downloads. The module is "path@version".
func (e *Env) InstallCRDs(t testing.TB, module, dir string) {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module).Output()
	framework.Must(t, err)
	var downloaded struct{ Dir string }
	framework.Must(t, json.Unmarshal(output, &downloaded))
	files := "--filename=" + filepath.Join(downloaded.Dir, filepath.FromSlash(dir))
	_, err = e.Kubectl(t, "apply", "--server-side", files)
	framework.Must(t, err)
	_, err = e.Kubectl(t, "wait", "--for=condition=Established", files)
	framework.Must(t, err)
}

// Webhook registers the ValidatingWebhookConfiguration of a file until the test ends. It returns the loopback port that the API server
// calls, and the directory of the serving certificate (tls.crt and tls.key) for it.
func (e *Env) Webhook(t testing.TB, file string) (port int, certDir string) {
	t.Helper()
	port, err := controlplane.FreePort(0)
	framework.Must(t, err)
	certDir = t.TempDir()
	name, err := e.RegisterWebhooks(t.Context(), file, port, certDir)
	framework.Must(t, err)
	t.Cleanup(func() {
		configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if err := e.Client.Delete(context.Background(), configuration); err != nil {
			t.Error(err)
		}
	})
	return port, certDir
}
