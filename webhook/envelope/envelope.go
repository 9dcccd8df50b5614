// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package envelope is the form of the answers of all HTTP APIs of this operator: {"errorCode", "errorMessage", "payload"}.
package envelope

import (
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
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

// Answer is an answer that is always the same, made in advance.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// NewError returns an error answer: its message tells the user what happened and what to do.
func NewError(status int, message string) *Answer {
	return NewAnswer(status, content{ErrorCode: status, ErrorMessage: &message})
}

// NewPayload returns the answer to a success.
func NewPayload(payload any) *Answer {
	return NewAnswer(http.StatusOK, content{Payload: payload})
}

// NewAnswer returns an answer of any JSON: what a protocol answers in a form of its own.
func NewAnswer(status int, content any) *Answer {
	body, err := json.Marshal(content)
	if err != nil {
		panic(err) // what this program answers with can be marshalled
	}
	return &Answer{Status: status, Body: body, Header: http.Header{
		"Cache-Control":  noStore,
		"Content-Type":   {"application/json"},
		"Content-Length": {strconv.Itoa(len(body))},
	}}
}

// With adds a header, named in canonical form, and returns the answer.
func (a *Answer) With(name, value string) *Answer {
	a.Header[name] = []string{value}
	return a
}

// Write answers a request.
func (a *Answer) Write(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.Header)
	w.WriteHeader(a.Status)
	_, _ = w.Write(a.Body) // whoever asked has gone, or sent HEAD
}
