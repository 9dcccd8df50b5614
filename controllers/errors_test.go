// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
)

var errInjected = errors.New("this test closed the connection")

// intercept is a transport that passes the controller's calls for Secrets and statuses to a function. The function returns the response,
// with or without the API server.
type intercept struct {
	next    http.RoundTripper
	respond func(call string, send func() (*http.Response, error)) (*http.Response, error)
}

func (i *intercept) RoundTrip(request *http.Request) (*http.Response, error) {
	send := func() (*http.Response, error) { return i.next.RoundTrip(request) }
	switch path := request.URL.Path; {
	case strings.Contains(path, "/secrets/"), strings.HasSuffix(path, "/secrets"):
		return i.respond(request.Method+" secret", send)
	case strings.HasSuffix(path, "/status"):
		return i.respond(request.Method+" status", send)
	default:
		return send()
	}
}

// crash is a controller process that crashes before or after one of its calls. None of its later calls arrives.
type crash struct {
	mu     sync.Mutex
	at     int
	after  bool
	calls  []string
	dead   bool
	happen chan struct{}
}

func (c *crash) respond(call string, send func() (*http.Response, error)) (*http.Response, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return nil, errInjected
	}
	c.calls = append(c.calls, call)
	if len(c.calls)-1 != c.at {
		return send()
	}
	if c.after {
		response, err := send()
		if err != nil {
			return nil, err
		}
		response.Body.Close()
	}
	c.dead = true
	close(c.happen)
	return nil, errInjected
}

func (c *crash) transport(next http.RoundTripper) http.RoundTripper {
	return &intercept{next: next, respond: c.respond}
}

// callsOfIssuing are the controller's calls for a new key, in order.
var callsOfIssuing = []string{"PUT status", "POST secret", "PUT status"}

// endings are the ways to end a key, with the controller's calls, in order. The end of an expired key is recorded first, because its owner
// may extend it until then.
var endings = map[string]struct {
	end    func(*v1alpha1.APIKey)
	reason string
	calls  []string
}{
	"deactivated": {
		end:    func(key *v1alpha1.APIKey) { key.Spec.Active = new(false) },
		reason: v1alpha1.ReasonDeactivated,
		calls:  []string{"GET secret", "DELETE secret", "PUT status"},
	},
	"expired": {
		end:    expiresIn(-time.Second),
		reason: v1alpha1.ReasonExpired,
		calls:  []string{"PUT status", "GET secret", "DELETE secret", "PUT status"},
	},
}

// waitForEnd waits until the end of a key is recorded and its Secret is deleted.
func (f *fixture) waitForEnd(name, reason string) {
	f.Helper()
	f.WaitForReady(name, reason)
	framework.Eventually(f, "the Secret and its name in the status are deleted", func() bool {
		return f.Secret(name+"-token") == nil && f.GetKey(name).Status.SecretName == ""
	})
}

func TestReconcile_CallsOfTheKubernetesAPI(t *testing.T) {
	t.Parallel()
	for name, ending := range endings {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			observed := &crash{at: -1}
			f.startController(observed.transport)
			f.CreateKey("frontend")
			f.WaitForReady("frontend", v1alpha1.ReasonIssued)
			f.UpdateKey("frontend", ending.end)
			f.waitForEnd("frontend", ending.reason)
			observed.mu.Lock()
			defer observed.mu.Unlock()
			if diff := cmp.Diff(slices.Concat(callsOfIssuing, ending.calls), observed.calls); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
		})
	}
}

func TestInvariant3_OneTokenAfterACrashAtAnyCall(t *testing.T) {
	t.Parallel()
	for at, call := range callsOfIssuing {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d %s after=%v", at, call, after), func(t *testing.T) {
				f := newFixture(t)
				crash := &crash{at: at, after: after, happen: make(chan struct{})}
				stop := f.startController(crash.transport)
				f.CreateKey("frontend")
				<-crash.happen
				stop()

				f.clock.advance(time.Minute) // the new controller keeps a claim while the one that wrote it may continue
				f.startController(nil)
				f.assertIssued(f.WaitForReady("frontend", v1alpha1.ReasonIssued), "frontend-token")
				f.assertOneHandover("frontend")
			})
		}
	}
}

func TestReconcile_EndsAKeyAfterACrashAtAnyCall(t *testing.T) {
	t.Parallel()
	for name, ending := range endings {
		for at, call := range ending.calls {
			for _, after := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %d %s after=%v", name, at, call, after), func(t *testing.T) {
					f := newFixture(t)
					stopFirst := f.startController(nil)
					f.CreateKey("frontend")
					f.WaitForReady("frontend", v1alpha1.ReasonIssued)
					stopFirst()
					crash := &crash{at: at, after: after, happen: make(chan struct{})}
					stop := f.startController(crash.transport)
					f.UpdateKey("frontend", ending.end)
					<-crash.happen
					stop()

					f.startController(nil)
					f.waitForEnd("frontend", ending.reason)
				})
			}
		}
	}
}

// TestInvariant3_AKeyThatIsExtendedBeforeItsEndIsRecordedKeepsItsToken extends a key that has expired when the controller is about to record
// its end.
func TestInvariant3_AKeyThatIsExtendedBeforeItsEndIsRecordedKeepsItsToken(t *testing.T) {
	t.Parallel()
	for name, isAccepted := range map[string]bool{"issued": true, "handed over, but not accepted yet": false} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			key := f.CreateKey("frontend", expiresIn(-time.Second))
			handedOver := f.late(key)
			f.Create(handedOver)
			f.claim(key, handedOver.Annotations["keys.squirrel.dev/token-hash"], time.Now())
			if isAccepted {
				f.updateStatus("frontend", func(status *v1alpha1.APIKeyStatus) { status.Tokens[0].NotBefore = new(metav1.Now()) })
			}
			var extendOnce sync.Once
			f.startController(func(next http.RoundTripper) http.RoundTripper {
				return &intercept{next: next, respond: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
					if call == "PUT status" {
						extendOnce.Do(func() { f.UpdateKey("frontend", expiresIn(time.Hour)) })
					}
					return send()
				}}
			})
			f.assertIssued(f.WaitForReady("frontend", v1alpha1.ReasonIssued), "frontend-token")
			if secret := f.Secret("frontend-token"); secret.UID != handedOver.UID {
				t.Error("the Secret was replaced")
			}
		})
	}
}

// forge returns a Secret that resembles the key's one-time Secret, with a token that the controller did not mint.
func (f *fixture) forge(key *v1alpha1.APIKey) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: f.Namespace,
			Name:      key.Name + "-token",
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "keys.squirrel.dev/v1alpha1", Kind: "APIKey", Name: key.Name, UID: key.UID, Controller: new(true),
			}},
		},
		Type: v1alpha1.SecretTypeToken,
		Data: map[string][]byte{"token": []byte(token.New())},
	}
}

// maxBackoff is the controller's maximum delay between two attempts to write a Secret.
const maxBackoff = 5 * time.Minute

const foreignSecret = `Secret "frontend-token" already exists and was not written for this key: delete it if it is unused, or create this key with another spec.secret.name. The controller retries at intervals that grow from 15s to 5m.`

const secretOfAnotherKey = `Secret "frontend-token" hands over the token of APIKey "another": create this key with another spec.secret.name.`

func TestReconcile_AForgedSecretIsNeverUsedOverwrittenOrDeleted(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change  func(forged *corev1.Secret, another *v1alpha1.APIKey)
		message string
	}{
		"with everything forged": {
			change:  func(*corev1.Secret, *v1alpha1.APIKey) {},
			message: foreignSecret,
		},
		"with the name only": {
			change: func(forged *corev1.Secret, _ *v1alpha1.APIKey) {
				forged.Type, forged.OwnerReferences = corev1.SecretTypeOpaque, nil
			},
			message: foreignSecret,
		},
		"with name and type": {
			change:  func(forged *corev1.Secret, _ *v1alpha1.APIKey) { forged.OwnerReferences = nil },
			message: foreignSecret,
		},
		"with another key as its owner": {
			change: func(forged *corev1.Secret, another *v1alpha1.APIKey) {
				forged.OwnerReferences[0].Name, forged.OwnerReferences[0].UID = another.Name, another.UID
			},
			message: secretOfAnotherKey,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			forged := f.forge(f.CreateKey("frontend"))
			test.change(forged, f.CreateKey("another"))
			f.Create(forged)

			f.startController(nil)
			f.assertSecretConflict(forged, test.message)

			framework.Must(f, f.Env.Client.Delete(t.Context(), forged))
			f.clock.advance(maxBackoff)
			f.touch("frontend", "after the deletion")
			f.assertIssued(f.WaitForReady("frontend", v1alpha1.ReasonIssued), "frontend-token")
		})
	}
}

func TestReconcile_ASecretForgedDuringTheHandoverIsNeverUsed(t *testing.T) {
	f := newFixture(t)
	key := f.CreateKey("frontend")
	forged := f.forge(key)
	var forgeOnce sync.Once
	f.startController(func(next http.RoundTripper) http.RoundTripper {
		return &intercept{next: next, respond: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
			if call == "POST secret" {
				forgeOnce.Do(func() { f.Create(forged) })
			}
			return send()
		}}
	})
	f.assertSecretConflict(forged, foreignSecret)
}

func TestReconcile_TheEndOfAKeyDoesNotDeleteAForgedSecret(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	key := f.CreateKey("frontend")
	f.WaitForReady("frontend", v1alpha1.ReasonIssued)
	framework.Must(f, f.Env.Client.Delete(t.Context(), f.Secret("frontend-token")))
	forged := f.forge(key)
	f.Create(forged)
	f.Deactivate("frontend")
	f.WaitForReady("frontend", v1alpha1.ReasonDeactivated)
	if secret := f.Secret("frontend-token"); secret == nil || secret.UID != forged.UID {
		t.Error("a Secret that the controller did not write was deleted")
	}
}

func (f *fixture) assertSecretConflict(forged *corev1.Secret, message string) {
	f.Helper()
	key := f.WaitForReady("frontend", v1alpha1.ReasonSecretConflict)
	f.assertConditions(key, stalled(v1alpha1.ReasonSecretConflict, message))
	if apikey.IsClaimed(key) || key.Status.SecretName != "" {
		f.Error("the key has a token")
	}
	if secret := f.Secret("frontend-token"); secret == nil || secret.ResourceVersion != forged.ResourceVersion {
		f.Error("the forged Secret was changed or deleted")
	}
}

// TestInvariant2_OneHandoverForTwoConcurrentClaims lets another controller claim for a second key while this one claims for the first. A
// handover while both claims exist would result in two active keys.
func TestInvariant2_OneHandoverForTwoConcurrentClaims(t *testing.T) {
	t.Parallel()
	for _, otherContinues := range []bool{true, false} {
		t.Run(fmt.Sprintf("other controller continues=%v", otherContinues), func(t *testing.T) {
			f := newFixture(t)
			f.CreateKey("first", appName("Frontend"))
			var claimOnce sync.Once
			transport := func(next http.RoundTripper) http.RoundTripper {
				return &intercept{next: next, respond: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
					switch call {
					case "PUT status":
						claimOnce.Do(func() { f.claimElsewhere(f.CreateKey("second", appName("Frontend"))) })
					case "POST secret":
						f.assertOneClaim()
					}
					return send()
				}}
			}
			f.startController(transport)
			if otherContinues {
				f.startController(transport)
			}
			framework.Eventually(f, "one key is issued, and the other is stalled", func() bool {
				keys := f.Keys()
				return len(keys) == 2 && apikey.IsIssued(&keys[0]) != apikey.IsIssued(&keys[1]) &&
					(len(keys[0].Status.Conditions) == 3 || len(keys[1].Status.Conditions) == 3)
			})
			for _, key := range f.Keys() {
				if apikey.IsIssued(&key) {
					f.assertIssued(&key, key.Name+"-token")
					f.assertOneHandover(key.Name)
				}
			}
		})
	}
}

// assertOneClaim checks, during a handover, that only one key has claimed or was issued.
func (f *fixture) assertOneClaim() {
	claims := 0
	for _, key := range f.Keys() {
		if apikey.IsClaimed(&key) {
			claims++
		}
	}
	if claims != 1 {
		f.Errorf("a token is handed over while %d keys have a claim", claims)
	}
}

// claimElsewhere writes the claim of another controller, which has not handed over its token yet.
func (f *fixture) claimElsewhere(key *v1alpha1.APIKey) {
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash(token.New())}}
	key.Status.SecretName = key.Name + "-token"
	framework.Must(f, f.Env.Client.Status().Update(f.Context(), key))
}

// failure returns the response of an API server to a call that fails.
func failure(status *metav1.Status, header http.Header) *http.Response {
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	body, err := json.Marshal(status)
	if err != nil {
		panic(err) // a Status always marshals
	}
	header.Set("Content-Type", "application/json")
	return &http.Response{StatusCode: int(status.Code), Header: header, Body: io.NopCloser(bytes.NewReader(body))}
}

func TestInvariant3_OneTokenIfTheClientRetriesACallThatSucceeded(t *testing.T) {
	f := newFixture(t)
	f.CreateKey("frontend")
	var failOnce sync.Once
	f.startController(func(next http.RoundTripper) http.RoundTripper {
		return &intercept{next: next, respond: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
			response, err := send()
			if call == "POST secret" {
				failOnce.Do(func() {
					response.Body.Close()
					response = failure(&metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError},
						http.Header{"Retry-After": {"1"}})
				})
			}
			return response, err
		}}
	})
	f.assertIssued(f.WaitForReady("frontend", v1alpha1.ReasonIssued), "frontend-token")
	f.assertOneHandover("frontend")
}

func TestReconcile_ARefusedSecretStallsTheKeyAndNamesThePolicy(t *testing.T) {
	t.Parallel()
	const repeated = "sq_a-token-that-a-refusal-may-repeat"
	for refusal, policy := range map[string]string{
		`secrets "frontend-token" is forbidden: exceeded quota: few, requested: count/secrets=1`:               "exceeded quota: few",
		`admission webhook "v.example.com" denied the request: ` + repeated:                                    `admission webhook "v.example.com" denied the request`,
		`secrets "x" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: ` + repeated: `ValidatingAdmissionPolicy 'p' with binding 'b' denied request`,
		`secrets "x" is forbidden: ` + repeated:                                                                "Forbidden",
	} {
		t.Run(policy, func(t *testing.T) {
			f := newFixture(t)
			var refuse atomic.Bool
			refuse.Store(true)
			f.startController(func(next http.RoundTripper) http.RoundTripper {
				return &intercept{next: next, respond: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
					if call == "POST secret" && refuse.Load() {
						return failure(&metav1.Status{
							Status: metav1.StatusFailure, Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: refusal,
						}, http.Header{}), nil
					}
					return send()
				}}
			})
			f.CreateKey("frontend")
			key := f.WaitForReady("frontend", v1alpha1.ReasonSecretRefused)
			f.assertConditions(key, stalled(v1alpha1.ReasonSecretRefused, `Secret "frontend-token" was refused (`+policy+
				`): allow the controller to create it. The controller retries at intervals that grow from 15s to 5m.`))
			if apikey.IsClaimed(key) || key.Status.SecretName != "" {
				t.Error("a key whose Secret was refused has a token")
			}
			refuse.Store(false)
			f.clock.advance(maxBackoff)
			f.touch("frontend", "no longer refused")
			f.assertIssued(f.WaitForReady("frontend", v1alpha1.ReasonIssued), "frontend-token")
		})
	}
}

func TestReconcile_WaitsForTheDeletionOfAFormerKeysSecret(t *testing.T) {
	t.Parallel()
	for name, owner := range map[string]string{"of this name": "frontend", "of another name": "former"} {
		t.Run(name, func(t *testing.T) {
			waitsForTheDeletionOfTheSecretOf(t, owner)
		})
	}
}

// waitsForTheDeletionOfTheSecretOf runs a controller with a key whose Secret belongs to a key that does not exist any more.
func waitsForTheDeletionOfTheSecretOf(t *testing.T, owner string) {
	t.Helper()
	f := newFixture(t)
	key := f.CreateKey("frontend")
	former := f.forge(key)
	former.OwnerReferences[0].Name, former.OwnerReferences[0].UID = owner, "former"
	former.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
	body, err := json.Marshal(former)
	framework.Must(f, err)
	var exists atomic.Bool
	exists.Store(true)
	f.startController(func(next http.RoundTripper) http.RoundTripper {
		return &intercept{next: next, respond: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
			switch {
			case exists.Load() && call == "GET secret":
				header := http.Header{"Content-Type": {"application/json"}}
				return &http.Response{StatusCode: http.StatusOK, Header: header, Body: io.NopCloser(bytes.NewReader(body))}, nil
			case exists.Load() && call == "POST secret":
				return failure(&metav1.Status{
					Status: metav1.StatusFailure, Code: http.StatusConflict, Reason: metav1.StatusReasonAlreadyExists,
				}, http.Header{}), nil
			default:
				return send()
			}
		}}
	})
	const waiting = `Waiting for the deletion of Secret "frontend-token", which belongs to a key that was deleted or has ended.`
	framework.Eventually(f, "the key waits", func() bool {
		ready := meta.FindStatusCondition(f.GetKey("frontend").Status.Conditions, v1alpha1.ConditionReady)
		return ready.Reason == v1alpha1.ReasonPending && ready.Message == waiting
	})
	framework.Eventually(f, "the key waits no longer", func() bool {
		f.clock.advance(maxBackoff)
		f.touch("frontend", f.clock.Now().String())
		return f.isStalled("frontend")
	})
	f.assertConditions(f.WaitForReady("frontend", v1alpha1.ReasonSecretConflict), stalled(v1alpha1.ReasonSecretConflict,
		`Secret "frontend-token" hands over the token of APIKey "`+owner+`": create this key with another spec.secret.name.`))
	exists.Store(false)
	f.clock.advance(maxBackoff)
	f.touch("frontend", "garbage-collected")
	f.assertIssued(f.WaitForReady("frontend", v1alpha1.ReasonIssued), "frontend-token")
}

func TestReconcile_AClaimFarInTheFutureIsVoid(t *testing.T) {
	f := newFixture(t)
	key := f.CreateKey("frontend")
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash("lost"), ClaimedAt: new(metav1.NewTime(time.Now().Add(24 * time.Hour)))}}
	framework.Must(f, f.Env.Client.Status().Update(t.Context(), key))
	f.startController(nil)
	f.assertIssued(f.WaitForReady("frontend", v1alpha1.ReasonIssued), "frontend-token")
}

func TestReconcile_KeepsTheClaimOfAnotherControllerUntilItIsVoid(t *testing.T) {
	f := newFixture(t)
	key := f.CreateKey("frontend")
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash("in progress"), ClaimedAt: new(metav1.Now())}}
	framework.Must(f, f.Env.Client.Status().Update(t.Context(), key))
	f.startController(nil)
	framework.Eventually(f, "the key waits", func() bool {
		ready := meta.FindStatusCondition(f.GetKey("frontend").Status.Conditions, v1alpha1.ConditionReady)
		return ready.Message == "Waiting for the end of an earlier handover."
	})
	if hash := f.GetKey("frontend").Status.Tokens[0].Hash; hash != token.Hash("in progress") {
		t.Error("the claim was replaced")
	}
	f.clock.advance(time.Minute)
	f.touch("frontend", "later")
	f.assertIssued(f.WaitForReady("frontend", v1alpha1.ReasonIssued), "frontend-token")
}
