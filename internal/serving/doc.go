// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package serving runs the HTTP and gRPC servers of a process. It limits what clients can consume, reports liveness and readiness, and
// drains the servers when the process is asked to stop.
package serving
