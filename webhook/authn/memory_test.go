// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn_test

import (
	"runtime"
	"testing"

	"squirrel.dev/apikey-operator/test/bench/keys"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/heap"
	"squirrel.dev/apikey-operator/webhook/authn"
)

func TestKeyring_AKeyNeedsAtMost300Bytes(t *testing.T) {
	const count = 20_000
	minted := keys.Mint(count, 100)
	before := heap.Live()
	keyring := authn.NewKeyring()
	framework.Must(t, keys.Fill(keyring, minted))
	perKey := (heap.Live() - before) / count
	runtime.KeepAlive(minted)
	if keyring.Len() != count || perKey < 100 || perKey > 300 {
		t.Errorf("each of %d keys needs %d bytes", keyring.Len(), perKey)
	}
}
