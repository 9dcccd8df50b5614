// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strings"
	"sync/atomic"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	"squirrel.dev/apikey-operator/test/e2e/load"
)

// clientTLSConfig returns a configuration that verifies servers with the CA bundle in a file. It reads the file for each connection.
func clientTLSConfig(caFile string) *tls.Config {
	return &tls.Config{
		InsecureSkipVerify: true, // VerifyConnection verifies instead
		VerifyConnection: func(state tls.ConnectionState) error {
			content, err := os.ReadFile(caFile)
			if err != nil {
				return err
			}
			options := x509.VerifyOptions{DNSName: state.ServerName, Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
			if !options.Roots.AppendCertsFromPEM(content) {
				return fmt.Errorf("%s has no certificates", caFile)
			}
			for _, certificate := range state.PeerCertificates[1:] {
				options.Intermediates.AddCert(certificate)
			}
			_, err = state.PeerCertificates[0].Verify(options)
			return err
		},
	}
}

// transports returns two transports that reuse connections, for HTTP/1.1 and HTTP/2, and one that does not.
func transports(config *tls.Config) (reusing []http.RoundTripper, single http.RoundTripper) {
	newTransport := func() *http.Transport {
		return &http.Transport{TLSClientConfig: config.Clone(), MaxIdleConnsPerHost: 100}
	}
	http1, http2, oneRequest := newTransport(), newTransport(), newTransport()
	http2.ForceAttemptHTTP2 = true
	oneRequest.DisableKeepAlives = true
	return []http.RoundTripper{http1, http2}, oneRequest
}

// sendHTTP returns a sender over HTTP. Prepare converts the requests.
func sendHTTP(config *tls.Config, prepare func(context.Context, load.Request) (*http.Request, error)) load.Sender {
	reusing, single := transports(config)
	var turn atomic.Uint64
	return func(ctx context.Context, request load.Request) (load.Response, error) {
		// Go's transport retries a request if a reused connection is closed. With HTTP/2 that is safe: the server reports the requests that
		// it has not processed (RFC 9113, section 6.8). HTTP/1.1 has no such report, so its retries count.
		var sent atomic.Int32
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Add(1) }})
		prepared, err := prepare(ctx, request)
		if err != nil {
			return load.Response{}, err
		}
		transport := single
		if !request.NewConnection {
			transport = reusing[turn.Add(1)%uint64(len(reusing))]
		}
		response, err := transport.RoundTrip(prepared)
		if err != nil {
			return load.Response{}, err
		}
		defer response.Body.Close()
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			return load.Response{}, err
		}
		return load.Response{Status: response.StatusCode, Retried: sent.Load() > 1 && response.ProtoMajor == 1, Protocol: response.Proto}, nil
	}
}

// gatewayRequest converts requests to those of a client of the gateway.
func gatewayRequest(gateway string) func(context.Context, load.Request) (*http.Request, error) {
	return func(ctx context.Context, request load.Request) (*http.Request, error) {
		prepared, err := http.NewRequestWithContext(ctx, request.Method, gateway, nil)
		if err == nil && request.Key != "" {
			prepared.Header.Set("X-API-Key", request.Key)
		}
		return prepared, err
	}
}

// checkRequest converts requests to the checks that a gateway sends to the authenticator.
func checkRequest(authenticator *url.URL, namespace string) func(context.Context, load.Request) (*http.Request, error) {
	endpoint := authenticator.JoinPath("/auth/forward/", namespace).String()
	return func(ctx context.Context, request load.Request) (*http.Request, error) {
		prepared, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
		if err != nil {
			return nil, err
		}
		prepared.Header.Set("X-Forwarded-Method", request.Method)
		if request.Key != "" {
			prepared.Header.Set("X-API-Key", request.Key)
		}
		return prepared, nil
	}
}

// sendGRPC returns a sender that sends checks as Envoy does.
func sendGRPC(config *tls.Config, address, namespace string) (load.Sender, error) {
	connect := func() (*grpc.ClientConn, error) {
		return grpc.NewClient("dns:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(config.Clone())))
	}
	reused, err := connect()
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, request load.Request) (load.Response, error) {
		connection := reused
		if request.NewConnection {
			single, err := connect()
			if err != nil {
				return load.Response{}, err
			}
			defer func() { _ = single.Close() }()
			connection = single
		}
		response, err := authv3.NewAuthorizationClient(connection).Check(ctx, grpcCheckRequest(namespace, request))
		if err != nil {
			return load.Response{}, err
		}
		status, err := statusOf(response)
		return load.Response{Status: status, Protocol: "gRPC"}, err
	}, nil
}

func grpcCheckRequest(namespace string, request load.Request) *authv3.CheckRequest {
	httpRequest := &authv3.AttributeContext_HttpRequest{Method: request.Method, Headers: map[string]string{}}
	if request.Key != "" {
		httpRequest.Headers["x-api-key"] = request.Key
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		ContextExtensions: map[string]string{"namespace": namespace},
		Request:           &authv3.AttributeContext_Request{Http: httpRequest},
	}}
}

// statusOf returns the status that Envoy would send to its client.
func statusOf(response *authv3.CheckResponse) (int, error) {
	if codes.Code(response.GetStatus().GetCode()) == codes.OK {
		if setsHeader(response.GetOkResponse().GetHeaders(), "x-auth-app") {
			return http.StatusOK, nil
		}
		return 0, errors.New("a check was granted without the header x-auth-app")
	}
	status := response.GetDeniedResponse().GetStatus().GetCode()
	if status == typev3.StatusCode_Empty {
		return 0, errors.New("a check was denied without a status")
	}
	return int(status), nil
}

func setsHeader(options []*corev3.HeaderValueOption, name string) bool {
	for _, option := range options {
		if strings.EqualFold(option.GetHeader().GetKey(), name) {
			return true
		}
	}
	return false
}
