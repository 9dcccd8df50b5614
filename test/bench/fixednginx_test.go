// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/proxies"
)

// startFixedNginx starts nginx, which returns 200 with the headers of a granted check, and nothing else.
func startFixedNginx(t *testing.T, s *server) (address string, started *process.Process) {
	t.Helper()
	granted, err := http.Get("http://" + s.address + "/fixed/granted/namespace-0")
	framework.Must(t, err)
	defer func() { _ = granted.Body.Close() }()
	address = binaries.FreeAddress(t)
	var configuration strings.Builder
	fmt.Fprintf(&configuration, "keepalive_requests 1000000000;\ndefault_type '';\nserver {\n  listen %s;\n", address)
	for name, values := range granted.Header {
		if !slices.Contains([]string{"Date", "Content-Length"}, name) { // nginx adds them
			fmt.Fprintf(&configuration, "  add_header %s %q;\n", name, values[0])
		}
	}
	configuration.WriteString("  location / { return 200; }\n}\n")
	return address, proxies.RunNginx(t, address, configuration.String()).Process
}
