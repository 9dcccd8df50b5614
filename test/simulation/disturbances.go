// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
)

// The lease of leader election: another controller leads when the leader has not renewed it for so long.
const leaseDuration = 15 * time.Second

// disturb causes the remaining number of disturbances, one after the other.
func (s *simulation) disturb(remaining int) {
	if remaining == 0 {
		return
	}
	s.after(s.pace(), func() {
		if s.healedAt > 0 {
			return
		}
		s.causeDisturbance()
		s.checkAllDecisions()
		s.disturb(remaining - 1)
	})
}

// pace is the time between two actions or disturbances.
func (s *simulation) pace() time.Duration {
	return one(&s.choices, 10*time.Millisecond, 30*time.Millisecond, 100*time.Millisecond, 300*time.Millisecond, time.Second, 3*time.Second,
		8*time.Second, 20*time.Second)
}

// causeDisturbance causes one disturbance. The plainest one is none.
func (s *simulation) causeDisturbance() {
	c, a := one(&s.choices, s.controllers...), one(&s.choices, s.authenticators...)
	s.counts.disturbances++
	switch s.below(14) {
	case 1, 2, 3:
		s.crashController(c)
	case 4, 5:
		s.suspend(c)
	case 6:
		s.partition(c.process)
		s.expectTakeover(c)
	case 7:
		s.interruptWatch(one(&s.choices, c.process, a.process))
	case 8:
		s.interruptWatch(c.process)
		s.interruptWatch(a.process)
		s.after(s.outage(), s.server.compact)
	case 9:
		a.crash()
		s.after(s.outage(), func() {
			if !a.up {
				a.start()
			}
		})
	case 10:
		s.partition(a.process)
	case 11:
		s.toggleRefusal()
	case 12:
		c.skew = s.chooseSkew()
		s.log(c.name, text("has its clock set"))
	case 13:
		s.wakeUp(c)
		backup := s.server.takeBackup()
		s.after(s.pace(), func() {
			if s.healedAt == 0 {
				s.server.restore(backup)
			}
		})
	}
}

// outage is the duration of a disturbance.
func (s *simulation) outage() time.Duration {
	return one(&s.choices, 100*time.Millisecond, time.Second, 4*time.Second, 9*time.Second, 12*time.Second, 16*time.Second, 40*time.Second)
}

func (s *simulation) crashController(c *controller) {
	if !c.up {
		return
	}
	c.crash()
	s.after(s.outage(), func() {
		if !c.up && (!s.profile.elected || c == s.leader) {
			c.start()
		}
	})
	s.expectTakeover(c)
}

func (s *simulation) suspend(c *controller) {
	if !c.up || c.paused {
		return
	}
	incarnation := c.incarnation
	c.pause()
	s.after(s.outage(), func() {
		if c.incarnation == incarnation {
			c.resume()
		}
	})
	s.expectTakeover(c)
}

func (s *simulation) partition(p *process) {
	s.log(p.name, text("loses its connection to the API server"))
	p.partitioned = true
	s.after(s.outage(), func() {
		if p.partitioned {
			s.log(p.name, text("is connected to the API server again"))
			p.partitioned = false
			s.interruptWatch(p)
		}
	})
}

func (s *simulation) interruptWatch(p *process) {
	for _, w := range s.server.watchers {
		if w.process == p {
			s.log(p.name, text("loses its watch"))
			w.interrupt()
		}
	}
}

// expectTakeover lets another controller lead if the leader does not continue before its lease ends. The former leader notices it late, if
// it continues.
func (s *simulation) expectTakeover(c *controller) {
	if !s.profile.elected || c != s.leader {
		return
	}
	s.after(leaseDuration+time.Duration(s.below(3))*time.Second, func() {
		if c != s.leader || c.up && !c.paused && !c.partitioned || len(s.controllers) == 1 {
			return
		}
		s.leader = s.successorOf(c)
		s.leader.crash() // it may have led before, and not have noticed yet that it no longer does
		s.leader.start()
		c.after(0, func() { c.after(time.Duration(s.below(2000))*time.Millisecond, c.crash) })
	})
}

// successorOf returns the controller after this one.
func (s *simulation) successorOf(c *controller) *controller {
	for i := range s.controllers {
		if s.controllers[i] == c {
			return s.controllers[(i+1)%len(s.controllers)]
		}
	}
	return c
}

// toggleRefusal lets the API server refuse one-time Secrets, or accept them again.
func (s *simulation) toggleRefusal() {
	namespace := s.chooseNamespace()
	if s.server.refusals[namespace] != nil {
		s.log("API server", text("accepts one-time Secrets again in "+namespace))
		delete(s.server.refusals, namespace)
		return
	}
	s.log("API server", text("refuses one-time Secrets in "+namespace))
	s.server.refusals[namespace] = one(&s.choices, refusals...)
}

// refusals are the responses to the creation of a Secret that a quota, a webhook or a policy refuses. A webhook chooses the code.
var refusals = []error{
	apierrors.NewForbidden(secretResource, "", errors.New("exceeded quota: secrets, requested: secrets=1")),
	apierrors.NewInternalError(errors.New(`admission webhook "policy.example.com" denied the request: no`)),
	apierrors.NewConflict(secretResource, "", errors.New(`admission webhook "policy.example.com" denied the request: no`)),
	apierrors.NewForbidden(secretResource, "", errors.New("unable to create new content in namespace a because it is being terminated")),
}

// wakeUp lets a controller reconcile a key for no reason.
func (s *simulation) wakeUp(c *controller) {
	if key := s.chooseKey(); key != nil && c.up {
		c.queue.AddWithOpts(priorityqueue.AddOpts{}, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(key)})
	}
}
