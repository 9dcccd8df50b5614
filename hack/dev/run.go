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

// The sample key that the instructions are about, and where the samples are applied to, so that the console manages them.
const (
	sampleKey       = "frontend"
	sampleNamespace = consoleNamespace
)

// run runs apikey-operator, with the samples applied, until ctx is done. Its data lasts until a run with reset.
//
// Only one runs at a time: two could not share the data, nor bin/dev/env, which says where "the" one is.
func run(ctx context.Context, place place, reset bool) (err error) {
	unlock, err := lock(place.home)
	if err != nil {
		return err
	}
	defer unlock()
	data, env := filepath.Join(place.home, "data"), filepath.Join(place.home, "env")
	if reset {
		if err := os.RemoveAll(data); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(env); err != nil { // left by a run that was killed
		return err
	}
	s := &stack{place: place, dir: data, logDir: filepath.Join(place.home, "log")}
	if err := s.start(ctx); err != nil {
		return err
	}
	defer func() {
		place.say("\nStopping ...")
		err = errors.Join(err, s.stop())
	}()
	if err := s.applySamples(ctx); err != nil {
		return err
	}
	if err := s.writeEnvironment(env); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(env)) }()
	place.say(instructions, relative(env), sampleKey, sampleNamespace, relative(s.logDir), relative(s.apiKeyFile))
	place.say("ready")
	return s.wait(ctx)
}

const instructions = `
apikey-operator is running. In another terminal, here:

  . %[1]s
  $KUBECTL get apikeys

  # the token that was minted for the sample key %[2]q
  TOKEN=$($KUBECTL get secret %[2]s-token --output go-template='{{.data.token | base64decode}}')

  # may it read? 200, and whose key it is; may it write? 401
  curl -i -H "X-API-Key: $TOKEN" -H "X-Forwarded-Method: GET"  $AUTH_URL/auth/forward/%[3]s
  curl -i -H "X-API-Key: $TOKEN" -H "X-Forwarded-Method: POST" $AUTH_URL/auth/forward/%[3]s

  # end it, for good
  $KUBECTL patch apikey %[2]s --type merge --patch '{"spec": {"active": false}}'

  # create a key by the REST API, with the bootstrap key, which is in the file %[5]s
  API_KEY=$(cat "$API_KEY_FILE")
  curl -H "X-API-Key: $API_KEY" -H "Content-Type: application/json" $CONSOLE_URL/api/v1/api-keys \
    --data '{"app_name": "My App", "read_access": true, "write_access": false}'
  curl -H "X-API-Key: $API_KEY" $CONSOLE_URL/api/v1/api-keys

  # in a browser: open this, and paste the bootstrap key under Settings
  echo $CONSOLE_URL

  # by the kubectl plugin
  bin/kubectl-apikey create "My Tool" -r -w
  bin/kubectl-apikey list

Logs are in %[4]s. Ctrl-C ends it all; the data stays for the next run, until "make run RESET=1".`

// lock makes sure that no other run goes on in this directory. The kernel unlocks when this program ends, however it ends.
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
		return nil, fmt.Errorf("`make run` is running already, as process %s: %s says how to reach it. Stop that one first; "+
			"`make demo` can run beside it", pid, relative(filepath.Join(home, "env")))
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

// applySamples applies the samples, and waits for one of them to be ready. What a user did in an earlier run may contradict them: that is
// said, and is no error.
func (s *stack) applySamples(ctx context.Context) error {
	samples := s.config("samples")
	s.say("Applying %s ...", relative(samples))
	for _, command := range [][]string{
		{"apply", "--kustomize", samples},
		{"wait", "apikey", sampleKey, "--for=condition=Ready", "--timeout=60s"},
	} {
		_, err := s.plane.Kubectl(ctx, "", append(command, "--namespace", sampleNamespace)...)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			s.say("Not every sample is in place; `make run RESET=1` starts afresh. %v", err)
			return nil
		}
	}
	return nil
}

// writeEnvironment writes where everything is, for shells.
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

var plainWord = regexp.MustCompile(`^[\w./:@%+=,-]+$`)

// shellQuote returns the word as a POSIX shell reads it.
func shellQuote(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// relative returns a path as it is called from here.
func relative(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	if short, err := filepath.Rel(here, path); err == nil {
		return short
	}
	return path
}
