// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package authn decides whether an API key is valid and has the access that a request needs. It knows no protocol: packages gateway and
// console/api translate their requests to a [Request], and the [Verdict] to their responses.
//
// A [Keyring] holds the tokens of all APIKeys in memory. [Keyring.Run] lists and watches them at the Kubernetes API. An [Authenticator]
// decides requests from the Keyring, without a lock and without allocating memory.
//
//	decision.go    the rules of a decision; request.go, credential.go and verdict.go have the types around it
//	readiness.go   when no decision is possible
//	keyring.go     the Keyring: a Reflector writes it, the Authenticator reads it
//	store.go       the tokens, indexed by token and by object; index.go is the index
//	key.go         reduces an APIKey to the parts that the store holds
//	decode.go      decodes the responses of the Kubernetes API
//	reflector.go   lists and watches
package authn
