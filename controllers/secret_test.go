// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
)

// late returns the Secret that a controller writes for the key if it was paused after it minted the token.
func (f *fixture) late(key *v1alpha1.APIKey) *corev1.Secret {
	secret := f.forge(key)
	minted := string(secret.Data["token"])
	secret.Annotations = map[string]string{
		"keys.squirrel.dev/apikey": key.Name, "keys.squirrel.dev/apikey-uid": string(key.UID), "keys.squirrel.dev/token-hash": token.Hash(minted),
	}
	return secret
}

func (f *fixture) claim(key *v1alpha1.APIKey, hash string, at time.Time) {
	f.Helper()
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: hash, ClaimedAt: new(metav1.NewTime(at))}}
	key.Status.SecretName = key.Name + "-token"
	framework.Must(f, f.Env.Client.Status().Update(f.Context(), key))
}

// assertReplaced checks that the key was issued with a Secret that replaced this one.
func (f *fixture) assertReplaced(void *corev1.Secret) {
	f.Helper()
	f.assertIssued(f.WaitForReady("frontend", v1alpha1.ReasonIssued), "frontend-token")
	if secret := f.Secret("frontend-token"); secret.UID == void.UID {
		f.Error("the Secret still exists")
	}
	f.assertOneHandover("frontend")
}

func TestInvariant3_TheSecretOfADroppedClaimIsReplaced(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ claimed, immutable bool }{
		"the claim was dropped":                        {},
		"another claim replaced it":                    {claimed: true},
		"an earlier version wrote an immutable Secret": {immutable: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			key := f.CreateKey("frontend")
			if test.claimed {
				f.claim(key, token.Hash("lost"), time.Now().Add(-time.Minute))
			}
			void := f.late(key)
			if test.immutable {
				void.Immutable = new(true)
			}
			f.Create(void)
			f.startController(nil)
			f.assertReplaced(void)
			const want = "An earlier token of this key was never handed over and is void: the controller mints a new one."
			if eventType, note := f.waitForEvent("frontend", "Reissued"); eventType != corev1.EventTypeWarning || note != want {
				t.Errorf("the event is %s: %s", eventType, note)
			}
		})
	}
}

func TestInvariant3_ALateSecretDuringTheHandoverIsReplaced(t *testing.T) {
	f := newFixture(t)
	void := f.late(f.CreateKey("frontend"))
	var createOnce sync.Once
	f.startController(func(next http.RoundTripper) http.RoundTripper {
		return &intercept{next: next, respond: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
			if call == "POST secret" {
				createOnce.Do(func() { f.Create(void) })
			}
			return send()
		}}
	})
	f.assertReplaced(void)
}

func TestInvariant3_ASecretWhoseTokenMayBeAcceptedIsNotReplaced(t *testing.T) {
	t.Parallel()
	for attempt, firstCall := range map[string]string{"first": "PUT status", "later": "GET secret"} {
		t.Run(attempt+" attempt", func(t *testing.T) {
			f := newFixture(t)
			key := f.CreateKey("frontend")
			if attempt == "later" {
				f.updateStatus("frontend", func(status *v1alpha1.APIKeyStatus) {
					status.Conditions = []metav1.Condition{stalledCondition(v1alpha1.ConditionReady, metav1.ConditionFalse),
						stalledCondition(v1alpha1.ConditionStalled, metav1.ConditionTrue)}
				})
			}
			handedOver := f.late(key)
			var claimOnce sync.Once
			f.startController(func(next http.RoundTripper) http.RoundTripper {
				return &intercept{next: next, respond: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
					if call == firstCall {
						claimOnce.Do(func() { // another controller claims and hands over, and the cache of this one has not seen the claim
							f.claim(f.GetKey("frontend"), handedOver.Annotations["keys.squirrel.dev/token-hash"], time.Now())
							f.Create(handedOver)
						})
					}
					return send()
				}}
			})
			f.assertIssued(f.WaitForReady("frontend", v1alpha1.ReasonIssued), "frontend-token")
			if secret := f.Secret("frontend-token"); secret.UID != handedOver.UID {
				t.Error("the Secret that was handed over was replaced")
			}
		})
	}
}

// stalledCondition returns a condition of a key whose Secret's name is taken.
func stalledCondition(conditionType string, status metav1.ConditionStatus) metav1.Condition {
	return metav1.Condition{
		Type: conditionType, Status: status, Reason: v1alpha1.ReasonSecretConflict, Message: foreignSecret, LastTransitionTime: metav1.Now(),
	}
}

func TestInvariant3_ASecretThatIsWrittenAsItsClaimBecomesVoidIsAccepted(t *testing.T) {
	f := newFixture(t)
	key := f.CreateKey("frontend")
	handedOver := f.late(key)
	f.claim(key, handedOver.Annotations["keys.squirrel.dev/token-hash"], time.Now().Add(-time.Minute))
	var createOnce sync.Once
	f.startController(func(next http.RoundTripper) http.RoundTripper {
		return &intercept{next: next, respond: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
			response, err := send()
			if call == "GET secret" { // which did not find it
				createOnce.Do(func() { f.Create(handedOver) })
			}
			return response, err
		}}
	})
	f.assertIssued(f.WaitForReady("frontend", v1alpha1.ReasonIssued), "frontend-token")
	if secret := f.Secret("frontend-token"); secret.UID != handedOver.UID {
		f.Error("the Secret that was handed over was replaced")
	}
}

func TestReconcile_AChangedSecretIsNeverReplaced(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*corev1.Secret){
		"another token":            func(s *corev1.Secret) { s.Data["token"] = []byte(token.New()) },
		"a second data key":        func(s *corev1.Secret) { s.Data["user"] = []byte("me") },
		"an annotation less":       func(s *corev1.Secret) { delete(s.Annotations, "keys.squirrel.dev/apikey") },
		"no annotations":           func(s *corev1.Secret) { s.Annotations = nil },
		"no annotations, no owner": func(s *corev1.Secret) { s.Annotations, s.OwnerReferences = nil, nil },
		"another annotation":       func(s *corev1.Secret) { s.Annotations["keys.squirrel.dev/apikey"] = "another" },
		"another UID":              func(s *corev1.Secret) { s.Annotations["keys.squirrel.dev/apikey-uid"] = "another" },
		"another owner":            func(s *corev1.Secret) { s.OwnerReferences[0].Kind, s.OwnerReferences[0].UID = "ConfigMap", "another" },
		"another type":             func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			edited := f.late(f.CreateKey("frontend"))
			edit(edited)
			f.Create(edited)
			f.startController(nil)
			f.assertSecretConflict(edited, foreignSecret)
		})
	}
}

func TestReconcile_ReplacesTheSecretOfAFormerKey(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*corev1.Secret){
		"its key was deleted without it":  func(s *corev1.Secret) { s.OwnerReferences = nil },
		"it was restored from a backup":   func(*corev1.Secret) {},
		"it is owned by something else":   func(s *corev1.Secret) { s.OwnerReferences[0].Controller = nil },
		"its labels were changed by hand": func(s *corev1.Secret) { s.Labels, s.OwnerReferences = map[string]string{"a": "b"}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			former := f.CreateKey("frontend")
			former.UID = types.UID("former-" + string(former.UID))
			left := f.late(former)
			leave(left)
			f.Create(left)
			f.startController(nil)
			f.assertReplaced(left)
		})
	}
}

func TestReconcile_KeepsTheSecretOfAFormerKeyWhoseTokenWasImported(t *testing.T) {
	f := newFixture(t)
	former := f.CreateKey("frontend")
	former.UID = "former"
	left := f.late(former)
	left.OwnerReferences = nil
	f.Create(left)
	f.CreateKey("imported", tokenHash(token.Hash(string(left.Data["token"]))))
	f.startController(nil)
	f.assertSecretConflict(left, foreignSecret)
}

func TestReconcile_KeepsTheSecretOfAFormerKeyOfAnotherName(t *testing.T) {
	f := newFixture(t)
	left := f.late(f.CreateKey("former", func(key *v1alpha1.APIKey) { key.Spec.Active = new(false) }))
	left.OwnerReferences, left.Name = nil, "frontend-token"
	f.Create(left)
	f.CreateKey("frontend")
	f.startController(nil)
	f.assertSecretConflict(left, `Secret "frontend-token" belonged to APIKey "former", which was deleted without it: delete it, or create this key with another `+
		`spec.secret.name. The controller retries at intervals that grow from 15s to 5m.`)
}

func TestReconcile_DeletesTheOrphanedSecretOfAKeyThatIsBeingDeleted(t *testing.T) {
	f := newFixture(t)
	stop := f.startController(nil)
	key := f.CreateKey("frontend", func(key *v1alpha1.APIKey) { key.Finalizers = []string{"example.com/keep"} })
	f.WaitForReady("frontend", v1alpha1.ReasonIssued)
	stop() // so that the garbage collector removes the owner reference first
	framework.Must(f, f.Env.Client.Delete(t.Context(), key, client.PropagationPolicy(metav1.DeletePropagationOrphan)))
	framework.Eventually(f, "the Secret is an orphan", func() bool { return f.Secret("frontend-token").OwnerReferences == nil })

	f.startController(nil)
	f.WaitForReady("frontend", v1alpha1.ReasonDeactivated)
	if f.Secret("frontend-token") != nil {
		t.Error("the Secret still exists")
	}
	f.UpdateKey("frontend", func(key *v1alpha1.APIKey) { key.Finalizers = nil })
}

func TestReconcile_ReplacesTheOrphanedSecretOfADeletedKey(t *testing.T) {
	f := newFixture(t)
	stop := f.startController(nil)
	key := f.CreateKey("frontend")
	f.WaitForReady("frontend", v1alpha1.ReasonIssued)
	stop()
	framework.Must(f, f.Env.Client.Delete(t.Context(), key, client.PropagationPolicy(metav1.DeletePropagationOrphan)))
	framework.Eventually(f, "the key is deleted", func() bool { return len(f.Keys()) == 0 })
	left := f.Secret("frontend-token")
	if left == nil || left.OwnerReferences != nil {
		t.Fatalf("the Secret is not an orphan: %v", left)
	}
	f.CreateKey("frontend")
	f.startController(nil)
	f.assertReplaced(left)
}

func TestReconcile_DeletesALateSecretAtItsTTLAndAtTheEndOfItsKey(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(f *fixture){
		"ttl": func(f *fixture) { f.clock.advance(2 * time.Hour); f.touchSpec("frontend") },
		"end": func(f *fixture) { f.Deactivate("frontend") },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.startController(nil)
			f.CreateKey("frontend", func(key *v1alpha1.APIKey) {
				key.Spec.Secret = &v1alpha1.TokenSecret{TTL: &metav1.Duration{Duration: time.Hour}}
			})
			issued := f.WaitForReady("frontend", v1alpha1.ReasonIssued)
			framework.Must(f, f.Env.Client.Delete(t.Context(), f.Secret("frontend-token")))
			f.Create(f.late(issued))
			end(f)
			framework.Eventually(f, "the late Secret is deleted", func() bool {
				return f.Secret("frontend-token") == nil && f.GetKey("frontend").Status.SecretName == ""
			})
		})
	}
}

func TestReconcile_TheSecretHasAnnotationsOfItsKeyAndToken(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	name := strings.Repeat("a", 247) // longer than a label value
	f.CreateKey(name)
	key := f.WaitForReady(name, v1alpha1.ReasonIssued)
	got := f.Secret(name + "-token").Annotations
	if got["keys.squirrel.dev/apikey"] != name || got["keys.squirrel.dev/apikey-uid"] != string(key.UID) ||
		got["keys.squirrel.dev/token-hash"] != key.Status.Tokens[0].Hash || len(got) != 3 {
		t.Errorf("the annotations are %v", got)
	}
}

func TestReconcile_TheSecretHasTheDeclaredLabelsAndAnnotations(t *testing.T) {
	f := newFixture(t)
	f.CreateKey("holder", appName("Frontend"))
	f.startController(nil)
	f.WaitForReady("holder", v1alpha1.ReasonIssued)
	f.CreateKey("frontend", appName("Frontend"), func(key *v1alpha1.APIKey) {
		key.Spec.Secret = &v1alpha1.TokenSecret{
			Labels: map[string]v1alpha1.LabelValue{"team": "former"}, Annotations: map[string]v1alpha1.AnnotationValue{"former": "true"},
		}
	})
	f.WaitForReady("frontend", v1alpha1.ReasonAppNameConflict)
	f.UpdateKey("frontend", func(key *v1alpha1.APIKey) { // before the handover
		key.Spec.Secret.Labels = map[string]v1alpha1.LabelValue{"team": "shop", "empty": ""}
		key.Spec.Secret.Annotations = map[string]v1alpha1.AnnotationValue{"reloader.stakater.com/match": "true", "text": "a\nb"}
	})
	f.Deactivate("holder")
	issued := f.WaitForReady("frontend", v1alpha1.ReasonIssued)
	f.assertIssued(issued, "frontend-token")
	assertMetadata := func() {
		t.Helper()
		secret := f.Secret("frontend-token")
		for what, entries := range map[string]struct{ want, got map[string]string }{
			"labels": {
				map[string]string{
					"app.kubernetes.io/managed-by": "apikey-operator", "keys.squirrel.dev/apikey": "frontend", "team": "shop", "empty": "",
				}, secret.Labels,
			},
			"annotations": {
				map[string]string{
					"keys.squirrel.dev/apikey": "frontend", "keys.squirrel.dev/apikey-uid": string(issued.UID),
					"keys.squirrel.dev/token-hash": issued.Status.Tokens[0].Hash, "reloader.stakater.com/match": "true", "text": "a\nb",
				}, secret.Annotations,
			},
		} {
			if diff := cmp.Diff(entries.want, entries.got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		}
	}
	assertMetadata()

	f.UpdateKey("frontend", func(key *v1alpha1.APIKey) { // after it
		key.Spec.Secret.Labels = map[string]v1alpha1.LabelValue{"team": "later"}
		key.Spec.Secret.Annotations = nil
	})
	f.WaitForReady("frontend", v1alpha1.ReasonIssued)
	assertMetadata()
	stored := f.GetKey("frontend").Spec.Secret
	if diff := cmp.Diff(&v1alpha1.TokenSecret{Key: "token", Labels: map[string]v1alpha1.LabelValue{"team": "later"}}, stored); diff != "" {
		t.Errorf("spec.secret (-want +got):\n%s", diff)
	}
}

func TestReconcile_TheSecretOfALongNameHasALabelOfItsKey(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	for name, want := range map[string]string{
		strings.Repeat("a", 63):                  strings.Repeat("a", 63),
		strings.Repeat("a", 64):                  strings.Repeat("a", 54) + "-ffe054fe",
		strings.Repeat("a", 53) + ".bcdefghijkl": strings.Repeat("a", 53) + ".-54cf6fd6",
	} {
		f.CreateKey(name, appName(name[50:]))
		f.WaitForReady(name, v1alpha1.ReasonIssued)
		if got := f.Secret(name + "-token").Labels["keys.squirrel.dev/apikey"]; got != want {
			t.Errorf("the label of %s is %q, want %q", name, got, want)
		}
	}
}
