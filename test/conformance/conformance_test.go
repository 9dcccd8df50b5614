// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package conformance_test asks the built authenticator the same in all its protocols, over TLS, about keys that the built controller
// has issued.
package conformance_test

import (
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/test/framework/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestAllProtocolsAnswerAsTheTableSays(t *testing.T) {
	f := newFixture(t)
	for _, chapter := range table {
		for _, situation := range chapter.situations {
			t.Run(chapter.title+"/"+situation.name, func(t *testing.T) {
				f := f.in(t)
				q := f.filledIn(situation.ask)
				for i, column := range columns {
					want := situation.want[i]
					if strings.HasPrefix(want, unaskable) {
						continue
					}
					if got := column.ask(f, q); got != want {
						t.Errorf("%s: answered %s, want %s", column.name, got, want)
					}
				}
			})
		}
	}
}
