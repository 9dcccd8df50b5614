// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build upgrade

package upgrade_test

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
)

// service balances requests over processes of one kind, as a Service of Kubernetes does.
type service struct {
	*fixture
	server string // to which clients connect
	start  func(release) *operator.Process

	mutex   sync.Mutex
	members []member
	turn    int
}

// member is a process that receives requests.
type member struct {
	*operator.Process
	address string
}

// scale starts processes of a release.
func (s *service) scale(r release, processes int) {
	s.Helper()
	for range processes {
		s.add(s.start(r))
	}
}

// roll replaces each process by one of a release, as a Deployment does: it terminates a process when its successor is ready. The service
// learns only later that a process terminates.
func (s *service) roll(r release) {
	s.Helper()
	for _, former := range slices.Clone(s.members) {
		s.add(s.start(r))
		former.Signal(syscall.SIGTERM)
		framework.Eventually(s, "a terminated process is not ready or has ended", func() bool { return !s.isReady(former.Process) })
		s.remove(former)
	}
}

// add adds a process when it is ready.
func (s *service) add(started *operator.Process) {
	s.Helper()
	framework.Eventually(s, "the "+started.Subcommand+" is ready", func() bool { return s.isReady(started) })
	added := member{started, started.Address(s.server)}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.members = append(s.members, added)
}

func (s *service) remove(former member) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.members = slices.DeleteFunc(s.members, func(m member) bool { return m == former })
}

func (s *service) isReady(running *operator.Process) bool {
	return process.HTTPReady("http://"+running.Address("health")+"/readyz")(s.Context()) == nil
}

// addresses returns the addresses of all processes.
func (s *service) addresses() (addresses []string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, member := range s.members {
		addresses = append(addresses, member.address)
	}
	return addresses
}

// next returns the address of one process after the other.
func (s *service) next() string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.turn++
	return s.members[s.turn%len(s.members)].address
}

// load sends requests until it is stopped. A response with another status than the expected one fails the test.
type load struct {
	*fixture
	stopped atomic.Bool
	running sync.WaitGroup
	sent    atomic.Int64
}

func (f *fixture) newLoad() *load {
	l := &load{fixture: f}
	f.Cleanup(l.stop)
	return l
}

// send sends requests with the tokens in turn, until the load is stopped. The function returns the status of the response.
func (l *load) send(tokens map[string]string, want int, request func(token string) (status int, err error)) {
	l.running.Go(func() {
		for !l.stopped.Load() {
			for name, token := range tokens {
				if status, err := request(token); err != nil || status != want {
					l.Errorf("request %d, with the token of %s: got status %d (%v), want %d", l.sent.Load(), name, status, err, want)
				}
				l.sent.Add(1)
			}
			time.Sleep(framework.PollInterval)
		}
	})
}

func (l *load) stop() {
	l.stopped.Store(true)
	l.running.Wait()
}

// check sends a token to one of the authenticators.
func (s *service) check(token string) (status int, err error) {
	return s.fixture.check(s.next(), token)
}

// list sends a token to one of the consoles, which manage keys.
func (s *service) list(token string) (status int, err error) {
	return s.call(http.MethodGet, fmt.Sprintf("http://%s/api/v1/api-keys", s.next()), token, "", nil)
}
