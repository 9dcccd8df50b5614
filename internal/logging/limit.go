// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package logging limits the rate of log lines that clients, or a failure that lasts, would otherwise repeat without bound.
package logging

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Limit returns a logger that writes a burst of lines at once, and then one a minute. A line that follows suppressed ones has their number
// in the attribute suppressed. Debug lines are not limited.
func Limit(log *slog.Logger, burst int) *slog.Logger {
	return slog.New(limitedHandler{log.Handler(), &limit{lines: rate.NewLimiter(rate.Every(time.Minute), burst)}})
}

type limit struct {
	lines      *rate.Limiter
	suppressed atomic.Int64
}

type limitedHandler struct {
	slog.Handler
	*limit
}

// Handle implements slog.Handler.
func (h limitedHandler) Handle(ctx context.Context, record slog.Record) error {
	if record.Level >= slog.LevelInfo {
		if !h.lines.Allow() {
			h.suppressed.Add(1)
			return nil
		}
		if count := h.suppressed.Swap(0); count > 0 {
			record = record.Clone()
			record.AddAttrs(slog.Int64("suppressed", count))
		}
	}
	return h.Handler.Handle(ctx, record)
}

// WithAttrs implements slog.Handler.
func (h limitedHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return limitedHandler{h.Handler.WithAttrs(attrs), h.limit}
}

// WithGroup implements slog.Handler.
func (h limitedHandler) WithGroup(name string) slog.Handler {
	return limitedHandler{h.Handler.WithGroup(name), h.limit}
}
