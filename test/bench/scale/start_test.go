// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build bench

package scale_test

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"squirrel.dev/apikey-operator/test/bench/chart"
	"squirrel.dev/apikey-operator/test/bench/report"
	"squirrel.dev/apikey-operator/test/framework"
)

// grow stores more and more keys, up to count, and draws how long an authenticator starts over their number, compared with curl.
func (p *population) grow(count int) {
	p.t.Helper()
	start, list := chart.Line{Name: "start of an authenticator"}, chart.Line{Name: "curl listing the keys"}
	for _, fraction := range []int{1000, 100, 10, 1} {
		size := max(count/fraction, 1)
		p.fill(size)
		curl := p.curl()
		curl() // the first list reads from etcd
		var synced, listed []float64
		for range *turns {
			listed = append(listed, curl())
			authenticator, seconds := p.timeStart()
			authenticator.Kill()
			synced = append(synced, seconds)
		}
		start.Add(size, report.Median(synced))
		list.Add(size, report.Median(listed))
	}
	drawn := chart.Chart{Title: "Start of an authenticator over the number of keys", X: "keys", Y: "s", Lines: []chart.Line{start, list}}
	framework.Must(p.t, drawn.Write(inRepository(p.t, "docs", "benchmarks", "start-time")))
}

// timeStart starts an authenticator, and returns the seconds until it was ready.
func (p *population) timeStart() (*daemon, float64) {
	p.t.Helper()
	started := time.Now()
	authenticator, _ := p.startAuthenticator()
	return authenticator, time.Since(started).Seconds()
}

// starts measures the time of an authenticator from its start until it is ready, compared with curl, and its memory.
func starts(t *testing.T, p *population) []report.Row {
	t.Helper()
	var synced, listed, peak, atRest, heap []float64
	list := p.curl()
	for range *turns {
		listed = append(listed, list())
		authenticator, seconds := p.timeStart()
		synced = append(synced, seconds)
		memory := authenticator.atRest()
		peak, atRest = append(peak, memory.peak), append(atRest, memory.now)
		heap = append(heap, authenticator.Metric("go_memstats_heap_alloc_bytes")/megabyte)
		authenticator.Kill()
		t.Logf("listed in %.2f s, synced in %.2f s, %+v, heap %.0f MB", listed[len(listed)-1], synced[len(synced)-1], memory, heap[len(heap)-1])
	}
	at := fmt.Sprintf(" at %s keys", report.Thousands(len(p.issued)))
	return []report.Row{
		{
			Figure: "start of an authenticator until it is ready," + at, Unit: "s", Values: synced,
			Floor: "`curl` listing them", Floors: listed, Bar: report.Bar{AtMost: 1.3},
		},
		{Figure: "peak memory (RSS) until then," + at, Unit: "MB", Values: peak, Bar: report.Bar{AtMost: 200}},
		{Figure: "memory (RSS) of an authenticator at rest," + at, Unit: "MB", Values: atRest, Bar: report.Bar{AtMost: 80}},
		{Figure: "Go heap of an authenticator at rest," + at, Unit: "MB", Values: heap},
	}
}

// curl returns a function that lists all APIKeys with curl, and returns the time in seconds.
func (p *population) curl() func() float64 {
	p.t.Helper()
	dir := p.t.TempDir()
	write := func(name string, content []byte) string {
		file := filepath.Join(dir, name)
		framework.Must(p.t, os.WriteFile(file, content, 0o600))
		return file
	}
	config := p.AdminConfig()
	args := []string{
		"--silent", "--show-error", "--fail", "--output", os.DevNull,
		"--cacert", write("ca", config.CAData), "--cert", write("cert", config.CertData), "--key", write("key", config.KeyData),
		config.Host + "/apis/keys.squirrel.dev/v1alpha1/apikeys?pretty=false", // without it, curl gets half as many bytes more
	}
	return func() float64 {
		started := time.Now()
		if output, err := exec.CommandContext(p.t.Context(), "curl", args...).CombinedOutput(); err != nil {
			p.t.Fatalf("curl: %v\n%s", err, output)
		}
		return time.Since(started).Seconds()
	}
}

// atRest waits until the memory of the process is constant.
func (d *daemon) atRest() resident {
	d.t.Helper()
	const (
		readings = 20 // in a row
		interval = 250 * time.Millisecond
	)
	last, same := d.resident(), 0
	framework.EventuallyWithin(d.t, 5*time.Minute, interval, "the "+d.Name()+" is at rest", func() bool {
		memory := d.resident()
		if math.Abs(memory.now-last.now) < 1 {
			same++
		} else {
			last, same = memory, 0
		}
		return same == readings
	})
	return d.resident()
}
