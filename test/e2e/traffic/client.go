// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/test/e2e/load"
)

// client has an API key, and does what it is told over HTTP:
//
//	GET /ask?method=POST&key=valid   make one request through the gateway, and answer with what comes back; key=unknown, or none
//	GET /certificate?address=IP:PORT answer with the serial number of the certificate that is served there
//	GET /refused?address=IP:PORT     answer when the authenticator at this address refuses the key in X-API-Key
//	POST /phases/NAME                put load on the gateway and the authenticator, or go on with it, in a phase of this name
//	DELETE /phases                   end the load
//	GET /phases/NAME                 what became of it: a [load.Phase] in JSON for each target
type client struct {
	gateway   string
	namespace string
	keys      load.Keys
	trusted   *tls.Config // by the name of the authenticator
	rate      int
	targets   []target

	mu  sync.Mutex
	end func() // of the load; nil while there is none
}

// target is one way to ask.
type target struct {
	name    string
	asker   load.Asker
	account *load.Account
}

func runClient(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("client", flag.ContinueOnError)
	gateway := flags.String("gateway", "", "URL of the service behind its gateway")
	authenticator := flags.String("authenticator", "", "URL of the authenticator")
	grpcAddress := flags.String("grpc", "", "host:port where the authenticator speaks gRPC")
	namespace := flags.String("namespace", "", "namespace of the keys")
	tokenFile := flags.String("token-file", "", "file of the API key")
	caFile := flags.String("ca-file", "", "file of the authorities that the authenticator's certificate may be signed by")
	rate := flags.Int("rate", 100, "load on each target, in requests a second")
	if err := flags.Parse(args); err != nil {
		return err
	}
	key, err := os.ReadFile(*tokenFile)
	if err != nil {
		return err
	}
	authenticatorURL, err := url.Parse(*authenticator)
	if err != nil {
		return err
	}
	config := trust(*caFile)
	askingGRPC, err := askGRPC(config, *grpcAddress, *namespace)
	if err != nil {
		return err
	}
	trusted := config.Clone()
	trusted.ServerName = authenticatorURL.Hostname()
	c := &client{
		gateway:   *gateway,
		namespace: *namespace,
		keys:      load.Keys{Valid: string(key), Unknown: token.New()},
		trusted:   trusted,
		rate:      *rate,
	}
	c.add("gateway", askHTTP(nil, throughGateway(*gateway)))
	c.add("HTTP", askHTTP(config, ofAuthenticator(authenticatorURL, *namespace)))
	c.add("gRPC", askingGRPC)
	return serve(ctx, c.handler())
}

func (c *client) add(name string, asker load.Asker) {
	c.targets = append(c.targets, target{name: name, asker: asker, account: &load.Account{}})
}

func (c *client) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ask", c.ask)
	mux.HandleFunc("GET /certificate", certificate)
	mux.HandleFunc("GET /refused", c.awaitRefusal)
	mux.HandleFunc("POST /phases/{name}", func(_ http.ResponseWriter, r *http.Request) { c.begin(r.PathValue("name")) })
	mux.HandleFunc("DELETE /phases", func(http.ResponseWriter, *http.Request) { c.stop() })
	mux.HandleFunc("GET /phases/{name}", c.report)
	return mux
}

// begin begins a phase, and the load if there is none.
func (c *client) begin(phase string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.targets {
		t.account.Begin(phase)
	}
	if c.end != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, t := range c.targets {
		running.Go(func() { load.Run(ctx, c.rate, c.keys, t.asker, t.account) })
	}
	c.end = func() {
		cancel()
		running.Wait()
	}
}

// stop ends the load, and returns when all is answered.
func (c *client) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end != nil {
		c.end()
		c.end = nil
	}
}

func (c *client) report(w http.ResponseWriter, r *http.Request) {
	report := map[string]load.Phase{}
	for _, t := range c.targets {
		phase, exists := t.account.Phase(r.PathValue("name"))
		if !exists {
			http.NotFound(w, r)
			return
		}
		report[t.name] = phase
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(report)
}

// ask makes one request through the gateway.
func (c *client) ask(w http.ResponseWriter, r *http.Request) {
	question := load.Question{Method: r.FormValue("method")}
	switch r.FormValue("key") {
	case "valid":
		question.Key = c.keys.Valid
	case "unknown":
		question.Key = c.keys.Unknown
	}
	status, body, err := c.answer(r.Context(), question)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	// The token, if it comes back from somewhere, goes no further.
	_, _ = fmt.Fprintf(w, "%d %s", status, strings.ReplaceAll(body, c.keys.Valid, "THE KEY"))
}

func (c *client) answer(ctx context.Context, question load.Question) (status int, body string, err error) {
	request, err := throughGateway(c.gateway)(ctx, question)
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return response.StatusCode, string(content), err
}

// refusalInterval is how long after an answer the next question comes.
const refusalInterval = time.Millisecond

// awaitRefusal asks one replica of the authenticator until it refuses.
func (c *client) awaitRefusal(w http.ResponseWriter, r *http.Request) {
	transport := &http.Transport{TLSClientConfig: c.trusted}
	defer transport.CloseIdleConnections()
	replica := &url.URL{Scheme: "https", Host: r.FormValue("address")}
	question := load.Question{Method: http.MethodGet, Key: r.Header.Get("X-API-Key")}
	for {
		request, err := ofAuthenticator(replica, c.namespace)(r.Context(), question)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		switch response.StatusCode {
		case http.StatusUnauthorized:
			return
		case http.StatusOK:
			time.Sleep(refusalInterval)
		default:
			http.Error(w, response.Status, http.StatusBadGateway)
			return
		}
	}
}

// certificate looks at what a server shows, whoever signed it.
func certificate(w http.ResponseWriter, r *http.Request) {
	dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	connection, err := dialer.DialContext(r.Context(), "tcp", r.FormValue("address"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer connection.Close()
	_, _ = fmt.Fprint(w, connection.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber)
}
