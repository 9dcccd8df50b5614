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

// minHeaderBytes is the lowest default limit of common HTTP servers.
const minHeaderBytes = 8 << 10

// serverFlags are the flags of a process that receives API keys.
type serverFlags struct {
	operations    operationsFlags
	tls           tlsFlags
	listenAddress string
	shutdownDelay time.Duration
	connections   int
	headerBytes   int
}

// register adds the flags. The usage is that of --listen-address.
func (f *serverFlags) register(flags *pflag.FlagSet, usage string) {
	f.operations.register(flags)
	f.tls.register(flags)
	flags.StringVar(&f.listenAddress, "listen-address", ":8443", usage)
	flags.DurationVar(&f.shutdownDelay, "shutdown-delay", 5*time.Second,
		"How long to continue to serve after the signal to stop, while not ready, until the cluster has removed the endpoint.")
	flags.IntVar(&f.connections, "max-connections", 0,
		"The maximum number of open connections of all ports that receive API keys; 0 derives it from the memory limit.")
	flags.IntVar(&f.headerBytes, "max-header-bytes", serving.DefaultMaxHeaderBytes, fmt.Sprintf(
		"The maximum size of the headers of a request in bytes, %d to %d; the higher it is, the fewer connections fit in the memory limit.",
		minHeaderBytes, serving.HighestMaxHeaderBytes))
}

func (f *serverFlags) validate() error {
	if err := cmp.Or(f.operations.validate(), validateAddress("listen-address", f.listenAddress), f.tls.validate()); err != nil {
		return err
	}
	if f.shutdownDelay < 0 {
		return fmt.Errorf("--shutdown-delay=%s is negative: use 0 or more", f.shutdownDelay)
	}
	if f.connections < 0 {
		return fmt.Errorf("--max-connections=%d is negative: use a positive number, or 0 to derive it from the memory limit", f.connections)
	}
	if f.headerBytes < minHeaderBytes || f.headerBytes > serving.HighestMaxHeaderBytes {
		return fmt.Errorf("--max-header-bytes=%d is out of range: use %d to %d", f.headerBytes, minHeaderBytes, serving.HighestMaxHeaderBytes)
	}
	return nil
}

// newProcess returns a process without servers, and the TLS configuration of those that receive API keys, which is nil without TLS.
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
