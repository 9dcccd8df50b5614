// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"squirrel.dev/apikey-operator/test/framework"
)

func TestWhose_ReadsFromATerminalThatDoesNotShowTheToken(t *testing.T) {
	terminal := newTerminalWithController(t)
	plaintext := tokenIn(terminal.run("create", "Frontend App", "-r").stdout)
	user, tty := openTerminal(t)
	command := terminal.command("whose", "-n", terminal.namespace, "-o", "jsonpath={.spec.appName}")
	command.Stdin = tty
	wait := terminal.start(command)
	awaitEcho(t, tty, false)
	_, err := user.WriteString(plaintext + "\n")
	framework.Must(t, err)
	if got := wait(); got != (result{stdout: "Frontend App", stderr: "Token (not shown): \n"}) {
		t.Errorf("whose: %+v", got)
	}
	awaitEcho(t, tty, true)
	framework.Must(t, user.SetReadDeadline(time.Now()))
	shown := make([]byte, 1000)
	if n, err := user.Read(shown); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the terminal shows %q, %v", shown[:n], err)
	}
}

func TestWhose_CtrlCLetsTheTerminalShowInputAgain(t *testing.T) {
	terminal := newTerminal(t)
	_, tty := openTerminal(t)
	command := terminal.command("whose")
	command.Stdin = tty
	wait := terminal.start(command)
	awaitEcho(t, tty, false)
	framework.Must(t, command.Process.Signal(syscall.SIGINT))
	if got := wait(); got.code != exitFailure || got.stdout != "" || !strings.HasSuffix(got.stderr, "Error: interrupted\n") {
		t.Errorf("whose: %+v", got)
	}
	awaitEcho(t, tty, true)
}

// openTerminal returns the two ends of a pseudoterminal: that of the user, and that of the command.
func openTerminal(t *testing.T) (user, tty *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	framework.Must(t, err)
	t.Cleanup(func() { _ = user.Close() })
	var number int
	framework.Must(t, control(user, func(fd int) (err error) {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	}))
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	framework.Must(t, err)
	t.Cleanup(func() { _ = tty.Close() })
	return user, tty
}

// awaitEcho waits until a terminal shows its input, or does not.
func awaitEcho(t *testing.T, tty *os.File, wanted bool) {
	t.Helper()
	framework.Eventually(t, fmt.Sprintf("the terminal shows its input: %t", wanted), func() bool {
		var state *unix.Termios
		framework.Must(t, control(tty, func(fd int) (err error) {
			state, err = unix.IoctlGetTermios(fd, unix.TCGETS)
			return err
		}))
		return (state.Lflag&unix.ECHO != 0) == wanted
	})
}

// control calls a function with the descriptor of a file, and leaves the file's deadlines usable.
func control(file *os.File, call func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	return errors.Join(raw.Control(func(fd uintptr) { err = call(int(fd)) }), err)
}
