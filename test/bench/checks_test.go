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
	"strconv"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"squirrel.dev/apikey-operator/test/bench/report"
	"squirrel.dev/apikey-operator/test/framework"
)

const (
	checkTurns     = 12
	secondsPerTurn = "2" // including the TLS handshakes

	authorization = "envoy.service.auth.v3.Authorization"
)

// load is the result of one turn.
type load struct {
	perSecond float64
	p99       float64 // of latency, in µs
	cpu       float64 // processor time of the server for each check, in µs
}

func plaintext(t *testing.T) []report.Row {
	t.Helper()
	return checks(t, newServer(t, ""), "")
}

func withTLS(t *testing.T) []report.Row {
	t.Helper()
	return checks(t, newServer(t, t.TempDir()), ", TLS")
}

// checks measures checks over kept connections, and handlers of the same servers that only return 200 or OK.
func checks(t *testing.T, s *server, with string) []report.Row {
	t.Helper()
	check := func(path, keysFile string) func() load {
		return func() load { return s.check(s.scheme+"://"+s.address, path, keysFile) }
	}
	http := inTurns(checkTurns, check("/floor", s.known), check("/floor/same-size", s.known),
		check("/auth/forward/{namespace}", s.known), check("/auth/envoy/{namespace}/orders", s.unknown))
	checkGRPC := func(service, keysFile string) func() load {
		file := writeCheck(t, keysFile)
		return func() load { return s.checkGRPC(service, file) }
	}
	grpc := inTurns(checkTurns, checkGRPC("floor.Authorization", s.known), checkGRPC(authorization, s.known), checkGRPC(authorization, s.unknown))

	only200, onlyOK := comparison{"only 200", http[0]}, comparison{"only OK", grpc[0]}
	forward, envoy := "`/auth/forward` granted"+with, "`/auth/envoy` denied"+with
	granted, denied, sameSize := "gRPC Check granted"+with, "gRPC Check denied"+with, "a fixed response of the size of a granted one"+with
	return []report.Row{
		only200.throughput(forward, http[2], 0.9), only200.p99(forward, http[2], 1.2), only200.cpu(forward, http[2]),
		only200.throughput(envoy, http[3], 0.9), only200.p99(envoy, http[3], 1.2), only200.cpu(envoy, http[3]),
		only200.throughput(sameSize, http[1], 0), only200.cpu(sameSize, http[1]),
		onlyOK.throughput(granted, grpc[1], 0.9), onlyOK.cpu(granted, grpc[1]),
		onlyOK.throughput(denied, grpc[2], 0.9), onlyOK.cpu(denied, grpc[2]),
	}
}

// changes measures checks while keys change.
func changes(t *testing.T) []report.Row {
	t.Helper()
	s := newServer(t, "")
	check := func(changesPerSecond int) func() load {
		return func() load {
			s.operate(fmt.Sprint("/changes?per-second=", changesPerSecond))
			return s.check("http://"+s.address, "/auth/forward/{namespace}", s.known)
		}
	}
	samples := inTurns(checkTurns, check(0), check(1_000))
	const figure = "`/auth/forward` granted, while 1 000 of 100 000 keys change per second"
	atRest := comparison{"at rest", samples[0]}
	return []report.Row{atRest.throughput(figure, samples[1], 0.9), atRest.p99(figure, samples[1], 0)}
}

// comparison compares samples with a floor.
type comparison struct {
	floor  string
	floors []load
}

func (c comparison) throughput(figure string, samples []load, atLeast float64) report.Row {
	return c.row(figure, "/s", samples, func(l load) float64 { return l.perSecond }, report.Bar{AtLeast: atLeast})
}

func (c comparison) p99(figure string, samples []load, atMost float64) report.Row {
	return c.row(figure+": p99", "µs", samples, func(l load) float64 { return l.p99 }, report.Bar{AtMost: atMost})
}

func (c comparison) cpu(figure string, samples []load) report.Row {
	return c.row(figure+": processor time", "µs", samples, func(l load) float64 { return l.cpu }, report.Bar{})
}

func (c comparison) row(figure, unit string, samples []load, of func(load) float64, bar report.Bar) report.Row {
	return report.Row{Figure: figure, Unit: unit, Values: each(samples, of), Floor: c.floor, Floors: each(c.floors, of), Bar: bar}
}

// check sends checks over HTTP for a turn, on 32 connections, with wrk. All checks with known keys must get 200, and all others 401.
func (s *server) check(url, path, keysFile string) load {
	s.t.Helper()
	header, value := "X-Forwarded-Method", "GET"
	if keysFile == s.unknown { // /auth/envoy rejects X-Forwarded-Method: a header of the same length
		header, value = "X-Forwarded-Prefix", "/as"
	}
	before := s.cpu()
	output := run(s.t, "wrk", "--threads=1", "--connections=32", "--duration="+secondsPerTurn+"s",
		"--script="+inRepository(s.t, "test", "bench", "testdata", "check.lua"), url, "--", path, keysFile, header, value)
	used := s.cpu() - before

	figures := numbers(s.t, wrkFigures, output)
	responses, duration, p99, denied, failed := figures[0], figures[1], figures[2], figures[3], figures[4]
	if allDenied := keysFile == s.unknown; responses == 0 || failed > 0 || allDenied != (denied == responses) || !allDenied && denied > 0 {
		s.t.Fatalf("of %.0f checks at %s, %.0f are denied, and %.0f fail:\n%s", responses, path, denied, failed, output)
	}
	return load{perSecond: responses / duration * 1e6, p99: p99, cpu: used / responses}
}

// checkGRPC sends checks over gRPC for a turn, 32 at once over two connections, as two threads of Envoy do, with h2load.
func (s *server) checkGRPC(service, file string) load {
	s.t.Helper()
	before := s.cpu()
	output := run(s.t, "h2load", "--threads=1", "--clients=2", "--max-concurrent-streams=16", "--duration="+secondsPerTurn, "--data="+file,
		"--header=content-type: application/grpc", "--header=te: trailers", s.scheme+"://"+s.grpcAddress+"/"+service+"/Check")
	used := s.cpu() - before

	figures := numbers(s.t, h2loadFigures, output)
	perSecond, responses, failed := figures[0], figures[1], figures[2]
	if responses == 0 || failed > 0 {
		s.t.Fatalf("%.0f checks succeed, and %.0f fail:\n%s", responses, failed, output)
	}
	return load{perSecond: perSecond, cpu: used / responses}
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

// writeCheck writes a gRPC message to a file: the check for a request with the headers of a browser and the first of these keys.
func writeCheck(t *testing.T, keysFile string) string {
	t.Helper()
	content, err := os.ReadFile(keysFile)
	framework.Must(t, err)
	firstKey, _, _ := strings.Cut(string(content), "\n")
	namespace, token, _ := strings.Cut(firstKey, " ")
	message, err := proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{
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
	}})
	framework.Must(t, err)
	file := filepath.Join(t.TempDir(), "check")
	framed := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))) // not compressed
	framework.Must(t, os.WriteFile(file, append(framed, message...), 0o600))
	return file
}
