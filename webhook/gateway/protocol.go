// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"

	"squirrel.dev/apikey-operator/webhook/authn"
)

// protocol is an HTTP protocol for checks.
type protocol struct {
	// name of the protocol in paths, metrics and logs.
	name string
	// path of the endpoint, as messages show it.
	path string
	// appendsPath is true if the gateway appends the path of the client's request, so that a slash must follow the namespace.
	appendsPath bool
	// pathHelp is added to the response to a wrong path.
	pathHelp string
	// readsBody is true if the check is in the body.
	readsBody bool
	// serve writes the response to a check with the keys of a namespace, and returns the decision, or malformed.
	serve func(c *checker, w http.ResponseWriter, r *http.Request, namespace string) authn.Decision
}

var protocols = []protocol{envoy, nginx, nginxGatewayFabric, traefikCaddy, tokenReview, introspection}
