// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
)

const (
	acceptedMinted   = "The token is accepted. It was handed over in a Secret."
	acceptedImported = "The imported token is accepted."
	deactivated      = "The key was deactivated and is no longer accepted."
	expired          = "The key has expired and is no longer accepted."
)

func conditions(ready, active metav1.ConditionStatus, reason, message string) map[string]string {
	return map[string]string{
		v1alpha1.ConditionReady:  fmt.Sprintf("%s %s: %s", ready, reason, message),
		v1alpha1.ConditionActive: fmt.Sprintf("%s %s: %s", active, reason, message),
	}
}

// renameTimeout is the age from which a key that waits for another one is stalled.
const renameTimeout = 10 * time.Second

func stalled(reason, message string) map[string]string {
	want := conditions(metav1.ConditionFalse, metav1.ConditionFalse, reason, message)
	want[v1alpha1.ConditionStalled] = fmt.Sprintf("True %s: %s", reason, message)
	return want
}

func (f *fixture) assertKstatus(key *v1alpha1.APIKey, want status.Status) {
	f.Helper()
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(key)
	framework.Must(f, err)
	object := &unstructured.Unstructured{Object: content}
	object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("APIKey"))
	result, err := status.Compute(object)
	framework.Must(f, err)
	if result.Status != want {
		f.Errorf("kstatus computes %s (%s) for %s, want %s", result.Status, result.Message, key.Name, want)
	}
}

func TestReconcile_IssuesAKeyInAOneTimeSecret(t *testing.T) {
	f := newFixture(t)
	f.CreateKey("frontend")
	f.assertKstatus(f.GetKey("frontend"), status.InProgressStatus)

	f.startController(nil)
	key := f.WaitForReady("frontend", v1alpha1.ReasonIssued)

	f.assertConditions(key, conditions(metav1.ConditionTrue, metav1.ConditionTrue, v1alpha1.ReasonIssued, acceptedMinted))
	f.assertKstatus(key, status.CurrentStatus)
	f.assertIssued(key, "frontend-token")
	if key.Status.SecretName != "frontend-token" {
		t.Errorf("status.secretName is %q", key.Status.SecretName)
	}
	secret := f.Secret("frontend-token")
	minted := string(secret.Data["token"])
	if len(secret.Data) != 1 || len(minted) != token.Length || key.Status.Tokens[0].Hint != minted[:7] {
		t.Errorf("the Secret has %d data keys and a token of %d characters; the hint is %q", len(secret.Data), len(minted), key.Status.Tokens[0].Hint)
	}
	wantOwner := []metav1.OwnerReference{{
		APIVersion: "keys.squirrel.dev/v1alpha1", Kind: "APIKey", Name: "frontend", UID: key.UID,
		Controller: new(true), BlockOwnerDeletion: new(false),
	}}
	if diff := cmp.Diff(wantOwner, secret.OwnerReferences); diff != "" {
		t.Errorf("owner references (-want +got):\n%s", diff)
	}
	if secret.Type != "keys.squirrel.dev/token" || secret.Immutable != nil {
		t.Errorf("the Secret has type %s, immutable %v", secret.Type, secret.Immutable)
	}
	labels := map[string]string{"app.kubernetes.io/managed-by": "apikey-operator", "keys.squirrel.dev/apikey": "frontend"}
	if diff := cmp.Diff(labels, secret.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
}

func TestReconcile_TheSecretHasTheDeclaredNameAndKey(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	f.CreateKey("frontend", func(key *v1alpha1.APIKey) {
		key.Spec.Secret = &v1alpha1.TokenSecret{Name: "elsewhere", Key: "api.key"}
	})
	key := f.WaitForReady("frontend", v1alpha1.ReasonIssued)
	secret := f.Secret("elsewhere")
	if secret == nil || token.Hash(string(secret.Data["api.key"])) != key.Status.Tokens[0].Hash || key.Status.SecretName != "elsewhere" {
		t.Errorf("the token is not in the data key api.key of Secret elsewhere; status.secretName is %q", key.Status.SecretName)
	}
}

func TestInvariant3_AnIssuedKeyIsNeverMintedAgain(t *testing.T) {
	f := newFixture(t)
	stop := f.startController(nil)
	f.CreateKey("frontend")
	issued := f.WaitForReady("frontend", v1alpha1.ReasonIssued)

	provocations := map[string]func(){
		"the Secret is deleted": func() { framework.Must(f, f.Env.Client.Delete(t.Context(), f.Secret("frontend-token"))) },
		"labels are edited": func() {
			f.UpdateKey("frontend", func(key *v1alpha1.APIKey) { key.Labels = map[string]string{"a": "b"} })
		},
		"annotations are removed":  func() { f.UpdateKey("frontend", func(key *v1alpha1.APIKey) { key.Annotations = nil }) },
		"the key is applied again": func() { f.UpdateKey("frontend", func(key *v1alpha1.APIKey) { key.Spec = f.Key("frontend").Spec }) },
		"its access is changed":    func() { f.UpdateKey("frontend", func(key *v1alpha1.APIKey) { key.Spec.WriteAccess = true }) },
		"the controller restarts":  func() { stop(); stop = f.startController(nil) },
	}
	for name, provoke := range maps.All(provocations) {
		provoke()
		f.touch("frontend", name)
		f.CreateKey("canary-" + fmt.Sprint(len(f.Keys())))
		f.WaitForReady("canary-"+fmt.Sprint(len(f.Keys())-1), v1alpha1.ReasonIssued)
		key := f.WaitForReady("frontend", v1alpha1.ReasonIssued)
		if diff := cmp.Diff(issued.Status.Tokens, key.Status.Tokens); diff != "" {
			t.Errorf("when %s, the tokens change (-before +after):\n%s", name, diff)
		}
	}
	if f.Secret("frontend-token") != nil {
		t.Error("the deleted Secret exists again")
	}
}

func TestReconcile_ANewControllerReconcilesEarlierChanges(t *testing.T) {
	f := newFixture(t)
	stop := f.startController(nil)
	f.CreateKey("untouched")
	f.CreateKey("deactivated")
	f.CreateKey("altered")
	f.CreateKey("hinted", tokenHash(token.Hash("imported")))
	f.CreateKey("expired", func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = new(metav1.NewTime(time.Now().Add(time.Hour))) })
	f.CreateKey("due", func(key *v1alpha1.APIKey) {
		key.Spec.Secret = &v1alpha1.TokenSecret{TTL: &metav1.Duration{Duration: time.Hour}}
	})
	for _, key := range f.Keys() {
		f.WaitForReady(key.Name, v1alpha1.ReasonIssued)
	}
	stop()

	untouched := f.GetKey("untouched")
	f.Deactivate("deactivated")
	altered := f.GetKey("altered")
	altered.Status.Conditions = altered.Status.Conditions[:1]
	framework.Must(f, f.Env.Client.Status().Update(t.Context(), altered))
	f.UpdateKey("hinted", func(key *v1alpha1.APIKey) { key.Spec.TokenHint = "hint" })
	f.clock.advance(2 * time.Hour)

	f.startController(nil)
	f.WaitForReady("deactivated", v1alpha1.ReasonDeactivated)
	f.WaitForReady("expired", v1alpha1.ReasonExpired)
	framework.Eventually(f, "the Secret is deleted", func() bool { return f.Secret("due-token") == nil })
	framework.Eventually(f, "the condition is restored", func() bool { return len(f.GetKey("altered").Status.Conditions) == 2 })
	if hint := f.WaitForReady("hinted", v1alpha1.ReasonIssued).Status.Tokens[0].Hint; hint != "hint" {
		t.Errorf("the hint is %q", hint)
	}
	if version := f.GetKey("untouched").ResourceVersion; version != untouched.ResourceVersion {
		t.Errorf("the unchanged key has the resource version %s, which was %s", version, untouched.ResourceVersion)
	}
}

func TestReconcile_ReissuesATokenThatWasNeverHandedOver(t *testing.T) {
	f := newFixture(t)
	key := f.CreateKey("frontend")
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash("lost"), Hint: "sq_lost"}}
	key.Status.SecretName = "frontend-token"
	framework.Must(f, f.Env.Client.Status().Update(t.Context(), key))

	f.startController(nil)
	f.assertIssued(f.WaitForReady("frontend", v1alpha1.ReasonIssued), "frontend-token")
	const want = "An earlier token of this key was never handed over and is void: the controller mints a new one."
	if eventType, note := f.waitForEvent("frontend", "Reissued"); eventType != corev1.EventTypeWarning || note != want {
		t.Errorf("the event is %s: %s", eventType, note)
	}
}

func TestReconcile_DeletesTheSecretAfterItsTTL(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	f.CreateKey("frontend", func(key *v1alpha1.APIKey) {
		key.Spec.Secret = &v1alpha1.TokenSecret{TTL: &metav1.Duration{Duration: time.Hour}}
	})
	f.WaitForReady("frontend", v1alpha1.ReasonIssued)
	f.clock.advance(59 * time.Minute)
	f.touch("frontend", "early")
	f.CreateKey("canary")
	f.WaitForReady("canary", v1alpha1.ReasonIssued)
	if f.Secret("frontend-token") == nil {
		t.Fatal("the Secret was deleted before its ttl had passed")
	}
	f.clock.advance(2 * time.Minute)
	f.touch("frontend", "late")
	framework.Eventually(f, "the Secret and its name in the status are deleted", func() bool {
		return f.Secret("frontend-token") == nil && f.GetKey("frontend").Status.SecretName == ""
	})
	key := f.GetKey("frontend")
	f.assertConditions(key, conditions(metav1.ConditionTrue, metav1.ConditionTrue, v1alpha1.ReasonIssued, acceptedMinted))
	if _, note := f.waitForEvent("frontend", "SecretRemoved"); note != `The controller deleted the one-time Secret "frontend-token": its ttl has passed.` {
		t.Errorf("the note of the event is %q", note)
	}
}

func TestReconcile_ADeactivatedKeyReleasesItsAppName(t *testing.T) {
	f := newFixture(t)
	f.clock.advance(renameTimeout) // a key that must wait is stalled at once
	f.startController(nil)
	f.CreateKey("first", appName("Frontend"))
	f.WaitForReady("first", v1alpha1.ReasonIssued)
	f.CreateKey("second", appName("Frontend"))
	second := f.WaitForReady("second", v1alpha1.ReasonAppNameConflict)
	const held = `App name "Frontend" is held by APIKey "first": deactivate or delete that key, or create this one with another app name.`
	f.assertConditions(second, stalled(v1alpha1.ReasonAppNameConflict, held))
	f.assertKstatus(second, status.FailedStatus)
	if apikey.IsClaimed(second) || f.Secret("second-token") != nil {
		t.Error("the stalled key has a token")
	}
	if eventType, note := f.waitForEvent("second", v1alpha1.ReasonAppNameConflict); eventType != corev1.EventTypeWarning || note != held {
		t.Errorf("the event is %s: %s", eventType, note)
	}

	f.Deactivate("first")
	first := f.WaitForReady("first", v1alpha1.ReasonDeactivated)
	f.assertConditions(first, conditions(metav1.ConditionTrue, metav1.ConditionFalse, v1alpha1.ReasonDeactivated, deactivated))
	f.assertKstatus(first, status.CurrentStatus)
	if first.Status.DeactivatedAt == nil || first.Status.SecretName != "" || f.Secret("first-token") != nil {
		t.Errorf("deactivatedAt %v, secretName %q", first.Status.DeactivatedAt, first.Status.SecretName)
	}
	f.assertIssued(f.WaitForReady("second", v1alpha1.ReasonIssued), "second-token")
}

// Tools that rename a key create the new object, delete the old one, and fail if the new one is stalled in between.
func TestReconcile_ANewKeyWaitsForItsAppNameWithoutBeingStalled(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	const heldBy = `App name "Frontend" is held by APIKey "%s": deactivate or delete that key, or create this one with another app name.`
	first := f.CreateKey("first", appName("Frontend"))
	f.WaitForReady("first", v1alpha1.ReasonIssued)
	f.CreateKey("second", appName("Frontend"))
	second := f.WaitForReady("second", v1alpha1.ReasonAppNameConflict)
	f.assertConditions(second, conditions(metav1.ConditionUnknown, metav1.ConditionFalse, v1alpha1.ReasonAppNameConflict, fmt.Sprintf(heldBy, "first")))
	f.assertKstatus(second, status.InProgressStatus)
	framework.Must(f, f.Env.Client.Delete(t.Context(), first))
	f.assertIssued(f.WaitForReady("second", v1alpha1.ReasonIssued), "second-token")

	f.CreateKey("third", appName("Frontend"))
	f.WaitForReady("third", v1alpha1.ReasonAppNameConflict)
	f.clock.advance(renameTimeout)
	f.touch("third", "later")
	framework.Eventually(f, "the third key is stalled", func() bool { return f.isStalled("third") })
	held := fmt.Sprintf(heldBy, "second")
	f.assertConditions(f.GetKey("third"), stalled(v1alpha1.ReasonAppNameConflict, held))
	if eventType, note := f.waitForEvent("third", v1alpha1.ReasonAppNameConflict); eventType != corev1.EventTypeWarning || note != held {
		t.Errorf("the event is %s: %s", eventType, note)
	}
}

func TestReconcile_AKeyThatIsBeingDeletedReleasesItsAppName(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	first := f.CreateKey("first", appName("Frontend"), func(key *v1alpha1.APIKey) { key.Finalizers = []string{"example.com/keep"} })
	f.WaitForReady("first", v1alpha1.ReasonIssued)
	f.CreateKey("second", appName("Frontend"))
	f.WaitForReady("second", v1alpha1.ReasonAppNameConflict)
	framework.Must(f, f.Env.Client.Delete(t.Context(), first))
	f.assertConditions(f.WaitForReady("first", v1alpha1.ReasonDeactivated), conditions(metav1.ConditionTrue, metav1.ConditionFalse,
		v1alpha1.ReasonDeactivated, "The key is being deleted and is no longer accepted."))
	if f.Secret("first-token") != nil {
		t.Error("the Secret still exists")
	}
	f.assertIssued(f.WaitForReady("second", v1alpha1.ReasonIssued), "second-token")
}

func TestReconcile_ADeletedKeyReleasesItsAppName(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	first := f.CreateKey("first", appName("Frontend"))
	f.WaitForReady("first", v1alpha1.ReasonIssued)
	f.CreateKey("second", appName("Frontend"))
	f.WaitForReady("second", v1alpha1.ReasonAppNameConflict)
	framework.Must(f, f.Env.Client.Delete(t.Context(), first))
	f.assertIssued(f.WaitForReady("second", v1alpha1.ReasonIssued), "second-token")
}

func TestReconcile_AKeyCreatedInactiveGetsNoToken(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	f.CreateKey("frontend", func(key *v1alpha1.APIKey) { key.Spec.Active = new(false) })
	key := f.WaitForReady("frontend", v1alpha1.ReasonDeactivated)
	if apikey.IsClaimed(key) || f.Secret("frontend-token") != nil {
		t.Error("an inactive key has a token")
	}
}

func TestReconcile_ExpiryIsOnTimeAndFinal(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	f.CreateKey("frontend", func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = new(metav1.NewTime(time.Now().Add(time.Hour))) })
	f.WaitForReady("frontend", v1alpha1.ReasonIssued)
	expiry := metav1.NewTime(time.Now().Add(3 * time.Second).Truncate(time.Second))
	f.UpdateKey("frontend", func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = &expiry })

	key := f.WaitForReady("frontend", v1alpha1.ReasonExpired)
	f.assertConditions(key, conditions(metav1.ConditionTrue, metav1.ConditionFalse, v1alpha1.ReasonExpired, expired))
	if late := key.Status.DeactivatedAt.Sub(expiry.Time); late < 0 || late > 2*time.Second {
		t.Errorf("the expiry is recorded after %s", late)
	}
	f.waitForEnd("frontend", v1alpha1.ReasonExpired)

	f.Env.UpdateInEtcd(t, f.Namespace, "frontend", func(object map[string]any) { // as if the schema were older: it refuses this
		field{[]string{"spec"}, "expiresAt", time.Now().Add(time.Hour).UTC().Format(time.RFC3339)}.set(object)
	})
	f.touchSpec("frontend")
	if key := f.WaitForReady("frontend", v1alpha1.ReasonExpired); apikey.StateOf(key, time.Now()) != apikey.StateExpired {
		t.Error("a later expiry reactivates an expired key")
	}
	f.Deactivate("frontend")
	f.WaitForReady("frontend", v1alpha1.ReasonExpired) // it had ended before
}

func TestReconcile_AKeyCreatedExpiredGetsNoToken(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	f.CreateKey("frontend", func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = new(metav1.NewTime(time.Now().Add(-time.Hour))) })
	key := f.WaitForReady("frontend", v1alpha1.ReasonExpired)
	if apikey.IsClaimed(key) || f.Secret("frontend-token") != nil {
		t.Error("an expired key has a token")
	}
}

func TestReconcile_AnImportedTokenHasNoSecret(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	hash := token.Hash("imported")
	f.CreateKey("frontend", tokenHash(hash), func(key *v1alpha1.APIKey) { key.Spec.TokenHint = "old" })
	key := f.WaitForReady("frontend", v1alpha1.ReasonIssued)
	f.assertConditions(key, conditions(metav1.ConditionTrue, metav1.ConditionTrue, v1alpha1.ReasonIssued, acceptedImported))
	if record := key.Status.Tokens[0]; record.Hash != hash || record.Hint != "old" || record.NotBefore == nil {
		t.Errorf("the record is %v", record)
	}
	if key.Status.SecretName != "" || f.Secret("frontend-token") != nil {
		t.Error("an imported token has a Secret")
	}
	f.UpdateKey("frontend", func(key *v1alpha1.APIKey) { key.Spec.TokenHint = "new" })
	framework.Eventually(f, "the hint is updated", func() bool { return f.GetKey("frontend").Status.Tokens[0].Hint == "new" })
}

func TestReconcile_OneKeyOfANamespaceHasATokenHash(t *testing.T) {
	f := newFixture(t)
	f.clock.advance(renameTimeout) // a key that must wait is stalled at once
	f.startController(nil)
	hash := token.Hash("imported")
	first := f.CreateKey("first", tokenHash(hash))
	f.WaitForReady("first", v1alpha1.ReasonIssued)
	f.CreateKey("second", tokenHash(hash))
	const held = `APIKey "first" already has this token hash: delete that key, or import another token.`
	f.assertConditions(f.WaitForReady("second", v1alpha1.ReasonTokenHashConflict), stalled(v1alpha1.ReasonTokenHashConflict, held))

	f.Deactivate("first")
	f.WaitForReady("first", v1alpha1.ReasonDeactivated)
	f.touch("second", "after the deactivation")
	f.CreateKey("canary")
	f.WaitForReady("canary", v1alpha1.ReasonIssued)
	f.assertConditions(f.GetKey("second"), stalled(v1alpha1.ReasonTokenHashConflict, held)) // a revoked token is not accepted again

	framework.Must(f, f.Env.Client.Delete(t.Context(), first))
	if key := f.WaitForReady("second", v1alpha1.ReasonIssued); key.Status.Tokens[0].Hash != hash {
		t.Error("the second key does not have the hash")
	}
}

func TestReconcile_KeysOfTwoNamespacesMayHaveTheSameTokenHash(t *testing.T) {
	hash := token.Hash("imported in two namespaces")
	one := newSecondFixture(t)
	two := newSecondFixture(t)
	for _, f := range []*fixture{one, two} {
		f.startController(nil)
		f.CreateKey("frontend", tokenHash(hash))
		f.WaitForReady("frontend", v1alpha1.ReasonIssued)
	}
	framework.Must(one, one.Env.Client.Delete(t.Context(), one.GetKey("frontend")))
	two.touch("frontend", "after the deletion elsewhere")
	two.WaitForReady("frontend", v1alpha1.ReasonIssued)
}

func TestInvariant2_OneActiveKeyOfManyCreatedAtOnce(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	f.startController(nil) // two controllers, as if both were the leader
	const count = 60
	var creations sync.WaitGroup
	for i := range count {
		creations.Go(func() { f.CreateKey(fmt.Sprintf("key-%02d", i), appName("Frontend")) })
	}
	creations.Wait()

	var holder string
	framework.Eventually(f, "one key holds the name, and the others name it", func() bool {
		settled := 0
		for _, key := range f.Keys() {
			if apikey.IsIssued(&key) {
				holder = key.Name
			}
		}
		for _, key := range f.Keys() {
			if apikey.IsIssued(&key) || (len(key.Status.Conditions) == 3 && strings.Contains(key.Status.Conditions[0].Message, fmt.Sprintf("held by APIKey %q", holder))) {
				settled++
			}
		}
		return settled == count
	})
	f.assertIssued(f.GetKey(holder), holder+"-token")
	f.assertOneHandover(holder)
}

// assertOneHandover checks that of all keys of the namespace only the holder has, or ever had, a token.
func (f *fixture) assertOneHandover(holder string) {
	f.Helper()
	framework.Eventually(f, "no other key has a claim", func() bool { // a controller whose cache lags may claim for a moment
		return !slices.ContainsFunc(f.Keys(), func(key v1alpha1.APIKey) bool { return key.Name != holder && apikey.IsClaimed(&key) })
	})
	for _, key := range f.Keys() {
		if key.Name != holder && key.Status.SecretName != "" {
			f.Errorf("key %s has a Secret although %s holds the name", key.Name, holder)
		}
	}
	secrets := &corev1.SecretList{}
	framework.Must(f, f.Env.Client.List(f.Context(), secrets, client.InNamespace(f.Namespace)))
	for _, secret := range secrets.Items {
		if secret.Name != holder+"-token" {
			f.Errorf("a second Secret exists: %s", secret.Name)
		}
	}
}

func TestReconcile_ComparesAppNamesInUnicodeNFC(t *testing.T) {
	const composed, decomposed = "Caf\u00e9", "Cafe\u0301"
	f := newFixture(t)
	f.clock.advance(renameTimeout) // a key that must wait is stalled at once
	stop := f.startController(nil)
	f.CreateKey("first", appName(composed))
	f.WaitForReady("first", v1alpha1.ReasonIssued)
	f.CreateKey("second", appName(decomposed))
	f.assertConditions(f.WaitForReady("second", v1alpha1.ReasonAppNameConflict), stalled(v1alpha1.ReasonAppNameConflict,
		"App name \""+decomposed+"\" is held by APIKey \"first\": deactivate or delete that key, or create this one with another app name."))

	stop() // and an earlier version, which compared names byte by byte, issues both
	twin := f.GetKey("second")
	twin.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash("the twin's"), NotBefore: new(metav1.Now())}}
	framework.Must(f, f.Env.Client.Status().Update(t.Context(), twin))
	f.startController(nil)
	f.CreateKey("third", appName(composed))
	for _, name := range []string{"first", "second"} {
		f.WaitForReady(name, v1alpha1.ReasonIssued)
		f.WaitForReady("third", v1alpha1.ReasonAppNameConflict)
		f.Deactivate(name)
	}
	f.assertIssued(f.WaitForReady("third", v1alpha1.ReasonIssued), "third-token")
}

func TestReconcile_RecordsTheEventOfAConflictOfLongNames(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	appOfKeys := appName(strings.Repeat("\U0001F511", 255))
	holder, waiting := "a"+strings.Repeat("x", 200), "b"+strings.Repeat("x", 200)
	f.CreateKey(holder, appOfKeys)
	f.WaitForReady(holder, v1alpha1.ReasonIssued)
	f.CreateKey(waiting, appOfKeys)
	ready := meta.FindStatusCondition(f.WaitForReady(waiting, v1alpha1.ReasonAppNameConflict).Status.Conditions, v1alpha1.ConditionReady)
	_, note := f.waitForEvent(waiting, v1alpha1.ReasonAppNameConflict)
	if cut, isCut := strings.CutSuffix(note, "…"); !isCut || !strings.HasPrefix(ready.Message, cut) || len(note) < 1000 {
		t.Errorf("the note of the event is %q, the message %q", note, ready.Message)
	}
}
