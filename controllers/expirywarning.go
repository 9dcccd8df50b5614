// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/reference"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// An issued key gets one event ExpiresSoon at each of the times warningLeads before its spec.expiresAt. Nothing records in the key that it
// was warned, because that would be a write of the status for each key. These rules replace the record:
//
//   - A process remembers what it has warned of.
//   - The name of the event follows from the key, expiresAt and the lead. After a restart or a change of the leader, the API server refuses
//     the same event again while it keeps the first one, which is 1 hour by default.
//   - A warning that was due more than maxWarningDelay ago is left out.
//
// So a controller that was down for less than a day still warns. The price is a second event if a controller restarts after the API server
// has deleted the first one, and within a day after the warning was due.
//
// The worker of the key creates the event, and not the recorder, which drops events if very many keys expire at the same time. The clock is
// not checked: a warning at a wrong time ends nothing.

const day = 24 * time.Hour

// warningLeads are the times before the expiry of a key at which a warning is due. They differ by more than maxWarningDelay, so that at
// most one warning is due at any time.
var warningLeads = []time.Duration{7 * day, day}

const (
	// maxWarningDelay is how late a warning may be.
	maxWarningDelay = day

	// minWarningAge is the minimum age of a key at a warning. The owner of a key that was created with 7 days to live chose that time.
	minWarningAge = time.Hour

	// warningRetryDelay is the delay before a warning that failed is tried again.
	warningRetryDelay = time.Minute
)

const reasonExpiresSoon = "ExpiresSoon"

// maxNotedAppName is the maximum length of an app name in a note, in bytes. It leaves room for the instructions.
const maxNotedAppName = 255

// expiryWarning identifies a warning.
type expiryWarning struct {
	uid       types.UID
	expiresAt int64 // in seconds since 1970
	lead      time.Duration
}

// expiryWarnings remembers the last warning of each key that this process has recorded, or that the API server refused.
type expiryWarnings struct {
	mu    sync.Mutex
	byKey map[client.ObjectKey]expiryWarning
}

func (w *expiryWarnings) has(name client.ObjectKey, warning expiryWarning) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.byKey[name] == warning
}

func (w *expiryWarnings) add(name client.ObjectKey, warning expiryWarning) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byKey == nil {
		w.byKey = map[client.ObjectKey]expiryWarning{}
	}
	w.byKey[name] = warning
}

func (w *expiryWarnings) forget(name client.ObjectKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.byKey, name)
}

// warnOfExpiry records the event of a key that expires soon, if that is due. It returns, as a RequeueAfter, the delay before the next
// attempt if the API server did not respond. A token that must be handed over within seconds precedes the warning.
func (r *APIKeyReconciler) warnOfExpiry(ctx context.Context, key *v1alpha1.APIKey) time.Duration {
	name := client.ObjectKeyFromObject(key)
	warning, due := dueWarning(key, r.Now())
	if !due || r.warnings.has(name, warning) || r.rotations.untilHandover(key, r.Now()) != never {
		return 0
	}
	if err := r.createWarning(ctx, key, warning); err != nil {
		log.FromContext(ctx).Info("Cannot record that the key expires soon", "uid", key.UID, "failure", err.Error())
		if !wasRefused(err) {
			return warningRetryDelay
		}
	}
	r.warnings.add(name, warning)
	return 0
}

// dueWarning returns the warning of the key that is due, if there is one.
func dueWarning(key *v1alpha1.APIKey, now time.Time) (warning expiryWarning, ok bool) {
	if key.Spec.ExpiresAt == nil || !apikey.IsIssued(key) || apikey.StateOf(key, now) != apikey.StateActive {
		return expiryWarning{}, false
	}
	for _, lead := range warningLeads {
		due := key.Spec.ExpiresAt.Add(-lead)
		if late := now.Sub(due); late >= 0 && late < maxWarningDelay && due.Sub(key.CreationTimestamp.Time) >= minWarningAge {
			return expiryWarning{uid: key.UID, expiresAt: key.Spec.ExpiresAt.Unix(), lead: lead}, true
		}
	}
	return expiryWarning{}, false
}

// untilWarning returns the time until the next warning of the key is due, or never.
func (r *APIKeyReconciler) untilWarning(key *v1alpha1.APIKey) time.Duration {
	next, expiry := never, r.untilExpiry(key)
	for _, lead := range warningLeads {
		if wait := expiry - lead; wait > 0 && expiry != never {
			next = min(next, wait)
		}
	}
	return next
}

// createWarning creates the event of a warning, unless it exists.
func (r *APIKeyReconciler) createWarning(ctx context.Context, key *v1alpha1.APIKey, warning expiryWarning) error {
	regarding, err := reference.GetReference(r.Scheme(), key)
	if err != nil {
		return fmt.Errorf("refer to the key in an event: %w", err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("name the reporting instance of an event: %w", err)
	}
	err = r.Secrets.Create(ctx, &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: key.Namespace,
			Name:      fmt.Sprintf("expires-soon-%s-%d-%s", key.UID, warning.expiresAt, warning.lead),
		},
		EventTime:           metav1.NewMicroTime(r.Now()),
		ReportingController: eventSource,
		ReportingInstance:   eventSource + "-" + hostname,
		Regarding:           *regarding,
		Type:                corev1.EventTypeWarning,
		Reason:              reasonExpiresSoon,
		Action:              actionEnd,
		Note:                warningNote(key),
	})
	return client.IgnoreAlreadyExists(err)
}

func warningNote(key *v1alpha1.APIKey) string {
	return fmt.Sprintf("The key of the app %q expires at %s: to keep it, set a later spec.expiresAt. "+
		"Otherwise give its clients the token of another key before then.",
		shorten(key.Spec.AppName, maxNotedAppName), key.Spec.ExpiresAt.UTC().Format(time.RFC3339))
}
