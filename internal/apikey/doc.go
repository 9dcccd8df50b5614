// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package apikey holds the rules for APIKeys that all processes share. They determine whether a key is active, which keys of a namespace
// conflict, how a cache finds them, and which Secret holds the token of a key.
package apikey
