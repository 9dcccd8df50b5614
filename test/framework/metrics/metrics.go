// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package metrics reads the metrics of a process.
package metrics

import (
	"maps"
	"net/http"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"squirrel.dev/apikey-operator/test/framework"
)

// Families are the metrics of a process at one time, by name.
type Families map[string]*dto.MetricFamily

// Read returns the metrics that a process serves at a URL. It ends the test if the process does not serve them.
func Read(t testing.TB, client *http.Client, url string) Families {
	t.Helper()
	response, err := client.Get(url)
	framework.Must(t, err)
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s", url, response.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	framework.Must(t, err)
	return families
}

// Labels select series of a metric.
type Labels map[string]string

// Sum returns the sum of a counter or a gauge over its series with these labels.
func (f Families) Sum(name string, labels Labels) (sum float64) {
	for _, series := range f.series(name, labels) {
		sum += series.GetCounter().GetValue() + series.GetGauge().GetValue() // one of them is nil
	}
	return sum
}

// Histogram returns the sum and the count of a histogram over its series with these labels.
func (f Families) Histogram(name string, labels Labels) (sum, count float64) {
	for _, series := range f.series(name, labels) {
		sum += series.GetHistogram().GetSampleSum()
		count += float64(series.GetHistogram().GetSampleCount())
	}
	return sum, count
}

func (f Families) series(name string, labels Labels) (selected []*dto.Metric) {
	for _, series := range f[name].GetMetric() {
		have := Labels{}
		for _, label := range series.GetLabel() {
			if _, wanted := labels[label.GetName()]; wanted {
				have[label.GetName()] = label.GetValue()
			}
		}
		if maps.Equal(have, labels) {
			selected = append(selected, series)
		}
	}
	return selected
}
