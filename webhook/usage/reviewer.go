// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/internal/envelope"
	"squirrel.dev/apikey-operator/internal/logging"
	"squirrel.dev/apikey-operator/internal/usage"
)

const (
	// reviewInterval is the minimum time between two TokenReviews. Any pod of the cluster may be able to connect, and must not cause load on
	// the Kubernetes API.
	reviewInterval = time.Second

	// reviewTimeout is how long a caller waits for its TokenReview, and for those before it.
	reviewTimeout = 5 * time.Second

	// confirmedFor is how long a confirmed token needs no other TokenReview, so that other callers cannot keep the controller out.
	confirmedFor = 10 * time.Minute
)

var (
	unauthorized = envelope.NewError(http.StatusUnauthorized,
		"This report is for the controller: send a ServiceAccount token of the audience "+usage.Audience+" as a bearer token.")
	forbidden = envelope.NewError(http.StatusForbidden,
		"This report is for the controller: its ServiceAccount is another one (--usage-reader).")
	busy        = envelope.NewError(http.StatusTooManyRequests, "Too many tokens are being reviewed: retry later.")
	unavailable = envelope.NewError(http.StatusServiceUnavailable, "The Kubernetes API cannot review the token: retry later.")
)

// Reviewer confirms the tokens of the one ServiceAccount that may read the report. It needs the right to create TokenReviews.
type Reviewer struct {
	reviews authenticationclient.TokenReviewInterface
	reader  string // the user name of the ServiceAccount
	log     *slog.Logger
	now     func() time.Time
	limiter *rate.Limiter

	mu        sync.Mutex
	confirmed map[token.Digest]time.Time // until when tokens are confirmed
}

// NewReviewer returns a Reviewer that confirms the tokens of a ServiceAccount, whose user name is
// system:serviceaccount:<namespace>:<name>.
func NewReviewer(reviews authenticationclient.TokenReviewInterface, reader string, log *slog.Logger) *Reviewer {
	return &Reviewer{
		reviews: reviews, reader: reader, log: logging.Limit(log, 1), now: time.Now,
		limiter:   rate.NewLimiter(rate.Every(reviewInterval), 1),
		confirmed: map[token.Digest]time.Time{},
	}
}

// review returns nil if the request has a token of the reader, or the response that refuses it.
func (r *Reviewer) review(request *http.Request) *envelope.Response {
	bearer, found := strings.CutPrefix(request.Header.Get("Authorization"), "Bearer ")
	if !found {
		return unauthorized
	}
	digest := token.Sum(bearer)
	if r.isConfirmed(digest) {
		return nil
	}
	if refusal := r.refuse(claimsOf(bearer)); refusal != nil {
		return refusal
	}
	ctx, cancel := context.WithTimeout(request.Context(), reviewTimeout)
	defer cancel()
	if r.limiter.Wait(ctx) != nil {
		return busy
	}
	status, err := r.confirm(ctx, bearer)
	if err != nil {
		r.log.Warn("Cannot review the token of a caller that requests the last uses of tokens", "err", err)
		return unavailable
	}
	if !status.Authenticated {
		return unauthorized
	}
	if refusal := r.refuse(claims{Audiences: status.Audiences, Subject: status.User.Username}); refusal != nil {
		return refusal
	}
	r.remember(digest)
	return nil
}

// claims are the claims of a ServiceAccount token that matter here.
type claims struct {
	Audiences []string `json:"aud"`
	Subject   string   `json:"sub"`
}

// claimsOf returns the claims of a token without a check of its signature, so that no TokenReview is needed to refuse other tokens. A token
// that is not of a ServiceAccount has none.
func claimsOf(bearer string) (unverified claims) {
	parts := strings.Split(bearer, ".")
	if len(parts) != 3 {
		return claims{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &unverified) != nil {
		return claims{}
	}
	return unverified
}

// refuse returns the response to a token with these claims, or nil.
func (r *Reviewer) refuse(c claims) *envelope.Response {
	switch {
	case !slices.Contains(c.Audiences, usage.Audience):
		return unauthorized
	case c.Subject != r.reader:
		return forbidden
	default:
		return nil
	}
}

// confirm asks the Kubernetes API to review a token.
func (r *Reviewer) confirm(ctx context.Context, bearer string) (authenticationv1.TokenReviewStatus, error) {
	review, err := r.reviews.Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: bearer, Audiences: []string{usage.Audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return authenticationv1.TokenReviewStatus{}, fmt.Errorf("create a TokenReview: %w", err)
	}
	return review.Status, nil
}

func (r *Reviewer) isConfirmed(digest token.Digest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now().Before(r.confirmed[digest])
}

func (r *Reviewer) remember(digest token.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	maps.DeleteFunc(r.confirmed, func(_ token.Digest, until time.Time) bool { return !now.Before(until) })
	r.confirmed[digest] = now.Add(confirmedFor)
}
