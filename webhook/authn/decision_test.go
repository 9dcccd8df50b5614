// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/webhook/authn"
)

func TestInvariant5_AKeyIsRefusedByItsSpecAlone(t *testing.T) {
	const plaintext = "sq_token"
	second := time.Second
	for name, test := range map[string]struct {
		key  *v1alpha1.APIKey
		want outcome
	}{
		"active":                 {newKey("shop", "k", issued(plaintext)), granted("uid-of-k")},
		"active is true":         {newKey("shop", "k", issued(plaintext), func(k *v1alpha1.APIKey) { k.Spec.Active = new(true) }), granted("uid-of-k")},
		"expires in a second":    {newKey("shop", "k", issued(plaintext), expires(today.Add(second))), granted("uid-of-k")},
		"superseded in a second": {newKey("shop", "k", issued(plaintext, notAfter(today.Add(second)))), granted("uid-of-k")},

		"deactivated":      {newKey("shop", "k", issued(plaintext), inactive), outcome{authn.Unauthenticated, authn.ReasonKeyDeactivated, "uid-of-k"}},
		"being deleted":    {newKey("shop", "k", issued(plaintext), beingDeleted), outcome{authn.Unauthenticated, authn.ReasonKeyDeactivated, "uid-of-k"}},
		"expired just now": {newKey("shop", "k", issued(plaintext), expires(today)), outcome{authn.Unauthenticated, authn.ReasonKeyExpired, "uid-of-k"}},
		"expired":          {newKey("shop", "k", issued(plaintext), expires(today.Add(-second))), outcome{authn.Unauthenticated, authn.ReasonKeyExpired, "uid-of-k"}},
		"ended on record":  {newKey("shop", "k", issued(plaintext), ended), outcome{authn.Unauthenticated, authn.ReasonKeyExpired, "uid-of-k"}},
		"superseded just now": {newKey("shop", "k", issued(plaintext, notAfter(today))),
			outcome{authn.Unauthenticated, authn.ReasonTokenSuperseded, "uid-of-k"}},
		"not handed over": {newKey("shop", "k", claimed(plaintext)), unknown},
		"the newer one not handed over, the older one presented": {newKey("shop", "k", claimed("sq_newer"), issued(plaintext)), granted("uid-of-k")},
		"of another token": {newKey("shop", "k", issued("sq_another")), unknown},
		"no token":         {newKey("shop", "k"), unknown},
	} {
		t.Run(name, func(t *testing.T) {
			expect(t, keyringOf(t, test.key), "shop", plaintext, test.want)
		})
	}
}

func TestDecide_RefusesAKeyFromTheSecondItExpires(t *testing.T) {
	keyring := keyringOf(t, newKey("shop", "k", issued("t"), expires(today)))
	now := today.Add(-time.Nanosecond)
	authenticator := authn.NewAuthenticator(keyring, 0, func() time.Time { return now })
	request := authn.Request{Namespace: "shop", Credential: authn.NewCredential("t")}
	if verdict := authenticator.Decide(request); verdict.Decision != authn.Granted {
		t.Errorf("before it expires, the verdict is %v, %s", verdict.Decision, verdict.Reason)
	}
	now = today
	if verdict := authenticator.Decide(request); verdict.Reason != authn.ReasonKeyExpired {
		t.Errorf("once it has expired, the verdict is %v, %s", verdict.Decision, verdict.Reason)
	}
}

func TestDecide_RequiresTheAccessOfTheRequest(t *testing.T) {
	const both, neither = authn.Read | authn.Write, authn.Access(0)
	for _, test := range []struct {
		has, required authn.Access
		want          authn.Reason // "" is granted
	}{
		{authn.Read, neither, ""}, {authn.Read, authn.Read, ""},
		{authn.Read, authn.Write, authn.ReasonNoWriteAccess}, {authn.Read, both, authn.ReasonNoWriteAccess},
		{authn.Write, neither, ""}, {authn.Write, authn.Write, ""},
		{authn.Write, authn.Read, authn.ReasonNoReadAccess}, {authn.Write, both, authn.ReasonNoReadAccess},
		{both, neither, ""}, {both, authn.Read, ""}, {both, authn.Write, ""}, {both, both, ""},
		{neither, neither, ""}, {neither, authn.Read, authn.ReasonNoReadAccess}, {neither, authn.Write, authn.ReasonNoWriteAccess},
		{both, 1 << 7, authn.ReasonNoMethod},
	} {
		keyring := keyringOf(t, newKey("shop", "k", issued("t"), access(test.has&authn.Read != 0, test.has&authn.Write != 0)))
		verdict := authn.NewAuthenticator(keyring, 0, clock).Decide(
			authn.Request{Namespace: "shop", Credential: authn.NewCredential("t"), Access: test.required})
		want := outcome{authn.Forbidden, test.want, "uid-of-k"}
		if test.want == "" {
			want = granted("uid-of-k")
		}
		if got := outcomeOf(verdict); got != want {
			t.Errorf("a key with %q, access %q required: %v, want %v", test.has, test.required, got, want)
		}
	}
}

func TestInvariant7_ARequestWithoutAMethodIsForbidden(t *testing.T) {
	keyring := keyringOf(t, newKey("shop", "all-powerful", issued("t")))
	for method, want := range map[string]authn.Reason{
		"GET": "", "POST": "", "": authn.ReasonNoMethod,
	} {
		verdict := authn.NewAuthenticator(keyring, 0, clock).Decide(
			authn.Request{Namespace: "shop", Credential: authn.NewCredential("t"), Access: authn.AccessFor(method)})
		if verdict.Reason != want || (verdict.Decision == authn.Granted) != (want == "") {
			t.Errorf("the verdict for the method %q is %v, %q; want %q", method, verdict.Decision, verdict.Reason, want)
		}
	}
}

func TestDecide_ReturnsTheKey(t *testing.T) {
	keyring := keyringOf(t, newKey("shop", "frontend", issued("t"), access(true, false)))
	verdict := decide(keyring, "shop", "t")
	want := &authn.Key{Namespace: "shop", Name: "frontend", AppName: "App frontend", UID: "uid-of-frontend", Access: authn.Read,
		IssuedAt: today.Add(time.Hour).Unix()}
	if diff := cmp.Diff(want, verdict.Key, cmpopts.IgnoreUnexported(authn.Key{})); diff != "" {
		t.Errorf("the key is not as declared (-want +got):\n%s", diff)
	}
}

func TestAccepts_AnyTokenOfTheKey(t *testing.T) {
	keyring := keyringOf(t,
		newKey("shop", "good", issued("a")),
		newKey("shop", "overlapping", issued("b"), issued("c", notAfter(today))),
		newKey("shop", "superseded", issued("d", notAfter(today))),
		newKey("shop", "inactive", issued("e"), inactive),
		newKey("shop", "waiting", claimed("f")),
	)
	authenticator := authn.NewAuthenticator(keyring, 0, clock)
	for _, c := range []struct {
		namespace, name, uid string
		want                 bool
	}{
		{"shop", "good", "uid-of-good", true},
		{"shop", "overlapping", "uid-of-overlapping", true},
		{"shop", "superseded", "uid-of-superseded", false},
		{"shop", "inactive", "uid-of-inactive", false},
		{"shop", "waiting", "uid-of-waiting", false},
		{"shop", "good", "uid-of-a-former-one", false},
		{"bank", "good", "uid-of-good", false},
	} {
		if got := authenticator.Accepts(c.namespace, c.name, c.uid); got != c.want {
			t.Errorf("%+v is accepted: %t", c, got)
		}
	}
}

func TestKey_ExpiresAtTheEndOfTheTokenOrItsKey(t *testing.T) {
	soon, later := today.Add(time.Minute), today.Add(time.Hour)
	for name, test := range map[string]struct {
		key  *v1alpha1.APIKey
		want int64
	}{
		"without end":              {newKey("shop", "k", issued("t")), apikey.NeverExpires},
		"the key ends":             {newKey("shop", "k", issued("t"), expires(soon)), soon.Unix()},
		"the token ends":           {newKey("shop", "k", issued("t", notAfter(soon))), soon.Unix()},
		"the key ends first":       {newKey("shop", "k", issued("t", notAfter(later)), expires(soon)), soon.Unix()},
		"the token ends first":     {newKey("shop", "k", issued("t", notAfter(soon)), expires(later)), soon.Unix()},
		"its other token ends":     {newKey("shop", "k", issued("t"), issued("older", notAfter(soon))), apikey.NeverExpires},
		"its other token does not": {newKey("shop", "k", issued("newer"), issued("t", notAfter(soon))), soon.Unix()},
	} {
		if got := decide(keyringOf(t, test.key), "shop", "t").Key.ExpiresAt(); got != test.want {
			t.Errorf("%s: it expires at %d, want %d", name, got, test.want)
		}
	}
}

func TestInvariant6_AKeyIsAcceptedInItsNamespaceAlone(t *testing.T) {
	keyring := keyringOf(t,
		newKey("shop", "frontend", issued("shop's")),
		newKey("bank", "frontend", issued("bank's"), uid("uid-in-bank")))
	for namespace, tokens := range map[string]map[string]outcome{
		"shop":  {"shop's": granted("uid-of-frontend"), "bank's": unknown},
		"bank":  {"shop's": unknown, "bank's": granted("uid-in-bank")},
		"":      {"shop's": unknown, "bank's": unknown},
		"Shop":  {"shop's": unknown, "bank's": unknown},
		"shop ": {"shop's": unknown, "bank's": unknown},
		"sho":   {"shop's": unknown, "bank's": unknown},
	} {
		for plaintext, want := range tokens {
			expect(t, keyring, namespace, plaintext, want)
		}
	}
}

func TestDecide_DoesNotAllocate(t *testing.T) {
	keyring := keyringOf(t,
		newKey("shop", "frontend", issued(goodToken), expires(time.Now().Add(time.Hour)), access(true, false)),
		newKey("shop", "old", issued("old"), inactive))
	authenticator := authn.NewAuthenticator(keyring, time.Hour, time.Now)
	apiKey, bearer := []string{goodToken}, []string{"Bearer " + goodToken}
	for name, test := range map[string]struct {
		extract func() authn.Credential
		method  string
		want    outcome
	}{
		"granted":     {func() authn.Credential { return authn.ExtractCredential(apiKey, nil) }, "GET", granted("uid-of-frontend")},
		"bearer":      {func() authn.Credential { return authn.ExtractCredential(nil, bearer) }, "GET", granted("uid-of-frontend")},
		"unknown":     {func() authn.Credential { return authn.NewCredential(otherToken) }, "GET", unknown},
		"missing":     {func() authn.Credential { return authn.Credential{} }, "GET", outcome{authn.Unauthenticated, authn.ReasonCredentialMissing, ""}},
		"deactivated": {func() authn.Credential { return authn.NewCredential("old") }, "GET", outcome{authn.Unauthenticated, authn.ReasonKeyDeactivated, "uid-of-old"}},
		"forbidden":   {func() authn.Credential { return authn.NewCredential(goodToken) }, "POST", outcome{authn.Forbidden, authn.ReasonNoWriteAccess, "uid-of-frontend"}},
	} {
		var verdict authn.Verdict
		allocations := testing.AllocsPerRun(1000, func() {
			verdict = authenticator.Decide(
				authn.Request{Namespace: "shop", Credential: test.extract(), Access: authn.AccessFor(test.method)})
		})
		if got := outcomeOf(verdict); got != test.want || allocations != 0 {
			t.Errorf("%s: the verdict is %v, want %v, and allocates %v times", name, got, test.want, allocations)
		}
	}
}
