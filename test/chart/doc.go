// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package chart tests the Helm chart: `make test-chart`.
package chart
