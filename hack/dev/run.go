// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// The sample key of the instructions, and the namespace of the samples, which the console manages.
const (
	sampleKey       = "frontend"
	sampleNamespace = consoleNamespace
)

// run runs apikey-operator with the samples until ctx is done. It keeps the data until a run with reset. The data and bin/dev/env belong to
// one run at a time.
func run(ctx context.Context, w workspace, reset bool) (err error) {
	unlock, err := lock(w.home)
	if err != nil {
		return err
	}
	defer unlock()
	data, env := filepath.Join(w.home, "data"), filepath.Join(w.home, "env")
	if reset {
		if err := os.RemoveAll(data); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(env); err != nil { // of a run that was killed
		return err
	}
	s := &stack{workspace: w, dir: data, logDir: filepath.Join(w.home, "log")}
	if err := s.start(ctx); err != nil {
		return err
	}
	defer func() {
		w.printLine("\nStopping ...")
		err = errors.Join(err, s.stop())
	}()
	if err := s.applySamples(ctx); err != nil {
		return err
	}
	if err := s.writeEnvironment(env); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(env)) }()
	w.printLine(instructions, relative(env), sampleKey, sampleNamespace, relative(s.logDir), relative(s.apiKeyFile), relative(w.home))
	w.printLine("ready")
	return s.wait(ctx)
}

const instructions = `
apikey-operator is running. In another terminal, here:

  . %[1]s
  "$KUBECTL" get apikeys

  # the token of the sample key %[2]q, as a header in a file that only you can read
  (umask 077; "$KUBECTL" get secret %[2]s-token --output go-template='X-API-Key: {{.data.token | base64decode}}' >%[6]s/%[2]s.header)

  # check a read: 200, with the key in the headers; check a write: 401
  curl -i -H @%[6]s/%[2]s.header -H "X-Forwarded-Method: GET"  $AUTH_URL/auth/forward/%[3]s
  curl -i -H @%[6]s/%[2]s.header -H "X-Forwarded-Method: POST" $AUTH_URL/auth/forward/%[3]s

  # deactivate the key, which is final
  "$KUBECTL" patch apikey %[2]s --type merge --patch '{"spec": {"active": false}}'

  # create and list keys with the REST API and the bootstrap key of the file %[5]s
  (umask 077; sed 's/^/X-API-Key: /' "$API_KEY_FILE" >%[6]s/bootstrap.header)
  curl -H @%[6]s/bootstrap.header -H "Content-Type: application/json" $CONSOLE_URL/api/v1/api-keys \
    --data '{"app_name": "My App", "read_access": true, "write_access": false}'
  curl -H @%[6]s/bootstrap.header $CONSOLE_URL/api/v1/api-keys

  # open this URL in a browser, and paste the bootstrap key under Settings
  echo $CONSOLE_URL

  # create and list keys with the kubectl plugin
  bin/kubectl-apikey create "My Tool" -r -w
  bin/kubectl-apikey list

The logs are in %[4]s. Ctrl-C stops everything and keeps the data for the next run; "make run RESET=1" deletes it.`

// lock prevents a second run in a directory. The kernel removes the lock when this program ends, even if that is killed.
func lock(home string) (unlock func(), err error) {
	if err := os.MkdirAll(home, 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(home, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		pid, _ := io.ReadAll(file)
		_ = file.Close()
		return nil, fmt.Errorf("`make run` is running already, as process %s, with its addresses in %s: stop it first, "+
			"or run `make demo`, which can run at the same time", pid, relative(filepath.Join(home, "env")))
	}
	if err := writePID(file); err != nil {
		_ = file.Close()
		return nil, err
	}
	return func() { _ = file.Close() }, nil
}

func writePID(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := fmt.Fprint(file, os.Getpid())
	return err
}

// applySamples applies the samples and waits until one of them is ready. It only prints failures, because a change of an earlier run may
// conflict with the samples.
func (s *stack) applySamples(ctx context.Context) error {
	samples := s.config("samples")
	s.printLine("Applying %s ...", relative(samples))
	if err := s.deleteUsedSample(ctx); err != nil {
		return err
	}
	for _, command := range [][]string{
		{"apply", "--kustomize", samples},
		{"wait", "apikey", sampleKey, "--for=condition=Ready", "--timeout=60s"},
	} {
		_, err := s.plane.Kubectl(ctx, "", append(command, "--namespace", sampleNamespace)...)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			s.printLine("Cannot apply all samples; `make run RESET=1` starts without data. %v", err)
			return nil
		}
	}
	return nil
}

// deleteUsedSample deletes the sample key if its Secret is gone, because the key has ended or its token was revealed in an earlier run. The
// instructions read this Secret.
func (s *stack) deleteUsedSample(ctx context.Context) error {
	namespaced := func(command ...string) (string, error) {
		return s.plane.Kubectl(ctx, "", append(command, "--namespace", sampleNamespace, "--ignore-not-found")...)
	}
	secret, err := namespaced("get", "secret", sampleKey+"-token", "--output", "name")
	if err != nil || secret != "" {
		return err
	}
	_, err = namespaced("delete", "apikey", sampleKey)
	return err
}

// writeEnvironment writes a shell script that sets the variables of the instructions.
func (s *stack) writeEnvironment(path string) error {
	variables := [][2]string{
		{"KUBECONFIG", s.plane.Kubeconfig()},
		{"KUBECTL", s.plane.Binary("kubectl")},
		{"AUTH_URL", s.authURL},
		{"AUTH_GRPC", s.authGRPC},
		{"CONSOLE_URL", s.consoleURL},
		{"API_KEY_FILE", s.apiKeyFile},
	}
	var content, names strings.Builder
	for _, variable := range variables {
		fmt.Fprintf(&content, "%s=%s\n", variable[0], shellQuote(variable[1]))
		names.WriteString(" " + variable[0])
	}
	fmt.Fprintf(&content, "export%s\n", names.String())
	return os.WriteFile(path, []byte(content.String()), 0o600)
}

var unquoted = regexp.MustCompile(`^[\w./:@%+=,-]+$`)

// shellQuote quotes an argument for a POSIX shell.
func shellQuote(argument string) string {
	if unquoted.MatchString(argument) {
		return argument
	}
	return "'" + strings.ReplaceAll(argument, "'", `'\''`) + "'"
}

// relative returns a path relative to the working directory.
func relative(path string) string {
	dir, err := os.Getwd()
	if err != nil {
		return path
	}
	if short, err := filepath.Rel(dir, path); err == nil {
		return short
	}
	return path
}
