// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package docsnippets reads the configurations that the documentation shows, so that tests run what users copy. It also compares, or with
// -update rewrites, the parts of the documentation that are generated.
package docsnippets

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"squirrel.dev/apikey-operator/hack/controlplane"
)

var update = flag.Bool("update", false, "write the documentation anew")

// ExpectGenerated expects a page, by its path in this repository, to be this text, which is made of source, and writes it with the flag
// -update. The command says how to run the test with it.
func ExpectGenerated(t testing.TB, page, want, source, command string) {
	t.Helper()
	root, err := controlplane.FindRepository()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, page)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(written)); diff != "" {
		t.Errorf("%s is not what %s (-want +got); to write it anew, run\n%s\n%s", page, source, command, diff)
	}
}

// WriteRow writes a row of a table in Markdown.
func WriteRow(d *strings.Builder, cells ...string) {
	d.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

var codeBlock = regexp.MustCompile("(?ms)^```[a-z]+\n(.*?)^```$")

// Shown returns the one code block of a page whose first line is a comment of this text: the name of the file that it belongs in.
func Shown(t testing.TB, page, name string) string {
	t.Helper()
	root, err := controlplane.FindRepository()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(root, "docs", "gateways", page))
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

// ForTest returns a configuration in which what it says for production, the keys, is replaced by what stands for it in a test. Each must
// be there.
func ForTest(t testing.TB, configuration string, replacements map[string]string) string {
	t.Helper()
	var oldnew []string
	for old, replacement := range replacements {
		if !strings.Contains(configuration, old) {
			t.Fatalf("the configuration has no %q:\n%s", old, configuration)
		}
		oldnew = append(oldnew, old, replacement)
	}
	return strings.NewReplacer(oldnew...).Replace(configuration)
}
