// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package keyclient

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// toolDomains are the domains of the marks of deployment tools: the labels and annotations that identify the objects of a tool.
var toolDomains = []string{
	"argocd.argoproj.io",
	"fluxcd.io", "fluxcd.controlplane.io", // Flux and its operator
	"helm.sh",
	"kubectl.kubernetes.io", "applyset.kubernetes.io", // kubectl apply, with and without --prune
	"config.k8s.io", "config.kubernetes.io", // kustomize and kpt
	"kapp.k14s.io",
	"configsync.gke.io", "configmanagement.gke.io",
	"objectset.rio.cattle.io", "fleet.cattle.io", // Rancher Fleet
	"addonmanager.kubernetes.io",
	"generate.kyverno.io",
}

// toolLabels are the recommended labels of Kubernetes that are such marks too. Argo CD may use the second one.
var toolLabels = []string{"app.kubernetes.io/managed-by", "app.kubernetes.io/instance"}

// ManagedBy returns the deployment tool that manages an object: "Flux", "Argo CD", "Helm", or "" if it has the mark of none of them.
func ManagedBy(object metav1.Object) string {
	hasLabel, hasAnnotation := labels.Set(object.GetLabels()).Has, labels.Set(object.GetAnnotations()).Has
	switch {
	// Flux is first, because the releases that it installs have Helm's annotations too.
	case hasLabel("kustomize.toolkit.fluxcd.io/name"), hasLabel("helm.toolkit.fluxcd.io/name"),
		hasLabel("resourceset.fluxcd.controlplane.io/name"):
		return "Flux"
	case hasAnnotation("argocd.argoproj.io/tracking-id"), hasLabel("argocd.argoproj.io/instance"), isWrittenByArgoCD(object):
		return "Argo CD"
	case hasAnnotation("meta.helm.sh/release-name"):
		return "Helm"
	default:
		return ""
	}
}

// HashDeclaredBy returns what sets the spec.tokenHash of a key back after a user has changed it: the tool of ManagedBy, "kubectl apply", or
// another field manager that applies it. It returns "" if nothing does, or if the controller mints the token.
func HashDeclaredBy(key *v1alpha1.APIKey) string {
	if key.Spec.TokenHash == "" {
		return ""
	}
	return fieldDeclaredBy(key, "f:tokenHash")
}

// DeclaredBy returns what may create a key again after it was deleted: the tool of ManagedBy, "kubectl apply", or another field manager
// that applies it. For other deployment tools, it names the label or annotation that is their mark. It returns "" if nothing does.
func DeclaredBy(key *v1alpha1.APIKey) string {
	if tool := fieldDeclaredBy(key, "f:appName"); tool != "" { // a required field
		return tool
	}
	for _, names := range []map[string]string{key.Labels, key.Annotations} {
		for _, name := range slices.Sorted(maps.Keys(names)) {
			if isOfTool(name) {
				return "the tool of " + name
			}
		}
	}
	return ""
}

const kubectlApply = "kubectl apply"

// fieldDeclaredBy returns what declares a field of the spec, which is named as in metav1.FieldsV1.
func fieldDeclaredBy(key *v1alpha1.APIKey, field string) string {
	if tool := ManagedBy(key); tool != "" {
		return tool
	}
	if _, applied := key.Annotations[corev1.LastAppliedConfigAnnotation]; applied {
		return kubectlApply
	}
	for _, entry := range key.ManagedFields {
		switch {
		case entry.Operation != metav1.ManagedFieldsOperationApply || !ownsField(entry, field):
		case entry.Manager == "kubectl": // apply --server-side
			return kubectlApply
		default:
			return entry.Manager
		}
	}
	return ""
}

func ownsField(entry metav1.ManagedFieldsEntry, field string) bool {
	var owned struct {
		Spec map[string]any `json:"f:spec"`
	}
	if entry.FieldsV1 == nil || json.Unmarshal(entry.FieldsV1.GetRawBytes(), &owned) != nil {
		return false
	}
	_, owns := owned.Spec[field]
	return owns
}

// isWrittenByArgoCD reports whether Argo CD has written fields of the object. It may be configured to set only the label
// app.kubernetes.io/instance, which other tools set too.
func isWrittenByArgoCD(object metav1.Object) bool {
	return slices.ContainsFunc(object.GetManagedFields(), func(entry metav1.ManagedFieldsEntry) bool {
		return strings.HasPrefix(entry.Manager, "argocd-")
	})
}

// DeclaredMetadata returns the labels and annotations that a user has declared for a key. It leaves out the marks of deployment tools,
// because a tool would prune a copy of the key, and the annotations that record the creation of the key.
func DeclaredMetadata(key *v1alpha1.APIKey) (declaredLabels, declaredAnnotations map[string]string) {
	declaredLabels, declaredAnnotations = maps.Clone(key.Labels), maps.Clone(key.Annotations)
	maps.DeleteFunc(declaredLabels, func(name, _ string) bool { return isOfTool(name) || slices.Contains(toolLabels, name) })
	maps.DeleteFunc(declaredAnnotations, func(name, _ string) bool { return isOfTool(name) || isIn(name, v1alpha1.GroupVersion.Group) })
	return declaredLabels, declaredAnnotations
}

func isOfTool(name string) bool {
	return slices.ContainsFunc(toolDomains, func(domain string) bool { return isIn(name, domain) })
}

// isIn reports whether a label or an annotation belongs to a domain or to one of its subdomains.
func isIn(name, domain string) bool {
	prefix, _, _ := strings.Cut(name, "/")
	return prefix == domain || strings.HasSuffix(prefix, "."+domain)
}
