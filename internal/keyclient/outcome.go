// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package keyclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"regexp"
	"strings"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// OutcomeUnknownError is the error of a write that may have had its effect, because its response is missing or does not say.
type OutcomeUnknownError struct{ Err error }

func (e *OutcomeUnknownError) Error() string {
	return fmt.Sprintf("the request may have taken effect: %v", e.Err)
}

// Unwrap returns the error of the request.
func (e *OutcomeUnknownError) Unwrap() error { return e.Err }

// write calls a function that sends one request that writes. Its error is an [*OutcomeUnknownError] unless the request had no effect for
// certain: it was not sent, or the API server refused it.
func write(ctx context.Context, send func(context.Context) error) error {
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }})
	err := send(ctx)
	if err == nil || !sent.Load() || wasRefused(err) {
		return err
	}
	return &OutcomeUnknownError{err}
}

// wasRefused reports whether the API server refused the request, so that it has had no effect.
func wasRefused(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	code, message := status.Status().Code, status.Status().Message
	isClientError := code >= http.StatusBadRequest && code < http.StatusInternalServerError
	return isClientError || strings.Contains(message, failedWebhook) || IsDenied(err)
}

// failedWebhook is in the message of the API server, with the status 500, when it cannot call a webhook that must admit the request.
const failedWebhook = "failed calling webhook"

// denied matches the API server's message when an admission webhook or a policy denies a request.
var denied = regexp.MustCompile(`admission webhook "[^"]+" denied the request|ValidatingAdmissionPolicy '`)

// IsDenied reports whether an admission webhook or a policy has denied the request. A webhook chooses the status of the error, so that it
// may be that of a missing object, of a conflict, or of a failure of the API server.
func IsDenied(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && denied.MatchString(status.Status().Message)
}
