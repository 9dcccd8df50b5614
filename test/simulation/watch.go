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

	position  int64 // the revision that the process has
	connected bool
	epoch     int // of the connection
}

func (p *process) newWatcher(replace func([]*v1alpha1.APIKey), apply func(*change), bookmark func()) {
	w := &watcher{process: p, replace: replace, apply: apply, bookmark: bookmark}
	p.server.watchers = append(slices.DeleteFunc(p.server.watchers, func(former *watcher) bool { return former.process == p }), w)
	w.list()
}

const watchRetryDelay = time.Second

// list reads all keys in a consistent list, and then watches.
func (w *watcher) list() {
	w.after(w.networkDelay(), func() {
		if w.partitioned {
			w.after(watchRetryDelay, w.list)
			return
		}
		keys, revision, restores := w.server.listKeys(), w.server.revision, w.server.restores
		w.after(w.watchDelay(), func() {
			if w.partitioned || w.server.restores != restores {
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

// connect watches from the position.
func (w *watcher) connect() {
	if w.partitioned {
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
	if w.partitioned {
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
	if next, ok := w.server.changeAfter(w.position); w.connected && !w.partitioned && ok && next == nil {
		w.position = w.server.revision
		w.bookmark()
	}
}
