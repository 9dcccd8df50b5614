// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// installCRDs installs the CustomResourceDefinitions of a directory and returns when the API server serves their resources.
func (p *ControlPlane) installCRDs(context.Context) error {
	if p.options.CRDDir == "" {
		return nil
	}
	_, err := envtest.InstallCRDs(p.admin, envtest.CRDInstallOptions{
		Paths:              []string{p.options.CRDDir},
		ErrorIfPathMissing: true,
		MaxTime:            20 * time.Second,
		PollInterval:       50 * time.Millisecond,
	})
	return err
}
