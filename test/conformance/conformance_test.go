// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/test/framework/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestProtocols_RespondAsInTheTable(t *testing.T) {
	f := newFixture(t)
	for _, chapter := range table {
		for _, situation := range chapter.situations {
			t.Run(chapter.title+"/"+situation.name, func(t *testing.T) {
				f := f.in(t)
				c := f.expand(situation.check)
				for i, column := range columns {
					want := situation.want[i]
					if strings.HasPrefix(want, notApplicable) {
						continue
					}
					if got := column.check(f, c); got != want {
						t.Errorf("%s: the response is %s, want %s", column.name, got, want)
					}
				}
			})
		}
	}
}
