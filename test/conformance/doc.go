// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package conformance sends the same checks to the built authenticator in all its protocols, over TLS, with keys that the built
// controller has issued.
package conformance
