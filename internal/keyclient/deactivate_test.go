// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package keyclient_test

import (
	"errors"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/test/framework"
)

func TestDeactivate_OneOfConcurrentCallsSucceeds(t *testing.T) {
	f := newFixtureWithController(t)
	key := f.create("Frontend App").Key
	var deactivating sync.WaitGroup
	results := make([]error, 10)
	for i := range results {
		deactivating.Go(func() {
			_, results[i] = keyclient.Deactivate(t.Context(), f.Env.Client, f.Namespace, key.Name, key.UID)
		})
	}
	deactivating.Wait()
	succeeded := 0
	for _, err := range results {
		switch {
		case err == nil:
			succeeded++
		case !errors.Is(err, keyclient.ErrAlreadyInactive) || err.Error() != `deactivate APIKey "`+key.Name+`": the key is already inactive`:
			t.Errorf("the error is %v", err)
		}
	}
	if succeeded != 1 {
		t.Errorf("%d succeeded", succeeded)
	}
	if keys := f.Keys(); len(keys) != 1 || *keys[0].Spec.Active {
		t.Errorf("the keys are %v", keys)
	}
}

func TestDeactivate_ADeletedKeyIsNotFound(t *testing.T) {
	f := newFixtureWithController(t)
	key := f.create("Frontend App").Key
	for name, uid := range map[string]types.UID{"another of this name": "00000000-0000-0000-0000-000000000000", "none of this name": key.UID} {
		if name == "none of this name" {
			framework.Must(f, f.Env.Client.Delete(t.Context(), key))
		}
		_, err := keyclient.Deactivate(t.Context(), f.Env.Client, f.Namespace, key.Name, uid)
		if !errors.Is(err, keyclient.ErrNotFound) {
			t.Errorf("%s: the error is %v", name, err)
		}
	}
}
