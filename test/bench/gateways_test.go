// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/bench/report"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
	"squirrel.dev/apikey-operator/test/framework/proxies"
)

const (
	ladderTurns = 5

	gatewayNamespace = "namespace-0"
)

// ladderKeys are the numbers of keys of the steps that check keys.
var ladderKeys = []int{1, 100, 100_000}

// TestGateways measures requests to a service: alone, behind gateways, and behind gateways that check keys.
func TestGateways(t *testing.T) {
	l := newLadder(t)
	l.add(rung{name: "service alone", address: l.service.Address})
	nginx := l.addGateway("nginx", proxies.StartNginx, "auth_request")
	caddy := l.addGateway("Caddy", proxies.StartCaddy, "forward_auth")
	haproxy := l.addGateway("HAProxy", proxies.StartHAProxy, "the Lua action")
	for _, count := range ladderKeys {
		l.addStaticMap(count)
	}
	samples := l.measure()
	writeSection(t, "make bench-gateways", "ladder", report.Report{
		Rows: slices.Concat(nginx.rows(samples), caddy.rows(samples), haproxy.rows(samples)), Tables: []report.Table{l.table(samples)},
	})
}

// ladder are the steps that are measured.
type ladder struct {
	t       *testing.T
	service proxies.Proxy
	// authenticators by the number of their keys, and the file of the certificate of each.
	authenticators map[int]*server
	caFiles        map[int]string
	rungs          []rung
}

// rung is a step of the ladder.
type rung struct {
	name                   string
	keys                   int // 0 if it checks none
	address                string
	gateway, authenticator *process.Process // nil if it has none
	keysFile               string           // of the requests
}

func newLadder(t *testing.T) *ladder {
	t.Helper()
	address := binaries.FreeAddress(t)
	l := &ladder{t: t, authenticators: map[int]*server{}, caFiles: map[int]string{}}
	l.service = proxies.RunNginx(t, address, fmt.Sprintf("server {\n  listen %s;\n  location / { return 200; }\n}\n", address))
	for _, count := range ladderKeys {
		dir := t.TempDir()
		l.authenticators[count] = newServer(t, dir, population{keys: count, namespaces: 1})
		l.caFiles[count] = filepath.Join(dir, "cert.pem")
	}
	return l
}

// add adds a step. Its requests have keys of the authenticator with the most, unless it names others.
func (l *ladder) add(r rung) int {
	if r.keysFile == "" {
		r.keysFile = l.authenticators[ladderKeys[len(ladderKeys)-1]].known
	}
	l.rungs = append(l.rungs, r)
	return len(l.rungs) - 1
}

// checking are the numbers of two steps: a gateway without a check, and with checks among most keys.
type checking struct {
	name     string
	open, on int
}

// addGateway adds the steps of a gateway with the configuration of its page: without the check, and with the check among each number of keys.
func (l *ladder) addGateway(name string, start func(testing.TB, proxies.Settings) proxies.Proxy, check string) checking {
	l.t.Helper()
	most := ladderKeys[len(ladderKeys)-1]
	open := start(l.t, l.settings(most, func(configuration string) string { return withoutCheck(l.t, configuration) }))
	added := checking{name: name + " with " + check, open: l.add(rung{name: "+ " + name, address: open.Address, gateway: open.Process})}
	for _, count := range ladderKeys {
		started := start(l.t, l.settings(count, nil))
		added.on = l.add(rung{
			name: "+ " + added.name, keys: count, address: started.Address, gateway: started.Process,
			authenticator: l.authenticators[count].Process, keysFile: l.authenticators[count].known,
		})
	}
	return added
}

func (l *ladder) settings(count int, edit func(string) string) proxies.Settings {
	return proxies.Settings{
		Namespace: gatewayNamespace, Authenticator: l.authenticators[count].address, CAFile: l.caFiles[count], Service: l.service.Address, Edit: edit,
	}
}

// withoutCheck turns the lines of a configuration into comments that send and require a check.
func withoutCheck(t *testing.T, configuration string) string {
	t.Helper()
	var edited strings.Builder
	inBlock := false
	commented := 0
	for line := range strings.Lines(configuration) {
		indent := len(line) - len(strings.TrimLeft(line, "\t "))
		statement := line[indent:]
		if strings.HasPrefix(statement, "forward_auth ") {
			inBlock = true
		}
		if inBlock || strings.HasPrefix(statement, "auth_request ") || strings.HasPrefix(statement, "http-request lua.check-apikey ") ||
			strings.HasPrefix(statement, "http-request deny deny_status 503 ") {
			edited.WriteString("# ")
			commented++
		}
		if inBlock && line == "\t\t}\n" {
			inBlock = false
		}
		edited.WriteString(line)
	}
	if commented == 0 {
		t.Fatalf("the configuration sends no check:\n%s", configuration)
	}
	return edited.String()
}

// addStaticMap adds the step of nginx with all keys in its configuration.
func (l *ladder) addStaticMap(count int) {
	l.t.Helper()
	var static strings.Builder
	static.WriteString("map_hash_max_size 262144;\nmap_hash_bucket_size 128;\nmap $http_x_api_key $static_app {\n  default '';\n")
	for _, token := range l.authenticators[count].tokens() {
		fmt.Fprintf(&static, "  %s 'Backend%%20App';\n", token)
	}
	static.WriteString("}\n")
	started := proxies.StartNginx(l.t, l.settings(count, func(configuration string) string {
		return static.String() + docsnippets.Replace(l.t, configuration, map[string]string{
			"auth_request /.apikey;":                         "if ($static_app = '') { return 401; }",
			"proxy_set_header X-Auth-App       $apikey_app;": "proxy_set_header X-Auth-App $static_app;",
		})
	}))
	l.add(rung{
		name: "+ nginx with a `map` of all keys", keys: count, address: started.Address, gateway: started.Process,
		keysFile: l.authenticators[count].known,
	})
}

// climbed is the result of a turn of a step.
type climbed struct {
	load
	latency
}

// of the processor times of a load
const (
	ofService = iota
	ofGateway
	ofAuthenticator
)

// measure measures each step in turns.
func (l *ladder) measure() [][]climbed {
	l.t.Helper()
	measures := make([]func() climbed, len(l.rungs))
	for i := range l.rungs {
		r := &l.rungs[i]
		processes := []*process.Process{l.service.Process}
		for _, p := range []*process.Process{r.gateway, r.authenticator} {
			if p != nil {
				processes = append(processes, p)
			}
		}
		saturated := func() load { return saturate(l.t, "http://"+r.address, "/orders", r.keysFile, processes...) }
		fixed := openLoop{process: l.service.Process, targets: targetsOf(l.t, "http://"+r.address+"/orders", r.keysFile)}
		measures[i] = climb(l.t, saturated, fixed)
	}
	return inTurns(ladderTurns, measures...)
}

// climb returns a function that measures a turn: requests at saturation, then at a fixed rate.
func climb(t *testing.T, saturated func() load, fixed openLoop) func() climbed {
	t.Helper()
	return func() climbed { return climbed{load: saturated(), latency: fixed.at(t, fixedRate, 2)} }
}

// rows compares a gateway that checks keys with itself without a check.
func (c checking) rows(samples [][]climbed) []report.Row {
	row := func(suffix, unit string, of func(climbed) float64) report.Row {
		return report.Row{
			Figure: c.name + ", 100 000 keys" + suffix, Unit: unit, Values: each(samples[c.on], of),
			Floor: "without the check", Floors: each(samples[c.open], of),
		}
	}
	return []report.Row{
		row("", "/s", func(s climbed) float64 { return s.load.perSecond }),
		row(": p50 at 1 000 /s", "µs", func(s climbed) float64 { return s.latency.p50 }),
		row(": p99 at 1 000 /s", "µs", func(s climbed) float64 { return s.latency.p99 }),
		row(": processor time of all processes", "µs", func(s climbed) float64 {
			sum := 0.0
			for _, used := range s.cpu {
				sum += used
			}
			return sum
		}),
	}
}

// table has a row for each step.
func (l *ladder) table(samples [][]climbed) report.Table {
	table := report.Table{Header: []string{
		"step", "keys", "requests per second", "p50 at 1 000 /s, µs", "p99, µs", "processor time for a request: gateway, µs", "authenticator, µs", "service, µs",
	}}
	for i, r := range l.rungs {
		cpu := func(number int) string {
			if number >= len(samples[i][0].cpu) {
				return "-"
			}
			return medianOf(samples[i], func(s climbed) float64 { return s.cpu[number] })
		}
		keys := "-"
		if r.keys > 0 {
			keys = report.Thousands(r.keys)
		}
		table.Rows = append(table.Rows, []string{
			r.name, keys, medianOf(samples[i], func(s climbed) float64 { return s.load.perSecond }), medianOf(samples[i], func(s climbed) float64 { return s.p50 }),
			medianOf(samples[i], func(s climbed) float64 { return s.latency.p99 }), cpu(ofGateway), cpu(ofAuthenticator), cpu(ofService),
		})
	}
	return table
}

// medianOf returns the median of a figure of the samples, as text.
func medianOf(samples []climbed, of func(climbed) float64) string {
	return report.Number(report.Median(each(samples, of)))
}
