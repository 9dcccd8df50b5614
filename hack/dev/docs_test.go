// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/test/framework"
)

// testWalkThroughs pastes the commands of docs/cli.md and docs/management into a shell while `make run` is running. Each command must print
// the output that its page shows.
func testWalkThroughs(t *testing.T, home string) {
	t.Helper()
	root, err := controlplane.FindRepository()
	framework.Must(t, err)
	for _, page := range []string{"management/rest.md", "cli.md", "management/moving.md"} {
		t.Run(page, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(root, "docs", page))
			framework.Must(t, err)
			blocks := shellBlocks(string(text))
			if len(blocks) < 3 {
				t.Fatalf("found only %d blocks of commands", len(blocks))
			}
			outputs := paste(t, walkThroughDirectory(t, root, home), blocks)
			for i, block := range blocks {
				if block.output != "" && constantPart(outputs[i]) != constantPart(block.output) {
					t.Errorf("%s\nprints:\n%s\nwant:\n%s", block.script, outputs[i], block.output)
				}
			}
		})
	}
}

// shellBlock is a block of commands in a page, with the block of their output, if one follows.
type shellBlock struct{ script, output string }

var fenced = regexp.MustCompile("(?ms)^```sh\n(.*?)^```\n(?:\n```(?:text|json)\n(.*?)^```\n)?")

func shellBlocks(page string) (blocks []shellBlock) {
	for _, match := range fenced.FindAllStringSubmatch(page, -1) {
		blocks = append(blocks, shellBlock{script: match[1], output: match[2]})
	}
	return blocks
}

// walkThroughDirectory returns a directory with the files of this repository that the pages use, and the file that moving.md exports from a
// database.
func walkThroughDirectory(t *testing.T, root, home string) string {
	t.Helper()
	dir := t.TempDir()
	framework.Must(t, os.MkdirAll(filepath.Join(dir, "bin", "dev"), 0o700))
	framework.Must(t, os.Symlink(filepath.Join(home, "env"), filepath.Join(dir, "bin", "dev", "env")))
	framework.Must(t, os.Symlink(filepath.Join(root, "bin", "kubectl-apikey"), filepath.Join(dir, "bin", "kubectl-apikey")))
	rows := ""
	for _, app := range []string{`It's "quoted"`, `Back\slash & Söhne: #1`} {
		rows += strings.Join([]string{strings.TrimPrefix(token.Hash(token.New()), "sha256:"), "true", "false", app}, "\t") + "\n"
	}
	framework.Must(t, os.WriteFile(filepath.Join(dir, "keys.tsv"), []byte(rows), 0o600))
	return dir
}

// paste runs the blocks in one shell, and returns the output of each. None may fail.
func paste(t *testing.T, dir string, blocks []shellBlock) []string {
	t.Helper()
	const end = "=== the end of a block ==="
	script := ""
	for _, block := range blocks {
		script += fmt.Sprintf("%s\nprintf '%s'\n", block.script, end)
	}
	shell := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
	shell.Dir = dir
	output, err := shell.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return strings.Split(string(output), end)
}

// constantPart returns a text without the values that differ between runs, and without white space, which JSON and tables may add.
func constantPart(text string) string {
	for _, varying := range []struct {
		pattern *regexp.Regexp
		by      string
	}{
		{regexp.MustCompile(`sq_[\w-]{43}|sq_[\w-]{4}\.\.\.`), "TOKEN"},
		{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "ID"},
		{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`), "TIME"},
		{regexp.MustCompile(`-[a-z2-7]{8}\b`), "-RANDOM"},
	} {
		text = varying.pattern.ReplaceAllString(text, varying.by)
	}
	return strings.Join(strings.Fields(text), "")
}

func TestConstantPart(t *testing.T) {
	g := NewWithT(t)
	g.Expect(constantPart("{\n  \"errorCode\": 0}")).To(Equal(constantPart(`{"errorCode":0}`)))
	g.Expect(constantPart("Token: sq_KnIr...")).To(Equal(constantPart("Token:  " + token.New())))
	g.Expect(constantPart(`{"errorCode":0}`)).NotTo(Equal(constantPart(`{"errorCode":1}`)))
	g.Expect(shellBlocks("```sh\na\n```\n\n```text\nb\n```\n\n```sh\nc\n```\n\nProse.\n\n```json\nd\n```\n")).
		To(Equal([]shellBlock{{"a\n", "b\n"}, {"c\n", ""}}))
}
