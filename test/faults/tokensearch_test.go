// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/test/framework"
)

// places is the content that was recorded at each place.
type places map[string][]byte

// search returns the names of the tokens that each place contains, as a whole or in part, in any encoding. It ignores
// the hints of tokens.
func (p places) search(tokens map[string]string) (found map[string][]string) {
	found = map[string][]string{}
	for name, secret := range tokens {
		pieces := encodedPieces(secret)
		for place, content := range p {
			if slices.ContainsFunc(pieces, func(piece []byte) bool { return bytes.Contains(content, piece) }) {
				found[place] = append(found[place], name)
			}
		}
	}
	for _, names := range found {
		slices.Sort(names)
	}
	return found
}

// pieceLength is long enough that a piece does not occur by chance, not even in base64 of base64.
const pieceLength = 12

// encodedPieces returns the encodings of all pieces of a token after its hint, which is not secret.
func encodedPieces(secret string) [][]byte {
	var encoded [][]byte
	for piece := range slices.Chunk([]byte(secret[len(token.Hint(secret)):]), pieceLength) {
		if len(piece) == pieceLength {
			encoded = append(encoded, encodings(string(piece))...)
		}
	}
	return encoded
}

// encodings returns the encodings of a text: plain, JSON, URL, hexadecimal, base64, and base64 of base64.
func encodings(piece string) [][]byte {
	inJSON, err := json.Marshal(piece)
	if err != nil {
		panic(err) // a string always marshals
	}
	texts := []string{
		piece, string(inJSON[1 : len(inJSON)-1]), url.QueryEscape(piece), url.PathEscape(piece),
		hex.EncodeToString([]byte(piece)), strings.ToUpper(hex.EncodeToString([]byte(piece))),
	}
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for _, once := range base64Encodings(encoding, piece) {
			texts = append(texts, once)
			texts = append(texts, base64Encodings(encoding, once)...)
		}
	}
	slices.Sort(texts)
	spelled := make([][]byte, 0, len(texts))
	for _, text := range slices.Compact(texts) {
		spelled = append(spelled, []byte(text))
	}
	return spelled
}

// base64Encodings returns the encodings of a text inside a longer one, which depend on how many bytes precede it (modulo 3). It leaves out
// the digits that also encode adjacent bytes.
func base64Encodings(encoding *base64.Encoding, text string) []string {
	ways := make([]string, 3)
	for before := range ways {
		digits := encoding.EncodeToString(append(make([]byte, before), text...))
		ways[before] = digits[(before*8+5)/6 : (before+len(text))*8/6]
	}
	return ways
}

func TestSearch_FindsATokenInAnyEncoding(t *testing.T) {
	minted := token.New()
	encode := base64.StdEncoding.EncodeToString
	for name, write := range map[string]func(secret string) string{
		"as plain text":         func(s string) string { return "token " + s + " end" },
		"truncated":             func(s string) string { return s[:len(s)-5] + "..." },
		"without its start":     func(s string) string { return "..." + s[len(s)-30:] },
		"in JSON":               func(s string) string { return string(marshal(t, map[string]string{"token": s})) },
		"in a query":            func(s string) string { return "/path?" + url.Values{"token": {s}}.Encode() },
		"in a path":             func(s string) string { return "/path/" + url.PathEscape(s) + "/more" },
		"in hexadecimal digits": func(s string) string { return hex.EncodeToString([]byte("token " + s)) },
		"in a Secret":           func(s string) string { return string(marshal(t, map[string][]byte{"token": []byte(s)})) },
		"in a Secret, encoded twice": func(s string) string {
			return string(marshal(t, map[string]string{"token": encode([]byte(encode([]byte(s))))}))
		},
		"in base64 of something":    func(s string) string { return encode([]byte("1" + s + "2")) },
		"in base64url of something": func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte("12" + s + "3")) },
		"in base64 of base64 of something": func(s string) string {
			return encode([]byte("1" + encode([]byte("12"+s))))
		},
		"as a password": func(s string) string { return "Basic " + encode([]byte("user:"+s)) },
	} {
		for _, secret := range []string{minted, imported} {
			recorded := places{
				"token":         []byte(write(secret)),
				"another token": []byte(write(token.New())),
				"hint":          []byte(write(token.Hint(secret) + strings.Repeat(".", 40))),
			}
			found := recorded.search(map[string]string{"it": secret})
			if len(found) != 1 || !slices.Equal(found["token"], []string{"it"}) {
				t.Errorf("%s: got %v, want it in the place \"token\" alone", name, found)
			}
		}
	}
}

func marshal(t testing.TB, value any) []byte {
	t.Helper()
	content, err := json.Marshal(value)
	framework.Must(t, err)
	return content
}
