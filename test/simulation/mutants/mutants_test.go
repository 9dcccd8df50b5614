// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build mutants

package mutants

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// none selects no mutant.
const none = -1

// seeds is the number of schedules within which the simulation must find a mutant.
const seeds = 10_000

// finding is the first violation that the simulation finds in a mutant.
type finding struct{ seed, invariant string }

// TestEachMutantIsFound runs the simulation with each mutant in turn, and once without: a violation of the product itself would also be found
// with each mutant. It logs which invariant found each mutant.
func TestEachMutantIsFound(t *testing.T) {
	program := build(t)
	if found := simulate(t, program, none); found != (finding{}) {
		t.Fatalf("the product violates %q without a mutant: run `make simulate SEEDS=1 FIRST=%s`", found.invariant, found.seed)
	}
	findings := make([]finding, len(mutants))
	t.Cleanup(func() { t.Log("\nmutant, seed, invariant:", tableOf(findings)) })
	for i, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			findings[i] = simulate(t, program, i)
			if findings[i] == (finding{}) {
				t.Errorf("the simulation finds no violation in %d schedules: extend its model or its invariants until it does", seeds)
			}
		})
	}
}

// build builds the simulation with all mutants, and returns its path.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "simulation.test")
	arguments := []string{"test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay=" + writeOverlay(t), "-o", program, simulation}
	if output, err := exec.CommandContext(t.Context(), "go", arguments...).CombinedOutput(); err != nil {
		t.Fatalf("the simulation does not compile with the mutants: correct their texts in list_test.go\n%s", output)
	}
	return program
}

// violation matches the line with which the simulation reports a violation.
var violation = regexp.MustCompile(`seed (\d+) violates "([^"]+)"`)

// simulate runs the schedules with a mutant until one has a violation, and returns that, or an empty finding if none has.
func simulate(t *testing.T, program string, mutant int) finding {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	command := exec.CommandContext(ctx, program, "-test.v", "-test.run=^TestSchedules$", fmt.Sprintf("-seeds=%d", seeds))
	command.Dir = simulation
	command.Env = append(os.Environ(), fmt.Sprintf("%s=%d", activeMutant, mutant))
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
