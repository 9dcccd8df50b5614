// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

import "sync"

// namespaces are those of entries, with their numbers. One goroutine at a time writes; readers take no lock.
type namespaces struct {
	entries sync.Map // from the namespace to a *int, which only who writes reads
}

// add counts entries of a namespace more, or fewer.
func (n *namespaces) add(namespace string, entries int) {
	count, ok := n.entries.Load(namespace)
	if !ok {
		count = new(int)
		n.entries.Store(namespace, count)
	}
	number := count.(*int)
	if *number += entries; *number == 0 {
		n.entries.Delete(namespace)
	}
}

// has says whether there are entries of a namespace.
func (n *namespaces) has(namespace string) bool {
	_, ok := n.entries.Load(namespace)
	return ok
}
