// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package admission_test

import (
	"fmt"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/runcontroller"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const waitsForFormer = `Warning: App name "Frontend" is held by APIKey "former": deactivate or delete that key, or create this one with ` +
	`another app name. Until then, this key is not accepted.`

// replacement is a namespace with an issued key, "former", which the manifests of the test replace.
type replacement struct {
	*testenv.Fixture
	webhook bool
}

// testReplacement runs the test with a controller, with and without the webhook: the controller enforces the rules.
func testReplacement(t *testing.T, test func(r *replacement)) {
	t.Helper()
	for _, webhook := range []bool{true, false} {
		t.Run(fmt.Sprintf("webhook=%t", webhook), func(t *testing.T) {
			r := &replacement{testenv.NewFixture(t, testenv.Shared(t)), webhook}
			if webhook {
				startWebhook(t, r.Env)
			}
			runcontroller.Start(t, r.Env, r.Namespace)
			test(r)
		})
	}
}

func keyManifest(name string, fields ...string) string {
	return fmt.Sprintf("apiVersion: keys.squirrel.dev/v1alpha1\nkind: APIKey\nmetadata: {name: %s, labels: {app: frontend}}\n"+
		"spec: {readAccess: true, %s}\n---\n", name, strings.Join(fields, ", "))
}

// apply applies the manifests with kubectl, which must succeed, and returns its output.
func (r *replacement) apply(manifests string, args ...string) string {
	r.Helper()
	output, err := r.Env.ControlPlane.Kubectl(r.Context(), manifests, append([]string{"apply", "--filename=-", "--namespace", r.Namespace}, args...)...)
	framework.Must(r, err)
	return output
}

// issueFormer applies the former key, and waits until it is issued and the webhook's cache has it.
func (r *replacement) issueFormer(fields []string, args ...string) {
	r.Helper()
	r.apply(keyManifest("former", fields...), args...)
	r.WaitForReady("former", v1alpha1.ReasonIssued)
	framework.Eventually(r, "the webhook names the former key", func() bool {
		return !r.webhook || strings.Contains(r.apply(keyManifest("probe", fields...), "--dry-run=server"), `APIKey "former"`)
	})
}

func (r *replacement) expectWarning(output, warning string) {
	r.Helper()
	if strings.Contains(output, warning) != r.webhook {
		r.Errorf("the output of kubectl is %q, and the webhook's warning is %q", output, warning)
	}
}

// TestReplacement_AKeyIsRenamed applies a key of another name with the same app name, and prunes the former one afterwards.
func TestReplacement_AKeyIsRenamed(t *testing.T) {
	t.Setenv("KUBECTL_APPLYSET", "true")
	for tool, args := range map[string][]string{
		"prune":    {"--prune", "--selector=app=frontend", "--prune-allowlist=keys.squirrel.dev/v1alpha1/APIKey"},
		"applyset": {"--prune", "--applyset=keys"},
	} {
		t.Run(tool, func(t *testing.T) {
			testReplacement(t, func(r *replacement) {
				r.issueFormer([]string{"appName: Frontend"}, args...)
				output := r.apply(keyManifest("renamed", "appName: Frontend"), args...)
				r.expectWarning(output, waitsForFormer)
				if !strings.Contains(output, "apikey.keys.squirrel.dev/former pruned") {
					r.Errorf("the former key is not pruned: %s", output)
				}
				r.WaitForReady("renamed", v1alpha1.ReasonIssued)
			})
		})
	}
}

// TestReplacement_OneFileDeactivatesAKeyAndAddsAnother does as Flux, which first asks with a dry run.
func TestReplacement_OneFileDeactivatesAKeyAndAddsAnother(t *testing.T) {
	testReplacement(t, func(r *replacement) {
		r.issueFormer([]string{"appName: Frontend"}, "--server-side")
		both := keyManifest("former", "appName: Frontend", "active: false") + keyManifest("newer", "appName: Frontend")
		r.expectWarning(r.apply(both, "--server-side", "--dry-run=server"), waitsForFormer)
		r.apply(both, "--server-side")
		r.WaitForReady("newer", v1alpha1.ReasonIssued)
		r.WaitForReady("former", v1alpha1.ReasonDeactivated)
	})
}

func TestReplacement_AKeyWaitsUntilTheHolderOfItsAppNameIsDeactivated(t *testing.T) {
	testReplacement(t, func(r *replacement) {
		r.issueFormer([]string{"appName: Frontend"})
		r.expectWarning(r.apply(keyManifest("newer", "appName: Frontend")), waitsForFormer)
		r.WaitForReady("newer", v1alpha1.ReasonAppNameConflict)
		r.Deactivate("former")
		r.WaitForReady("newer", v1alpha1.ReasonIssued)
	})
}

func TestReplacement_AKeyWaitsUntilTheHolderOfItsTokenHashIsDeleted(t *testing.T) {
	testReplacement(t, func(r *replacement) {
		hash := "tokenHash: " + token.Hash("imported")
		r.issueFormer([]string{"appName: Backend", hash})
		output := r.apply(keyManifest("newer", "appName: Frontend", hash))
		r.expectWarning(output, `Warning: APIKey "former" already has this token hash: delete that key, or import another token. `+
			`Until then, this key is not accepted.`)
		r.WaitForReady("newer", v1alpha1.ReasonTokenHashConflict)
		r.Deactivate("former") // its token must stay refused
		r.WaitForReady("former", v1alpha1.ReasonDeactivated)
		r.WaitForReady("newer", v1alpha1.ReasonTokenHashConflict)
		framework.Must(r, r.Env.Client.Delete(r.Context(), r.GetKey("former")))
		r.WaitForReady("newer", v1alpha1.ReasonIssued)
	})
}
