// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"

	"squirrel.dev/apikey-operator/webhook/authn"
)

// identityHeaders name the key of a granted request to the service, in canonical form.
var identityHeaders = [...]string{
	"X-Auth-App",       // the app name as UTF-8, percent-encoded (all but A-Z a-z 0-9 - . _ ~)
	"X-Auth-Namespace", // the namespace of the key
	"X-Auth-Key-Id",    // the UID of the APIKey object
	"X-Auth-Access",    // the access of the key: read, write or read,write
}

// identityOf returns the values of the identityHeaders.
func identityOf(key *authn.Key) [len(identityHeaders)]string {
	return [...]string{percentEncode(key.AppName), key.Namespace, key.UID, key.Access.String()}
}

// noStore is shared by all responses. Its capacity is 1, so that append copies it.
var noStore = []string{"no-store"}

// writeGranted writes the response that lets a request pass: 200 with the identityHeaders.
func writeGranted(w http.ResponseWriter, key *authn.Key) {
	header, values := w.Header(), identityOf(key)
	for i, name := range identityHeaders {
		header[name] = values[i : i+1 : i+1]
	}
	header["Cache-Control"] = noStore
	w.WriteHeader(http.StatusOK)
}

// percentEncode percent-encodes all bytes but the unreserved characters of RFC 3986, section 2.3, with upper-case digits.
func percentEncode(text string) string {
	const upperHex = "0123456789ABCDEF"
	var buffer [128]byte // on the stack, and long enough for most names
	encoded := buffer[:0]
	for i := range len(text) {
		if c := text[i]; isUnreserved(c) {
			encoded = append(encoded, c)
		} else {
			encoded = append(encoded, '%', upperHex[c>>4], upperHex[c&0xf])
		}
	}
	return string(encoded)
}

func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}
