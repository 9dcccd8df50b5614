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
)

// probe creates a key and waits until the controller has issued and the authenticator has accepted it. It deletes its objects, and those of
// a probe that was killed.
func (s *stack) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, probeTimeout, fmt.Errorf("no key was issued and accepted within %s: see the logs in %s",
		probeTimeout, relative(s.logDir)))
	defer cancel()
	c, err := s.probeClient()
	if err != nil {
		return err
	}
	if err := removeProbe(ctx, c); err != nil {
		return err
	}
	err = errors.Join(s.issueProbe(ctx, c), removeProbe(ctx, c))
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	return err
}

func (s *stack) probeClient() (client.WithWatch, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, corev1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	return client.NewWithWatch(s.plane.AdminConfig(), client.Options{Scheme: scheme})
}

// issueProbe creates the key, and returns when the authenticator accepts its token.
func (s *stack) issueProbe(ctx context.Context, c client.WithWatch) error {
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: probeName},
		Spec:       v1alpha1.APIKeySpec{AppName: probeName, ReadAccess: true, Secret: &v1alpha1.TokenSecret{Name: probeName}},
	}
	if err := c.Create(ctx, key); err != nil {
		return err
	}
	if _, err := keyclient.WaitUntilAccepted(ctx, c, key); err != nil {
		return err
	}
	secret := &corev1.Secret{}
	if err := c.Get(ctx, client.ObjectKeyFromObject(key), secret); err != nil {
		return err
	}
	check := apiRequest{
		method: http.MethodGet, url: s.authURL + "/auth/forward/" + systemNamespace, key: string(secret.Data[apikey.SecretKey(key)]),
		header: map[string]string{"X-Forwarded-Method": http.MethodGet},
	}
	for {
		response, err := check.send(ctx)
		if err != nil || response.StatusCode == http.StatusOK {
			return err
		}
		if err := sleep(ctx, probePoll); err != nil {
			return fmt.Errorf("the authenticator responds %s to the key: %w", response.Status, err)
		}
	}
}

// removeProbe deletes the key, and its Secret, which is not garbage-collected without kube-controller-manager. It ignores a cancellation of
// ctx.
func removeProbe(ctx context.Context, c client.Client) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), responseTimeout)
	defer cancel()
	meta := metav1.ObjectMeta{Namespace: systemNamespace, Name: probeName}
	for _, object := range []client.Object{&v1alpha1.APIKey{ObjectMeta: meta}, &corev1.Secret{ObjectMeta: meta}} {
		if err := c.Delete(ctx, object); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}
