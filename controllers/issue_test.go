// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"fmt"
	"maps"
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
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

const (
	acceptedMinted  = "The token is accepted. It was handed over in a Secret."
	acceptedBrought = "The token that was brought is accepted."
	deactivated     = "The key was deactivated and is accepted no more."
	expired         = "The key has expired and is accepted no more."
)

func conditions(ready, active metav1.ConditionStatus, reason, message string) map[string]string {
	return map[string]string{
		v1alpha1.ConditionReady:  fmt.Sprintf("%s %s: %s", ready, reason, message),
		v1alpha1.ConditionActive: fmt.Sprintf("%s %s: %s", active, reason, message),
	}
}

func stalled(reason, message string) map[string]string {
	want := conditions(metav1.ConditionFalse, metav1.ConditionFalse, reason, message)
	want[v1alpha1.ConditionStalled] = fmt.Sprintf("True %s: %s", reason, message)
	return want
}

func (w *world) assertKstatus(key *v1alpha1.APIKey, want status.Status) {
	w.Helper()
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(key)
	w.must(err)
	object := &unstructured.Unstructured{Object: content}
	object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("APIKey"))
	result, err := status.Compute(object)
	w.must(err)
	if result.Status != want {
		w.Errorf("kstatus computes %s (%s) for %s, want %s", result.Status, result.Message, key.Name, want)
	}
}

func TestAKeyIsIssuedThroughAOneTimeSecret(t *testing.T) {
	w := newWorld(t)
	w.createKey("frontend")
	w.assertKstatus(w.get("frontend"), status.InProgressStatus)

	w.startController(nil)
	key := w.await("frontend", v1alpha1.ReasonIssued)

	w.assertConditions(key, conditions(metav1.ConditionTrue, metav1.ConditionTrue, v1alpha1.ReasonIssued, acceptedMinted))
	w.assertKstatus(key, status.CurrentStatus)
	w.assertIssued(key, "frontend-token")
	if key.Status.SecretName != "frontend-token" {
		t.Errorf("status.secretName is %q", key.Status.SecretName)
	}
	secret := w.secret("frontend-token")
	minted := string(secret.Data["token"])
	if len(secret.Data) != 1 || len(minted) != token.Length || key.Status.Tokens[0].Hint != minted[:7] {
		t.Errorf("the Secret holds %d entries and a token of %d characters; the hint is %q", len(secret.Data), len(minted), key.Status.Tokens[0].Hint)
	}
	wantOwner := []metav1.OwnerReference{{
		APIVersion: "keys.squirrel.dev/v1alpha1", Kind: "APIKey", Name: "frontend", UID: key.UID,
		Controller: new(true), BlockOwnerDeletion: new(false),
	}}
	if diff := cmp.Diff(wantOwner, secret.OwnerReferences); diff != "" {
		t.Errorf("owner references (-want +got):\n%s", diff)
	}
	if secret.Type != "keys.squirrel.dev/token" || !ptr.Deref(secret.Immutable, false) {
		t.Errorf("the Secret has type %s, immutable %v", secret.Type, secret.Immutable)
	}
	if diff := cmp.Diff(map[string]string{"app.kubernetes.io/managed-by": "apikey-operator"}, secret.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if eventType, note := w.awaitEvent("frontend", v1alpha1.ReasonIssued); eventType != corev1.EventTypeNormal || note != acceptedMinted {
		t.Errorf("the event is %s: %s", eventType, note)
	}
}

func TestTheSecretHasTheDeclaredNameAndKey(t *testing.T) {
	w := newWorld(t)
	w.startController(nil)
	w.createKey("frontend", func(key *v1alpha1.APIKey) {
		key.Spec.Secret = &v1alpha1.TokenSecret{Name: "elsewhere", Key: "api.key"}
	})
	key := w.await("frontend", v1alpha1.ReasonIssued)
	secret := w.secret("elsewhere")
	if secret == nil || token.Hash(string(secret.Data["api.key"])) != key.Status.Tokens[0].Hash || key.Status.SecretName != "elsewhere" {
		t.Errorf("the token is not in entry api.key of Secret elsewhere; status.secretName is %q", key.Status.SecretName)
	}
}

func TestInvariant3_AnIssuedKeyIsNeverMintedAgain(t *testing.T) {
	w := newWorld(t)
	stop := w.startController(nil)
	w.createKey("frontend")
	issued := w.await("frontend", v1alpha1.ReasonIssued)

	provocations := map[string]func(){
		"the Secret is deleted":     func() { w.must(w.env.Client.Delete(t.Context(), w.secret("frontend-token"))) },
		"labels are edited":         func() { w.update("frontend", func(key *v1alpha1.APIKey) { key.Labels = map[string]string{"a": "b"} }) },
		"annotations are removed":   func() { w.update("frontend", func(key *v1alpha1.APIKey) { key.Annotations = nil }) },
		"the key is applied again":  func() { w.update("frontend", func(key *v1alpha1.APIKey) { key.Spec = w.key("frontend").Spec }) },
		"its access is changed":     func() { w.update("frontend", func(key *v1alpha1.APIKey) { key.Spec.WriteAccess = true }) },
		"the controller starts new": func() { stop(); stop = w.startController(nil) },
	}
	for name, provoke := range maps.All(provocations) {
		provoke()
		w.touch("frontend", name)
		w.createKey("canary-" + fmt.Sprint(len(w.keys())))
		w.await("canary-"+fmt.Sprint(len(w.keys())-1), v1alpha1.ReasonIssued)
		key := w.await("frontend", v1alpha1.ReasonIssued)
		if diff := cmp.Diff(issued.Status.Tokens, key.Status.Tokens); diff != "" {
			t.Errorf("when %s, the tokens change (-before +after):\n%s", name, diff)
		}
	}
	if w.secret("frontend-token") != nil {
		t.Error("the deleted Secret is there again")
	}
}

func TestAFreshControllerSeesWhatHappenedToIssuedKeysWhileNoneRan(t *testing.T) {
	w := newWorld(t)
	stop := w.startController(nil)
	w.createKey("untouched")
	w.createKey("deactivated")
	w.createKey("altered")
	w.createKey("hinted", tokenHash(token.Hash("brought")))
	w.createKey("expired", func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = new(metav1.NewTime(time.Now().Add(time.Hour))) })
	w.createKey("due", func(key *v1alpha1.APIKey) {
		key.Spec.Secret = &v1alpha1.TokenSecret{TTL: &metav1.Duration{Duration: time.Hour}}
	})
	for _, key := range w.keys() {
		w.await(key.Name, v1alpha1.ReasonIssued)
	}
	stop()

	untouched := w.get("untouched")
	w.deactivate("deactivated")
	altered := w.get("altered")
	altered.Status.Conditions = altered.Status.Conditions[:1]
	w.must(w.env.Client.Status().Update(t.Context(), altered))
	w.update("hinted", func(key *v1alpha1.APIKey) { key.Spec.TokenHint = "brought" })
	w.clock.advance(2 * time.Hour)

	w.startController(nil)
	w.await("deactivated", v1alpha1.ReasonDeactivated)
	w.await("expired", v1alpha1.ReasonExpired)
	w.eventually("the Secret is removed", func() bool { return w.secret("due-token") == nil })
	w.eventually("the condition is restored", func() bool { return len(w.get("altered").Status.Conditions) == 2 })
	if hint := w.await("hinted", v1alpha1.ReasonIssued).Status.Tokens[0].Hint; hint != "brought" {
		t.Errorf("the hint is %q", hint)
	}
	if version := w.get("untouched").ResourceVersion; version != untouched.ResourceVersion {
		t.Errorf("the key that nothing happened to is at version %s, which was %s", version, untouched.ResourceVersion)
	}
}

func TestAFreshControllerMintsAgainWhatWasNeverHandedOver(t *testing.T) {
	w := newWorld(t)
	key := w.createKey("frontend")
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash("lost"), Hint: "sq_lost"}}
	key.Status.SecretName = "frontend-token"
	w.must(w.env.Client.Status().Update(t.Context(), key))

	w.startController(nil)
	w.assertIssued(w.await("frontend", v1alpha1.ReasonIssued), "frontend-token")
	const want = "A token of this key was minted earlier but never handed over: it is void, and a new one is minted."
	if eventType, note := w.awaitEvent("frontend", "MintedAgain"); eventType != corev1.EventTypeWarning || note != want {
		t.Errorf("the event is %s: %s", eventType, note)
	}
}

func TestTheSecretGoesWhenItsTimeToLiveIsOver(t *testing.T) {
	w := newWorld(t)
	w.startController(nil)
	w.createKey("frontend", func(key *v1alpha1.APIKey) {
		key.Spec.Secret = &v1alpha1.TokenSecret{TTL: &metav1.Duration{Duration: time.Hour}}
	})
	w.await("frontend", v1alpha1.ReasonIssued)
	w.clock.advance(59 * time.Minute)
	w.touch("frontend", "early")
	w.createKey("canary")
	w.await("canary", v1alpha1.ReasonIssued)
	if w.secret("frontend-token") == nil {
		t.Fatal("the Secret went before its time")
	}
	w.clock.advance(2 * time.Minute)
	w.touch("frontend", "late")
	w.eventually("the Secret is gone, and off the record", func() bool {
		return w.secret("frontend-token") == nil && w.get("frontend").Status.SecretName == ""
	})
	key := w.get("frontend")
	w.assertConditions(key, conditions(metav1.ConditionTrue, metav1.ConditionTrue, v1alpha1.ReasonIssued, acceptedMinted))
	if _, note := w.awaitEvent("frontend", "SecretRemoved"); note != `The one-time Secret "frontend-token" was removed: its time to live is over.` {
		t.Errorf("the event says %q", note)
	}
}

func TestADeactivatedKeyLosesItsSecretAndFreesItsName(t *testing.T) {
	w := newWorld(t)
	w.startController(nil)
	w.createKey("first", appName("Frontend"))
	w.await("first", v1alpha1.ReasonIssued)
	w.createKey("second", appName("Frontend"))
	second := w.await("second", v1alpha1.ReasonAppNameConflict)
	const held = `App name "Frontend" is held by APIKey "first": deactivate or delete that key, or create this one with another app name.`
	w.assertConditions(second, stalled(v1alpha1.ReasonAppNameConflict, held))
	w.assertKstatus(second, status.FailedStatus)
	if apikey.IsClaimed(second) || w.secret("second-token") != nil {
		t.Error("the key that stands back has a token")
	}
	if eventType, note := w.awaitEvent("second", v1alpha1.ReasonAppNameConflict); eventType != corev1.EventTypeWarning || note != held {
		t.Errorf("the event is %s: %s", eventType, note)
	}

	w.deactivate("first")
	first := w.await("first", v1alpha1.ReasonDeactivated)
	w.assertConditions(first, conditions(metav1.ConditionTrue, metav1.ConditionFalse, v1alpha1.ReasonDeactivated, deactivated))
	w.assertKstatus(first, status.CurrentStatus)
	if first.Status.DeactivatedAt == nil || first.Status.SecretName != "" || w.secret("first-token") != nil {
		t.Errorf("deactivatedAt %v, secretName %q", first.Status.DeactivatedAt, first.Status.SecretName)
	}
	w.assertIssued(w.await("second", v1alpha1.ReasonIssued), "second-token")
}

func TestAKeyThatIsBeingDeletedLosesItsSecretAndFreesItsName(t *testing.T) {
	w := newWorld(t)
	w.startController(nil)
	first := w.createKey("first", appName("Frontend"), func(key *v1alpha1.APIKey) { key.Finalizers = []string{"example.com/keep"} })
	w.await("first", v1alpha1.ReasonIssued)
	w.createKey("second", appName("Frontend"))
	w.await("second", v1alpha1.ReasonAppNameConflict)
	w.must(w.env.Client.Delete(t.Context(), first))
	w.assertConditions(w.await("first", v1alpha1.ReasonDeactivated), conditions(metav1.ConditionTrue, metav1.ConditionFalse,
		v1alpha1.ReasonDeactivated, "The key is being deleted and is accepted no more."))
	if w.secret("first-token") != nil {
		t.Error("the Secret is still there")
	}
	w.assertIssued(w.await("second", v1alpha1.ReasonIssued), "second-token")
}

func TestADeletedKeyFreesItsName(t *testing.T) {
	w := newWorld(t)
	w.startController(nil)
	first := w.createKey("first", appName("Frontend"))
	w.await("first", v1alpha1.ReasonIssued)
	w.createKey("second", appName("Frontend"))
	w.await("second", v1alpha1.ReasonAppNameConflict)
	w.must(w.env.Client.Delete(t.Context(), first))
	w.assertIssued(w.await("second", v1alpha1.ReasonIssued), "second-token")
}

func TestAKeyCreatedInactiveNeverGetsAToken(t *testing.T) {
	w := newWorld(t)
	w.startController(nil)
	w.createKey("frontend", func(key *v1alpha1.APIKey) { key.Spec.Active = new(false) })
	key := w.await("frontend", v1alpha1.ReasonDeactivated)
	if apikey.IsClaimed(key) || w.secret("frontend-token") != nil {
		t.Error("an inactive key has a token")
	}
}

func TestExpiryIsAtTheInstantAndFinal(t *testing.T) {
	w := newWorld(t)
	w.startController(nil)
	w.createKey("frontend", func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = new(metav1.NewTime(time.Now().Add(time.Hour))) })
	w.await("frontend", v1alpha1.ReasonIssued)
	expiry := metav1.NewTime(time.Now().Add(3 * time.Second).Truncate(time.Second))
	w.update("frontend", func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = &expiry })

	key := w.await("frontend", v1alpha1.ReasonExpired)
	w.assertConditions(key, conditions(metav1.ConditionTrue, metav1.ConditionFalse, v1alpha1.ReasonExpired, expired))
	if late := key.Status.DeactivatedAt.Sub(expiry.Time); late < 0 || late > 2*time.Second {
		t.Errorf("the expiry is recorded %s after the instant", late)
	}
	if w.secret("frontend-token") != nil {
		t.Error("the Secret of an expired key is still there")
	}

	w.update("frontend", func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = new(metav1.NewTime(time.Now().Add(time.Hour))) })
	if key := w.await("frontend", v1alpha1.ReasonExpired); apikey.StateOf(key, time.Now()) != apikey.StateExpired {
		t.Error("a later expiry brings an expired key back")
	}
	w.deactivate("frontend")
	w.await("frontend", v1alpha1.ReasonExpired) // it had ended before
}

func TestAKeyThatExpiredBeforeItsCreationNeverGetsAToken(t *testing.T) {
	w := newWorld(t)
	w.startController(nil)
	w.createKey("frontend", func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = new(metav1.NewTime(time.Now().Add(-time.Hour))) })
	key := w.await("frontend", v1alpha1.ReasonExpired)
	if apikey.IsClaimed(key) || w.secret("frontend-token") != nil {
		t.Error("an expired key has a token")
	}
}

func TestABroughtHashCountsWithoutASecret(t *testing.T) {
	w := newWorld(t)
	w.startController(nil)
	hash := token.Hash("brought")
	w.createKey("frontend", tokenHash(hash), func(key *v1alpha1.APIKey) { key.Spec.TokenHint = "old" })
	key := w.await("frontend", v1alpha1.ReasonIssued)
	w.assertConditions(key, conditions(metav1.ConditionTrue, metav1.ConditionTrue, v1alpha1.ReasonIssued, acceptedBrought))
	if record := key.Status.Tokens[0]; record.Hash != hash || record.Hint != "old" || record.NotBefore == nil {
		t.Errorf("the record is %v", record)
	}
	if key.Status.SecretName != "" || w.secret("frontend-token") != nil {
		t.Error("a brought hash has a Secret")
	}
	w.update("frontend", func(key *v1alpha1.APIKey) { key.Spec.TokenHint = "new" })
	w.eventually("the hint follows", func() bool { return w.get("frontend").Status.Tokens[0].Hint == "new" })
}

func TestOneHashInOneNamespaceCountsOnce(t *testing.T) {
	w := newWorld(t)
	w.startController(nil)
	hash := token.Hash("brought")
	first := w.createKey("first", tokenHash(hash))
	w.await("first", v1alpha1.ReasonIssued)
	w.createKey("second", tokenHash(hash))
	const held = `The token hash is that of APIKey "first": delete that key, or bring another token.`
	w.assertConditions(w.await("second", v1alpha1.ReasonTokenHashConflict), stalled(v1alpha1.ReasonTokenHashConflict, held))

	w.deactivate("first")
	w.await("first", v1alpha1.ReasonDeactivated)
	w.touch("second", "after the deactivation")
	w.createKey("canary")
	w.await("canary", v1alpha1.ReasonIssued)
	w.assertConditions(w.get("second"), stalled(v1alpha1.ReasonTokenHashConflict, held)) // a revoked token does not come back

	w.must(w.env.Client.Delete(t.Context(), first))
	if key := w.await("second", v1alpha1.ReasonIssued); key.Status.Tokens[0].Hash != hash {
		t.Error("the second key does not have the hash")
	}
}

func TestOneHashInTwoNamespacesCountsInBoth(t *testing.T) {
	hash := token.Hash("brought in two namespaces")
	one := newWorldBeside(t)
	two := newWorldBeside(t)
	for _, w := range []*world{one, two} {
		w.startController(nil)
		w.createKey("frontend", tokenHash(hash))
		w.await("frontend", v1alpha1.ReasonIssued)
	}
	one.must(one.env.Client.Delete(t.Context(), one.get("frontend")))
	two.touch("frontend", "after the deletion elsewhere")
	two.await("frontend", v1alpha1.ReasonIssued)
}

func TestInvariant2_OneActiveKeyPerNameHoweverManyAreCreatedAtOnce(t *testing.T) {
	w := newWorld(t)
	w.startController(nil)
	w.startController(nil) // two that both work, as if each took itself for the leader
	const count = 60
	var creations sync.WaitGroup
	for i := range count {
		creations.Go(func() { w.createKey(fmt.Sprintf("key-%02d", i), appName("Frontend")) })
	}
	creations.Wait()

	var holder string
	w.eventually("one key holds the name, and the others say so", func() bool {
		settled := 0
		for _, key := range w.keys() {
			if apikey.IsIssued(&key) {
				holder = key.Name
			}
		}
		for _, key := range w.keys() {
			if apikey.IsIssued(&key) || (len(key.Status.Conditions) == 3 && strings.Contains(key.Status.Conditions[0].Message, fmt.Sprintf("held by APIKey %q", holder))) {
				settled++
			}
		}
		return settled == count
	})
	w.assertIssued(w.get(holder), holder+"-token")
	w.assertOneHandover(holder)
}

// assertOneHandover checks that of all keys of the namespace only the holder has, or ever had, a token.
func (w *world) assertOneHandover(holder string) {
	w.Helper()
	for _, key := range w.keys() {
		if key.Name != holder && (apikey.IsClaimed(&key) || key.Status.SecretName != "") {
			w.Errorf("key %s has a token beside the holder %s", key.Name, holder)
		}
	}
	secrets := &corev1.SecretList{}
	w.must(w.env.Client.List(w.Context(), secrets, client.InNamespace(w.namespace)))
	for _, secret := range secrets.Items {
		if secret.Name != holder+"-token" {
			w.Errorf("there is a second Secret, %s", secret.Name)
		}
	}
}

func TestAnAppNameIsTheSameHoweverItsAccentsAreWritten(t *testing.T) {
	const composed, decomposed = "Caf\u00e9", "Cafe\u0301"
	w := newWorld(t)
	stop := w.startController(nil)
	w.createKey("first", appName(composed))
	w.await("first", v1alpha1.ReasonIssued)
	w.createKey("second", appName(decomposed))
	w.assertConditions(w.await("second", v1alpha1.ReasonAppNameConflict), stalled(v1alpha1.ReasonAppNameConflict,
		"App name \""+decomposed+"\" is held by APIKey \"first\": deactivate or delete that key, or create this one with another app name."))

	stop() // and a controller that compared names as they are written issues both
	twin := w.get("second")
	twin.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash("the twin's"), NotBefore: new(metav1.Now())}}
	w.must(w.env.Client.Status().Update(t.Context(), twin))
	w.startController(nil)
	w.createKey("third", appName(composed))
	for _, name := range []string{"first", "second"} {
		w.await(name, v1alpha1.ReasonIssued)
		w.await("third", v1alpha1.ReasonAppNameConflict)
		w.deactivate(name)
	}
	w.assertIssued(w.await("third", v1alpha1.ReasonIssued), "third-token")
}

func TestTheEventOfAConflictComesHoweverLongTheNamesAre(t *testing.T) {
	w := newWorld(t)
	w.startController(nil)
	appOfKeys := appName(strings.Repeat("\U0001F511", 255))
	holder, waiting := "a"+strings.Repeat("x", 200), "b"+strings.Repeat("x", 200)
	w.createKey(holder, appOfKeys)
	w.await(holder, v1alpha1.ReasonIssued)
	w.createKey(waiting, appOfKeys)
	ready := meta.FindStatusCondition(w.await(waiting, v1alpha1.ReasonAppNameConflict).Status.Conditions, v1alpha1.ConditionReady)
	_, note := w.awaitEvent(waiting, v1alpha1.ReasonAppNameConflict)
	if cut, isCut := strings.CutSuffix(note, "…"); !isCut || !strings.HasPrefix(ready.Message, cut) || len(note) < 1000 {
		t.Errorf("the event says %q of %q", note, ready.Message)
	}
}
