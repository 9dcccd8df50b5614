// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// messagesOf returns the messages for an error, one for each error that was joined: what happened and what to do.
func messagesOf(err error) []string {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []string{messageOf(err)}
	}
	var messages []string
	for _, err := range joined.Unwrap() {
		messages = append(messages, messagesOf(err)...)
	}
	return messages
}

func messageOf(err error) string {
	var unreachable *url.Error
	switch {
	case isNotServed(err):
		return "the cluster does not know APIKeys: install apikey-operator in it, or choose another cluster with --context"
	case apierrors.IsUnauthorized(err):
		return "the Kubernetes API does not accept your credentials: log in again, or choose other credentials with --context"
	case apierrors.IsForbidden(err):
		return forbiddenMessage(err)
	case errors.Is(err, context.Canceled) && errors.As(err, &unreachable):
		return "interrupted"
	case errors.As(err, &unreachable):
		return unreachableMessage(unreachable)
	default:
		return err.Error()
	}
}

func unreachableMessage(err *url.Error) string {
	api := err.URL
	if parsed, parseErr := url.Parse(err.URL); parseErr == nil {
		api = parsed.Scheme + "://" + parsed.Host
	}
	return fmt.Sprintf("the Kubernetes API at %s cannot be reached: %v; check that the cluster is running, or choose another one "+
		"with --context", api, err.Err)
}

// isNotServed reports whether the API server does not know the resource, as opposed to the object.
func isNotServed(err error) bool {
	return apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

// forbiddenMessage names the ClusterRole that is needed, if the error is from RBAC.
func forbiddenMessage(err error) string {
	_, user, byRBAC := strings.Cut(err.Error(), "is forbidden: User ")
	if !byRBAC {
		return err.Error()
	}
	role := "apikey-editor"
	switch {
	case strings.Contains(user, `resource "secrets"`):
		role = "edit" // of Kubernetes
	case strings.Contains(user, " cannot get "), strings.Contains(user, " cannot list "), strings.Contains(user, " cannot watch "):
		role = "apikey-viewer"
	}
	message := fmt.Sprintf("no permission: user %s; the ClusterRole %s grants this", user, role)
	if strings.HasSuffix(user, " at the cluster scope") {
		message += "; for the keys of one namespace, use --namespace (-n) without --all-namespaces"
	}
	return message
}
