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

// body is a response body with an idle timeout.
type body struct {
	content io.ReadCloser
	ctx     context.Context // of the call
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	idle    time.Duration
}

// Read fails with errIdle when the idle timeout has passed.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.content.Read(p)
	if err != nil {
		b.timer.Stop()
		if !errors.Is(err, io.EOF) {
			err = causeOf(b.ctx, err)
		}
	} else if hasContent(p[:n]) {
		b.timer.Reset(b.idle)
	}
	return n, err
}

// hasContent reports whether data is more than the white space with which proxies keep a connection open.
func hasContent(data []byte) bool { return len(bytes.TrimSpace(data)) > 0 }

// Close cancels the call.
func (b *body) Close() error {
	b.timer.Stop()
	err := b.content.Close()
	b.cancel(nil)
	return err
}

// watchBody is the response body of a watch. It ends when the Reflector must list.
type watchBody struct {
	*body
	caller     context.Context
	relist     *time.Timer // nil when no list is due
	collection *collection
	*transport
}

// newWatchBody returns the body of a watch that has started.
func (t *transport) newWatchBody(caller context.Context, content *body, watched *collection) *watchBody {
	w := &watchBody{body: content, caller: caller, collection: watched, transport: t}
	if wait, due := watched.watchStarted(t.timeouts); due {
		w.relist = time.AfterFunc(wait, func() { content.cancel(errAfterOutage) })
	}
	return w
}

var errAfterOutage = errors.New("the Kubernetes API was unreachable, and may have been restored from a backup since")

// Read returns io.EOF when the Reflector must list: the next watch request is then rejected with 410. Any error but io.EOF and
// io.ErrUnexpectedEOF would make the Reflector list at once, so a watch that breaks returns io.ErrUnexpectedEOF, as if the connection had
// been closed.
func (w *watchBody) Read(p []byte) (int, error) {
	n, err := w.body.Read(p)
	if hasContent(p[:n]) {
		w.collection.received()
	}
	switch {
	case err == nil || errors.Is(err, io.EOF) || w.caller.Err() != nil:
		return n, err
	case errors.Is(err, errIdle):
		w.metrics.restarted(reasonSilent)
		w.log.Warn("A watch of the Kubernetes API is silent: listing all objects again",
			"resource", w.collection.resource, "silence", w.idle.String())
		w.collection.requireList()
		return n, io.EOF
	case errors.Is(err, errAfterOutage):
		w.metrics.restarted(reasonAfterOutage)
		w.log.Info("Listing all objects again after an outage of the Kubernetes API", "resource", w.collection.resource)
		w.collection.requireList()
		return n, io.EOF
	default:
		if !isClosedByPeer(err) {
			w.collection.unreachable()
		}
		return n, io.ErrUnexpectedEOF
	}
}

// isClosedByPeer reports whether a connection was closed just now, rather than lost unnoticed some time ago. If the API is unreachable
// then, the next watch request fails.
func isClosedByPeer(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || utilnet.IsConnectionReset(err)
}

// Close cancels the watch.
func (w *watchBody) Close() error {
	if w.relist != nil {
		w.relist.Stop()
	}
	return w.body.Close()
}
