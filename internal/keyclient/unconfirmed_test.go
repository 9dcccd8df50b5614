// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package keyclient_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/test/framework"
)

func unconfirmed(o *keyclient.CreateOptions) { o.Unconfirmed = true }

func TestEndUnconfirmed_EndsAKeyThatIsNotConfirmedInTime(t *testing.T) {
	f := newFixtureWithController(t)
	key := f.create("Frontend App", unconfirmed).Key
	end := func(after time.Duration) bool {
		t.Helper()
		now := func() time.Time { return key.CreationTimestamp.Add(after) }
		ended, err := keyclient.EndUnconfirmed(t.Context(), f.Env.Client, f.Namespace, key.Name, key.UID, now)
		framework.Must(t, err)
		return ended
	}
	if end(keyclient.ConfirmTimeout) || f.GetKey(key.Name).Spec.Active == nil || !*f.GetKey(key.Name).Spec.Active {
		t.Error("the key is ended after a minute, want later")
	}
	if !end(keyclient.ConfirmTimeout+time.Second) || *f.GetKey(key.Name).Spec.Active {
		t.Error("the key is not ended")
	}
	if end(time.Hour) {
		t.Error("the key is ended twice")
	}
	_, err := keyclient.Confirm(t.Context(), f.Env.Client, key)
	if !errors.Is(err, keyclient.ErrAlreadyInactive) || err.Error() != `confirm APIKey "`+key.Name+`": the key is already inactive` {
		t.Errorf("the error of a late confirmation is %v", err)
	}
	framework.Must(t, f.Env.Client.Delete(t.Context(), key))
	if end(time.Hour) {
		t.Error("a deleted key is ended")
	}
}

func TestEndUnconfirmed_LeavesKeysWhoseTokenTheControllerMints(t *testing.T) {
	f := newFixtureWithController(t)
	minted := f.create("Frontend App", unconfirmed, func(o *keyclient.CreateOptions) { o.Secret = &v1alpha1.TokenSecret{} }).Key
	late := func() time.Time { return minted.CreationTimestamp.Add(time.Hour) }
	ended, err := keyclient.EndUnconfirmed(t.Context(), f.Env.Client, f.Namespace, minted.Name, minted.UID, late)
	framework.Must(t, err)
	if ended || !*f.GetKey(minted.Name).Spec.Active {
		t.Error("the key is ended")
	}
}

func TestEndUnconfirmed_OfAConfirmationAndAnEndAtTheSameTimeOneSucceeds(t *testing.T) {
	f := newFixtureWithController(t)
	for range 10 {
		key := f.create("Frontend App", unconfirmed).Key
		var running sync.WaitGroup
		var confirmErr error
		var ended bool
		running.Go(func() { _, confirmErr = keyclient.Confirm(t.Context(), f.Env.Client, key) })
		running.Go(func() {
			late := func() time.Time { return time.Now().Add(time.Hour) }
			var err error
			ended, err = keyclient.EndUnconfirmed(t.Context(), f.Env.Client, f.Namespace, key.Name, key.UID, late)
			framework.Must(t, err)
		})
		running.Wait()
		current := f.GetKey(key.Name)
		switch {
		case ended && (!errors.Is(confirmErr, keyclient.ErrAlreadyInactive) || *current.Spec.Active):
			t.Errorf("the key is ended; the error of the confirmation is %v, and the key is %v", confirmErr, current.Spec)
		case !ended && (confirmErr != nil || !*current.Spec.Active || keyclient.IsUnconfirmed(current)):
			t.Errorf("the key is not ended; the error of the confirmation is %v, and the key is %v", confirmErr, current)
		}
		framework.Must(t, f.Env.Client.Delete(t.Context(), key))
	}
}
