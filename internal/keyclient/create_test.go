// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package keyclient_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/test/framework"
)

func TestCreate_TheKeyIsAcceptedAndOnlyItsHashIsStored(t *testing.T) {
	f := newFixtureWithController(t)
	expiresAt := metav1.NewTime(time.Now().Add(time.Hour).Truncate(time.Second))
	created := f.create("Frontend App", func(options *keyclient.CreateOptions) {
		options.WriteAccess = true
		options.ExpiresAt = &expiresAt
		options.Labels = map[string]string{"created-by": "test"}
		options.Annotations = map[string]string{"requested-by": "test"}
	})
	key := created.Key
	if !keyclient.IsActive(key, time.Now()) || keyclient.IsActive(key, expiresAt.Time) {
		t.Errorf("it is not active, or for too long: %+v", key.Status)
	}
	want := v1alpha1.APIKeySpec{
		AppName: "Frontend App", ReadAccess: true, WriteAccess: true, Active: new(true), ExpiresAt: &expiresAt,
		TokenHash: token.Hash(created.Token), TokenHint: token.Hint(created.Token),
	}
	if diff := cmp.Diff(want, key.Spec); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
	if !strings.HasPrefix(key.Name, "frontend-app-") || key.Labels["created-by"] != "test" || key.Annotations["requested-by"] != "test" {
		t.Errorf("metadata: %+v", key.ObjectMeta)
	}
	if stored, err := f.Env.Kubectl(t, "get", "apikeys,events,secrets", "-n", f.Namespace, "-o", "json", "--show-managed-fields"); err != nil ||
		strings.Contains(stored, created.Token) {
		t.Errorf("the token is stored, or the output is incomplete: %v", err)
	}
}

func TestCreate_WithASecretTheControllerMints(t *testing.T) {
	f := newFixtureWithController(t)
	created := f.create("Frontend App", func(options *keyclient.CreateOptions) {
		options.Secret = &v1alpha1.TokenSecret{Name: "handover"}
	})
	if created.Token != "" || created.Key.Spec.TokenHash != "" || created.Key.Status.SecretName != "handover" {
		t.Errorf("created %+v", created)
	}
}

func TestCreate_AnAppNameInUseIsAConflictAndLeavesNoKey(t *testing.T) {
	f := newFixtureWithController(t)
	holder := f.create("Frontend App").Key
	_, err := keyclient.Create(t.Context(), f.Env.Client, f.options("Frontend App"))
	assertConflict(t, err, holder.Name)
	if keys := f.Keys(); len(keys) != 1 || keys[0].UID != holder.UID {
		t.Errorf("the keys are %v", keys)
	}
}

func assertConflict(t *testing.T, err error, holder string) {
	t.Helper()
	assertHeld(t, err, "Frontend App", holder)
}

// assertHeld checks that the error is a conflict with the holder of an app name.
func assertHeld(t *testing.T, err error, appName, holder string) {
	t.Helper()
	var conflict *apikey.Conflict
	want := fmt.Sprintf("App name %q is held by APIKey %q: deactivate or delete that key, or create this one with another app name.", appName, holder)
	if !errors.As(err, &conflict) || conflict.Reason != v1alpha1.ReasonAppNameConflict || err.Error() != want {
		t.Errorf("the error is %v, want %s", err, want)
	}
}

func TestInvariant2_OfConcurrentCreationsOneSucceedsAndTheOthersLeaveNoKey(t *testing.T) {
	const many = 50
	f := newFixtureWithController(t)
	ctx, cancel := context.WithTimeout(t.Context(), framework.Timeout)
	defer cancel()
	var creating sync.WaitGroup
	results := make(chan error, many)
	accepted := make(chan *v1alpha1.APIKey, many)
	for range many {
		creating.Go(func() {
			created, err := keyclient.Create(ctx, f.Env.Client, f.options("Frontend App"))
			if err == nil {
				accepted <- created.Key
			} else {
				results <- err
			}
		})
	}
	creating.Wait()
	close(results)
	for err := range results {
		if conflict := (*apikey.Conflict)(nil); !errors.As(err, &conflict) {
			t.Errorf("the error is %v, want a conflict", err)
		}
	}
	if keys := f.Keys(); len(accepted) != 1 || len(keys) != 1 || keys[0].UID != (<-accepted).UID {
		t.Errorf("%d keys are accepted, and %d keys exist", len(accepted), len(keys))
	}
}

func TestCreate_WithoutControllerTimesOutAndLeavesNoKey(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := keyclient.Create(ctx, f.Env.Client, f.options("Frontend App"))
	var notAccepted *keyclient.NotAcceptedError
	if !errors.As(err, &notAccepted) || !errors.Is(err, context.DeadlineExceeded) ||
		err.Error() != `APIKey "`+notAccepted.Name+`" was not accepted in time: check that the controller is running (last status: Waiting for the controller.)` {
		t.Errorf("the error is %v", err)
	}
	if keys := f.Keys(); len(keys) != 0 {
		t.Errorf("the keys are %v", keys)
	}
}

func TestCreate_LeavesNoKeyWhenItsContextIsCancelled(t *testing.T) {
	t.Parallel()
	leaving := errors.New("leaving")
	for name, leaveAt := range map[string]string{"while the key is written": http.MethodPost, "while it waits": http.MethodGet} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			ctx, leave := context.WithCancelCause(t.Context())
			leaver := f.clientWith(func(next http.RoundTripper) http.RoundTripper {
				return roundTripper(func(request *http.Request) (*http.Response, error) {
					if request.Method == leaveAt {
						leave(leaving)
					}
					return next.RoundTrip(request)
				})
			})
			_, err := keyclient.Create(ctx, leaver, f.options("Frontend App"))
			var notAccepted *keyclient.NotAcceptedError
			if !errors.As(err, &notAccepted) || !errors.Is(err, leaving) ||
				err.Error() != `the wait for APIKey "`+notAccepted.Name+`" to be accepted ended: leaving` {
				t.Errorf("the error is %v", err)
			}
			if keys := f.Keys(); len(keys) != 0 {
				t.Errorf("the keys are %v", keys)
			}
		})
	}
}

// lossyClient returns a client that does not receive the response to a creation, which has this status.
func (f *fixture) lossyClient(status int) client.WithWatch {
	f.Helper()
	return f.clientWith(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			response, err := next.RoundTrip(request)
			if request.Method == http.MethodPost && err == nil {
				if response.StatusCode != status {
					f.Errorf("the status of the creation is %s", response.Status)
				}
				response.Body.Close()
				return nil, errors.New("the connection broke")
			}
			return response, err
		})
	})
}

func TestCreate_DeletesAKeyWhoseResponseIsLost(t *testing.T) {
	f := newFixture(t)
	for name, change := range map[string]func(*keyclient.CreateOptions){
		"random name": func(*keyclient.CreateOptions) {},
		"chosen name": func(o *keyclient.CreateOptions) { o.Name = "frontend" },
		"Secret":      func(o *keyclient.CreateOptions) { o.Secret = &v1alpha1.TokenSecret{} },
	} {
		_, err := keyclient.Create(t.Context(), f.lossyClient(http.StatusCreated), f.options("Frontend App", change))
		if err == nil || !strings.HasSuffix(err.Error(), "the connection broke") {
			t.Errorf("%s: the error is %v", name, err)
		}
		if keys := f.Keys(); len(keys) != 0 {
			t.Errorf("%s: the keys are %v", name, keys)
		}
	}
}

func TestCreate_KeepsAnotherKeyOfTheNameIfTheResponseIsLost(t *testing.T) {
	f := newFixture(t)
	f.Create(f.Key("taken", func(key *v1alpha1.APIKey) { key.Spec.AppName = "Other App" }))
	for _, secret := range []*v1alpha1.TokenSecret{nil, {}} {
		_, err := keyclient.Create(t.Context(), f.lossyClient(http.StatusConflict), f.options("Frontend App", func(o *keyclient.CreateOptions) {
			o.Name, o.Secret = "taken", secret
		}))
		if err == nil || !strings.HasSuffix(err.Error(), "the connection broke") {
			t.Errorf("the error is %v", err)
		}
	}
	if key := f.GetKey("taken"); key.Spec.AppName != "Other App" || key.DeletionTimestamp != nil {
		t.Errorf("the other key is %v", key)
	}
}

func TestCreate_ReturnsTheNameOfAKeyThatCannotBeDeleted(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	undeletable := f.clientWith(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			if request.Method == http.MethodDelete {
				return nil, errors.New("no way")
			}
			return next.RoundTrip(request)
		})
	})
	_, err := keyclient.Create(ctx, undeletable, f.options("Frontend App"))
	keys := f.Keys()
	if len(keys) != 1 || err == nil {
		t.Fatalf("%d keys exist, and the error is %v", len(keys), err)
	}
	want := `APIKey "` + keys[0].Name + `" in namespace "` + f.Namespace +
		`" could not be deleted, and its token is lost; delete it with kubectl: `
	if !strings.Contains(err.Error(), want) || !strings.HasSuffix(err.Error(), "no way") {
		t.Errorf("the error is %v, want %s", err, want)
	}
}

func TestCreate_ReturnsTheErrorOfTheAPI(t *testing.T) {
	f := newFixture(t)
	_, err := keyclient.Create(t.Context(), f.Env.Client, f.options("Frontend App", func(c *keyclient.CreateOptions) { c.ReadAccess = false }))
	if err == nil || !strings.HasSuffix(err.Error(), "a key needs at least one of readAccess and writeAccess") {
		t.Errorf("the error is %v", err)
	}
}

func TestCreate_DerivesTheNameFromTheAppName(t *testing.T) {
	f := newFixture(t)
	for appName, want := range map[string]string{
		"Frontend App":                         "frontend-app-",
		"  ..CI/CD -- Pipeline!":               "", // refused by the schema; the others are not
		"Café Müller №5":                       "cafe-muller-no5-",
		"フロントエンド":                              "key-",
		"🐿️":                                   "key-",
		strings.Repeat("long name ", 25) + "x": "long-name-long-name-long-name-long-name-",
		"7":                                    "7-",
		"İi":                                   "ii-",
	} {
		created, err := keyclient.CreateNoWait(t.Context(), f.Env.Client, f.options(appName))
		switch {
		case want == "" && (err == nil || !strings.Contains(err.Error(), "appName must consist of printable characters")):
			t.Errorf("%q: the error is %v", appName, err)
		case want == "":
		case err != nil:
			t.Errorf("%q: %v", appName, err)
		case !strings.HasPrefix(created.Key.Name, want) || len(created.Key.Name) != len(want)+8:
			t.Errorf("%q: the name is %q, want %q and 8 random characters", appName, created.Key.Name, want)
		}
	}
}
