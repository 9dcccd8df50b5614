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

// ownImages are the archives of the images that every node needs: what holds a pod's network, and the cluster's DNS.
func (p place) ownImages() []string {
	return []string{filepath.Join(p.images, "pause.tar"), filepath.Join(p.images, "coredns.tar")}
}

// load gives the running node images.
func load(ctx context.Context, place place, archives []string) error {
	inside, err := findNamespaces(place)
	if err != nil {
		return err
	}
	return inside.load(ctx, archives)
}

func (n namespaces) load(ctx context.Context, archives []string) error {
	for _, archive := range archives {
		file, err := os.Open(archive) // here: not every directory is the same in there
		if err != nil {
			return fmt.Errorf("cannot load an image: %w", err)
		}
		err = n.run(ctx, file, "ctr", "--address", containerdSocket, "--namespace", "k8s.io", "images", "import", "-")
		_ = file.Close()
		if err != nil {
			return fmt.Errorf("cannot load the image %s: %w", archive, err)
		}
	}
	return nil
}
