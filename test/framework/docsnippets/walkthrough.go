// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package docsnippets

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// Walkthrough is a page whose shell commands a test runs.
type Walkthrough struct {
	// Page is a path in the repository.
	Page string
	// Dir is the working directory of the shell.
	Dir string
	// Env is added to the environment of this process, as "NAME=value".
	Env []string
	// Replacements replace values of the page, as in [Replace].
	Replacements map[string]string
}

// Run runs the blocks of a page that are marked as sh in one shell. The test fails if a command fails, or if a block prints something else
// than the block of text or JSON that follows it.
func (w Walkthrough) Run(t testing.TB) {
	t.Helper()
	blocks := shellBlocks(Replace(t, read(t, w.Page), w.Replacements))
	if len(blocks) == 0 {
		t.Fatalf("%s has no commands", w.Page)
	}
	outputs := w.paste(t, blocks)
	for i, block := range blocks {
		if block.output != "" && constantPart(outputs[i]) != constantPart(block.output) {
			t.Errorf("%s\nprints:\n%s\nwant:\n%s", block.script, outputs[i], block.output)
		}
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

// paste runs the blocks, and returns the output of each. None may fail.
func (w Walkthrough) paste(t testing.TB, blocks []shellBlock) []string {
	t.Helper()
	const end = "=== the end of a block ==="
	var script strings.Builder
	for _, block := range blocks {
		fmt.Fprintf(&script, "%s\nprintf '%s'\n", block.script, end)
	}
	shell := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script.String())
	shell.Dir, shell.Env = w.Dir, append(os.Environ(), w.Env...)
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
		{regexp.MustCompile(`"sq_[\w-]{4}"`), `"HINT"`},
		{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "ID"},
		{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`), "TIME"},
		{regexp.MustCompile(`"last_used_at": ?(null|"TIME")`), `"last_used_at":"TIME"`}, // the controller may record a use at any time
		{regexp.MustCompile(`-[a-z2-7]{8}\b`), "-RANDOM"},
	} {
		text = varying.pattern.ReplaceAllString(text, varying.by)
	}
	return strings.Join(strings.Fields(text), "")
}
