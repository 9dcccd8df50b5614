// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// chartWriter returns a writer that lets Helm push the chart to a registry in this process, and copies it from there. Helm pushes to
// registries only, and it defines the media types and the annotations of charts.
func chartWriter(flags *flag.FlagSet) writer {
	helm := flags.String("helm", "", "the program Helm")
	return func(ctx context.Context, target layout.Path, reference name.Tag) (v1.Hash, error) {
		if flags.NArg() != 1 {
			return v1.Hash{}, errors.New("give one chart archive")
		}
		host, stop, err := serveRegistry(ctx)
		if err != nil {
			return v1.Hash{}, err
		}
		defer stop()
		pushed, err := name.NewTag(fmt.Sprintf("%s/%s:%s", host, reference.RepositoryStr(), reference.TagStr()), name.Insecure)
		if err != nil {
			return v1.Hash{}, err
		}
		push := exec.CommandContext(ctx, *helm, "push", flags.Arg(0), "oci://"+path.Dir(pushed.Repository.Name()), "--plain-http")
		push.Stdout, push.Stderr = os.Stderr, os.Stderr
		push.Env = append(os.Environ(), "TZ=UTC") // the manifest has the archive's time, in the local time zone
		if err := push.Run(); err != nil {
			return v1.Hash{}, fmt.Errorf("helm push: %w", err)
		}
		chart, err := remote.Image(pushed, remote.WithContext(ctx))
		if err != nil {
			return v1.Hash{}, err
		}
		if err := target.AppendImage(chart, named(reference)); err != nil {
			return v1.Hash{}, err
		}
		return chart.Digest()
	}
}

// serveRegistry starts an empty registry in memory, and returns its address and a function that stops it.
func serveRegistry(ctx context.Context) (host string, stop func(), err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{
		Handler:           registry.New(registry.Logger(log.New(io.Discard, "", 0))),
		ReadHeaderTimeout: time.Minute,
	}
	go func() { _ = server.Serve(listener) }() // returns when stop closes it
	return listener.Addr().String(), func() { _ = server.Close() }, nil
}
