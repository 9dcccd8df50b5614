// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
)

// applyEnded creates a key that ended this long ago.
func (t *terminal) applyEnded(name string, ended time.Duration, change ...func(*v1alpha1.APIKey)) {
	t.Helper()
	t.apply(name, append(change, inactive)...)
	t.setStatus(name, func(status *v1alpha1.APIKeyStatus) { status.DeactivatedAt = ago(ended) })
}

func labelled(name, value string) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { metav1.SetMetaDataLabel(&key.ObjectMeta, name, value) }
}

func annotated(name, value string) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { metav1.SetMetaDataAnnotation(&key.ObjectMeta, name, value) }
}

// createdHere marks a key as 'kubectl apikey create' does.
var createdHere = annotated("keys.squirrel.dev/created-at", "2026-01-01T00:00:00.000000001Z")

func (t *terminal) names() []string {
	t.Helper()
	names := []string{}
	for _, key := range t.keys() {
		names = append(names, key.Name)
	}
	slices.Sort(names)
	return names
}

func TestPrune_DeletesTheKeysThatNothingCanCreateAgain(t *testing.T) {
	terminal := newTerminal(t)
	// The order of these keys is that of their creation, also if they are created in one second.
	terminal.apply("active")
	terminal.applyEnded("applied", 100*day, annotated("kubectl.kubernetes.io/last-applied-configuration", "{}"))
	terminal.apply("deactivated", inactive) // the controller has not recorded the end
	terminal.applyEnded("flux", 100*day, labelled("kustomize.toolkit.fluxcd.io/name", "keys"))
	terminal.applyEnded("helm", 100*day, annotated("meta.helm.sh/release-name", "keys"))
	terminal.applyEnded("imported", 100*day, imported)
	terminal.applyEnded("kapp", 100*day, labelled("kapp.k14s.io/app", "1"))
	terminal.applyEnded("minted", 100*day)
	terminal.applyEnded("recent", 10*day)
	terminal.applyEnded("bootstrap", 100*day, imported, createdHere, labelled(v1alpha1.LabelBootstrap, "true"))
	terminal.applyEnded("created", 200*day, imported, createdHere)
	all := terminal.names()
	for _, dryRun := range [][]string{{"--dry-run"}, {"--dry-run=server"}, {"--dry-run", "-o", "name"}} {
		terminal.types(append([]string{"prune", "--ended-before=90d"}, dryRun...)...)
		if diff := cmp.Diff(all, terminal.names()); diff != "" {
			t.Errorf("after prune %v (-want +got):\n%s", dryRun, diff)
		}
	}
	terminal.types("prune", "--ended-before=90d")
	want := slices.DeleteFunc(all, func(name string) bool { return name == "minted" || name == "created" })
	if diff := cmp.Diff(want, terminal.names()); diff != "" {
		t.Errorf("the keys (-want +got):\n%s", diff)
	}
	terminal.types("prune", "--ended-before=1d", "--field-selector=metadata.name=recent", "-o", "name")
	terminal.assertGolden()
}

// The names that one command prints are the input of another one.
func TestPrune_ReadsPagesOfAllNamespaces(t *testing.T) {
	terminal := newTerminal(t)
	other := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	framework.Must(t, terminal.env.Client.Create(t.Context(), other))
	mark := labelled("prune", terminal.namespace)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		terminal.applyEnded(name, 2*day, mark)
	}
	namespace := terminal.namespace
	terminal.namespace = other.Name
	terminal.applyEnded("f", 2*day, mark)
	terminal.apply("g", mark)
	terminal.namespace = namespace
	got := terminal.run("prune", "--ended-before=1d", "-A", "-l", "prune="+namespace, "--chunk-size=2")
	want := []string{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		want = append(want, "apikey.keys.squirrel.dev/"+name+" deleted in namespace \""+namespace+"\"\n")
	}
	want = append(want, "apikey.keys.squirrel.dev/f deleted in namespace \""+other.Name+"\"\n")
	if diff := cmp.Diff(want, slices.Sorted(strings.Lines(got.stdout))); diff != "" || got.code != 0 {
		t.Errorf("exit code %d, %s (-want +got):\n%s", got.code, got.stderr, diff)
	}
	if names := terminal.names(); len(names) != 0 {
		t.Errorf("the keys are %v", names)
	}
}

func TestPrune_GoesOnAfterAFailure(t *testing.T) {
	terminal := newTerminal(t)
	for _, name := range []string{"broken", "changed", "deleted", "fine", "replaced"} {
		terminal.applyEnded(name, 100*day)
	}
	terminal.throughProxy(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			name := path.Base(r.URL.Path)
			if r.Method == http.MethodDelete {
				key := &v1alpha1.APIKey{ObjectMeta: metav1.ObjectMeta{Namespace: terminal.namespace, Name: name}}
				switch name {
				case "broken":
					http.Error(w, "no storage", http.StatusInternalServerError)
					return
				case "changed":
					framework.Must(t, terminal.env.Client.Patch(t.Context(), key, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`))))
				case "deleted":
					framework.Must(t, terminal.env.Client.Delete(t.Context(), key))
				case "replaced":
					framework.Must(t, terminal.env.Client.Delete(t.Context(), key))
					terminal.apply(name)
				}
			}
			next.ServeHTTP(w, r)
		})
	})
	got := terminal.run("prune", "--ended-before=90d")
	if got.stdout != "apikey.keys.squirrel.dev/fine deleted\n" || got.code != exitFailure {
		t.Errorf("prune: %+v", got)
	}
	errs := slices.Collect(strings.Lines(got.stderr))
	wantErrs := []string{
		"Error: delete APIKey \"broken\": an error on the server (\"no storage\") has prevented the request from succeeding " +
			"(delete apikeys.keys.squirrel.dev broken)\n",
		"Error: delete APIKey \"changed\": it has changed since the command read it; run the command again\n",
		"Error: delete APIKey \"replaced\": it has changed since the command read it; run the command again\n",
	}
	slices.Sort(errs[1:])
	if diff := cmp.Diff(wantErrs, errs[1:]); diff != "" || !strings.HasPrefix(errs[0], "Deleted 1 keys that ended before ") {
		t.Errorf("%s (-want +got):\n%s", errs[0], diff)
	}
	if diff := cmp.Diff([]string{"broken", "changed", "replaced"}, terminal.names()); diff != "" {
		t.Errorf("the keys (-want +got):\n%s", diff)
	}
}

func TestPrune_CtrlCStopsIt(t *testing.T) {
	terminal := newTerminal(t)
	for _, name := range []string{"a", "b", "c"} {
		terminal.applyEnded(name, 100*day)
	}
	deletions := make(chan struct{}, 3)
	terminal.throughProxy(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodDelete {
				if deletions <- struct{}{}; len(deletions) == 2 {
					_, _ = io.Copy(io.Discard, r.Body) // the server then notices that the client has gone
					<-r.Context().Done()
					return
				}
			}
			next.ServeHTTP(w, r)
		})
	})
	command := terminal.command("prune", "--ended-before=90d")
	wait := terminal.start(command)
	framework.Eventually(t, "the second deletion is under way", func() bool { return len(deletions) == 2 })
	framework.Must(t, command.Process.Signal(syscall.SIGINT))
	got := wait()
	if got.code != exitFailure || !strings.HasPrefix(got.stderr, "Deleted 1 keys ") || !strings.HasSuffix(got.stderr, "\nError: interrupted\n") {
		t.Errorf("prune: %+v", got)
	}
	if names := terminal.names(); len(names) != 2 || len(deletions) != 2 {
		t.Errorf("the keys are %v, after %d deletions", names, len(deletions))
	}
}

// By the clock of the laptop, the key ended 10 days ago. By that of the API server, it ended a day ago.
func TestPrune_DoesNotTrustTheLocalClock(t *testing.T) {
	terminal := newTerminal(t)
	terminal.applyEnded("partner", 10*day)
	terminal.withServerTime(-9 * day)
	got := terminal.run("prune", "--ended-before=5d")
	before := time.Now().Add(-14 * day).UTC().Format("2006-01-02T")
	if got.code != 0 || !strings.HasPrefix(got.stderr, "Deleted 0 keys that ended before "+before) || len(terminal.keys()) != 1 {
		t.Errorf("prune: %+v", got)
	}
	if got := terminal.run("prune", "--ended-before=12h"); got.code != 0 || len(terminal.keys()) != 0 {
		t.Errorf("prune: %+v", got)
	}
}

func TestPrune_NamesTheMissingRole(t *testing.T) {
	terminal := newTerminal(t)
	terminal.applyEnded("a", 100*day)
	terminal.applyEnded("b", 100*day)
	terminal.logIn(terminal.env.User(t, "joe"))
	terminal.allow("joe", "get", "list")
	terminal.types("prune", "--ended-before=90d")
	terminal.types("prune", "--ended-before=90d", "--all-namespaces")
	terminal.assertGolden()
}
