// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Command traffic runs next to apikey-operator in the pods of the end-to-end tests. Its subcommands are a service to protect, a client of
// that service, which also generates load, and a sidecar that makes Caddy reload its files.
package main
