// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// late returns the Secret that a controller writes for the key, of a token that it minted before it was stopped.
func (w *world) late(key *v1alpha1.APIKey) *corev1.Secret {
	secret := w.plant(key)
	minted := string(secret.Data["token"])
	secret.Immutable = new(true)
	secret.Annotations = map[string]string{
		"keys.squirrel.dev/apikey": key.Name, "keys.squirrel.dev/apikey-uid": string(key.UID), "keys.squirrel.dev/token-hash": token.Hash(minted),
	}
	return secret
}

func (w *world) claim(key *v1alpha1.APIKey, hash string, at time.Time) {
	w.Helper()
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: hash, ClaimedAt: new(metav1.NewTime(at))}}
	key.Status.SecretName = key.Name + "-token"
	w.must(w.env.Client.Status().Update(w.Context(), key))
}

// assertReplaced checks that the key was issued by another Secret than this one.
func (w *world) assertReplaced(void *corev1.Secret) {
	w.Helper()
	w.assertIssued(w.await("frontend", v1alpha1.ReasonIssued), "frontend-token")
	if secret := w.secret("frontend-token"); secret.UID == void.UID {
		w.Error("the Secret is still there")
	}
	w.assertOneHandover("frontend")
}

func TestInvariant3_ASecretOfAnAbandonedClaimIsReplaced(t *testing.T) {
	for name, test := range map[string]struct{ claimed, unmarked bool }{
		"the claim was given up":                                   {},
		"another claim took its place":                             {claimed: true},
		"the claim was given up, by a version that leaves no mark": {unmarked: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			key := w.createKey("frontend")
			if test.claimed {
				w.claim(key, token.Hash("lost too"), time.Now().Add(-time.Minute))
			}
			void := w.late(key)
			if test.unmarked {
				void.Annotations = nil
			}
			w.create(void)
			w.startController(nil)
			w.assertReplaced(void)
			const want = "A token of this key was minted earlier but never handed over: it is void, and a new one is minted."
			if eventType, note := w.awaitEvent("frontend", "MintedAgain"); eventType != corev1.EventTypeWarning || note != want {
				t.Errorf("the event is %s: %s", eventType, note)
			}
		})
	}
}

func TestInvariant3_ALateSecretDuringTheHandoverIsReplaced(t *testing.T) {
	w := newWorld(t)
	void := w.late(w.createKey("frontend"))
	var arriveOnce sync.Once
	w.startController(func(next http.RoundTripper) http.RoundTripper {
		return &intercept{next: next, answer: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
			if call == "POST secret" {
				arriveOnce.Do(func() { w.create(void) })
			}
			return send()
		}}
	})
	w.assertReplaced(void)
}

func TestInvariant3_ASecretWhoseTokenMayStillBeAcceptedIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	key := w.createKey("frontend")
	handedOver := w.late(key)
	var overtakeOnce sync.Once
	w.startController(func(next http.RoundTripper) http.RoundTripper {
		return &intercept{next: next, answer: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
			if call == "GET secret" {
				overtakeOnce.Do(func() { // another controller claims and hands over; the cache of this one has not seen the claim
					w.claim(key, handedOver.Annotations["keys.squirrel.dev/token-hash"], time.Now())
					w.create(handedOver)
				})
			}
			return send()
		}}
	})
	issued := w.await("frontend", v1alpha1.ReasonIssued)
	w.assertIssued(issued, "frontend-token")
	if secret := w.secret("frontend-token"); secret.UID != handedOver.UID {
		t.Error("the Secret that was handed over was replaced")
	}
}

func TestASecretThatIsNotAsTheControllerWroteItIsNeverReplaced(t *testing.T) {
	for name, edit := range map[string]func(*corev1.Secret){
		"another token":       func(s *corev1.Secret) { s.Data["token"] = []byte(token.New()) },
		"one more entry":      func(s *corev1.Secret) { s.Data["user"] = []byte("me") },
		"not immutable":       func(s *corev1.Secret) { s.Immutable = nil },
		"only half a mark":    func(s *corev1.Secret) { delete(s.Annotations, "keys.squirrel.dev/apikey") },
		"no mark, no owner":   func(s *corev1.Secret) { s.Annotations, s.OwnerReferences = nil, nil },
		"the mark of another": func(s *corev1.Secret) { s.Annotations["keys.squirrel.dev/apikey"] = "another" },
		"another UID":         func(s *corev1.Secret) { s.Annotations["keys.squirrel.dev/apikey-uid"] = "another" },
		"another owner":       func(s *corev1.Secret) { s.OwnerReferences[0].Kind, s.OwnerReferences[0].UID = "ConfigMap", "another" },
		"another type":        func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			edited := w.late(w.createKey("frontend"))
			edit(edited)
			w.create(edited)
			w.startController(nil)
			w.assertStandsBackFrom(edited, inTheWay)
		})
	}
}

func TestTheSecretOfAFormerKeyOfTheNameIsReplaced(t *testing.T) {
	for name, leave := range map[string]func(*corev1.Secret){
		"its key was deleted without it":  func(s *corev1.Secret) { s.OwnerReferences = nil },
		"it was restored from a backup":   func(*corev1.Secret) {},
		"it is owned by something else":   func(s *corev1.Secret) { s.OwnerReferences[0].Controller = nil },
		"its labels were changed by hand": func(s *corev1.Secret) { s.Labels, s.OwnerReferences = map[string]string{"a": "b"}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			former := w.createKey("frontend")
			former.UID = types.UID("former-" + string(former.UID))
			left := w.late(former)
			leave(left)
			w.create(left)
			w.startController(nil)
			w.assertReplaced(left)
		})
	}
}

func TestTheSecretOfAFormerKeyStaysWhileAnotherKeyHasItsToken(t *testing.T) {
	w := newWorld(t)
	former := w.createKey("frontend")
	former.UID = "former"
	left := w.late(former)
	left.OwnerReferences = nil
	w.create(left)
	w.createKey("imported", tokenHash(token.Hash(string(left.Data["token"]))))
	w.startController(nil)
	w.assertStandsBackFrom(left, inTheWay)
}

func TestTheSecretOfAFormerKeyOfAnotherNameIsNotReplaced(t *testing.T) {
	w := newWorld(t)
	left := w.late(w.createKey("former", func(key *v1alpha1.APIKey) { key.Spec.Active = new(false) }))
	left.OwnerReferences, left.Name = nil, "frontend-token"
	w.create(left)
	w.createKey("frontend")
	w.startController(nil)
	w.assertStandsBackFrom(left, `Secret "frontend-token" was left behind by APIKey "former": delete it, or create this key with another `+
		`spec.secret.name. The controller tries again at intervals that grow from 15s to 5m.`)
}

func TestTheSecretOfAKeyThatIsDeletedWithoutItGoes(t *testing.T) {
	w := newWorld(t)
	stop := w.startController(nil)
	key := w.createKey("frontend", func(key *v1alpha1.APIKey) { key.Finalizers = []string{"example.com/keep"} })
	w.await("frontend", v1alpha1.ReasonIssued)
	stop() // so that the garbage collector is faster
	w.must(w.env.Client.Delete(t.Context(), key, client.PropagationPolicy(metav1.DeletePropagationOrphan)))
	w.eventually("the Secret is an orphan", func() bool { return w.secret("frontend-token").OwnerReferences == nil })

	w.startController(nil)
	w.await("frontend", v1alpha1.ReasonDeactivated)
	if w.secret("frontend-token") != nil {
		t.Error("the Secret is still there")
	}
	w.update("frontend", func(key *v1alpha1.APIKey) { key.Finalizers = nil })
}

func TestTheSecretOfAKeyThatWasDeletedWithoutItIsReplacedByTheNextKeyOfTheName(t *testing.T) {
	w := newWorld(t)
	stop := w.startController(nil)
	key := w.createKey("frontend")
	w.await("frontend", v1alpha1.ReasonIssued)
	stop()
	w.must(w.env.Client.Delete(t.Context(), key, client.PropagationPolicy(metav1.DeletePropagationOrphan)))
	w.eventually("the key is gone", func() bool { return len(w.keys()) == 0 })
	left := w.secret("frontend-token")
	if left == nil || left.OwnerReferences != nil {
		t.Fatalf("the Secret is no orphan: %v", left)
	}
	w.createKey("frontend")
	w.startController(nil)
	w.assertReplaced(left)
}

func TestALateSecretGoesWithTheTimeToLiveAndTheEndOfItsKey(t *testing.T) {
	for name, end := range map[string]func(w *world){
		"time to live": func(w *world) { w.clock.advance(2 * time.Hour); w.touchSpec("frontend") },
		"end":          func(w *world) { w.deactivate("frontend") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.startController(nil)
			w.createKey("frontend", func(key *v1alpha1.APIKey) {
				key.Spec.Secret = &v1alpha1.TokenSecret{TTL: &metav1.Duration{Duration: time.Hour}}
			})
			issued := w.await("frontend", v1alpha1.ReasonIssued)
			w.must(w.env.Client.Delete(t.Context(), w.secret("frontend-token")))
			w.create(w.late(issued))
			end(w)
			w.eventually("the late Secret is gone", func() bool {
				return w.secret("frontend-token") == nil && w.get("frontend").Status.SecretName == ""
			})
		})
	}
}

func TestTheSecretSaysWhichKeyAndTokenItIsOf(t *testing.T) {
	w := newWorld(t)
	w.startController(nil)
	name := strings.Repeat("a", 247) // no label could hold it
	w.createKey(name)
	key := w.await(name, v1alpha1.ReasonIssued)
	got := w.secret(name + "-token").Annotations
	if got["keys.squirrel.dev/apikey"] != name || got["keys.squirrel.dev/apikey-uid"] != string(key.UID) ||
		got["keys.squirrel.dev/token-hash"] != key.Status.Tokens[0].Hash || len(got) != 3 {
		t.Errorf("the annotations are %v", got)
	}
}
