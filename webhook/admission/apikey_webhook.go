// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package admission tells users early what the controller would find out later: a name or a token hash that is in use, and
// declarations that are legal but unwise. It is a courtesy: the controller holds the same rules without it.
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

// Warnings of what is legal but unwise.
const (
	warningBroughtHash = "spec.tokenHash is safe only for a token of at least 128 random bits: a guessable token can be found from its hash"
	warningExpired     = "spec.expiresAt has passed: the key is not accepted, and that is final"
)

// APIKeyValidator refuses APIKeys that cannot be issued because of others, and warns of unwise ones.
type APIKeyValidator struct {
	// Keys is a cache of APIKeys that is indexed by apikey.Index.
	Keys client.Reader
	// Now is the clock.
	Now func() time.Time
}

// SetupWebhookWithManager serves the validator at the manager's webhook server. The manager's cache must be indexed by
// apikey.Index.
func SetupWebhookWithManager(mgr manager.Manager) error {
	return ctrl.NewWebhookManagedBy(mgr, &v1alpha1.APIKey{}).
		WithValidator(&APIKeyValidator{Keys: mgr.GetClient(), Now: time.Now}).
		Complete()
}

// ValidateCreate refuses a key whose app name or token hash is in use.
func (v *APIKeyValidator) ValidateCreate(ctx context.Context, key *v1alpha1.APIKey) (admission.Warnings, error) {
	warnings := v.warnings(key)
	if apikey.IsRetired(key) {
		return warnings, nil // it asks for nothing
	}
	others, err := apikey.ListConflicting(ctx, v.Keys, key)
	if err != nil {
		log.FromContext(ctx).Error(err, "admitted an APIKey without a look at the others: the controller will take that look")
		return warnings, nil
	}
	if conflict := apikey.FindConflict(key, others); conflict != nil {
		return warnings, conflict
	}
	return warnings, nil
}

// ValidateUpdate refuses nothing: what a key competes for is immutable.
func (v *APIKeyValidator) ValidateUpdate(_ context.Context, before, key *v1alpha1.APIKey) (admission.Warnings, error) {
	if before.Spec.ExpiresAt.Equal(key.Spec.ExpiresAt) {
		return nil, nil
	}
	return v.expiryWarning(key), nil
}

// ValidateDelete refuses nothing.
func (v *APIKeyValidator) ValidateDelete(context.Context, *v1alpha1.APIKey) (admission.Warnings, error) {
	return nil, nil
}

func (v *APIKeyValidator) warnings(key *v1alpha1.APIKey) admission.Warnings {
	warnings := v.expiryWarning(key)
	// The hint of a minted token vouches for it: a key that a client minted, or that was brought from another cluster, gives no warning.
	if key.Spec.TokenHash != "" && !strings.HasPrefix(key.Spec.TokenHint, token.Prefix) {
		warnings = append(warnings, warningBroughtHash)
	}
	return warnings
}

func (v *APIKeyValidator) expiryWarning(key *v1alpha1.APIKey) admission.Warnings {
	if apikey.StateOf(key, v.Now()) == apikey.StateExpired {
		return admission.Warnings{warningExpired}
	}
	return nil
}
