// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gateways

package gateways_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/test/framework"
)

// readPages returns the pages of directories in docs, by their paths.
func readPages(t *testing.T, directories ...string) map[string]string {
	t.Helper()
	pages := map[string]string{}
	for _, directory := range directories {
		files, err := filepath.Glob(filepath.Join("..", "..", "docs", directory, "*.md"))
		framework.Must(t, err)
		for _, file := range files {
			content, err := os.ReadFile(file)
			framework.Must(t, err)
			pages[file] = string(content)
		}
	}
	if len(pages) == 0 {
		t.Fatal("no page was found")
	}
	return pages
}

// notInFrontOfServices are the pages without a gateway that forwards requests to a service.
var notInFrontOfServices = []string{"README.md", "conformance.md", "kube-apiserver.md", "middleware.md", "services.md"}

func TestPages_EachGatewayRemovesMethodOverrides(t *testing.T) {
	for file, page := range readPages(t, "gateways") {
		if slices.Contains(notInFrontOfServices, filepath.Base(file)) {
			continue
		}
		for _, header := range []string{"x-http-method-override", "x-http-method", "x-method-override"} {
			if !strings.Contains(strings.ToLower(page), header) {
				t.Errorf("%s does not name %s", file, header)
			}
		}
	}
}

// Each page is in the table of the index, so that users find it.
func TestPages_TheIndexListsEachGateway(t *testing.T) {
	pages := readPages(t, "gateways")
	index := pages[filepath.Join("..", "..", "docs", "gateways", "README.md")]
	for file := range pages {
		if name := filepath.Base(file); name != "README.md" && !strings.Contains(index, "]("+name+")") {
			t.Errorf("the index has no link to %s", name)
		}
	}
}
