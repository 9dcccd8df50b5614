// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Command kubectl-apikey is the kubectl plugin "kubectl apikey". It creates, lists, finds, rotates, deactivates, prunes, reveals
// and exports API keys.
package main
