// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package release tests the files of a release: `make test-release`.
package release
