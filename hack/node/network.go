// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"net"
	"net/netip"
	"strings"
)

// The network of the node. It is isolated, so its addresses need only be unused on this machine.
var (
	hostAddress  = netip.MustParseAddr("10.98.0.1")
	nodeAddress  = netip.MustParseAddr("10.98.0.2")
	podRange     = netip.MustParsePrefix("10.245.0.0/24")
	serviceRange = netip.MustParsePrefix("10.97.0.0/16")
	dnsAddress   = netip.MustParseAddr("10.97.0.10")
)

// linkName is the network interface at this machine's end of the link.
const linkName = "apikey-node"

// connect links the network namespace to this machine, and adds routes to pods and Services.
func connect(ctx context.Context, inside namespaces) error {
	for _, command := range []string{
		"link add " + linkName + " type veth peer name eth0 netns " + inside.String(),
		"address add " + hostAddress.String() + "/30 dev " + linkName,
		"link set " + linkName + " up",
		"route add " + podRange.String() + " via " + nodeAddress.String(),
		"route add " + serviceRange.String() + " via " + nodeAddress.String(),
	} {
		if err := run(ctx, nil, ip(command)...); err != nil {
			return err
		}
	}
	for _, command := range []string{
		"link set lo up",
		"address add " + nodeAddress.String() + "/30 dev eth0",
		"link set eth0 up",
		"route add default via " + hostAddress.String(),
	} {
		if err := inside.run(ctx, nil, ip(command)...); err != nil {
			return err
		}
	}
	return nil
}

// disconnect removes the link and its routes, if they exist.
func disconnect(ctx context.Context) error {
	if _, err := net.InterfaceByName(linkName); err != nil {
		return nil //nolint:nilerr // the kernel has removed the link with the namespaces
	}
	return run(ctx, nil, ip("link delete "+linkName)...)
}

func ip(command string) []string { return append([]string{"ip"}, strings.Fields(command)...) }
