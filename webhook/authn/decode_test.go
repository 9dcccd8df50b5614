// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/test/framework/testenv"
	"squirrel.dev/apikey-operator/webhook/authn"
)

func TestDecode_LeavesOutUnreadableFieldsAlone(t *testing.T) {
	object := func(name, spec, status string) string {
		return fmt.Sprintf(`{"apiVersion":"keys.squirrel.dev/v1alpha1","kind":"APIKey",
			"metadata":{"namespace":"shop","name":%[1]q,"uid":"uid-of-%[1]s","resourceVersion":"5","generation":1,
				"creationTimestamp":"2027-01-01T00:00:00Z","annotations":{"k":"v"},"managedFields":[{"manager":"x","fieldsV1":{"f:spec":{}}}]},
			"spec":{"appName":"App","readAccess":true,"writeAccess":false,"active":true,"secret":{"key":"token"}%[2]s},
			"status":{"conditions":[{"type":"Ready","status":"True"}],"tokens":[{"hash":%[3]q,"hint":"sq_","notBefore":"2027-01-01T00:00:00Z"%[4]s}]}}`,
			name, spec, token.Hash(name), status)
	}
	const unreadable = `"2027-06-01t00:00:00+99:99"`
	objects := []string{
		object("sound", "", ""),
		object("future", `,"expiresAt":"2027-06-01T00:00:00Z"`, `,"notAfter":"2027-06-01T00:00:00.5+02:00"`),
		object("null", `,"expiresAt":null,"active":null`, `,"notAfter":null`),
		object("past", `,"expiresAt":"2027-02-01T00:00:00Z"`, ""),
		object("unreadable-end", `,"expiresAt":`+unreadable, ""),
		object("unreadable-supersession", "", `,"notAfter":`+unreadable),
		object("unreadable-active", `,"active":"no"`, ""),
		object("unreadable-access", `,"readAccess":"true","writeAccess":true`, ""),
		object("unreadable-both-accesses", `,"readAccess":"true","writeAccess":1`, ""),
		object("unreadable-ttl", `,"secret":{"ttl":"a while"}`, ""),
		object("unreadable-app", `,"appName":7`, ""),
		object("unreadable-status-of-no-token", "", `,"claimedAt":7,"hint":[]`),
		strings.Replace(object("unreadable-deletion", "", ""), `"generation"`, `"deletionTimestamp":true,"generation"`, 1),
		strings.Replace(object("unreadable-record-of-its-end", "", ""), `"conditions"`, `"deactivatedAt":"soon","conditions"`, 1),
		strings.Replace(object("unreadable-conditions", "", ""), `[{"type"`, `["Ready",{"type"`, 1),
		strings.Replace(object("unreadable-other-tokens", "", ""), `"tokens":[`, `"tokens":["sha256:",{"hash":7,"notBefore":"2027-01-01T00:00:00Z"},`, 1),
		object("unreadable-handover", "", `,"notBefore":"long ago"`),
		strings.Replace(object("unreadable-tokens", "", ""), `"tokens":[`, `"tokens":7,"other":[`, 1),
		strings.Replace(object("unreadable-status", "", ""), `"status":{"c`, `"status":[],"other":{"c`, 1),
		strings.Replace(object("unreadable-spec", "", ""), `"spec":{`, `"spec":"none","other":{`, 1),
		strings.Replace(object("unreadable-metadata", "", ""), `"metadata":{`, `"metadata":"none","other":{`, 1),
		strings.Replace(object("unreadable-hash", "", ""), "sha256:", "sha257:", 1),
		strings.Replace(object("deleted", "", ""), `"generation"`, `"deletionTimestamp":"2027-01-01T00:00:00Z","generation"`, 1),
		strings.Replace(object("ended", "", ""), `"conditions"`, `"deactivatedAt":"2027-01-01T00:00:00Z","conditions"`, 1),
		strings.Replace(object("not-issued", "", ""), `"notBefore"`, `"other"`, 1),
	}
	want := map[string]outcome{
		"sound":                   granted("uid-of-sound"),
		"future":                  granted("uid-of-future"),
		"null":                    granted("uid-of-null"),
		"past":                    {authn.Unauthenticated, authn.ReasonKeyExpired, "uid-of-past"},
		"unreadable-end":          {authn.Unauthenticated, authn.ReasonKeyExpired, "uid-of-unreadable-end"},
		"unreadable-supersession": {authn.Unauthenticated, authn.ReasonTokenSuperseded, "uid-of-unreadable-supersession"},
		"unreadable-hash":         unknown,

		"unreadable-active":             {authn.Unauthenticated, authn.ReasonKeyExpired, "uid-of-unreadable-active"},
		"unreadable-access":             {authn.Forbidden, authn.ReasonNoReadAccess, "uid-of-unreadable-access"},
		"unreadable-both-accesses":      {authn.Forbidden, authn.ReasonNoReadAccess, "uid-of-unreadable-both-accesses"},
		"unreadable-ttl":                granted("uid-of-unreadable-ttl"),
		"unreadable-app":                granted("uid-of-unreadable-app"),
		"unreadable-status-of-no-token": granted("uid-of-unreadable-status-of-no-token"),
		"unreadable-deletion":           {authn.Unauthenticated, authn.ReasonKeyExpired, "uid-of-unreadable-deletion"},
		"unreadable-record-of-its-end":  {authn.Unauthenticated, authn.ReasonKeyExpired, "uid-of-unreadable-record-of-its-end"},
		"unreadable-conditions":         granted("uid-of-unreadable-conditions"),
		"unreadable-other-tokens":       granted("uid-of-unreadable-other-tokens"),
		"unreadable-handover":           unknown,
		"unreadable-tokens":             unknown,
		"unreadable-status":             unknown,
		"unreadable-spec":               {authn.Unauthenticated, authn.ReasonKeyExpired, "uid-of-unreadable-spec"},
		"unreadable-metadata":           unknown,
		"deleted":                       {authn.Unauthenticated, authn.ReasonKeyDeactivated, "uid-of-deleted"},
		"ended":                         {authn.Unauthenticated, authn.ReasonKeyExpired, "uid-of-ended"},
		"not-issued":                    unknown,
	}
	t.Run("listed", func(t *testing.T) {
		g := NewWithT(t)
		api := newAPIServer(t)
		keyring := run(t, api.config, metav1.NamespaceAll)
		g.Expect(api.awaitList()).To(BeEmpty())
		api.respond(listOf("another page", objects[:4]...))
		g.Expect(api.awaitList()).To(Equal("another page"))
		g.Expect(keyring.Synced()).To(BeFalse(), "before the last page")
		api.respond(listOf("", objects[4:]...))
		eventually(g, keyring.Synced).Should(BeTrue())
		for name, outcome := range want {
			expect(t, keyring, "shop", name, outcome)
		}
	})
	t.Run("watched", func(t *testing.T) {
		g := NewWithT(t)
		api := newAPIServer(t)
		keyring := run(t, api.config, metav1.NamespaceAll)
		api.awaitList()
		api.respond(listOf(""))
		for _, added := range objects {
			api.sendEvent(`{"type":"ADDED","object":` + added + `}`)
		}
		eventually(g, keyring.Len).Should(Equal(len(objects) - 5)) // all but those without a token that counts
		for name, outcome := range want {
			expect(t, keyring, "shop", name, outcome)
		}
	})
}

func TestInvariant10_AnUnreadableFieldEndsOnlyItsKey(t *testing.T) {
	g := NewWithT(t)
	env := testenv.Shared(t)
	shop := env.Namespace(t)
	sound, broken := create(t, env, shop, "sound", "sound's"), create(t, env, shop, "broken", "broken's")
	set := func(active any) {
		env.UpdateInEtcd(t, shop, "broken", func(object map[string]any) { object["spec"].(map[string]any)["active"] = active })
	}
	set("yes")
	listing := run(t, env.Config, shop)
	eventually(g, verdict(listing, shop, "sound's")).Should(Equal(granted(string(sound.UID))))
	g.Expect(verdict(listing, shop, "broken's")()).To(Equal(outcome{authn.Unauthenticated, authn.ReasonKeyExpired, string(broken.UID)}))
	set(true)
	eventually(g, verdict(listing, shop, "broken's")).Should(Equal(granted(string(broken.UID))))
	set(7)
	eventually(g, verdict(listing, shop, "broken's")).Should(Equal(outcome{authn.Unauthenticated, authn.ReasonKeyExpired, string(broken.UID)}))
	later := create(t, env, shop, "later", "later's")
	eventually(g, verdict(listing, shop, "later's")).Should(Equal(granted(string(later.UID))))
}

func TestInvariant4_AResponseThatIsNotAListDoesNotEmptyTheKeyring(t *testing.T) {
	for response, problem := range map[string]string{
		`{}`:                                   `the response to a list of APIKeys must have the kind APIKeyList, not ""`,
		`{"kind":"Status","status":"Success"}`: `the response to a list of APIKeys must have the kind APIKeyList, not "Status"`,
		`<html>`:                               `unable to decode a list of APIKeys`,
		// The decoder's errors begin with "cannot" or "unable to", at random.
		`{"kind":"APIKeyList","metadata":{},"items":{}}`:         `unmarshal JSON object into Go []authn.parsedKey within "/items"`,
		`{"kind":"APIKeyList","metadata":{},"items":[7]}`:        `unable to decode a list of APIKeys`,
		`{"kind":"APIKeyList","metadata":{},"items":[{"kind":"A`: `unexpected EOF`,
	} {
		t.Run(response, func(t *testing.T) {
			g := NewWithT(t)
			api := newAPIServer(t)
			keyring := run(t, api.config, metav1.NamespaceAll)
			api.awaitList()
			api.respond(response)
			api.awaitList()
			g.Expect(authn.NewAuthenticator(keyring, 0, clock).Ready()).To(MatchError(ContainSubstring(problem)))
			api.respond(`{"kind":"APIKeyList","metadata":{"resourceVersion":"5"},"items":null}`)
			eventually(g, keyring.Synced).Should(BeTrue())
		})
	}
}

func TestDecode_AListedKeyNeedsFewAllocations(t *testing.T) {
	const keys, managers = 2_000, 20
	g := NewWithT(t)
	api := newAPIServer(t)
	keyring := run(t, api.config, metav1.NamespaceAll)
	all := make([]string, keys)
	for i := range all {
		manager := `{"manager":"kubectl","operation":"Update","fieldsV1":{"f:spec":{".":{},"f:appName":{},"f:readAccess":{}}}}`
		all[i] = fmt.Sprintf(`{"apiVersion":"keys.squirrel.dev/v1alpha1","kind":"APIKey",
			"metadata":{"namespace":"shop","name":"key-%[1]d","uid":"uid-%[1]d","resourceVersion":"5","managedFields":[%[2]s]},
			"spec":{"appName":"App %[1]d","readAccess":true,"writeAccess":false,"active":true},
			"status":{"tokens":[{"hash":%[3]q,"hint":"sq_","notBefore":"2027-01-01T00:00:00Z"}]}}`,
			i, strings.Repeat(manager+",", managers-1)+manager, token.Hash(fmt.Sprint(i)))
	}
	list := listOf("", all...)
	api.awaitList()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	api.respond(list)
	eventually(g, keyring.Synced).Should(BeTrue())
	runtime.ReadMemStats(&after)
	expect(t, keyring, "shop", "1", granted("uid-1"))

	// Most of an object is managedFields, which allocate nothing.
	perKey := float64(after.Mallocs-before.Mallocs) / keys
	t.Logf("%.1f allocations per key", perKey)
	g.Expect(perKey).To(BeNumerically("<", 30))
}
