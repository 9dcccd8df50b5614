// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Command server is the authenticator of `make bench`. It has generated keys, and also serves responses that are made in advance.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	_ "net/http/pprof" // at /debug/pprof of the operations address
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"

	"squirrel.dev/apikey-operator/internal/serving"
	"squirrel.dev/apikey-operator/test/bench/keys"
	"squirrel.dev/apikey-operator/webhook/authn"
	"squirrel.dev/apikey-operator/webhook/gateway"
)

func main() {
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	count := flag.Int("keys", 1, "Number of keys.")
	namespaces := flag.Int("namespaces", 1, "Number of namespaces that the keys are spread over.")
	tokensFile := flag.String("tokens-file", "", "File to write the keys to, one per line: namespace and token.")
	address := flag.String("listen-address", "", "Address of checks over HTTP, and of responses that are made in advance, at /fixed/.")
	grpcAddress := flag.String("grpc-listen-address", "", "Address of checks over gRPC. The services fixed.* return what is made in advance.")
	operations := flag.String("operations-address", "", "Address of /healthz, /changes?per-second=N, /debug/pprof.")
	certFile := flag.String("tls-cert-file", "", "See the authenticator.")
	keyFile := flag.String("tls-private-key-file", "", "See the authenticator.")
	flag.Parse()

	minted := keys.Mint(*count, *namespaces)
	keyring := authn.NewKeyring()
	if err := keys.Fill(keyring, minted); err != nil {
		return err
	}
	if err := writeTokens(*tokensFile, minted); err != nil {
		return err
	}
	// The rest is as in the authenticator.
	servers := serving.NewProcess(serving.Options{Log: slog.Default()})
	tlsConfig, err := newTLSConfig(servers, *certFile, *keyFile)
	if err != nil {
		return err
	}
	decider := authn.NewAuthenticator(keyring, 0, time.Now)
	options := gateway.Options{
		InsufficientAccessStatus: http.StatusUnauthorized,
		Metrics:                  gateway.NewMetrics(prometheus.NewRegistry(), keyring),
		Log:                      slog.Default(),
	}
	handler, err := withFixed(gateway.NewHandler(decider, options), minted[0])
	if err != nil {
		return err
	}
	servers.AddServer("authenticator", *address, tlsConfig, handler)
	servers.AddGRPCServer("grpc", *grpcAddress, tlsConfig, decider.Ready, func(registrar grpc.ServiceRegistrar) {
		checks := &registered{ServiceRegistrar: registrar}
		gateway.RegisterEnvoy(checks, decider, "", options)
		registerFixed(registrar, checks.service, minted[0])
	})
	changing := &changes{keyring: keyring, keys: minted}
	servers.AddRunnable(changing.run)
	servers.AddOperationsServer("operations", *operations, nil, operationsHandler(changing))
	return servers.Run(ctx)
}

func writeTokens(file string, minted []keys.Key) error {
	var lines strings.Builder
	for i := range minted {
		fmt.Fprintln(&lines, minted[i].Namespace, minted[i].Token)
	}
	return os.WriteFile(file, []byte(lines.String()), 0o600)
}

func newTLSConfig(servers *serving.Process, certFile, keyFile string) (*tls.Config, error) {
	if certFile == "" {
		return nil, nil
	}
	certificate, err := certwatcher.New(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	servers.AddRunnable(certificate.Start)
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate.GetCertificate}, nil
}

func operationsHandler(changing *changes) http.Handler {
	http.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("/changes", func(w http.ResponseWriter, r *http.Request) {
		perSecond, err := strconv.ParseInt(r.FormValue("per-second"), 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		changing.perSecond.Store(perSecond)
	})
	return http.DefaultServeMux
}

// changes updates keys of the Keyring, as a Reflector does.
type changes struct {
	keyring   *authn.Keyring
	keys      []keys.Key
	perSecond atomic.Int64
}

// run updates one key after the other: it adds write access in one round, and removes it in the next.
func (c *changes) run(ctx context.Context) error {
	const interval = 10 * time.Millisecond
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for next := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		for range c.perSecond.Load() * int64(interval) / int64(time.Second) {
			object := c.keys[next%len(c.keys)].Object()
			object.Spec.WriteAccess = next/len(c.keys)%2 == 0
			if err := c.keyring.Update(object); err != nil {
				return err
			}
			next++
		}
	}
}
