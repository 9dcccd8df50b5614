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
	"squirrel.dev/apikey-operator/test/bench/keys"
	"squirrel.dev/apikey-operator/test/bench/report"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/heap"
	"squirrel.dev/apikey-operator/webhook/authn"
)

const (
	verdictTurns    = 200
	verdictsPerTurn = 20_000
)

// verdicts measures Decide for tokens in random order. The floors are the hash of a token, and with many keys that and a lookup in a plain
// Go map of digests, which decides nothing.
func verdicts(t *testing.T) []report.Row {
	t.Helper()
	runtime.LockOSThread() // the processor time of the thread is measured
	defer runtime.UnlockOSThread()
	measure := func(count int) [][]float64 { // one after the other, so that each number of keys has the caches to itself
		d := newDecisions(t, count)
		return inTurns(verdictTurns, d.sum, d.decide, d.lookUp)
	}
	few, many := measure(1_000), measure(1_000_000)
	const sum, lookup = "SHA-256 of a token", "SHA-256 of a token, and a plain map of digests"
	return []report.Row{
		{
			Figure: "verdict among 1 000 keys", Unit: "ns", Values: few[1], Floor: sum, Floors: few[0], Bar: report.Bar{AtMost: 1.5},
		},
		{Figure: "verdict among 1 000 keys", Unit: "ns", Values: few[1], Floor: lookup, Floors: few[2]},
		{Figure: "verdict among 1 000 000 keys", Unit: "ns", Values: many[1], Floor: sum, Floors: many[0]},
		{
			Figure: "verdict among 1 000 000 keys", Unit: "ns", Values: many[1], Floor: lookup, Floors: many[2], Bar: report.Bar{AtMost: 1.1},
		},
	}
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
	minted, keyring := keys.Mint(count), authn.NewKeyring()
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

// requestsWith returns requests with these keys. Their tokens are adjacent in memory, as if they had just arrived.
func requestsWith(minted []keys.Key) []request {
	var arrived strings.Builder
	for i := range minted {
		arrived.WriteString(minted[i].Token)
	}
	text, bytes := arrived.String(), []byte(arrived.String())
	requests := make([]request, len(minted))
	for i := range minted {
		from, to := i*token.Length, (i+1)*token.Length
		requests[i] = request{
			Request: authn.Request{Namespace: minted[i].Namespace, Credential: authn.NewCredential(text[from:to]), Access: authn.Read},
			token:   bytes[from:to],
		}
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
	var used unix.Timespec
	framework.Must(d.t, unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &used))
	return used.Nano()
}

// memory measures the memory of a Keyring.
func memory(t *testing.T) []report.Row {
	t.Helper()
	const count = 1_000_000
	minted := keys.Mint(count)
	before := heap.Live()
	keyring := authn.NewKeyring()
	framework.Must(t, keys.Fill(keyring, minted))
	taken := float64(heap.Live() - before)
	runtime.KeepAlive(keyring)
	runtime.KeepAlive(minted)
	return []report.Row{{Figure: "memory per key, 1 000 000 keys", Unit: "B", Values: []float64{taken / count}, Bar: report.Bar{AtMost: 300}}}
}
