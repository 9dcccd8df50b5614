// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package api serves the API keys of one namespace over a REST API, for clients without kubectl. openapi.json describes the API. Requests
// authenticate with an API key of that namespace.
package api
