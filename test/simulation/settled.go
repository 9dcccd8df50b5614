// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/controllers"
)

// unsettled returns why a key has not settled, or "". A settled key is issued, stalled for a reason that is true, or ended.
func (s *simulation) unsettled() string {
	s.checkAllDecisions()
	for _, key := range s.server.listKeys() {
		if problem := s.server.unsettledKey(key); problem != "" {
			return problem
		}
	}
	for _, a := range s.authenticators {
		for name, key := range s.server.keys {
			if a.seen[name] != key {
				return a.name + " has not seen the last change of a key"
			}
		}
	}
	return ""
}

// describeUnsettled describes all keys that have not settled.
func (s *simulation) describeUnsettled() string {
	var unsettled []string
	for _, key := range s.server.listKeys() {
		if s.server.unsettledKey(key) != "" {
			unsettled = append(unsettled, s.describeStatus(key))
		}
	}
	return strings.Join(unsettled, "; ")
}

func (s *server) unsettledKey(key *v1alpha1.APIKey) string {
	if key.Status.ObservedGeneration != key.Generation {
		return "the status has an old generation"
	}
	for _, condition := range key.Status.Conditions {
		if condition.ObservedGeneration != key.Generation {
			return "a condition has an old generation"
		}
	}
	switch {
	case isEnded(key) || isExpired(key, s.clock()):
		return s.unsettledEnd(key)
	case len(issuedRecords(key)) > 0:
		return s.unsettledIssue(key)
	default:
		return s.unsettledStall(key)
	}
}

func (s *server) unsettledEnd(key *v1alpha1.APIKey) string {
	reasons := []string{v1alpha1.ReasonExpired}
	if key.DeletionTimestamp != nil || !*key.Spec.Active {
		reasons = append(reasons, v1alpha1.ReasonDeactivated)
	}
	if key.Status.DeactivatedAt == nil {
		return "the end is not recorded"
	}
	if problem := checkFinalConditions(key, metav1.ConditionTrue, metav1.ConditionFalse, reasons...); problem != "" {
		return problem
	}
	if key.Status.SecretName != "" {
		return "the key has ended, and status.secretName is set"
	}
	if secret := s.secretOf(key); secret != nil && metav1.IsControlledBy(secret, key) {
		known := s.tokenIn(secret)
		if known != nil && !s.isLate(key, known) {
			return "the key has ended, and its Secret exists"
		}
	}
	return ""
}

// isLate reports whether a Secret with the token was stored while or after the end of the key was recorded, for example because its
// controller was paused. It stays until the key is deleted, and its token is refused.
func (s *server) isLate(key *v1alpha1.APIKey, known *knownToken) bool {
	record := recordOf(key, known.hash)
	return record == nil || record.NotBefore == nil || *known.handedOverAt >= s.ends[key.UID]-controllers.ReconcileTimeout
}

func (s *server) unsettledIssue(key *v1alpha1.APIKey) string {
	if problem := s.unsettledTokens(key); problem != "" {
		return problem
	}
	if key.Spec.TokenHash != "" {
		return s.unsettledImport(key)
	}
	if !isStalled(key) {
		reasons := []string{v1alpha1.ReasonIssued, v1alpha1.ReasonRotating}
		if problem := checkFinalConditions(key, metav1.ConditionTrue, metav1.ConditionTrue, reasons...); problem != "" {
			return problem
		}
	}
	return s.unsettledSecret(key)
}

// unsettledTokens checks that the newest token is the first one, that the others end later, and that no rotation is due.
func (s *server) unsettledTokens(key *v1alpha1.APIKey) string {
	isFull := len(key.Status.Tokens) == maxTokens && !s.endsFormerTokens(key)
	for i, record := range key.Status.Tokens {
		switch {
		case i == 0 && (record.NotBefore == nil || record.NotAfter != nil):
			return "the first token is not the newest one"
		case i > 0 && record.ClaimedAt != nil && (isStalled(key) || isFull): // a Secret is in the way, or a token must end first
		case i > 0 && (record.NotBefore == nil || record.NotAfter == nil):
			return "a claim remains, or a superseded token has no end"
		case i > 0 && !record.NotAfter.After(s.clock().Add(-time.Second)):
			return "a token that has ended is on record"
		}
	}
	isStuck := conditionOf(key, v1alpha1.ConditionStalled) != nil
	if s.isRotationDue(key, key) && key.Spec.TokenHash == "" && !s.isRotationDueWithin(key, clockTolerance) && !isFull && !isStuck {
		return "a rotation is due"
	}
	if isWorking := conditionOf(key, v1alpha1.ConditionReconciling) != nil; isWorking && !isFull {
		return "a rotation is under way"
	}
	return ""
}

// maxTokens is the maximum number of tokens on record.
const maxTokens = 5

// endsFormerTokens reports whether the rotation that is due, or not finished, has an overlap of 0. It does not wait for the end of a token.
func (s *server) endsFormerTokens(key *v1alpha1.APIKey) bool {
	rotation := rotationOf(key)
	overlaps := []*metav1.Duration{rotation.Overlap}
	if last := key.Status.Tokens[len(key.Status.Tokens)-1]; last.ClaimedAt != nil && last.NotAfter == nil && last.Overlap != nil {
		overlaps = append(overlaps, last.Overlap)
	}
	if s.isRequestDue(rotation.Request, key) && rotation.Request.Overlap != nil {
		overlaps = append(overlaps, rotation.Request.Overlap)
	}
	overlap := overlaps[len(overlaps)-1]
	return overlap != nil && overlap.Duration == 0
}

// isRotationDueWithin reports whether a rotation became due only just now, or will be soon.
func (s *server) isRotationDueWithin(key *v1alpha1.APIKey, period time.Duration) bool {
	next := key.Status.NextRotationAt
	return next != nil && next.After(s.clock().Add(-period))
}

func (s *server) unsettledImport(key *v1alpha1.APIKey) string {
	isDeclared := key.Status.Tokens[0].Hash == key.Spec.TokenHash
	ready := conditionOf(key, v1alpha1.ConditionReady)
	isTaken := s.anyOther(key, func(other *v1alpha1.APIKey) bool {
		return other.Spec.TokenHash == key.Spec.TokenHash || recordOf(other, key.Spec.TokenHash) != nil
	})
	switch {
	case isDeclared:
		return checkFinalConditions(key, metav1.ConditionTrue, metav1.ConditionTrue, v1alpha1.ReasonIssued)
	case isTaken && ready.Reason == v1alpha1.ReasonTokenHashConflict:
		return checkFinalConditions(key, metav1.ConditionFalse, metav1.ConditionTrue, v1alpha1.ReasonTokenHashConflict)
	case len(key.Status.Tokens) == maxTokens:
		return ""
	default:
		return "the declared token is not accepted"
	}
}

func (s *server) unsettledSecret(key *v1alpha1.APIKey) string {
	newest := key.Status.Tokens[0]
	secret := s.secretOf(key)
	isHeld := secret != nil && s.tokenIn(secret) != nil && s.tokenIn(secret).hash == newest.Hash
	isDue := key.Spec.Secret != nil && key.Spec.Secret.TTL != nil &&
		s.clock().After(newest.NotBefore.Add(key.Spec.Secret.TTL.Duration))
	switch {
	case isStalled(key), key.Status.Tokens[len(key.Status.Tokens)-1].ClaimedAt != nil: // the ttl is checked when the rotation has finished
	case isDue && key.Status.SecretName != "":
		return "the ttl of the Secret has passed, and status.secretName is set"
	case isDue && isHeld && metav1.IsControlledBy(secret, key):
		return "the ttl of the Secret has passed, and the Secret exists"
	case !isDue && isHeld && key.Status.SecretName == "":
		return "the Secret exists, and status.secretName is empty"
	}
	return ""
}

// unsettledStall checks that a key which is not issued is stalled for a reason that is true.
func (s *server) unsettledStall(key *v1alpha1.APIKey) string {
	ready := conditionOf(key, v1alpha1.ConditionReady)
	if problem := checkFinalConditions(key, metav1.ConditionFalse, metav1.ConditionFalse, ready.Reason); problem != "" {
		return problem
	}
	if len(key.Status.Tokens) != 0 || key.Status.SecretName != "" {
		return "a stalled key has a claim"
	}
	isNamed := func(other *v1alpha1.APIKey) bool {
		return strings.Contains(ready.Message, fmt.Sprintf("APIKey %q", other.Name))
	}
	isTrue := false
	switch ready.Reason {
	case v1alpha1.ReasonAppNameConflict:
		isTrue = s.anyOther(key, func(other *v1alpha1.APIKey) bool {
			return sameAppName(key, other) && len(issuedRecords(other)) > 0 && !isEnded(other) && isNamed(other)
		})
	case v1alpha1.ReasonTokenHashConflict:
		isTrue = s.anyOther(key, func(other *v1alpha1.APIKey) bool {
			return (other.Spec.TokenHash == key.Spec.TokenHash || recordOf(other, key.Spec.TokenHash) != nil) && isNamed(other)
		})
	case v1alpha1.ReasonSecretConflict:
		isTrue = s.secretOf(key) != nil
	case v1alpha1.ReasonSecretRefused:
		isTrue = s.refusals[key.Namespace] != nil
	}
	if !isTrue {
		return "the reason is not true"
	}
	return ""
}

func (s *server) anyOther(key *v1alpha1.APIKey, matches func(*v1alpha1.APIKey) bool) bool {
	for _, other := range s.keys {
		if other.UID != key.UID && other.Namespace == key.Namespace && matches(other) {
			return true
		}
	}
	return false
}

func (s *server) secretOf(key *v1alpha1.APIKey) *corev1.Secret {
	return s.secrets[types.NamespacedName{Namespace: key.Namespace, Name: nameOfSecret(key)}]
}

func checkFinalConditions(key *v1alpha1.APIKey, ready, active metav1.ConditionStatus, reasons ...string) string {
	for conditionType, want := range map[string]metav1.ConditionStatus{v1alpha1.ConditionReady: ready, v1alpha1.ConditionActive: active} {
		if got := conditionOf(key, conditionType); got == nil || got.Status != want || !slices.Contains(reasons, got.Reason) {
			return fmt.Sprintf("condition %s is not %s for %s", conditionType, want, strings.Join(reasons, " or "))
		}
	}
	if isStalled(key) != (ready == metav1.ConditionFalse) {
		return "condition Stalled contradicts Ready"
	}
	return ""
}
