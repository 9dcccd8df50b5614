// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"bytes"
	"sync"
)

// Buffer is a [bytes.Buffer] that several goroutines may write and read.
type Buffer struct {
	mu      sync.Mutex
	content bytes.Buffer
}

// Write appends to the buffer.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.content.Write(p)
}

// String returns what was written.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.content.String()
}
