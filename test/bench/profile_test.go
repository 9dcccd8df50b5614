// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/google/pprof/profile"

	"squirrel.dev/apikey-operator/test/framework"
)

// TestProfile records a CPU profile of an authenticator under checks over HTTP and gRPC, for the compiler.
func TestProfile(t *testing.T) {
	s := newServer(t, t.TempDir(), manyKeys)
	recorded := make(chan error, 1)
	go func() { recorded <- s.record(inRepository(t, "cmd", "apikey-operator", "authenticator.pgo")) }()

	checks := []func() load{
		s.checks("/auth/forward/{namespace}", s.known), s.checks("/auth/envoy/{namespace}/orders", s.unknown),
		s.checksGRPC(authorization, s.known), s.checksGRPC(authorization, s.unknown),
	}
	for {
		for _, check := range checks {
			check()
		}
		select {
		case err := <-recorded:
			framework.Must(t, err)
			return
		default:
		}
	}
}

// record writes a profile of one minute to a file, without the paths of this machine.
func (s *server) record(file string) error {
	content, err := s.get("/debug/pprof/profile?seconds=60")
	if err != nil {
		return err
	}
	recorded, err := profile.ParseData(content)
	if err != nil {
		return err
	}
	for _, mapping := range recorded.Mapping {
		mapping.File, mapping.BuildID = "", ""
	}
	for _, function := range recorded.Function {
		function.Filename = ""
	}
	var written bytes.Buffer
	if err := recorded.Write(&written); err != nil {
		return err
	}
	return os.WriteFile(file, written.Bytes(), 0o644)
}
