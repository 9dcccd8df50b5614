// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

const (
	// maxNoteLength is how many bytes the note of an event may have: the API server refuses a longer one, and the recorder then drops the
	// event.
	maxNoteLength = 1024

	ellipsis = "…"
)

// NewEventRecorder returns the recorder that all events of the controller's process are recorded with.
func NewEventRecorder(mgr manager.Manager) events.EventRecorder {
	return boundedRecorder{mgr.GetEventRecorder("apikey-controller")}
}

// boundedRecorder shortens notes that the API server would refuse. What else an event has is short: reasons and actions are constants, and
// client-go names an event by a UUID where the object's name leaves no room.
type boundedRecorder struct{ events.EventRecorder }

// Eventf records an event.
func (r boundedRecorder) Eventf(regarding, related runtime.Object, eventType, reason, action, note string, args ...any) {
	r.EventRecorder.Eventf(regarding, related, eventType, reason, action, "%s", shorten(fmt.Sprintf(note, args...), maxNoteLength))
}

// shorten returns the text in at most this many bytes. It ends with an ellipsis, and between two characters, where it was cut.
func shorten(text string, bytes int) string {
	if len(text) <= bytes {
		return text
	}
	end := bytes - len(ellipsis)
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + ellipsis
}
