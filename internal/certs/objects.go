// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// What is written has this label. What has not is somebody else's.
const managedByLabel, managedBy = "app.kubernetes.io/managed-by", "apikey-operator"

// foreignError says that an object of somebody else is where one of ours is to be.
type foreignError struct{ object client.Object }

func (e foreignError) Error() string {
	return fmt.Sprintf("%s %q was not written by this controller and is left as it is: delete it to have it made, with the label %s=%s",
		kindOf(e.object), e.object.GetName(), managedByLabel, managedBy)
}

func kindOf(object client.Object) string {
	if _, isSecret := object.(*corev1.Secret); isSecret {
		return "Secret"
	}
	return "ConfigMap"
}

// read reads the object of this name, or makes it one that is to be created. One of somebody else is a foreignError.
func (r *Rotator) read(ctx context.Context, name string, object client.Object) error {
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: name}, object)
	switch {
	case apierrors.IsNotFound(err):
		object.SetNamespace(r.Namespace)
		object.SetName(name)
		object.SetLabels(map[string]string{managedByLabel: managedBy})
		return nil
	case err != nil:
		return fmt.Errorf("read %s %q: %w", kindOf(object), name, err)
	case object.GetLabels()[managedByLabel] != managedBy:
		r.tellPeople(ctx, object, "NotManaged", foreignError{object})
		return foreignError{object}
	default:
		return nil
	}
}

// write creates or updates the object, on the condition that nobody else wrote it since it was read.
func (r *Rotator) write(ctx context.Context, object client.Object) error {
	var err error
	if object.GetResourceVersion() == "" {
		err = r.Client.Create(ctx, object)
	} else {
		err = r.Client.Update(ctx, object)
	}
	if err != nil {
		return fmt.Errorf("write %s %q: %w", kindOf(object), object.GetName(), err)
	}
	return nil
}

// tellPeople tells people, once, what is wrong with an object.
func (r *Rotator) tellPeople(ctx context.Context, object client.Object, reason string, problem error) {
	once := string(object.GetUID()) + " " + problem.Error()
	if r.told[once] {
		return
	}
	r.told[once] = true
	log.FromContext(ctx).Error(problem, "an object is in the way of the certificates")
	r.Events.Eventf(object, nil, corev1.EventTypeWarning, reason, "KeepCertificates", "%s", problem)
}
