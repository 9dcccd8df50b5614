// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"math"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
)

// use reports that the token of a record of the key was used at a time.
func (f *fixture) use(key *v1alpha1.APIKey, record int, at time.Time) {
	f.Helper()
	name := client.ObjectKeyFromObject(key)
	framework.Eventually(f, "the cache has the state of "+key.Name, func() bool {
		cached := &v1alpha1.APIKey{}
		err := f.reconciler.Get(f.Context(), name, cached)
		return apierrors.IsNotFound(err) || cached.ResourceVersion == f.GetKey(key.Name).ResourceVersion
	})
	framework.Must(f, f.reconciler.NoteUse(f.Context(), name, key.Status.Tokens[record].Hash, at))
}

// waitForLastUse waits until the record of a token has this last use, and returns the key.
func (f *fixture) waitForLastUse(name string, record int, want time.Time) (key *v1alpha1.APIKey) {
	f.Helper()
	framework.Eventually(f, "the last use of "+name+" is recorded", func() bool {
		key = f.GetKey(name)
		got := key.Status.Tokens[record].LastUsedAt
		return got != nil && got.Time.Equal(want)
	})
	return key
}

// expectIgnored reports a use, and fails the test if the controller records it.
func (f *fixture) expectIgnored(name string, record int, at time.Time) {
	f.Helper()
	before := f.GetKey(name)
	f.use(before, record, at)
	now := f.clock.Now().Truncate(time.Second)
	marker := f.issue("marker-of-" + name)
	f.use(marker, 0, now)
	f.waitForLastUse(marker.Name, 0, now) // the controller has done what was enqueued before
	if after := f.GetKey(name); after.ResourceVersion != before.ResourceVersion {
		f.Errorf("the use at %s changes the status of %s from %v to %v", at, name, before.Status.Tokens, after.Status.Tokens)
	}
	framework.Must(f, f.Env.Client.Delete(f.Context(), marker))
}

func TestNoteUse_RecordsTheFirstUseAndThenOneADay(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	key, begin := f.issue("a"), f.clock.Now().Truncate(time.Second)
	f.use(key, 0, begin)
	recorded := f.waitForLastUse("a", 0, begin)
	if recorded.Status.ObservedGeneration != key.Status.ObservedGeneration || len(recorded.Status.Conditions) != len(key.Status.Conditions) {
		t.Errorf("the status changes from %v to %v", key.Status, recorded.Status)
	}
	f.expectIgnored("a", 0, begin.Add(24*time.Hour-time.Second))
	f.expectIgnored("a", 0, begin.Add(-48*time.Hour))
	f.use(key, 0, begin.Add(24*time.Hour))
	f.waitForLastUse("a", 0, begin.Add(24*time.Hour))
}

func TestNoteUse_RecordsBothTokensOfAnOverlapEachHour(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	key := f.issue("a", overlap(10*time.Hour))
	f.request("a")
	key = f.rotate(key)
	begin := f.clock.Now().Truncate(time.Second)
	for record := range 2 {
		f.use(key, record, begin)
	}
	f.waitForLastUse("a", 0, begin)
	f.waitForLastUse("a", 1, begin)
	f.expectIgnored("a", 1, begin.Add(time.Hour-time.Second))
	f.use(key, 1, begin.Add(time.Hour))
	recorded := f.waitForLastUse("a", 1, begin.Add(time.Hour))
	if newest := recorded.Status.Tokens[0].LastUsedAt; !newest.Time.Equal(begin) {
		t.Errorf("the last use of the newest token is %s, not %s", newest, begin)
	}
}

func TestNoteUse_IgnoresTokensThatNoKeyHas(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	key := f.issue("a")
	deleted, earlier := key.DeepCopy(), key.DeepCopy()
	deleted.Name = "deleted"
	earlier.Status.Tokens[0].Hash = token.Hash("of an earlier key of this name")
	f.use(deleted, 0, f.clock.Now())
	f.use(earlier, 0, f.clock.Now())
	f.expectIgnored("a", 0, time.Time{})
}

// A use may be of an earlier key with the same name and imported token. A faulty authenticator may report any age.
func TestNoteUse_IgnoresUsesFromBeforeTheTokenWasAccepted(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	key := f.issue("a")
	accepted := key.Status.Tokens[0].NotBefore.Time
	f.expectIgnored("a", 0, accepted.Add(-3*time.Minute))
	f.expectIgnored("a", 0, accepted.Add(-math.MaxInt64))
	rounded := accepted.Add(-time.Minute)
	f.use(key, 0, rounded)
	f.waitForLastUse("a", 0, rounded)
}

func TestNoteUse_TheEndOfAKeyKeepsItsLastUse(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	key, begin := f.issue("a"), f.clock.Now().Truncate(time.Second)
	f.use(key, 0, begin)
	f.waitForLastUse("a", 0, begin)
	f.Deactivate("a")
	ended := f.WaitForReady("a", v1alpha1.ReasonDeactivated)
	if got := ended.Status.Tokens[0].LastUsedAt; got == nil || !got.Time.Equal(begin) {
		t.Errorf("the last use of the ended key is %v, not %s", got, begin)
	}
}
