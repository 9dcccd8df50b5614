// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package admission serves the admission webhook of APIKeys. It rejects at creation what the controller would reject later: an app name or
// a token hash that is in use. It also warns of valid but risky declarations. The controller enforces the same rules without it.
package admission

import (
	"context"
	"strings"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// Warnings about valid but risky declarations.
const (
	warningImportedHash = "spec.tokenHash is safe only for a token of at least 128 random bits: a guessable token can be found from its hash"
	warningExpired      = "spec.expiresAt is in the past: the key has expired, and an expired key cannot become valid again"
)

// APIKeyValidator rejects APIKeys that conflict with others, and warns of risky declarations.
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

// ValidateCreate rejects a key whose app name or token hash is in use.
func (v *APIKeyValidator) ValidateCreate(ctx context.Context, key *v1alpha1.APIKey) (admission.Warnings, error) {
	warnings := v.warnings(key)
	if apikey.IsRetired(key) {
		return warnings, nil // it holds neither
	}
	others, err := apikey.ListConflicting(ctx, v.Keys, key)
	if err != nil {
		log.FromContext(ctx).Error(err, "Admitted an APIKey without the check for conflicts, which the controller will do")
		return warnings, nil
	}
	if conflict := apikey.FindConflict(key, others); conflict != nil {
		return warnings, conflict
	}
	return warnings, nil
}

// ValidateUpdate rejects no update, because app names and token hashes are immutable.
func (v *APIKeyValidator) ValidateUpdate(_ context.Context, before, key *v1alpha1.APIKey) (admission.Warnings, error) {
	if before.Spec.ExpiresAt.Equal(key.Spec.ExpiresAt) {
		return nil, nil
	}
	return v.expiryWarning(key), nil
}

// ValidateDelete rejects no deletion.
func (v *APIKeyValidator) ValidateDelete(context.Context, *v1alpha1.APIKey) (admission.Warnings, error) {
	return nil, nil
}

func (v *APIKeyValidator) warnings(key *v1alpha1.APIKey) admission.Warnings {
	warnings := v.expiryWarning(key)
	// The hint of a minted token shows that it is random: a key that a client minted, or that another cluster exported, gets no warning.
	if key.Spec.TokenHash != "" && !strings.HasPrefix(key.Spec.TokenHint, token.Prefix) {
		warnings = append(warnings, warningImportedHash)
	}
	return warnings
}

func (v *APIKeyValidator) expiryWarning(key *v1alpha1.APIKey) admission.Warnings {
	if apikey.StateOf(key, v.Now()) == apikey.StateExpired {
		return admission.Warnings{warningExpired}
	}
	return nil
}
