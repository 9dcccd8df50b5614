// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package gateways_test tries the configurations that docs/gateways shows: it takes them from there. With the build tag gateways it runs
// them with the real programs; `make test-gateways` gets those. Without it, it holds those that cannot be run to the types of their
// gateway where it can.
package gateways_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const pages = "../../docs/gateways"

var codeBlock = regexp.MustCompile("(?ms)^```[a-z]+\n(.*?)^```$")

// shown returns the one code block of a page whose first line is a comment of this text: the name of the file that it belongs in.
func shown(t testing.TB, page, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(pages, page))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, block := range codeBlock.FindAllStringSubmatch(string(content), -1) {
		if firstLine, _, _ := strings.Cut(block[1], "\n"); firstLine == "# "+name {
			found = append(found, block[1])
		}
	}
	if len(found) != 1 {
		t.Fatalf("%s shows %d blocks that start with # %s, want 1", page, len(found), name)
	}
	return found[0]
}
