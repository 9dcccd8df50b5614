// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"strings"
	"testing"
)

func TestParseToken(t *testing.T) {
	const (
		noToken  = "the input has no token: enter one at the prompt, or pipe it to the command"
		notOne   = "the input is not one token: a token has no spaces, line breaks, commas or characters other than ASCII"
		tooLong  = "the input is longer than 4096 bytes: enter only a token"
		bareWord = "a-Token_1.2~3+4/5=="
	)
	for name, test := range map[string]struct{ input, want, err string }{
		"a token":                      {input: "sq_0123", want: "sq_0123"},
		"an imported token":            {input: bareWord, want: bareWord},
		"a line":                       {input: "sq_0123\n", want: "sq_0123"},
		"a line of Windows":            {input: "sq_0123\r\n", want: "sq_0123"},
		"a pipe of PowerShell":         {input: "\ufeffsq_0123\r\n", want: "sq_0123"},
		"white space":                  {input: " \t\n sq_0123 \u00a0\n\n", want: "sq_0123"},
		"a header value":               {input: "Bearer sq_0123\n", want: "sq_0123"},
		"a header value in lower case": {input: " bearer  sq_0123", want: "sq_0123"},
		"a token like the scheme":      {input: "Bearersq_0123", want: "Bearersq_0123"},
		"nothing":                      {err: noToken},
		"an empty line":                {input: " \r\n", err: noToken},
		"only the scheme":              {input: "Bearer \n", err: noToken},
		"two lines":                    {input: "sq_0123\nsq_4567\n", err: notOne},
		"two schemes":                  {input: "Bearer Bearer sq_0123", err: notOne},
		"two joined headers":           {input: "sq_0123,sq_4567", err: notOne},
		"a whole header":               {input: "X-API-Key: sq_0123", err: notOne},
		"a control character":          {input: "sq_01\x0023", err: notOne},
		"a letter outside of ASCII":    {input: "sq_é", err: notOne},
		"not UTF-8":                    {input: "sq_\xff", err: notOne},
		"the longest input":            {input: strings.Repeat("x", 4096), want: strings.Repeat("x", 4096)},
		"a file":                       {input: strings.Repeat("x", 4097), err: tooLong},
	} {
		got, err := parseToken(test.input)
		if message := ""; got != test.want || (err != nil) != (test.err != "") || (err != nil && err.Error() != test.err) {
			if err != nil {
				message = err.Error()
			}
			t.Errorf("%s: %q, %q", name, got, message)
		}
	}
}

func TestInputToken_CtrlCEndsTheWait(t *testing.T) {
	reader, writer := io.Pipe()
	t.Cleanup(func() { _ = writer.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := inputToken(ctx, reader, io.Discard); err == nil || err.Error() != "interrupted" {
		t.Errorf("the error is %v", err)
	}
}
