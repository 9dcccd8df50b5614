// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gitops

package gitops_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// testHelm installs a release with a key, renames the key, and returns to the first revision. Helm 3 always applies on the client side.
func testHelm(t *testing.T, env *testenv.Env) {
	t.Helper()
	t.Parallel()
	const conflict = `conflict with "kubectl-patch" using keys.squirrel.dev/v1alpha1: .spec.readAccess`
	for serverSide, reported := range map[string]string{"--server-side=true": conflict, "--server-side=false": ""} {
		t.Run("a key is renamed with "+serverSide, func(t *testing.T) {
			t.Parallel()
			f := newHelmFixture(t, env)
			f.helm("install", f.chart, "--set=key=old", serverSide, "--wait")
			first := f.expectIssued("old")

			f.kubectl("patch", "apikeys/old", "--type=merge", "--patch", `{"spec": {"readAccess": false, "writeAccess": true}}`)
			err := f.tryHelm("upgrade", f.chart, "--set=key=old", serverSide)
			if (err == nil) != (reported == "") || !strings.Contains(fmt.Sprint(err), reported) {
				t.Errorf("after a change with kubectl, an upgrade ends with %v, want %q", err, reported)
			}
			if f.GetKey("old").Spec.ReadAccess {
				t.Error("Helm has taken back a change with kubectl")
			}

			f.helm("upgrade", f.chart, "--set=key=new", serverSide, "--wait")
			f.expectIssued("new")
			f.expectGone("old")

			f.helm("rollback", "1", serverSide, "--wait")
			f.expectGone("new")
			if second := f.expectIssued("old"); string(second.Data["token"]) == string(first.Data["token"]) {
				t.Error("the key of the rollback has the token of the deleted one")
			}

			before := f.GetKey("old")
			f.helm("upgrade", f.chart, "--set=key=old", serverSide, "--wait")
			if after := f.GetKey("old"); after.UID != before.UID || after.Generation != before.Generation {
				t.Errorf("an upgrade without a change changed the key\nbefore: %+v\n after: %+v", before, after)
			}
			f.helm("uninstall", "--wait")
			f.expectGone("old")
		})
	}
}

// helmFixture is a namespace with a release named "shop", and a chart that has the key of the documentation.
type helmFixture struct {
	fixture
	chart, kubeconfig string
}

func newHelmFixture(t *testing.T, env *testenv.Env) *helmFixture {
	t.Helper()
	f := &helmFixture{fixture: newFixture(t, env), chart: t.TempDir(), kubeconfig: env.Kubeconfig(t, env.Config)}
	framework.Must(t, os.Mkdir(filepath.Join(f.chart, "templates"), 0o700))
	for file, content := range map[string]string{
		"Chart.yaml":            "apiVersion: v2\nname: shop\nversion: 1.0.0\n",
		"templates/apikey.yaml": docsnippets.CodeBlockOf(t, page, "templates/apikey.yaml"),
	} {
		framework.Must(t, os.WriteFile(filepath.Join(f.chart, file), []byte(content), 0o600))
	}
	return f
}

// helm runs a command of Helm for the release.
func (f *helmFixture) helm(command string, args ...string) {
	f.Helper()
	framework.Must(f, f.tryHelm(command, args...))
}

func (f *helmFixture) tryHelm(command string, args ...string) error {
	f.Helper()
	flags := []string{command, "shop", "--namespace=" + f.Namespace, "--kubeconfig=" + f.kubeconfig, "--timeout=1m"}
	_, err := binaries.Helm(f, append(flags, args...)...)
	return err
}
