// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package testcache keeps Go from reusing a cached test result that is out of date.
//
// Go runs a test again only if its packages, or files that the test itself has opened, have changed. It does not see the files that a child
// process reads, such as those that `go build` compiles or `kubectl apply` sends. A test that runs such a process calls [DependOn].
package testcache

import (
	"io/fs"
	"path/filepath"

	"squirrel.dev/apikey-operator/hack/controlplane"
)

// OperatorSources are the directories of this repository that cmd/apikey-operator is compiled from.
var OperatorSources = []string{"api", "cmd/apikey-operator", "console", "controllers", "internal", "webhook"}

// DependOn makes the cached result of the running test depend on all files in these directories of the repository.
func DependOn(directories ...string) error {
	root, err := controlplane.FindRepository()
	if err != nil {
		return err
	}
	for _, directory := range directories {
		// Go records each directory that the test reads, with the names, sizes and times of its files.
		err := filepath.WalkDir(filepath.Join(root, directory), func(_ string, _ fs.DirEntry, err error) error { return err })
		if err != nil {
			return err
		}
	}
	return nil
}
