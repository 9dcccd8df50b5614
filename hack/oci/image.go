// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// config returns what the Dockerfile declares. test/release compares the two.
func config(version string) v1.Config {
	return v1.Config{
		User:       "65532:65532",
		Entrypoint: []string{"/apikey-operator"},
		Labels: map[string]string{
			"org.opencontainers.image.title":       "apikey-operator",
			"org.opencontainers.image.description": "API keys for services on Kubernetes",
			"org.opencontainers.image.licenses":    "Apache-2.0",
			"org.opencontainers.image.version":     version,
		},
	}
}

// imageWriter returns a writer of an index with an image for each argument ARCH=DIR.
func imageWriter(flags *flag.FlagSet) writer {
	source := flags.String("source", "", "the URL of the source code")
	revision := flags.String("revision", "", "the commit")
	seconds := flags.Int64("created", 0, "the time of the commit, in seconds since 1970")
	return func(_ context.Context, target layout.Path, reference name.Tag) (v1.Hash, error) {
		created := time.Unix(*seconds, 0).UTC()
		index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
		for _, arg := range flags.Args() {
			arch, dir, ok := strings.Cut(arg, "=")
			if !ok {
				return v1.Hash{}, fmt.Errorf("%s: write it as ARCH=DIR", arg)
			}
			image, err := newImage(arch, dir, reference.TagStr(), created)
			if err != nil {
				return v1.Hash{}, err
			}
			platform := &v1.Platform{OS: "linux", Architecture: arch}
			index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
		}
		annotations := config(reference.TagStr()).Labels
		annotations["org.opencontainers.image.source"] = *source
		annotations["org.opencontainers.image.revision"] = *revision
		annotations["org.opencontainers.image.created"] = created.Format(time.RFC3339)
		index = mutate.Annotations(index, annotations).(v1.ImageIndex)
		if err := target.AppendIndex(index, named(reference)); err != nil {
			return v1.Hash{}, err
		}
		return index.Digest()
	}
}

// newImage returns an image with the files of a directory in its only layer.
func newImage(arch, dir, version string, created time.Time) (v1.Image, error) {
	files, err := archive(dir, created)
	if err != nil {
		return nil, err
	}
	opener := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil }
	layer, err := tarball.LayerFromOpener(opener, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	image, err := mutate.Append(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON),
		mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: created}, CreatedBy: "hack/oci"}})
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Created, file.Config = "linux", arch, v1.Time{Time: created}, config(version)
	return mutate.ConfigFile(image, file)
}

// archive returns the files of a directory as a tar archive that names no user and no time of the build.
func archive(dir string, created time.Time) ([]byte, error) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, err
	}
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		info, err := entry.Info()
		if err != nil {
			return nil, err
		}
		mode := int64(0o644)
		if info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		if err := writer.WriteHeader(&tar.Header{Name: entry.Name(), Size: int64(len(content)), Mode: mode, ModTime: created}); err != nil {
			return nil, err
		}
		if _, err := writer.Write(content); err != nil {
			return nil, err
		}
	}
	return buffer.Bytes(), writer.Close()
}
