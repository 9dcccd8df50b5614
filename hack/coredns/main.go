// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Command coredns is CoreDNS with the plugins for the DNS of a cluster, and without those that send queries to other servers.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/ready"
)

func init() {
	// A query passes the plugins in this order.
	dnsserver.Directives = []string{"health", "ready", "log", "errors", "cache", "kubernetes"}
}

func main() { coremain.Run() }
