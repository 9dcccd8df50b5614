// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench_test

import (
	"path/filepath"
	"testing"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/test/bench/report"
	"squirrel.dev/apikey-operator/test/framework"
)

// TestDataPlane measures the cost of checks. It writes the report when all parts have run.
func TestDataPlane(t *testing.T) {
	measured := report.Report{Command: "make bench"}
	parts := []struct {
		name    string
		measure func(t *testing.T) []report.Row
	}{
		{"verdict", verdicts},
		{"memory", memory},
		{"plaintext", plaintext},
		{"tls", withTLS},
		{"changes", changes},
		{"nginx", nginx},
	}
	for _, part := range parts {
		t.Run(part.name, func(t *testing.T) {
			rows := part.measure(t)
			t.Logf("\n%s", &report.Report{Command: part.name, Rows: rows})
			measured.Rows = append(measured.Rows, rows...)
			parts = parts[1:]
		})
	}
	if len(parts) == 0 {
		framework.Must(t, measured.Write(inRepository(t, "docs", "benchmarks.md")))
	}
}

// inTurns measures each of several things once a turn, so that none has the machine's better moment, and returns the samples of each. The
// first turn only warms up.
func inTurns[S any](turns int, measure ...func() S) [][]S {
	samples := make([][]S, len(measure))
	for turn := range turns + 1 {
		for i := range measure {
			if sample := measure[i](); turn > 0 {
				samples[i] = append(samples[i], sample)
			}
		}
	}
	return samples
}

// each returns one figure of each sample.
func each[S any](samples []S, figure func(S) float64) []float64 {
	figures := make([]float64, len(samples))
	for i := range samples {
		figures[i] = figure(samples[i])
	}
	return figures
}

func inRepository(t *testing.T, elements ...string) string {
	t.Helper()
	root, err := controlplane.FindRepository()
	framework.Must(t, err)
	return filepath.Join(append([]string{root}, elements...)...)
}
