// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package kubeapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// body is the body of an answer. Reading it fails when the API server is silent for too long.
type body struct {
	content io.ReadCloser
	ctx     context.Context // of the call
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	silence time.Duration
}

// Read fails when the API server is silent for too long.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.content.Read(p)
	if err != nil {
		b.timer.Stop()
		if !errors.Is(err, io.EOF) {
			err = causeOf(b.ctx, err)
		}
	} else if isProgress(p[:n]) {
		b.timer.Reset(b.silence)
	}
	return n, err
}

// isProgress says whether what was read is more than the white space by which proxies keep a connection open.
func isProgress(read []byte) bool { return len(bytes.TrimSpace(read)) > 0 }

// Close ends the call.
func (b *body) Close() error {
	b.timer.Stop()
	err := b.content.Close()
	b.cancel(nil)
	return err
}

// watchBody is the body of a watch, which ends when its Reflector has to list.
type watchBody struct {
	*body
	caller  context.Context
	relist  *time.Timer // nil when there is no need
	watched *collection
	*transport
}

// newWatchBody returns the body of a watch that has begun.
func (t *transport) newWatchBody(caller context.Context, answer *body, watched *collection) *watchBody {
	w := &watchBody{body: answer, caller: caller, watched: watched, transport: t}
	if wait, due := watched.watching(t.bounds); due {
		w.relist = time.AfterFunc(wait, func() { answer.cancel(errAfterOutage) })
	}
	return w
}

var errAfterOutage = errors.New("the Kubernetes API was away, and may have gone back since")

// Read ends without an error where the watch has to end: its Reflector asks for the next one, which is answered that it has to list. A
// watch that breaks ends as unexpectedly as one does whose connection is closed, since a Reflector would take any other error for a
// reason to list at once.
func (w *watchBody) Read(p []byte) (int, error) {
	n, err := w.body.Read(p)
	if isProgress(p[:n]) {
		w.watched.heardNow()
	}
	switch {
	case err == nil || errors.Is(err, io.EOF) || w.caller.Err() != nil:
		return n, err
	case errors.Is(err, errSilent):
		w.metrics.restarted(reasonSilent)
		w.log.Warn("A watch of the Kubernetes API is silent: listing all objects again",
			"resource", w.watched.resource, "silence", w.silence.String())
		w.watched.listNow()
		return n, io.EOF
	case errors.Is(err, errAfterOutage):
		w.metrics.restarted(reasonAfterOutage)
		w.log.Info("Listing all objects again, since the Kubernetes API was away", "resource", w.watched.resource)
		w.watched.listNow()
		return n, io.EOF
	default:
		if !isClosedByPeer(err) {
			w.watched.failed()
		}
		return n, io.ErrUnexpectedEOF
	}
}

// isClosedByPeer says whether a connection broke just now, and was not lost unnoticed some time ago. If the API is away then, the next
// attempt to watch fails.
func isClosedByPeer(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || utilnet.IsConnectionReset(err)
}

// Close ends the watch.
func (w *watchBody) Close() error {
	if w.relist != nil {
		w.relist.Stop()
	}
	return w.body.Close()
}
