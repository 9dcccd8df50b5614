// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// start starts a command as the leader of a process group. Ctrl-C in a terminal then reaches only this program, which stops the command in
// order. The kernel kills the command when this program is killed.
func start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, syscall.SIGKILL
	result := make(chan error)
	starter() <- func() { result <- cmd.Start() }
	return <-result
}

// starter returns a channel of functions that one permanent thread runs. The kernel sends the death signal at the end of the thread that
// started the child. Go may end any thread, except one that is locked to a goroutine that never returns.
var starter = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for do := range work {
			do()
		}
	}()
	return work
})
