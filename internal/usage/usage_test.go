// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package usage_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"squirrel.dev/apikey-operator/internal/usage"
	"squirrel.dev/apikey-operator/test/framework"
)

func TestReport_IsReadAsItWasWritten(t *testing.T) {
	uses := []usage.Use{{Namespace: "shop", Name: "a", Hash: "sha256:00", Minutes: 3}, {Namespace: "shop", Name: "b", Hash: "sha256:01"}}
	var report bytes.Buffer
	framework.Must(t, usage.Write(&report, slices.Values(uses)))
	want := `{"namespace":"shop","name":"a","hash":"sha256:00","minutes":3}` + "\n" +
		`{"namespace":"shop","name":"b","hash":"sha256:01","minutes":0}` + "\n"
	if report.String() != want {
		t.Errorf("the report is %s, want %s", report.String(), want)
	}
	var read []usage.Use
	for use, err := range usage.Read(&report) {
		framework.Must(t, err)
		read = append(read, use)
	}
	if !slices.Equal(read, uses) {
		t.Errorf("the uses are %v, want %v", read, uses)
	}
}

func TestRead_ReportsWhatItCannotRead(t *testing.T) {
	const use = `{"namespace":"shop","name":"a","hash":"sha256:00","minutes":3}` + "\n"
	for report, want := range map[string]string{
		use + `{"namespace":"shop","na`: "unexpected EOF",
		use + `{"minutes":-1}`:          "cannot be read",
		use + `{"minutes":4294967296}`:  "cannot be read",
		use + `[]`:                      "cannot be read",
		use + `<html>`:                  "cannot be read",
		use + `{"namespace":"` + strings.Repeat("a", 1<<20) + `"}`: "token too long",
	} {
		var read int
		var last error
		for _, err := range usage.Read(strings.NewReader(report)) {
			if err == nil {
				read++
			}
			last = err
		}
		if read != 1 || last == nil || !strings.Contains(last.Error(), want) {
			t.Errorf("%q: read %d uses, and the error is %v", report, read, last)
		}
	}
}

func TestRead_NamesTheCauseOfAnIncompleteLine(t *testing.T) {
	report := io.MultiReader(strings.NewReader(`{"namespace":"shop","na`), iotest.ErrReader(context.DeadlineExceeded))
	for _, err := range usage.Read(report) {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the error is %v", err)
		}
	}
}

func TestAge_OfAFaultyAuthenticatorIsNotInTheFuture(t *testing.T) {
	for _, minutes := range []uint32{math.MaxInt32, math.MaxUint32} {
		if age := (&usage.Use{Minutes: minutes}).Age(); age < 200*365*24*time.Hour {
			t.Errorf("%d minutes are %s", minutes, age)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"namespace":"shop","name":"a","hash":"sha256:00","minutes":3}` + "\n"))
	f.Fuzz(func(t *testing.T, report []byte) {
		failed := false
		for _, err := range usage.Read(bytes.NewReader(report)) {
			if failed {
				t.Fatal("the report continues after an error")
			}
			failed = err != nil
		}
	})
}
