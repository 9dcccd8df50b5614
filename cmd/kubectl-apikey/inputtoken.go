// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// maxInput is the maximum length of an input, in bytes. Tokens are shorter.
const maxInput = 4096

// inputToken reads a token from a terminal, without showing it, or from a pipe.
func inputToken(ctx context.Context, in io.Reader, prompt io.Writer) (string, error) {
	read := func() ([]byte, error) { return io.ReadAll(io.LimitReader(in, maxInput+1)) }
	restore := func() {}
	if file, isFile := in.(*os.File); isFile && term.IsTerminal(int(file.Fd())) {
		fd := int(file.Fd())
		state, err := term.GetState(fd)
		if err != nil {
			return "", err
		}
		restore = func() { _ = term.Restore(fd, state) }
		read = func() ([]byte, error) { return readHidden(fd, prompt) }
	}
	type result struct {
		input []byte
		err   error
	}
	done := make(chan result, 1)
	go func() {
		input, err := read()
		done <- result{input, err}
	}()
	select {
	case <-ctx.Done(): // the read cannot be interrupted
		restore()
		return "", errors.New("interrupted")
	case got := <-done:
		if got.err != nil {
			return "", fmt.Errorf("read the token: %w", got.err)
		}
		return parseToken(string(got.input))
	}
}

// readHidden reads a line from a terminal that shows no input.
func readHidden(fd int, prompt io.Writer) ([]byte, error) {
	if _, err := io.WriteString(prompt, "Token (not shown): "); err != nil {
		return nil, err
	}
	line, err := term.ReadPassword(fd)
	if errors.Is(err, io.EOF) { // Ctrl-D
		err = nil
	}
	_, _ = io.WriteString(prompt, "\n")
	return line, err
}

// parseToken returns the token in an input: the token alone, or the value of an Authorization header. The error does not repeat the input.
func parseToken(input string) (string, error) {
	text := strings.TrimSpace(strings.TrimPrefix(input, "\ufeff")) // PowerShell writes a byte order mark to a pipe
	if fields := strings.Fields(text); len(fields) > 0 && strings.EqualFold(fields[0], "Bearer") {
		text = strings.TrimSpace(text[len(fields[0]):])
	}
	isOther := func(r rune) bool { return r <= ' ' || r > '~' || r == ',' } // than in the tokens that authenticators accept
	switch {
	case text == "":
		return "", errors.New("the input has no token: enter one at the prompt, or pipe it to the command")
	case len(input) > maxInput:
		return "", fmt.Errorf("the input is longer than %d bytes: enter only a token", maxInput)
	case strings.ContainsFunc(text, isOther):
		return "", errors.New("the input is not one token: a token has no spaces, line breaks, commas or characters other than ASCII")
	default:
		return text, nil
	}
}
