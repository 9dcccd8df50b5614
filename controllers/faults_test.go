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

var errInjected = errors.New("the connection broke, as this test wants")

// intercept is a transport that shows the calls by which the controller works on a key (all but watches, lists, events) to a function
// that answers them, with or without the API server.
type intercept struct {
	next   http.RoundTripper
	answer func(call string, send func() (*http.Response, error)) (*http.Response, error)
}

func (i *intercept) RoundTrip(request *http.Request) (*http.Response, error) {
	send := func() (*http.Response, error) { return i.next.RoundTrip(request) }
	switch path := request.URL.Path; {
	case strings.Contains(path, "/secrets/"), strings.HasSuffix(path, "/secrets"):
		return i.answer(request.Method+" secret", send)
	case strings.HasSuffix(path, "/status"):
		return i.answer(request.Method+" status", send)
	default:
		return send()
	}
}

// crash is a controller process that dies around one of its calls: from then on none of its calls arrives.
type crash struct {
	mu     sync.Mutex
	at     int
	after  bool
	calls  []string
	dead   bool
	happen chan struct{}
}

func (c *crash) answer(call string, send func() (*http.Response, error)) (*http.Response, error) {
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
	return &intercept{next: next, answer: c.answer}
}

// The calls of a key's life, in their order. The tests below fail when the controller makes others.
var (
	callsOfIssuing = []string{"GET secret", "PUT status", "POST secret", "PUT status"}
	callsOfEnding  = []string{"GET secret", "DELETE secret", "PUT status"}
)

func TestTheCallsOfAKeysLife(t *testing.T) {
	f := newFixture(t)
	observed := &crash{at: -1}
	f.startController(observed.transport)
	f.CreateKey("frontend")
	f.WaitForReady("frontend", v1alpha1.ReasonIssued)
	f.Deactivate("frontend")
	f.WaitForReady("frontend", v1alpha1.ReasonDeactivated)
	observed.mu.Lock()
	defer observed.mu.Unlock()
	if diff := cmp.Diff(append(callsOfIssuing, callsOfEnding...), observed.calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestInvariant3_OneTokenWhicheverCallOfIssuingFails(t *testing.T) {
	for at, call := range callsOfIssuing {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d %s after=%v", at, call, after), func(t *testing.T) {
				f := newFixture(t)
				crash := &crash{at: at, after: after, happen: make(chan struct{})}
				stop := f.startController(crash.transport)
				f.CreateKey("frontend")
				<-crash.happen
				stop()

				f.clock.advance(time.Minute) // the fresh controller leaves a claim alone while the one who made it may go on
				f.startController(nil)
				f.assertIssued(f.WaitForReady("frontend", v1alpha1.ReasonIssued), "frontend-token")
				f.assertOneHandover("frontend")
			})
		}
	}
}

func TestAKeyEndsWhicheverCallOfEndingFails(t *testing.T) {
	for at, call := range callsOfEnding {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d %s after=%v", at, call, after), func(t *testing.T) {
				f := newFixture(t)
				stopFirst := f.startController(nil)
				f.CreateKey("frontend")
				f.WaitForReady("frontend", v1alpha1.ReasonIssued)
				stopFirst()
				crash := &crash{at: at, after: after, happen: make(chan struct{})}
				stop := f.startController(crash.transport)
				f.Deactivate("frontend")
				<-crash.happen
				stop()

				f.startController(nil)
				f.WaitForReady("frontend", v1alpha1.ReasonDeactivated)
				framework.Eventually(f, "the Secret is gone, and off the record", func() bool {
					return f.Secret("frontend-token") == nil && f.GetKey("frontend").Status.SecretName == ""
				})
			})
		}
	}
}

// plant returns a Secret that looks like the one-time Secret of the key, with a token that somebody else made.
func (f *fixture) plant(key *v1alpha1.APIKey) *corev1.Secret {
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

// maxBackoff is what passes at most before the controller tries again to write a Secret.
const maxBackoff = 5 * time.Minute

const inTheWay = `Secret "frontend-token" already exists and was not written for this key: delete it if it is unused, or create this key with another spec.secret.name. The controller retries at intervals that grow from 15s to 5m.`

const ofAnother = `Secret "frontend-token" hands over the token of APIKey "another": create this key with another spec.secret.name.`

func TestAPlantedSecretIsNeverAdoptedOverwrittenOrDeleted(t *testing.T) {
	forgeries := map[string]struct {
		forge   func(planted *corev1.Secret, another *v1alpha1.APIKey)
		message string
	}{
		"with everything forged": {
			forge:   func(*corev1.Secret, *v1alpha1.APIKey) {},
			message: inTheWay,
		},
		"with the name only": {
			forge: func(planted *corev1.Secret, _ *v1alpha1.APIKey) {
				planted.Type, planted.OwnerReferences = corev1.SecretTypeOpaque, nil
			},
			message: inTheWay,
		},
		"with name and type": {
			forge:   func(planted *corev1.Secret, _ *v1alpha1.APIKey) { planted.OwnerReferences = nil },
			message: inTheWay,
		},
		"with another key as its owner": {
			forge: func(planted *corev1.Secret, another *v1alpha1.APIKey) {
				planted.OwnerReferences[0].Name, planted.OwnerReferences[0].UID = another.Name, another.UID
			},
			message: ofAnother,
		},
	}
	for name, test := range forgeries {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			planted := f.plant(f.CreateKey("frontend"))
			test.forge(planted, f.CreateKey("another"))
			f.Create(planted)

			f.startController(nil)
			f.assertStandsBackFrom(planted, test.message)

			framework.Must(f, f.Env.Client.Delete(t.Context(), planted))
			f.clock.advance(maxBackoff)
			f.touch("frontend", "after the deletion")
			f.assertIssued(f.WaitForReady("frontend", v1alpha1.ReasonIssued), "frontend-token")
		})
	}
}

func TestASecretPlantedDuringTheHandoverIsNeverAdopted(t *testing.T) {
	f := newFixture(t)
	key := f.CreateKey("frontend")
	planted := f.plant(key)
	var plantOnce sync.Once
	f.startController(func(next http.RoundTripper) http.RoundTripper {
		return &intercept{next: next, answer: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
			if call == "POST secret" {
				plantOnce.Do(func() { f.Create(planted) })
			}
			return send()
		}}
	})
	f.assertStandsBackFrom(planted, inTheWay)
}

func TestAForeignSecretOutlivesTheKeysEnd(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	key := f.CreateKey("frontend")
	f.WaitForReady("frontend", v1alpha1.ReasonIssued)
	framework.Must(f, f.Env.Client.Delete(t.Context(), f.Secret("frontend-token")))
	planted := f.plant(key)
	f.Create(planted)
	f.Deactivate("frontend")
	f.WaitForReady("frontend", v1alpha1.ReasonDeactivated)
	if secret := f.Secret("frontend-token"); secret == nil || secret.UID != planted.UID {
		t.Error("a Secret that somebody else wrote was deleted")
	}
}

func (f *fixture) assertStandsBackFrom(planted *corev1.Secret, message string) {
	f.Helper()
	key := f.WaitForReady("frontend", v1alpha1.ReasonSecretConflict)
	f.assertConditions(key, stalled(v1alpha1.ReasonSecretConflict, message))
	if apikey.IsClaimed(key) || key.Status.SecretName != "" {
		f.Error("the key has a token")
	}
	if secret := f.Secret("frontend-token"); secret == nil || secret.ResourceVersion != planted.ResourceVersion {
		f.Error("the planted Secret was changed or deleted")
	}
}

// TestInvariant2_TwoClaimsAtOnce lets another controller claim for a second key at the instant at which this one claims for the first.
// Whoever hands over while both claims stand makes two active keys.
func TestInvariant2_TwoClaimsAtOnce(t *testing.T) {
	for _, otherGoesOn := range []bool{true, false} {
		t.Run(fmt.Sprintf("other controller goes on=%v", otherGoesOn), func(t *testing.T) {
			f := newFixture(t)
			f.CreateKey("first", appName("Frontend"))
			var claimOnce sync.Once
			transport := func(next http.RoundTripper) http.RoundTripper {
				return &intercept{next: next, answer: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
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
			if otherGoesOn {
				f.startController(transport)
			}
			framework.Eventually(f, "one key is issued, and the other stands back", func() bool {
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

// assertOneClaim checks, at the instant of a handover, that only one key claims or holds the name.
func (f *fixture) assertOneClaim() {
	claims := 0
	for _, key := range f.Keys() {
		if apikey.IsClaimed(&key) {
			claims++
		}
	}
	if claims != 1 {
		f.Errorf("a token is handed over while %d keys claim the name", claims)
	}
}

// claimElsewhere writes the claim of a controller that minted a token and has not handed it over yet.
func (f *fixture) claimElsewhere(key *v1alpha1.APIKey) {
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash(token.New())}}
	key.Status.SecretName = key.Name + "-token"
	framework.Must(f, f.Env.Client.Status().Update(f.Context(), key))
}

// failure returns what an API server answers when a call fails.
func failure(status *metav1.Status, header http.Header) *http.Response {
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	body, err := json.Marshal(status)
	if err != nil {
		panic(err) // a Status always marshals
	}
	header.Set("Content-Type", "application/json")
	return &http.Response{StatusCode: int(status.Code), Header: header, Body: io.NopCloser(bytes.NewReader(body))}
}

func TestInvariant3_OneTokenWhenTheClientRepeatsACallThatTookEffect(t *testing.T) {
	f := newFixture(t)
	f.CreateKey("frontend")
	var failOnce sync.Once
	f.startController(func(next http.RoundTripper) http.RoundTripper {
		return &intercept{next: next, answer: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
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

func TestARefusedSecretStallsTheKeyAndNamesWhoRefused(t *testing.T) {
	const repeated = "sq_a-token-that-a-refusal-may-repeat"
	for refusal, refuser := range map[string]string{
		`secrets "frontend-token" is forbidden: exceeded quota: few, requested: count/secrets=1`:               "exceeded quota: few",
		`admission webhook "v.example.com" denied the request: ` + repeated:                                    `admission webhook "v.example.com" denied the request`,
		`secrets "x" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: ` + repeated: `ValidatingAdmissionPolicy 'p' with binding 'b' denied request`,
		`secrets "x" is forbidden: ` + repeated:                                                                "Forbidden",
	} {
		t.Run(refuser, func(t *testing.T) {
			f := newFixture(t)
			var refuse atomic.Bool
			refuse.Store(true)
			f.startController(func(next http.RoundTripper) http.RoundTripper {
				return &intercept{next: next, answer: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
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
			f.assertConditions(key, stalled(v1alpha1.ReasonSecretRefused, `Secret "frontend-token" was refused (`+refuser+
				`): allow the controller to create it. The controller retries at intervals that grow from 15s to 5m.`))
			if apikey.IsClaimed(key) || key.Status.SecretName != "" {
				t.Error("a key whose Secret was refused has a token")
			}
			refuse.Store(false)
			f.clock.advance(maxBackoff)
			f.touch("frontend", "let through")
			f.assertIssued(f.WaitForReady("frontend", v1alpha1.ReasonIssued), "frontend-token")
		})
	}
}

func TestTheSecretOfAFormerKeyOfTheNameIsWaitedFor(t *testing.T) {
	f := newFixture(t)
	key := f.CreateKey("frontend")
	former := f.plant(key)
	former.OwnerReferences[0].UID = "former"
	former.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
	body, err := json.Marshal(former)
	framework.Must(f, err)
	var stillThere atomic.Bool
	stillThere.Store(true)
	f.startController(func(next http.RoundTripper) http.RoundTripper {
		return &intercept{next: next, answer: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
			if call == "GET secret" && stillThere.Load() {
				header := http.Header{"Content-Type": {"application/json"}}
				return &http.Response{StatusCode: http.StatusOK, Header: header, Body: io.NopCloser(bytes.NewReader(body))}, nil
			}
			return send()
		}}
	})
	const waiting = `Waiting for the deletion of Secret "frontend-token", which belongs to a former key of this name.`
	framework.Eventually(f, "the key waits", func() bool {
		ready := meta.FindStatusCondition(f.GetKey("frontend").Status.Conditions, v1alpha1.ConditionReady)
		return ready.Reason == v1alpha1.ReasonPending && ready.Message == waiting
	})
	f.clock.advance(time.Minute)
	f.touch("frontend", "later")
	f.assertConditions(f.WaitForReady("frontend", v1alpha1.ReasonSecretConflict), stalled(v1alpha1.ReasonSecretConflict,
		`Secret "frontend-token" hands over the token of APIKey "frontend": create this key with another spec.secret.name.`))
	stillThere.Store(false)
	f.clock.advance(maxBackoff)
	f.touch("frontend", "collected")
	f.assertIssued(f.WaitForReady("frontend", v1alpha1.ReasonIssued), "frontend-token")
}

func TestAClaimDatedByAWrongClockIsVoid(t *testing.T) {
	f := newFixture(t)
	key := f.CreateKey("frontend")
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash("lost"), ClaimedAt: new(metav1.NewTime(time.Now().Add(24 * time.Hour)))}}
	framework.Must(f, f.Env.Client.Status().Update(t.Context(), key))
	f.startController(nil)
	f.assertIssued(f.WaitForReady("frontend", v1alpha1.ReasonIssued), "frontend-token")
}

func TestAClaimThatAnotherMadeIsLeftAloneUntilItIsVoid(t *testing.T) {
	f := newFixture(t)
	key := f.CreateKey("frontend")
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash("on its way"), ClaimedAt: new(metav1.Now())}}
	framework.Must(f, f.Env.Client.Status().Update(t.Context(), key))
	f.startController(nil)
	framework.Eventually(f, "the key waits", func() bool {
		ready := meta.FindStatusCondition(f.GetKey("frontend").Status.Conditions, v1alpha1.ConditionReady)
		return ready.Message == "Waiting for the end of an earlier handover."
	})
	if hash := f.GetKey("frontend").Status.Tokens[0].Hash; hash != token.Hash("on its way") {
		t.Error("the claim was replaced")
	}
	f.clock.advance(time.Minute)
	f.touch("frontend", "later")
	f.assertIssued(f.WaitForReady("frontend", v1alpha1.ReasonIssued), "frontend-token")
}
