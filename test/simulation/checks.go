// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"bytes"
	"time"

	"golang.org/x/text/unicode/norm"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/controllers"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// clockTolerance is how far the clock of a controller that trusts it may be from the true time.
const clockTolerance = 7 * time.Second

// checkKeyWrite checks each write of a key at the API server.
func (s *server) checkKeyWrite(by *process, former *v1alpha1.APIKey, written *change) {
	s.lastWrite = s.now
	key := written.key
	s.checkNoPlaintext(written)
	if written.kind == watch.Deleted {
		return
	}
	if by.name == sweeper && !isEnded(former) && isEnded(key) && former.Annotations["keys.squirrel.dev/unconfirmed"] == "" {
		s.violate("a confirmed key is not swept", "%s was confirmed", describeName(key))
	}
	s.noteTTL(former)
	s.noteTTL(key)
	s.noteOverlap(key)
	if !by.isController {
		return
	}
	s.checkClaims(by, former, key)
	s.checkIssued(former, key)
	s.checkEnd(former, key)
	s.checkConditions(key)
}

// noteOverlap notes the shortest overlap that the key has ever declared.
func (s *server) noteOverlap(key *v1alpha1.APIKey) {
	rotation, overlap := rotationOf(key), 24*time.Hour
	if rotation.Overlap != nil {
		overlap = rotation.Overlap.Duration
	}
	if rotation.Request != nil && rotation.Request.Overlap != nil {
		overlap = min(overlap, rotation.Request.Overlap.Duration)
	}
	if shortest, known := s.shortestOverlap[key.UID]; !known || overlap < shortest {
		s.shortestOverlap[key.UID] = overlap
	}
}

// checkNoPlaintext checks invariant 1 for keys.
func (s *server) checkNoPlaintext(written *change) {
	encoded := written.asJSON()
	for _, known := range s.tokens {
		if bytes.Contains(encoded, []byte(known.plaintext)) {
			s.violate("1: no plaintext in a key", "%s contains the token %s", describeName(written.key), known.label)
		}
	}
}

// checkClaims checks that claims are recorded, replaced and dropped only when no client may have their token.
func (s *server) checkClaims(by *process, former, key *v1alpha1.APIKey) {
	added := false
	deadline, _ := s.executing.deadline(s.simulation)
	for _, record := range key.Status.Tokens {
		if recordOf(former, record.Hash) == nil {
			s.claims[claimID{key.UID, record.Hash}] = &claim{until: deadline, by: s.executing.sender, isFirst: len(issuedRecords(former)) == 0}
			added = true
		}
	}
	for _, record := range former.Status.Tokens {
		if record.NotBefore != nil || key.Spec.TokenHash != "" || recordOf(key, record.Hash) != nil || isEnded(key) {
			continue
		}
		dropped := s.claims[claimID{key.UID, record.Hash}]
		if dropped.by != s.executing.sender && s.now < dropped.until {
			s.violate("3: a valid claim of another controller stays", "%s drops the claim of %s on %s, which is valid until %s",
				by.name, dropped.by.name, describeName(key), dropped.until)
		}
		secret := s.secrets[types.NamespacedName{Namespace: key.Namespace, Name: nameOfSecret(key)}]
		if secret == nil || secret.Type != v1alpha1.SecretTypeToken || !mayBeOf(secret, key) {
			continue
		}
		if handed := s.tokenIn(secret); handed != nil && handed.hash == record.Hash && *handed.handedOverAt < dropped.until {
			s.violate("3: a token that was handed over stays", "%s drops the claim of %s on %s, whose Secret exists",
				by.name, describeName(key), handed.label)
		}
		if added {
			s.expectedEvents[s.executing.task] = "Reissued"
		}
	}
}

// checkIssued checks the tokens that are accepted from now on, and those that were.
func (s *server) checkIssued(former, key *v1alpha1.APIKey) {
	for _, record := range issuedRecords(former) {
		s.checkRemains(former, key, record)
	}
	for _, record := range issuedRecords(key) {
		before := recordOf(former, record.Hash)
		if before != nil && before.NotBefore != nil {
			continue
		}
		s.acceptedAt[claimID{key.UID, record.Hash}] = s.now
		s.checkNewlyIssued(former, key, record)
		if len(issuedRecords(former)) > 0 {
			s.checkRotation(former, key, record)
		} else {
			s.checkFirstToken(former, key, record)
		}
	}
}

// successorOf returns the next newer token of a superseded one.
func successorOf(key *v1alpha1.APIKey, superseded v1alpha1.TokenRecord) (successor v1alpha1.TokenRecord) {
	for _, record := range key.Status.Tokens {
		if record.Hash == superseded.Hash {
			break
		}
		if record.ClaimedAt == nil {
			successor = record
		}
	}
	return successor
}

// checkRemains checks that an accepted token stays on record until its owner wants it to end.
func (s *server) checkRemains(former, key *v1alpha1.APIKey, record v1alpha1.TokenRecord) {
	name, label := describeName(key), s.labelOf(record.Hash)
	known := s.byHash[record.Hash]
	current := recordOf(key, record.Hash)
	isClaim := record.ClaimedAt != nil && record.NotAfter == nil
	newest := key.Status.Tokens[0]
	isRestored := key.Spec.TokenHash == record.Hash && newest.Hash == record.Hash
	isSuperseded := newest.Hash != former.Status.Tokens[0].Hash
	switch {
	case current == nil && record.NotAfter != nil:
		end := successorOf(former, record).NotBefore.Add(s.shortestOverlap[key.UID]) // if its owner has shortened the overlap
		if now := s.clock().Add(clockTolerance); now.Before(record.NotAfter.Time) && now.Before(end) {
			s.violate("3: a superseded token stays for its overlap", "%s loses %s before %s", name, label, record.NotAfter)
		}
	case current == nil && isClaim && (known == nil || known.handedOverAt == nil): // no client has it
	case current == nil && isSuperseded && s.shortestOverlap[key.UID] == 0:
	case current == nil:
		s.violate("3: an issued token stays on record", "%s loses %s", name, label)
	case current.NotAfter != nil && (record.NotAfter == nil || current.NotAfter.Before(record.NotAfter)):
		// The reconcile may have begun that long before it sent the status.
		begun := s.began.Add(s.executing.sent - controllers.ReconcileTimeout)
		if earliest := begun.Add(s.shortestOverlap[key.UID] - clockTolerance); record.NotAfter == nil && current.NotAfter.Time.Before(earliest) {
			s.violate("3: a superseded token stays for its overlap", "%s of %s ends at %s", label, name, current.NotAfter)
		}
	case record.NotAfter != nil && current.NotAfter == nil && current.NotBefore != nil && !isRestored:
		s.violate("a superseded token ends", "%s of %s has no end any more", label, name)
	case record.NotAfter != nil && current.NotAfter != nil && record.NotAfter.Before(current.NotAfter):
		s.violate("a longer overlap changes no end", "%s of %s ends later", label, name)
	}
	if isClaim && (current == nil || current.ClaimedAt == nil || current.NotAfter != nil) && newest.Hash != record.Hash {
		if claimed := s.claims[claimID{key.UID, record.Hash}]; claimed.by != s.executing.sender && s.now < claimed.until {
			s.violate("3: a valid claim of another controller stays", "%s gives up the claim of %s on %s",
				s.executing.sender.name, claimed.by.name, name)
		}
	}
}

// checkNewlyIssued checks what holds for each token that is accepted.
func (s *server) checkNewlyIssued(former, key *v1alpha1.APIKey, record v1alpha1.TokenRecord) {
	name, label := describeName(key), s.labelOf(record.Hash)
	switch {
	case isEnded(key):
		s.violate("5: an ended key is not issued", "%s is issued", name)
	case key.Spec.TokenHash != "" && key.Spec.TokenHash != record.Hash:
		s.violate("7: an imported key has the declared token", "%s is issued with %s", name, label)
	case key.Spec.TokenHash != "" && recordOf(former, record.Hash) == nil:
		s.violate("2: a claim precedes the issue", "%s is issued with %s, which it has not claimed", name, label)
	case key.Spec.TokenHash != "" && record.Hint != key.Spec.TokenHint:
		s.violate("the hint is the start of the token", "%s has the hint %q", name, record.Hint)
	}
	for _, other := range s.listKeys() {
		if other.UID == key.UID || other.Namespace != key.Namespace {
			continue
		}
		if sameAppName(key, other) && len(issuedRecords(other)) > 0 && !isEnded(other) {
			s.violate("2: one active key of an app name", "%s is issued, and %s is active", name, describeName(other))
		}
		if taken := recordOf(other, record.Hash); taken != nil && taken.NotBefore != nil {
			s.violate("2: a token belongs to one key", "%s is issued with %s, which %s has", name, label, describeName(other))
		}
	}
}

// checkFirstToken checks the first token of a key.
func (s *server) checkFirstToken(former, key *v1alpha1.APIKey, record v1alpha1.TokenRecord) {
	name, label := describeName(key), s.labelOf(record.Hash)
	known := s.byHash[record.Hash]
	switch {
	case record.ClaimedAt != nil:
		s.violate("3: an issued token is not a claim", "%s is issued with %s, which has a claimedAt", name, label)
	case key.Spec.TokenHash != "":
	case known == nil || known.handedOverAt == nil:
		s.violate("3: a token is in its Secret before it is accepted", "%s is issued with %s", name, label)
	case recordOf(former, record.Hash) == nil:
		s.violate("2: a claim precedes the issue", "%s is issued with %s, which it has not claimed", name, label)
	case record.Hint != known.plaintext[:7]:
		s.violate("the hint is the start of the token", "%s has the hint %q", name, record.Hint)
	}
}

// checkRotation checks the acceptance of the new token of a rotation.
func (s *server) checkRotation(former, key *v1alpha1.APIKey, record v1alpha1.TokenRecord) {
	name, label := describeName(key), s.labelOf(record.Hash)
	known := s.byHash[record.Hash]
	last := key.Status.Tokens[len(key.Status.Tokens)-1]
	switch {
	case key.Spec.TokenHash != "":
	case record.ClaimedAt == nil, last.Hash != record.Hash:
		s.violate("a rotation accepts a claim first", "%s accepts %s, which is not a claim at the end of the list", name, label)
	case known != nil && known.handedOverAt != nil:
		s.violate("4: a new token is accepted before it is handed over", "%s accepts %s, which a Secret has", name, label)
	case !s.isRotationDue(former, key):
		s.violate("3: only a declared rotation makes another token", "%s accepts %s", name, label)
	}
}

// isRotationDue reports whether the key declares a rotation that is due, or has a claim whose rotation is not finished.
func (s *server) isRotationDue(former, key *v1alpha1.APIKey) bool {
	now := s.clock().Add(clockTolerance)
	for _, record := range issuedRecords(former) {
		if record.ClaimedAt != nil && record.NotAfter == nil {
			return true
		}
	}
	rotation := rotationOf(key)
	if s.isRequestDue(rotation.Request, former) {
		return true
	}
	return rotation.Interval != nil && !now.Before(former.Status.Tokens[0].NotBefore.Add(rotation.Interval.Duration))
}

// isRequestDue reports whether a request has come, and is later than the one that was handled, or not earlier than the newest token.
func (s *server) isRequestDue(request *v1alpha1.RotationRequest, key *v1alpha1.APIKey) bool {
	if request == nil || s.clock().Add(clockTolerance).Before(request.At.Truncate(time.Second)) {
		return false
	}
	if handled := key.Status.RotationHandled; handled != nil {
		return request.At.Truncate(time.Second).After(handled.Time)
	}
	return !request.At.Truncate(time.Second).Before(key.Status.Tokens[0].NotBefore.Time)
}

func sameAppName(a, b *v1alpha1.APIKey) bool {
	return norm.NFC.String(a.Spec.AppName) == norm.NFC.String(b.Spec.AppName)
}

// checkEnd checks that an end is recorded once, and not before its time.
func (s *server) checkEnd(former, key *v1alpha1.APIKey) {
	before, after := former.Status.DeactivatedAt, key.Status.DeactivatedAt
	if before == nil && after != nil {
		s.ends[key.UID] = s.now
	}
	switch {
	case before != nil && !before.Equal(after):
		s.violate("5: the end of a key is final", "the deactivatedAt of %s changes", describeName(key))
	case before == nil && after != nil && key.DeletionTimestamp == nil && *key.Spec.Active && !isExpired(key, s.clock().Add(clockTolerance)):
		s.violate("the end of a key is not early", "%s has not expired", describeName(key))
	}
}

// checkConditions checks the conditions that a controller writes.
func (s *server) checkConditions(key *v1alpha1.APIKey) {
	ready, active := conditionOf(key, v1alpha1.ConditionReady), conditionOf(key, v1alpha1.ConditionActive)
	switch {
	case ready == nil, active == nil && ready.Reason != v1alpha1.ReasonPending:
		s.violate("a key has its conditions", "%s lacks Ready or Active", describeName(key))
	case active == nil:
	case active.Status == metav1.ConditionTrue && (len(issuedRecords(key)) == 0 || isEnded(key)):
		s.violate("an active key is issued", "%s is Active=True", describeName(key))
	case isStalled(key) && isOfHolder(ready.Reason) && s.clock().Add(clockTolerance).Before(key.CreationTimestamp.Add(10*time.Second)):
		s.violate("a new key is not stalled while another one may be replaced", "%s is stalled at once", describeName(key))
	case ready.Reason == v1alpha1.ReasonIssued && active.Status != metav1.ConditionTrue:
		s.violate("an issued key is active", "%s is Active=%s", describeName(key), active.Status)
	}
}

func isStalled(key *v1alpha1.APIKey) bool {
	return meta.IsStatusConditionTrue(key.Status.Conditions, v1alpha1.ConditionStalled)
}

func isOfHolder(reason string) bool {
	return reason == v1alpha1.ReasonAppNameConflict || reason == v1alpha1.ReasonTokenHashConflict
}

func conditionOf(key *v1alpha1.APIKey, conditionType string) *metav1.Condition {
	return meta.FindStatusCondition(key.Status.Conditions, conditionType)
}

// checkSecretWrite checks each write of a Secret at the API server.
func (s *server) checkSecretWrite(by *process, former, secret *corev1.Secret) {
	s.lastWrite = s.now
	if !by.isController {
		return
	}
	if secret == nil {
		s.checkSecretDeletion(by, former)
		return
	}
	s.checkHandover(by, former, secret)
}

// checkHandover checks a Secret that hands over a token, with the policy apikey-secrets.
func (s *server) checkHandover(by *process, former, secret *corev1.Secret) {
	owner := metav1.GetControllerOf(secret)
	isOwned := owner != nil && owner.Kind == "APIKey" && owner.APIVersion == v1alpha1.GroupVersion.String()
	if secret.Type != v1alpha1.SecretTypeToken || !isOwned {
		s.violate("8: the policy for Secrets", "%s writes %s", by.name, s.describeSecret(secret))
		return
	}
	known := s.tokenIn(secret)
	known.handedOverAt = new(s.now)
	if s.claims[claimID{owner.UID, known.hash}] == nil {
		s.violate("3: a claim precedes the Secret", "%s writes %s, whose token no key has claimed", by.name, s.describeSecret(secret))
	}
	if former != nil && (s.tokenIn(former) == nil || former.Type != v1alpha1.SecretTypeToken) {
		s.violate("8: a Secret of another party stays", "%s updates %s", by.name, s.describeSecret(former))
	}
	s.checkLead(by, owner.UID, secret, known)
}

// checkLead checks that the new token of a rotation is on record, and was accepted for long enough to be known to all authenticators.
func (s *server) checkLead(by *process, owner types.UID, secret *corev1.Secret, known *knownToken) {
	for _, key := range s.listKeys() {
		if key.UID != owner || isEnded(key) || len(issuedRecords(key)) == 0 {
			continue
		}
		record, accepted := recordOf(key, known.hash), s.acceptedAt[claimID{owner, known.hash}]
		switch claimed := s.claims[claimID{owner, known.hash}]; {
		case claimed == nil, claimed.isFirst: // the Secret of a first token is late
		case record == nil:
			s.violate("3: a token that is handed over is on record", "%s writes %s, which %s does not accept",
				by.name, s.describeSecret(secret), describeName(key))
		case s.now-accepted < minLead:
			s.violate("4: a new token is accepted before it is handed over", "%s writes %s %s after its acceptance",
				by.name, s.describeSecret(secret), s.now-accepted)
		}
	}
}

// minLead is the time before its handover for which a new token must be accepted.
const minLead = 4 * time.Second

// checkSecretDeletion checks that a controller deletes only Secrets whose token is not accepted, or whose ttl has passed. The deletion
// depends on the key, which may have changed since the reconcile began.
func (s *server) checkSecretDeletion(by *process, secret *corev1.Secret) {
	known := s.tokenIn(secret)
	if known == nil || secret.Type != v1alpha1.SecretTypeToken {
		s.violate("only one-time Secrets are deleted", "%s deletes %s", by.name, s.describeSecret(secret))
		return
	}
	for _, key := range s.listKeys() {
		record := recordOf(key, known.hash)
		isOver := isEnded(key) || isExpired(key, s.clock().Add(clockTolerance))
		if key.Namespace != secret.Namespace || record == nil || isOver || key.Spec.TokenHash != "" {
			continue
		}
		if ptr.Deref(secret.Immutable, false) && record.ClaimedAt == nil && key.Status.Tokens[len(key.Status.Tokens)-1].ClaimedAt != nil {
			continue // the Secret of an earlier version is replaced in a rotation
		}
		if record.NotBefore == nil || !s.isTTLOver(key, record.NotBefore.Time) {
			s.violate("an unread Secret stays", "%s deletes %s, and %s is active", by.name, s.describeSecret(secret), describeName(key))
		}
	}
}

// noteTTL notes that the key declares its ttl, if it has one.
func (s *server) noteTTL(key *v1alpha1.APIKey) {
	if key == nil || key.Spec.Secret == nil || key.Spec.Secret.TTL == nil {
		return
	}
	if s.ttls[key.UID] == nil {
		s.ttls[key.UID] = map[time.Duration]time.Duration{}
	}
	s.ttls[key.UID][key.Spec.Secret.TTL.Duration] = s.now
}

// isTTLOver reports whether a ttl is over that the key declares, or declared when a reconcile began that may still run.
func (s *server) isTTLOver(key *v1alpha1.APIKey, issued time.Time) bool {
	s.noteTTL(key)
	for ttl, declared := range s.ttls[key.UID] {
		if declared >= s.executing.sent-controllers.ReconcileTimeout && !s.clock().Add(clockTolerance).Before(issued.Add(ttl)) {
			return true
		}
	}
	return false
}

// checkEvent notes the event of a controller, and checks invariant 1 for it.
func (s *simulation) checkEvent(key *v1alpha1.APIKey, reason, note string) {
	if s.expectedEvents[s.running] == reason {
		delete(s.expectedEvents, s.running)
	}
	for _, known := range s.tokens {
		if bytes.Contains([]byte(note), []byte(known.plaintext)) {
			s.violate("1: no plaintext in an event", "an event of %s contains the token %s", describeName(key), known.label)
		}
	}
}

// checkRecorded checks that a reconcile has recorded the event that its last write required.
func (s *simulation) checkRecorded(by *task) {
	if reason := s.expectedEvents[by]; reason != "" {
		s.violate("3: no second token without an event", "%s has not recorded the event %s", by.process.name, reason)
	}
}

// checkAllDecisions compares the decisions of all authenticators with those that the keys they have seen require.
func (s *simulation) checkAllDecisions() {
	for _, a := range s.authenticators {
		if a.up && !a.paused {
			s.checkDecisions(a)
		}
	}
}

func (s *simulation) checkDecisions(a *authenticator) {
	for _, known := range s.tokens {
		for _, namespace := range []string{"a", "b"} {
			want := a.expectedDecision(namespace, known.hash)
			got := a.decider.Decide(authn.Request{Namespace: namespace, Credential: known.credential, Access: authn.Write})
			if got.Decision != want {
				s.violate("4, 5, 6, 9: an authenticator decides by the keys it has seen", "%s decides %s (%s) on %s in %s, and its keys require %s",
					a.name, got.Decision, got.Reason, known.label, namespace, want)
			}
		}
	}
}

// expectedDecision returns the decision on a request that writes, according to the keys that the API server has sent.
func (a *authenticator) expectedDecision(namespace, hash string) authn.Decision {
	if !a.synced || time.Since(a.lastSeen) > maxStaleness {
		return authn.Unavailable
	}
	now := a.clock().Truncate(time.Second)
	decision := authn.Unauthenticated
	for name, key := range a.seen {
		record := recordOf(key, hash)
		switch {
		case name.Namespace != namespace, record == nil, record.NotBefore == nil, isEnded(key), isExpired(key, now),
			record.NotAfter != nil && !now.Before(record.NotAfter.Time):
		case key.Spec.WriteAccess:
			return authn.Granted
		default:
			decision = authn.Forbidden
		}
	}
	return decision
}

func (k *knowledge) labelOf(hash string) string {
	if known := k.byHash[hash]; known != nil {
		return known.label
	}
	return "a new token"
}
