// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package mutants tests the simulation: it must find each of many faults in the product, which list_test.go lists.
package mutants
