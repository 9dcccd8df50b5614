// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gitops

package gitops_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

var kubectlCases = map[string]func(*kubectlFixture){
	"the commands of the documentation work":                  (*kubectlFixture).testCommands,
	"an unchanged tree has no diff":                           (*kubectlFixture).testDiff,
	"pruning by label issues a renamed key":                   (*kubectlFixture).testPruneByLabel,
	"pruning by label keeps one-time Secrets with that label": (*kubectlFixture).testPruneKeepsSecrets,
	"pruning by ApplySet issues a renamed key":                (*kubectlFixture).testApplySet,
	"server-side apply names the fields of another manager":   (*kubectlFixture).testConflict,
	"client-side apply continues after server-side apply":     (*kubectlFixture).testClientSideAfterServerSide,
	"kubectl wait ends when the key is issued or stalled":     (*kubectlFixture).testWait,
	"a key deactivated in the cluster stays so":               (*kubectlFixture).testDeactivated,
}

func testKubectl(t *testing.T, env *testenv.Env) {
	t.Helper()
	t.Parallel()
	for name, test := range kubectlCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(&kubectlFixture{fixture: newFixture(t, env), dir: filepath.Join(t.TempDir(), "keys")})
		})
	}
}

// kubectlFixture is a namespace with a directory of manifests.
type kubectlFixture struct {
	fixture
	dir string
}

// write replaces the manifests in the directory by these, by the names of their files.
func (f *kubectlFixture) write(manifests map[string]string) {
	f.Helper()
	framework.Must(f, os.RemoveAll(f.dir))
	framework.Must(f, os.Mkdir(f.dir, 0o700))
	for name, manifest := range manifests {
		framework.Must(f, os.WriteFile(filepath.Join(f.dir, name), []byte(manifest), 0o600))
	}
}

// on runs a command of kubectl with the directory, and returns its output.
func (f *kubectlFixture) on(command string, flags ...string) string {
	f.Helper()
	return f.kubectl(append([]string{command, "--filename=" + f.dir}, flags...)...)
}

// waitForReady waits as the documentation does.
func (f *kubectlFixture) waitForReady() {
	f.Helper()
	f.on("wait", "--for=condition=Ready", "--timeout=1m")
}

func (f *kubectlFixture) testCommands() {
	f.write(map[string]string{"frontend.yaml": f.snippet("frontend.yaml", "shop")})
	docsnippets.Walkthrough{
		Page: page,
		Dir:  filepath.Dir(f.dir),
		Env: []string{
			"PATH=" + filepath.Dir(f.Env.Binary("kubectl")) + ":" + os.Getenv("PATH"), "KUBECONFIG=" + f.Env.ControlPlane.Kubeconfig(),
		},
		Replacements: map[string]string{"--namespace shop": "--namespace " + f.Namespace},
	}.Run(f)
	f.expectIssued("frontend")
}

func (f *kubectlFixture) testDiff() {
	f.write(map[string]string{"frontend.yaml": f.snippet("frontend.yaml", "shop"), "deactivated.yaml": f.manifest("ended", "Ended App", "active: false")})
	for _, side := range []string{"--server-side=false", "--server-side"} {
		f.on("apply", side)
		f.waitForReady()
		f.expectEqual("kubectl diff "+side, f.on("diff", side), "")
		f.expectEqual("kubectl apply "+side, f.on("apply", side), map[string]string{
			"--server-side=false": "apikey.keys.squirrel.dev/ended unchanged\napikey.keys.squirrel.dev/frontend unchanged\n",
			"--server-side":       "apikey.keys.squirrel.dev/ended serverside-applied\napikey.keys.squirrel.dev/frontend serverside-applied\n",
		}[side])
		f.expectIssued("frontend")
		f.expectReady("ended", metav1.ConditionTrue, v1alpha1.ReasonDeactivated)
	}
}

func (f *kubectlFixture) testPruneByLabel() {
	f.rename("--prune", "--selector=team=shop", "--prune-allowlist=keys.squirrel.dev/v1alpha1/APIKey")
}

func (f *kubectlFixture) testPruneKeepsSecrets() {
	f.write(map[string]string{"frontend.yaml": f.manifest("frontend", app, "secret: {labels: {team: shop}}")})
	prune := []string{"--prune", "--selector=team=shop", "--prune-allowlist=core/v1/Secret", "--prune-allowlist=keys.squirrel.dev/v1alpha1/APIKey"}
	f.on("apply", prune...)
	f.waitForReady()
	before := f.expectIssued("frontend")
	if before.Labels["team"] != "shop" {
		f.Fatalf("the Secret has the labels %v", before.Labels)
	}
	f.expectEqual("kubectl apply again", f.on("apply", prune...), "apikey.keys.squirrel.dev/frontend unchanged\n")
	if after := f.expectIssued("frontend"); after.UID != before.UID {
		f.Error("the Secret was recreated")
	}
}

func (f *kubectlFixture) testApplySet() {
	f.rename("--prune", "--applyset=keys")
}

// rename renames a key with kubectl apply and these flags.
func (f *kubectlFixture) rename(flags ...string) {
	f.Helper()
	f.write(map[string]string{"key.yaml": f.manifest("old", app)})
	f.on("apply", flags...)
	f.waitForReady()
	former := f.expectIssued("old")

	f.write(map[string]string{"key.yaml": f.manifest("new", app)})
	f.expectEqual("kubectl apply", f.on("apply", flags...), heldWarning+
		"apikey.keys.squirrel.dev/new created\napikey.keys.squirrel.dev/old pruned\n")
	f.waitForReady()
	f.expectGone("old")
	if secret := f.expectIssued("new"); string(secret.Data["token"]) == string(former.Data["token"]) {
		f.Error("the renamed key has the token of the old one")
	}
	f.expectEqual("kubectl apply again", f.on("apply", flags...), "apikey.keys.squirrel.dev/new unchanged\n")
	f.expectIssued("new")
}

func (f *kubectlFixture) testConflict() {
	f.write(map[string]string{"frontend.yaml": f.manifest("frontend", app)})
	f.on("apply", "--server-side", "--field-manager=one")
	f.WaitForReady("frontend", v1alpha1.ReasonIssued)

	f.write(map[string]string{"frontend.yaml": strings.Replace(f.manifest("frontend", app, "writeAccess: true"), "readAccess: true", "readAccess: false", 1)})
	_, err := f.tryKubectl("apply", "--filename="+f.dir, "--server-side", "--field-manager=two")
	if want := "conflict with \"one\": .spec.readAccess\n"; err == nil || !strings.Contains(err.Error(), want) {
		f.Errorf("got the error %v, want: %s", err, want)
	}
	f.on("apply", "--server-side", "--field-manager=two", "--force-conflicts")
	key := f.WaitForReady("frontend", v1alpha1.ReasonIssued)
	if key.Spec.ReadAccess || !key.Spec.WriteAccess {
		f.Errorf("the spec is %+v, want that of the second manager", key.Spec)
	}
	f.expectEqual("kubectl diff of the second manager", f.on("diff", "--server-side", "--field-manager=two"), "")
}

func (f *kubectlFixture) testClientSideAfterServerSide() {
	f.write(map[string]string{"frontend.yaml": f.manifest("frontend", app)})
	f.on("apply", "--server-side")
	f.waitForReady()
	uid := f.GetKey("frontend").UID

	f.write(map[string]string{"frontend.yaml": f.manifest("frontend", app, "writeAccess: true")})
	f.on("apply")
	f.waitForReady()
	f.expectEqual("kubectl diff", f.on("diff"), "")
	f.expectEqual("kubectl apply again", f.on("apply"), "apikey.keys.squirrel.dev/frontend unchanged\n")
	f.expectIssued("frontend")
	if key := f.GetKey("frontend"); key.UID != uid || !key.Spec.WriteAccess {
		f.Errorf("the key is %+v, want the same one, with write access", key)
	}
}

func (f *kubectlFixture) testWait() {
	f.write(map[string]string{"key.yaml": f.manifest("holder", app)})
	f.on("apply")
	f.expectEqual("kubectl wait", f.on("wait", "--for=condition=Ready", "--timeout=1m"), "apikey.keys.squirrel.dev/holder condition met\n")

	f.write(map[string]string{"key.yaml": f.manifest("frontend", app)})
	f.on("apply")
	f.expectEqual("kubectl wait", f.on("wait", "--for=condition=Stalled", "--timeout=1m"), "apikey.keys.squirrel.dev/frontend condition met\n")
	f.expectEqual("the message", f.kubectl("get", "apikey", "frontend",
		`--output=jsonpath={.status.conditions[?(@.type=="Stalled")].message}`), heldMessage("holder"))
}

func (f *kubectlFixture) testDeactivated() {
	f.write(map[string]string{"frontend.yaml": f.manifest("frontend", app)})
	f.on("apply")
	f.waitForReady()
	f.kubectl("patch", "apikeys/frontend", "--type=merge", "--patch", `{"spec": {"active": false}}`)
	f.WaitForReady("frontend", v1alpha1.ReasonDeactivated)
	for _, side := range []string{"--server-side=false", "--server-side"} {
		f.expectEqual("kubectl diff "+side, f.on("diff", side), "")
		f.on("apply", side)
		f.expectReady("frontend", metav1.ConditionTrue, v1alpha1.ReasonDeactivated)
	}
}
