// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench_test

import (
	"crypto/sha256"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/test/bench/chart"
	"squirrel.dev/apikey-operator/test/bench/keys"
	"squirrel.dev/apikey-operator/test/bench/report"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/heap"
	"squirrel.dev/apikey-operator/webhook/authn"
)

const (
	verdictTurns    = 100
	verdictsPerTurn = 20_000

	plainMap = "SHA-256 of the token, and a lookup in a plain Go map"
)

// counts are the numbers of keys of the curves.
var counts = []int{1, 10, 100, 1_000, 10_000, 100_000, 1_000_000}

// verdicts measures Decide for tokens in random order. The floor is the hash of the token and a lookup in a plain Go map of digests, which
// decides nothing.
func verdicts(t *testing.T) report.Report {
	t.Helper()
	runtime.LockOSThread() // the processor time of the thread is measured
	defer runtime.UnlockOSThread()
	var rows []report.Row
	verdict, lookup := chart.Line{Name: "verdict"}, chart.Line{Name: plainMap}
	bars := map[int]float64{1_000: 1.15, 1_000_000: 1.1}
	for _, count := range counts {
		d := newDecisions(t, count)
		samples := inTurns(verdictTurns, d.decide, d.lookUp, d.sum)
		figure := "verdict among " + report.Thousands(count) + " keys"
		rows = append(rows, report.Row{
			Figure: figure, Unit: "ns", Values: samples[0], Floor: plainMap, Floors: samples[1], Bar: report.Bar{AtMost: bars[count]},
		})
		if count == 1_000 {
			rows = append(rows, report.Row{Figure: figure, Unit: "ns", Values: samples[0], Floor: "only SHA-256 of the token", Floors: samples[2]})
		}
		verdict.Add(count, report.Median(samples[0]))
		lookup.Add(count, report.Median(samples[1]))
	}
	writeChart(t, "verdict-time", &chart.Chart{
		Title: "Time of a verdict over the number of keys", X: "keys", Y: "ns of processor time", Lines: []chart.Line{verdict, lookup},
	})
	return report.Report{Rows: rows}
}

// decisions are requests with keys in random order.
type decisions struct {
	t             *testing.T
	authenticator *authn.Authenticator
	plain         map[token.Digest]*authn.Key
	requests      []request
	next          int
}

type request struct {
	authn.Request
	token []byte
}

func newDecisions(t *testing.T, count int) *decisions {
	t.Helper()
	minted, keyring := keys.Mint(count, 100), authn.NewKeyring()
	framework.Must(t, keys.Fill(keyring, minted))
	rand.Shuffle(len(minted), func(i, j int) { minted[i], minted[j] = minted[j], minted[i] })
	d := &decisions{
		t:             t,
		authenticator: authn.NewAuthenticator(keyring, 0, time.Now),
		plain:         make(map[token.Digest]*authn.Key, count),
		requests:      requestsWith(minted),
	}
	for i := range d.requests {
		d.plain[sha256.Sum256(d.requests[i].token)] = d.authenticator.Decide(d.requests[i].Request).Key
	}
	return d
}

// requestsWith returns requests with these keys. Their tokens and namespaces are adjacent in memory, as if they had just arrived.
func requestsWith(minted []keys.Key) []request {
	var arrived strings.Builder
	for i := range minted {
		arrived.WriteString(minted[i].Token + minted[i].Namespace)
	}
	text, bytes := arrived.String(), []byte(arrived.String())
	requests := make([]request, len(minted))
	from := 0
	for i := range minted {
		to := from + token.Length
		end := to + len(minted[i].Namespace)
		requests[i] = request{
			Request: authn.Request{Namespace: text[to:end], Credential: authn.NewCredential(text[from:to]), Access: authn.Read},
			token:   bytes[from:to],
		}
		from = end
	}
	return requests
}

func (d *decisions) decide() float64 {
	return d.time(func(r *request) {
		if verdict := d.authenticator.Decide(r.Request); verdict.Decision != authn.Granted {
			d.t.Fatalf("the verdict is %v", verdict)
		}
	})
}

func (d *decisions) lookUp() float64 {
	return d.time(func(r *request) {
		if key := d.plain[sha256.Sum256(r.token)]; key.Access != authn.Read {
			d.t.Fatalf("the key is %v", key)
		}
	})
}

func (d *decisions) sum() float64 {
	return d.time(func(r *request) { sha256.Sum256(r.token) })
}

// time returns the processor time of one request, in ns, which other work on the machine affects least. Each call continues with the next
// request.
func (d *decisions) time(decide func(r *request)) float64 {
	start := d.processorTime()
	for range verdictsPerTurn {
		decide(&d.requests[d.next])
		if d.next++; d.next == len(d.requests) {
			d.next = 0
		}
	}
	return float64(d.processorTime()-start) / verdictsPerTurn
}

// processorTime returns what this thread has used so far, in ns.
func (d *decisions) processorTime() int64 {
	d.t.Helper()
	return readClock(d.t, unix.CLOCK_THREAD_CPUTIME_ID)
}

// memory measures the memory of a Keyring, and of a plain Go map that has the same keys by their digests.
func memory(t *testing.T) report.Report {
	t.Helper()
	keyring, plain := chart.Line{Name: "Keyring"}, chart.Line{Name: "plain Go map"}
	var perKey, perPlainKey float64
	for _, count := range counts {
		minted := keys.Mint(count, 100)
		ofKeyring := memoryOf(minted, func() any {
			filled := authn.NewKeyring()
			framework.Must(t, keys.Fill(filled, minted))
			return filled
		})
		ofPlain := memoryOf(minted, func() any { return plainKeys(minted) })
		keyring.Add(count, ofKeyring/1000)
		plain.Add(count, ofPlain/1000)
		perKey, perPlainKey = ofKeyring/float64(count), ofPlain/float64(count)
	}
	writeChart(t, "verdict-memory", &chart.Chart{
		Title: "Memory of the keys over their number", X: "keys", Y: "KB", Lines: []chart.Line{keyring, plain},
	})
	return report.Report{Rows: []report.Row{
		{Figure: "memory per key, 1 000 000 keys", Unit: "B", Values: []float64{perKey}, Bar: report.Bar{AtMost: 300}},
		{
			Figure: "memory per key, 1 000 000 keys", Unit: "B", Values: []float64{perKey},
			Floor: "a plain Go map of the same keys", Floors: []float64{perPlainKey},
		},
	}}
}

// memoryOf returns the memory of what a function creates for these keys. Of few keys it measures many copies.
func memoryOf(minted []keys.Key, create func() any) float64 {
	created := make([]any, max(1, 100_000/len(minted)))
	before := heap.Live()
	for i := range created {
		created[i] = create()
	}
	taken := heap.Live() - before
	runtime.KeepAlive(created)
	runtime.KeepAlive(minted)
	return float64(taken) / float64(len(created))
}

// plainKey is what a check returns of a key.
type plainKey struct {
	namespace, appName, uid string
	access                  authn.Access
}

// plainKeys returns the simplest store of keys.
func plainKeys(minted []keys.Key) map[token.Digest]*plainKey {
	plain := make(map[token.Digest]*plainKey, len(minted))
	for i := range minted {
		object := minted[i].Object()
		plain[sha256.Sum256([]byte(minted[i].Token))] = &plainKey{
			namespace: strings.Clone(object.Namespace), appName: object.Spec.AppName, uid: strings.Clone(string(object.UID)), access: authn.Read,
		}
	}
	return plain
}
