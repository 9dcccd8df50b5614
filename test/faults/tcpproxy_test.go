// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build outages

package faults_test

import (
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"

	"squirrel.dev/apikey-operator/test/framework"
)

// silenceConnections drops all that is sent, in both directions.
func silenceConnections(f *fixture) (config *rest.Config, inject func()) {
	proxy := startTCPProxy(f)
	return proxy.config, func() { proxy.each(func(c *proxiedConnection) { c.silent.Store(true) }) }
}

// closeConnections closes both sides of all connections.
func closeConnections(f *fixture) (config *rest.Config, inject func()) {
	proxy := startTCPProxy(f)
	return proxy.config, func() { proxy.each((*proxiedConnection).close) }
}

// halfCloseClientSide sends the end of the API server's data to the processes. They can still send.
func halfCloseClientSide(f *fixture) (config *rest.Config, inject func()) {
	proxy := startTCPProxy(f)
	return proxy.config, func() {
		proxy.each(func(c *proxiedConnection) {
			c.silent.Store(true)
			_ = c.client.CloseWrite()
		})
	}
}

// halfCloseServerSide sends the end of the processes' data to the API server. The processes do not notice.
func halfCloseServerSide(f *fixture) (config *rest.Config, inject func()) {
	proxy := startTCPProxy(f)
	return proxy.config, func() {
		proxy.each(func(c *proxiedConnection) {
			c.silent.Store(true)
			_ = c.server.CloseWrite()
		})
	}
}

// renewCertificate makes the processes reconnect to an API server with another serving certificate.
func renewCertificate(f *fixture) (config *rest.Config, inject func()) {
	proxy := startTCPProxy(f)
	return proxy.config, func() {
		renewal.Lock()
		defer renewal.Unlock()
		before := f.servingCertificate()
		framework.Must(f, f.Env.RenewServingCertificate())
		framework.EventuallyWithin(f, 2*time.Minute, framework.PollInterval, "the API server serves with its new certificate", func() bool {
			return f.servingCertificate() != before
		})
		proxy.each((*proxiedConnection).close)
	}
}

// renewal serializes renewals of the serving certificate, which parallel tests share.
var renewal sync.Mutex

// servingCertificate returns the serial number of the API server's serving certificate.
func (f *fixture) servingCertificate() string {
	f.Helper()
	connection, err := tls.Dial("tcp", strings.TrimPrefix(f.Env.Config.Host, "https://"), &tls.Config{InsecureSkipVerify: true})
	framework.Must(f, err)
	defer func() { _ = connection.Close() }()
	return connection.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// tcpProxy is a TCP proxy between a process and the API server, for faults of connections. TLS passes through it.
type tcpProxy struct {
	config *rest.Config

	mutex        sync.Mutex
	connections  []*proxiedConnection
	disconnected bool
}

// proxiedConnection is a connection through a tcpProxy.
type proxiedConnection struct {
	client, server *net.TCPConn
	silent         atomic.Bool // drops what either side sends
}

func (c *proxiedConnection) close() {
	_ = c.client.Close()
	_ = c.server.Close()
}

func startTCPProxy(f *fixture) *tcpProxy {
	f.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	framework.Must(f, err)
	p := &tcpProxy{config: rest.CopyConfig(f.Env.Config)}
	p.config.Host = "https://" + listener.Addr().String()
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go p.serve(client.(*net.TCPConn), strings.TrimPrefix(f.Env.Config.Host, "https://"))
		}
	}()
	f.Cleanup(func() {
		_ = listener.Close()
		p.each((*proxiedConnection).close)
	})
	return p
}

func (p *tcpProxy) serve(client *net.TCPConn, address string) {
	server, err := net.Dial("tcp", address)
	if err != nil {
		_ = client.Close()
		return
	}
	c := &proxiedConnection{client: client, server: server.(*net.TCPConn)}
	p.mutex.Lock()
	if p.disconnected {
		c.close()
	}
	p.connections = append(p.connections, c)
	p.mutex.Unlock()
	go c.forward(c.client, c.server)
	c.forward(c.server, c.client)
}

// forward copies what one side sends, and the end of that, to the other side.
func (c *proxiedConnection) forward(from, to *net.TCPConn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		switch {
		case c.silent.Load():
		case err != nil:
			_ = to.CloseWrite()
		default:
			_, _ = to.Write(buffer[:n])
		}
		if err != nil {
			return
		}
	}
}

// each calls do with all connections.
func (p *tcpProxy) each(do func(*proxiedConnection)) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, c := range p.connections {
		do(c)
	}
}

// setDisconnected closes all connections and refuses new ones, or accepts them again.
func (p *tcpProxy) setDisconnected(disconnected bool) {
	p.mutex.Lock()
	p.disconnected = disconnected
	p.mutex.Unlock()
	if disconnected {
		p.each((*proxiedConnection).close)
	}
}
