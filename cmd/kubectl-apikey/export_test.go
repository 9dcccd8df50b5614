// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/runcontroller"
)

func TestExport_LeavesOutUnreadableKeys(t *testing.T) {
	terminal := newTerminal(t)
	terminal.apply("broken")
	terminal.env.UpdateInEtcd(t, terminal.namespace, "broken", func(object map[string]any) {
		object["spec"].(map[string]any)["readAccess"] = "true"
	})
	if got := terminal.run("list", "-o", "name"); got != (result{stdout: "apikey.keys.squirrel.dev/broken\n"}) {
		t.Errorf("list: %+v", got)
	}
	message := fmt.Sprintf("APIKey \"broken\" in namespace %q is not exported, because fields cannot be read: correct spec.readAccess\n", terminal.namespace)
	want := result{stderr: "Exported 0 keys. Left out 0 inactive keys and 0 bootstrap keys.\nError: " + message, code: exitFailure}
	if got := terminal.run("export"); got != want {
		t.Errorf("export: %+v", got)
	}
	if got := terminal.run("export", "broken"); got != (result{stderr: "Error: " + message, code: exitFailure}) {
		t.Errorf("export broken: %+v", got)
	}
}

func TestExport_TheTokensAreAcceptedElsewhere(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.apply("a-minted", func(key *v1alpha1.APIKey) {
		key.Spec.WriteAccess = true
		key.Spec.ExpiresAt = new(metav1.NewTime(time.Now().Add(time.Hour)))
		key.Spec.Secret = &v1alpha1.TokenSecret{Name: "minted"}
		key.Labels = map[string]string{"team": "blue", v1alpha1.LabelManager: "true", "kustomize.toolkit.fluxcd.io/name": "keys"}
		key.Annotations = map[string]string{
			corev1.LastAppliedConfigAnnotation: "{}", "purpose": "test", "argocd.argoproj.io/tracking-id": "keys", "meta.helm.sh/release-name": "keys",
		}
		key.Finalizers = []string{"example.com/finalizer"}
	})
	terminal.apply("b-imported", func(key *v1alpha1.APIKey) { key.Spec.TokenHash = token.Hash(token.New()) })
	terminal.apply("c-ended")
	terminal.apply("d-bootstrap", func(key *v1alpha1.APIKey) { key.Labels = map[string]string{v1alpha1.LabelBootstrap: "true"} })
	for _, name := range []string{"a-minted", "b-imported", "c-ended", "d-bootstrap"} {
		terminal.awaitReason(name, v1alpha1.ReasonIssued)
	}
	terminal.run("deactivate", "c-ended")
	terminal.awaitReason("c-ended", v1alpha1.ReasonDeactivated)
	terminal.types("export")
	terminal.types("export", "-o", "json", "a-minted")
	terminal.types("export", "c-ended", "b-imported", "unknown")
	terminal.types("export", "d-bootstrap")
	terminal.types("export", "-o", "table")
	terminal.types("export", "-A", "a-minted")
	terminal.types("export", "-l", "team=green")
	terminal.assertGolden()

	other := newSecondTerminal(terminal)
	manifests := strings.ReplaceAll(terminal.run("export").stdout, "namespace: "+terminal.namespace, "namespace: "+other.namespace)
	other.kubectlApply(manifests)
	other.kubectlApply(manifests) // again, as a Git tool does
	for _, name := range []string{"a-minted", "b-imported"} {
		other.awaitReason(name, v1alpha1.ReasonIssued)
		if there, here := other.key("App "+name), terminal.key("App "+name); there.Status.Tokens[0].Hash != here.Status.Tokens[0].Hash {
			t.Errorf("%s has another token in the other namespace", name)
		}
	}
}

// An export during a rotation has the newest token that was handed over. A later one makes the other installation follow.
func TestExport_DuringARotation(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.apply("shop")
	terminal.awaitReason("shop", v1alpha1.ReasonIssued)
	first := apikey.NewestToken(terminal.key("App shop"))
	rotate := func() *v1alpha1.TokenRecord { // returns the claim
		t.Helper()
		_, err := terminal.env.Kubectl(t, "patch", "apikey", "shop", "--namespace="+terminal.namespace, "--type=merge",
			`--patch={"spec":{"rotation":{"overlap":"2h","request":{"at":"`+time.Now().UTC().Format(time.RFC3339)+`"}}}}`)
		framework.Must(t, err)
		framework.Eventually(t, "the rotation has begun", func() bool { return apikey.ClaimOf(terminal.key("App shop")) != nil })
		return apikey.ClaimOf(terminal.key("App shop"))
	}
	other := newSecondTerminal(terminal)
	export := func(wanted string, leftOut string) {
		t.Helper()
		exported := terminal.run("export")
		if want := leftOut + "Exported 1 keys. Left out 0 inactive keys and 0 bootstrap keys.\n"; exported.stderr != want {
			t.Errorf("stderr is %s, want %s", exported.stderr, want)
		}
		other.kubectlApply(strings.ReplaceAll(exported.stdout, "namespace: "+terminal.namespace, "namespace: "+other.namespace))
		framework.Eventually(t, "the exported token is the newest one", func() bool {
			newest := apikey.NewestToken(other.key("App shop"))
			return newest != nil && newest.Hash == wanted
		})
	}
	handedOver := func() {
		t.Helper()
		framework.Eventually(t, "the rotation has ended", func() bool { return apikey.ClaimOf(terminal.key("App shop")) == nil })
	}

	second := rotate()
	export(first.Hash, "Left out the token "+second.Hint+` of APIKey "shop": it is being handed over: export the key again later.`+"\n")
	handedOver()
	end := apikey.SupersededUntil(terminal.key("App shop"), first.Hash).UTC().Format(time.RFC3339)
	superseded := "Left out the token " + first.Hint + ` of APIKey "shop": it was superseded, and ends at ` + end + ".\n"
	export(second.Hash, superseded)
	third := rotate()
	export(second.Hash, superseded+"Left out the token "+third.Hint+` of APIKey "shop": it is being handed over: export the key again later.`+"\n")

	tokens := other.key("App shop").Status.Tokens
	if len(tokens) != 2 || tokens[1].Hash != first.Hash || tokens[1].NotAfter == nil {
		t.Errorf("the other installation does not accept the former token for the overlap: %+v", tokens)
	}
}

// newSecondTerminal returns a terminal with a controller in another namespace.
func newSecondTerminal(t *terminal) *terminal {
	t.Helper()
	other := &terminal{T: t.T, env: t.env, namespace: t.env.Namespace(t)}
	runcontroller.Start(t, t.env, other.namespace)
	return other
}

func (t *terminal) kubectlApply(manifests string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "manifests.yaml")
	framework.Must(t, os.WriteFile(file, []byte(manifests), 0o600))
	_, err := t.env.Kubectl(t, "apply", "-f", file)
	framework.Must(t, err)
}

func TestManifestOf_ImportsTheNewestToken(t *testing.T) {
	issued := new(metav1.Now())
	key := &v1alpha1.APIKey{}
	key.Status.Tokens = []v1alpha1.TokenRecord{
		{Hash: token.Hash("newest"), Hint: "newest", NotBefore: issued},
		{Hash: token.Hash("superseded"), Hint: "superse", NotBefore: issued, NotAfter: issued},
		{Hash: token.Hash("claimed"), Hint: "claimed", NotBefore: issued, ClaimedAt: issued},
	}
	if got := manifestOf(key).Spec; got.TokenHash != token.Hash("newest") || got.TokenHint != "newest" || hint(key) != "newest" {
		t.Errorf("the manifest has the hash %s and the hint %q; the list has the hint %q", got.TokenHash, got.TokenHint, hint(key))
	}
}
