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

// explain says in plain words what happened and what to do, one text for each error that was joined.
func explain(err error) []string {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []string{explainOne(err)}
	}
	var texts []string
	for _, err := range joined.Unwrap() {
		texts = append(texts, explain(err)...)
	}
	return texts
}

func explainOne(err error) string {
	var unanswered *url.Error
	switch {
	case isNotServed(err):
		return "this cluster does not know APIKeys: install apikey-operator there first, or choose another one by --context"
	case apierrors.IsUnauthorized(err):
		return "the Kubernetes API does not accept your credentials: log in again, or choose others by --context"
	case apierrors.IsForbidden(err):
		return explainForbidden(err)
	case errors.Is(err, context.Canceled) && errors.As(err, &unanswered):
		return "interrupted"
	case errors.As(err, &unanswered):
		return explainUnanswered(unanswered)
	default:
		return err.Error()
	}
}

func explainUnanswered(err *url.Error) string {
	api := err.URL
	if parsed, parseErr := url.Parse(err.URL); parseErr == nil {
		api = parsed.Scheme + "://" + parsed.Host
	}
	return fmt.Sprintf("the Kubernetes API at %s cannot be reached: %v; is the cluster up, and is it the one you mean (--context)?",
		api, err.Err)
}

// isNotServed says whether the API server does not know the resource, as opposed to the object.
func isNotServed(err error) bool {
	return apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

// explainForbidden names the role that is lacking, unless it was not RBAC that refused.
func explainForbidden(err error) string {
	_, who, byRBAC := strings.Cut(err.Error(), "is forbidden: User ")
	if !byRBAC {
		return err.Error()
	}
	role := "apikey-editor"
	switch {
	case strings.Contains(who, `resource "secrets"`):
		role = "edit" // Kubernetes' own
	case strings.Contains(who, " cannot get "), strings.Contains(who, " cannot list "), strings.Contains(who, " cannot watch "):
		role = "apikey-viewer"
	}
	return fmt.Sprintf("no permission: user %s; the ClusterRole %s gives it", who, role)
}
