// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"

	"squirrel.dev/apikey-operator/internal/envelope"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// configError is the error of a check that cannot be decided, because the gateway is misconfigured.
type configError struct {
	message  string
	response *envelope.Response
}

// newConfigError returns a configError. The message names the problem, then what to do. It repeats nothing of the request.
func newConfigError(status int, message string) *configError {
	return &configError{message: message, response: envelope.NewError(status, message)}
}

// with sets a header of the response. The name must be in canonical form.
func (e *configError) with(name, value string) *configError {
	e.response.With(name, value)
	return e
}

// reject writes the response to a misconfigured gateway.
func (c *checker) reject(w http.ResponseWriter, e *configError) authn.Decision {
	c.warnOfConfig(e.message)
	e.response.Write(w)
	return malformed
}

// warnOfConfig logs the message for the operator of the gateway, at most once a minute.
func (c *checker) warnOfConfig(message string) {
	c.configWarnings.Do(func() { c.log.Warn("A gateway is misconfigured: " + message) })
}
