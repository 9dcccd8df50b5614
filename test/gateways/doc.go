// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package gateways runs the configurations in docs/gateways with the real programs, which `make test-gateways` downloads. It validates
// some others with the types of their gateway.
package gateways
