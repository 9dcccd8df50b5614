// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build chart

package chart_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// soon bounds what the control plane does by itself, a little later.
const soon = 30 * time.Second

func TestHelmFindsNoFault(t *testing.T) {
	t.Parallel()
	for _, values := range []string{"", allOptions} {
		if _, err := runHelm(t, "lint", "--strict", chart, with(t, values)); err != nil {
			t.Error(err)
		}
	}
}

func TestTheAPIServerAcceptsItWithoutAWarning(t *testing.T) {
	t.Parallel()
	env := testenv.Shared(t)
	namespace := env.Namespace(t)
	for _, values := range []string{"", allOptions} {
		output, err := env.ControlPlane.Kubectl(t.Context(), render(t, namespace, values),
			"apply", "--server-side", "--dry-run=server", "--filename=-")
		framework.Must(t, err)
		for line := range strings.SplitSeq(strings.TrimSpace(output), "\n") {
			if !strings.HasSuffix(line, " serverside-applied (server dry run)") {
				t.Errorf("kubectl apply says: %s", line)
			}
		}
	}
}

func TestUninstallingTheReleaseKeepsTheKeys(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	env := testenv.Start(t)
	_, err := env.Kubectl(t, "delete", "customresourcedefinition", "--all") // the release brings it
	framework.Must(t, err)
	release := func(what, values string, args ...string) string {
		t.Helper()
		where := []string{"--namespace=keys", "--kubeconfig=" + env.Kubeconfig(t, env.Config)}
		if what != "uninstall" {
			args = append([]string{chart, with(t, values)}, args...)
		}
		output, err := runHelm(t, slices.Concat([]string{what, release}, args, where)...)
		framework.Must(t, err)
		return output
	}
	installed := func() []string {
		t.Helper()
		names, err := env.Kubectl(t, "get", "--filename", manifests(t), "--ignore-not-found", "--output=name")
		framework.Must(t, err)
		return strings.Fields(names)
	}
	definition := "customresourcedefinition.apiextensions.k8s.io/apikeys.keys.squirrel.dev"
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "frontend"},
		Spec:       v1alpha1.APIKeySpec{AppName: "Frontend App", ReadAccess: true},
	}

	g.Expect(release("install", "", "--create-namespace")).To(
		ContainSubstring("Gateways ask https://apikey-authenticator.keys.svc. They verify it with the ConfigMap apikey-operator-ca:"))
	all := installed()
	g.Expect(all).To(ContainElements(definition, "deployment.apps/apikey-controller"))
	g.Eventually(func() error { return env.Client.Create(t.Context(), key) }).WithTimeout(soon).Should(Succeed())
	release("upgrade", "logLevel: debug")
	release("uninstall", "")
	g.Expect(installed()).To(Equal([]string{definition}))

	release("install", "")
	g.Expect(installed()).To(Equal(all))
	g.Expect(env.Client.Get(t.Context(), client.ObjectKeyFromObject(key), key)).To(Succeed())
}

// manifests returns a file of what the chart installs into the namespace keys.
func manifests(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "manifests.yaml")
	framework.Must(t, os.WriteFile(file, []byte(render(t, "keys")), 0o600))
	return file
}
