// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package kubeapi hardens the clients of the Kubernetes API against what a list and watch alone does not notice: a connection or a watch
// that is silent without being closed, an answer that stops halfway, and an etcd that was restored from an older backup.
//
// All of it is at the transport, so that it holds for every Reflector of a process, however its list and watch are written.
//
// It also compares the local clock with that of the API server.
package kubeapi

import (
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"k8s.io/client-go/rest"
)

// Bounds are how long the clients wait.
type Bounds struct {
	// WatchSilence ends a watch that sends nothing, after which its Reflector lists. The API server sends a bookmark about once a minute.
	WatchSilence time.Duration
	// CallSilence ends any other call whose answer does not begin, or pauses, for so long.
	CallSilence time.Duration
	// RelistWithin bounds when a Reflector lists after the API was away. Each does so at a random time, so that not all do at once.
	RelistWithin time.Duration
}

// DefaultBounds returns the bounds that processes run with.
func DefaultBounds() Bounds {
	return Bounds{
		WatchSilence: 3 * time.Minute, // two bookmarks were missed
		CallSilence:  time.Minute,     // after which the API server itself gives up
		RelistWithin: 3 * time.Minute,
	}
}

// Harden makes all clients that are created from config, from now on, notice within these bounds that what they know is out of date.
func Harden(config *rest.Config, bounds Bounds, metrics *Metrics, log *slog.Logger) {
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &transport{next: next, bounds: bounds, metrics: metrics, log: log, collections: map[string]*collection{}}
	})
	noticeSilentConnections(config)
}

// noticeSilentConnections closes connections that are silent for 15 seconds although the other side should answer, so that the next call
// opens a new one. HTTP/2 has pings of its own for that, which reach the API server through any TCP proxy. For HTTP/1.1, which some
// proxies make of it, there are only the probes of TCP.
func noticeSilentConnections(config *rest.Config) {
	// client-go takes these from the environment alone, unless it gets a whole transport, which then would have to reload certificates.
	setDefaultEnv("HTTP2_READ_IDLE_TIMEOUT_SECONDS", "7") // without a frame, then a ping is sent
	setDefaultEnv("HTTP2_PING_TIMEOUT_SECONDS", "5")
	if config.Dial == nil {
		dialer := &net.Dialer{
			Timeout:         10 * time.Second,
			KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 3 * time.Second, Count: 3},
		}
		config.Dial = dialer.DialContext
	}
}

// setDefaultEnv sets a variable of this process's environment that is not set.
func setDefaultEnv(name, value string) {
	if _, set := os.LookupEnv(name); !set {
		_ = os.Setenv(name, value) // fails only for a name that cannot be one
	}
}
