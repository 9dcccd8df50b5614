// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"slices"
	"time"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// watcher lists and watches keys for a process, as a Reflector does.
type watcher struct {
	*process
	replace  func([]*v1alpha1.APIKey) // after a list
	apply    func(*change)
	bookmark func()

	position int64 // the revision that the process has
	// isLate is true if the first list may be old: that of an API server whose cache lags, or of a replica that has waited for the lease.
	isLate    bool
	connected bool
	epoch     int // of the connection
}

func (p *process) newWatcher(replace func([]*v1alpha1.APIKey), apply func(*change), bookmark func()) {
	w := &watcher{process: p, isLate: p.isController, replace: replace, apply: apply, bookmark: bookmark}
	p.server.watchers = append(slices.DeleteFunc(p.server.watchers, func(former *watcher) bool { return former.process == p }), w)
	w.list()
}

const watchRetryDelay = time.Second

// list reads all keys in a consistent list, and then watches.
func (w *watcher) list() {
	w.after(w.networkDelay(), func() {
		if w.isCutOff() {
			w.after(watchRetryDelay, w.list)
			return
		}
		revision, restores := w.server.revision, w.server.restores
		if w.isLate && w.position == 0 {
			revision = w.chooseRevision()
		}
		keys := w.server.listKeysAt(revision)
		w.after(w.watchDelay(), func() {
			if w.isCutOff() || w.server.restores != restores {
				w.after(watchRetryDelay, w.list)
				return
			}
			w.log(w.name, text("lists all keys"))
			w.position = revision
			w.replace(keys)
			w.connect()
		})
	})
}

// chooseRevision chooses the current revision, or one of the last ones before it.
func (w *watcher) chooseRevision() int64 {
	changes := w.server.changes
	late := min(one(&w.choices, 0, 0, 0, 1, 2, 5, 20), len(changes))
	if late == 0 {
		return w.server.revision
	}
	return changes[len(changes)-late].revision - 1
}

// connect watches from the position.
func (w *watcher) connect() {
	if w.isCutOff() {
		w.after(watchRetryDelay, w.connect)
		return
	}
	next, ok := w.server.changeAfter(w.position)
	if !ok {
		w.list()
		return
	}
	w.connected = true
	w.epoch++
	for ; next != nil; next, _ = w.server.changeAfter(next.revision) {
		w.expect()
	}
}

// expect schedules the delivery of one more event.
func (w *watcher) expect() {
	if !w.connected || !w.up {
		return
	}
	epoch := w.epoch
	w.after(w.watchDelay(), func() {
		if w.connected && w.epoch == epoch {
			w.deliver()
		}
	})
}

func (w *watcher) deliver() {
	if w.isCutOff() {
		w.interrupt()
		return
	}
	switch next, ok := w.server.changeAfter(w.position); {
	case !ok:
		w.connected = false
		w.list()
	case next != nil:
		w.position = next.revision
		w.apply(next)
	}
}

// interrupt ends the connection of the watch. The process connects again.
func (w *watcher) interrupt() {
	if !w.connected || !w.up {
		return
	}
	w.connected = false
	w.after(w.outage(), w.connect)
}

// receiveBookmark is called once a minute, as the API server sends bookmarks.
func (w *watcher) receiveBookmark() {
	if next, ok := w.server.changeAfter(w.position); w.connected && !w.isCutOff() && ok && next == nil {
		w.position = w.server.revision
		w.bookmark()
	}
}
