// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package envelope writes the JSON responses of all HTTP APIs of this operator: {"errorCode", "errorMessage", "payload"}.
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

// noStore is shared by all responses. Its capacity is 1, so that append copies it.
var noStore = []string{"no-store"}

// Response is an HTTP response that is encoded once and can be written often. Only a list is encoded each time.
type Response struct {
	Status int
	Header http.Header
	// Body is nil in a response that NewList returned.
	Body []byte
	// Message is that of an error, else empty.
	Message string

	writeList func(w *bufio.Writer)
}

// NewError returns the response to an error. The message is for users: what happened, then what to do.
func NewError(status int, message string) *Response {
	response := NewResponse(status, content{ErrorCode: status, ErrorMessage: &message})
	response.Message = message
	return response
}

// NewPayload returns the response to a success.
func NewPayload(payload any) *Response {
	return NewResponse(http.StatusOK, content{Payload: payload})
}

// NewList returns the response to a success whose payload is a list. Each item is encoded as it is written, so that a long list needs no
// more memory than its source. The response can be written as often as the source can be read.
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

// writeItems writes the items with commas between them, until a write fails.
func writeItems[T any](w *bufio.Writer, items iter.Seq[T]) {
	var (
		encoded bytes.Buffer
		encoder = json.NewEncoder(&encoded)
		current T // encoded through a pointer, so that not each item is copied to the heap
		comma   []byte
	)
	for current = range items {
		encoded.Reset()
		if err := encoder.Encode(&current); err != nil {
			panic(err) // all types of this program can be encoded
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
		panic(err) // all types of this program can be encoded
	}
	return &Response{Status: status, Body: body, Header: http.Header{
		"Cache-Control": noStore,
		"Content-Type":  {"application/json"},
	}}
}

// With sets a header and returns the response. The name must be in canonical form.
func (r *Response) With(name, value string) *Response {
	r.Header[name] = []string{value}
	return r
}

// Write writes the response. It ignores errors: the client has closed the connection, or sent HEAD.
func (r *Response) Write(w http.ResponseWriter) {
	maps.Copy(w.Header(), r.Header)
	w.WriteHeader(r.Status)
	if r.writeList == nil {
		_, _ = w.Write(r.Body)
		return
	}
	buffered := bufio.NewWriter(w)
	r.writeList(buffered)
	_ = buffered.Flush()
}
