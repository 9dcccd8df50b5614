// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
)

func TestLogLevels(t *testing.T) {
	logAll := func(handler slog.Handler) {
		log, logr := slog.New(handler), logr.FromSlogHandler(handler) // controller-runtime and klog use logr
		log.Debug("debug")
		log.Info("info")
		log.Warn("warn")
		log.Error("error")
		for verbosity := range 10 {
			logr.V(verbosity).Info("verbosity", "v", verbosity)
		}
	}
	type line struct {
		Level, Msg string
		V          int
	}
	verbosities := []line{{"INFO", "verbosity", 0}}
	for verbosity := 1; verbosity <= 4; verbosity++ {
		verbosities = append(verbosities, line{"DEBUG", "verbosity", verbosity})
	}
	severe := []line{{"WARN", "warn", 0}, {"ERROR", "error", 0}}
	for level, want := range map[string][]line{
		"debug": append(append([]line{{"DEBUG", "debug", 0}, {"INFO", "info", 0}}, severe...), verbosities...),
		"info":  append(append([]line{{"INFO", "info", 0}}, severe...), verbosities[0]),
		"warn":  severe,
		"error": severe[1:],
	} {
		t.Run(level, func(t *testing.T) {
			var out bytes.Buffer
			handler, err := (&logFlags{level: level, format: "json"}).newHandler(&out)
			if err != nil {
				t.Fatal(err)
			}
			logAll(handler)
			var got []line
			for decoder := json.NewDecoder(&out); decoder.More(); {
				var l line
				if err := decoder.Decode(&l); err != nil {
					t.Fatal(err)
				}
				got = append(got, l)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the log differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLogFormat_Text(t *testing.T) {
	var out bytes.Buffer
	handler, err := (&logFlags{level: "info", format: "text"}).newHandler(&out)
	if err != nil {
		t.Fatal(err)
	}
	slog.New(handler).Info("hello", "to", "you")
	if !strings.HasSuffix(out.String(), " level=INFO msg=hello to=you\n") {
		t.Errorf("the log is %q", out.String())
	}
}
