// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package admission serves the admission webhook of APIKeys. It warns, when a client writes a key, of what the controller would report
// later: an app name or a token hash that is in use. It also warns of risky declarations. It refuses no key: GitOps tools and Helm create
// the key that replaces another one before they delete the other one, and they ask with a dry run first.
package admission

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// Warnings.
const (
	// warningWaits follows the message of a conflict, and warningKeepsToken that of the conflict of a key that has a token already.
	warningWaits        = " Until then, this key is not accepted."
	warningKeepsToken   = " Until then, the former token stays accepted."
	warningSecretExists = "Secret %q exists, and changes of spec.secret.labels and spec.secret.annotations do not reach it: " +
		"change the Secret too"
	warningImportedHash = "spec.tokenHash is safe only for a token of at least 128 random bits: a guessable token can be found from its hash"
	warningNoOverlap    = "spec.rotation.overlap is 0s: each rotation refuses the clients that still use the former token"
	warningEndsAll      = "spec.rotation.request.overlap is 0s: the rotation refuses the clients that still use a former token"
	warningHandled      = "spec.rotation.request.at is not later than status.rotationHandled (%s) and has no effect: set a later time"
	warningOlder        = "spec.rotation.request.at is earlier than the issue of the token (%s) and has no effect: set a later time"
	warningExpired      = "spec.expiresAt is in the past: the key has expired, and an expired key cannot become valid again"
)

// APIKeyValidator warns of APIKeys that conflict with others, and of risky declarations.
type APIKeyValidator struct {
	// Keys is a cache of APIKeys with the index of apikey.Index.
	Keys client.Reader
	// Now is the clock.
	Now func() time.Time
}

// SetupWebhookWithManager registers the validator with the manager's webhook server. The manager's cache must have the index of
// apikey.Index.
func SetupWebhookWithManager(mgr manager.Manager) error {
	return ctrl.NewWebhookManagedBy(mgr, &v1alpha1.APIKey{}).
		WithValidator(&APIKeyValidator{Keys: mgr.GetClient(), Now: time.Now}).
		Complete()
}

// ValidateCreate warns of a key whose app name or token hash is in use, and of risky declarations.
func (v *APIKeyValidator) ValidateCreate(ctx context.Context, key *v1alpha1.APIKey) (admission.Warnings, error) {
	return append(v.conflictWarning(ctx, key), v.declarationWarnings(key)...), nil
}

// ValidateUpdate warns of an expiry that an update moves into the past, of changes that do not reach the Secret, and of what it changes
// about rotations. A replaced token hash gets the same warnings as that of a new key. App names are immutable.
func (v *APIKeyValidator) ValidateUpdate(ctx context.Context, before, key *v1alpha1.APIKey) (admission.Warnings, error) {
	warnings := append(secretWarning(before, key), rotationWarnings(before, key)...)
	if before.Spec.TokenHash != key.Spec.TokenHash {
		warnings = append(warnings, v.conflictWarning(ctx, key)...)
		warnings = append(warnings, importWarning(key)...)
	}
	if !before.Spec.ExpiresAt.Equal(key.Spec.ExpiresAt) {
		warnings = append(warnings, v.expiryWarning(key)...)
	}
	return warnings, nil
}

// rotationWarnings warns of a rotation that ends tokens at once, and of a request that has no effect, unless the key declared it before.
func rotationWarnings(before, key *v1alpha1.APIKey) admission.Warnings {
	former, current := ptr.Deref(before.Spec.Rotation, v1alpha1.Rotation{}), ptr.Deref(key.Spec.Rotation, v1alpha1.Rotation{})
	var warnings admission.Warnings
	if isZero(current.Overlap) && !isZero(former.Overlap) {
		warnings = append(warnings, warningNoOverlap)
	}
	request := current.Request
	if request == nil || equality.Semantic.DeepEqual(request, former.Request) {
		return warnings
	}
	if isZero(request.Overlap) {
		warnings = append(warnings, warningEndsAll)
	}
	at, handled, newest := request.At.Truncate(time.Second), key.Status.RotationHandled, apikey.NewestToken(key)
	switch {
	case handled != nil && !handled.Time.Before(at):
		warnings = append(warnings, fmt.Sprintf(warningHandled, handled.UTC().Format(time.RFC3339)))
	case handled == nil && newest != nil && at.Before(newest.NotBefore.Time):
		warnings = append(warnings, fmt.Sprintf(warningOlder, newest.NotBefore.UTC().Format(time.RFC3339)))
	}
	return warnings
}

func isZero(overlap *metav1.Duration) bool { return overlap != nil && overlap.Duration == 0 }

func secretWarning(before, key *v1alpha1.APIKey) admission.Warnings {
	former, current := before.Spec.Secret, key.Spec.Secret
	if former == nil || current == nil || key.Status.SecretName == "" ||
		(maps.Equal(former.Labels, current.Labels) && maps.Equal(former.Annotations, current.Annotations)) {
		return nil
	}
	return admission.Warnings{fmt.Sprintf(warningSecretExists, key.Status.SecretName)}
}

// ValidateDelete accepts every deletion.
func (v *APIKeyValidator) ValidateDelete(context.Context, *v1alpha1.APIKey) (admission.Warnings, error) {
	return nil, nil
}

// conflictWarning names the key that has the key's app name or token hash. It ignores a cached key of the same name: that key was deleted,
// or the API server refuses the creation.
func (v *APIKeyValidator) conflictWarning(ctx context.Context, key *v1alpha1.APIKey) admission.Warnings {
	if apikey.IsRetired(key) {
		return nil // it holds neither
	}
	others, err := apikey.ListConflicting(ctx, v.Keys, key)
	if err != nil {
		log.FromContext(ctx).Error(err, "Admitted an APIKey without the check for conflicts, which the controller will do")
		return nil
	}
	others = slices.DeleteFunc(others, func(other v1alpha1.APIKey) bool { return other.Name == key.Name })
	conflict := apikey.FindConflict(key, others)
	switch {
	case conflict == nil:
		return nil
	case apikey.IsIssued(key):
		return admission.Warnings{conflict.Message + warningKeepsToken}
	default:
		return admission.Warnings{conflict.Message + warningWaits}
	}
}

func (v *APIKeyValidator) declarationWarnings(key *v1alpha1.APIKey) admission.Warnings {
	warnings := append(v.expiryWarning(key), importWarning(key)...)
	return append(warnings, rotationWarnings(&v1alpha1.APIKey{}, key)...)
}

func importWarning(key *v1alpha1.APIKey) admission.Warnings {
	// The hint of a minted token shows that it is random: a key that a client minted, or that another cluster exported, gets no warning.
	if key.Spec.TokenHash == "" || strings.HasPrefix(key.Spec.TokenHint, token.Prefix) {
		return nil
	}
	return admission.Warnings{warningImportedHash}
}

func (v *APIKeyValidator) expiryWarning(key *v1alpha1.APIKey) admission.Warnings {
	if apikey.StateOf(key, v.Now()) == apikey.StateExpired {
		return admission.Warnings{warningExpired}
	}
	return nil
}
