// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// The label of all objects that the Rotator creates. An object without it belongs to another owner. The Secrets of tokens have it too.
const managedByLabel, managedBy = "app.kubernetes.io/managed-by", "apikey-operator"

// notManagedError reports an object of another owner under a name that the Rotator uses.
type notManagedError struct{ object client.Object }

func (e notManagedError) Error() string {
	if holdsToken(e.object) {
		return fmt.Sprintf("Secret %q holds the token of an APIKey instead of a certificate: delete that APIKey, and create one with another "+
			"spec.secret.name", e.object.GetName())
	}
	return fmt.Sprintf("%s %q was not created by this controller, which leaves it unchanged: delete it, and the controller creates one "+
		"with the label %s=%s", kindOf(e.object), e.object.GetName(), managedByLabel, managedBy)
}

func kindOf(object client.Object) string {
	if _, isSecret := object.(*corev1.Secret); isSecret {
		return "Secret"
	}
	return "ConfigMap"
}

// holdsToken reports whether the object is the one-time Secret of an APIKey. A user may give it any name that is free.
func holdsToken(object client.Object) bool {
	secret, isSecret := object.(*corev1.Secret)
	return isSecret && secret.Type == v1alpha1.SecretTypeToken
}

// read reads the object of this name. If it does not exist, read prepares it for write to create. An object of another owner is a
// notManagedError.
func (r *Rotator) read(ctx context.Context, namespace, name string, object client.Object) error {
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, object)
	switch {
	case apierrors.IsNotFound(err):
		object.SetNamespace(namespace)
		object.SetName(name)
		object.SetLabels(map[string]string{managedByLabel: managedBy})
		return nil
	case err != nil:
		return fmt.Errorf("read %s %q of the namespace %s: %w", kindOf(object), name, namespace, err)
	case object.GetLabels()[managedByLabel] != managedBy || holdsToken(object):
		r.recordWarning(object, "NotManaged", notManagedError{object})
		return notManagedError{object}
	default:
		return nil
	}
}

// write creates or updates an object. It fails if the object has changed since it was read.
func (r *Rotator) write(ctx context.Context, object client.Object) error {
	var err error
	if object.GetResourceVersion() == "" {
		err = r.Client.Create(ctx, object)
	} else {
		err = r.Client.Update(ctx, object)
	}
	if err != nil {
		return fmt.Errorf("write %s %q of the namespace %s: %w", kindOf(object), object.GetName(), object.GetNamespace(), err)
	}
	return nil
}

// recordWarning logs a problem with an object and records an event, once for each object and problem.
func (r *Rotator) recordWarning(object client.Object, reason string, problem error) {
	warning := string(object.GetUID()) + " " + problem.Error()
	if r.warned[warning] {
		return
	}
	r.warned[warning] = true
	r.Log.Error("A part of the certificate rotation is blocked", "err", problem)
	r.Events.Eventf(object, nil, corev1.EventTypeWarning, reason, "RotateCertificates", "%s", problem)
}
