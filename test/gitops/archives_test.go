// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gitops

package gitops_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"squirrel.dev/apikey-operator/test/framework"
)

// archiveServer serves archives of revisions, as Flux's source-controller does.
type archiveServer struct {
	url      string
	archives sync.Map // the content, by path
}

func startArchiveServer(t *testing.T) *archiveServer {
	t.Helper()
	s := &archiveServer{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, ok := s.archives.Load(r.URL.Path)
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(content.([]byte)) // Flux reports an incomplete archive
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// add serves an archive of files in a directory, and returns its URL and digest.
func (s *archiveServer) add(t testing.TB, dir string, files map[string]string) (url, digest string) {
	t.Helper()
	var archive bytes.Buffer
	compressed := gzip.NewWriter(&archive)
	entries := tar.NewWriter(compressed)
	for name, content := range files {
		framework.Must(t, entries.WriteHeader(&tar.Header{Name: dir + "/" + name, Mode: 0o600, Size: int64(len(content)), Typeflag: tar.TypeReg}))
		_, err := entries.Write([]byte(content))
		framework.Must(t, err)
	}
	framework.Must(t, entries.Close())
	framework.Must(t, compressed.Close())
	hash := fmt.Sprintf("%x", sha256.Sum256(archive.Bytes()))
	path := "/" + hash + ".tar.gz"
	s.archives.Store(path, archive.Bytes())
	return s.url + path, "sha256:" + hash
}
