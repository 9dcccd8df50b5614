// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build upgrade

package upgrade_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const systemNamespace = "apikey-system"

func TestMain(m *testing.M) { testenv.Main(m) }

// release is a version of the operator: its program, and a directory with its source.
type release struct{ name, program, source string }

// previousRelease returns the release that hack/previous-release has built.
func previousRelease(t *testing.T) release {
	t.Helper()
	return release{
		name:    "the previous release",
		program: binaries.Path(t, "previous-release", "apikey-operator"),
		source:  binaries.Path(t, "previous-release", "source"),
	}
}

// thisRelease returns the version in this repository.
func thisRelease(t *testing.T) release {
	t.Helper()
	root, err := controlplane.FindRepository()
	framework.Must(t, err)
	return release{name: "this version", program: operator.Program(t), source: root}
}

func (r release) config() string { return filepath.Join(r.source, "config") }

// A shallow clone, as CI services create it, lacks the commit of the previous release.
func TestPreviousRelease_NeedsTheHistory(t *testing.T) {
	t.Parallel()
	root, err := controlplane.FindRepository()
	framework.Must(t, err)
	clone := t.TempDir()
	for _, command := range []*exec.Cmd{
		exec.CommandContext(t.Context(), "git", "clone", "--quiet", "--depth=1", "file://"+root, clone),
		exec.CommandContext(t.Context(), "cp", root+"/hack/previous-release", clone+"/hack"),
	} {
		_, err := process.Output(t.Context(), command)
		framework.Must(t, err)
	}
	output, err := exec.CommandContext(t.Context(), clone+"/hack/previous-release").CombinedOutput()
	want := regexp.MustCompile(`^The history of this repository lacks the commit [0-9a-f]{40}, which is v[0-9.]+: run git fetch --unshallow\.\n$`)
	if err == nil || !want.Match(output) {
		t.Errorf("the output is %s (%v)", output, err)
	}
}

// fixture is a namespace with keys in a control plane for this test alone.
type fixture struct {
	*testenv.Fixture
	keyFile string // of the bootstrap key
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	env := testenv.StartEmpty(t)
	env.InstallCertManagerCRDs(t)
	return &fixture{Fixture: testenv.NewFixture(t, env), keyFile: filepath.Join(t.TempDir(), ".api_key")}
}

// apply applies manifests of the release as `make install` does.
func (r release) apply(f *fixture, kustomizations ...string) {
	f.Helper()
	for _, kustomization := range kustomizations {
		_, err := f.Env.Kubectl(f, "apply", "--server-side", "--kustomize="+filepath.Join(r.config(), kustomization))
		framework.Must(f, err)
	}
}

// createNamespace creates the namespace of the ServiceAccounts.
func (r release) createNamespace(f *fixture) {
	f.Helper()
	_, err := f.Env.Kubectl(f, "apply", "--server-side", "--filename="+filepath.Join(r.config(), "default/namespace.yaml"))
	framework.Must(f, err)
}

// startController runs the controller of the release with the rights that are installed.
func (r release) startController(f *fixture) *operator.Process {
	f.Helper()
	controller := operator.StartProgram(f, r.program, f.account("apikey-controller"), "controller", "--webhook=false", "--leader-elect=false",
		"--health-probe-bind-address="+operator.AnyPort)
	controller.Address("health")
	return controller
}

// startAuthenticator runs the authenticator of the release with the rights that are installed, and returns its address.
func (r release) startAuthenticator(f *fixture) string {
	f.Helper()
	return operator.StartProgram(f, r.program, f.account("apikey-authenticator"), "authenticator", "--plaintext",
		"--listen-address="+operator.AnyPort, "--grpc-listen-address="+operator.AnyPort,
		"--health-probe-bind-address="+operator.AnyPort, "--metrics-bind-address="+operator.AnyPort).Address("authenticator")
}

func (f *fixture) account(name string) *rest.Config {
	f.Helper()
	return f.Env.ServiceAccount(f, systemNamespace, name)
}

// tokenOf returns the token in the Secret of a key.
func (f *fixture) tokenOf(name string) string {
	f.Helper()
	secret := f.Secret(name + "-token")
	if secret == nil || len(secret.Data["token"]) == 0 {
		f.Fatalf("%s has no token in its Secret", name)
	}
	return string(secret.Data["token"])
}

// check sends a token to an authenticator, as Traefik does for a read, and returns the status of the response.
func (f *fixture) check(authenticator, token string) (int, error) {
	request, err := http.NewRequest(http.MethodGet, "http://"+authenticator+"/auth/forward/"+f.Namespace, nil)
	if err != nil {
		return 0, err
	}
	request.Header = http.Header{"X-Forwarded-Method": {http.MethodGet}, "X-Api-Key": {token}}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// call sends a request with a key to a console, and returns the status of the response. A payload that is not nil is decoded from a 200.
func (f *fixture) call(method, url, key, body string, payload any) (int, error) {
	request, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Header = http.Header{"X-Api-Key": {key}, "Content-Type": {"application/json"}}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if payload != nil && response.StatusCode == http.StatusOK {
		return response.StatusCode, json.NewDecoder(response.Body).Decode(&struct{ Payload any }{payload})
	}
	return response.StatusCode, nil
}

// awaitStatus waits until each authenticator responds with this status to a token.
func (f *fixture) awaitStatus(authenticators []string, token string, want int) {
	f.Helper()
	for i, authenticator := range authenticators {
		framework.Eventually(f, fmt.Sprintf("authenticator %d responds %d", i, want), func() bool {
			status, err := f.check(authenticator, token)
			framework.Must(f, err)
			return status == want
		})
	}
}

// expectAccepted fails the test if an authenticator refuses one of the tokens before the test ends, or before the returned function is
// called.
func (f *fixture) expectAccepted(authenticator string, tokens map[string]string) (stop func()) {
	f.Helper()
	ended := make(chan struct{})
	var checking sync.WaitGroup
	checking.Go(func() {
		for {
			for name, token := range tokens {
				if status, err := f.check(authenticator, token); err != nil || status != http.StatusOK {
					f.Errorf("%s: got status %d (%v) for the token of %s, want 200", authenticator, status, err, name)
					return
				}
			}
			select {
			case <-ended:
				return
			case <-time.After(framework.PollInterval):
			}
		}
	})
	stop = sync.OnceFunc(func() {
		close(ended)
		checking.Wait()
	})
	f.Cleanup(stop)
	return stop
}

// touch changes the spec of each key, and waits until the running controller has recorded that.
func (f *fixture) touch() {
	f.Helper()
	for _, key := range f.Keys() {
		f.UpdateKey(key.Name, func(key *v1alpha1.APIKey) { key.Spec.WriteAccess = !key.Spec.WriteAccess })
	}
	for _, key := range f.Keys() {
		framework.Eventually(f, key.Name+" is reconciled", func() bool {
			current := f.GetKey(key.Name)
			return current.Status.ObservedGeneration == current.Generation
		})
	}
}
