// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package mutants

import (
	"go/ast"
	"go/parser"
	"go/token"
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
	// right is a text that occurs once in the file, in the body of a function. The fault is that wrong stands in its place.
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

// function returns the function of the source that has the right text. The test fails if there is none.
func (m mutant) function(t *testing.T, source string) *ast.FuncDecl {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), m.file, source, 0)
	if err != nil {
		t.Fatal(err)
	}
	at := token.Pos(strings.Index(source, m.right) + 1)
	for _, declaration := range parsed.Decls {
		function, ok := declaration.(*ast.FuncDecl)
		if ok && function.Body.Lbrace < at && at+token.Pos(len(m.right)) <= function.Body.Rbrace {
			return function
		}
	}
	t.Fatalf("the right text of %q is not within the body of a function: change the mutant in list_test.go", m.name)
	return nil
}

// TestEachMutantChangesTheProduct runs with all other tests, so that a change of the product shows soon which mutants must follow it.
func TestEachMutantChangesTheProduct(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) { m.function(t, m.source(t)) })
	}
}
