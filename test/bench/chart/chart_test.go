// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"squirrel.dev/apikey-operator/test/bench/chart"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
)

func TestPicturesInDocs_AreDrawnFromTheirData(t *testing.T) {
	files, err := filepath.Glob("../../../docs/benchmarks/*.json")
	framework.Must(t, err)
	pictures, err := filepath.Glob("../../../docs/benchmarks/*.svg")
	framework.Must(t, err)
	if len(files) != len(pictures) {
		t.Errorf("there are %d pictures of %d files of data", len(pictures), len(files))
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		framework.Must(t, err)
		picture, err := chart.Draw(data)
		framework.Must(t, err)
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		docsnippets.ExpectGenerated(t, "docs/benchmarks/"+name+".svg", picture, name+".json", "go test ./test/bench/chart -update")
	}
}

func TestWrite_KeepsTheDataOfThePicture(t *testing.T) {
	c := chart.Chart{
		Title: "Time & memory", X: "keys", Y: "ns",
		Lines: []chart.Line{{Name: "a < b", Points: [][2]float64{{1, 150}, {1000, 234.5}, {1e6, 1061}}}},
	}
	file := filepath.Join(t.TempDir(), "benchmarks", "time")
	framework.Must(t, c.Write(file))
	data, err := os.ReadFile(file + ".json")
	framework.Must(t, err)
	written, err := os.ReadFile(file + ".svg")
	framework.Must(t, err)
	drawn, err := chart.Draw(data)
	framework.Must(t, err)
	if diff := cmp.Diff(drawn, string(written)); diff != "" {
		t.Errorf("the same data have another picture (-want +got):\n%s", diff)
	}
}

func TestDraw_LabelsTheAxesAndTheLines(t *testing.T) {
	picture, err := chart.Draw([]byte(`{"title": "T & M", "x": "keys", "y": "ns",
		"lines": [{"name": "a < b", "points": [[1, 150], [1000000, 1061]]}, {"name": "c", "points": [[1, 120]]}]}`))
	framework.Must(t, err)
	want := []string{
		"T & M", "ns",
		"100", "200", "500", "1\u00a0000", "2\u00a0000",
		"1", "10", "100", "1\u00a0000", "10\u00a0000", "100\u00a0000", "1\u00a0000\u00a0000", "keys",
		"a < b", "c",
	}
	if diff := cmp.Diff(want, texts(t, picture)); diff != "" {
		t.Errorf("the texts of the picture (-want +got):\n%s", diff)
	}
}

func TestDraw_RejectsWhatIsNoChart(t *testing.T) {
	_, err := chart.Draw([]byte(`{"lines": 1}`))
	if want := "json: cannot unmarshal number into Go struct field Chart.lines of type []chart.Line"; err == nil || err.Error() != want {
		t.Errorf("the error is %v, want %s", err, want)
	}
}

// texts returns the contents of the text elements of an SVG, in their order.
func texts(t *testing.T, picture string) []string {
	t.Helper()
	var found, path []string
	for decoder := xml.NewDecoder(strings.NewReader(picture)); ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return found
		}
		framework.Must(t, err)
		switch token := token.(type) {
		case xml.StartElement:
			path = append(path, token.Name.Local)
		case xml.EndElement:
			path = path[:len(path)-1]
		case xml.CharData:
			if slices.Contains(path, "text") {
				found = append(found, string(token))
			}
		}
	}
}
