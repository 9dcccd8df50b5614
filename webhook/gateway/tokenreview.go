// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	authenticationv1beta1 "k8s.io/api/authentication/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/envelope"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// tokenReview is how kube-apiserver asks a webhook whose token it was sent, and any service can ask the same way. See
// https://kubernetes.io/docs/reference/access-authn-authz/authentication/#webhook-token-authentication.
var tokenReview = protocol{
	name:      "tokenreview",
	path:      "/auth/tokenreview/{namespace}",
	readsBody: true,
	answer:    reviewToken,
}

var (
	jsonBody = newMediaType("application/json")

	notJSON = newMisuse(http.StatusBadRequest,
		"The body is no TokenReview: it must be one JSON object, with each field of the right type and none twice.")
	notTokenReview = newMisuse(http.StatusBadRequest, `The body is no TokenReview: it must have "apiVersion": "authentication.k8s.io/v1" and `+
		`"kind": "TokenReview".`)
)

// The errors of reviews that can be read and not answered. They are for whoever runs kube-apiserver, which logs them.
const (
	oldVersion = "authentication.k8s.io/v1beta1 is not served: give kube-apiserver --authentication-token-webhook-version=v1"
	noToken    = "spec.token is missing: it must hold the token to review"
)

func reviewToken(d *desk, w http.ResponseWriter, r *http.Request, namespace string) authn.Decision {
	body, wrong := jsonBody.readBody(w, r)
	if wrong != nil {
		return d.refuse(w, wrong)
	}
	review, wrong := parseReview(body)
	if wrong != nil {
		return d.refuse(w, wrong)
	}
	if problem := problemOf(review); problem != "" {
		d.warnOfMisuse(problem)
		writeReview(w, review.TypeMeta, authenticationv1.TokenReviewStatus{Error: problem})
		return malformed
	}
	verdict := d.decide(r.Context(), authn.Request{Namespace: namespace, Credential: authn.NewCredential(review.Spec.Token)})
	switch verdict.Decision {
	case authn.Granted:
		writeReview(w, review.TypeMeta, statusOf(verdict.Key))
	case authn.Unauthenticated: // without an error: kube-apiserver sends every token that it does not know, and would log each
		writeReview(w, review.TypeMeta, authenticationv1.TokenReviewStatus{})
	default:
		d.denials.For(verdict).Write(w)
	}
	return verdict.Decision
}

// parseReview reads JSON as Kubernetes does, field names in their exact case and unknown ones left out, but none may come twice. A
// review of v1beta1 reads the same.
func parseReview(body []byte) (*authenticationv1.TokenReview, *misuse) {
	review := &authenticationv1.TokenReview{}
	twice, err := json.UnmarshalStrict(body, review, json.DisallowDuplicateFields)
	if err != nil || len(twice) > 0 {
		return nil, notJSON
	}
	isKnown := review.APIVersion == authenticationv1.SchemeGroupVersion.String() ||
		review.APIVersion == authenticationv1beta1.SchemeGroupVersion.String()
	if !isKnown || review.Kind != "TokenReview" {
		return nil, notTokenReview
	}
	return review, nil
}

func problemOf(review *authenticationv1.TokenReview) string {
	switch {
	case review.APIVersion != authenticationv1.SchemeGroupVersion.String():
		return oldVersion
	case review.Spec.Token == "":
		return noToken
	default:
		return ""
	}
}

// statusOf returns who has a good key. It names no audience, whatever spec.audiences asks for: a key was made for no audience in
// particular, and an authenticator that returns one vouches that the token was meant for it. By the API's own rule a token without
// audiences is good for the audience of the API server that asks, and no other: kube-apiserver lets the key in, and refuses it when a
// third party asks whether it was meant for them.
func statusOf(key *authn.Key) authenticationv1.TokenReviewStatus {
	return authenticationv1.TokenReviewStatus{
		Authenticated: true,
		User: authenticationv1.UserInfo{
			Username: "apikey:" + key.Namespace + ":" + key.Name,
			UID:      key.UID,
			Groups:   groupsOf(key),
			Extra:    map[string]authenticationv1.ExtraValue{v1alpha1.GroupVersion.Group + "/app-name": {key.AppName}},
		},
	}
}

// groupsOf returns the groups that RBAC can name: all keys, those of a namespace, and those there that may read or write.
func groupsOf(key *authn.Key) []string {
	ofNamespace := "apikeys:" + key.Namespace
	groups := []string{"apikeys", ofNamespace}
	for _, right := range []authn.Access{authn.Read, authn.Write} {
		if key.Access&right != 0 {
			groups = append(groups, ofNamespace+":"+right.String())
		}
	}
	return groups
}

// writeReview answers a review in its version, without its spec: the token does not go back.
func writeReview(w http.ResponseWriter, asked metav1.TypeMeta, status authenticationv1.TokenReviewStatus) {
	envelope.NewResponse(http.StatusOK, &authenticationv1.TokenReview{TypeMeta: asked, Status: status}).Write(w)
}
