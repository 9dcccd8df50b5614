// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn_test

import (
	"strconv"
	"testing"
	"time"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/webhook/authn"
)

func TestHasKeys_WhileTheKeyringHoldsATokenOfTheNamespace(t *testing.T) {
	keyring := authn.NewKeyring()
	authenticator := authn.NewAuthenticator(keyring, 0, time.Now)
	assert := func(after string, want map[string]bool) {
		t.Helper()
		for namespace, has := range want {
			if authenticator.HasKeys(namespace) != has {
				t.Errorf("after %s, HasKeys(%q) is %t", after, namespace, !has)
			}
		}
	}
	assert("the start", map[string]bool{"shop": false, "": false})
	framework.Must(t, keyring.Replace([]any{newKey("shop", "a", issued("sq_a")), newKey("shop", "b", issued("sq_b")), newKey("other", "a", issued("sq_a"))}, "1"))
	assert("a list", map[string]bool{"shop": true, "other": true, "sho": false, "": false})
	framework.Must(t, keyring.Delete(newKey("shop", "a", issued("sq_a"))))
	framework.Must(t, keyring.Update(newKey("shop", "b", issued("sq_b"), ended)))
	assert("one of two is deleted, and the other has ended", map[string]bool{"shop": true, "other": true})
	framework.Must(t, keyring.Update(newKey("shop", "b", issued("sq_b2"))))
	assert("the other gets another token", map[string]bool{"shop": true, "other": true})
	framework.Must(t, keyring.Delete(newKey("shop", "b", issued("sq_b2"))))
	assert("both are deleted", map[string]bool{"shop": false, "other": true})
	framework.Must(t, keyring.Add(newKey("shop", "c", issued("sq_c"))))
	for i := range 100 { // more than the store had room for
		framework.Must(t, keyring.Add(newKey("many", strconv.Itoa(i), issued("sq_"+strconv.Itoa(i)))))
	}
	assert("many are added", map[string]bool{"shop": true, "other": true, "many": true})
	framework.Must(t, keyring.Replace([]any{newKey("other", "a", issued("sq_a"))}, "2"))
	assert("another list", map[string]bool{"shop": false, "other": true, "many": false})
}
