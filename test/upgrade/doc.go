// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package upgrade upgrades an installation from the previous release to this version, and returns to it. `make test-upgrade` builds the
// release from the history of this repository.
package upgrade
