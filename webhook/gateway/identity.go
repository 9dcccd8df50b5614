// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"
	"strings"

	"squirrel.dev/apikey-operator/webhook/authn"
)

// noStore is a full slice of one: appending to it copies it.
var noStore = []string{"no-store"}

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
