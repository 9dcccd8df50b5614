// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 defines the APIKey resource: its types, its schema, its conditions and how it is decoded.
//
// +kubebuilder:object:generate=true
// +groupName=keys.squirrel.dev
package v1alpha1
