// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package simulation

// maxTries is the maximum number of runs to shorten a history.
const maxTries = 2000

// shrink returns choices with which a run violates the same invariant in as few and as plain steps as it finds. The function try makes the
// run of choices, and returns the invariant that it violates.
func shrink(made []uint16, invariant string, try func([]uint16) string) []uint16 {
	tries := 0
	violates := func(candidate []uint16) bool {
		tries++
		return tries <= maxTries && try(candidate) == invariant
	}
	for shorter := true; shorter; {
		before := weight(made)
		for size := len(made) / 2; size >= 1; size /= 2 {
			made = removeEach(made, size, violates)
			made = zeroEach(made, size, violates)
		}
		shorter = weight(made) < before
	}
	return made
}

// removeEach removes each part of a size without which the run violates the same.
func removeEach(made []uint16, size int, violates func([]uint16) bool) []uint16 {
	for at := 0; at+size <= len(made); {
		candidate := append(append([]uint16{}, made[:at]...), made[at+size:]...)
		if violates(candidate) {
			made = candidate
		} else {
			at += size
		}
	}
	return made
}

// zeroEach sets each part of a size to the plainest choice with which the run violates the same.
func zeroEach(made []uint16, size int, violates func([]uint16) bool) []uint16 {
	for at := 0; at+size <= len(made); at += size {
		candidate := append([]uint16{}, made...)
		clear(candidate[at : at+size])
		if weight(candidate) < weight(made) && violates(candidate) {
			made = candidate
		}
	}
	return made
}

// weight is the number of choices, and of those that are not the plainest.
func weight(made []uint16) int {
	weight := len(made)
	for _, choice := range made {
		if choice != 0 {
			weight++
		}
	}
	return weight
}
