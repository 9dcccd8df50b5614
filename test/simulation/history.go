// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

func describeName(object metav1.Object) string {
	return object.GetNamespace() + "/" + object.GetName()
}

// describeSpec describes what a client declares.
func (k *knowledge) describeSpec(key *v1alpha1.APIKey) string {
	text := fmt.Sprintf("%s (app name %+q", describeName(key), key.Spec.AppName)
	if key.Spec.TokenHash != "" {
		text += ", imports " + k.labelOf(key.Spec.TokenHash)
	}
	if key.Spec.Active != nil && !*key.Spec.Active {
		text += ", inactive"
	}
	if key.Spec.ExpiresAt != nil {
		text += ", expires at " + key.Spec.ExpiresAt.UTC().Format("15:04:05")
	}
	if key.Spec.Secret != nil {
		text += fmt.Sprintf(", Secret %s", nameOfSecret(key))
		if key.Spec.Secret.TTL != nil {
			text += " for " + key.Spec.Secret.TTL.Duration.String()
		}
	}
	if rotation := key.Spec.Rotation; rotation != nil {
		text += ", rotation"
		if rotation.Overlap != nil {
			text += " with overlap " + rotation.Overlap.Duration.String()
		}
		if rotation.Interval != nil {
			text += " each " + rotation.Interval.Duration.String()
		}
		if rotation.Request != nil {
			text += " at " + rotation.Request.At.UTC().Format("15:04:05.0")
			if rotation.Request.Overlap != nil {
				text += " with overlap " + rotation.Request.Overlap.Duration.String()
			}
		}
	}
	return text + ")"
}

// describeStatus describes the status of a key.
func (k *knowledge) describeStatus(key *v1alpha1.APIKey) string {
	parts := []string{}
	for _, record := range key.Status.Tokens {
		part := k.labelOf(record.Hash)
		switch {
		case record.NotBefore == nil:
			part = "claims " + part
		case record.ClaimedAt != nil && record.NotAfter == nil:
			part = "accepts and claims " + part
		case record.NotAfter != nil:
			part += " until " + record.NotAfter.UTC().Format("15:04:05")
		}
		parts = append(parts, part)
	}
	for _, condition := range key.Status.Conditions {
		if condition.Type != v1alpha1.ConditionActive {
			parts = append(parts, fmt.Sprintf("%s=%s %s", condition.Type, condition.Status, condition.Reason))
		}
	}
	if key.Status.SecretName != "" {
		parts = append(parts, "Secret "+key.Status.SecretName)
	}
	return describeName(key) + ": " + strings.Join(parts, ", ")
}

func (k *knowledge) describeChange(c *change) string {
	if c.kind == watch.Deleted {
		return "the deletion of " + describeName(c.key)
	}
	text := k.describeStatus(c.key)
	if isEnded(c.key) {
		text += ", declared inactive"
	}
	return text
}

func (k *knowledge) describeSecret(secret *corev1.Secret) string {
	text := "Secret " + describeName(secret)
	if known := k.tokenIn(secret); known != nil {
		text += " with " + known.label
	} else {
		text += " of another party"
	}
	return text
}
