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

// TestProfile records what an authenticator's processor time goes into while it is asked over HTTP and gRPC, for the compiler.
func TestProfile(t *testing.T) {
	s := newServer(t, t.TempDir())
	recorded := make(chan error, 1)
	go func() { recorded <- s.record(inRepository(t, "cmd", "apikey-operator", "authenticator.pgo")) }()

	url, known, unknown := s.scheme+"://"+s.address, writeCheck(t, s.known), writeCheck(t, s.unknown)
	for {
		s.ask(url, "/auth/forward/{namespace}", s.known)
		s.ask(url, "/auth/envoy/{namespace}/orders", s.unknown)
		s.check(authorization, known)
		s.check(authorization, unknown)
		select {
		case err := <-recorded:
			framework.Must(t, err)
			return
		default:
		}
	}
}

// record writes a minute's profile of the server to a file, without what tells of this machine's files.
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
