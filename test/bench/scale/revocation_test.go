// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build bench

package scale_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/bench/report"
	"squirrel.dev/apikey-operator/test/framework"
)

// revocationsPerTurn is the number of keys that are deactivated in a turn.
const revocationsPerTurn = 200

// revocations measures how long an authenticator accepts a key that is deactivated, compared with a watch of the same change.
func revocations(t *testing.T, p *population) []report.Row {
	t.Helper()
	_, address := p.startAuthenticator()
	seen := p.watchDeactivations()
	var refused, watched []float64
	next := p.issued
	for turn := range *turns + 1 {
		var refusals, sights []float64
		for i := range revocationsPerTurn {
			refusal, sight := p.revoke(&next[i], address, seen)
			refusals, sights = append(refusals, refusal), append(sights, sight)
		}
		next = next[revocationsPerTurn:]
		if turn > 0 { // the first one warms up
			refused, watched = append(refused, percentile99(refusals)), append(watched, percentile99(sights))
			t.Logf("p99 in ms: refused %.1f, watched %.1f", refused, watched)
		}
	}
	return []report.Row{{
		Figure: fmt.Sprintf("from the patch of `active` to the first 401, %s keys, p99 of %d", report.Thousands(len(p.issued)), revocationsPerTurn),
		Unit:   "ms", Values: refused, Floor: "a bare watch of client-go that receives the change", Floors: watched, Bar: report.Bar{AtMost: 1.5},
	}}
}

// sight is the time when the watch received the deactivation of a key.
type sight struct {
	uid string
	at  time.Time
}

// watchDeactivations watches all keys until the test ends.
func (p *population) watchDeactivations() <-chan sight {
	p.t.Helper()
	var list v1alpha1.APIKeyList
	framework.Must(p.t, p.Client.List(p.t.Context(), &list, client.Limit(1)))
	ctx, stop := context.WithCancel(p.t.Context())
	p.t.Cleanup(stop)
	watch, err := p.Client.Watch(ctx, &v1alpha1.APIKeyList{}, &client.ListOptions{
		Raw: &metav1.ListOptions{ResourceVersion: list.ResourceVersion},
	})
	framework.Must(p.t, err)
	p.t.Cleanup(watch.Stop)
	seen := make(chan sight, revocationsPerTurn)
	go func() {
		for event := range watch.ResultChan() {
			if key, ok := event.Object.(*v1alpha1.APIKey); ok && key.Spec.Active != nil && !*key.Spec.Active {
				seen <- sight{string(key.UID), time.Now()}
			}
		}
	}()
	return seen
}

// revoke deactivates a key. It returns the milliseconds until the authenticator refuses the key, and until the watch receives the change.
func (p *population) revoke(k *key, address string, seen <-chan sight) (refusal, sight float64) {
	p.t.Helper()
	if status := p.check(k, address); status != http.StatusOK {
		p.t.Fatalf("the response to %s is %d before it is deactivated", k.name, status)
	}
	patched := make(chan error, 1)
	started := time.Now()
	go func() {
		patched <- p.Client.Patch(p.t.Context(), k.object(), client.RawPatch(types.MergePatchType, []byte(`{"spec":{"active":false}}`)))
	}()
	for p.check(k, address) != http.StatusUnauthorized {
	}
	refused := time.Now()
	framework.Must(p.t, <-patched)
	at := <-seen
	if at.uid != k.uid {
		p.t.Fatalf("the watch received %s instead of %s", at.uid, k.uid)
	}
	return milliseconds(refused.Sub(started)), milliseconds(at.at.Sub(started))
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// check sends a check with a key to the authenticator, and returns the status of the response.
func (p *population) check(k *key, address string) int {
	p.t.Helper()
	request, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, "http://"+address+"/auth/forward/"+k.namespace, nil)
	framework.Must(p.t, err)
	request.Header.Set("X-API-Key", k.token)
	request.Header.Set("X-Forwarded-Method", http.MethodGet)
	response, err := http.DefaultClient.Do(request)
	framework.Must(p.t, err)
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	framework.Must(p.t, err)
	return response.StatusCode
}
