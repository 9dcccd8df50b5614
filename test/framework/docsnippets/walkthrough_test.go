// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package docsnippets

import (
	"testing"

	. "github.com/onsi/gomega"

	"squirrel.dev/apikey-operator/api/token"
)

func TestConstantPart(t *testing.T) {
	g := NewWithT(t)
	g.Expect(constantPart("{\n  \"errorCode\": 0}")).To(Equal(constantPart(`{"errorCode":0}`)))
	g.Expect(constantPart("Token: sq_KnIr...")).To(Equal(constantPart("Token:  " + token.New())))
	g.Expect(constantPart(`{"last_used_at":null}`)).To(Equal(constantPart(`{"last_used_at": "2026-11-22T05:50:50Z"}`)))
	g.Expect(constantPart(`{"errorCode":0}`)).NotTo(Equal(constantPart(`{"errorCode":1}`)))
}

func TestShellBlocks(t *testing.T) {
	g := NewWithT(t)
	g.Expect(shellBlocks("```sh\na\n```\n\n```text\nb\n```\n\n```sh\nc\n```\n\nProse.\n\n```json\nd\n```\n")).
		To(Equal([]shellBlock{{"a\n", "b\n"}, {"c\n", ""}}))
}
