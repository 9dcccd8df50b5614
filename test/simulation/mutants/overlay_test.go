// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build mutants

package mutants

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// activeMutant is the name of the environment variable that selects a mutant by its index in the list, and of the variable in each changed
// package that has its value.
const activeMutant = "activeMutant"

// writeOverlay writes an overlay for the go command, and returns its path. In the overlay, the product has all mutants, of which an
// environment variable selects one. One build for all takes much less time than one for each.
func writeOverlay(t *testing.T) string {
	t.Helper()
	files := map[string]string{}
	for _, m := range mutants {
		if _, ok := files[m.file]; !ok {
			files[m.file] = withMutants(t, m.file)
		}
		directory := path.Dir(m.file)
		files[path.Join(directory, "activemutant.go")] = fmt.Sprintf(
			"package %s\n\nimport \"os\"\n\nvar %s = os.Getenv(%[2]q)\n", path.Base(directory), activeMutant)
	}
	replaced := map[string]string{}
	for file, content := range files {
		original, err := filepath.Abs(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		replaced[original] = write(t, filepath.Base(file), []byte(content))
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "overlay.json", overlay)
}

// withMutants returns the text of a file in which each function begins with a copy of its body for each of its mutants. A copy runs, instead
// of the original body, if its mutant is active.
func withMutants(t *testing.T, file string) string {
	t.Helper()
	bodies := map[int]string{} // by where they are inserted
	var source string
	for number, m := range mutants {
		if m.file != file {
			continue
		}
		source = m.source(t)
		function := m.function(t, source)
		start, end := int(function.Body.Lbrace), int(function.Body.Rbrace)-1 // between the braces. Positions count from 1
		at := strings.Index(source, m.right)
		body := source[start:at] + m.wrong + source[at+len(m.right):end]
		if function.Type.Results == nil {
			body += "\nreturn\n"
		} else {
			body += "\npanic(\"the mutant returns nothing\")\n" // otherwise the right body would run too
		}
		bodies[start] += fmt.Sprintf("\nif %s == \"%d\" {%s}\n", activeMutant, number, body)
	}
	for _, start := range slices.Backward(slices.Sorted(maps.Keys(bodies))) {
		source = source[:start] + bodies[start] + source[start:]
	}
	return source
}

// write writes a file into a new directory, and returns its path.
func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
