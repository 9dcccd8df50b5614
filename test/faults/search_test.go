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

// haystack is all that was written during a run, by place.
type haystack map[string][]byte

// search looks for each token, or any piece of one that says more than its hint does, however it is written, and returns the names of
// the tokens that are in each place.
func (h haystack) search(tokens map[string]string) (found map[string][]string) {
	found = map[string][]string{}
	for name, secret := range tokens {
		needles := needlesFor(secret)
		for place, content := range h {
			if slices.ContainsFunc(needles, func(needle []byte) bool { return bytes.Contains(content, needle) }) {
				found[place] = append(found[place], name)
			}
		}
	}
	for _, names := range found {
		slices.Sort(names)
	}
	return found
}

// pieceLength is enough for a piece of a token to be no coincidence, in base64 of base64 too.
const pieceLength = 12

// needlesFor returns the spellings of all pieces of a token but its hint, which is no secret.
func needlesFor(secret string) [][]byte {
	var needles [][]byte
	for piece := range slices.Chunk([]byte(secret[len(token.Hint(secret)):]), pieceLength) {
		if len(piece) == pieceLength {
			needles = append(needles, spellings(string(piece))...)
		}
	}
	return needles
}

// spellings returns how a piece of text looks in JSON, in URLs, in hexadecimal digits, and in base64, which may be of base64.
func spellings(piece string) [][]byte {
	inJSON, err := json.Marshal(piece)
	if err != nil {
		panic(err) // a string always marshals
	}
	texts := []string{
		piece, string(inJSON[1 : len(inJSON)-1]), url.QueryEscape(piece), url.PathEscape(piece),
		hex.EncodeToString([]byte(piece)), strings.ToUpper(hex.EncodeToString([]byte(piece))),
	}
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for _, once := range inBase64(encoding, piece) {
			texts = append(texts, once)
			texts = append(texts, inBase64(encoding, once)...)
		}
	}
	slices.Sort(texts)
	spelled := make([][]byte, 0, len(texts))
	for _, text := range slices.Compact(texts) {
		spelled = append(spelled, []byte(text))
	}
	return spelled
}

// inBase64 returns what text becomes in the midst of something that is encoded as a whole: three ways, by how many bytes come before it.
// Of the digits only those are left that no neighbour can change.
func inBase64(encoding *base64.Encoding, text string) []string {
	ways := make([]string, 3)
	for before := range ways {
		digits := encoding.EncodeToString(append(make([]byte, before), text...))
		ways[before] = digits[(before*8+5)/6 : (before+len(text))*8/6]
	}
	return ways
}

func TestTheSearchFindsATokenHoweverItIsWritten(t *testing.T) {
	minted := token.New()
	brought := `p"ss/w&rd+<with>%odd=characters;` + minted
	encode := base64.StdEncoding.EncodeToString
	for name, write := range map[string]func(secret string) string{
		"plainly":               func(s string) string { return "token " + s + " end" },
		"cut short":             func(s string) string { return s[:len(s)-5] + "..." },
		"without its beginning": func(s string) string { return "..." + s[len(s)-30:] },
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
		"as somebody's password": func(s string) string { return "Basic " + encode([]byte("user:"+s)) },
	} {
		for _, secret := range []string{minted, brought} {
			places := haystack{"there": []byte(write(secret)), "elsewhere": []byte(write(token.New())), "hint": []byte(write(token.Hint(secret) + strings.Repeat(".", 40)))}
			found := places.search(map[string]string{"it": secret})
			if len(found) != 1 || !slices.Equal(found["there"], []string{"it"}) {
				t.Errorf("written %s, it is found in %v", name, found)
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
