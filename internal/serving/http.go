// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// What one client may cost. Gateways keep connections and send small requests.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 10 * time.Second
	idleTimeout       = 5 * time.Minute // longer than gateways keep idle connections, so that they close them, and no request is lost
	maxHeaderBytes    = 64 << 10        // more than Envoy and nginx pass on by default
)

// httpEngine is net/http.
type httpEngine struct{ *http.Server }

func newHTTPEngine(handler http.Handler, tlsConfig *tls.Config, log *slog.Logger) httpEngine {
	return httpEngine{&http.Server{
		Handler:                      handler,
		DisableGeneralOptionsHandler: true, // which would answer "OPTIONS *" 200, and to a gateway that means granted
		TLSConfig:                    tlsConfig,
		ReadHeaderTimeout:            readHeaderTimeout,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}}
}

func (e httpEngine) serve(listener net.Listener) error {
	var err error
	if e.TLSConfig == nil {
		err = e.Serve(listener)
	} else {
		err = e.ServeTLS(listener, "", "")
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (e httpEngine) shutdown(ctx context.Context) error {
	err := e.Shutdown(ctx)
	if err != nil {
		_ = e.Close()
	}
	return err
}

// closingWhenDraining asks clients, with each answer, to give up their connection once the process is draining: a request that a client
// sends at the very moment when its connection is closed is lost.
func (p *Process) closingWhenDraining(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	})
}
