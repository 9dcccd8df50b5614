// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package gateways runs the configurations in docs/gateways with the real programs, which `make test-gateways` downloads. For other
// gateways, it validates the configuration with the types of the gateway, or sends the checks that the gateway sends.
package gateways
