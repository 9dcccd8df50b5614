// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

const (
	probeName    = "dev-probe" // of the APIKey, of its app and of its Secret
	probeTimeout = 30 * time.Second
	probePoll    = 20 * time.Millisecond

	// probeEventPatience is how long the probe waits for the event that it has to remove: events may get lost.
	probeEventPatience = 5 * time.Second
)

// probe has a key issued and accepted, which needs a controller that leads, and an authenticator that hears of it. It leaves no object
// behind, nor does one that was killed: the next one removes what that has left.
func (s *stack) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, probeTimeout, fmt.Errorf("no key was issued and accepted within %s; the logs are in %s",
		probeTimeout, relative(s.logDir)))
	defer cancel()
	c, err := s.probeClient()
	if err != nil {
		return err
	}
	if err := removeProbe(ctx, c); err != nil {
		return err
	}
	err = s.issueProbe(ctx, c)
	if err == nil {
		awaitProbeEvent(ctx, c)
	}
	err = errors.Join(err, removeProbe(ctx, c))
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	return err
}

func (s *stack) probeClient() (client.WithWatch, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, corev1.AddToScheme, eventsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	return client.NewWithWatch(s.plane.AdminConfig(), client.Options{Scheme: scheme})
}

// issueProbe creates the key, and returns when its token is accepted.
func (s *stack) issueProbe(ctx context.Context, c client.WithWatch) error {
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: probeName},
		Spec:       v1alpha1.APIKeySpec{AppName: probeName, ReadAccess: true, Secret: &v1alpha1.TokenSecret{Name: probeName}},
	}
	if err := c.Create(ctx, key); err != nil {
		return err
	}
	if _, err := keyclient.AwaitAccepted(ctx, c, key); err != nil {
		return err
	}
	secret := &corev1.Secret{}
	if err := c.Get(ctx, client.ObjectKeyFromObject(key), secret); err != nil {
		return err
	}
	check := call{
		method: http.MethodGet, url: s.authURL + "/auth/forward/" + systemNamespace, key: string(secret.Data[apikey.SecretKey(key)]),
		header: map[string]string{"X-Forwarded-Method": http.MethodGet},
	}
	for {
		answer, err := check.make(ctx)
		if err != nil || answer.StatusCode == http.StatusOK {
			return err
		}
		if err := waitFor(ctx, probePoll); err != nil {
			return fmt.Errorf("the authenticator answers %s to the key: %w", answer.Status, err)
		}
	}
}

// awaitProbeEvent returns when the controller has recorded that it issued the key: an event that comes later would stay.
func awaitProbeEvent(ctx context.Context, c client.Client) {
	ctx, cancel := context.WithTimeout(ctx, probeEventPatience)
	defer cancel()
	for {
		events, err := probeEvents(ctx, c)
		if err != nil || len(events) > 0 || waitFor(ctx, probePoll) != nil {
			return
		}
	}
}

// removeProbe removes the key, its Secret, which may not be collected as garbage here, and its events. It goes on when ctx is done.
func removeProbe(ctx context.Context, c client.Client) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	events, err := probeEvents(ctx, c)
	if err != nil {
		return err
	}
	place := metav1.ObjectMeta{Namespace: systemNamespace, Name: probeName}
	for _, object := range append(events, &v1alpha1.APIKey{ObjectMeta: place}, &corev1.Secret{ObjectMeta: place}) {
		if err := c.Delete(ctx, object); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

func probeEvents(ctx context.Context, c client.Client) (ofProbe []client.Object, err error) {
	events := &eventsv1.EventList{}
	if err := c.List(ctx, events, client.InNamespace(systemNamespace)); err != nil {
		return nil, err
	}
	for i := range events.Items {
		if event := &events.Items[i]; event.Regarding.Kind == "APIKey" && event.Regarding.Name == probeName {
			ofProbe = append(ofProbe, event)
		}
	}
	return ofProbe, nil
}
