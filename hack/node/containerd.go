// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"squirrel.dev/apikey-operator/hack/process"
)

const (
	containerdSocket = "/run/containerd/containerd.sock"
	pauseImage       = "localhost/pause:1"
	dnsImage         = "localhost/coredns:1"
)

func (n *node) startContainerd(ctx context.Context) error {
	return n.startInside(ctx, process.Command{
		Name: "containerd",
		Args: []string{"containerd", "--config", n.config("containerd.toml")},
		Ready: func(ctx context.Context) error {
			return n.inside.run(ctx, nil, "ctr", "--address", containerdSocket, "version")
		},
	})
}

// systemImages returns the archives of the images of the system: the pause container of pods, and CoreDNS.
func (p paths) systemImages() []string {
	return []string{filepath.Join(p.images, "pause.tar"), filepath.Join(p.images, "coredns.tar")}
}

// load loads images into the running node.
func load(ctx context.Context, paths paths, archives []string) error {
	inside, err := findNamespaces(paths)
	if err != nil {
		return err
	}
	return inside.load(ctx, archives)
}

func (n namespaces) load(ctx context.Context, archives []string) error {
	for _, archive := range archives {
		file, err := os.Open(archive) // outside of the namespaces: their directories differ
		if err != nil {
			return fmt.Errorf("load an image: %w", err)
		}
		err = n.run(ctx, file, "ctr", "--address", containerdSocket, "--namespace", "k8s.io", "images", "import", "-")
		_ = file.Close()
		if err != nil {
			return fmt.Errorf("load the image %s: %w", archive, err)
		}
	}
	return nil
}
