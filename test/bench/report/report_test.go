// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"squirrel.dev/apikey-operator/test/bench/report"
)

var measured = report.Report{Command: "make bench", Rows: []report.Row{
	{
		Figure: "verdict", Unit: "ns", Values: []float64{300, 150, 600}, Floor: "one SHA-256", Floors: []float64{200, 150, 200},
		Bar: report.Bar{AtMost: 1.5},
	},
	{
		Figure: "throughput", Unit: "req/s", Values: []float64{1_000_000, 2_000_000}, Floor: "only 200", Floors: []float64{2_000_000, 2_500_000},
		Bar: report.Bar{AtLeast: 0.9},
	},
	{Figure: "bytes per key", Unit: "B", Values: []float64{99.96}, Bar: report.Bar{AtMost: 300}},
	{Figure: "nginx", Unit: "ms", Values: []float64{1.234}, Floor: "alone", Floors: []float64{1}},
}}

func TestWrite_ReplacesTheReport(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	write(t, page, "# Page\n\n<!-- begin: make bench -->\nold\n<!-- end: make bench -->\n\n<!-- begin: make bench-scale -->\nother\n<!-- end: make bench-scale -->\n")
	for range 2 {
		if err := measured.Write(page); err != nil {
			t.Fatal(err)
		}
	}
	before, rest, _ := strings.Cut(read(t, page), "`make bench` on 2")
	_, table, _ := strings.Cut(rest, "\n\n")
	if diff := cmp.Diff("# Page\n\n<!-- begin: make bench -->\n\n", before); diff != "" {
		t.Errorf("before the report (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(`| figure | measured | floor | ratio | bar | met |
|---|---|---|---|---|---|
| verdict | 300 ns | one SHA-256: 200 ns | **1.50** (1.25-2.25) | <= 1.5x | yes |
| throughput | 1 500 000 req/s | only 200: 2 250 000 req/s | **0.65** (0.57-0.73) | >= 0.9x | **no** |
| bytes per key | 100.0 B | - | - | <= 300 B | yes |
| nginx | 1.23 ms | alone: 1.00 ms | **1.23** (1.23-1.23) | - | - |

<!-- end: make bench -->

<!-- begin: make bench-scale -->
other
<!-- end: make bench-scale -->
`, table); diff != "" {
		t.Errorf("the report and what follows (-want +got):\n%s", diff)
	}
}

func TestWrite_ReplacesASectionWithATable(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	write(t, page, "<!-- begin: make bench, a -->\nold\n<!-- end: make bench, a -->\n<!-- begin: make bench, b -->\nother\n<!-- end: make bench, b -->\n")
	section := report.Report{Command: "make bench", Section: "a", Tables: []report.Table{{
		Header: []string{"keys", "µs"}, Rows: [][]string{{"1", report.Number(12.34)}, {"1 000", report.Number(report.Median([]float64{1000, 3000, 2000}))}},
	}}}
	if err := section.Write(page); err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(read(t, page), "Medians.\n\n")
	if diff := cmp.Diff(`| keys | µs |
|---|---|
| 1 | 12.3 |
| 1 000 | 2 000 |

<!-- end: make bench, a -->
<!-- begin: make bench, b -->
other
<!-- end: make bench, b -->
`, table); diff != "" {
		t.Errorf("the table and what follows (-want +got):\n%s", diff)
	}
}

func TestWrite_KeepsAPageWithoutTheMarkers(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	const content = "# Page\n\n<!-- begin: make bench -->\n"
	write(t, page, content)
	want := page + ` has no place for the report: it needs the lines "<!-- begin: make bench -->" and "<!-- end: make bench -->"`
	if err := measured.Write(page); err == nil || err.Error() != want {
		t.Errorf("the error is %v, want %s", err, want)
	}
	if diff := cmp.Diff(content, read(t, page)); diff != "" {
		t.Errorf("the page (-want +got):\n%s", diff)
	}
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
