// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package version reports the version of a build.
package version

import "runtime/debug"

// release is set by the linker: -ldflags="-X squirrel.dev/apikey-operator/internal/version.release=v1.2.3".
var release string

// String returns the version of the release, or that of the main module in the build information.
func String() string {
	if release != "" {
		return release
	}
	if build, ok := debug.ReadBuildInfo(); ok {
		return build.Main.Version
	}
	return "unknown"
}
