// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build bench

package scale_test

import (
	"flag"
	"path/filepath"
	"slices"
	"testing"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/test/bench/report"
	"squirrel.dev/apikey-operator/test/framework"
)

// The report is about the defaults. Fewer keys or turns are for tests of the benchmark itself.
var (
	scale = flag.Int("keys", 100_000, "number of APIKeys")
	turns = flag.Int("turns", 3, "number of measurements of each figure")
)

// TestScale measures one part after the other with the same keys. It writes the report when all parts have run.
func TestScale(t *testing.T) {
	measured := report.Report{Command: "make bench-scale"}
	cluster := newPopulation(t)
	cluster.grow(*scale)
	parts := []struct {
		name    string
		measure func(*testing.T, *population) []report.Row
	}{
		{"start", starts},
		{"revocation", revocations},
		{"controller", controllerAtWork},
	}
	for _, part := range parts {
		t.Run(part.name, func(t *testing.T) {
			rows := part.measure(t, cluster.in(t))
			t.Logf("\n%s", &report.Report{Command: part.name, Rows: rows})
			measured.Rows = append(measured.Rows, rows...)
			parts = parts[1:]
		})
	}
	if len(parts) == 0 && !t.Failed() {
		framework.Must(t, measured.Write(inRepository(t, "docs", "benchmarks.md")))
	}
}

func percentile99(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)*99/100]
}

func inRepository(t *testing.T, elements ...string) string {
	t.Helper()
	root, err := controlplane.FindRepository()
	framework.Must(t, err)
	return filepath.Join(append([]string{root}, elements...)...)
}
