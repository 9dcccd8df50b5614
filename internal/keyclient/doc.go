// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package keyclient creates, rotates and deactivates APIKeys. The console and kubectl-apikey share it.
package keyclient
