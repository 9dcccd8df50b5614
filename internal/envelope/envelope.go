// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package envelope is the form of the answers of all HTTP APIs of this operator: {"errorCode", "errorMessage", "payload"}.
package envelope

import (
	"bufio"
	"bytes"
	"encoding/json"
	"iter"
	"maps"
	"net/http"
)

// content is the JSON envelope. A success has errorCode 0, errorMessage null and a payload; an error repeats its HTTP status in
// errorCode, and its payload is null.
type content struct {
	ErrorCode    int     `json:"errorCode"`
	ErrorMessage *string `json:"errorMessage"`
	Payload      any     `json:"payload"`
}

// noStore is a full slice of one: appending to it copies it.
var noStore = []string{"no-store"}

// Response is an answer that is always the same, made in advance; only a list is made while it is written.
type Response struct {
	Status int
	Header http.Header
	// Body is nil in an answer that NewList returned.
	Body []byte

	writeList func(w *bufio.Writer)
}

// NewError returns an error answer: its message tells the user what happened and what to do.
func NewError(status int, message string) *Response {
	return NewResponse(status, content{ErrorCode: status, ErrorMessage: &message})
}

// NewPayload returns the answer to a success.
func NewPayload(payload any) *Response {
	return NewResponse(http.StatusOK, content{Payload: payload})
}

// NewList returns the answer to a success whose payload is a list. Each item is made and encoded as it is written, so that a long list
// takes no more memory than its source. The answer can be written as often as the source can be read.
func NewList[T any](items iter.Seq[T]) *Response {
	empty := NewPayload([]T{})
	const end = "]}"
	begin := bytes.TrimSuffix(empty.Body, []byte(end))
	return &Response{Status: empty.Status, Header: empty.Header, writeList: func(w *bufio.Writer) {
		_, _ = w.Write(begin)
		writeItems(w, items)
		_, _ = w.WriteString(end)
	}}
}

// writeItems writes the items with commas between them, and stops when nobody takes them any more.
func writeItems[T any](w *bufio.Writer, items iter.Seq[T]) {
	var (
		encoded bytes.Buffer
		encoder = json.NewEncoder(&encoded)
		current T // encoded by its address, which spares a copy of each item on the heap
		comma   []byte
	)
	for current = range items {
		encoded.Reset()
		if err := encoder.Encode(&current); err != nil {
			panic(err) // what this program answers with can be encoded
		}
		_, _ = w.Write(comma)
		if _, err := w.Write(bytes.TrimSuffix(encoded.Bytes(), []byte("\n"))); err != nil {
			return
		}
		comma = []byte(",")
	}
}

// NewResponse returns a response with any JSON body, for protocols that do not use the envelope. net/http sets the length of bodies of up
// to 2 KB, and sends longer ones in chunks.
func NewResponse(status int, content any) *Response {
	body, err := json.Marshal(content)
	if err != nil {
		panic(err) // what this program answers with can be marshalled
	}
	return &Response{Status: status, Body: body, Header: http.Header{
		"Cache-Control": noStore,
		"Content-Type":  {"application/json"},
	}}
}

// With adds a header, named in canonical form, and returns the answer.
func (a *Response) With(name, value string) *Response {
	a.Header[name] = []string{value}
	return a
}

// Write answers a request.
func (a *Response) Write(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.Header)
	w.WriteHeader(a.Status)
	if a.writeList == nil {
		_, _ = w.Write(a.Body) // whoever asked has gone, or sent HEAD
		return
	}
	buffered := bufio.NewWriter(w)
	a.writeList(buffered)
	_ = buffered.Flush() // as above
}
