// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

// manifest is an APIKey as its owner declares it, without a status.
type manifest struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        manifestMetadata    `json:"metadata"`
	Spec            v1alpha1.APIKeySpec `json:"spec"`
}

type manifestMetadata struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace"`
	Labels    map[string]string `json:"labels,omitempty"`
}

// manifestOf returns the YAML text of a manifest that declares a key like this one. Its token is another one, because the hash is left out.
// Like kubectl apikey export, it leaves out the marks of deployment tools, and the labels that let a key manage others. It leaves out
// "active: true", the default: in Git, it would demand that a deactivated key becomes active again. It leaves out a request for a rotation,
// which has an effect once.
func manifestOf(key *v1alpha1.APIKey) string {
	labels, _ := keyclient.DeclaredMetadata(key)
	delete(labels, v1alpha1.LabelManager)
	delete(labels, v1alpha1.LabelBootstrap)
	spec := key.Spec
	spec.TokenHash, spec.TokenHint = "", ""
	if ptr.Deref(spec.Active, true) {
		spec.Active = nil
	}
	spec.Rotation = withoutRequest(spec.Rotation)
	text, err := yaml.Marshal(manifest{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "APIKey"},
		Metadata: manifestMetadata{key.Name, key.Namespace, labels},
		Spec:     spec,
	})
	if err != nil {
		panic(err) // an APIKey can be encoded
	}
	return string(text)
}

// withoutRequest returns a rotation without its request, or nil if nothing else is declared.
func withoutRequest(declared *v1alpha1.Rotation) *v1alpha1.Rotation {
	rotation := ptr.Deref(declared, v1alpha1.Rotation{})
	rotation.Request = nil
	if rotation == (v1alpha1.Rotation{}) {
		return nil
	}
	return &rotation
}
