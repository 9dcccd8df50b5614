// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package usage serves the last uses of tokens to the controller.
package usage
