// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package overlays tests config/overlays with the programs that they are for: the controllers of cert-manager, and the admission webhook of
// the Prometheus Operator.
package overlays
