// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package mutants

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	root       = "../../.." // of the repository
	simulation = root + "/test/simulation"
)

// mutant is the product with one small fault, as a programmer could have made it.
type mutant struct {
	// name states what is wrong.
	name string
	// file is the path of the file that has the fault, from the root of the repository.
	file string
	// right is a text that occurs once in the file. The fault is that wrong stands in its place.
	right, wrong string
}

// source returns the text of the file. The test fails unless the right text occurs once.
func (m mutant) source(t *testing.T) string {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(root, m.file))
	if err != nil {
		t.Fatal(err)
	}
	if count := strings.Count(string(source), m.right); count != 1 {
		t.Fatalf("%s contains this text %d times instead of once: update the mutant in list_test.go\n%s", m.file, count, m.right)
	}
	return string(source)
}

// TestEachMutantChangesTheProduct runs with all other tests, so that a change of the product shows soon which mutants must follow it.
func TestEachMutantChangesTheProduct(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) { m.source(t) })
	}
}
