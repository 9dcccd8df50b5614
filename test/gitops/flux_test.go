// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gitops

package gitops_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	// fluxTimeout bounds a reconciliation. Flux checks the health every 5 seconds.
	fluxTimeout = 2 * time.Minute

	gitRepository = `
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: keys}
spec: {interval: 1h, url: "https://git.example.com/keys"}
`
)

func testFlux(t *testing.T, env *testenv.Env) {
	t.Helper()
	t.Parallel()
	flux := startFlux(t, env)
	t.Run("Cases", func(t *testing.T) { // ends before Flux is killed
		for name, test := range fluxCases {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(newFluxFixture(t, env, flux))
			})
		}
	})
}

// flux is a running kustomize-controller, with this server of archives instead of a source-controller.
type flux struct{ archives *archiveServer }

func startFlux(t *testing.T, env *testenv.Env) *flux {
	t.Helper()
	_, err := envtest.InstallCRDs(env.Config, envtest.CRDInstallOptions{Paths: []string{binaries.Path(t, "flux", "crds")}})
	framework.Must(t, err)
	health := binaries.FreeAddress(t)
	binaries.Start(t, process.Command{
		Path:  binaries.Path(t, "flux", "kustomize-controller"),
		Args:  []string{"--health-addr=" + health, "--metrics-addr=0", fmt.Sprintf("--concurrent=%d", len(fluxCases))},
		Env:   []string{"KUBECONFIG=" + env.Kubeconfig(t, env.Config)},
		Log:   filepath.Join(t.TempDir(), "log"),
		Ready: process.HTTPReady("http://" + health + "/readyz"),
	})
	return &flux{archives: startArchiveServer(t)}
}

// fluxFixture is a namespace with a GitRepository and a Kustomization. Both are named "keys".
type fluxFixture struct {
	fixture
	flux     *flux
	commits  int
	requests int
}

func newFluxFixture(t *testing.T, env *testenv.Env, flux *flux) *fluxFixture {
	t.Helper()
	f := &fluxFixture{fixture: newFixture(t, env), flux: flux}
	kustomization := f.snippet("kustomization.yaml", "flux-system")
	for _, manifest := range []string{gitRepository, kustomization} {
		object := &unstructured.Unstructured{}
		framework.Must(t, yaml.Unmarshal([]byte(manifest), &object.Object))
		object.SetNamespace(f.Namespace)
		f.Create(object)
	}
	return f
}

// commit creates a revision with these files, by their names, and returns its name.
func (f *fluxFixture) commit(files map[string]string) (revision string) {
	f.Helper()
	url, digest := f.flux.archives.add(f, "keys", files)
	f.commits++
	revision = fmt.Sprintf("main@sha1:%040d", f.commits)
	now := time.Now().UTC().Format(time.RFC3339)
	repository := f.object("GitRepository", "source.toolkit.fluxcd.io/v1")
	repository.Object["status"] = map[string]any{
		"observedGeneration": repository.GetGeneration(),
		"artifact":           map[string]any{"digest": digest, "url": url, "path": "keys.tar.gz", "revision": revision, "lastUpdateTime": now},
		"conditions": []any{
			map[string]any{"type": "Ready", "status": "True", "reason": "Succeeded", "message": "Stored.", "lastTransitionTime": now},
		},
	}
	framework.Must(f, f.Env.Client.Status().Update(f.Context(), repository))
	return revision
}

func (f *fluxFixture) object(kind, apiVersion string) *unstructured.Unstructured {
	f.Helper()
	object := &unstructured.Unstructured{}
	object.SetAPIVersion(apiVersion)
	object.SetKind(kind)
	framework.Must(f, f.Env.Client.Get(f.Context(), client.ObjectKey{Namespace: f.Namespace, Name: "keys"}, object))
	return object
}

// kustomizationStatus is the status of a Kustomization.
type kustomizationStatus struct {
	LastHandledReconcileAt string
	Conditions             []metav1.Condition
	Inventory              struct{ Entries []struct{ ID string } }
	History                []struct {
		LastReconciledStatus string
		TotalReconciliations int
		Metadata             struct{ Revision string }
	}
}

func (f *fluxFixture) status() (status kustomizationStatus) {
	f.Helper()
	content, err := json.Marshal(f.object("Kustomization", "kustomize.toolkit.fluxcd.io/v1").Object["status"])
	framework.Must(f, err)
	framework.Must(f, json.Unmarshal(content, &status))
	return status
}

// sync commits the files, waits until Flux has tried to apply them, and returns the Ready condition as "STATUS: MESSAGE".
func (f *fluxFixture) sync(files map[string]string) string {
	f.Helper()
	revision := f.commit(files)
	return f.waitForReady(func(status kustomizationStatus) bool {
		return len(status.History) > 0 && status.History[0].Metadata.Revision == revision // Flux writes it after the conditions
	})
}

// reconcile lets Flux reconcile the last revision again, as `flux reconcile` does, and returns the Ready condition like sync.
func (f *fluxFixture) reconcile() string {
	f.Helper()
	f.requests++
	request := fmt.Sprint("request ", f.requests)
	f.kubectl("annotate", "--overwrite", "kustomizations/keys", "reconcile.fluxcd.io/requestedAt="+request)
	return f.waitForReady(func(status kustomizationStatus) bool { return status.LastHandledReconcileAt == request })
}

func (f *fluxFixture) waitForReady(isCurrent func(kustomizationStatus) bool) (ready string) {
	f.Helper()
	framework.EventuallyWithin(f, fluxTimeout, framework.PollInterval, "Flux has reconciled", func() bool {
		status := f.status()
		for _, condition := range status.Conditions {
			if condition.Type == "Ready" && condition.Status != metav1.ConditionUnknown && isCurrent(status) {
				message := duration.ReplaceAllString(condition.Message, "DURATION")
				ready = fmt.Sprintf("%s: %s", condition.Status, strings.TrimSpace(message))
				return true
			}
		}
		return false
	})
	return ready
}

var duration = regexp.MustCompile(`\b[0-9.]+(ms|s|µs)\b`)

// mustSync expects that Flux applies the files, that all objects are healthy then, and that it needs one attempt.
func (f *fluxFixture) mustSync(files map[string]string) {
	f.Helper()
	f.expectEqual("the result of the sync", f.sync(files), f.applied())
	if last := f.status().History[0]; last.TotalReconciliations != 1 || last.LastReconciledStatus != "ReconciliationSucceeded" {
		f.Errorf("Flux needed %d attempts, and the last one ended with %s", last.TotalReconciliations, last.LastReconciledStatus)
	}
}

// mustReconcile expects that Flux applies the last revision again, and that all objects are healthy then.
func (f *fluxFixture) mustReconcile() {
	f.Helper()
	f.expectEqual("the result of the reconciliation", f.reconcile(), f.applied())
}

// applied is the Ready condition when Flux has applied the last revision.
func (f *fluxFixture) applied() string {
	return fmt.Sprintf("True: Applied revision: main@sha1:%040d", f.commits)
}

// expectStill fails the test if two reconciliations write the key, or anything else does.
func (f *fluxFixture) expectStill(name string) {
	f.Helper()
	before := f.GetKey(name)
	for range 2 {
		f.mustReconcile()
	}
	if diff := cmp.Diff(before, f.GetKey(name)); diff != "" {
		f.Errorf("%s changed although nothing had drifted (-before +after):\n%s", name, diff)
	}
}
