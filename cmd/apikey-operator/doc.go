// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Command apikey-operator runs the controller that issues API keys, the authenticator that checks them for gateways, or the console that
// manages the keys of one namespace.
package main
