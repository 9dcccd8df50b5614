// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package mutants

// mutants are the faults that the simulation must find. To add one, copy a text from a function of the product, and write what it becomes.
var mutants = []mutant{
	// How a key is issued.
	{
		name: "the controller does not recheck conflicts after the claim",
		file: "controllers/issue.go",
		right: `
	if err := r.recheckConflict(ctx, key); err != nil {
		return err
	}`,
		wrong: ``,
	},
	{
		name:  "the recheck does not wait until the cache has the claim",
		file:  "controllers/issue.go",
		right: `if err := r.waitForClaim(ctx, key); err != nil {`,
		wrong: `if err := ctx.Err(); err != nil {`,
	},
	{
		name: "the recheck finds no claim",
		file: "controllers/issue.go",
		right: `	if apikey.FindConflictingClaim(key, others) != nil {
		return errConflictingClaim
	}
`,
		wrong: ``,
	},
	{
		name:  "the Secret is written before the claim",
		file:  "controllers/issue.go",
		right: `	r.setPending(claimed, "Handing over the token.")`,
		wrong: `	if err := r.handOver(ctx, claimed, minted); err != nil {
		return "", err
	}`,
	},
	{
		name:  "a minted token gets its notBefore with the claim, before the Secret",
		file:  "controllers/rotation.go",
		right: `ClaimedAt: new(r.timestamp())}`,
		wrong: `ClaimedAt: new(r.timestamp()), NotBefore: new(r.timestamp())}`,
	},
	{
		name:  "an imported token gets its notBefore with the claim, before the recheck",
		file:  "controllers/issue.go",
		right: `Hint: key.Spec.TokenHint}`,
		wrong: `Hint: key.Spec.TokenHint, NotBefore: new(r.timestamp())}`,
	},
	{
		name:  "a claim has no time",
		file:  "controllers/rotation.go",
		right: `, ClaimedAt: new(r.timestamp())}`,
		wrong: `}`,
	},
	{
		name:  "the claim lifetime is shorter than a reconcile",
		file:  "controllers/schedule.go",
		right: `ClaimedAt.Add(claimLifetime)`,
		wrong: `ClaimedAt.Add(ReconcileTimeout / 5)`,
	},
	{
		name: "a crash between the Secret and the status is not noticed: the key is issued again",
		file: "controllers/issue.go",
		right: `if done, err := r.wasHandedOver(ctx, key); done || err != nil {
		return err // done`,
		wrong: `if err := ctx.Err(); err != nil {
		return err // done`,
	},
	{
		name: "a claim whose handover may be in progress is replaced",
		file: "controllers/issue.go",
		right: `	if err := r.checkClaimIsVoid(ctx, key); err != nil {
		return err
	}
`,
		wrong: ``,
	},
	{
		name:  "a lost response to the creation of the Secret drops the claim",
		file:  "controllers/issue.go",
		right: `	return err // if the Secret may exist, the claim stays until that is known`,
		wrong: `	if err != nil {
		dropClaim(key)
	}
	return err`,
	},
	{
		name:  "an existing Secret of the right name counts as created",
		file:  "controllers/issue.go",
		right: `if apierrors.IsAlreadyExists(err) {`,
		wrong: `if apierrors.IsAlreadyExists(err) {
		return nil`,
	},
	{
		name: "a stalled key keeps its claim",
		file: "controllers/issue.go",
		right: `	dropClaim(key)
	wait :=`,
		wrong: `	wait :=`,
	},
	{
		name: "of two conflicting claims, neither is withdrawn",
		file: "controllers/issue.go",
		right: `	dropClaim(key)
	r.setPending(key, waiting)`,
		wrong: `	r.setPending(key, waiting)`,
	},
	{
		name:  "a dropped claim leaves the name of its Secret in the status",
		file:  "controllers/issue.go",
		right: `	key.Status.SecretName = ""`,
		wrong: ``,
	},
	{
		name:  "a stalled key has no timer for its expiry",
		file:  "controllers/issue.go",
		right: `soonest(r.untilExpiry(key))} // enqueueConflicting`,
		wrong: `0} // enqueueConflicting`,
	},
	{
		name: "a key whose handover was interrupted is not requeued",
		file: "controllers/issue.go",
		right: `	r.delay(key, wait)
	return ctrl.Result{RequeueAfter: soonest(wait, r.untilExpiry(key))}`,
		wrong: `	r.delay(key, wait)
	return ctrl.Result{}`,
	},

	// One-time Secrets.
	{
		name:  "any Secret of the right name counts as handed over",
		file:  "controllers/secret.go",
		right: `return secret != nil && apikey.RecordIn(key, secret) == claim, err`,
		wrong: `return secret != nil, err`,
	},
	{
		name:  "the deletion of a Secret ignores its UID and resource version",
		file:  "controllers/secret.go",
		right: `client.Preconditions{UID: &secret.UID, ResourceVersion: &secret.ResourceVersion}`,
		wrong: `client.Preconditions{}`,
	},
	{
		name:  "a void Secret is deleted without reading the key again",
		file:  "controllers/secret.go",
		right: ` || slices.Contains(apikey.HashesOf(current), hash) {`,
		wrong: ` {`,
	},
	{
		name:  "a foreign Secret of the right name is deleted with the key's end",
		file:  "controllers/secret.go",
		right: `	case holdsToken(secret, key):`,
		wrong: `	case apikey.SecretName(key) == secret.Name:`,
	},
	{
		name: "the name of a deleted Secret stays in the status",
		file: "controllers/secret.go",
		right: `	key.Status.SecretName = ""
`,
		wrong: ``,
	},
	{
		name:  "a one-time Secret has no owner, and stays when its key is deleted",
		file:  "controllers/secret.go",
		right: `[]metav1.OwnerReference{owner}`,
		wrong: `[]metav1.OwnerReference{owner}[:0]`,
	},

	// How a token is rotated.
	{
		name:  "a new token is handed over as soon as it is accepted",
		file:  "controllers/rotation.go",
		right: `due: r.Now().Add(acceptanceDelay), `,
		wrong: `due: r.Now(), `,
	},
	{
		name: "the claim of a rotation is not accepted",
		file: "controllers/rotation.go",
		right: `		claim.NotBefore = new(r.timestamp())
`,
		wrong: ``,
	},
	{
		name: "a request for a rotation is handled again and again",
		file: "controllers/rotation.go",
		right: `		apikey.HandleRequest(key, r.Now())
	}
	return claim`,
		wrong: `	}
	return claim`,
	},
	{
		name:  "a rotation does not wait until it is due",
		file:  "internal/apikey/rotation.go",
		right: `(next != nil && !now.Before(next.Time))`,
		wrong: `next != nil`,
	},
	{
		name: "the claim of a rotation whose handover may be in progress is replaced",
		file: "controllers/rotation.go",
		right: `	if err := r.checkClaimIsVoid(ctx, key); err != nil {
		return err
	}
`,
		wrong: ``,
	},
	{
		name:  "a late handover is given up, without a renewal of its claim",
		file:  "controllers/rotation.go",
		right: `if scheduled.isShort(r.Now()) {`,
		wrong: `if ctx.Err() != nil {`,
	},
	{
		name: "an accepted claim is removed when a write of its Secret fails",
		file: "controllers/rotation.go",
		right: `	case !isSecretRefused(err):
		return err
	case scheduled.mayBeWritten:
		r.rotations.forgetHandover(key)
		return errHandoverInProgress
`,
		wrong: `	case err == nil:
		return nil
`,
	},
	{
		name:  "a rotation without overlap waits until a superseded token ends",
		file:  "internal/apikey/rotation.go",
		right: `return records < MaxTokens || nextOverlap(key, now) == 0`,
		wrong: `return records < MaxTokens`,
	},
	{
		name:  "a rotation with an overlap drops a superseded token",
		file:  "internal/apikey/rotation.go",
		right: `== MaxTokens && overlapBy(&record, key) == 0 {`,
		wrong: `== MaxTokens-1 {`,
	},
	{
		name:  "the overlap of a rotation counts as 0",
		file:  "internal/apikey/rotation.go",
		right: `	return OverlapOf(key)`,
		wrong: `	return 0`,
	},
	{
		name:  "a superseded token has no end",
		file:  "internal/apikey/rotation.go",
		right: `record.NotAfter == nil || (overlap == 0`,
		wrong: `record.NotAfter != nil && (overlap == 0`,
	},
	{
		name:  "a rotation drops the former token at once",
		file:  "internal/apikey/rotation.go",
		right: `{newest}, superseded...)`,
		wrong: `{newest}, superseded[:0]...)`,
	},
	{
		name:  "a longer overlap extends the end of a superseded token",
		file:  "internal/apikey/rotation.go",
		right: `		if end.Before(record.NotAfter) {`,
		wrong: `		if !end.Equal(record.NotAfter) {`,
	},
	{
		name:  "the token of a superseded claim ends at once",
		file:  "internal/apikey/rotation.go",
		right: `max(overlapBy(former, key), minClaimOverlap)`,
		wrong: `0`,
	},
	{
		name: "records of tokens that have ended are not dropped",
		file: "controllers/apikey_controller.go",
		right: `	apikey.DropEnded(key, r.Now())
`,
		wrong: ``,
	},

	// The status.
	{
		name: "a status write that conflicts is repeated with the latest resource version",
		file: "controllers/apikey_controller.go",
		right: `	return r.Status().Update(ctx, key)
`,
		wrong: `	err := r.Status().Update(ctx, key)
	if isConflict(err) {
		latest := &v1alpha1.APIKey{}
		if err := r.Secrets.Get(ctx, client.ObjectKeyFromObject(key), latest); err != nil {
			return err
		}
		key.ResourceVersion = latest.ResourceVersion
		err = r.Status().Update(ctx, key)
	}
	return err
`,
	},
	{
		name:  "a status is written without a resource version",
		file:  "controllers/apikey_controller.go",
		right: `	return r.Status().Update(ctx, key)`,
		wrong: `	key.ResourceVersion = ""
	return r.Status().Update(ctx, key)`,
	},
	{
		name: "observedGeneration is not updated",
		file: "controllers/status.go",
		right: `	key.Status.ObservedGeneration = key.Generation
	set`,
		wrong: `	set`,
	},
	{
		name:  "a claim stays recorded if the status is otherwise the same as before it",
		file:  "controllers/apikey_controller.go",
		right: `key.ResourceVersion == before.ResourceVersion && `,
		wrong: ``,
	},
	{
		name:  "the status of an ended key in backoff keeps Active, and names the new generation",
		file:  "controllers/apikey_controller.go",
		right: `if !changed || (!active && key.Status.DeactivatedAt == nil) {`,
		wrong: `if !changed {`,
	},
	{
		name: "the error of a failed call is dropped",
		file: "controllers/apikey_controller.go",
		right: `		result = ctrl.Result{}
`,
		wrong: `		result, err = ctrl.Result{}, nil
`,
	},
	{
		name:  "Stalled stays when a user has acted",
		file:  "controllers/status.go",
		right: `meta.RemoveStatusCondition(&key.Status.Conditions, v1alpha1.ConditionStalled)`,
		wrong: `_ = v1alpha1.ConditionStalled`,
	},
	{
		name:  "Active stays True when the key ends",
		file:  "controllers/status.go",
		right: `conditions{ready: metav1.ConditionTrue, active: metav1.ConditionFalse, `,
		wrong: `conditions{ready: metav1.ConditionTrue, active: metav1.ConditionTrue, `,
	},
	{
		name:  "a key whose Secret's name is taken is not retried",
		file:  "controllers/status.go",
		right: `(reason == v1alpha1.ReasonSecretConflict || reason == v1alpha1.ReasonSecretRefused)`,
		wrong: `reason == v1alpha1.ReasonSecretRefused`,
	},

	// Ends.
	{
		name:  "the end of a key is not recorded",
		file:  "controllers/apikey_controller.go",
		right: `key.Status.DeactivatedAt = new(r.timestamp())`,
		wrong: `key.Status.DeactivatedAt = nil`,
	},
	{
		name:  "an ended key keeps its Secret",
		file:  "controllers/apikey_controller.go",
		right: `_, err := r.deleteSecret(ctx, key)`,
		wrong: `err := ctx.Err()`,
	},
	{
		name:  "after a restart, issued keys have no timers",
		file:  "controllers/apikey_controller.go",
		right: ` || r.untilNextDeadline(key) != 0 {`,
		wrong: ` {`,
	},
	{
		name:  "an issued key has no timer for its expiry",
		file:  "controllers/schedule.go",
		right: `wait := soonest(r.untilExpiry(key), r.untilWarning(key))`,
		wrong: `wait := soonest(r.untilWarning(key))`,
	},
	{
		name:  "an issued key has no timer for the ttl of its Secret",
		file:  "controllers/schedule.go",
		right: `if due, ok := secretDeadline(key); ok {`,
		wrong: `if due, ok := secretDeadline(key); ok && due.IsZero() {`,
	},
	{
		name: "a claim is void as soon as it is written",
		file: "controllers/schedule.go",
		right: `	return remaining
`,
		wrong: `	return min(remaining, 0)
`,
	},

	// Which keys are reconciled, and when.
	{
		name:  "keys that wait for an app name are not enqueued when its holder ends",
		file:  "controllers/conflicts.go",
		right: `(after.retired && !before.retired) || `,
		wrong: ``,
	},
	{
		name:  "keys that wait for an app name are not enqueued when the Secret of the first is refused",
		file:  "controllers/conflicts.go",
		right: ` || (after.blocked && !before.blocked)`,
		wrong: ``,
	},
	{
		name:  "the status of waiting keys keeps the name of an earlier holder",
		file:  "controllers/conflicts.go",
		right: `if err == nil && holderChanged {`,
		wrong: `if err != nil && holderChanged {`,
	},
	{
		name: "keys of the initial list are not enqueued",
		file: "controllers/priority.go",
		right: `if unchanged && priority == priorityUpdate {
		priority = priorityDeferred
	}`,
		wrong: `if unchanged {
		return
	}`,
	},
	{
		name: "keys that ended are not enqueued",
		file: "controllers/priority.go",
		right: `	priority := r.priorityOf(key)
	if`,
		wrong: `	priority := r.priorityOf(key)
	if apikey.StateOf(key, r.Now()) != apikey.StateActive {
		return
	}
	if`,
	},

	// Responses of the API server, and objects that cannot be read.
	{
		name: "the cache drops the deletion timestamp of keys",
		file: "controllers/cache.go",
		right: `		DeletionTimestamp: key.DeletionTimestamp,
`,
		wrong: ``,
	},
	{
		name: "the cache drops the creation timestamp of keys",
		file: "controllers/cache.go",
		right: `		CreationTimestamp: key.CreationTimestamp,
`,
		wrong: ``,
	},
	{
		name: "the cache drops the generation of keys",
		file: "controllers/cache.go",
		right: `		Generation:        key.Generation,
`,
		wrong: ``,
	},

	// Which keys conflict.
	{
		name:  "app names are compared as bytes",
		file:  "internal/apikey/conflict.go",
		right: `CanonicalAppName(key.Spec.AppName) == CanonicalAppName(other.Spec.AppName)`,
		wrong: `key.Spec.AppName == other.Spec.AppName`,
	},
	{
		name: "the hash of a retired key may be imported again",
		file: "internal/apikey/conflict.go",
		right: `	isDeclared := key.Spec.TokenHash == hash
`,
		wrong: `	if IsRetired(key) {
		return holdNone
	}
	isDeclared := key.Spec.TokenHash == hash
`,
	},
	{
		name:  "the hash of a minted token may be imported",
		file:  "internal/apikey/conflict.go",
		right: `for i := range key.Status.Tokens {`,
		wrong: `for i := range key.Status.Tokens[:0] {`,
	},
	{
		name:  "two keys of the same age precede each other",
		file:  "internal/apikey/conflict.go",
		right: `return a.UID < b.UID`,
		wrong: `return true`,
	},
	{
		name:  "the claim of a key whose Secret was refused is not seen",
		file:  "internal/apikey/conflict.go",
		right: `(IsClaimed(key) || !IsBlocked(key))`,
		wrong: `!IsBlocked(key)`,
	},
	{
		name:  "a key whose Secret is refused holds its app name",
		file:  "internal/apikey/conflict.go",
		right: `(IsClaimed(key) || !IsBlocked(key))`,
		wrong: `(IsClaimed(key) || key.UID != "")`,
	},
	{
		name:  "an ended key holds its app name",
		file:  "internal/apikey/conflict.go",
		right: `return !IsRetired(key) && (`,
		wrong: `return (`,
	},
	{
		name:  "an expired key holds its app name after its end was recorded",
		file:  "internal/apikey/conflict.go",
		right: `return validity.Deactivated || validity.Ended`,
		wrong: `return validity.Deactivated`,
	},
	{
		name:  "the index of app names compares bytes",
		file:  "internal/apikey/index.go",
		right: `return []string{CanonicalAppName(key.Spec.AppName)}`,
		wrong: `return []string{key.Spec.AppName}`,
	},
	{
		name: "keys of other namespaces conflict",
		file: "internal/apikey/index.go",
		right: `		client.InNamespace(g.namespace),
`,
		wrong: ``,
	},
	{
		name: "keys with one token hash conflict only if they have one app name",
		file: "internal/apikey/index.go",
		right: `for _, by := range indexes {
		for _, value`,
		wrong: `for _, by := range indexes[:1] {
		for _, value`,
	},
	{
		name: "the first key of a large group stays cached when it changes",
		file: "internal/apikey/firstkeys.go",
		right: `			delete(f.groups, of)
			changed = true`,
		wrong: `			changed = true`,
	},

	// When a key is valid.
	{
		name:  "a key is accepted for one second after its expiry",
		file:  "internal/apikey/validity.go",
		right: `now.Unix() >= v.ExpiresAt`,
		wrong: `now.Unix() > v.ExpiresAt`,
	},
	{
		name: "an expired key is valid again after a change of its expiresAt",
		file: "internal/apikey/validity.go",
		right: `	case v.Ended:
		return StateExpired
`,
		wrong: ``,
	},
	{
		name:  "a key that is being deleted is accepted",
		file:  "internal/apikey/validity.go",
		right: `key.DeletionTimestamp != nil || (`,
		wrong: `(`,
	},
	{
		name:  "a claimed hash counts as accepted",
		file:  "internal/apikey/conflict.go",
		right: `case record != nil && record.NotBefore != nil, `,
		wrong: `case record != nil, `,
	},
	{
		name:  "a Secret with another token counts as handed over",
		file:  "internal/apikey/handover.go",
		right: `return RecordOf(key, token.Hash(string(secret.Data[SecretKey(key)])))`,
		wrong: `if token.Prefix == "" || len(key.Status.Tokens) == 0 {
		return nil
	}
	return &key.Status.Tokens[0]`,
	},

	// The authenticator's Keyring.
	{
		name:  "a deactivated key is accepted until the controller records its end",
		file:  "webhook/authn/key.go",
		right: `deactivated: validity.Deactivated,`,
		wrong: `deactivated: validity.Deactivated && validity.Ended,`,
	},
	{
		name:  "a claimed token is accepted before it is handed over",
		file:  "webhook/authn/key.go",
		right: `if recorded.NotBefore == nil {`,
		wrong: `if recorded.NotBefore == nil {
			recorded.NotBefore = recorded.ClaimedAt
		}
		if recorded.NotBefore == nil {`,
	},
	{
		name: "a key is accepted in all namespaces",
		file: "webhook/authn/store.go",
		right: `range s.byToken.find(s.tokenHash(namespace, digest)) {
		if e.Namespace == namespace && e.digest`,
		wrong: `range s.byToken.all() {
		if e.digest`,
	},
	{
		name: "an event of a key replaces the tokens of keys of the same name in other namespaces",
		file: "webhook/authn/store.go",
		right: `range s.byObject.find(s.objectHash(namespace, name)) {
		if e.Namespace == namespace && e.Name == name {`,
		wrong: `range s.byObject.all() {
		if e.Name == name {`,
	},
	{
		name: "tokens stay in the Keyring when their record is removed",
		file: "webhook/authn/store.go",
		right: `	for _, e := range old {
		s.put(e, nil)
	}
`,
		wrong: ``,
	},
	{
		name:  "an update leaves the former state of the key in the Keyring",
		file:  "webhook/authn/keyring.go",
		right: `current.replace(current.entriesOf(key.namespace, key.name), key.entries)`,
		wrong: `current.replace(nil, key.entries)`,
	},
	{
		name: "a list leaves deleted keys in the Keyring",
		file: "webhook/authn/keyring.go",
		right: `	replacement, err := newStoreOf(objects)
	if err != nil {
		return err
	}
	k.writing.Lock()
	defer k.writing.Unlock()
	replacement.copyLastUses(k.store.Load())
	k.store.Store(replacement)
`,
		wrong: `	for _, object := range objects {
		if err := k.Update(object); err != nil {
			return err
		}
	}
`,
	},
	{
		name:  "a Keyring without a list counts as synced",
		file:  "webhook/authn/keyring.go",
		right: `return k.synced.Load()`,
		wrong: `return true`,
	},
	{
		name: "a larger store lacks the keys of the smaller one",
		file: "webhook/authn/keyring.go",
		right: `	for e := range current.byObject.all() {
		larger.put(nil, e)
	}
`,
		wrong: ``,
	},
	{
		name: "the slot of a deleted entry ends the probes of others",
		file: "webhook/authn/index.go",
		right: `	s.entry.Store(to)
`,
		wrong: `	s.entry.Store(to)
	if to == nil {
		s.hash.Store(0)
	}
`,
	},
	{
		name: "a probe does not continue at the first slot",
		file: "webhook/authn/index.go",
		right: `			if at++; at == len(x.slots) {
				at = 0
			}
			switch`,
		wrong: `			if at++; at == len(x.slots) {
				return
			}
			switch`,
	},
	{
		name:  "a Keyring that is not synced refuses tokens",
		file:  "webhook/authn/decision.go",
		right: `return Verdict{Decision: Unavailable, Reason: reason}`,
		wrong: `return Verdict{Decision: Unauthenticated, Reason: reason}`,
	},
	{
		name: "an expired key is accepted until the controller records its end",
		file: "webhook/authn/decision.go",
		right: `	if e.endsAt != apikey.NeverExpires {
		now = clock()
	}
`,
		wrong: ``,
	},
	{
		name:  "a check ignores the recorded end of a key",
		file:  "webhook/authn/decision.go",
		right: `Ended: e.ended, `,
		wrong: ``,
	},
	{
		name:  "a check ignores the access of the key",
		file:  "webhook/authn/decision.go",
		right: `missingAccess(request.Access &^ entry.Access)`,
		wrong: `missingAccess(request.Access &^ request.Access)`,
	},

	// The clock.
	{
		name: "the controller uses its own clock although the API server's differs",
		file: "internal/kubeapi/clock.go",
		right: `		return local
	}
	return current.nearest(local, now)`,
		wrong: `		return local
	}
	return local`,
	},
}
