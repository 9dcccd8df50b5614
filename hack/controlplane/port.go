// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// port is a reserved TCP port. It stays reserved until it is released, while its server starts or restarts too. Only servers with
// SO_REUSEPORT can bind it.
type port struct {
	netip.AddrPort
	socket int // bound but not listening, so that it receives no connection
}

// reservePort reserves a free port of an IPv4 address.
func reservePort(address netip.Addr) (*port, error) {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	unix.CloseOnExec(socket)
	number, err := bindFree(socket, address)
	if err != nil {
		_ = unix.Close(socket)
		return nil, fmt.Errorf("reserve a port of %s: %w", address, err)
	}
	return &port{AddrPort: netip.AddrPortFrom(address, number), socket: socket}, nil
}

func bindFree(socket int, address netip.Addr) (number uint16, err error) {
	if err := unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return 0, err
	}
	if err := unix.Bind(socket, &unix.SockaddrInet4{Addr: address.As4()}); err != nil {
		return 0, err
	}
	bound, err := unix.Getsockname(socket)
	if err != nil {
		return 0, err
	}
	return uint16(bound.(*unix.SockaddrInet4).Port), nil
}

func (p *port) release() { _ = unix.Close(p.socket) }

func (p *port) url(scheme string) string { return scheme + "://" + p.String() }

// FreePort returns a free TCP port of the loopback address, the preferred one if possible. It does not reserve the port.
func FreePort(preferred int) (int, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(loopback.String(), strconv.Itoa(preferred)))
	if err != nil {
		if listener, err = net.Listen("tcp", net.JoinHostPort(loopback.String(), "0")); err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}
