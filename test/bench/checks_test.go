// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/bench/report"
	"squirrel.dev/apikey-operator/test/framework"
)

const (
	checkTurns     = 10
	secondsPerTurn = "2" // including the TLS handshakes

	authorization = "envoy.service.auth.v3.Authorization"
)

// load is the result of one turn.
type load struct {
	perSecond float64
	p99       float64   // of latency, in µs
	cpu       []float64 // processor time of each process for a check, in µs
}

// plaintext measures checks over HTTP and gRPC, compared with responses of the same bytes that the same server has made in advance. For
// context, it also measures empty responses, and those of nginx with the same headers.
func plaintext(t *testing.T) report.Report {
	t.Helper()
	s := newServer(t, "", manyKeys)
	address, fixed := startFixedNginx(t, s)
	fixedByNginx := func() load { return saturate(t, "http://"+address, "/", s.known, fixed) }
	http := inTurns(checkTurns, s.checks("/auth/forward/{namespace}", s.known), s.checks("/fixed/granted/{namespace}", s.known),
		s.checks("/auth/envoy/{namespace}/orders", s.unknown), s.checks("/fixed/denied/{namespace}/orders", s.unknown),
		s.checks("/fixed/empty", s.known), fixedByNginx)
	grpc := inTurns(checkTurns, s.checksGRPC(authorization, s.known), s.checksGRPC("fixed.Granted", s.known),
		s.checksGRPC(authorization, s.unknown), s.checksGRPC("fixed.Denied", s.unknown), s.checksGRPC("fixed.Empty", s.known))

	rows := slices.Concat(
		inAdvance.rows("`/auth/forward` granted", http[0], http[1]),
		inAdvance.rows("`/auth/envoy` denied", http[2], http[3]),
		inAdvance.rows("gRPC Check granted", grpc[0], grpc[1]),
		inAdvance.rows("gRPC Check denied", grpc[2], grpc[3]),
		floor{name: "an empty 200 of the same server"}.rows("`/auth/forward` granted", http[0], http[4]),
		floor{name: "nginx, `return 200` with the same headers"}.rows("`/auth/forward` granted", http[0], http[5]),
		floor{name: "an empty OK of the same server"}.rows("gRPC Check granted", grpc[0], grpc[4]),
	)
	return report.Report{Rows: append(rows, newServer(t, "", fewKeys).grantedHTTP(", among 1 000 keys")...)}
}

// withTLS measures checks over TLS, as gateways send them.
func withTLS(t *testing.T) report.Report {
	t.Helper()
	many := newServer(t, t.TempDir(), manyKeys)
	return report.Report{Rows: slices.Concat(
		many.grantedHTTP(", TLS"),
		many.grantedGRPC(", TLS"), // with one key
		newServer(t, t.TempDir(), fewKeys).grantedHTTP(", TLS, among 1 000 keys"),
	)}
}

// grantedHTTP measures granted checks over HTTP, compared with the same bytes that the server has made in advance.
func (s *server) grantedHTTP(suffix string) []report.Row {
	s.t.Helper()
	samples := inTurns(checkTurns, s.checks("/auth/forward/{namespace}", s.known), s.checks("/fixed/granted/{namespace}", s.known))
	return inAdvance.rows("`/auth/forward` granted"+suffix, samples[0], samples[1])
}

// grantedGRPC measures them over gRPC.
func (s *server) grantedGRPC(suffix string) []report.Row {
	s.t.Helper()
	samples := inTurns(checkTurns, s.checksGRPC(authorization, s.known), s.checksGRPC("fixed.Granted", s.known))
	return inAdvance.rows("gRPC Check granted"+suffix, samples[0], samples[1])
}

// changes measures checks while keys change.
func changes(t *testing.T) report.Report {
	t.Helper()
	s := newServer(t, "", manyKeys)
	check := func(changesPerSecond int) func() load {
		send := s.checks("/auth/forward/{namespace}", s.known)
		return func() load {
			s.operate(fmt.Sprint("/changes?per-second=", changesPerSecond))
			return send()
		}
	}
	samples := inTurns(checkTurns, check(0), check(1_000))
	const figure = "`/auth/forward` granted, while 1 000 of 100 000 keys change per second"
	atRest := floor{name: "at rest", throughput: report.Bar{AtLeast: 0.9}}
	return report.Report{Rows: atRest.rows(figure, samples[1], samples[0])}
}

// floor is what checks are compared with.
type floor struct {
	name            string
	throughput, cpu report.Bar
}

var inAdvance = floor{
	name: "the same bytes, made in advance", throughput: report.Bar{AtLeast: 0.95}, cpu: report.Bar{AtMost: 1.1},
}

// rows returns the rows of the figures that both have.
func (f floor) rows(figure string, samples, floors []load) []report.Row {
	row := func(suffix, unit string, of func(load) float64, bar report.Bar) report.Row {
		return report.Row{Figure: figure + suffix, Unit: unit, Values: each(samples, of), Floor: f.name, Floors: each(floors, of), Bar: bar}
	}
	rows := []report.Row{
		row("", "/s", func(l load) float64 { return l.perSecond }, f.throughput),
		row(": processor time", "µs", func(l load) float64 { return l.cpu[0] }, f.cpu),
	}
	if samples[0].p99 != 0 {
		rows = append(rows, row(": p99 at saturation", "µs", func(l load) float64 { return l.p99 }, report.Bar{}))
	}
	return rows
}

// checks returns a function that sends checks over HTTP for a turn.
func (s *server) checks(path, keysFile string) func() load {
	return func() load { return saturate(s.t, s.scheme+"://"+s.address, path, keysFile, s.Process) }
}

// checksGRPC returns a function that sends checks over gRPC for a turn.
func (s *server) checksGRPC(service, keysFile string) func() load {
	s.t.Helper()
	file := writeCheck(s.t, keysFile)
	return func() load { return s.checkGRPC(service, file) }
}

// saturate sends checks over HTTP for a turn, on 32 connections, with wrk. All checks with known keys must get 200, and all others 401. The
// processes are those whose processor time is measured.
func saturate(t *testing.T, url, path, keysFile string, processes ...*process.Process) load {
	t.Helper()
	allDenied := filepath.Base(keysFile) == "unknown"
	header, value := "X-Forwarded-Method", "GET"
	if allDenied { // /auth/envoy rejects X-Forwarded-Method: a header of the same length
		header, value = "X-Forwarded-Prefix", "/as"
	}
	used := stopwatch(t, processes...)
	output := run(t, "wrk", "--threads=1", "--connections=32", "--duration="+secondsPerTurn+"s",
		"--script="+inRepository(t, "test", "bench", "testdata", "check.lua"), url, "--", path, keysFile, header, value)
	cpu := used()

	figures := numbers(t, wrkFigures, output)
	responses, duration, p99, denied, failed := figures[0], figures[1], figures[2], figures[3], figures[4]
	if responses == 0 || failed > 0 || allDenied != (denied == responses) || !allDenied && denied > 0 {
		t.Fatalf("of %.0f checks at %s, %.0f are denied, and %.0f fail:\n%s", responses, path, denied, failed, output)
	}
	return load{perSecond: responses / duration * 1e6, p99: p99, cpu: perRequest(cpu, responses)}
}

// checkGRPC sends checks over gRPC for a turn, 32 at once over two connections, as two threads of Envoy do, with h2load.
func (s *server) checkGRPC(service, file string) load {
	s.t.Helper()
	used := stopwatch(s.t, s.Process)
	output := run(s.t, "h2load", "--threads=1", "--clients=2", "--max-concurrent-streams=16", "--duration="+secondsPerTurn, "--data="+file,
		"--header=content-type: application/grpc", "--header=te: trailers", s.scheme+"://"+s.grpcAddress+"/"+service+"/Check")
	cpu := used()

	figures := numbers(s.t, h2loadFigures, output)
	perSecond, responses, failed := figures[0], figures[1], figures[2]
	if responses == 0 || failed > 0 {
		s.t.Fatalf("%.0f checks succeed, and %.0f fail:\n%s", responses, failed, output)
	}
	return load{perSecond: perSecond, cpu: perRequest(cpu, responses)}
}

var (
	wrkFigures    = regexp.MustCompile(`(?m)^(\d+)\t(\d+)\t(\d+)\t(\d+)\t(\d+)$`)
	h2loadFigures = regexp.MustCompile(`(?s)finished in \S+, ([\d.]+) req/s.*\nrequests: .* (\d+) succeeded, (\d+) failed`)
)

// numbers returns the numbers that a pattern matches.
func numbers(t *testing.T, pattern *regexp.Regexp, output string) []float64 {
	t.Helper()
	found := pattern.FindStringSubmatch(output)
	if found == nil {
		t.Fatalf("the output has no figures:\n%s", output)
	}
	numbers := make([]float64, len(found)-1)
	for i, text := range found[1:] {
		var err error
		numbers[i], err = strconv.ParseFloat(text, 64)
		framework.Must(t, err)
	}
	return numbers
}

// writeCheck writes the gRPC message of [checkWith] to a file.
func writeCheck(t *testing.T, keysFile string) string {
	t.Helper()
	message, err := proto.Marshal(checkWith(t, keysFile))
	framework.Must(t, err)
	file := filepath.Join(t.TempDir(), "check")
	framed := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))) // not compressed
	framework.Must(t, os.WriteFile(file, append(framed, message...), 0o600))
	return file
}

// checkWith returns the check for a request with the headers of a browser and the first of these keys.
func checkWith(t *testing.T, keysFile string) *authv3.CheckRequest {
	t.Helper()
	content, err := os.ReadFile(keysFile)
	framework.Must(t, err)
	firstKey, _, _ := strings.Cut(string(content), "\n")
	namespace, token, _ := strings.Cut(firstKey, " ")
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		ContextExtensions: map[string]string{"namespace": namespace},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Id: "12345678901234567890", Method: "GET", Path: "/orders?limit=20", Host: "shop.example", Scheme: "https", Protocol: "HTTP/2",
			Headers: map[string]string{
				":authority": "shop.example", ":method": "GET", ":path": "/orders?limit=20", ":scheme": "https",
				"x-api-key": token, "x-forwarded-proto": "https", "x-forwarded-for": "192.0.2.1", "x-envoy-internal": "true",
				"x-request-id": "2f9b1c1e-6b1a-4a4e-8f0e-0d8f6a8c7b11",
				"user-agent":   "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0",
				"accept":       "application/json, text/plain, */*", "accept-language": "en-US,en;q=0.5", "accept-encoding": "gzip, deflate, br",
				"referer": "https://shop.example/", "origin": "https://shop.example", "cookie": "session=6c5b2f0f7f0f4b0e8b5a",
				"sec-fetch-dest": "empty", "sec-fetch-mode": "cors", "sec-fetch-site": "same-origin",
			},
		}},
	}}
}
