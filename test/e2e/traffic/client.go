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
	"sync/atomic"
	"time"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/test/e2e/load"
)

// client has an API key, and sends requests that the tests control over HTTP:
//
//	GET /send?method=POST&key=valid   send one request through the gateway, and return its response; key=unknown, or none
//	GET /certificate?address=IP:PORT  return the serial number of the serving certificate at an address
//	GET /token-hash                   return the hash of the key that the client has, which it reads for each request
//	GET /usage?address=IP:PORT        request the last uses of tokens from an authenticator, and return its response
//	GET /refused?address=IP:PORT      respond when the authenticator at an address refuses the key in X-API-Key
//	POST /phases/NAME                 begin a phase of the load, and start the load if it is not running
//	DELETE /phases                    stop the load
//	GET /phases/NAME                  return the results of a phase: a [load.Phase] in JSON for each target
type client struct {
	gateway   string
	namespace string
	keys      load.Keys
	tlsConfig *tls.Config // verifies the name of the authenticator
	rate      int
	targets   []target

	mu       sync.Mutex
	stopLoad func() // nil while no load is running
}

// target is a destination of the load.
type target struct {
	name     string
	sender   load.Sender
	recorder *load.Recorder
}

func runClient(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("client", flag.ContinueOnError)
	gateway := flags.String("gateway", "", "URL of the service at the gateway")
	authenticator := flags.String("authenticator", "", "URL of the authenticator")
	grpcAddress := flags.String("grpc", "", "host:port of the gRPC server of the authenticator")
	namespace := flags.String("namespace", "", "namespace of the keys")
	tokenFile := flags.String("token-file", "", "file of the API key")
	caFile := flags.String("ca-file", "", "file with the CA bundle of the authenticator")
	rate := flags.Int("rate", 100, "load on each target, in requests a second")
	if err := flags.Parse(args); err != nil {
		return err
	}
	validKey, err := readEachTime(*tokenFile)
	if err != nil {
		return err
	}
	authenticatorURL, err := url.Parse(*authenticator)
	if err != nil {
		return err
	}
	config := clientTLSConfig(*caFile)
	grpcSender, err := sendGRPC(config, *grpcAddress, *namespace)
	if err != nil {
		return err
	}
	serverTLSConfig := config.Clone()
	serverTLSConfig.ServerName = authenticatorURL.Hostname()
	c := &client{
		gateway:   *gateway,
		namespace: *namespace,
		keys:      load.Keys{Valid: validKey, Unknown: token.New()},
		tlsConfig: serverTLSConfig,
		rate:      *rate,
	}
	c.add("gateway", sendHTTP(nil, gatewayRequest(*gateway)))
	c.add("HTTP", sendHTTP(config, checkRequest(authenticatorURL, *namespace)))
	c.add("gRPC", grpcSender)
	return serve(ctx, c.handler())
}

// readEachTime returns a function that reads the key in a file. While the kubelet replaces the file, it returns the key that it read
// before.
func readEachTime(file string) (key func() string, err error) {
	first, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var last atomic.Pointer[[]byte]
	last.Store(&first)
	return func() string {
		if content, err := os.ReadFile(file); err == nil {
			last.Store(&content)
		}
		return string(*last.Load())
	}, nil
}

func (c *client) add(name string, sender load.Sender) {
	c.targets = append(c.targets, target{name: name, sender: sender, recorder: &load.Recorder{}})
}

func (c *client) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /send", c.send)
	mux.HandleFunc("GET /certificate", servingCertificate)
	mux.HandleFunc("GET /refused", c.awaitRefusal)
	mux.HandleFunc("GET /token-hash", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, token.Hash(c.keys.Valid())) })
	mux.HandleFunc("GET /usage", c.requestUsage)
	mux.HandleFunc("POST /phases/{name}", func(_ http.ResponseWriter, r *http.Request) { c.begin(r.PathValue("name")) })
	mux.HandleFunc("DELETE /phases", func(http.ResponseWriter, *http.Request) { c.stop() })
	mux.HandleFunc("GET /phases/{name}", c.report)
	return mux
}

// begin begins a phase, and starts the load if it is not running.
func (c *client) begin(phase string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.targets {
		t.recorder.Begin(phase)
	}
	if c.stopLoad != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, t := range c.targets {
		running.Go(func() { load.Run(ctx, c.rate, c.keys, t.sender, t.recorder) })
	}
	c.stopLoad = func() {
		cancel()
		running.Wait()
	}
}

// stop stops the load, and returns after the last response.
func (c *client) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopLoad != nil {
		c.stopLoad()
		c.stopLoad = nil
	}
}

func (c *client) report(w http.ResponseWriter, r *http.Request) {
	report := map[string]load.Phase{}
	for _, t := range c.targets {
		phase, exists := t.recorder.Phase(r.PathValue("name"))
		if !exists {
			http.NotFound(w, r)
			return
		}
		report[t.name] = phase
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(report)
}

// send sends one request through the gateway.
func (c *client) send(w http.ResponseWriter, r *http.Request) {
	request := load.Request{Method: r.FormValue("method")}
	switch r.FormValue("key") {
	case "valid":
		request.Key = c.keys.Valid()
	case "unknown":
		request.Key = c.keys.Unknown
	}
	status, body, err := c.sendToGateway(r.Context(), request)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	// The test output must not contain the token.
	_, _ = fmt.Fprintf(w, "%d %s", status, strings.ReplaceAll(body, c.keys.Valid(), "THE KEY"))
}

func (c *client) sendToGateway(ctx context.Context, request load.Request) (status int, body string, err error) {
	prepared, err := gatewayRequest(c.gateway)(ctx, request)
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(prepared)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return response.StatusCode, string(content), err
}

// refusalInterval is the pause between a response and the next request of awaitRefusal.
const refusalInterval = time.Millisecond

// awaitRefusal sends checks to one replica of the authenticator until it refuses the key.
func (c *client) awaitRefusal(w http.ResponseWriter, r *http.Request) {
	transport := &http.Transport{TLSClientConfig: c.tlsConfig}
	defer transport.CloseIdleConnections()
	replica := &url.URL{Scheme: "https", Host: r.FormValue("address")}
	request := load.Request{Method: http.MethodGet, Key: r.Header.Get("X-API-Key")}
	for {
		check, err := checkRequest(replica, c.namespace)(r.Context(), request)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		response, err := transport.RoundTrip(check)
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

// connectTimeout is how long a connection may take that a NetworkPolicy may forbid.
const connectTimeout = 5 * time.Second

// requestUsage requests the last uses of tokens, without the controller's token.
func (c *client) requestUsage(w http.ResponseWriter, r *http.Request) {
	httpClient := &http.Client{Transport: &http.Transport{TLSClientConfig: c.tlsConfig}, Timeout: connectTimeout}
	defer httpClient.CloseIdleConnections()
	response, err := httpClient.Get("https://" + r.FormValue("address") + "/usage")
	if err != nil {
		_, _ = fmt.Fprintf(w, "no response: %v", err)
		return
	}
	defer func() { _ = response.Body.Close() }()
	content, _ := io.ReadAll(response.Body)
	_, _ = fmt.Fprintf(w, "%d %s", response.StatusCode, content)
}

// servingCertificate returns the serial number of a serving certificate. It does not verify the certificate.
func servingCertificate(w http.ResponseWriter, r *http.Request) {
	dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	connection, err := dialer.DialContext(r.Context(), "tcp", r.FormValue("address"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer connection.Close()
	_, _ = fmt.Fprint(w, connection.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber)
}
