// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build console

package console_test

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/network"
	"k8s.io/client-go/rest"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
)

func pageWaitsForAConsoleThatIsStarting(ready *fixture) {
	gate := newGate(ready, ready.Env.Config)
	f := &fixture{Fixture: ready.Fixture}
	f.start(gate.config, "--api-key-file=")

	p := open(f, f.url)
	p.fill("textbox", "API key", ready.key)
	p.click("button", "Save")
	p.sees("The console is not ready: “API keys cannot be checked at the moment: try again.” Retrying…")
	p.find("button", "Checking…")
	close(gate.opened)
	p.sees("1 active, 1 total")
	p.eventually("the message disappears", func() bool { return !strings.Contains(p.text(), "not ready") })
	p.expectError("503 " + selfCall)
}

func dialogsDoNotWaitForever(f *fixture) {
	issued := f.issue("Former writer", writes)
	p := f.enter(issued)
	f.patch("Former writer", func(key *v1alpha1.APIKey) { key.Spec.WriteAccess = false })
	framework.Eventually(f, "the console has seen that", func() bool {
		return f.status("POST", "api-keys", issued) == http.StatusUnauthorized
	})
	p.block(selfCall)
	p.click("button", "Create key")
	p.fill("textbox", "App name", "Report")
	p.click("button", "Create")
	p.find("button", "Creating…")
	p.sees("API key does not have write access")
	p.expectError("401 " + keysCall)
	p.click("button", "Cancel")
	p.absent("dialog", "Create key")
	p.unblock()
}

func dialogsNameAnOutage(f *fixture) {
	f.issue("Old App")
	p := f.enter(f.key)
	p.setOffline(true)
	p.click("button", "Create key")
	p.fill("textbox", "App name", "Report")
	p.click("button", "Create")
	p.sees("This browser is offline. The key may have been created, and its token is lost: check the list of keys.")
	p.click("button", "Cancel")
	p.click("button", "Deactivate Old App")
	p.click("button", "Deactivate")
	p.sees("This browser is offline. The key may have been deactivated: check the list of keys.")
	p.click("button", "Cancel")
	p.click("button", "Refresh")
	p.sees("This browser is offline. Retrying…")
	p.setOffline(false)
	p.eventually("the page does not retry any more", func() bool { return !strings.Contains(p.text(), "Retrying") })

	f.console.Kill()
	p.click("button", "Deactivate Old App")
	p.click("button", "Deactivate")
	p.sees("The console does not respond. The key may have been deactivated: check the list of keys.")
}

// setOffline disconnects the browser from the network, or connects it again.
func (p *tab) setOffline(offline bool) {
	p.Helper()
	call(p, network.OverrideNetworkState, network.OverrideNetworkStateParams{Offline: offline, DownloadThroughput: -1, UploadThroughput: -1})
	call(p, network.EmulateNetworkConditionsByRule, network.EmulateNetworkConditionsByRuleParams{
		MatchedNetworkConditions: []*network.Conditions{{Offline: offline, DownloadThroughput: -1, UploadThroughput: -1}},
	})
}

// gate is a proxy for the API server that forwards nothing until it is opened.
type gate struct {
	// config for processes, with the address of the gate.
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
			client, err := listener.Accept()
			if err != nil {
				return // the test has ended
			}
			go g.forward(client, target.Host)
		}
	}()
	return g
}

// forward forwards a connection to an address.
func (g *gate) forward(client net.Conn, address string) {
	defer client.Close()
	<-g.opened
	server, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer server.Close()
	go func() { _, _ = io.Copy(server, client) }()
	_, _ = io.Copy(client, server)
}
