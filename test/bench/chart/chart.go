// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package chart draws the figures of the benchmarks as lines. A picture depends on nothing but its data, which are in a JSON file next to
// it.
//
// Its pictures have two sets of colors, for light and dark pages. gonum.org/v1/plot, the library for pictures in Go, has only one.
package chart

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Chart is a picture of lines on logarithmic axes. All values must be above 0.
type Chart struct {
	Title string `json:"title"`
	X     string `json:"x"` // with the unit
	Y     string `json:"y"` // with the unit
	Lines []Line `json:"lines"`
}

// Line is a line through points, each an x and a y.
type Line struct {
	Name   string       `json:"name"`
	Points [][2]float64 `json:"points"`
}

// Add adds a point, whose y has three digits, as in the tables.
func (l *Line) Add(x int, y float64) {
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(y, 'g', 3, 64), 64)
	if err != nil {
		panic(err) // no other text is formatted
	}
	l.Points = append(l.Points, [2]float64{float64(x), rounded})
}

// Write writes the data of a chart to FILE.json and the picture to FILE.svg.
func (c *Chart) Write(file string) error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	picture, err := Draw(data)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(file+".json", append(data, '\n'), 0o644), os.WriteFile(file+".svg", []byte(picture), 0o644))
}

// Draw returns the SVG of a chart in JSON. Equal data have equal pictures.
func Draw(data []byte) (string, error) {
	var c Chart
	if err := json.Unmarshal(data, &c); err != nil {
		return "", err
	}
	x, y := newScale(c.Lines, 0, left, width-right), newScale(c.Lines, 1, height-bottom, top)
	var svg strings.Builder
	title := html.EscapeString(c.Title)
	fmt.Fprintf(&svg, head, width, height, title, title, html.EscapeString(c.Y))
	for _, tick := range y.ticks {
		fmt.Fprintf(&svg, "<path class=\"grid\" d=\"M%d %.1fH%d\"/>\n", left, y.at(tick), width-right)
		fmt.Fprintf(&svg, "<text class=\"tick end\" x=\"%d\" y=\"%.1f\">%s</text>\n", left-8, y.at(tick)+4, number(tick))
	}
	fmt.Fprintf(&svg, "<path class=\"axis\" d=\"M%d %dH%d\"/>\n", left, height-bottom, width-right)
	for _, tick := range x.ticks {
		fmt.Fprintf(&svg, "<path class=\"axis\" d=\"M%.1f %dv5\"/>\n", x.at(tick), height-bottom)
		fmt.Fprintf(&svg, "<text class=\"tick middle\" x=\"%.1f\" y=\"%d\">%s</text>\n", x.at(tick), height-bottom+20, number(tick))
	}
	fmt.Fprintf(&svg, "<text class=\"tick middle\" x=\"%d\" y=\"%d\">%s</text>\n", (left+width-right)/2, height-12, html.EscapeString(c.X))
	for i, line := range c.Lines {
		drawLine(&svg, i, line, x, y)
	}
	drawLegend(&svg, c.Lines)
	svg.WriteString("</svg>\n")
	return svg.String(), nil
}

const (
	width, height = 720, 400

	// The margins of the plot.
	left, right, top, bottom = 88, 44, 96, 56

	letterWidth = 7.2 // of the legend's font, on average
)

// head has the colors. Every two lines also differ in their dashes and marks, so that they can be told apart without colors.
const head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s">
<style>
svg { --page: #fcfcfb; --text: #0b0b0b; --muted: #52514e; --grid: #e1e0d9; --line0: #2a78d6; --line1: #eb6834; --line2: #1baf7a; }
@media (prefers-color-scheme: dark) {
  svg { --page: #1a1a19; --text: #ffffff; --muted: #c3c2b7; --grid: #2c2c2a; --line0: #3987e5; --line1: #d95926; --line2: #199e70; }
}
text { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; font-size: 13px; fill: var(--text); }
path { fill: none; stroke-width: 1; }
.title { font-size: 16px; font-weight: 600; }
.tick { fill: var(--muted); font-variant-numeric: tabular-nums; }
.middle { text-anchor: middle; }
.end { text-anchor: end; }
.grid { stroke: var(--grid); }
.axis { stroke: var(--muted); }
.line { stroke-width: 2; stroke-linejoin: round; }
.line0 { stroke: var(--line0); } .line1 { stroke: var(--line1); stroke-dasharray: 7 4; }
.line2 { stroke: var(--line2); stroke-dasharray: 2 4; }
.mark0 { fill: var(--line0); } .mark1 { fill: var(--line1); } .mark2 { fill: var(--line2); }
</style>
<rect width="100%%" height="100%%" fill="var(--page)"/>
<text class="title" x="16" y="26">%s</text>
<text class="tick" x="16" y="76">%s</text>
`

func drawLine(svg *strings.Builder, i int, line Line, x, y scale) {
	path := make([]string, len(line.Points))
	for j, point := range line.Points {
		path[j] = fmt.Sprintf("%.1f %.1f", x.at(point[0]), y.at(point[1]))
		fmt.Fprintf(svg, "<circle class=\"mark%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"><title>%s: %s, %s</title></circle>\n",
			i, x.at(point[0]), y.at(point[1]), html.EscapeString(line.Name), number(point[0]), number(point[1]))
	}
	fmt.Fprintf(svg, "<path class=\"line line%d\" d=\"M%s\"/>\n", i, strings.Join(path, "L"))
}

func drawLegend(svg *strings.Builder, lines []Line) {
	x := 16.0
	for i, line := range lines {
		fmt.Fprintf(svg, "<path class=\"line line%d\" d=\"M%.1f 46h24\"/>", i, x)
		fmt.Fprintf(svg, "<circle class=\"mark%d\" cx=\"%.1f\" cy=\"46\" r=\"3.5\"/>", i, x+12)
		fmt.Fprintf(svg, "<text x=\"%.1f\" y=\"50\">%s</text>\n", x+30, html.EscapeString(line.Name))
		x += 30 + letterWidth*float64(len(line.Name)) + 24
	}
}

// scale places the values of an axis on the picture.
type scale struct {
	ticks    []float64
	from, to float64
}

func (s scale) at(value float64) float64 {
	first, last := s.ticks[0], s.ticks[len(s.ticks)-1]
	return s.from + (s.to-s.from)*math.Log(value/first)/math.Log(last/first)
}

func newScale(lines []Line, coordinate int, from, to float64) scale {
	lowest, highest := math.Inf(1), 0.0
	for _, line := range lines {
		for _, point := range line.Points {
			lowest, highest = min(lowest, point[coordinate]), max(highest, point[coordinate])
		}
	}
	return scale{decades(lowest, highest), from, to}
}

// decades returns the powers of ten that include a range, or also their two- and fivefold if the range is less than three of them.
func decades(lowest, highest float64) []float64 {
	multiples := []float64{1}
	if highest/lowest < 1000 {
		multiples = []float64{1, 2, 5}
	}
	var ticks []float64
	for power := math.Floor(math.Log10(lowest)); ; power++ {
		for _, multiple := range multiples {
			tick, err := strconv.ParseFloat(fmt.Sprintf("%ge%g", multiple, power), 64) // exact, unlike math.Pow
			if err != nil {
				panic(err)
			}
			if tick <= lowest {
				ticks = ticks[:0]
			}
			if ticks = append(ticks, tick); tick >= highest {
				return ticks
			}
		}
	}
}

// number formats a number with three digits, and with spaces between thousands.
func number(value float64) string {
	if value < 100 {
		return strconv.FormatFloat(value, 'g', 3, 64)
	}
	text := strconv.FormatFloat(value, 'f', 0, 64)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "\u00a0" + text[at:]
	}
	return text
}
