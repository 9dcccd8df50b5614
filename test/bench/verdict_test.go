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
	verdictTurns   = 200
	verdictsOfTurn = 20_000
)

// verdicts measures Decide for tokens in random order: with few keys beside the hash of a token, and with many beside that and a lookup in
// a plain Go map of digests, which decides nothing.
func verdicts(t *testing.T) []report.Row {
	t.Helper()
	runtime.LockOSThread() // whose processor time is measured
	defer runtime.UnlockOSThread()
	measure := func(count int) [][]float64 { // apart: each number of keys has the caches to itself, as it would
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

// decisions are questions about keys in random order.
type decisions struct {
	t             *testing.T
	authenticator *authn.Authenticator
	plain         map[token.Digest]*authn.Key
	questions     []question
	next          int
}

type question struct {
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
		questions:     questionsAbout(minted),
	}
	for i := range d.questions {
		d.plain[sha256.Sum256(d.questions[i].token)] = d.authenticator.Decide(d.questions[i].Request).Key
	}
	return d
}

// questionsAbout returns questions whose tokens lie in memory one behind the other, as if each had just arrived.
func questionsAbout(minted []keys.Key) []question {
	var arrived strings.Builder
	for i := range minted {
		arrived.WriteString(minted[i].Token)
	}
	text, bytes := arrived.String(), []byte(arrived.String())
	questions := make([]question, len(minted))
	for i := range minted {
		from, to := i*token.Length, (i+1)*token.Length
		questions[i] = question{
			Request: authn.Request{Namespace: minted[i].Namespace, Credential: authn.NewCredential(text[from:to]), Access: authn.Read},
			token:   bytes[from:to],
		}
	}
	return questions
}

func (d *decisions) decide() float64 {
	return d.time(func(q *question) {
		if verdict := d.authenticator.Decide(q.Request); verdict.Decision != authn.Granted {
			d.t.Fatalf("the verdict is %v", verdict)
		}
	})
}

func (d *decisions) lookUp() float64 {
	return d.time(func(q *question) {
		if key := d.plain[sha256.Sum256(q.token)]; key.Access != authn.Read {
			d.t.Fatalf("the key is %v", key)
		}
	})
}

func (d *decisions) sum() float64 {
	return d.time(func(q *question) { sha256.Sum256(q.token) })
}

// time returns the processor time of one question, in ns, which other work on the machine disturbs the least. Each call goes on where the
// last one ended.
func (d *decisions) time(answer func(q *question)) float64 {
	start := d.processorTime()
	for range verdictsOfTurn {
		answer(&d.questions[d.next])
		if d.next++; d.next == len(d.questions) {
			d.next = 0
		}
	}
	return float64(d.processorTime()-start) / verdictsOfTurn
}

// processorTime returns what this thread has used so far, in ns.
func (d *decisions) processorTime() int64 {
	d.t.Helper()
	var used unix.Timespec
	framework.Must(d.t, unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &used))
	return used.Nano()
}

// memory measures what a Keyring takes, all included.
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
