// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package keyclient

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/text/unicode/norm"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// CheckAppName returns an [*apikey.Conflict] if a key of the namespace holds the app name. It spares a user the wait for a key that the
// controller would stall. It returns nil if the user may not list keys, or if the API server cannot select them by their app name: the
// controller then decides alone. The client must not read from a cache.
func CheckAppName(ctx context.Context, c client.Reader, namespace, appName string) error {
	keys, err := ListByAppName(ctx, c, namespace, appName)
	switch {
	case apierrors.IsForbidden(err), apierrors.IsBadRequest(err): // Kubernetes 1.30 has no field selectors for custom resources
		return nil
	case err != nil:
		return err
	}
	if holder := apikey.FirstForName(keys); holder != nil {
		return apikey.NewAppNameConflict(appName, holder)
	}
	return nil
}

// ListByAppName returns the keys of the namespace that have the app name and are not deactivated. The client must not read from a cache.
func ListByAppName(ctx context.Context, c client.Reader, namespace, appName string) ([]v1alpha1.APIKey, error) {
	// A field selector compares bytes, but app names are equal in any form of Unicode.
	forms := []string{appName, norm.NFC.String(appName), norm.NFD.String(appName)}
	slices.Sort(forms)
	var keys []v1alpha1.APIKey
	for _, form := range slices.Compact(forms) {
		var list v1alpha1.APIKeyList
		err := c.List(ctx, &list, client.InNamespace(namespace), client.MatchingFields{"spec.appName": form, "spec.active": "true"})
		if err != nil {
			return nil, fmt.Errorf("list the APIKeys with the app name %q: %w", appName, err)
		}
		keys = append(keys, list.Items...)
	}
	return keys, nil
}
