// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package logging

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLimit_CountsSuppressedLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := Limit(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})), 1)
		for range 4 {
			log.With("some", "attribute").Warn("wrong")
			log.WithGroup("some").Debug("detail")
		}
		time.Sleep(time.Minute)
		log.Warn("wrong")

		var lines []string
		for line := range strings.Lines(out.String()) {
			if strings.Contains(line, "msg=wrong") {
				lines = append(lines, line)
			}
		}
		if len(lines) != 2 || strings.Contains(lines[0], "suppressed") || !strings.HasSuffix(lines[1], " suppressed=3\n") {
			t.Errorf("logged %q, want two warnings, and 3 suppressed ones counted in the second", lines)
		}
		if got := strings.Count(out.String(), "msg=detail"); got != 4 {
			t.Errorf("logged %d of 4 debug lines", got)
		}
	})
}
