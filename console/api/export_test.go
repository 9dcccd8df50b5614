// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import "slices"

// Calls returns the calls, each as "name: METHOD /path", sorted.
func Calls() []string {
	var all []string
	for _, c := range calls {
		all = append(all, c.name+": "+c.method+" "+c.path)
	}
	slices.Sort(all)
	return all
}
