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

// trust returns a configuration that trusts whom the file names at the time of each connection: certificates of authorities, in PEM.
func trust(caFile string) *tls.Config {
	return &tls.Config{
		InsecureSkipVerify: true, // in favour of what follows
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

// transports returns transports that keep connections, one for each version of HTTP that a server may speak, and one that keeps none.
func transports(config *tls.Config) (kept []http.RoundTripper, fresh http.RoundTripper) {
	newTransport := func() *http.Transport {
		return &http.Transport{TLSClientConfig: config.Clone(), MaxIdleConnsPerHost: 100}
	}
	http1, http2, once := newTransport(), newTransport(), newTransport()
	http2.ForceAttemptHTTP2 = true
	once.DisableKeepAlives = true
	return []http.RoundTripper{http1, http2}, once
}

// askHTTP asks over HTTP. Prepare makes a request of a question.
func askHTTP(config *tls.Config, prepare func(context.Context, load.Question) (*http.Request, error)) load.Asker {
	kept, fresh := transports(config)
	var turn atomic.Uint64
	return func(ctx context.Context, question load.Question) (load.Answer, error) {
		// Go's client itself asks again where a connection that it had kept is closed. Over HTTP/2 that is as it should be: the server
		// says which requests it did not look at, so that they are safe to repeat (RFC 9113, section 6.8). HTTP/1.1 has no such word.
		var sent atomic.Int32
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Add(1) }})
		request, err := prepare(ctx, question)
		if err != nil {
			return load.Answer{}, err
		}
		transport := fresh
		if !question.Fresh {
			transport = kept[turn.Add(1)%uint64(len(kept))]
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			return load.Answer{}, err
		}
		defer response.Body.Close()
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			return load.Answer{}, err
		}
		return load.Answer{Status: response.StatusCode, Retried: sent.Load() > 1 && response.ProtoMajor == 1, Protocol: response.Proto}, nil
	}
}

// throughGateway makes the request of a client.
func throughGateway(gateway string) func(context.Context, load.Question) (*http.Request, error) {
	return func(ctx context.Context, question load.Question) (*http.Request, error) {
		request, err := http.NewRequestWithContext(ctx, question.Method, gateway, nil)
		if err == nil && question.Key != "" {
			request.Header.Set("X-API-Key", question.Key)
		}
		return request, err
	}
}

// ofAuthenticator makes the request of a gateway.
func ofAuthenticator(authenticator *url.URL, namespace string) func(context.Context, load.Question) (*http.Request, error) {
	endpoint := authenticator.JoinPath("/auth/forward/", namespace).String()
	return func(ctx context.Context, question load.Question) (*http.Request, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
		if err != nil {
			return nil, err
		}
		request.Header.Set("X-Forwarded-Method", question.Method)
		if question.Key != "" {
			request.Header.Set("X-API-Key", question.Key)
		}
		return request, nil
	}
}

// askGRPC asks as Envoy does.
func askGRPC(config *tls.Config, address, namespace string) (load.Asker, error) {
	connect := func() (*grpc.ClientConn, error) {
		return grpc.NewClient("dns:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(config.Clone())))
	}
	kept, err := connect()
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, question load.Question) (load.Answer, error) {
		connection := kept
		if question.Fresh {
			once, err := connect()
			if err != nil {
				return load.Answer{}, err
			}
			defer func() { _ = once.Close() }()
			connection = once
		}
		response, err := authv3.NewAuthorizationClient(connection).Check(ctx, check(namespace, question))
		if err != nil {
			return load.Answer{}, err
		}
		status, err := statusOf(response)
		return load.Answer{Status: status, Protocol: "gRPC"}, err
	}, nil
}

func check(namespace string, question load.Question) *authv3.CheckRequest {
	request := &authv3.AttributeContext_HttpRequest{Method: question.Method, Headers: map[string]string{}}
	if question.Key != "" {
		request.Headers["x-api-key"] = question.Key
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		ContextExtensions: map[string]string{"namespace": namespace},
		Request:           &authv3.AttributeContext_Request{Http: request},
	}}
}

// statusOf returns the status that Envoy's client would get.
func statusOf(response *authv3.CheckResponse) (int, error) {
	if codes.Code(response.GetStatus().GetCode()) == codes.OK {
		if setsHeader(response.GetOkResponse().GetHeaders(), "x-auth-app") {
			return http.StatusOK, nil
		}
		return 0, errors.New("a check was granted without saying to whom")
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
