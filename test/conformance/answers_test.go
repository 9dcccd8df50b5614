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

// answer is all of an answer but its date.
type answer struct {
	status int
	header map[string]string
	body   string
	length int // of the body, which an answer to HEAD does not have
}

// newAnswer returns an answer as tests compare it: JSON with its names in order.
func newAnswer(status int, header http.Header, body string, length int) answer {
	a := answer{status: status, header: map[string]string{}, body: body, length: max(length, 0)}
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

func (a answer) equals(b answer) bool {
	return a.status == b.status && maps.Equal(a.header, b.header) && a.length == b.length && (a.body == b.body || a.body == "")
}

// inWords returns which of the known answers it is exactly. An error that only tells of a misuse is known by its status.
func inWords(got answer, known ...map[string]answer) string {
	for _, words := range known {
		for word, want := range words {
			if got.equals(want) {
				return word
			}
		}
	}
	var told struct {
		ErrorCode    int
		ErrorMessage string
	}
	if err := json.Unmarshal([]byte(got.body), &told); err == nil && got.equals(failure(told.ErrorCode, told.ErrorMessage)) {
		return fmt.Sprintf("misuse (%d)", got.status)
	}
	return fmt.Sprintf("%+v", got)
}

const (
	challenge      = `Bearer realm="apikey-operator"`
	basicChallenge = `Basic realm="apikey-operator"`
)

// refusals are what all protocols answer but for the verdict on a token that they hand over. The challenges are those of a 401.
func refusals(challenges string) map[string]answer {
	const insufficientScope = challenge + `, error="insufficient_scope"`
	return map[string]answer{
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

// grantedTo is what gateways are answered: nothing but whose key it is.
func grantedTo(k key) map[string]answer {
	return map[string]answer{granted: {status: http.StatusOK, header: map[string]string{
		"Cache-Control":    "no-store",
		"X-Auth-App":       url.PathEscape(k.app),
		"X-Auth-Namespace": k.namespace,
		"X-Auth-Key-Id":    k.uid,
		"X-Auth-Access":    strings.Join(k.rights, ","),
	}}}
}

// passedOn is what Envoy is told by gRPC: to set the same headers, and to remove the one that the key was in and those that override the
// method.
func passedOn(k key, credential string) map[string]answer {
	passed := grantedTo(k)[granted].with(removed, credential+",x-http-method,x-http-method-override,x-method-override")
	delete(passed.header, "Cache-Control")
	return map[string]answer{granted: passed}
}

// reviewed are the answers to a review of a token.
func reviewed(k key) map[string]answer {
	groups := []string{"apikeys", "apikeys:" + k.namespace}
	for _, right := range k.rights {
		groups = append(groups, "apikeys:"+k.namespace+":"+right)
	}
	review := func(status any) answer {
		return success(map[string]any{
			"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": map[string]any{}, "spec": map[string]any{}, "status": status,
		})
	}
	return map[string]answer{
		told(k): review(map[string]any{"authenticated": true, "user": map[string]any{
			"username": "apikey:" + k.namespace + ":" + k.name,
			"uid":      k.uid,
			"groups":   groups,
			"extra":    map[string][]string{"keys.squirrel.dev/app-name": {k.app}},
		}}),
		unauthenticated: review(map[string]any{"user": map[string]any{}}),
		misuseError: review(map[string]any{
			"user": map[string]any{}, "error": "spec.token is empty: set it to the token to review",
		}),
	}
}

// introspected are the answers to the introspection of a token.
func introspected(k key) map[string]answer {
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
	return map[string]answer{told(k): success(active), unauthenticated: success(map[string]any{"active": false})}
}

// told is what protocols without a method tell: what the key may do.
func told(k key) string { return "told: " + strings.Join(k.rights, ", ") }

func failure(status int, message string) answer {
	return jsonAnswer(status, map[string]any{"errorCode": status, "errorMessage": message, "payload": nil})
}

func success(content any) answer { return jsonAnswer(http.StatusOK, content) }

// jsonAnswer has its names in order.
func jsonAnswer(status int, content any) answer {
	body := canonical(content)
	return answer{status: status, body: body, length: len(body), header: map[string]string{
		"Cache-Control": "no-store",
		"Content-Type":  "application/json",
	}}
}

func (a answer) with(name, value string) answer {
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
