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
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// timeout bounds the wait for the control plane to register the CustomResourceDefinition.
const timeout = 30 * time.Second

func TestChart_PassesHelmLint(t *testing.T) {
	t.Parallel()
	for _, values := range []string{"", allOptions} {
		if _, err := binaries.Helm(t, "lint", "--strict", chart, with(t, values)); err != nil {
			t.Error(err)
		}
	}
}

func TestChart_IsAppliedWithoutWarnings(t *testing.T) {
	t.Parallel()
	env := testenv.Shared(t)
	namespace := env.Namespace(t)
	for _, values := range []string{"", allOptions} {
		env.Apply(t, render(t, namespace, values), "--dry-run=server", "--filename=-")
	}
}

func TestUninstall_KeepsTheKeys(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	env := testenv.Start(t)
	_, err := env.Kubectl(t, "delete", "customresourcedefinition", "--all") // the release installs it
	framework.Must(t, err)
	runRelease := func(command, values string, args ...string) string {
		t.Helper()
		flags := []string{"--namespace=keys", "--kubeconfig=" + env.Kubeconfig(t, env.Config)}
		if command != "uninstall" {
			args = append([]string{chart, with(t, values)}, args...)
		}
		output, err := binaries.Helm(t, slices.Concat([]string{command, release}, args, flags)...)
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

	g.Expect(runRelease("install", "", "--create-namespace")).To(
		ContainSubstring("Gateways check keys at https://apikey-authenticator.keys.svc. They verify its certificate with the ConfigMap apikey-operator-ca:"))
	all := installed()
	g.Expect(all).To(ContainElements(definition, "deployment.apps/apikey-controller"))
	g.Eventually(func() error { return env.Client.Create(t.Context(), key) }).WithTimeout(timeout).Should(Succeed())
	runRelease("upgrade", "logLevel: debug")
	runRelease("uninstall", "")
	g.Expect(installed()).To(Equal([]string{definition}))

	runRelease("install", "")
	g.Expect(installed()).To(Equal(all))
	g.Expect(env.Client.Get(t.Context(), client.ObjectKeyFromObject(key), key)).To(Succeed())
}

// manifests returns a file with the objects that the chart installs in the namespace keys.
func manifests(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "manifests.yaml")
	framework.Must(t, os.WriteFile(file, []byte(render(t, "keys")), 0o600))
	return file
}
