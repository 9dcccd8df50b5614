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

// tokenReview is the protocol of kube-apiserver's token webhook, which any service can use too. See
// https://kubernetes.io/docs/reference/access-authn-authz/authentication/#webhook-token-authentication.
var tokenReview = protocol{
	name:      "tokenreview",
	path:      "/auth/tokenreview/{namespace}",
	readsBody: true,
	serve:     reviewToken,
}

var (
	jsonBody = newMediaType("application/json")

	notJSON = newConfigError(http.StatusBadRequest,
		"The request body is not a TokenReview: send one JSON object, with each field once and of the right type.")
	notTokenReview = newConfigError(http.StatusBadRequest,
		`The request body is not a TokenReview: set "apiVersion": "authentication.k8s.io/v1" and "kind": "TokenReview".`)
)

// The errors in the status of TokenReviews that cannot be decided. kube-apiserver logs them.
const (
	oldVersion = "authentication.k8s.io/v1beta1 is not supported: start kube-apiserver with --authentication-token-webhook-version=v1"
	noToken    = "spec.token is empty: set it to the token to review"
)

func reviewToken(c *checker, w http.ResponseWriter, r *http.Request, namespace string) authn.Decision {
	body, err := jsonBody.readBody(w, r)
	if err != nil {
		return c.reject(w, err)
	}
	review, err := parseReview(body)
	if err != nil {
		return c.reject(w, err)
	}
	if problem := problemOf(review); problem != "" {
		c.warnOfConfig(problem)
		writeReview(w, review.TypeMeta, authenticationv1.TokenReviewStatus{Error: problem})
		return malformed
	}
	verdict := c.check(r.Context(), authn.Request{Namespace: namespace, Credential: authn.NewCredential(review.Spec.Token)})
	switch verdict.Decision {
	case authn.Granted:
		writeReview(w, review.TypeMeta, statusOf(verdict.Key))
	case authn.Unauthenticated: // without an error: kube-apiserver sends each token that it does not know, and would log the error
		writeReview(w, review.TypeMeta, authenticationv1.TokenReviewStatus{})
	default:
		c.denials.For(verdict).Write(w)
	}
	return verdict.Decision
}

// parseReview decodes a TokenReview of v1 or v1beta1. It decodes JSON as Kubernetes does: field names are case-sensitive, and unknown
// fields are ignored. But it rejects repeated fields.
func parseReview(body []byte) (*authenticationv1.TokenReview, *configError) {
	review := &authenticationv1.TokenReview{}
	repeated, err := json.UnmarshalStrict(body, review, json.DisallowDuplicateFields)
	if err != nil || len(repeated) > 0 {
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

// statusOf returns the user of a valid key. It names no audience, even if spec.audiences does: an authenticator that returns an audience
// confirms that the token was issued for it, and a key is issued for none. By the rule of the API, a token without audiences is valid for
// the audience of the API server alone. So kube-apiserver accepts the key, and rejects it in a TokenReview for another audience.
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

// groupsOf returns the groups that RBAC can name: all keys, the keys of a namespace, and those of them with read or write access.
func groupsOf(key *authn.Key) []string {
	namespaceGroup := "apikeys:" + key.Namespace
	groups := []string{"apikeys", namespaceGroup}
	for _, right := range []authn.Access{authn.Read, authn.Write} {
		if key.Access&right != 0 {
			groups = append(groups, namespaceGroup+":"+right.String())
		}
	}
	return groups
}

// writeReview writes a TokenReview in the version of the request, without its spec, which has the token.
func writeReview(w http.ResponseWriter, version metav1.TypeMeta, status authenticationv1.TokenReviewStatus) {
	envelope.NewResponse(http.StatusOK, &authenticationv1.TokenReview{TypeMeta: version, Status: status}).Write(w)
}
