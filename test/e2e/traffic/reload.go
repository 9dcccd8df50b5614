// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

const (
	reloadInterval = time.Second
	caddyLoad      = "http://localhost:2019/load" // Caddy's admin endpoint
)

// runReload makes Caddy reload its configuration, like `caddy reload --force`, when a file that the configuration names has changed.
func runReload(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("reload", flag.ContinueOnError)
	watched := flags.String("watch", "", "the file to watch")
	config := flags.String("config", "", "the Caddyfile")
	if err := flags.Parse(args); err != nil {
		return err
	}
	loaded, err := os.ReadFile(*watched)
	if err != nil {
		return err
	}
	interval := time.NewTicker(reloadInterval)
	defer interval.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-interval.C:
		}
		current, err := os.ReadFile(*watched)
		if err != nil {
			return err
		}
		if bytes.Equal(current, loaded) {
			continue
		}
		if err := reload(ctx, *config); err != nil {
			log.Print(err) // the next tick retries
			continue
		}
		log.Printf("Caddy has reloaded %s", *watched)
		loaded = current
	}
}

func reload(ctx context.Context, config string) error {
	content, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, caddyLoad, bytes.NewReader(content))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "text/caddyfile")
	request.Header.Set("Cache-Control", "must-revalidate") // reload even if it is the same
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(response.Body)
		return fmt.Errorf("reload of Caddy: %s: %s", response.Status, body)
	}
	return nil
}
