// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package gitops runs the manifests of docs/operations/gitops.md with the real tools: Flux's kustomize-controller, Helm and kubectl, which
// `make test-gitops` builds.
package gitops
