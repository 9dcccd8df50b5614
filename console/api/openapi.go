// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	_ "embed" // for openapi.json
	"encoding/json"
	"net/http"

	"squirrel.dev/apikey-operator/internal/envelope"
)

//go:embed openapi.json
var openAPIDocument []byte

var openAPIAnswer = envelope.NewResponse(http.StatusOK, json.RawMessage(openAPIDocument))

// openAPI answers with the description of the API. It is the one answer of the API without an envelope: programs read it that know none.
func (a *API) openAPI(http.ResponseWriter, *request) *envelope.Response { return openAPIAnswer }
