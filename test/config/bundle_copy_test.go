// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testcache"
)

// The commands are for a CronJob. If they cannot read the bundle, the copy must remain for the gateway.
func TestTheDocumentedCommands_CopyTheCABundleOrKeepTheCopy(t *testing.T) {
	g := NewWithT(t)
	env := installed(t)
	framework.Must(t, testcache.DependOn("docs/gateways"))
	page, err := os.ReadFile("../../docs/gateways/README.md")
	framework.Must(t, err)
	_, commands, found := strings.Cut(string(page), "```sh\n")
	commands, _, closed := strings.Cut(commands, "```")
	g.Expect(found && closed).To(BeTrue(), "docs/gateways/README.md has a code block of commands")
	namespace := env.Namespace(t)
	commands = strings.ReplaceAll(commands, "--namespace=shop", "--namespace="+namespace)

	assets, err := controlplane.FindAssets()
	framework.Must(t, err)
	assets, err = filepath.Abs(assets)
	framework.Must(t, err)
	dir, kubeconfig := t.TempDir(), env.Kubeconfig(t, env.Config)
	run := func() error {
		command := exec.CommandContext(t.Context(), "sh", "-c", commands)
		command.Dir = dir
		command.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "PATH="+assets+":"+os.Getenv("PATH"))
		output, err := command.CombinedOutput()
		t.Logf("%s", output)
		return err
	}
	copied := func() string {
		var configMap corev1.ConfigMap
		framework.Must(t, env.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "apikey-authenticator-ca"}, &configMap))
		return configMap.Data["ca.crt"]
	}

	bundle := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: "apikey-operator-ca"},
		Data:       map[string]string{"ca.crt": "the first\n"},
	}
	create(t, env.Client, bundle)
	g.Expect(run()).To(Succeed())
	g.Expect(copied()).To(Equal("the first\n"))

	bundle.Data["ca.crt"] = "the first\nthe second\n"
	framework.Must(t, env.Client.Update(t.Context(), bundle))
	g.Expect(run()).To(Succeed())
	g.Expect(copied()).To(Equal("the first\nthe second\n"))

	framework.Must(t, env.Client.Delete(t.Context(), bundle))
	g.Expect(run()).NotTo(Succeed(), "the bundle does not exist")
	g.Expect(copied()).To(Equal("the first\nthe second\n"))
}
