// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench_test

import (
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/bench/chart"
	"squirrel.dev/apikey-operator/test/bench/report"
	"squirrel.dev/apikey-operator/test/framework"
)

const (
	latencyTurns = 5
	curveTurns   = 3

	fixedRate = 1_000 // per second

	// maxInFlight is the number of requests that wait for their responses at the same time, as wrk's connections do. A request that waits
	// for another one is sent late, which its latency includes.
	maxInFlight = 32
)

// latencies measures the latency of checks at a fixed rate, and at rising rates.
func latencies(t *testing.T) report.Report {
	t.Helper()
	s := newServer(t, "", manyKeys)
	send := func(sent openLoop) func() latency { return func() latency { return sent.at(t, fixedRate, 4) } }
	http := inTurns(latencyTurns, send(s.openLoop("/auth/forward/{namespace}")), send(s.openLoop("/fixed/granted/{namespace}")))
	grpc := inTurns(latencyTurns, send(s.openLoopGRPC(authorization)), send(s.openLoopGRPC("fixed.Granted")))
	return report.Report{
		Rows:   slices.Concat(latencyRows("`/auth/forward` granted", http[0], http[1]), latencyRows("gRPC Check granted", grpc[0], grpc[1])),
		Tables: []report.Table{s.latencyOverRate(t)},
	}
}

func latencyRows(figure string, samples, floors []latency) []report.Row {
	row := func(suffix string, of func(latency) float64) report.Row {
		return report.Row{
			Figure: figure + ", at 1 000 /s: " + suffix, Unit: "µs", Values: each(samples, of), Floor: inAdvance.name, Floors: each(floors, of),
		}
	}
	return []report.Row{
		row("p50", func(l latency) float64 { return l.p50 }),
		row("p99", func(l latency) float64 { return l.p99 }),
		row("p99.9", func(l latency) float64 { return l.p999 }),
	}
}

// latencyOverRate measures checks over HTTP at rising rates, up to the first one that is not reached. It draws the curve.
func (s *server) latencyOverRate(t *testing.T) report.Table {
	t.Helper()
	checks := s.openLoop("/auth/forward/{namespace}")
	table := report.Table{Header: []string{"checks per second", "reached", "p50, µs", "p99, µs", "p99.9, µs", "processors that the server uses, of 2"}}
	p50, p99, p999 := chart.Line{Name: "p50"}, chart.Line{Name: "p99"}, chart.Line{Name: "p99.9"}
	for _, rate := range []int{500, 1_000, 2_000, 4_000, 6_000, 8_000, 10_000, 12_000, 14_000, 16_000, 20_000, 24_000, 28_000, 32_000} {
		measured := inTurns(curveTurns, func() latency { return checks.at(t, rate, 2) })[0]
		median := func(of func(latency) float64) float64 { return report.Median(each(measured, of)) }
		at50, at99, at999 := median(func(l latency) float64 { return l.p50 }), median(func(l latency) float64 { return l.p99 }),
			median(func(l latency) float64 { return l.p999 })
		reached := median(func(l latency) float64 { return l.perSecond })
		table.Rows = append(table.Rows, []string{
			report.Thousands(rate), report.Number(reached), report.Number(at50), report.Number(at99), report.Number(at999),
			report.Number(median(func(l latency) float64 { return l.processors })),
		})
		p50.Add(rate, at50)
		p99.Add(rate, at99)
		p999.Add(rate, at999)
		if reached < 0.97*float64(rate) {
			break
		}
	}
	writeChart(t, "latency", &chart.Chart{
		Title: "Latency of a check over HTTP over the request rate", X: "checks per second", Y: "µs", Lines: []chart.Line{p999, p99, p50},
	})
	return table
}

// openLoop are requests that are sent at a fixed rate, whether or not responses arrive.
type openLoop struct {
	process *process.Process // whose processor time is measured
	targets []vegeta.Target
	options []func(*vegeta.Attacker)
}

// openLoop returns checks over HTTP with the known keys. The path may contain {namespace}.
func (s *server) openLoop(path string) openLoop {
	s.t.Helper()
	return openLoop{process: s.Process, targets: targetsOf(s.t, s.scheme+"://"+s.address+path, s.known)}
}

// targetsOf returns requests with the keys of a file, one after the other. The URL may contain {namespace}.
func targetsOf(t *testing.T, url, keysFile string) []vegeta.Target {
	t.Helper()
	content, err := os.ReadFile(keysFile)
	framework.Must(t, err)
	var targets []vegeta.Target
	for line := range strings.Lines(string(content)) {
		namespace, token, _ := strings.Cut(strings.TrimSpace(line), " ")
		targets = append(targets, vegeta.Target{
			Method: http.MethodGet, URL: strings.ReplaceAll(url, "{namespace}", namespace),
			Header: http.Header{"X-Api-Key": {token}, "X-Forwarded-Method": {http.MethodGet}},
		})
	}
	return targets
}

// openLoopGRPC returns checks over gRPC, which are HTTP/2 requests for the load generator.
func (s *server) openLoopGRPC(service string) openLoop {
	s.t.Helper()
	message, err := os.ReadFile(writeCheck(s.t, s.known))
	framework.Must(s.t, err)
	return openLoop{process: s.Process, options: []func(*vegeta.Attacker){vegeta.H2C(true)}, targets: []vegeta.Target{{
		Method: http.MethodPost, URL: "http://" + s.grpcAddress + "/" + service + "/Check", Body: message,
		Header: http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}},
	}}}
}

// latency is the result of a turn at a fixed rate.
type latency struct {
	p50, p99, p999 float64 // in µs
	perSecond      float64 // responses
	processors     float64 // that the server used, on average
}

// at sends the requests at a rate for some seconds, or for longer if the rate is not reached. The latency of a request counts from the time
// at which it should have been sent. All must get 200.
func (o openLoop) at(t *testing.T, perSecond, seconds int) latency {
	t.Helper()
	attacker := vegeta.NewAttacker(append([]func(*vegeta.Attacker){vegeta.Workers(maxInFlight), vegeta.MaxWorkers(maxInFlight)}, o.options...)...)
	pacer := &exactly{ConstantPacer: vegeta.ConstantPacer{Freq: perSecond, Per: time.Second}, hits: uint64(perSecond * seconds)}
	interval := time.Second / time.Duration(perSecond)
	var results []*vegeta.Result
	used := stopwatch(t, o.process)
	for result := range attacker.Attack(vegeta.NewStaticTargeter(o.targets...), pacer, 0, "") {
		if result.Error != "" || result.Headers.Get("Grpc-Status") != "" {
			t.Fatalf("the response to %s is %d %v: %s", result.URL, result.Code, result.Headers, result.Error)
		}
		results = append(results, result)
	}
	processorTime := used()[0]

	last := pacer.began
	latencies := make([]float64, len(results))
	for i, result := range results {
		due := pacer.began.Add(time.Duration(result.Seq+1) * interval)
		latencies[i] = float64(result.End().Sub(due).Nanoseconds()) / 1000
		if result.End().After(last) {
			last = result.End()
		}
	}
	took := last.Sub(pacer.began)
	measured := latency{
		p50: report.Quantile(latencies, 0.5), p99: report.Quantile(latencies, 0.99), p999: report.Quantile(latencies, 0.999),
		perSecond: float64(len(results)) / took.Seconds(), processors: processorTime / float64(took.Microseconds()),
	}
	t.Logf("%d requests at %d per second: %+v", len(results), perSecond, measured)
	return measured
}

// exactly is a constant rate for a number of requests, however long they take.
type exactly struct {
	vegeta.ConstantPacer
	hits  uint64
	began time.Time
}

// Pace implements vegeta.Pacer.
func (e *exactly) Pace(elapsed time.Duration, hits uint64) (wait time.Duration, stop bool) {
	if e.began.IsZero() {
		e.began = time.Now().Add(-elapsed)
	}
	if hits == e.hits {
		return 0, true
	}
	return e.ConstantPacer.Pace(elapsed, hits)
}
