// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/pflag"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"squirrel.dev/apikey-operator/internal/serving"
)

// minHeaderBytes is what common HTTP servers accept at least.
const minHeaderBytes = 8 << 10

// serverFlags are what a process needs that API keys are sent to.
type serverFlags struct {
	operations    operationsFlags
	tls           tlsFlags
	listenAddress string
	shutdownDelay time.Duration
	connections   int
	headerBytes   int
}

// register adds the flags. What listens at --listen-address is said by listening.
func (f *serverFlags) register(flags *pflag.FlagSet, listening string) {
	f.operations.register(flags)
	f.tls.register(flags)
	flags.StringVar(&f.listenAddress, "listen-address", ":8443", listening)
	flags.DurationVar(&f.shutdownDelay, "shutdown-delay", 5*time.Second,
		"How long to go on answering, while not ready, after the signal to stop: until then others may not know that this process goes.")
	flags.IntVar(&f.connections, "max-connections", 0,
		"Maximum number of open connections, over all ports that API keys are sent to. 0 is as many as the memory limit allows.")
	flags.IntVar(&f.headerBytes, "max-header-bytes", serving.DefaultMaxHeaderBytes, fmt.Sprintf(
		"Maximum length of the headers of a request in bytes, %d to %d. The longer, the fewer connections the memory limit allows.",
		minHeaderBytes, serving.HighestMaxHeaderBytes))
}

func (f *serverFlags) validate() error {
	if err := cmp.Or(f.operations.validate(), validateAddress("listen-address", f.listenAddress), f.tls.validate()); err != nil {
		return err
	}
	if f.shutdownDelay < 0 {
		return fmt.Errorf("--shutdown-delay=%s is negative: give 0 or more", f.shutdownDelay)
	}
	if f.connections < 0 {
		return fmt.Errorf("--max-connections=%d is negative: give a number of connections, or 0 for what the memory limit allows", f.connections)
	}
	if f.headerBytes < minHeaderBytes || f.headerBytes > serving.HighestMaxHeaderBytes {
		return fmt.Errorf("--max-header-bytes=%d is out of bounds: give %d to %d", f.headerBytes, minHeaderBytes, serving.HighestMaxHeaderBytes)
	}
	return nil
}

// newProcess returns a process without servers, and what those serve with that API keys are sent to: nil is without TLS.
func (f *serverFlags) newProcess() (*serving.Process, *tls.Config, error) {
	servers := serving.NewProcess(serving.Options{
		Log:            slog.Default(),
		ShutdownDelay:  f.shutdownDelay,
		MaxConnections: f.connections,
		MaxHeaderBytes: f.headerBytes,
		Metrics:        metrics.Registry,
	})
	tlsConfig, err := f.tls.config(servers)
	return servers, tlsConfig, err
}
