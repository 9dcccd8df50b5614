// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package docsnippets reads code blocks from the documentation, so that tests run the configurations that users copy. It also checks the
// generated pages, and rewrites them with -update.
package docsnippets

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/test/framework"
)

var update = flag.Bool("update", false, "rewrite the generated pages of the documentation")

// ExpectGenerated fails the test if a page differs from want. With -update it writes want to the page first. The page is a path in the
// repository. The failure names the source that the page is generated from, and the command that rewrites it.
func ExpectGenerated(t testing.TB, page, want, source, command string) {
	t.Helper()
	if *update {
		framework.Must(t, os.WriteFile(pathOf(t, page), []byte(want), 0o644))
	}
	if diff := cmp.Diff(want, read(t, page)); diff != "" {
		t.Errorf("%s is out of date with %s (-want +got): rewrite it with\n%s\n%s", page, source, command, diff)
	}
}

// WriteRow writes a row of a Markdown table.
func WriteRow(d *strings.Builder, cells ...string) {
	d.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

var codeBlock = regexp.MustCompile("(?ms)^```[a-z]+\n(.*?)^```$")

// CodeBlock returns the code block of a page in docs/gateways that starts with the comment "# name", "// name" or "-- name". The name is
// usually a file name. The page must have exactly one such block.
func CodeBlock(t testing.TB, page, name string) string {
	t.Helper()
	return CodeBlockOf(t, filepath.Join("docs", "gateways", page), name)
}

// CodeBlockOf is [CodeBlock] for any page, which is a path in the repository.
func CodeBlockOf(t testing.TB, page, name string) string {
	t.Helper()
	var found []string
	for _, block := range codeBlock.FindAllStringSubmatch(read(t, page), -1) {
		firstLine, _, _ := strings.Cut(block[1], "\n")
		if slices.Contains([]string{"# " + name, "// " + name, "-- " + name}, firstLine) {
			found = append(found, block[1])
		}
	}
	if len(found) != 1 {
		t.Fatalf("%s: got %d code blocks that start with the comment %s, want 1", page, len(found), name)
	}
	return found[0]
}

// Replace replaces the production values of a configuration, which are the keys, by those of a test. Each key must occur.
func Replace(t testing.TB, configuration string, replacements map[string]string) string {
	t.Helper()
	var oldnew []string
	for old, replacement := range replacements {
		if !strings.Contains(configuration, old) {
			t.Fatalf("the configuration does not contain %q:\n%s", old, configuration)
		}
		oldnew = append(oldnew, old, replacement)
	}
	return strings.NewReplacer(oldnew...).Replace(configuration)
}

func read(t testing.TB, page string) string {
	t.Helper()
	content, err := os.ReadFile(pathOf(t, page))
	framework.Must(t, err)
	return string(content)
}

func pathOf(t testing.TB, page string) string {
	t.Helper()
	root, err := controlplane.FindRepository()
	framework.Must(t, err)
	return filepath.Join(root, page)
}
