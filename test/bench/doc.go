// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package bench measures the figures of docs/benchmarks.md, and records the profile that the image is compiled with.
package bench
