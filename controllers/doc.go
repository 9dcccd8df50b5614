// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package controllers holds the controller of APIKeys. It issues, deactivates and expires keys. It is the only writer of their status and
// of their one-time Secrets.
package controllers
