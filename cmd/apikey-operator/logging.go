// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

// logFlags are the flags of the log.
type logFlags struct {
	level  string
	format string
}

func (f *logFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.level, "log-level", "info",
		"The minimum level of log lines: debug, info, warn or error; debug includes each denied request.")
	flags.StringVar(&f.format, "log-format", "json", "The format of the log: json or text.")
}

// logLevels end at debug, which is verbosity 4 of logr and klog. From verbosity 8 on, client-go logs request bodies, which may hold
// Secrets.
var logLevels = map[string]slog.Level{
	"debug": slog.LevelDebug,
	"info":  slog.LevelInfo,
	"warn":  slog.LevelWarn,
	"error": slog.LevelError,
}

// setUp sets the handler of all logs of the process, those of controller-runtime and client-go included.
func (f *logFlags) setUp(out io.Writer) error {
	handler, err := f.newHandler(out)
	if err != nil {
		return err
	}
	slog.SetDefault(slog.New(handler))
	ctrl.SetLogger(logr.FromSlogHandler(handler))
	klog.SetSlogLogger(slog.Default())
	return nil
}

func (f *logFlags) newHandler(out io.Writer) (slog.Handler, error) {
	level, ok := logLevels[f.level]
	if !ok {
		return nil, fmt.Errorf("--log-level=%q is not supported: use debug, info, warn or error", f.level)
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: plainLevel}
	switch f.format {
	case "json":
		return slog.NewJSONHandler(out, options), nil
	case "text":
		return slog.NewTextHandler(out, options), nil
	default:
		return nil, fmt.Errorf("--log-format=%q is not supported: use json or text", f.format)
	}
}

// plainLevel replaces the verbosities of logr, which are between info and debug, by DEBUG.
func plainLevel(groups []string, attr slog.Attr) slog.Attr {
	if level, ok := attr.Value.Any().(slog.Level); ok && len(groups) == 0 && attr.Key == slog.LevelKey && level < slog.LevelInfo {
		attr.Value = slog.AnyValue(slog.LevelDebug)
	}
	return attr
}
