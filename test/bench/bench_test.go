// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench_test

import (
	"flag"
	"math"
	"path/filepath"
	"testing"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/test/bench/chart"
	"squirrel.dev/apikey-operator/test/bench/report"
	"squirrel.dev/apikey-operator/test/framework"
)

// The report is about the defaults. Fewer turns are for tests of the benchmark itself.
var maxTurns = flag.Int("turns", math.MaxInt, "highest number of measurements of each figure")

// TestDataPlane measures the cost of checks. Each part writes its section of the report.
func TestDataPlane(t *testing.T) {
	for _, part := range []struct {
		section string
		measure func(t *testing.T) report.Report
	}{
		{"verdicts", verdicts},
		{"memory", memory},
		{"plaintext", plaintext},
		{"TLS", withTLS},
		{"changes", changes},
		{"latency", latencies},
	} {
		t.Run(part.section, func(t *testing.T) { writeSection(t, "make bench", part.section, part.measure(t)) })
	}
}

// writeSection writes what a part of a command has measured.
func writeSection(t *testing.T, command, section string, measured report.Report) {
	t.Helper()
	measured.Command, measured.Section = command, section
	framework.Must(t, measured.Write(inRepository(t, "docs", "benchmarks.md")))
}

// writeChart writes a picture and its data. The name is that of the files.
func writeChart(t *testing.T, name string, c *chart.Chart) {
	t.Helper()
	framework.Must(t, c.Write(inRepository(t, "docs", "benchmarks", name)))
}

// inTurns measures each of several things once a turn, so that none has the machine's better moment, and returns the samples of each. The
// first turn only warms up.
func inTurns[S any](turns int, measure ...func() S) [][]S {
	samples := make([][]S, len(measure))
	for turn := range min(turns, *maxTurns) + 1 {
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
