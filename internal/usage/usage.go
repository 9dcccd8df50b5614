// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package usage defines how an authenticator reports the last uses of tokens to the controller.
package usage

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"iter"
	"math"
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

	// maxLine is the maximum length of a line that is read, in bytes. The names of an APIKey have at most 316 bytes. A faulty authenticator
	// thus cannot fill the memory of the controller.
	maxLine = 4096
)

// Use is the last use of a token. It has an age and no time: the clock of an authenticator's node may be wrong.
type Use struct {
	// Namespace and Name of the APIKey.
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Hash of the token, as in its record.
	Hash string `json:"hash"`
	// Minutes since the use, rounded: 0 means at most one minute.
	Minutes uint32 `json:"minutes"`
}

// Age returns the time since the use, or the longest duration if it is longer, which only a faulty authenticator reports.
func (u *Use) Age() time.Duration {
	const longest = int64(math.MaxInt64 / time.Minute)
	return time.Duration(min(int64(u.Minutes), longest)) * time.Minute
}

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
		lines := bufio.NewScanner(report)
		lines.Buffer(nil, maxLine)
		for lines.Scan() {
			var use Use
			if err := json.Unmarshal(lines.Bytes(), &use); err != nil {
				yield(Use{}, unreadable(cmp.Or(lines.Err(), err))) // the last line is incomplete if the report cannot be read
				return
			}
			if !yield(use, nil) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(Use{}, unreadable(err))
		}
	}
}

func unreadable(err error) error {
	return fmt.Errorf("the report of an authenticator cannot be read: %w", err)
}
