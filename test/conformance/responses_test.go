// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
)

// response is an HTTP response without its date.
type response struct {
	status int
	header map[string]string
	body   string
	length int // of the body, which the response to HEAD does not have
}

// newResponse returns a response for comparison: the names in its JSON are sorted.
func newResponse(status int, header http.Header, body string, length int) response {
	a := response{status: status, header: map[string]string{}, body: body, length: max(length, 0)}
	for name, values := range header {
		if name != "Date" && name != "Content-Length" {
			a.header[name] = strings.Join(values, " | ")
		}
	}
	var content any
	if err := json.Unmarshal([]byte(body), &content); err == nil {
		a.body = canonical(content)
		a.length = len(a.body)
	}
	return a
}

func (a response) equals(b response) bool {
	return a.status == b.status && maps.Equal(a.header, b.header) && a.length == b.length && (a.body == b.body || a.body == "")
}

// nameOf returns the name of the known response that equals this one. An error for a misconfigured gateway is named by its status.
func nameOf(got response, known ...map[string]response) string {
	for _, responses := range known {
		for name, want := range responses {
			if got.equals(want) {
				return name
			}
		}
	}
	var reported struct {
		ErrorCode    int
		ErrorMessage string
	}
	if err := json.Unmarshal([]byte(got.body), &reported); err == nil && got.equals(failure(reported.ErrorCode, reported.ErrorMessage)) {
		return fmt.Sprintf("misconfigured (%d)", got.status)
	}
	return fmt.Sprintf("%+v", got)
}

const (
	challenge      = `Bearer realm="apikey-operator"`
	basicChallenge = `Basic realm="apikey-operator"`
)

// denials are the responses that all protocols share. The challenges are those of a 401.
func denials(challenges string) map[string]response {
	const insufficientScope = challenge + `, error="insufficient_scope"`
	return map[string]response{
		unauthenticated: failure(http.StatusUnauthorized,
			"A valid API key is required: send it in the X-API-Key header, or as Authorization: Bearer.").with("Www-Authenticate", challenges),
		noRead:     failure(http.StatusUnauthorized, "API key does not have read access").with("Www-Authenticate", challenges),
		noWrite:    failure(http.StatusUnauthorized, "API key does not have write access").with("Www-Authenticate", challenges),
		noRead403:  failure(http.StatusForbidden, "API key does not have read access").with("Www-Authenticate", insufficientScope),
		noWrite403: failure(http.StatusForbidden, "API key does not have write access").with("Www-Authenticate", insufficientScope),
		unavailable: failure(http.StatusServiceUnavailable, "API keys cannot be checked at the moment: try again.").
			with("Retry-After", "1"),
	}
}

// grantedTo is the response to gateways, which has only the identity of the key.
func grantedTo(k key) map[string]response {
	return map[string]response{granted: {status: http.StatusOK, header: map[string]string{
		"Cache-Control":    "no-store",
		"X-Auth-App":       url.PathEscape(k.app),
		"X-Auth-Namespace": k.namespace,
		"X-Auth-Key-Id":    k.uid,
		"X-Auth-Access":    strings.Join(k.rights, ","),
	}}}
}

// grantedOverGRPC is the response over gRPC. Envoy sets the same headers, and removes the header with the key and those that override the
// method.
func grantedOverGRPC(k key, credential string) map[string]response {
	passed := grantedTo(k)[granted].with(removed, credential+",x-http-method,x-http-method-override,x-method-override")
	delete(passed.header, "Cache-Control")
	return map[string]response{granted: passed}
}

// reviewed are the responses to a TokenReview.
func reviewed(k key) map[string]response {
	groups := []string{"apikeys", "apikeys:" + k.namespace}
	for _, right := range k.rights {
		groups = append(groups, "apikeys:"+k.namespace+":"+right)
	}
	review := func(status any) response {
		return success(map[string]any{
			"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": map[string]any{}, "spec": map[string]any{}, "status": status,
		})
	}
	return map[string]response{
		valid(k): review(map[string]any{"authenticated": true, "user": map[string]any{
			"username": "apikey:" + k.namespace + ":" + k.name,
			"uid":      k.uid,
			"groups":   groups,
			"extra":    map[string][]string{"keys.squirrel.dev/app-name": {k.app}},
		}}),
		unauthenticated: review(map[string]any{"user": map[string]any{}}),
		misconfiguredStatus: review(map[string]any{
			"user": map[string]any{}, "error": "spec.token is empty: set it to the token to review",
		}),
	}
}

// introspected are the responses to the introspection of a token.
func introspected(k key) map[string]response {
	active := map[string]any{
		"active":     true,
		"scope":      strings.Join(k.rights, " "),
		"client_id":  url.PathEscape(k.app),
		"token_type": "Bearer",
		"iat":        k.issuedAt,
		"sub":        k.uid,
		"iss":        "keys.squirrel.dev/" + k.namespace,
	}
	if k.expiresAt != 0 {
		active["exp"] = k.expiresAt
	}
	return map[string]response{valid(k): success(active), unauthenticated: success(map[string]any{"active": false})}
}

// valid is the name of the response of a protocol without a method: it lists the access of the key.
func valid(k key) string { return "valid: " + strings.Join(k.rights, ", ") }

func failure(status int, message string) response {
	return jsonResponse(status, map[string]any{"errorCode": status, "errorMessage": message, "payload": nil})
}

func success(content any) response { return jsonResponse(http.StatusOK, content) }

// jsonResponse has its names in order.
func jsonResponse(status int, content any) response {
	body := canonical(content)
	return response{status: status, body: body, length: len(body), header: map[string]string{
		"Cache-Control": "no-store",
		"Content-Type":  "application/json",
	}}
}

func (a response) with(name, value string) response {
	a.header[name] = value
	return a
}

func canonical(content any) string {
	encoded, err := json.Marshal(content)
	if err != nil {
		panic(err) // what is in the table can be encoded
	}
	return string(encoded)
}
