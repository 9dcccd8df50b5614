// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"bytes"
	"io"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// authenticator is a real Authenticator with a real Keyring, which decodes the bytes that the API server sends.
type authenticator struct {
	*process
	keyring *authn.Keyring
	decider *authn.Authenticator

	// seen is what the API server has sent, for the comparison.
	seen     map[types.NamespacedName]*v1alpha1.APIKey
	synced   bool
	lastSeen time.Time
}

// maxStaleness is the bound of an authenticator's staleness.
const maxStaleness = 10 * time.Minute

func (s *simulation) newAuthenticator(name string) *authenticator {
	return &authenticator{process: &process{simulation: s, name: name}}
}

func (a *authenticator) start() {
	a.process.start()
	a.keyring = authn.NewKeyring()
	a.decider = authn.NewAuthenticator(a.keyring, maxStaleness, a.clock)
	a.seen, a.synced, a.lastSeen = nil, false, time.Now()
	a.newWatcher(a.replace, a.apply, a.bookmark)
}

func (a *authenticator) replace(keys []*v1alpha1.APIKey) {
	list := map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "APIKeyList", "metadata": metav1.ListMeta{ResourceVersion: "1"}, "items": keys,
	}
	decoded, err := authn.DecodeList(bytes.NewReader(encode(list)))
	must(err)
	must(a.keyring.Replace(itemsOf(decoded), ""))
	a.seen = make(map[types.NamespacedName]*v1alpha1.APIKey, len(keys))
	for _, key := range keys {
		a.seen[client.ObjectKeyFromObject(key)] = key
	}
	a.synced, a.lastSeen = true, time.Now()
	a.checkDecisions(a)
}

func itemsOf(list runtime.Object) []any {
	objects, err := meta.ExtractList(list)
	must(err)
	items := make([]any, len(objects))
	for i := range objects {
		items[i] = objects[i]
	}
	return items
}

func (a *authenticator) apply(published *change) {
	kind, object, err := authn.NewEventDecoder(io.NopCloser(bytes.NewReader(published.asJSON()))).Decode()
	must(err)
	a.log(a.name, func() string { return "sees " + a.describeChange(published) })
	name := client.ObjectKeyFromObject(published.key)
	switch kind {
	case watch.Added:
		err = a.keyring.Add(object)
		a.seen[name] = published.key
	case watch.Modified:
		err = a.keyring.Update(object)
		a.seen[name] = published.key
	case watch.Deleted:
		err = a.keyring.Delete(object)
		delete(a.seen, name)
	}
	must(err)
	a.lastSeen = time.Now()
	a.checkDecisions(a)
}

func (a *authenticator) bookmark() {
	must(a.keyring.Bookmark(""))
	a.lastSeen = time.Now()
}
