// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"strings"

	"squirrel.dev/apikey-operator/webhook/authn"
)

// Header values that are shared by all answers. They are full slices of one: appending to one copies it.
var (
	noStore         = []string{"no-store"}
	connectionClose = []string{"close"}
)

const challenge = `Bearer realm="apikey-operator"`

// answers are the answers to all verdicts but Granted.
type answers struct {
	unauthenticated *answer
	noReadAccess    *answer
	noWriteAccess   *answer
	unavailable     *answer
}

func newAnswers(insufficientAccessStatus int) *answers {
	insufficient := challenge
	if insufficientAccessStatus == http.StatusForbidden {
		insufficient += `, error="insufficient_scope"`
	}
	return &answers{
		unauthenticated: newAnswer(http.StatusUnauthorized,
			"A valid API key is required: send it in the X-API-Key header, or as Authorization: Bearer.").
			with("Www-Authenticate", challenge),
		noReadAccess: newAnswer(insufficientAccessStatus, "API key does not have read access").
			with("Www-Authenticate", insufficient),
		noWriteAccess: newAnswer(insufficientAccessStatus, "API key does not have write access").
			with("Www-Authenticate", insufficient),
		unavailable: newAnswer(http.StatusServiceUnavailable, "API keys cannot be checked at the moment: try again.").
			with("Retry-After", "1"),
	}
}

// to returns the answer to a verdict that is not Granted.
func (a *answers) to(verdict authn.Verdict) *answer {
	switch {
	case verdict.Decision == authn.Unauthenticated:
		return a.unauthenticated
	case verdict.Decision == authn.Forbidden && verdict.Reason == authn.ReasonNoReadAccess:
		return a.noReadAccess
	case verdict.Decision == authn.Forbidden:
		return a.noWriteAccess
	default:
		return a.unavailable
	}
}

// writeGranted answers 200 and says whose key it is:
//
//	X-Auth-App        the app name, its UTF-8 percent-encoded (all but A-Z a-z 0-9 - . _ ~)
//	X-Auth-Namespace  the namespace of the key
//	X-Auth-Key-Id     the UID of the APIKey object
//	X-Auth-Access     what the key may do: read, write or read,write
func writeGranted(w http.ResponseWriter, key *authn.Key) {
	header := w.Header()
	values := []string{percentEncode(key.AppName), key.Namespace, key.UID, key.Access.String()}
	header["X-Auth-App"] = values[0:1:1]
	header["X-Auth-Namespace"] = values[1:2:2]
	header["X-Auth-Key-Id"] = values[2:3:3]
	header["X-Auth-Access"] = values[3:4:4]
	header["Cache-Control"] = noStore
	w.WriteHeader(http.StatusOK)
}

// answer is an answer that is always the same, made in advance.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// newAnswer returns an error answer in the JSON envelope that all APIs of this operator use.
func newAnswer(status int, message string) *answer {
	body, err := json.Marshal(struct {
		ErrorCode    int    `json:"errorCode"`
		ErrorMessage string `json:"errorMessage"`
		Payload      any    `json:"payload"`
	}{ErrorCode: status, ErrorMessage: message})
	if err != nil {
		panic(err) // an int and a string always marshal
	}
	return &answer{status: status, body: body, header: http.Header{
		"Cache-Control":  noStore,
		"Content-Type":   {"application/json"},
		"Content-Length": {strconv.Itoa(len(body))},
	}}
}

func (a *answer) with(name, value string) *answer {
	a.header[name] = []string{value}
	return a
}

func (a *answer) write(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // whoever asked has gone, or sent HEAD
}

// percentEncode percent-encodes all bytes but the unreserved characters of RFC 3986, section 2.3, with upper-case digits.
func percentEncode(text string) string {
	const upperHex = "0123456789ABCDEF"
	var encoded strings.Builder
	encoded.Grow(3 * len(text))
	for i := range len(text) {
		if c := text[i]; isUnreserved(c) {
			encoded.WriteByte(c)
		} else {
			encoded.Write([]byte{'%', upperHex[c>>4], upperHex[c&0xf]})
		}
	}
	return encoded.String()
}

func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

func allPaths() string {
	paths := make([]string, len(protocols))
	for i, p := range protocols {
		paths[i] = p.path
	}
	return strings.Join(paths, " or ")
}
