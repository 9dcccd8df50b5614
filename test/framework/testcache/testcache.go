// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package testcache tells Go what the result of a test depends on. Go keeps results, and runs a test again when something changed that the
// test itself is built of or has read: it knows nothing of what other programs read that the test runs, such as `go build` and kubectl.
package testcache

import (
	"io/fs"
	"path/filepath"

	"squirrel.dev/apikey-operator/hack/controlplane"
)

// Program are the directories of this repository that cmd/apikey-operator is built of.
var Program = []string{"api", "cmd/apikey-operator", "console", "controllers", "internal", "webhook"}

// Note has the result of the test that runs depend on these directories of this repository, and all that is in them.
func Note(directories ...string) error {
	root, err := controlplane.FindRepository()
	if err != nil {
		return err
	}
	for _, directory := range directories {
		// Go notes each directory that is read, with the names, sizes and times of its files.
		err := filepath.WalkDir(filepath.Join(root, directory), func(_ string, _ fs.DirEntry, err error) error { return err })
		if err != nil {
			return err
		}
	}
	return nil
}
