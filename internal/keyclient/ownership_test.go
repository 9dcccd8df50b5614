// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package keyclient_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

func TestManagedBy_NamesTheToolOfAnObject(t *testing.T) {
	for name, test := range map[string]struct {
		labels, annotations map[string]string
		fieldManager        string
		want                string
	}{
		"no marks":                  {},
		"kubectl":                   {fieldManager: "kubectl-client-side-apply"},
		"Kustomization of Flux":     {labels: map[string]string{"kustomize.toolkit.fluxcd.io/name": "apps"}, want: "Flux"},
		"ResourceSet of Flux":       {labels: map[string]string{"resourceset.fluxcd.controlplane.io/name": "apps"}, want: "Flux"},
		"pruning disabled in Flux":  {annotations: map[string]string{"kustomize.toolkit.fluxcd.io/prune": "disabled"}},
		"Argo CD by annotation":     {annotations: map[string]string{"argocd.argoproj.io/tracking-id": "apps:keys"}, want: "Argo CD"},
		"Argo CD by its label":      {labels: map[string]string{"argocd.argoproj.io/instance": "apps"}, want: "Argo CD"},
		"Argo CD by a shared label": {labels: map[string]string{"app.kubernetes.io/instance": "apps"}, fieldManager: "argocd-controller", want: "Argo CD"},
		"shared label":              {labels: map[string]string{"app.kubernetes.io/instance": "apps"}},
		"Helm":                      {annotations: map[string]string{"meta.helm.sh/release-name": "apps"}, want: "Helm"},
		"chart that kubectl applied": {
			labels: map[string]string{"app.kubernetes.io/managed-by": "Helm", "helm.sh/chart": "apps-1.0.0"},
		},
		"HelmRelease of Flux": {
			labels:      map[string]string{"helm.toolkit.fluxcd.io/name": "apps"},
			annotations: map[string]string{"meta.helm.sh/release-name": "apps"},
			want:        "Flux",
		},
	} {
		object := &metav1.ObjectMeta{
			Labels: test.labels, Annotations: test.annotations, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: test.fieldManager}},
		}
		if got := keyclient.ManagedBy(object); got != test.want {
			t.Errorf("%s: managed by %q", name, got)
		}
	}
}

func TestHashDeclaredBy_NamesWhatWouldSetTheHashBack(t *testing.T) {
	const ownsHash, ownsOther = `{"f:spec":{"f:tokenHash":{}}}`, `{"f:metadata":{"f:labels":{"f:tokenHash":{}}},"f:spec":{"f:active":{}}}`
	for name, test := range map[string]struct {
		metadata metav1.ObjectMeta
		want     string
	}{
		"created by the CLI":  {fieldsOf("apikey-cli", metav1.ManagedFieldsOperationUpdate, ownsHash), ""},
		"a tool with marks":   {metav1.ObjectMeta{Labels: map[string]string{"kustomize.toolkit.fluxcd.io/name": "apps"}}, "Flux"},
		"kubectl apply":       {metav1.ObjectMeta{Annotations: map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "{}"}}, "kubectl apply"},
		"server-side apply":   {fieldsOf("kubectl", metav1.ManagedFieldsOperationApply, ownsHash), "kubectl apply"},
		"another tool":        {fieldsOf("terraform", metav1.ManagedFieldsOperationApply, ownsHash), "terraform"},
		"another tool's spec": {fieldsOf("terraform", metav1.ManagedFieldsOperationApply, ownsOther), ""},
	} {
		if got := keyclient.HashDeclaredBy(&v1alpha1.APIKey{ObjectMeta: test.metadata, Spec: v1alpha1.APIKeySpec{TokenHash: "sha256:"}}); got != test.want {
			t.Errorf("%s: declared by %q, want %q", name, got, test.want)
		}
		if got := keyclient.HashDeclaredBy(&v1alpha1.APIKey{ObjectMeta: test.metadata}); got != "" {
			t.Errorf("%s: the hash of a minted token is declared by %q", name, got)
		}
	}
}

func TestDeclaredBy_NamesWhatWouldCreateTheKeyAgain(t *testing.T) {
	const ownsSpec, ownsOther = `{"f:spec":{"f:appName":{},"f:readAccess":{}}}`, `{"f:metadata":{"f:labels":{"f:team":{}}},"f:spec":{"f:active":{}}}`
	for name, test := range map[string]struct {
		metadata metav1.ObjectMeta
		want     string
	}{
		"created by the CLI":  {fieldsOf("apikey-cli", metav1.ManagedFieldsOperationUpdate, ownsSpec), ""},
		"a user's labels":     {metav1.ObjectMeta{Labels: map[string]string{"team": "blue", "app.kubernetes.io/managed-by": "team-blue"}}, ""},
		"a tool with marks":   {metav1.ObjectMeta{Annotations: map[string]string{"meta.helm.sh/release-name": "apps"}}, "Helm"},
		"kubectl apply":       {metav1.ObjectMeta{Annotations: map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "{}"}}, "kubectl apply"},
		"server-side apply":   {fieldsOf("kubectl", metav1.ManagedFieldsOperationApply, ownsSpec), "kubectl apply"},
		"another tool":        {fieldsOf("terraform", metav1.ManagedFieldsOperationApply, ownsSpec), "terraform"},
		"another tool's part": {fieldsOf("policies", metav1.ManagedFieldsOperationApply, ownsOther), ""},
		"the mark of a label": {metav1.ObjectMeta{Labels: map[string]string{"kapp.k14s.io/association": "x", "kapp.k14s.io/app": "1"}}, "the tool of kapp.k14s.io/app"},
		"the mark of an annotation": {
			metav1.ObjectMeta{Annotations: map[string]string{"configmanagement.gke.io/managed": "enabled"}}, "the tool of configmanagement.gke.io/managed",
		},
	} {
		for _, hash := range []string{"", "sha256:"} {
			if got := keyclient.DeclaredBy(&v1alpha1.APIKey{ObjectMeta: test.metadata, Spec: v1alpha1.APIKeySpec{TokenHash: hash}}); got != test.want {
				t.Errorf("%s: declared by %q, want %q", name, got, test.want)
			}
		}
	}
}

// fieldsOf returns the metadata of an object whose fields a manager owns.
func fieldsOf(manager string, operation metav1.ManagedFieldsOperationType, fields string) metav1.ObjectMeta {
	return metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{
		{Manager: manager, Operation: operation, FieldsV1: metav1.NewFieldsV1(fields)},
	}}
}

func TestDeclaredMetadata_LeavesOutTheMarksOfTools(t *testing.T) {
	key := &v1alpha1.APIKey{ObjectMeta: metav1.ObjectMeta{
		Labels: map[string]string{
			"team":                                  "blue",
			"app.kubernetes.io/part-of":             "shop",
			"keys.squirrel.dev/manager":             "true",
			"notfluxcd.io/name":                     "kept",
			"app.kubernetes.io/managed-by":          "Helm",
			"app.kubernetes.io/instance":            "shop",
			"argocd.argoproj.io/instance":           "shop",
			"kustomize.toolkit.fluxcd.io/name":      "shop",
			"kustomize.toolkit.fluxcd.io/namespace": "flux-system",
			"helm.toolkit.fluxcd.io/name":           "shop",
			"helm.sh/chart":                         "shop-1.0.0",
			"applyset.kubernetes.io/part-of":        "applyset-x-v1",
			"kapp.k14s.io/app":                      "1",
			"configsync.gke.io/declared-version":    "v1alpha1",
			"objectset.rio.cattle.io/hash":          "x",
			"addonmanager.kubernetes.io/mode":       "Reconcile",
			"generate.kyverno.io/policy-name":       "keys",
		},
		Annotations: map[string]string{
			"purpose": "test",
			"kubectl.kubernetes.io/last-applied-configuration": "{}",
			"argocd.argoproj.io/tracking-id":                   "shop:keys.squirrel.dev/APIKey:shop/x",
			"meta.helm.sh/release-name":                        "shop",
			"meta.helm.sh/release-namespace":                   "shop",
			"config.k8s.io/owning-inventory":                   "x",
			"config.kubernetes.io/origin":                      "path: x",
			"internal.config.kubernetes.io/index":              "0",
			"kapp.k14s.io/identity":                            "x",
			"configmanagement.gke.io/token":                    "x",
			"keys.squirrel.dev/created-at":                     "2026-11-27T17:00:00.000000001Z",
		},
	}}
	before := key.DeepCopy()
	labels, annotations := keyclient.DeclaredMetadata(key)
	want := map[string]string{
		"team": "blue", "app.kubernetes.io/part-of": "shop", "keys.squirrel.dev/manager": "true", "notfluxcd.io/name": "kept",
	}
	if diff := cmp.Diff(want, labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"purpose": "test"}, annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, key); diff != "" {
		t.Errorf("the key is changed:\n%s", diff)
	}
}
