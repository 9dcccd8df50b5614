// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package apikey_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// at returns the time of these minutes after the start of 2027.
func at(minutes float64) metav1.Time {
	return metav1.NewTime(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(minutes * float64(time.Minute))))
}

func lasting(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }

// rotated returns a key that rotates as declared, with these tokens.
func rotated(declared v1alpha1.Rotation, tokens ...v1alpha1.TokenRecord) *v1alpha1.APIKey {
	return &v1alpha1.APIKey{Spec: v1alpha1.APIKeySpec{Rotation: &declared}, Status: v1alpha1.APIKeyStatus{Tokens: tokens}}
}

// The following functions change a record of recordOf.

func issuedAt(minutes float64) func(*v1alpha1.TokenRecord) {
	return func(r *v1alpha1.TokenRecord) { r.NotBefore = new(at(minutes)) }
}

func endsAt(minutes float64) func(*v1alpha1.TokenRecord) {
	return func(r *v1alpha1.TokenRecord) { r.NotAfter = new(at(minutes)) }
}

func claimedIn(minutes float64) func(*v1alpha1.TokenRecord) {
	return func(r *v1alpha1.TokenRecord) { r.ClaimedAt = new(at(minutes)) }
}

func withOverlap(d time.Duration) func(*v1alpha1.TokenRecord) {
	return func(r *v1alpha1.TokenRecord) { r.Overlap = lasting(d) }
}

func TestNextRotationAndIsRotationPending(t *testing.T) {
	requested := func(minutes float64) *v1alpha1.RotationRequest { return &v1alpha1.RotationRequest{At: at(minutes)} }
	newest := recordOf(hashA, issuedAt(0))
	for _, test := range []struct {
		rule    string
		key     *v1alpha1.APIKey
		handled *metav1.Time
		imports string
		now     float64
		next    *metav1.Time
		pending bool
		due     bool // whether a request is due
	}{
		{rule: "nothing declared", key: rotated(v1alpha1.Rotation{}, newest), now: 1e6},
		{rule: "an interval that has not passed", key: rotated(v1alpha1.Rotation{Interval: lasting(time.Hour)}, newest), now: 59.9, next: new(at(60))},
		{rule: "an interval that has passed", key: rotated(v1alpha1.Rotation{Interval: lasting(time.Hour)}, newest), now: 60, next: new(at(60)), pending: true},
		{rule: "an interval with a fraction of a second", key: rotated(v1alpha1.Rotation{Interval: lasting(time.Hour + time.Millisecond)}, newest),
			now: 60, next: new(at(60)), pending: true},
		{rule: "an interval, after a rotation", key: rotated(v1alpha1.Rotation{Interval: lasting(time.Hour)},
			recordOf(hashB, issuedAt(60)), recordOf(hashA, issuedAt(0), endsAt(90))), now: 100, next: new(at(120))},
		{rule: "an interval of a key without a token", key: rotated(v1alpha1.Rotation{Interval: lasting(time.Hour)}), now: 1e6},
		{rule: "a request in the future", key: rotated(v1alpha1.Rotation{Request: requested(10)}, newest), now: 9.9, next: new(at(10))},
		{rule: "a request that has come", key: rotated(v1alpha1.Rotation{Request: requested(10)}, newest), now: 10, next: new(at(10)), pending: true, due: true},
		{rule: "a request older than the token", key: rotated(v1alpha1.Rotation{Request: requested(-10)}, newest), now: 1},
		{rule: "a request of the same second as the token", key: rotated(v1alpha1.Rotation{Request: requested(0.01)}, newest), now: 1,
			next: new(at(0)), pending: true, due: true},
		{rule: "a request older than the token, and later than the one that was handled", key: rotated(v1alpha1.Rotation{Request: requested(-10)}, newest),
			handled: new(at(-20)), now: 1, next: new(at(-10)), pending: true, due: true},
		{rule: "a request with a fraction of a second", key: rotated(v1alpha1.Rotation{Request: requested(10.01)}, newest),
			now: 10, next: new(at(10)), pending: true, due: true},
		{rule: "a request that was handled", key: rotated(v1alpha1.Rotation{Request: requested(10)}, newest), handled: new(at(10)), now: 20},
		{rule: "a request of the second that was handled", key: rotated(v1alpha1.Rotation{Request: requested(10.01)}, newest), handled: new(at(10)), now: 20},
		{rule: "a request before the one that was handled", key: rotated(v1alpha1.Rotation{Request: requested(9)}, newest), handled: new(at(10)), now: 20},
		{rule: "a request after the one that was handled", key: rotated(v1alpha1.Rotation{Request: requested(11)}, newest), handled: new(at(10)), now: 20,
			next: new(at(11)), pending: true, due: true},
		{rule: "a request before the interval", key: rotated(v1alpha1.Rotation{Request: requested(30), Interval: lasting(time.Hour)}, newest), now: 1,
			next: new(at(30))},
		{rule: "an interval before the request", key: rotated(v1alpha1.Rotation{Request: requested(90), Interval: lasting(time.Hour)}, newest), now: 60,
			next: new(at(60)), pending: true},
		{rule: "a claim of a request that is gone", key: rotated(v1alpha1.Rotation{}, newest, recordOf(hashB, issuedAt(1), claimedIn(1))), now: 2, pending: true},
		{rule: "a claim without a token", key: rotated(v1alpha1.Rotation{Request: requested(1)}, recordOf(hashB, claimedIn(1))), now: 2, due: true},
		{rule: "the imported token", key: rotated(v1alpha1.Rotation{}, newest), imports: hashA, now: 2},
		{rule: "another imported token", key: rotated(v1alpha1.Rotation{}, newest), imports: hashB, now: 2, pending: true},
		{rule: "the former imported token", key: rotated(v1alpha1.Rotation{}, newest, recordOf(hashB, issuedAt(-60), endsAt(60))), imports: hashB, now: 2, pending: true},
		{rule: "the imported token, and a claim of another one", key: rotated(v1alpha1.Rotation{}, newest, recordOf(hashB)), imports: hashA, now: 2, pending: true},
		{rule: "an imported token that is not accepted yet", key: rotated(v1alpha1.Rotation{}), imports: hashA, now: 2},
	} {
		t.Run(test.rule, func(t *testing.T) {
			test.key.Status.RotationHandled, test.key.Spec.TokenHash = test.handled, test.imports
			if diff := cmp.Diff(test.next, apikey.NextRotation(test.key)); diff != "" {
				t.Errorf("NextRotation (-want +got):\n%s", diff)
			}
			if got := apikey.IsRotationPending(test.key, at(test.now).Time); got != test.pending {
				t.Errorf("IsRotationPending = %t, want %t", got, test.pending)
			}
			if got := apikey.DueRequest(test.key, at(test.now).Time); (got != nil) != test.due {
				t.Errorf("DueRequest = %v, want one: %t", got, test.due)
			}
			apikey.HandleRequest(test.key, at(test.now).Time)
			if got := apikey.DueRequest(test.key, at(test.now).Time); got != nil {
				t.Errorf("after HandleRequest, the request %v is due", got)
			}
			if handled := test.key.Status.RotationHandled; handled != nil && handled.Nanosecond() != 0 {
				t.Errorf("rotationHandled is %v, want whole seconds", handled)
			}
		})
	}
}

func TestChangesOfTokenRecords(t *testing.T) {
	type tokens = []v1alpha1.TokenRecord
	const hour, day = 60.0, 24 * 60.0
	overlap := func(d time.Duration) v1alpha1.Rotation { return v1alpha1.Rotation{Overlap: lasting(d)} }
	finish := func(key *v1alpha1.APIKey) { apikey.FinishClaim(key, at(100)) }
	claim := func(key *v1alpha1.APIKey) { apikey.Claim(key, recordOf(hashC, claimedIn(100), issuedAt(100)), at(100)) }
	hash1, hash2, hash3 := token.Hash("1"), token.Hash("2"), token.Hash("3")
	claimAtOnce := func(key *v1alpha1.APIKey) {
		apikey.Claim(key, recordOf(hashC, claimedIn(100), issuedAt(100), withOverlap(0)), at(100))
	}
	full := func(last v1alpha1.TokenRecord) *v1alpha1.APIKey {
		return rotated(v1alpha1.Rotation{}, recordOf(hashA, issuedAt(90)), recordOf(hash1, issuedAt(0), endsAt(201)),
			recordOf(hash2, issuedAt(0), endsAt(202)), recordOf(hash3, issuedAt(0), endsAt(203)), last)
	}
	restore := func(key *v1alpha1.APIKey) {
		if !apikey.RestoreToken(key, hashB, at(100)) {
			key.Status.Tokens = nil
		}
	}
	shorten := func(key *v1alpha1.APIKey) { apikey.ShortenOverlaps(key, at(100)) }
	drop := func(key *v1alpha1.APIKey) { apikey.DropEnded(key, at(100).Time) }

	for _, test := range []struct {
		rule   string
		key    *v1alpha1.APIKey
		change func(*v1alpha1.APIKey)
		want   tokens
	}{
		{"the first token", rotated(v1alpha1.Rotation{}, recordOf(hashA, claimedIn(99))), finish, tokens{recordOf(hashA, issuedAt(100))}},
		{"a rotation with the default overlap", rotated(v1alpha1.Rotation{}, recordOf(hashA, issuedAt(0)), recordOf(hashB, issuedAt(99), claimedIn(99))), finish,
			tokens{recordOf(hashB, issuedAt(100)), recordOf(hashA, issuedAt(0), endsAt(100+day))}},
		{"a rotation of a key without spec.rotation",
			&v1alpha1.APIKey{Status: v1alpha1.APIKeyStatus{Tokens: tokens{recordOf(hashA, issuedAt(0)), recordOf(hashB)}}}, finish,
			tokens{recordOf(hashB, issuedAt(100)), recordOf(hashA, issuedAt(0), endsAt(100+day))}},
		{"a rotation with an overlap", rotated(overlap(time.Hour), recordOf(hashA, issuedAt(0)), recordOf(hashB, issuedAt(99), claimedIn(99))), finish,
			tokens{recordOf(hashB, issuedAt(100)), recordOf(hashA, issuedAt(0), endsAt(100+hour))}},
		{"a rotation with an overlap of its request", rotated(overlap(time.Hour), recordOf(hashA, issuedAt(0)),
			recordOf(hashB, issuedAt(99), claimedIn(99), withOverlap(3*time.Hour))), finish,
			tokens{recordOf(hashB, issuedAt(100), withOverlap(3*time.Hour)), recordOf(hashA, issuedAt(0), endsAt(100+3*hour))}},
		{"a second rotation within the overlap", rotated(overlap(time.Hour),
			recordOf(hashB, issuedAt(90)), recordOf(hashA, issuedAt(0), endsAt(150)), recordOf(hashC, issuedAt(99), claimedIn(99))), finish,
			tokens{recordOf(hashC, issuedAt(100)), recordOf(hashB, issuedAt(90), endsAt(100+hour)), recordOf(hashA, issuedAt(0), endsAt(150))}},
		{"an overlap of 0 ends all former tokens", rotated(overlap(time.Hour),
			recordOf(hashB, issuedAt(90)), recordOf(hashA, issuedAt(0), endsAt(150)), recordOf(hashC, issuedAt(99), claimedIn(99), withOverlap(0))), finish,
			tokens{recordOf(hashC, issuedAt(100), withOverlap(0)), recordOf(hashB, issuedAt(90), endsAt(100)), recordOf(hashA, issuedAt(0), endsAt(100))}},
		{"an overlap of 0 does not extend what has ended", rotated(overlap(0),
			recordOf(hashB, issuedAt(90)), recordOf(hashA, issuedAt(0), endsAt(95)), recordOf(hashC, issuedAt(99), claimedIn(99))), finish,
			tokens{recordOf(hashC, issuedAt(100)), recordOf(hashB, issuedAt(90), endsAt(100)), recordOf(hashA, issuedAt(0), endsAt(95))}},

		{"a claim is last", rotated(v1alpha1.Rotation{}, recordOf(hashA, issuedAt(0)), recordOf(hashB, issuedAt(-10), endsAt(200))), claim,
			tokens{recordOf(hashA, issuedAt(0)), recordOf(hashB, issuedAt(-10), endsAt(200)), recordOf(hashC, claimedIn(100), issuedAt(100))}},
		{"a claim replaces one that is not accepted", rotated(v1alpha1.Rotation{}, recordOf(hashA, issuedAt(0)), recordOf(hashB, claimedIn(90))), claim,
			tokens{recordOf(hashA, issuedAt(0)), recordOf(hashC, claimedIn(100), issuedAt(100))}},
		{"a claim supersedes one that is accepted", rotated(overlap(2*time.Hour), recordOf(hashA, issuedAt(0)), recordOf(hashB, claimedIn(90), issuedAt(90))), claim,
			tokens{recordOf(hashA, issuedAt(0)), recordOf(hashB, claimedIn(90), issuedAt(100), endsAt(100+2*hour)), recordOf(hashC, claimedIn(100), issuedAt(100))}},
		{"a superseded claim stays accepted for an hour", rotated(overlap(2*time.Hour), recordOf(hashA, issuedAt(0)),
			recordOf(hashB, claimedIn(90), issuedAt(90), withOverlap(0))), claim,
			tokens{recordOf(hashA, issuedAt(0)), recordOf(hashB, claimedIn(90), issuedAt(100), endsAt(100+hour)),
				recordOf(hashC, claimedIn(100), issuedAt(100), withOverlap(0))}},
		{"a claim with an overlap of 0 drops the superseded token of a full list that ends first", full(recordOf(hashB, issuedAt(0), endsAt(200))), claimAtOnce,
			tokens{recordOf(hashA, issuedAt(90)), recordOf(hash1, issuedAt(0), endsAt(201)), recordOf(hash2, issuedAt(0), endsAt(202)),
				recordOf(hash3, issuedAt(0), endsAt(203)), recordOf(hashC, claimedIn(100), issuedAt(100), withOverlap(0))}},
		{"such a claim drops a superseded claim last", full(recordOf(hashB, claimedIn(0), issuedAt(0), endsAt(200))), claimAtOnce,
			tokens{recordOf(hashA, issuedAt(90)), recordOf(hash2, issuedAt(0), endsAt(202)), recordOf(hash3, issuedAt(0), endsAt(203)),
				recordOf(hashB, claimedIn(0), issuedAt(0), endsAt(200)), recordOf(hashC, claimedIn(100), issuedAt(100), withOverlap(0))}},
		{"such a claim supersedes an accepted claim of a full list", full(recordOf(hashB, claimedIn(0), issuedAt(0))), claimAtOnce,
			tokens{recordOf(hashA, issuedAt(90)), recordOf(hashB, claimedIn(0), issuedAt(100), endsAt(100+day)), recordOf(hash2, issuedAt(0), endsAt(202)),
				recordOf(hash3, issuedAt(0), endsAt(203)), recordOf(hashC, claimedIn(100), issuedAt(100), withOverlap(0))}},
		{"such a claim drops nothing of a list with room", rotated(v1alpha1.Rotation{}, recordOf(hashA, issuedAt(0)), recordOf(hashB, issuedAt(-10), endsAt(200))),
			claimAtOnce, tokens{recordOf(hashA, issuedAt(0)), recordOf(hashB, issuedAt(-10), endsAt(200)),
				recordOf(hashC, claimedIn(100), issuedAt(100), withOverlap(0))}},

		{"a former token", rotated(overlap(time.Hour), recordOf(hashA, issuedAt(0)), recordOf(hashB, issuedAt(-10), endsAt(120))), restore,
			tokens{recordOf(hashB, issuedAt(100)), recordOf(hashA, issuedAt(0), endsAt(100+hour))}},
		{"a former token drops a claim", rotated(overlap(time.Hour), recordOf(hashA, issuedAt(0)), recordOf(hashB, issuedAt(-10), endsAt(120)), recordOf(hashC)), restore,
			tokens{recordOf(hashB, issuedAt(100)), recordOf(hashA, issuedAt(0), endsAt(100+hour))}},
		{"no former token", rotated(overlap(time.Hour), recordOf(hashA, issuedAt(0)), recordOf(hashB)), restore, nil},

		{"the overlap is shortened", rotated(overlap(2*time.Hour), recordOf(hashB, issuedAt(90)), recordOf(hashA, issuedAt(0), endsAt(90+day))), shorten,
			tokens{recordOf(hashB, issuedAt(90)), recordOf(hashA, issuedAt(0), endsAt(90+2*hour))}},
		{"the overlap is extended", rotated(overlap(48*time.Hour), recordOf(hashB, issuedAt(90)), recordOf(hashA, issuedAt(0), endsAt(90+day))), shorten,
			tokens{recordOf(hashB, issuedAt(90)), recordOf(hashA, issuedAt(0), endsAt(90+day))}},
		{"the overlap is shortened to less than has passed", rotated(overlap(time.Minute), recordOf(hashB, issuedAt(90)), recordOf(hashA, issuedAt(0), endsAt(90+day))), shorten,
			tokens{recordOf(hashB, issuedAt(90)), recordOf(hashA, issuedAt(0), endsAt(100))}},
		{"what has ended does not end later", rotated(overlap(0), recordOf(hashB, issuedAt(90)), recordOf(hashA, issuedAt(0), endsAt(95))), shorten,
			tokens{recordOf(hashB, issuedAt(90)), recordOf(hashA, issuedAt(0), endsAt(95))}},
		{"each token counts from the next newer one", rotated(overlap(30*time.Minute),
			recordOf(hashC, issuedAt(95)), recordOf(hashB, issuedAt(90), endsAt(95+day)), recordOf(hashA, issuedAt(0), endsAt(90+day))), shorten,
			tokens{recordOf(hashC, issuedAt(95)), recordOf(hashB, issuedAt(90), endsAt(125)), recordOf(hashA, issuedAt(0), endsAt(120))}},
		{"the overlap of a request stays", rotated(overlap(30*time.Minute),
			recordOf(hashB, issuedAt(90), withOverlap(48*time.Hour)), recordOf(hashA, issuedAt(0), endsAt(90+2*day))), shorten,
			tokens{recordOf(hashB, issuedAt(90), withOverlap(48*time.Hour)), recordOf(hashA, issuedAt(0), endsAt(90+2*day))}},
		{"the overlap of a later request does not count, although the token between has ended", rotated(v1alpha1.Rotation{},
			recordOf(hashC, issuedAt(95), withOverlap(time.Minute)), recordOf(hashA, issuedAt(0), endsAt(90+day))), shorten,
			tokens{recordOf(hashC, issuedAt(95), withOverlap(time.Minute)), recordOf(hashA, issuedAt(0), endsAt(90+day))}},
		{"a superseded claim ends an hour after it was superseded", rotated(overlap(time.Minute), recordOf(hashC, issuedAt(95)),
			recordOf(hashB, claimedIn(80), issuedAt(90), endsAt(90+day)), recordOf(hashA, issuedAt(0), endsAt(95+day))), shorten,
			tokens{recordOf(hashC, issuedAt(95)), recordOf(hashB, claimedIn(80), issuedAt(90), endsAt(90+hour)), recordOf(hashA, issuedAt(0), endsAt(100))}},
		{"a claim is not superseded", rotated(overlap(0), recordOf(hashA, issuedAt(0)), recordOf(hashB, claimedIn(99), issuedAt(99))), shorten,
			tokens{recordOf(hashA, issuedAt(0)), recordOf(hashB, claimedIn(99), issuedAt(99))}},

		{"ended tokens", rotated(v1alpha1.Rotation{}, recordOf(hashC, issuedAt(50)), recordOf(hashB, issuedAt(0), endsAt(100.1)), recordOf(hashA, issuedAt(0), endsAt(100))), drop,
			tokens{recordOf(hashC, issuedAt(50)), recordOf(hashB, issuedAt(0), endsAt(100.1))}},
	} {
		t.Run(test.rule, func(t *testing.T) {
			test.change(test.key)
			if diff := cmp.Diff(test.want, test.key.Status.Tokens); diff != "" {
				t.Errorf("the tokens (-want +got):\n%s", diff)
			}
			again := test.key.DeepCopy()
			apikey.ShortenOverlaps(again, at(100))
			settled := again.DeepCopy()
			apikey.ShortenOverlaps(settled, at(101))
			if diff := cmp.Diff(again.Status.Tokens, settled.Status.Tokens); diff != "" {
				t.Errorf("without a change of the overlap, the tokens change (-before +after):\n%s", diff)
			}
		})
	}
}

func TestHasRoomForClaimAndNextEnd(t *testing.T) {
	superseded := func(end float64) v1alpha1.TokenRecord { return recordOf(hashB, issuedAt(0), endsAt(end)) }
	newest, claim, accepted := recordOf(hashA, issuedAt(0)), recordOf(hashC), recordOf(hashC, issuedAt(0), claimedIn(0))
	four := []v1alpha1.TokenRecord{newest, superseded(3), superseded(1), superseded(2)}
	with := func(last v1alpha1.TokenRecord) []v1alpha1.TokenRecord { return append(slices.Clone(four), last) }
	request := func(minutes float64, overlap *metav1.Duration) v1alpha1.Rotation {
		return v1alpha1.Rotation{Request: &v1alpha1.RotationRequest{At: at(minutes), Overlap: overlap}}
	}
	for _, test := range []struct {
		rule     string
		declared v1alpha1.Rotation
		tokens   []v1alpha1.TokenRecord
		room     bool
		end      *metav1.Time
	}{
		{"no token", v1alpha1.Rotation{}, nil, true, nil},
		{"four tokens", v1alpha1.Rotation{}, four, true, new(at(1))},
		{"four tokens and a claim", v1alpha1.Rotation{}, with(claim), true, new(at(1))},
		{"four tokens and an accepted claim", v1alpha1.Rotation{}, with(accepted), false, new(at(1))},
		{"five tokens", v1alpha1.Rotation{}, with(superseded(4)), false, new(at(1))},
		{"five tokens, and a due request with an overlap of 0", request(5, lasting(0)), with(superseded(4)), true, new(at(1))},
		{"five tokens, and a due request with an overlap", request(5, lasting(1)), with(superseded(4)), false, new(at(1))},
		{"five tokens, and a due request without an overlap", request(5, nil), with(superseded(4)), false, new(at(1))},
		{"five tokens, and a request with an overlap of 0 that is not due", request(6, lasting(0)), with(superseded(4)), false, new(at(1))},
		{"five tokens, and an overlap of 0", v1alpha1.Rotation{Overlap: lasting(0)}, with(superseded(4)), true, new(at(1))},
		{"four tokens and an accepted claim, and a due request with an overlap of 0", request(5, lasting(0)), with(accepted), true, new(at(1))},
		{"four tokens and the accepted claim of a request with an overlap of 0", v1alpha1.Rotation{},
			with(recordOf(hashC, issuedAt(0), claimedIn(0), withOverlap(0))), true, new(at(1))},
	} {
		key := rotated(test.declared, test.tokens...)
		if got := apikey.HasRoomForClaim(key, at(5).Time); got != test.room {
			t.Errorf("%s: HasRoomForClaim = %t, want %t", test.rule, got, test.room)
		}
		if diff := cmp.Diff(test.end, apikey.NextEnd(key)); diff != "" {
			t.Errorf("%s: NextEnd (-want +got):\n%s", test.rule, diff)
		}
	}
}
