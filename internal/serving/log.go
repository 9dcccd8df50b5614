// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// What clients can make a server log is bounded: some lines at once, and then one a minute.
const (
	logInterval = time.Minute
	clientLines = 10 // clients differ in what they do wrong
	limitLines  = 1  // a limit is the same for all
)

// boundedHandler bounds what is logged at info level and above, because clients can cause lines at will. The next line that is logged says
// how many were suppressed. Debug lines pass.
type boundedHandler struct {
	slog.Handler
	*logBound
}

type logBound struct {
	limiter    *rate.Limiter
	suppressed atomic.Int64
}

func newBoundedLog(log *slog.Logger, lines int) *slog.Logger {
	bound := &logBound{limiter: rate.NewLimiter(rate.Every(logInterval), lines)}
	return slog.New(boundedHandler{log.Handler(), bound})
}

// Handle implements slog.Handler.
func (h boundedHandler) Handle(ctx context.Context, record slog.Record) error {
	if record.Level >= slog.LevelInfo {
		if !h.limiter.Allow() {
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
func (h boundedHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return boundedHandler{h.Handler.WithAttrs(attrs), h.logBound}
}

// WithGroup implements slog.Handler.
func (h boundedHandler) WithGroup(name string) slog.Handler {
	return boundedHandler{h.Handler.WithGroup(name), h.logBound}
}
