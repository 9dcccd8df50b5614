// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package config applies config/ to an API server. It checks that the API server accepts the manifests, that every process has the
// permissions it needs and no others, and that the policies are enforced.
package config
