// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package load asks at a steady rate whatever becomes of the questions, and keeps account of every answer.
package load

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// Question is a request that a client makes of a service.
type Question struct {
	// Method of the request.
	Method string
	// Key is the API key; empty is none.
	Key string
	// Fresh asks on a connection of its own, instead of one that was asked on before.
	Fresh bool
}

// Answer is what came back.
type Answer struct {
	// Status of the answer, in HTTP.
	Status int
	// Retried says that the question was sent more than once until an answer came, and that its connection ended without telling whether
	// it had been looked at.
	Retried bool
	// Protocol by which it came.
	Protocol string
}

// Asker asks a question, and returns an error where no answer came.
type Asker func(ctx context.Context, question Question) (Answer, error)

// Keys are those that questions are asked with.
type Keys struct {
	// Valid is good for reading alone.
	Valid string
	// Unknown is none.
	Unknown string
}

// askTimeout is how long a client waits for one answer. What is only slow, on a machine with much else to do, is told by the times.
const askTimeout = 30 * time.Second

// kind is a kind of question.
type kind struct {
	name   string
	valid  bool // it is to be granted, and all others are to be refused
	method string
	key    func(Keys) string
}

var (
	read       = kind{name: "read", valid: true, method: http.MethodGet, key: func(k Keys) string { return k.Valid }}
	write      = kind{name: "write", method: http.MethodPost, key: func(k Keys) string { return k.Valid }}
	unknownKey = kind{name: "unknown key", method: http.MethodGet, key: func(k Keys) string { return k.Unknown }}
	noKey      = kind{name: "no key", method: http.MethodGet, key: func(Keys) string { return "" }}

	// mix is what is asked, again and again.
	mix = []kind{read, read, unknownKey, read, read, write, read, read, noKey, read}
)

// freshEvery is one in how many questions is asked on a connection of its own. It has no divisor in common with the length of mix, so
// that each kind of question has its turn.
const freshEvery = 7

func ask(ctx context.Context, asker Asker, question Question) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return asker(ctx, question)
}

// Run asks this many questions a second until the context is done, and returns when all are answered.
func Run(ctx context.Context, rate int, keys Keys, asker Asker, account *Account) {
	var asking sync.WaitGroup
	defer asking.Wait()
	answering := context.WithoutCancel(ctx)
	start := time.Now()
	for i := range 1 << 62 {
		due := start.Add(time.Duration(i) * time.Second / time.Duration(rate))
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(due)):
		}
		kind, fresh := mix[i%len(mix)], i%freshEvery == 0
		entry := account.open(kind, fresh, due)
		asking.Go(func() {
			question := Question{Method: kind.method, Key: kind.key(keys), Fresh: fresh}
			answer, err := ask(answering, asker, question)
			if err != nil { // a client that got no answer asks once more
				entry.failed(err)
				question.Fresh = true
				answer, err = ask(answering, asker, question)
				answer.Retried = true
			}
			entry.close(answer, err)
		})
	}
}
