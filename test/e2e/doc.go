// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package e2e installs the image in a cluster and uses it like a tenant: `make e2e`. By default it starts a cluster of one node. If
// the environment has IMAGE, it uses the cluster of KUBECONFIG, which must be able to pull these images:
//
//	IMAGE          apikey-operator
//	UPGRADE_IMAGE  the same image with another tag
//	TRAFFIC_IMAGE  the client and the backend: bin/images/traffic.tar, or a static build of test/e2e/traffic as the entry point
//	GATEWAY_IMAGE  Caddy as the entry point: bin/images/caddy.tar, or a static build
//
// It writes its measurements to bin/e2e/report.md.
package e2e
