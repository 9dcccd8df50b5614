// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"errors"
	"iter"
	"math"
	"net/http"
	"strconv"

	"squirrel.dev/apikey-operator/internal/envelope"
	"squirrel.dev/apikey-operator/internal/usage"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// NewHandler returns the handler of the report. It responds only to callers whom the reviewer confirms.
func NewHandler(authenticator *authn.Authenticator, reviewer *Reviewer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+usage.Path, func(w http.ResponseWriter, r *http.Request) {
		if refusal := reviewer.review(r); refusal != nil {
			refusal.Write(w)
			return
		}
		minutes, err := within(r)
		if err != nil {
			envelope.NewError(http.StatusBadRequest, err.Error()).Write(w)
			return
		}
		w.Header().Set("Content-Type", usage.ContentType)
		_ = usage.Write(w, report(authenticator.Uses(minutes))) // the client notices that it is incomplete
	})
	return mux
}

// within returns the maximum age of the uses that the caller requests, in minutes.
func within(r *http.Request) (uint32, error) {
	text := r.URL.Query().Get(usage.WithinParameter)
	if text == "" {
		return math.MaxUint32, nil
	}
	minutes, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, errors.New("the parameter within must be a number of minutes, such as 3")
	}
	return uint32(minutes), nil
}

// report returns the uses in the form of a report.
func report(uses iter.Seq[authn.Use]) iter.Seq[usage.Use] {
	return func(yield func(usage.Use) bool) {
		for use := range uses {
			if !yield(usage.Use{Namespace: use.Namespace, Name: use.Name, Hash: use.Digest.String(), Minutes: use.Minutes}) {
				return
			}
		}
	}
}
