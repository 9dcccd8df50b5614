// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import "slices"

// Routes returns the routes, each as "name: METHOD /path", sorted.
func Routes() []string {
	var all []string
	for _, r := range routes {
		all = append(all, r.name+": "+r.method+" "+r.path)
	}
	slices.Sort(all)
	return all
}
