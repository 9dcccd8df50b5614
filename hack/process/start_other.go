// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package process

import (
	"os/exec"
	"syscall"
)

// start starts a command as the leader of its own process group, so that Ctrl-C in a terminal reaches only this program, which then
// stops it in order.
func start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	return cmd.Start()
}
