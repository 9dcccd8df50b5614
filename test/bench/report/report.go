// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package report writes figures, with their floors and bars, into a page of the documentation.
package report

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Report has the figures of a section of a page. Write writes it between the lines <!-- begin: make bench, verdict --> and
// <!-- end: make bench, verdict -->, if the command is "make bench" and the section "verdict".
type Report struct {
	// Command that measured, such as "make bench".
	Command string
	// Section is the name of the section, or "" if the command writes only one.
	Section string
	// Rows in the order of their table. It may be empty.
	Rows []Row
	// Tables follow the table of the rows.
	Tables []Table
}

// Table is a table of any figures, such as one whose rows are steps.
type Table struct {
	// Header has the names of the columns, with their units.
	Header []string
	// Rows have a cell for each column, as Markdown.
	Rows [][]string
}

// Row is a figure, measured in turns with its floor: the least that a program could need for such work, on the same machine at the same
// time. The result is the ratio of the two.
type Row struct {
	// Figure is the name of the figure, as Markdown.
	Figure string
	// Unit of the values and of the floor, such as "ns" or "MB".
	Unit string
	// Values of the turns.
	Values []float64
	// Floor is the name of the floor, as Markdown, or "".
	Floor string
	// Floors are the floor's values, one of each turn.
	Floors []float64
	// Bar for the ratio, or, without a floor, for the value.
	Bar Bar
}

// Bar is a limit for a figure. The zero value is none.
type Bar struct{ AtMost, AtLeast float64 }

// Met reports whether the median meets the bar.
func (r *Row) Met() bool {
	judged := Median(r.judged())
	return (r.Bar.AtMost == 0 || judged <= r.Bar.AtMost) && judged >= r.Bar.AtLeast
}

// judged returns the values that the bar applies to.
func (r *Row) judged() []float64 {
	if r.Floor == "" {
		return r.Values
	}
	ratios := make([]float64, len(r.Values))
	for i := range ratios {
		ratios[i] = r.Values[i] / r.Floors[i]
	}
	return ratios
}

// Write prints the report, and replaces the one in the page by it.
func (r *Report) Write(page string) error {
	content := r.String()
	fmt.Println(content)
	old, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	name := r.Command
	if r.Section != "" {
		name += ", " + r.Section
	}
	begin, end := "<!-- begin: "+name+" -->\n", "<!-- end: "+name+" -->"
	before, rest, found := bytes.Cut(old, []byte(begin))
	_, after, ended := bytes.Cut(rest, []byte(end))
	if !found || !ended {
		return fmt.Errorf("%s has no place for the report: it needs the lines %q and %q", page, strings.TrimSpace(begin), end)
	}
	return os.WriteFile(page, slices.Concat(before, []byte(begin+"\n"+content+"\n"+end), after), 0o644)
}

// String returns the report as Markdown.
func (r *Report) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "`%s` on %s, on %s. Medians", r.Command, time.Now().Format(time.DateOnly), machine())
	if len(r.Rows) > 0 {
		text.WriteString("; behind a ratio, the quartiles of the turns.\n\n")
		text.WriteString("| figure | measured | floor | ratio | bar | met |\n|---|---|---|---|---|---|\n")
		for i := range r.Rows {
			r.Rows[i].write(&text)
		}
	} else {
		text.WriteString(".\n")
	}
	for _, table := range r.Tables {
		table.write(&text)
	}
	return text.String()
}

func (t *Table) write(text *strings.Builder) {
	fmt.Fprintf(text, "\n| %s |\n%s|\n", strings.Join(t.Header, " | "), strings.Repeat("|---", len(t.Header)))
	for _, row := range t.Rows {
		fmt.Fprintf(text, "| %s |\n", strings.Join(row, " | "))
	}
}

func (r *Row) write(text *strings.Builder) {
	floor, ratio, bar, met := "-", "-", "-", "-"
	if r.Floor != "" {
		floor = r.Floor + ": " + quantity(Median(r.Floors), r.Unit)
		judged := r.judged()
		ratio = fmt.Sprintf("**%.2f** (%.2f-%.2f)", Median(judged), Quantile(judged, 0.25), Quantile(judged, 0.75))
	}
	if r.Bar != (Bar{}) {
		bar, met = r.bar(), map[bool]string{true: "yes", false: "**no**"}[r.Met()]
	}
	fmt.Fprintf(text, "| %s | %s | %s | %s | %s | %s |\n", r.Figure, quantity(Median(r.Values), r.Unit), floor, ratio, bar, met)
}

func (r *Row) bar() string {
	sign, bound := "<=", r.Bar.AtMost
	if r.Bar.AtLeast != 0 {
		sign, bound = ">=", r.Bar.AtLeast
	}
	text := sign + " " + strconv.FormatFloat(bound, 'g', -1, 64)
	if r.Floor == "" {
		return text + " " + r.Unit
	}
	return text + "x"
}

// Median returns the median.
func Median(values []float64) float64 { return Quantile(values, 0.5) }

// Quantile returns a quantile, and interpolates between the two nearest values.
func Quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	below := int(at)
	above := min(below+1, len(sorted)-1)
	return sorted[below] + (at-float64(below))*(sorted[above]-sorted[below])
}

func quantity(number float64, unit string) string { return Number(number) + " " + unit }

// Number formats a number with at least three digits.
func Number(number float64) string {
	switch {
	case number < 10:
		return strconv.FormatFloat(number, 'f', 2, 64)
	case number < 100:
		return strconv.FormatFloat(number, 'f', 1, 64)
	default:
		return Thousands(int(math.Round(number)))
	}
}

// Thousands formats a number with spaces between thousands.
func Thousands(number int) string {
	text := strconv.Itoa(number)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + " " + text[at:]
	}
	return text
}

// machine describes the machine, as far as the system reports it.
func machine() string {
	facts := []string{fmt.Sprintf("%d cores", runtime.NumCPU()), runtime.GOOS + "/" + runtime.GOARCH, runtime.Version()}
	if model, err := cpuModel(); err == nil {
		facts = slices.Insert(facts, 0, model)
	}
	return strings.Join(facts, ", ")
}

func cpuModel() (string, error) {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(info)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value), nil
		}
	}
	return "", errors.New("/proc/cpuinfo does not name the model")
}
