// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package scale measures the figures of docs/benchmarks.md that need a Kubernetes API with very many APIKeys.
package scale
