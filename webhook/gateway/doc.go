// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package gateway serves the checks of gateways: whether the API key of a client's request is valid and has the access that the request
// needs. Each protocol has one file, which translates between the protocol and package authn.
//
//	envoy.go, nginx.go, nginxgatewayfabric.go, traefikcaddy.go    checks with the method and the headers of the client's request
//	tokenreview.go, introspection.go                              checks of a token in the body of the check
//	envoygrpc.go                                                  gRPC
//
// To add an HTTP protocol, write such a file with a value of the type protocol. Add the value to protocols in protocol.go, and a column
// to the table of test/conformance. If the gateway sends the headers of the client's request, [forwardAuth] serves the check: copy
// nginx.go.
//
// The protocols share checker.go (decides, logs and counts checks), configerror.go (responses to misconfigured gateways), identity.go
// (the X-Auth-* headers), methodheaders.go (headers that name a method), target.go (the path) and body.go.
package gateway
