// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package kubeapi

import (
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"k8s.io/client-go/rest"
)

// Timeouts limit how long clients wait for the API server.
type Timeouts struct {
	// WatchIdle ends a watch on which nothing was received for so long; its Reflector then lists. The API server sends a bookmark about once
	// a minute.
	WatchIdle time.Duration
	// CallIdle ends any other call whose response does not start, or pauses, for so long.
	CallIdle time.Duration
	// RelistWithin is the time after an outage within which each Reflector lists. The time of each list is random, to spread the load.
	RelistWithin time.Duration
}

// DefaultTimeouts returns the timeouts of the processes.
func DefaultTimeouts() Timeouts {
	return Timeouts{
		WatchIdle:    3 * time.Minute, // two bookmarks are missing
		CallIdle:     time.Minute,     // the API server's own timeout
		RelistWithin: 3 * time.Minute,
	}
}

// Harden makes all clients that are created from config later detect within these timeouts that their data is stale.
func Harden(config *rest.Config, timeouts Timeouts, metrics *Metrics, log *slog.Logger) {
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &transport{next: next, timeouts: timeouts, metrics: metrics, log: log, collections: map[string]*collection{}}
	})
	detectDeadConnections(config)
}

// detectDeadConnections closes connections on which the peer does not answer for 15 seconds. HTTP/2 sends pings, which reach the API server
// through any TCP proxy. HTTP/1.1, which some proxies downgrade to, has only TCP keep-alive probes.
func detectDeadConnections(config *rest.Config) {
	// client-go reads these from the environment alone. A whole transport of ours would have to reload certificates itself.
	setDefaultEnv("HTTP2_READ_IDLE_TIMEOUT_SECONDS", "7") // until a ping is sent
	setDefaultEnv("HTTP2_PING_TIMEOUT_SECONDS", "5")
	if config.Dial == nil {
		dialer := &net.Dialer{
			Timeout:         10 * time.Second,
			KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 3 * time.Second, Count: 3},
		}
		config.Dial = dialer.DialContext
	}
}

// setDefaultEnv sets an environment variable of this process unless it is set.
func setDefaultEnv(name, value string) {
	if _, set := os.LookupEnv(name); !set {
		_ = os.Setenv(name, value) // fails for an invalid name alone
	}
}
