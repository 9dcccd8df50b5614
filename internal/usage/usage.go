// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package usage defines how an authenticator reports the last uses of tokens to the controller.
package usage

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	// Path is the path of the report. A GET returns the uses as JSON objects, one in each line.
	Path = "/usage"

	// WithinParameter is the query parameter that limits the report to the uses of the last minutes: a number of minutes. Without it, the
	// report has the last use of each token since the start of the authenticator.
	WithinParameter = "within"

	// ContentType of the report.
	ContentType = "application/x-ndjson"

	// Audience of the ServiceAccount token with which the controller reads the report. The token is not accepted by the Kubernetes API.
	Audience = "apikey-usage"
)

// Use is the last use of a token. It has an age and no time: the clock of an authenticator's node may be wrong.
type Use struct {
	// Namespace and Name of the APIKey.
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Hash of the token, as in its record.
	Hash string `json:"hash"`
	// Minutes since the use, rounded down.
	Minutes uint32 `json:"minutes"`
}

// Age returns the time since the use.
func (u *Use) Age() time.Duration { return time.Duration(u.Minutes) * time.Minute }

// Write writes a report.
func Write(w io.Writer, uses iter.Seq[Use]) error {
	encoder := jsontext.NewEncoder(w)
	var current Use // encoded through a pointer, so that not each use is copied to the heap
	for current = range uses {
		if err := json.MarshalEncode(encoder, &current); err != nil {
			return err
		}
	}
	return nil
}

// Read yields the uses of a report. After an error it ends.
func Read(report io.Reader) iter.Seq2[Use, error] {
	return func(yield func(Use, error) bool) {
		decoder := jsontext.NewDecoder(report)
		for {
			var use Use
			err := json.UnmarshalDecode(decoder, &use)
			switch {
			case errors.Is(err, io.EOF) && decoder.StackDepth() == 0:
				return
			case err != nil:
				yield(Use{}, fmt.Errorf("the report of an authenticator cannot be read: %w", err))
				return
			case !yield(use, nil):
				return
			}
		}
	}
}
