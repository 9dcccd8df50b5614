// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package usage_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/webhook/authn"
	"squirrel.dev/apikey-operator/webhook/usage"
)

const reader = "system:serviceaccount:apikey-system:apikey-controller"

// reviews are the TokenReviews of a Kubernetes API.
type reviews struct {
	mu      sync.Mutex
	at      []time.Time
	respond func(token string) (authenticationv1.TokenReviewStatus, error)
}

// Create responds to a TokenReview.
func (r *reviews) Create(
	_ context.Context, review *authenticationv1.TokenReview, _ metav1.CreateOptions,
) (*authenticationv1.TokenReview, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = append(r.at, time.Now())
	status, err := r.respond(review.Spec.Token)
	return &authenticationv1.TokenReview{Status: status}, err
}

func refuseAll(string) (authenticationv1.TokenReviewStatus, error) {
	return authenticationv1.TokenReviewStatus{}, nil
}

// tokenOf returns a token with these claims, and a wrong signature.
func tokenOf(audience, subject, id string) string {
	encode := func(part string) string { return base64.RawURLEncoding.EncodeToString([]byte(part)) }
	return encode(`{"alg":"RS256"}`) + "." + encode(fmt.Sprintf(`{"aud":[%q],"sub":%q,"jti":%q}`, audience, subject, id)) + "." + encode("signature")
}

// request returns the status of the response to a token.
func request(handler http.Handler, authorization string) int {
	r := httptest.NewRequest(http.MethodGet, "/usage", http.NoBody)
	r.Header.Set("Authorization", authorization)
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, r)
	return recorder.Code
}

func newHandler(r *reviews) http.Handler {
	authenticator := authn.NewAuthenticator(authn.NewKeyring(), 0, time.Now)
	return usage.NewHandler(authenticator, usage.NewReviewer(r, reader, slog.New(slog.DiscardHandler)))
}

func TestReviewer_RefusesTokensWithOtherClaimsWithoutAReview(t *testing.T) {
	api := &reviews{respond: refuseAll}
	handler := newHandler(api)
	for authorization, want := range map[string]int{
		"":                                 http.StatusUnauthorized,
		"Bearer ":                          http.StatusUnauthorized,
		"Bearer sq_token":                  http.StatusUnauthorized,
		"Bearer a.b.c":                     http.StatusUnauthorized,
		"Bearer " + strings.Repeat(".", 9): http.StatusUnauthorized,
		"Basic " + tokenOf("apikey-usage", reader, "1"):                                              http.StatusUnauthorized,
		"Bearer " + tokenOf("https://kubernetes.default.svc", reader, "1"):                           http.StatusUnauthorized,
		"Bearer " + tokenOf("apikey-usage", "system:serviceaccount:shop:apikey-controller", "1"):     http.StatusForbidden,
		"Bearer " + tokenOf("apikey-usage", "system:serviceaccount:apikey-system:apikey-other", "1"): http.StatusForbidden,
	} {
		if got := request(handler, authorization); got != want {
			t.Errorf("%q: got the status %d, want %d", authorization, got, want)
		}
	}
	if len(api.at) > 0 {
		t.Errorf("the Kubernetes API reviews %d tokens", len(api.at))
	}
}

func TestReviewer_ReviewsATokenASecondAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &reviews{respond: refuseAll}
		handler := newHandler(api)
		codes, mu, begin := map[int]int{}, sync.Mutex{}, time.Now()
		var callers sync.WaitGroup
		for i := range 100 {
			callers.Go(func() {
				code := request(handler, "Bearer "+tokenOf("apikey-usage", reader, fmt.Sprint("forged", i)))
				mu.Lock()
				defer mu.Unlock()
				codes[code]++
			})
		}
		callers.Wait()
		if want := map[int]int{http.StatusUnauthorized: 6, http.StatusTooManyRequests: 94}; !maps.Equal(codes, want) {
			t.Errorf("the responses are %v, want %v", codes, want)
		}
		for i, at := range api.at {
			if want := begin.Add(time.Duration(i) * time.Second); !at.Equal(want) {
				t.Errorf("review %d is at %s, want %s", i, at, want)
			}
		}
	})
}

// A flood of forged tokens must not keep the controller out.
func TestReviewer_AConfirmedTokenNeedsNoOtherReviewForTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		valid := tokenOf("apikey-usage", reader, "valid")
		api := &reviews{respond: func(token string) (authenticationv1.TokenReviewStatus, error) {
			return authenticationv1.TokenReviewStatus{
				Authenticated: token == valid, Audiences: []string{"apikey-usage"}, User: authenticationv1.UserInfo{Username: reader},
			}, nil
		}}
		handler := newHandler(api)
		for range 12 {
			if got := request(handler, "Bearer "+valid); got != http.StatusOK {
				t.Fatalf("the status is %d", got)
			}
			time.Sleep(time.Minute - time.Second)
		}
		if len(api.at) != 2 {
			t.Errorf("the Kubernetes API reviews the token %d times in 11 minutes", len(api.at))
		}
	})
}

func TestReviewer_DecidesByTheReview(t *testing.T) {
	for _, test := range []struct {
		name   string
		status authenticationv1.TokenReviewStatus
		err    error
		want   int
	}{
		{"not authenticated", authenticationv1.TokenReviewStatus{Audiences: []string{"apikey-usage"}}, nil, http.StatusUnauthorized},
		{"no audience, from an authenticator that ignores audiences", authenticationv1.TokenReviewStatus{
			Authenticated: true, User: authenticationv1.UserInfo{Username: reader}}, nil, http.StatusUnauthorized},
		{"another user", authenticationv1.TokenReviewStatus{
			Authenticated: true, Audiences: []string{"apikey-usage"}, User: authenticationv1.UserInfo{Username: "system:admin"}}, nil, http.StatusForbidden},
		{"no response", authenticationv1.TokenReviewStatus{}, errors.New("connection refused"), http.StatusServiceUnavailable},
		{"the reader", authenticationv1.TokenReviewStatus{
			Authenticated: true, Audiences: []string{"apikey-usage"}, User: authenticationv1.UserInfo{Username: reader}}, nil, http.StatusOK},
	} {
		t.Run(test.name, func(t *testing.T) {
			api := &reviews{respond: func(string) (authenticationv1.TokenReviewStatus, error) { return test.status, test.err }}
			if got := request(newHandler(api), "Bearer "+tokenOf("apikey-usage", reader, "1")); got != test.want {
				t.Errorf("the status is %d, want %d", got, test.want)
			}
		})
	}
}
