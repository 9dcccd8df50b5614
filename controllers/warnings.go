// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/reference"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// An issued key gets one event for each warning that becomes due. Nothing records in the key that its owner was warned, because that would
// be a write of the status for each key. These rules replace the record:
//
//   - A process remembers which of the due warnings it has recorded.
//   - The name of the event follows from the warning. After a restart or a change of the leader, the API server refuses the same event
//     again while it keeps the first one, which is 1 hour by default.
//   - A warning is due for a limited time.
//
// The worker of the key creates the event, and not the recorder, which drops events if very many keys expire at the same time. The clock is
// not checked: a warning at a wrong time ends nothing.

// warningRetryDelay is the delay before a warning that failed is tried again.
const warningRetryDelay = time.Minute

// maxNotedAppName is the maximum length of an app name in a note, in bytes. It leaves room for the instructions.
const maxNotedAppName = 255

// warning is an event before a deadline of an issued key.
type warning struct {
	name                 string // of the event, and different for each warning
	reason, action, note string
}

// warnings remembers the names of the due warnings of each key that this process has recorded, or that the API server refused.
type warnings struct {
	mu    sync.Mutex
	byKey map[client.ObjectKey][]string
}

// missing returns the due warnings of a key that are not recorded, and forgets those that are not due any more.
func (w *warnings) missing(name client.ObjectKey, due []warning) (missing []warning) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var recorded []string
	for _, d := range due {
		if slices.Contains(w.byKey[name], d.name) {
			recorded = append(recorded, d.name)
		} else {
			missing = append(missing, d)
		}
	}
	if recorded == nil {
		delete(w.byKey, name)
	} else {
		w.byKey[name] = recorded
	}
	return missing
}

func (w *warnings) add(name client.ObjectKey, recorded warning) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byKey == nil {
		w.byKey = map[client.ObjectKey][]string{}
	}
	w.byKey[name] = append(w.byKey[name], recorded.name)
}

func (w *warnings) forget(name client.ObjectKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.byKey, name)
}

// warn records the warnings of the key that are due. It returns, as a RequeueAfter, the delay before the next attempt if the API server did
// not respond. A token that must be handed over within seconds precedes the warnings.
func (r *APIKeyReconciler) warn(ctx context.Context, key *v1alpha1.APIKey) (retry time.Duration) {
	if r.rotations.untilHandover(key, r.Now()) != never {
		return 0
	}
	name := client.ObjectKeyFromObject(key)
	for _, due := range r.warnings.missing(name, dueWarnings(key, r.Now())) {
		if err := r.createWarning(ctx, key, due); err != nil {
			log.FromContext(ctx).Info("Cannot record a warning", "uid", key.UID, "reason", due.reason, "failure", err.Error())
			if !wasRefused(err) {
				retry = warningRetryDelay
				continue
			}
		}
		r.warnings.add(name, due)
	}
	return retry
}

func dueWarnings(key *v1alpha1.APIKey, now time.Time) []warning {
	return append(dueExpiryWarnings(key, now), dueOverlapWarnings(key, now)...)
}

// untilWarning returns the time until the next warning of the key may be due, or never.
func (r *APIKeyReconciler) untilWarning(key *v1alpha1.APIKey) time.Duration {
	return min(r.untilExpiryWarning(key), r.untilOverlapWarning(key))
}

// createWarning creates the event of a warning, unless it exists.
func (r *APIKeyReconciler) createWarning(ctx context.Context, key *v1alpha1.APIKey, due warning) error {
	regarding, err := reference.GetReference(r.Scheme(), key)
	if err != nil {
		return fmt.Errorf("refer to the key in an event: %w", err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("name the reporting instance of an event: %w", err)
	}
	err = r.Secrets.Create(ctx, &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: key.Namespace, Name: due.name},
		EventTime:           metav1.NewMicroTime(r.Now()),
		ReportingController: eventSource,
		ReportingInstance:   eventSource + "-" + hostname,
		Regarding:           *regarding,
		Type:                corev1.EventTypeWarning,
		Reason:              due.reason,
		Action:              due.action,
		Note:                due.note,
	})
	return client.IgnoreAlreadyExists(err)
}
