// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

import "sync"

// namespaces counts the entries of each namespace. One goroutine at a time writes; readers take no lock.
type namespaces struct {
	counts sync.Map // from namespace to *int, which only the writer reads
}

// add adds to the number of entries of a namespace.
func (n *namespaces) add(namespace string, entries int) {
	value, ok := n.counts.Load(namespace)
	if !ok {
		value = new(int)
		n.counts.Store(namespace, value)
	}
	count := value.(*int)
	if *count += entries; *count == 0 {
		n.counts.Delete(namespace)
	}
}

// has reports whether a namespace has entries.
func (n *namespaces) has(namespace string) bool {
	_, ok := n.counts.Load(namespace)
	return ok
}
