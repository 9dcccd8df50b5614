// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build mutants

package mutants

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// seeds is the number of schedules within which the simulation must find a mutant.
const seeds = 10_000

// finding is the first violation that the simulation finds in a mutant.
type finding struct{ seed, invariant string }

// TestTheProductHasNoViolation is the control. A violation without a mutant would also be found with each mutant.
func TestTheProductHasNoViolation(t *testing.T) {
	if found := simulate(t, build(t)); found != (finding{}) {
		t.Errorf("the product violates %q without a mutant: run `make simulate SEEDS=1 FIRST=%s`", found.invariant, found.seed)
	}
}

// TestEachMutantIsFound builds the simulation with each mutant in turn, and runs it. It logs which invariant found each mutant.
func TestEachMutantIsFound(t *testing.T) {
	findings := make([]finding, len(mutants))
	t.Cleanup(func() { t.Log("\nmutant, seed, invariant:", tableOf(findings)) })
	for i, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			findings[i] = simulate(t, build(t, "-overlay="+m.overlay(t)))
			if findings[i] == (finding{}) {
				t.Errorf("the simulation finds no violation in %d schedules: extend its model or its invariants until it does", seeds)
			}
		})
	}
}

// overlay writes the file with the fault, and returns an overlay for the go command that replaces the right file by it.
func (m mutant) overlay(t *testing.T) string {
	t.Helper()
	file, err := filepath.Abs(filepath.Join(root, m.file))
	if err != nil {
		t.Fatal(err)
	}
	mutated := filepath.Join(t.TempDir(), filepath.Base(m.file))
	write(t, mutated, []byte(strings.Replace(m.source(t), m.right, m.wrong, 1)))
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{file: mutated}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "overlay.json")
	write(t, path, overlay)
	return path
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// build builds the simulation, and returns its path.
func build(t *testing.T, flags ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "simulation.test")
	arguments := append([]string{"test", "-c", "-vet=off", "-ldflags=-s -w", "-o", program}, flags...)
	if output, err := exec.CommandContext(t.Context(), "go", append(arguments, simulation)...).CombinedOutput(); err != nil {
		t.Fatalf("the simulation does not compile with the mutant: correct its text in list_test.go\n%s", output)
	}
	return program
}

// violation matches the line with which the simulation reports a violation.
var violation = regexp.MustCompile(`seed (\d+) violates "([^"]+)"`)

// simulate runs the schedules until one has a violation, and returns that, or an empty finding if none has.
func simulate(t *testing.T, program string) finding {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	command := exec.CommandContext(ctx, program, "-test.v", "-test.run=^TestSchedules$", fmt.Sprintf("-seeds=%d", seeds))
	command.Dir = simulation
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	command.Stderr = command.Stdout
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	var found finding
	var output strings.Builder
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		output.WriteString(lines.Text() + "\n")
		if match := violation.FindStringSubmatch(lines.Text()); match != nil && found == (finding{}) {
			found = finding{seed: match[1], invariant: match[2]}
			stop() // otherwise it would search for the shortest schedule that has this violation
		}
	}
	err = command.Wait()
	stop()
	if err != nil && found == (finding{}) {
		t.Fatalf("the simulation stopped without a violation (%v): correct it, or the mutant\n%s", err, output.String())
	}
	return found
}

// tableOf returns the findings as a table.
func tableOf(findings []finding) string {
	var table strings.Builder
	for i, found := range findings {
		fmt.Fprintf(&table, "\n%-90s  %5s  %s", mutants[i].name, found.seed, found.invariant)
	}
	return table.String()
}
