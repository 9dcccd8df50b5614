// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// Few values, so that all combinations occur.
var (
	fuzzNamespaces = []string{"shop", "bank"}
	fuzzTokens     = []string{"t0", "t1", "t2", "t3", "t4", "t5"}
	fuzzNames      = []string{"k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9"}
	fuzzInstants   = []time.Time{{}, today.Add(-time.Hour), today.Add(time.Hour)}
)

// FuzzKeyring applies the same events to a Keyring and to a naive model, and compares their verdicts on all tokens.
func FuzzKeyring(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("adds, updates, deletes and lists of objects"))
	f.Add(slices.Repeat([]byte{0, 1, 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47}, 30))
	f.Fuzz(func(t *testing.T, data []byte) {
		input := fuzzInput(data[:min(len(data), 1000)])
		keyring, model := keyringOf(t), naive{}
		for len(input) > 0 {
			switch input.choose(5) {
			case 0:
				key := input.key()
				framework.Must(t, keyring.Delete(key))
				model.remove(key)
			case 1:
				var listed []*v1alpha1.APIKey
				model = naive{}
				for range input.choose(20) {
					listed = append(listed, input.key())
					model.set(listed[len(listed)-1])
				}
				framework.Must(t, keyring.Replace(objects(listed...), ""))
			case 2:
				key := input.key()
				framework.Must(t, keyring.Add(key))
				model.set(key)
			default:
				key := input.key()
				framework.Must(t, keyring.Update(key))
				model.set(key)
			}
			model.compare(t, keyring)
		}
	})
}

type fuzzInput []byte

func (i *fuzzInput) choose(among int) int {
	if len(*i) == 0 {
		return 0
	}
	chosen := int((*i)[0]) % among
	*i = (*i)[1:]
	return chosen
}

func (i *fuzzInput) key() *v1alpha1.APIKey {
	key := newKey(fuzzNamespaces[i.choose(2)], fuzzNames[i.choose(len(fuzzNames))])
	key.UID = types.UID(fmt.Sprintf("%s/%s/%d", key.Namespace, key.Name, i.choose(2)))
	key.Spec.Active = new(i.choose(4) > 0)
	if instant := fuzzInstants[i.choose(3)]; !instant.IsZero() {
		key.Spec.ExpiresAt = at(instant)
	}
	for range i.choose(3) {
		recorded := v1alpha1.TokenRecord{Hash: token.Hash(fuzzTokens[i.choose(len(fuzzTokens))])}
		if i.choose(4) > 0 {
			recorded.NotBefore = at(today)
		}
		if instant := fuzzInstants[i.choose(3)]; !instant.IsZero() {
			recorded.NotAfter = at(instant)
		}
		key.Status.Tokens = append(key.Status.Tokens, recorded)
	}
	return key
}

// naive is a model of the Keyring: the objects by namespace and name.
type naive map[types.NamespacedName]*v1alpha1.APIKey

func (n naive) set(key *v1alpha1.APIKey) {
	n[types.NamespacedName{Namespace: key.Namespace, Name: key.Name}] = key
}

func (n naive) remove(key *v1alpha1.APIKey) {
	name := types.NamespacedName{Namespace: key.Namespace, Name: key.Name}
	if current, ok := n[name]; ok && current.UID == key.UID {
		delete(n, name)
	}
}

// outcomes returns the outcomes that the objects of a namespace allow for a token.
func (n naive) outcomes(namespace, plaintext string) []outcome {
	var accepting, refusing []outcome
	for _, key := range n {
		for _, recorded := range key.Status.Tokens {
			if key.Namespace != namespace || recorded.Hash != token.Hash(plaintext) || recorded.NotBefore == nil {
				continue
			}
			switch {
			case !*key.Spec.Active:
				refusing = append(refusing, outcome{authn.Unauthenticated, authn.ReasonKeyDeactivated, string(key.UID)})
			case key.Spec.ExpiresAt != nil && !key.Spec.ExpiresAt.After(today):
				refusing = append(refusing, outcome{authn.Unauthenticated, authn.ReasonKeyExpired, string(key.UID)})
			case recorded.NotAfter != nil && !recorded.NotAfter.After(today):
				refusing = append(refusing, outcome{authn.Unauthenticated, authn.ReasonTokenSuperseded, string(key.UID)})
			default:
				accepting = append(accepting, granted(string(key.UID)))
			}
		}
	}
	switch {
	case len(accepting) > 0:
		return accepting
	case len(refusing) > 0:
		return refusing
	default:
		return []outcome{unknown}
	}
}

func (n naive) len() int {
	tokens := 0
	for _, key := range n {
		for _, recorded := range key.Status.Tokens {
			if recorded.NotBefore != nil {
				tokens++
			}
		}
	}
	return tokens
}

func (n naive) compare(t *testing.T, keyring *authn.Keyring) {
	t.Helper()
	if keyring.Len() != n.len() {
		t.Fatalf("Len() = %d, want %d", keyring.Len(), n.len())
	}
	for _, namespace := range fuzzNamespaces {
		for _, plaintext := range fuzzTokens {
			got, want := outcomeOf(decide(keyring, namespace, plaintext)), n.outcomes(namespace, plaintext)
			if !slices.Contains(want, got) {
				t.Fatalf("the verdict for %s in %s is %v, want one of %v", plaintext, namespace, got, want)
			}
		}
	}
}
