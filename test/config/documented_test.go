// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testcache"
)

const gatewayAPI = "sigs.k8s.io/gateway-api@v1.4.1" // for its CustomResourceDefinitions

// The kustomizations and manifests on these pages are accepted as they are.
func TestTheDocumentedManifests_AreAccepted(t *testing.T) {
	env := installed(t)
	framework.Must(t, testcache.DependOn("docs/management", "docs/operations"))
	env.InstallCRDs(t, gatewayAPI, "config/crd/standard")
	shop := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	framework.Must(t, client.IgnoreAlreadyExists(env.Client.Create(t.Context(), shop)))
	for page, want := range map[string]int{"management/README.md": 3, "operations/install.md": 1} {
		blocks := yamlBlocks(t, page)
		if len(blocks) != want {
			t.Errorf("%s: got %d blocks of YAML, want %d", page, len(blocks), want)
		}
		for _, block := range blocks {
			source := "--kustomize=" + writeKustomization(t, strings.ReplaceAll(block, "config/", "CONFIG/"))
			if strings.HasPrefix(block, "# ") { // # ingress.yaml
				file := filepath.Join(t.TempDir(), "manifests.yaml")
				framework.Must(t, os.WriteFile(file, []byte(block), 0o600))
				source = "--filename=" + file
			}
			if output, err := env.Kubectl(t, "apply", "--server-side", "--dry-run=server", source); err != nil {
				t.Errorf("%s: %v\n%s\n%s", page, err, output, block)
			}
		}
	}
}

// yamlBlocks returns the code blocks of a page that are marked as YAML.
func yamlBlocks(t *testing.T, page string) (blocks []string) {
	t.Helper()
	content, err := os.ReadFile("../../docs/" + page)
	framework.Must(t, err)
	for _, match := range regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$").FindAllStringSubmatch(string(content), -1) {
		blocks = append(blocks, match[1])
	}
	return blocks
}
