// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build bench

package scale_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/bench/report"
	"squirrel.dev/apikey-operator/test/framework"
)

const (
	issuedPerTurn = 5_000

	// concurrentWriters is the number of keys that the controller issues at a time.
	concurrentWriters = 10
)

// controllerAtWork measures the memory of a controller, and how fast it issues keys, compared with a client that sends the same writes.
func controllerAtWork(t *testing.T, p *population) []report.Row {
	t.Helper()
	controller := p.startController()
	memory := controller.atRest()
	t.Logf("%+v, heap %.0f MB", memory, controller.Metric("go_memstats_heap_alloc_bytes")/megabyte)
	var issued, written []float64
	for turn := range *turns {
		if turn > 0 {
			controller = p.startController()
		}
		issued = append(issued, p.rateOfController(controller, issuedPerTurn))
		controller.Kill() // it would issue the keys of the client
		written = append(written, p.rateOfClient(issuedPerTurn))
		t.Logf("keys/s by the controller %.0f, by the client %.0f", issued, written)
	}
	at := fmt.Sprintf(" at %s keys", report.Thousands(len(p.issued)))
	return []report.Row{
		{Figure: "memory (RSS) of a controller at rest," + at, Unit: "MB", Values: []float64{memory.now}, Bar: report.Bar{AtMost: 250}},
		{Figure: "peak memory (RSS) until then," + at, Unit: "MB", Values: []float64{memory.peak}},
		{
			Figure: fmt.Sprintf("issuing %s keys at once,%s", report.Thousands(issuedPerTurn), at), Unit: "keys/s", Values: issued,
			Floor: "a client that sends as many of the same writes at a time", Floors: written, Bar: report.Bar{AtLeast: 0.9},
		},
	}
}

// rateOfController returns how many keys per second the controller issues when this many exist at once.
func (p *population) rateOfController(controller *daemon, count int) float64 {
	p.t.Helper()
	const metric = "apikey_issued_total"
	before := controller.Metric(metric)
	p.store(&p.appliedForm, count)
	started, meanwhile := time.Now(), controller.Metric(metric)
	rate := 0.0 // by the last metrics before all keys were issued
	// Not more often: serving the metrics costs the controller a good part of the processor time of issuing a key.
	framework.EventuallyWithin(p.t, 10*time.Minute, time.Second, "all keys are issued", func() bool {
		issued := controller.Metric(metric)
		if issued == before+float64(count) {
			return true
		}
		rate = (issued - meanwhile) / time.Since(started).Seconds()
		return false
	})
	return rate
}

// rateOfClient returns how many keys per second a client writes that only sends the writes of the controller.
func (p *population) rateOfClient(count int) float64 {
	p.t.Helper()
	stored := p.store(&p.appliedForm, count)
	todo := make(chan *v1alpha1.APIKey, len(stored))
	for i := range stored {
		todo <- p.read(&stored[i])
	}
	close(todo)
	started := time.Now()
	var writers sync.WaitGroup
	for range concurrentWriters {
		writers.Go(func() {
			for object := range todo {
				if err := p.write(object); err != nil {
					p.t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	return float64(len(stored)) / time.Since(started).Seconds()
}

// read returns a key with the fields that the controller keeps and sends.
func (p *population) read(k *key) *v1alpha1.APIKey {
	p.t.Helper()
	object := k.object()
	framework.Must(p.t, p.Client.Get(p.t.Context(), client.ObjectKeyFromObject(object), object))
	object.ManagedFields, object.Annotations = nil, nil
	return object
}

// write sends the writes that issue a key: its hash, its Secret, and the final status.
func (p *population) write(object *v1alpha1.APIKey) error {
	ctx, plaintext, secretName := p.t.Context(), token.New(), object.Name+"-token"
	issued := p.issuedForm.decode(p.t).Status
	issued.Tokens[0].Hash, issued.Tokens[0].Hint, issued.SecretName = token.Hash(plaintext), token.Hint(plaintext), secretName
	claimed := issued.DeepCopy()
	claimed.Tokens[0].NotBefore, claimed.Tokens[0].ClaimedAt = nil, claimed.Tokens[0].NotBefore
	for i := range claimed.Conditions {
		condition := &claimed.Conditions[i]
		condition.Status, condition.Reason, condition.Message = metav1.ConditionFalse, v1alpha1.ReasonPending, "Handing over the token."
	}

	object.Status = *claimed
	if err := p.writer.Status().Update(ctx, object); err != nil {
		return err
	}
	owner := *metav1.NewControllerRef(object, v1alpha1.GroupVersion.WithKind("APIKey"))
	owner.BlockOwnerDeletion = new(false)
	if err := p.writer.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: object.Namespace, Name: secretName,
			Labels: map[string]string{"app.kubernetes.io/managed-by": "apikey-operator", "keys.squirrel.dev/apikey": object.Name},
			Annotations: map[string]string{
				"keys.squirrel.dev/apikey": object.Name, "keys.squirrel.dev/apikey-uid": string(object.UID),
				"keys.squirrel.dev/token-hash": token.Hash(plaintext),
			},
			OwnerReferences: []metav1.OwnerReference{owner},
		},
		Type: v1alpha1.SecretTypeToken,
		Data: map[string][]byte{"token": []byte(plaintext)},
	}); err != nil {
		return err
	}
	object.Status = issued
	return p.writer.Status().Update(ctx, object)
}
