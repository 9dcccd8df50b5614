// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

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
			return n.inside.run(ctx, nil, ctr("version")...)
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
		err = n.run(ctx, file, ctr("images", "import", "-")...)
		_ = file.Close()
		if err != nil {
			return fmt.Errorf("load the image %s: %w", archive, err)
		}
	}
	return n.nameByDigest(ctx)
}

// nameByDigest gives each image a second name, NAME@DIGEST, as pulling it would do. Manifests of a release name their image by its digest.
func (n namespaces) nameByDigest(ctx context.Context) error {
	list, err := n.output(ctx, nil, ctr("images", "list")...)
	if err != nil {
		return err
	}
	for _, line := range strings.Split(strings.TrimSpace(list), "\n")[1:] { // the first line is a header
		columns := strings.Fields(line)
		tagged, digest := columns[0], columns[2]
		colon := strings.LastIndexByte(tagged, ':')
		if colon < 0 || strings.Contains(tagged, "@") || strings.HasPrefix(tagged, "sha256:") {
			continue // it is such a name, or an ID of the kubelet
		}
		name := tagged[:colon]
		if err := n.run(ctx, nil, ctr("images", "tag", "--force", tagged, name+"@"+digest)...); err != nil {
			return err
		}
	}
	return nil
}

// ctr returns the command line of containerd's client, for the images of Kubernetes.
func ctr(args ...string) []string {
	return append([]string{"ctr", "--address", containerdSocket, "--namespace", "k8s.io"}, args...)
}
