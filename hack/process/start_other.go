// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package process

import (
	"os/exec"
	"syscall"
)

// start starts a command as the leader of a process group. Ctrl-C in a terminal then reaches only this program, which stops the command in
// order.
func start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	return cmd.Start()
}
