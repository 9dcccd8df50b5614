// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"math/rand/v2"

	"k8s.io/apimachinery/pkg/types"
)

// choices decides everything in a run that may happen in more than one way. A seed determines all choices. A recorded list of them replays
// the same run, and a list with zeros in it a simpler one: 0 always stands for the plainest way.
type choices struct {
	random *rand.Rand // nil in a replay
	replay []uint16
	made   []uint16
}

func newChoices(seed uint64) choices {
	return choices{random: rand.New(rand.NewPCG(seed, 0))}
}

// below chooses a number from 0 to n-1.
func (c *choices) below(n int) int {
	choice := 0
	switch at := len(c.made); {
	case c.random != nil:
		choice = c.random.IntN(n)
	case at < len(c.replay):
		choice = int(c.replay[at]) % n
	}
	c.made = append(c.made, uint16(choice))
	return choice
}

// chance chooses true with a probability in percent.
func (c *choices) chance(percent int) bool { return c.below(100) >= 100-percent }

// inSomeOrder starts a list elsewhere, where the order is random.
func (c *choices) inSomeOrder(names []types.NamespacedName) []types.NamespacedName {
	if len(names) < 2 {
		return names
	}
	first := c.below(len(names))
	return append(names[first:len(names):len(names)], names[:first]...)
}

// one chooses one of the options.
func one[T any](c *choices, options ...T) T { return options[c.below(len(options))] }
