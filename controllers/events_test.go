// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestShorten_CutsBetweenTwoCharacters(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "",
		strings.Repeat("a", 1024):               strings.Repeat("a", 1024),
		strings.Repeat("a", 1025):               strings.Repeat("a", 1021) + "…",
		strings.Repeat("é", 512):                strings.Repeat("é", 512),
		strings.Repeat("é", 513):                strings.Repeat("é", 510) + "…",
		strings.Repeat("\U0001F511", 300):       strings.Repeat("\U0001F511", 255) + "…",
		"a" + strings.Repeat("\U0001F511", 300): "a" + strings.Repeat("\U0001F511", 255) + "…",
	} {
		got := shorten(text, maxNoteLength)
		if got != want || !utf8.ValidString(got) || len(got) > maxNoteLength {
			t.Errorf("%d bytes become %d: %q", len(text), len(got), got)
		}
	}
}
