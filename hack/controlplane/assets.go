// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"errors"
	"os"
	"path/filepath"
)

const assetsVariable = "KUBEBUILDER_ASSETS"

// FindAssets returns the directory of the control plane's binaries: $KUBEBUILDER_ASSETS, or the output directory of `make kube`.
func FindAssets() (string, error) {
	if assets := os.Getenv(assetsVariable); assets != "" {
		return filepath.Abs(assets)
	}
	root, err := FindRepository()
	return filepath.Join(root, "bin", "kube"), err
}

// FindRepository returns the root of this repository. The working directory must be in the main module.
func FindRepository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("the working directory is not in the apikey-operator repository")
		}
		dir = parent
	}
}
