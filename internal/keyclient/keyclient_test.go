// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package keyclient_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/runcontroller"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	testenv.Main(m)
}

// fixture is a namespace.
type fixture struct{ *testenv.Fixture }

func newFixture(t *testing.T) *fixture {
	t.Helper()
	t.Parallel()
	return &fixture{testenv.NewFixture(t, testenv.Shared(t))}
}

// newWorldWithController returns a world in which keys are issued.
func newFixtureWithController(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t)
	runcontroller.Start(t, f.Env, f.Namespace)
	return f
}

func (f *fixture) creation(appName string, change ...func(*keyclient.CreateOptions)) keyclient.CreateOptions {
	creation := keyclient.CreateOptions{Namespace: f.Namespace, AppName: appName, ReadAccess: true}
	for _, c := range change {
		c(&creation)
	}
	return creation
}

func (f *fixture) create(appName string, change ...func(*keyclient.CreateOptions)) *keyclient.CreateResult {
	f.Helper()
	created, err := keyclient.Create(f.Context(), f.Env.Client, f.creation(appName, change...))
	framework.Must(f, err)
	return created
}

// clientWith returns a client whose calls go through a transport.
func (f *fixture) clientWith(transport func(http.RoundTripper) http.RoundTripper) client.WithWatch {
	f.Helper()
	config := rest.CopyConfig(f.Env.Config)
	config.Wrap(transport)
	c, err := client.NewWithWatch(config, client.Options{Scheme: f.Env.Scheme})
	framework.Must(f, err)
	return c
}

// roundTripper does what it is to do with a call to the API.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

func TestACreatedKeyIsAcceptedAndOnlyItsHashIsStored(t *testing.T) {
	f := newFixtureWithController(t)
	expiresAt := metav1.NewTime(time.Now().Add(time.Hour).Truncate(time.Second))
	created := f.create("Frontend App", func(creation *keyclient.CreateOptions) {
		creation.WriteAccess = true
		creation.ExpiresAt = &expiresAt
		creation.Labels = map[string]string{"made-by": "test"}
		creation.Annotations = map[string]string{"asked-by": "somebody"}
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
	if !strings.HasPrefix(key.Name, "frontend-app-") || key.Labels["made-by"] != "test" || key.Annotations["asked-by"] != "somebody" {
		t.Errorf("metadata: %+v", key.ObjectMeta)
	}
	if stored, err := f.Env.Kubectl(t, "get", "apikeys,events,secrets", "-n", f.Namespace, "-o", "json", "--show-managed-fields"); err != nil ||
		strings.Contains(stored, created.Token) {
		t.Errorf("the token is stored, or it cannot be told: %v", err)
	}
}

func TestTheControllerMintsWhereASecretIsAskedFor(t *testing.T) {
	f := newFixtureWithController(t)
	created := f.create("Frontend App", func(creation *keyclient.CreateOptions) {
		creation.Secret = &v1alpha1.TokenSecret{Name: "handover"}
	})
	if created.Token != "" || created.Key.Spec.TokenHash != "" || created.Key.Status.SecretName != "handover" {
		t.Errorf("created %+v", created)
	}
}

func TestAnAppNameInUseIsAConflictAndNothingIsLeft(t *testing.T) {
	f := newFixtureWithController(t)
	holder := f.create("Frontend App").Key
	_, err := keyclient.Create(t.Context(), f.Env.Client, f.creation("Frontend App"))
	assertConflict(t, err, holder.Name)
	if keys := f.Keys(); len(keys) != 1 || keys[0].UID != holder.UID {
		t.Errorf("the keys are %v", keys)
	}
}

func TestAConflictIsToldAlsoWhenThereIsNoTimeToSeeItLast(t *testing.T) {
	f := newFixtureWithController(t)
	holder := f.create("Frontend App").Key
	second, err := keyclient.CreateNoWait(t.Context(), f.Env.Client, f.creation("Frontend App"))
	framework.Must(f, err)
	gomega.NewWithT(t).Eventually(func() *metav1.Condition {
		framework.Must(f, f.Env.Client.Get(t.Context(), client.ObjectKeyFromObject(second.Key), second.Key))
		return meta.FindStatusCondition(second.Key.Status.Conditions, v1alpha1.ConditionStalled)
	}).WithTimeout(framework.Timeout).ShouldNot(gomega.BeNil())
	over, end := context.WithCancel(t.Context())
	end()
	_, err = keyclient.AwaitAccepted(over, f.Env.Client, second.Key)
	assertConflict(t, err, holder.Name)
}

func assertConflict(t *testing.T, err error, holder string) {
	t.Helper()
	var conflict *apikey.Conflict
	want := `App name "Frontend App" is held by APIKey "` + holder + `": deactivate or delete that key, or create this one with another app name.`
	if !errors.As(err, &conflict) || conflict.Reason != v1alpha1.ReasonAppNameConflict || err.Error() != want {
		t.Errorf("the error is %v, want %s", err, want)
	}
}

func TestInvariant2_OfManyCreationsAtOnceOneWinsAndNothingIsLeftOfTheOthers(t *testing.T) {
	const many = 50
	f := newFixtureWithController(t)
	ctx, cancel := context.WithTimeout(t.Context(), framework.Timeout)
	defer cancel()
	var creating sync.WaitGroup
	results := make(chan error, many)
	winners := make(chan *v1alpha1.APIKey, many)
	for range many {
		creating.Go(func() {
			created, err := keyclient.Create(ctx, f.Env.Client, f.creation("Frontend App"))
			if err == nil {
				winners <- created.Key
			} else {
				results <- err
			}
		})
	}
	creating.Wait()
	close(results)
	for err := range results {
		if conflict := (*apikey.Conflict)(nil); !errors.As(err, &conflict) {
			t.Errorf("a loser got %v", err)
		}
	}
	if keys := f.Keys(); len(winners) != 1 || len(keys) != 1 || keys[0].UID != (<-winners).UID {
		t.Errorf("%d won, and %d keys are left", len(winners), len(keys))
	}
}

func TestWithoutAControllerNothingIsAcceptedAndNothingIsLeft(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := keyclient.Create(ctx, f.Env.Client, f.creation("Frontend App"))
	var notAccepted *keyclient.NotAcceptedError
	if !errors.As(err, &notAccepted) || !errors.Is(err, context.DeadlineExceeded) ||
		err.Error() != `APIKey "`+notAccepted.Name+`" was not accepted in time; is the controller running? Its last word: Waiting for the controller.` {
		t.Errorf("the error is %v", err)
	}
	if keys := f.Keys(); len(keys) != 0 {
		t.Errorf("left: %v", keys)
	}
}

func TestACallerWhoGoesAwayLeavesNothing(t *testing.T) {
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
			_, err := keyclient.Create(ctx, leaver, f.creation("Frontend App"))
			var notAccepted *keyclient.NotAcceptedError
			if !errors.As(err, &notAccepted) || !errors.Is(err, leaving) ||
				err.Error() != `APIKey "`+notAccepted.Name+`" was not accepted yet when the wait for it ended: leaving` {
				t.Errorf("the error is %v", err)
			}
			if keys := f.Keys(); len(keys) != 0 {
				t.Errorf("left: %v", keys)
			}
		})
	}
}

func TestAKeyWhoseCreationWasNotAnsweredIsRemoved(t *testing.T) {
	f := newFixture(t)
	lossy := f.clientWith(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			response, err := next.RoundTrip(request)
			if request.Method == http.MethodPost && err == nil {
				if response.StatusCode != http.StatusCreated {
					t.Errorf("the creation was answered %s", response.Status)
				}
				response.Body.Close()
				return nil, errors.New("the connection broke")
			}
			return response, err
		})
	})
	_, err := keyclient.Create(t.Context(), lossy, f.creation("Frontend App"))
	if err == nil || !strings.HasSuffix(err.Error(), "the connection broke") {
		t.Errorf("the error is %v", err)
	}
	if keys := f.Keys(); len(keys) != 0 {
		t.Errorf("left: %v", keys)
	}
}

func TestAKeyThatCannotBeRemovedAgainIsNamed(t *testing.T) {
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
	_, err := keyclient.Create(ctx, undeletable, f.creation("Frontend App"))
	keys := f.Keys()
	if len(keys) != 1 || err == nil {
		t.Fatalf("%d keys are left, and the error is %v", len(keys), err)
	}
	want := `APIKey "` + keys[0].Name + `" in namespace "` + f.Namespace +
		`" could not be removed again, and nobody has its token: delete it: `
	if !strings.Contains(err.Error(), want) || !strings.HasSuffix(err.Error(), "no way") {
		t.Errorf("the error is %v, want %s", err, want)
	}
}

func TestWhatTheAPIRefusesIsToldAsItIs(t *testing.T) {
	f := newFixture(t)
	_, err := keyclient.Create(t.Context(), f.Env.Client, f.creation("Frontend App", func(c *keyclient.CreateOptions) { c.ReadAccess = false }))
	if err == nil || !strings.HasSuffix(err.Error(), "a key needs at least one of readAccess and writeAccess") {
		t.Errorf("the error is %v", err)
	}
}

func TestAnyAppNameGivesAnObjectItsName(t *testing.T) {
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
		created, err := keyclient.CreateNoWait(t.Context(), f.Env.Client, f.creation(appName))
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

func TestOfTwoDeactivationsAtOnceOneSucceeds(t *testing.T) {
	f := newFixtureWithController(t)
	key := f.create("Frontend App").Key
	var deactivating sync.WaitGroup
	results := make([]error, 10)
	for i := range results {
		deactivating.Go(func() {
			_, results[i] = keyclient.Deactivate(t.Context(), f.Env.Client, f.Namespace, key.Name, key.UID)
		})
	}
	deactivating.Wait()
	succeeded := 0
	for _, err := range results {
		switch {
		case err == nil:
			succeeded++
		case !errors.Is(err, keyclient.ErrAlreadyInactive) || err.Error() != `deactivate APIKey "`+key.Name+`": the key is already inactive`:
			t.Errorf("the error is %v", err)
		}
	}
	if succeeded != 1 {
		t.Errorf("%d succeeded", succeeded)
	}
	if keys := f.Keys(); len(keys) != 1 || *keys[0].Spec.Active {
		t.Errorf("the keys are %v", keys)
	}
}

func TestAKeyThatIsGoneIsNotDeactivated(t *testing.T) {
	f := newFixtureWithController(t)
	key := f.create("Frontend App").Key
	for name, uid := range map[string]types.UID{"another of this name": "00000000-0000-0000-0000-000000000000", "none of this name": key.UID} {
		if name == "none of this name" {
			framework.Must(f, f.Env.Client.Delete(t.Context(), key))
		}
		_, err := keyclient.Deactivate(t.Context(), f.Env.Client, f.Namespace, key.Name, uid)
		if !errors.Is(err, keyclient.ErrGone) {
			t.Errorf("%s: the error is %v", name, err)
		}
	}
}

func TestUpdatedAtIsTheLastChangeThatUsersSee(t *testing.T) {
	at := func(second int) metav1.Time { return metav1.Date(2026, 1, 1, 0, 0, second, 0, time.UTC) }
	entry := func(subresource string, second int) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{Subresource: subresource, Time: new(at(second))}
	}
	for name, test := range map[string]struct {
		managed []metav1.ManagedFieldsEntry
		ended   *metav1.Time
		want    int
	}{
		"created":               {want: 1},
		"changed by its owner":  {managed: []metav1.ManagedFieldsEntry{entry("", 1), entry("", 3), entry("", 2)}, want: 3},
		"issued by the control": {managed: []metav1.ManagedFieldsEntry{entry("", 1), entry("status", 5)}, want: 1},
		"ended":                 {managed: []metav1.ManagedFieldsEntry{entry("", 2), entry("status", 9)}, ended: new(at(4)), want: 4},
		"changed after its end": {managed: []metav1.ManagedFieldsEntry{entry("", 7)}, ended: new(at(4)), want: 7},
	} {
		key := &v1alpha1.APIKey{
			ObjectMeta: metav1.ObjectMeta{CreationTimestamp: at(1), ManagedFields: test.managed},
			Status:     v1alpha1.APIKeyStatus{DeactivatedAt: test.ended},
		}
		if got := keyclient.UpdatedAt(key); !got.Equal(at(test.want).Time) {
			t.Errorf("%s: %s, want second %d", name, got, test.want)
		}
	}
}

func TestUpdatedAtMovesWithADeactivation(t *testing.T) {
	f := newFixtureWithController(t)
	key := f.create("Frontend App").Key
	if !keyclient.UpdatedAt(key).Equal(key.CreationTimestamp.Time) {
		t.Errorf("created at %s, and updated at %s already", key.CreationTimestamp, keyclient.UpdatedAt(key))
	}
	gomega.NewWithT(t).Eventually(time.Now, framework.Timeout, 10*time.Millisecond).
		Should(gomega.BeTemporally(">", key.CreationTimestamp.Add(time.Second)))
	deactivated, err := keyclient.Deactivate(t.Context(), f.Env.Client, f.Namespace, key.Name, key.UID)
	framework.Must(f, err)
	if !keyclient.UpdatedAt(deactivated).After(key.CreationTimestamp.Time) {
		t.Errorf("updated at %s", keyclient.UpdatedAt(deactivated))
	}
	if !slices.ContainsFunc(deactivated.ManagedFields, func(e metav1.ManagedFieldsEntry) bool { return e.Subresource == "status" }) {
		t.Error("nobody wrote the status: the test shows nothing")
	}
}
