// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/webhook/authn"
)

const (
	goodToken  = "sq_KnIrtn1btDx-LXyyjI11-ypUrcJpQmCTm09muyQIeG8"
	otherToken = "sq_0000000000000000000000000000000000000000000"
)

func TestInvariant7_AMissingOrContradictoryCredentialIsRefused(t *testing.T) {
	longest := strings.Repeat("x", 512)
	keyring := keyringOf(t, newKey("shop", "frontend", issued(goodToken)), newKey("shop", "longest", issued(longest)))
	for name, test := range map[string]struct {
		apiKey, authorization []string
		want                  authn.Reason // "" is granted
	}{
		"nothing":         {nil, nil, authn.ReasonCredentialMissing},
		"empty slices":    {[]string{}, []string{}, authn.ReasonCredentialMissing},
		"X-API-Key":       {[]string{goodToken}, nil, ""},
		"bearer":          {nil, []string{"Bearer " + goodToken}, ""},
		"512 bytes":       {[]string{longest}, nil, ""},
		"512 as bearer":   {nil, []string{"Bearer " + longest}, ""},
		"an unknown key":  {[]string{otherToken}, nil, authn.ReasonKeyUnknown},
		"short, unlikely": {[]string{"x"}, nil, authn.ReasonKeyUnknown},

		"both, X-API-Key good":          {[]string{goodToken}, []string{"Bearer " + otherToken}, ""},
		"both, X-API-Key unknown":       {[]string{otherToken}, []string{"Bearer " + goodToken}, authn.ReasonKeyUnknown},
		"both, X-API-Key empty":         {[]string{""}, []string{"Bearer " + goodToken}, authn.ReasonCredentialMissing},
		"both, X-API-Key malformed":     {[]string{"a b"}, []string{"Bearer " + goodToken}, authn.ReasonCredentialMalformed},
		"both, Authorization repeated":  {[]string{goodToken}, []string{"Bearer a", "Bearer b"}, ""},
		"both, Authorization malformed": {[]string{goodToken}, []string{"\x00"}, ""},

		"X-API-Key twice":            {[]string{goodToken, otherToken}, nil, authn.ReasonCredentialRepeated},
		"X-API-Key twice the same":   {[]string{goodToken, goodToken}, nil, authn.ReasonCredentialRepeated},
		"X-API-Key and an empty":     {[]string{goodToken, ""}, nil, authn.ReasonCredentialRepeated},
		"X-API-Key comma-joined":     {[]string{goodToken + "," + goodToken}, nil, authn.ReasonCredentialMalformed},
		"X-API-Key joined with ', '": {[]string{goodToken + ", " + goodToken}, nil, authn.ReasonCredentialMalformed},
		"X-API-Key trailing comma":   {[]string{goodToken + ","}, nil, authn.ReasonCredentialMalformed},
		"X-API-Key leading space":    {[]string{" " + goodToken}, nil, authn.ReasonCredentialMalformed},
		"X-API-Key trailing space":   {[]string{goodToken + " "}, nil, authn.ReasonCredentialMalformed},
		"X-API-Key inner space":      {[]string{"a b"}, nil, authn.ReasonCredentialMalformed},
		"X-API-Key inner tab":        {[]string{"a\tb"}, nil, authn.ReasonCredentialMalformed},
		"X-API-Key only spaces":      {[]string{"  "}, nil, authn.ReasonCredentialMalformed},
		"X-API-Key newline":          {[]string{goodToken + "\n"}, nil, authn.ReasonCredentialMalformed},
		"X-API-Key NUL":              {[]string{"a\x00"}, nil, authn.ReasonCredentialMalformed},
		"X-API-Key DEL":              {[]string{"a\x7f"}, nil, authn.ReasonCredentialMalformed},
		"X-API-Key not ASCII":        {[]string{"schlüssel"}, nil, authn.ReasonCredentialMalformed},
		"X-API-Key not UTF-8":        {[]string{"a\xff"}, nil, authn.ReasonCredentialMalformed},
		"X-API-Key as bearer":        {[]string{"Bearer " + goodToken}, nil, authn.ReasonCredentialMalformed},
		"X-API-Key of 513 bytes":     {[]string{longest + "x"}, nil, authn.ReasonCredentialMalformed},

		"bearer twice":              {nil, []string{"Bearer " + goodToken, "Bearer " + goodToken}, authn.ReasonCredentialRepeated},
		"bearer and basic":          {nil, []string{"Bearer " + goodToken, "Basic eDp5"}, authn.ReasonCredentialRepeated},
		"bearer comma-joined":       {nil, []string{"Bearer " + goodToken + ", Bearer " + goodToken}, authn.ReasonCredentialMalformed},
		"bearer of 513 bytes":       {nil, []string{"Bearer " + longest + "x"}, authn.ReasonCredentialMalformed},
		"bearer in lower case":      {nil, []string{"bearer " + goodToken}, ""},
		"bearer in upper case":      {nil, []string{"BEARER " + goodToken}, ""},
		"bearer and several spaces": {nil, []string{"Bearer    " + goodToken}, ""},
		"bearer and a tab":          {nil, []string{"Bearer\t" + goodToken}, authn.ReasonCredentialMissing},
		"bearer, space and tab":     {nil, []string{"Bearer \t" + goodToken}, authn.ReasonCredentialMalformed},
		"bearer and two words":      {nil, []string{"Bearer a b"}, authn.ReasonCredentialMalformed},
		"bearer and trailing space": {nil, []string{"Bearer " + goodToken + " "}, authn.ReasonCredentialMalformed},
		"bearer alone":              {nil, []string{"Bearer"}, authn.ReasonCredentialMissing},
		"bearer and a space":        {nil, []string{"Bearer "}, authn.ReasonCredentialMissing},
		"bearer and spaces":         {nil, []string{"Bearer    "}, authn.ReasonCredentialMissing},
		"bearer without space":      {nil, []string{"Bearer" + goodToken}, authn.ReasonCredentialMissing},
		"a space before bearer":     {nil, []string{" Bearer " + goodToken}, authn.ReasonCredentialMissing},
		"no scheme":                 {nil, []string{goodToken}, authn.ReasonCredentialMissing},
		"empty authorization":       {nil, []string{""}, authn.ReasonCredentialMissing},
		"basic":                     {nil, []string{"Basic eDp5"}, authn.ReasonCredentialMissing},
	} {
		t.Run(name, func(t *testing.T) {
			verdict := authn.NewAuthenticator(keyring, 0, clock).Decide(authn.Request{
				Namespace:  "shop",
				Credential: authn.ExtractCredential(test.apiKey, test.authorization),
				Access:     authn.Read,
			})
			want := authn.Unauthenticated
			if test.want == "" {
				want = authn.Granted
			}
			if verdict.Decision != want || verdict.Reason != test.want {
				t.Errorf("the verdict is %v, %q; want %v, %q", verdict.Decision, verdict.Reason, want, test.want)
			}
		})
	}
}

func TestInvariant7_TheCredentialOfACallerIsInOneHeader(t *testing.T) {
	basic := func(credentials string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))
	}
	longest := strings.Repeat("x", 512)
	keyring := keyringOf(t,
		newKey("shop", "frontend", issued(goodToken)), newKey("shop", "longest", issued(longest)), newKey("shop", "odd", issued("a:%41+b")))
	for name, test := range map[string]struct {
		apiKey, authorization []string
		want                  authn.Reason // "" is granted
	}{
		"nothing":   {nil, nil, authn.ReasonCredentialMissing},
		"X-API-Key": {[]string{goodToken}, nil, ""},
		"bearer":    {nil, []string{"Bearer " + goodToken}, ""},

		"password":                         {nil, []string{basic("user:" + goodToken)}, ""},
		"password, scheme in lower case":   {nil, []string{"basic  " + basic("user:" + goodToken)[6:]}, ""},
		"password without user name":       {nil, []string{basic(":" + goodToken)}, ""},
		"password with colon, not decoded": {nil, []string{basic("user:a:%41+b")}, ""},
		"password of 512 bytes":            {nil, []string{basic("user:" + longest)}, ""},
		"password of 513 bytes":            {nil, []string{basic("user:x" + longest)}, authn.ReasonCredentialMalformed},
		"empty password":                   {nil, []string{basic("user:")}, authn.ReasonCredentialMissing},
		"no password":                      {nil, []string{basic(goodToken)}, authn.ReasonCredentialMissing},
		"password with a space":            {nil, []string{basic("user: " + goodToken)}, authn.ReasonCredentialMalformed},
		"key as user name":                 {nil, []string{basic(goodToken + ":")}, authn.ReasonCredentialMissing},
		"no base64":                        {nil, []string{"Basic user:" + goodToken}, authn.ReasonCredentialMissing},
		"base64 without padding":           {nil, []string{strings.TrimRight(basic("user2:"+goodToken), "=")}, authn.ReasonCredentialMissing},
		"nothing after the scheme":         {nil, []string{"Basic "}, authn.ReasonCredentialMissing},

		"both, both good":           {[]string{goodToken}, []string{"Bearer " + goodToken}, authn.ReasonCredentialRepeated},
		"both, another scheme":      {[]string{goodToken}, []string{"Digest x"}, authn.ReasonCredentialRepeated},
		"both, empty X-API-Key":     {[]string{""}, []string{"Bearer " + goodToken}, authn.ReasonCredentialRepeated},
		"both, empty Authorization": {[]string{goodToken}, []string{""}, authn.ReasonCredentialRepeated},
		"X-API-Key twice":           {[]string{goodToken, goodToken}, nil, authn.ReasonCredentialRepeated},
		"Authorization twice":       {nil, []string{basic("user:" + goodToken), basic("user:" + goodToken)}, authn.ReasonCredentialRepeated},
	} {
		t.Run(name, func(t *testing.T) {
			verdict := authn.NewAuthenticator(keyring, 0, clock).Decide(authn.Request{
				Namespace:  "shop",
				Credential: authn.ExtractCallerCredential(test.apiKey, test.authorization),
			})
			if verdict.Reason != test.want || (verdict.Decision == authn.Granted) != (test.want == "") {
				t.Errorf("the verdict is %v, %q; want %q", verdict.Decision, verdict.Reason, test.want)
			}
		})
	}
}

func TestCredential_TheZeroValueIsMissing(t *testing.T) {
	keyring := keyringOf(t, newKey("shop", "frontend", issued("")))
	for name, credential := range map[string]authn.Credential{"zero": {}, "empty": authn.NewCredential("")} {
		verdict := authn.NewAuthenticator(keyring, 0, clock).Decide(authn.Request{Namespace: "shop", Credential: credential})
		if got, want := outcomeOf(verdict), (outcome{authn.Unauthenticated, authn.ReasonCredentialMissing, ""}); got != want {
			t.Errorf("the verdict for the %s credential is %v, want %v", name, got, want)
		}
	}
}

func TestInvariant1_ACredentialIsNotPrinted(t *testing.T) {
	request := authn.Request{Namespace: "shop", Credential: authn.NewCredential(goodToken)}
	var logged bytes.Buffer
	slog.New(slog.NewTextHandler(&logged, nil)).Info("text", "request", request, "credential", request.Credential)
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("json", "request", request, "credential", request.Credential)
	encoded, err := json.Marshal(request)
	framework.Must(t, err)
	printed := logged.String() + string(encoded) + fmt.Sprint(request, &request, request.Credential, &request.Credential)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		printed += fmt.Sprintf(verb, request) + fmt.Sprintf(verb, request.Credential)
	}
	for _, secret := range []string{goodToken[3:], fmt.Sprintf("%x", goodToken[3:])} {
		if strings.Contains(printed, secret) {
			t.Errorf("the token is printed: %s", printed)
		}
	}
}

func FuzzExtractCredential(f *testing.F) {
	for _, seed := range []string{"", "Bearer", "Bearer a", "bearer  a b", "a,b", "\xffÿ\t", strings.Repeat("Bearer ", 100)} {
		f.Add(seed, seed, 1, 1)
		f.Add(seed, "Bearer "+seed, 0, 1)
		f.Add(seed, seed, 2, 2)
	}
	f.Fuzz(func(t *testing.T, apiKey, authorization string, apiKeys, authorizations int) {
		credential := authn.ExtractCredential(repeat(apiKey, apiKeys), repeat(authorization, authorizations))
		presented, want := readNaively(apiKey, authorization, repeat("", apiKeys), repeat("", authorizations))
		keyring := keyringOf(t, newKey("shop", "frontend", issued(presented)))
		verdict := authn.NewAuthenticator(keyring, 0, clock).Decide(authn.Request{Namespace: "shop", Credential: credential})
		if granted := verdict.Decision == authn.Granted; granted != want {
			t.Errorf("%d times X-API-Key %q, %d times Authorization %q: the verdict is %v, %s", apiKeys, apiKey, authorizations,
				authorization, verdict.Decision, verdict.Reason)
		}
	})
}

func FuzzExtractCallerCredential(f *testing.F) {
	for _, seed := range []string{"", "Bearer a", "Basic", "Basic OmE=", "basic  dXNlcjphOmI=", "Basic dXNlcg==", "Basic ZTrDqQ==", "Basic a", "a,b"} {
		f.Add("", seed, 0, 1)
		f.Add(seed, seed, 1, 1)
		f.Add(seed, seed, 0, 2)
	}
	f.Fuzz(func(t *testing.T, apiKey, authorization string, apiKeys, authorizations int) {
		inKey, inAuthorization := repeat(apiKey, apiKeys), repeat(authorization, authorizations)
		presented, want := readNaively(apiKey, authorization, inKey, inAuthorization)
		if password, ok := passwordIn(inAuthorization); ok && len(inKey) == 0 {
			presented, want = readNaively(password, "", []string{password}, nil)
		}
		want = want && (len(inKey) == 0 || len(inAuthorization) == 0)
		keyring := keyringOf(t, newKey("shop", "frontend", issued(presented)))
		verdict := authn.NewAuthenticator(keyring, 0, clock).Decide(authn.Request{
			Namespace:  "shop",
			Credential: authn.ExtractCallerCredential(inKey, inAuthorization),
		})
		if granted := verdict.Decision == authn.Granted; granted != want {
			t.Errorf("X-API-Key %q, Authorization %q: the verdict is %v, %s", inKey, inAuthorization, verdict.Decision, verdict.Reason)
		}
	})
}

// passwordIn reads HTTP Basic with net/http. It also accepts more than one space after the scheme.
func passwordIn(authorization []string) (password string, ok bool) {
	if len(authorization) != 1 {
		return "", false
	}
	scheme, credentials, _ := strings.Cut(authorization[0], " ")
	request := http.Request{Header: http.Header{"Authorization": {scheme + " " + strings.TrimLeft(credentials, " ")}}}
	_, password, ok = request.BasicAuth()
	return password, ok
}

// readNaively is a second implementation: it returns the token that is presented, if any.
func readNaively(apiKey, authorization string, apiKeys, authorizations []string) (presented string, ok bool) {
	switch {
	case len(apiKeys) == 1:
		presented = apiKey
	case len(apiKeys) == 0 && len(authorizations) == 1:
		scheme, rest, _ := strings.Cut(authorization, " ")
		if strings.ToLower(scheme) != "bearer" {
			return "", false
		}
		presented = strings.TrimLeft(rest, " ")
	default:
		return "", false
	}
	for _, character := range presented {
		if character < '!' || character > '~' || character == ',' {
			return presented, false
		}
	}
	return presented, len(presented) >= 1 && len(presented) <= 512
}

func repeat(value string, times int) []string {
	var values []string
	for range min(max(times, 0), 3) {
		values = append(values, value)
	}
	return values
}
