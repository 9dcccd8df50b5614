// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build console

package console_test

import (
	"io"
	"net"
	"net/url"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"squirrel.dev/apikey-operator/test/framework/operator"
)

func aConsoleThatIsStartingIsWaitedFor(ready *fixture) {
	gate := newGate(ready, ready.Env.Config)
	f := &fixture{Fixture: ready.Fixture}
	f.start(gate.config, "--api-key-file=")

	p := open(f, f.url)
	p.fill("textbox", "API key", ready.key)
	p.click("button", "Save")
	p.sees("The console is starting. It says: “API keys cannot be checked at the moment: try again.” Trying again …")
	p.find("button", "Checking …")
	close(gate.opened)
	p.sees("1 active, 1 in all")
	p.eventually("it no longer says so", func() bool { return !strings.Contains(p.text(), "starting") })
	p.refused("503 " + countCall)
}

func noDialogWaitsForEver(f *fixture) {
	p := f.enter(f.issue("Reader"))
	p.block(countCall)
	p.click("button", "New key")
	p.fill("textbox", "App name", "Wish")
	p.click("button", "Create")
	p.find("button", "Creating …")
	p.sees("API key does not have write access")
	p.refused("401 " + keysCall)
	p.click("button", "Cancel")
	p.absent("dialog", "New key")

	p = f.enter(f.key)
	own := p.bootstrap()
	p.click("button", "Deactivate "+own.Name)
	p.block(keysCall)
	p.click("button", "Deactivate")
	p.sees("This is the key that the call is made with")
	p.refused("409 " + keysCall + "/" + own.ID)
	p.sees("The console does not answer. Trying again …")
	p.click("button", "Cancel")
	p.absent("dialog", "Deactivate "+own.Name+"?")
	p.unblock()
	p.eventually("it no longer tries", func() bool { return !strings.Contains(p.text(), "Trying again") })
}

// gate stands between a process and the API server: until it is opened, nothing answers.
type gate struct {
	// config leads a process through the gate.
	config *rest.Config
	opened chan struct{}
}

func newGate(t testing.TB, upstream *rest.Config) *gate {
	t.Helper()
	target, err := url.Parse(upstream.Host)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", operator.AnyPort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	g := &gate{config: rest.CopyConfig(upstream), opened: make(chan struct{})}
	g.config.Host = target.Scheme + "://" + listener.Addr().String()
	go func() {
		for {
			caller, err := listener.Accept()
			if err != nil {
				return // the test is over
			}
			go g.pass(caller, target.Host)
		}
	}()
	return g
}

// pass lets a caller through to an address.
func (g *gate) pass(caller net.Conn, address string) {
	defer caller.Close()
	<-g.opened
	called, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer called.Close()
	go func() { _, _ = io.Copy(called, caller) }()
	_, _ = io.Copy(caller, called)
}
