// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package keyclient_test

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/runcontroller"
)

func minted(options *keyclient.CreateOptions) {
	options.Secret = &v1alpha1.TokenSecret{Name: "handover"}
}

func rotateOptions(overlap ...time.Duration) keyclient.RotateOptions {
	options := keyclient.RotateOptions{Now: time.Now}
	for _, o := range overlap {
		options.Overlap = &o
	}
	return options
}

func (f *fixture) rotate(key *v1alpha1.APIKey, overlap ...time.Duration) *keyclient.RotateResult {
	f.Helper()
	rotated, err := keyclient.Rotate(f.Context(), f.Env.Client, key, rotateOptions(overlap...))
	framework.Must(f, err)
	return rotated
}

func (f *fixture) assertUntil(rotated *keyclient.RotateResult, overlap time.Duration) {
	f.Helper()
	want := apikey.NewestToken(rotated.Key).NotBefore.Add(overlap)
	if rotated.Until == nil || !rotated.Until.Equal(want) {
		f.Errorf("the former token is accepted until %v, want %v", rotated.Until, want)
	}
}

func newestHash(key *v1alpha1.APIKey) string { return apikey.NewestToken(key).Hash }

func TestRotate_ReplacesTheHashOfAnImportedToken(t *testing.T) {
	f := newFixtureWithController(t)
	created := f.create("Frontend App")
	rotated := f.rotate(created.Key)
	spec := rotated.Key.Spec
	if hash := token.Hash(rotated.Token); newestHash(rotated.Key) != hash || spec.TokenHash != hash || spec.TokenHint != token.Hint(rotated.Token) {
		t.Errorf("the new token is not that of the key: %+v", rotated.Key)
	}
	if tokens := rotated.Key.Status.Tokens; len(tokens) != 2 || tokens[1].Hash != token.Hash(created.Token) {
		t.Errorf("the former token is not accepted: %+v", tokens)
	}
	f.assertUntil(rotated, 24*time.Hour)
	if spec.Rotation != nil {
		t.Errorf("spec.rotation is %+v", spec.Rotation)
	}
	if stored, err := f.Env.Kubectl(t, "get", "apikeys,events,secrets", "-n", f.Namespace, "-o", "json", "--show-managed-fields"); err != nil ||
		strings.Contains(stored, rotated.Token) {
		t.Errorf("the token is stored, or the output is incomplete: %v", err)
	}
}

func TestRotate_RequestsARotationOfAMintedToken(t *testing.T) {
	f := newFixtureWithController(t)
	before := f.create("Frontend App", minted).Key
	rotated := f.rotate(before, time.Hour)
	if inSecret := token.Hash(string(f.Secret("handover").Data["token"])); rotated.Token != "" || newestHash(rotated.Key) != inSecret {
		t.Error("the Secret does not hold the newest token, or a token is returned")
	}
	f.assertUntil(rotated, time.Hour)
	request := rotated.Key.Spec.Rotation.Request
	if request.Overlap.Duration != time.Hour || rotated.Key.Spec.Rotation.Overlap != nil {
		t.Errorf("the overlap does not count for this rotation alone: %+v", rotated.Key.Spec.Rotation)
	}
	if handled := rotated.Key.Status.RotationHandled; !handled.Equal(&request.At) {
		t.Errorf("rotationHandled is %s, want %s", handled, request.At)
	}
}

// A token that has leaked ends with the rotation, and the next rotation has the overlap of the key again.
func TestRotate_AnOverlapCountsForOneRotation(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]func(*keyclient.CreateOptions){"imported": func(*keyclient.CreateOptions) {}, "minted": minted} {
		t.Run(name, func(t *testing.T) {
			f := newFixtureWithController(t)
			leaked := f.rotate(f.create("Frontend App", kind).Key, 0)
			if leaked.Until != nil {
				t.Errorf("the leaked token is accepted until %s", leaked.Until)
			}
			f.assertUntil(f.rotate(leaked.Key), 24*time.Hour)
		})
	}
}

func TestRotate_KeepsALongerOverlapOfAnImportedToken(t *testing.T) {
	f := newFixtureWithController(t)
	rotated := f.rotate(f.create("Frontend App").Key, 48*time.Hour)
	f.assertUntil(rotated, 48*time.Hour)
	if overlap := apikey.OverlapOf(rotated.Key); overlap != 48*time.Hour { // a shorter one would end the former token earlier
		t.Errorf("the overlap is %s", overlap)
	}
}

func TestRotate_OneOfConcurrentCallsSucceeds(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]func(*keyclient.CreateOptions){"imported": func(*keyclient.CreateOptions) {}, "minted": minted} {
		t.Run(name, func(t *testing.T) {
			f := newFixtureWithController(t)
			key := f.create("Frontend App", kind).Key
			var rotating sync.WaitGroup
			results, errs := make([]*keyclient.RotateResult, 10), make([]error, 10)
			for i := range results {
				rotating.Go(func() { results[i], errs[i] = keyclient.Rotate(t.Context(), f.Env.Client, key, rotateOptions()) })
			}
			rotating.Wait()
			var succeeded *keyclient.RotateResult
			for i, err := range errs {
				switch busy := (*keyclient.RotatingError)(nil); {
				case err == nil && succeeded == nil:
					succeeded = results[i]
				case !errors.As(err, &busy):
					t.Errorf("the error is %v", err)
				}
			}
			current := f.GetKey(key.Name)
			if succeeded == nil || newestHash(current) != newestHash(succeeded.Key) || len(current.Status.Tokens) != 2 {
				t.Errorf("%v succeeded, and the tokens are %+v", succeeded, current.Status.Tokens)
			}
		})
	}
}

func TestRotate_RefusesAKeyThatIsBeingRotated(t *testing.T) {
	f := newFixture(t)
	stop := runcontroller.Start(t, f.Env, f.Namespace)
	imported, secret := f.create("Imported").Key, f.create("Minted", minted).Key
	stop()
	f.UpdateKey(imported.Name, func(key *v1alpha1.APIKey) { key.Spec.TokenHash = token.Hash("another token") })
	f.UpdateKey(secret.Name, func(key *v1alpha1.APIKey) {
		key.Spec.Rotation = &v1alpha1.Rotation{Request: &v1alpha1.RotationRequest{At: metav1.Now()}}
	})
	for _, key := range []*v1alpha1.APIKey{imported, secret} {
		_, err := keyclient.Rotate(t.Context(), f.Env.Client, key, rotateOptions())
		want := `rotate APIKey "` + key.Name + `": the token is being rotated already: wait until that has ended (status: ` +
			key.Status.Conditions[0].Message + `)`
		if busy := (*keyclient.RotatingError)(nil); !errors.As(err, &busy) || err.Error() != want {
			t.Errorf("the error is %v, want %s", err, want)
		}
	}
}

// The controller does not retry at once after the owner has acted.
func TestRotate_NamesWhatAnEarlierRotationWaitsFor(t *testing.T) {
	f := newFixtureWithController(t)
	key := f.create("Frontend App", minted).Key
	framework.Must(t, f.Env.Client.Delete(t.Context(), f.Secret(key.Status.SecretName)))
	f.Create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: key.Status.SecretName}})
	_, err := keyclient.Rotate(t.Context(), f.Env.Client, key, rotateOptions())
	if conflict := (*apikey.Conflict)(nil); !errors.As(err, &conflict) {
		t.Fatalf("the error is %v", err)
	}
	framework.Must(t, f.Env.Client.Delete(t.Context(), f.Secret(key.Status.SecretName)))
	_, err = keyclient.Rotate(t.Context(), f.Env.Client, key, rotateOptions())
	want := `rotate APIKey "` + key.Name + `": the controller cannot finish an earlier rotation yet: Secret "` + key.Status.SecretName +
		`" was not written for this key, or was changed since: delete it if it is unused. The controller then creates it with the new token. ` +
		`The controller retries at intervals that grow from 15s to 5m.`
	if !errors.As(err, new(*keyclient.RotatingError)) || err.Error() != want {
		t.Errorf("the error is %v, want %s", err, want)
	}
}

// The token has leaked, and another rotation waits until a superseded token ends.
func TestRotate_WithoutOverlapReplacesARotationThatWaits(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		kind  func(*keyclient.CreateOptions)
		start func(*v1alpha1.APIKey)
	}{
		"imported": {func(*keyclient.CreateOptions) {}, func(key *v1alpha1.APIKey) { key.Spec.TokenHash = token.Hash("waits") }},
		"minted": {minted, func(key *v1alpha1.APIKey) {
			key.Spec.Rotation = &v1alpha1.Rotation{Request: &v1alpha1.RotationRequest{At: metav1.NewTime(key.Status.Tokens[0].NotBefore.Add(time.Second))}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixtureWithController(t)
			key := f.create("Frontend App", test.kind).Key
			framework.Must(t, f.fillTokens(key))
			f.UpdateKey(key.Name, test.start)
			var waiting *v1alpha1.APIKey
			framework.Eventually(t, "the rotation waits", func() bool {
				waiting = f.GetKey(key.Name)
				return meta.IsStatusConditionTrue(waiting.Status.Conditions, v1alpha1.ConditionReconciling)
			})
			if _, err := keyclient.Rotate(t.Context(), f.Env.Client, waiting, rotateOptions(time.Hour)); !errors.As(err, new(*keyclient.RotatingError)) {
				t.Errorf("with an overlap, the error is %v", err)
			}
			rotated := f.rotate(waiting, 0)
			if rotated.Until != nil || newestHash(rotated.Key) == newestHash(waiting) {
				t.Errorf("the leaked token is accepted until %v", rotated.Until)
			}
		})
	}
}

// fillTokens adds superseded tokens to the status of a key until its list of tokens is full.
func (f *fixture) fillTokens(key *v1alpha1.APIKey) error {
	full := f.GetKey(key.Name)
	for i := range apikey.MaxTokens - 1 {
		full.Status.Tokens = append(full.Status.Tokens, v1alpha1.TokenRecord{
			Hash: token.Hash(strconv.Itoa(i)), NotBefore: full.Status.Tokens[0].NotBefore, NotAfter: new(metav1.NewTime(time.Now().Add(time.Hour))),
		})
	}
	return f.Env.Client.Status().Update(f.Context(), full)
}

func TestRotate_ReplacesARequestForLater(t *testing.T) {
	f := newFixtureWithController(t)
	key := f.create("Frontend App", minted).Key
	f.UpdateKey(key.Name, func(key *v1alpha1.APIKey) {
		key.Spec.Rotation = &v1alpha1.Rotation{Request: &v1alpha1.RotationRequest{At: metav1.NewTime(time.Now().Add(time.Hour))}}
	})
	f.assertUntil(f.rotate(key), 24*time.Hour)
}

func TestRotate_RefusesAKeyWithoutAToken(t *testing.T) {
	f := newFixtureWithController(t)
	ended, deleted := f.create("Ended").Key, f.create("Deleted").Key
	f.Deactivate(ended.Name)
	framework.Must(f, f.Env.Client.Delete(t.Context(), deleted))
	f.create("Frontend App")
	waiting, err := keyclient.CreateNoWait(t.Context(), f.Env.Client, f.options("Frontend App"))
	framework.Must(f, err)
	for want, key := range map[error]*v1alpha1.APIKey{
		keyclient.ErrAlreadyInactive: ended, keyclient.ErrNotFound: deleted, keyclient.ErrNotIssued: waiting.Key,
	} {
		_, err := keyclient.Rotate(t.Context(), f.Env.Client, key, rotateOptions())
		if !errors.Is(err, want) {
			t.Errorf("the error is %v, want %v", err, want)
		}
		if advised := `rotate APIKey "` + key.Name + `": the key is already inactive: create another one`; key == ended && err.Error() != advised {
			t.Errorf("the error is %q, want %q", err, advised)
		}
	}
}

// The owner of a key has declared the token of another one by mistake.
func TestRotate_ReplacesAHashThatTheKeyCannotGet(t *testing.T) {
	f := newFixtureWithController(t)
	key, other := f.create("Frontend App").Key, f.create("Other App").Key
	f.UpdateKey(key.Name, func(key *v1alpha1.APIKey) { key.Spec.TokenHash = other.Spec.TokenHash })
	stalled := f.WaitForReady(key.Name, v1alpha1.ReasonTokenHashConflict)
	if rotated := f.rotate(stalled); newestHash(rotated.Key) != token.Hash(rotated.Token) {
		t.Error("the new token is not accepted")
	}
}

// The clocks of API servers and of the client may differ, and requests may follow each other within a second.
func TestInvariant3_ARequestIsLaterThanAllBefore(t *testing.T) {
	f := newFixtureWithController(t)
	key := f.create("Frontend App", minted).Key
	slow := keyclient.RotateOptions{Now: func() time.Time { return time.Now().Add(-time.Hour) }}
	for range 2 {
		rotated, err := keyclient.Rotate(t.Context(), f.Env.Client, key, slow)
		framework.Must(f, err)
		want := apikey.NewestToken(key).NotBefore.Add(time.Second)
		if handled := key.Status.RotationHandled; handled != nil && !want.After(handled.Time) {
			want = handled.Add(time.Second)
		}
		if at := rotated.Key.Spec.Rotation.Request.At; !at.Time.Equal(want) || newestHash(rotated.Key) == newestHash(key) {
			t.Errorf("the request is of %s, want %s", at, want)
		}
		key = rotated.Key
	}
}

// shortly returns a context that ends before a rotation can.
func shortly(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestRotate_WithoutControllerTimesOut(t *testing.T) {
	f := newFixture(t)
	stop := runcontroller.Start(t, f.Env, f.Namespace)
	imported, secret := f.create("Imported").Key, f.create("Minted", minted).Key
	stop()
	for _, c := range []struct {
		key  *v1alpha1.APIKey
		want string
	}{
		{imported, "the new token was not accepted in time: check that the controller is running (last status: The imported token is accepted.)"},
		{secret, "the rotation has not ended in time: check that the controller, which will finish it, is running " +
			"(last status: The token is accepted. It was handed over in a Secret.)"},
	} {
		_, err := keyclient.Rotate(shortly(t), f.Env.Client, c.key, rotateOptions(0))
		var timedOut *keyclient.NotRotatedError
		if want := `rotate APIKey "` + c.key.Name + `": ` + c.want; !errors.As(err, &timedOut) || err.Error() != want {
			t.Errorf("the error is %v, want %s", err, want)
		}
	}
	if spec := f.GetKey(imported.Name).Spec; spec.TokenHash != imported.Spec.TokenHash || spec.TokenHint != imported.Spec.TokenHint || spec.Rotation != nil {
		t.Errorf("the former token is not declared again: %+v", spec)
	}
	if request := f.GetKey(secret.Name).Spec.Rotation.Request; request == nil {
		t.Error("the request is gone")
	}
}

func TestRotate_EndsWithTheKey(t *testing.T) {
	f := newFixture(t)
	stop := runcontroller.Start(t, f.Env, f.Namespace)
	key := f.create("Frontend App").Key
	stop()
	deactivating := f.clientWith(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			response, err := next.RoundTrip(request)
			if request.Method == http.MethodPatch && err == nil {
				f.Deactivate(key.Name)
			}
			return response, err
		})
	})
	_, err := keyclient.Rotate(t.Context(), deactivating, key, rotateOptions())
	want := `rotate APIKey "` + key.Name + `": APIKey "` + key.Name + `" ended before its token was rotated: The imported token is accepted.`
	if ended := (*keyclient.EndedError)(nil); !errors.As(err, &ended) || err.Error() != want {
		t.Errorf("the error is %v, want %s", err, want)
	}
}

// breakPatches returns a client that does not receive the response to the first patch, and that cannot send another one if broken.
func (f *fixture) breakPatches(broken bool) client.WithWatch {
	f.Helper()
	patches := 0
	return f.clientWith(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			if request.Method != http.MethodPatch {
				return next.RoundTrip(request)
			}
			patches++
			if patches > 1 && broken {
				return nil, errors.New("no way")
			}
			response, err := next.RoundTrip(request)
			if patches > 1 || err != nil {
				return response, err
			}
			response.Body.Close()
			return nil, errors.New("the connection broke")
		})
	})
}

func TestRotate_DeclaresTheFormerTokenAgainIfTheResponseIsLost(t *testing.T) {
	f := newFixtureWithController(t)
	key := f.create("Frontend App").Key
	_, err := keyclient.Rotate(t.Context(), f.breakPatches(false), key, rotateOptions())
	if unknown := (*keyclient.OutcomeUnknownError)(nil); !errors.As(err, &unknown) || !strings.HasSuffix(err.Error(), "the connection broke") {
		t.Errorf("the error is %v", err)
	}
	if spec := f.GetKey(key.Name).Spec; spec.TokenHash != key.Spec.TokenHash {
		t.Errorf("the former token is not declared again: %+v", spec)
	}
	framework.Eventually(t, "the former token is the newest one and does not end", func() bool {
		current := f.GetKey(key.Name)
		newest := apikey.NewestToken(current)
		return newest.Hash == newestHash(key) && newest.NotAfter == nil && current.Status.ObservedGeneration == current.Generation
	})
}

func TestRotate_NamesAKeyWithALostToken(t *testing.T) {
	f := newFixtureWithController(t)
	key := f.create("Frontend App").Key
	_, err := keyclient.Rotate(t.Context(), f.breakPatches(true), key, rotateOptions())
	want := `APIKey "` + key.Name + `" may have a new token, which is lost, and the former token may end: rotate the key again: `
	if lost := (*keyclient.LostTokenError)(nil); !errors.As(err, &lost) || !strings.Contains(err.Error(), want) ||
		!strings.HasSuffix(err.Error(), "no way") {
		t.Errorf("the error is %v, want %s", err, want)
	}
}
