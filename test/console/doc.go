// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package console tests the web console in a real browser, which `make test-console` downloads.
package console
