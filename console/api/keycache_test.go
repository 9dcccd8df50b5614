// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"github.com/go-logr/logr"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// issuedKey returns an issued APIKey.
func issuedKey(number int) *v1alpha1.APIKey {
	name := fmt.Sprintf("key-%d", number)
	return &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, UID: types.UID("uid-of-" + name), CreationTimestamp: metav1.NewTime(time.Unix(int64(number/3), 0)),
			Annotations:   map[string]string{"purpose": "test"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Time: new(metav1.NewTime(time.Unix(int64(number+5), 0)))}},
		},
		Spec: v1alpha1.APIKeySpec{AppName: "App " + name, ReadAccess: true},
		Status: v1alpha1.APIKeyStatus{
			Tokens:     []v1alpha1.TokenRecord{{Hash: token.Hash(name), NotBefore: new(metav1.Now())}},
			Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReady}},
		},
	}
}

func ids(entries []*entry) []string {
	found := make([]string, len(entries))
	for i, e := range entries {
		found[i] = e.id
	}
	return found
}

// assertKeys checks that the KeyCache lists these keys in order, and that the Keyring accepts them and no others.
func assertKeys(t *testing.T, keys *KeyCache, want []*v1alpha1.APIKey) {
	t.Helper()
	want = slices.Clone(want)
	slices.SortFunc(want, func(a, b *v1alpha1.APIKey) int {
		return cmp.Or(
			a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
			cmp.Compare(a.Annotations["keys.squirrel.dev/created-at"], b.Annotations["keys.squirrel.dev/created-at"]),
			cmp.Compare(a.Name, b.Name),
		)
	})
	wantIDs := make([]string, len(want))
	authenticator := authn.NewAuthenticator(keys.keyring, 0, time.Now)
	for i, key := range want {
		wantIDs[i] = string(key.UID)
		if found := keys.find(wantIDs[i]); found == nil || found.Name != key.Name {
			t.Errorf("found %v by the ID of %s", found, key.Name)
		}
		if !authenticator.Accepts(key.Namespace, key.Name, wantIDs[i]) {
			t.Errorf("%s is refused", key.Name)
		}
	}
	found, more := keys.list(keyclient.Position{}, len(want)+1, func(*entry) bool { return true })
	if diff := gocmp.Diff(wantIDs, ids(found)); diff != "" || more {
		t.Errorf("the keys (-want +got), more %t:\n%s", more, diff)
	}
	if len(want) != keys.keyring.Len() {
		t.Errorf("the Keyring has %d keys, want %d", keys.keyring.Len(), len(want))
	}
}

func TestKeyCache_KeepsTheOrderAndTheKeyringThroughAllEvents(t *testing.T) {
	keys := NewKeyCache(authn.NewKeyring())
	var want []*v1alpha1.APIKey
	for step := range 300 {
		key := issuedKey(rand.IntN(50))
		at := slices.IndexFunc(want, func(k *v1alpha1.APIKey) bool { return k.UID == key.UID })
		switch {
		case step%100 == 99:
			want = want[:len(want)/2]
			objects := make([]any, len(want))
			for i := range want {
				objects[i] = want[len(want)-1-i]
			}
			framework.Must(t, keys.Replace(objects, ""))
		case at >= 0 && step%2 == 0:
			want = slices.Delete(want, at, at+1)
			framework.Must(t, keys.Delete(key))
		case at >= 0:
			framework.Must(t, keys.Update(key))
		default:
			want = append(want, key)
			framework.Must(t, keys.Add(key))
		}
		assertKeys(t, keys, want)
	}
}

func TestKeyCache_AKeyThatChecksAcceptIsListed(t *testing.T) {
	keys := NewKeyCache(authn.NewKeyring())
	authenticator := authn.NewAuthenticator(keys.keyring, 0, time.Now)
	const many = 1000
	var running sync.WaitGroup
	running.Go(func() {
		for number := range many {
			framework.Must(t, keys.Add(issuedKey(number)))
		}
	})
	for number := range many {
		key := issuedKey(number)
		for !authenticator.Accepts(key.Namespace, key.Name, string(key.UID)) {
			runtime.Gosched()
		}
		if keys.find(string(key.UID)) == nil {
			t.Errorf("%s is accepted, but not listed", key.Name)
		}
	}
	running.Wait()
	framework.Must(t, keys.Replace([]any{issuedKey(many)}, ""))
	assertKeys(t, keys, []*v1alpha1.APIKey{issuedKey(many)})
}

func TestKeyCache_TransformedKeysAreEqual(t *testing.T) {
	whole, transformed := NewKeyCache(authn.NewKeyring()), NewKeyCache(authn.NewKeyring())
	for number := range 10 {
		framework.Must(t, whole.Update(issuedKey(number)))
		object, err := transformed.Transformer()(issuedKey(number))
		framework.Must(t, err)
		framework.Must(t, transformed.Update(object))
	}
	if diff := gocmp.Diff(whole.sorted, transformed.sorted, gocmp.AllowUnexported(entry{}), cmpopts.EquateComparable(unique.Handle[condition]{})); diff != "" {
		t.Errorf("the keys (-whole +transformed):\n%s", diff)
	}
	if _, err := whole.Transformer()(&metav1.Status{}); err == nil {
		t.Error("an object that is not an APIKey is transformed")
	}
}

func TestKeyCache_BookmarksCountAsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := NewKeyCache(authn.NewKeyring())
		time.Sleep(time.Minute)
		framework.Must(t, keys.Bookmark("1"))
		if staleness := keys.keyring.Staleness(time.Now()); staleness != 0 {
			t.Errorf("the staleness is %s", staleness)
		}
	})
}

func TestAwait_ChecksTheConditionAfterEachEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := NewKeyCache(authn.NewKeyring())
		checks, awaited := 0, make(chan error)
		go func() {
			awaited <- keys.Await(t.Context(), func() bool {
				checks++
				return keys.find("uid-of-key-1") != nil
			})
		}()
		for number := 3; number > 0; number-- {
			synctest.Wait()
			framework.Must(t, keys.Update(issuedKey(number)))
		}
		if err := <-awaited; err != nil || checks != 4 {
			t.Errorf("%v after %d checks, want 4", err, checks)
		}
	})
}

func TestAwait_ReturnsTheCauseWhenItsContextIsDone(t *testing.T) {
	cause := errors.New("leaving")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	keys := NewKeyCache(authn.NewKeyring())
	if err := keys.Await(ctx, func() bool { return false }); !errors.Is(err, cause) {
		t.Errorf("the error is %v", err)
	}
	if err := keys.Await(ctx, func() bool { return true }); err != nil {
		t.Errorf("the error of a true condition is %v", err)
	}
}

func TestRun_OneListAndWatchFillsTheKeyCacheAndTheKeyring(t *testing.T) {
	env := testenv.Shared(t)
	f := testenv.NewFixture(t, env)
	var mu sync.Mutex
	requests := 0
	config := env.User(t, "admin", "system:masters")
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			requests++
			return next.RoundTrip(r)
		})
	})
	kubernetes, err := client.NewWithWatch(config, client.Options{Scheme: env.Scheme, Mapper: env.Client.RESTMapper()})
	framework.Must(t, err)
	key := issuedKey(1)
	key.ObjectMeta = metav1.ObjectMeta{Namespace: f.Namespace, Name: "key"}
	status := key.Status
	framework.Must(t, env.Client.Create(t.Context(), key))
	key.Status = v1alpha1.APIKeyStatus{Tokens: status.Tokens}
	framework.Must(t, env.Client.Status().Update(t.Context(), key))

	keys := NewKeyCache(authn.NewKeyring())
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = keys.Run(ctx, kubernetes, f.Namespace) })
	t.Cleanup(func() { stop(); running.Wait() })
	framework.Eventually(t, "the keys are listed", keys.keyring.Synced)
	assertKeys(t, keys, []*v1alpha1.APIKey{key})
	framework.Must(t, env.Client.Delete(t.Context(), key))
	framework.Eventually(t, "the key is deleted", func() bool { return keys.find(string(key.UID)) == nil })
	assertKeys(t, keys, nil)
	mu.Lock()
	defer mu.Unlock()
	if requests != 1 {
		t.Errorf("%d requests, want one watch that begins with a list", requests)
	}
}

// Some versions of Kubernetes have no streaming list by default.
func TestRun_ListsWithoutAnErrorWhereTheAPIServerHasNoStreamingList(t *testing.T) {
	env := testenv.Shared(t)
	f := testenv.NewFixture(t, env)
	config := env.User(t, "admin", "system:masters")
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.Query().Get("sendInitialEvents") != "true" {
				return next.RoundTrip(r)
			}
			status := apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", field.ErrorList{
				field.Forbidden(field.NewPath("sendInitialEvents"), "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"),
			}).Status()
			status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
			content, err := json.Marshal(status)
			return &http.Response{
				StatusCode: http.StatusUnprocessableEntity, Header: http.Header{"Content-Type": {"application/json"}},
				Body: io.NopCloser(bytes.NewReader(content)), Request: r,
			}, err
		})
	})
	kubernetes, err := client.NewWithWatch(config, client.Options{Scheme: env.Scheme, Mapper: env.Client.RESTMapper()})
	framework.Must(t, err)
	keys, logged := NewKeyCache(authn.NewKeyring()), &framework.Buffer{}
	ctx, stop := context.WithCancel(klog.NewContext(context.Background(), logr.FromSlogHandler(slog.NewTextHandler(logged, nil))))
	var running sync.WaitGroup
	running.Go(func() { _ = keys.Run(ctx, kubernetes, f.Namespace) })
	t.Cleanup(func() { stop(); running.Wait() })
	framework.Eventually(t, "the keys are listed", keys.keyring.Synced)
	if text := logged.String(); strings.Contains(text, "Unable") {
		t.Errorf("logged: %s", text)
	}
}

// roundTripper is a function as an http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestReady_ReturnsTheErrorOfTheLastList(t *testing.T) {
	keyring := authn.NewKeyring()
	keys := NewKeyCache(keyring)
	config := testenv.Shared(t).User(t, "unprivileged")
	kubernetes, err := client.NewWithWatch(config, client.Options{Scheme: testenv.Shared(t).Scheme, Mapper: testenv.Shared(t).Client.RESTMapper()})
	framework.Must(t, err)
	handler := NewHandler(Options{Authenticator: authn.NewAuthenticator(keyring, 0, time.Now), KeyCache: keys})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = keys.Run(ctx, kubernetes, "default") })
	t.Cleanup(func() { stop(); running.Wait() })
	const want = `(last error: apikeys.keys.squirrel.dev is forbidden: User "unprivileged" cannot `
	framework.Eventually(t, "the error is known", func() bool { return handler.Ready() != nil && strings.Contains(handler.Ready().Error(), want) })
}
