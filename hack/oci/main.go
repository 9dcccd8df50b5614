// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Command oci writes the image or the Helm chart of a release as an OCI image layout, which tools for registries push unchanged. The same
// input gives the same digest. It prints the digest.
//
//	oci image -layout=DIR -name=NAME:TAG -source=URL -revision=COMMIT -created=SECONDS amd64=DIR arm64=DIR
//	oci chart -layout=DIR -name=NAME:TAG -helm=PROGRAM ARCHIVE
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// writer writes an artifact to a layout, with this name in a registry, and returns its digest.
type writer func(ctx context.Context, target layout.Path, reference name.Tag) (v1.Hash, error)

func main() {
	digest, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "oci:", err)
		os.Exit(1)
	}
	fmt.Println(digest)
}

func run(args []string) (v1.Hash, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	writers := map[string]func(*flag.FlagSet) writer{"image": imageWriter, "chart": chartWriter}
	if len(args) == 0 || writers[args[0]] == nil {
		return v1.Hash{}, errors.New("the first argument must be image or chart")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	dir := flags.String("layout", "", "the directory to write")
	tag := flags.String("name", "", "the name and the tag in a registry")
	write := writers[args[0]](flags)
	if err := flags.Parse(args[1:]); err != nil {
		return v1.Hash{}, err
	}
	reference, err := name.NewTag(*tag, name.StrictValidation)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("-name: %w", err)
	}
	target, err := layout.Write(*dir, empty.Index)
	if err != nil {
		return v1.Hash{}, err
	}
	return write(ctx, target, reference)
}

// named annotates the entry of a layout with its tag, as the image specification defines it, and with its whole name for containerd.
func named(reference name.Tag) layout.Option {
	return layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": reference.TagStr(),
		"io.containerd.image.name":          reference.Name(),
	})
}
