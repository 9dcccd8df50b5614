// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"fmt"
	"unique"

	"k8s.io/klog/v2"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// record is what is kept of one object: its key, and an entry for each token that was handed over.
type record struct {
	Key
	tokens []entry
}

// recordOf returns the record of an object in any form that a Keyring is given: as the API has it, as the feed decodes it, or as the
// record that it already is.
func recordOf(object any) (*record, error) {
	switch object := object.(type) {
	case *record:
		return object, nil
	case *wireKey:
		return new(newRecord(object.apiKey())), nil
	case *v1alpha1.APIKey:
		return new(newRecord(object)), nil
	default:
		return nil, fmt.Errorf("the keyring holds APIKeys, not %T", object)
	}
}

// newRecord keeps what a verdict needs. A token that cannot be read is left out, and takes nothing else down with it.
func newRecord(object *v1alpha1.APIKey) record {
	r := record{Key: newKey(object)}
	for i := range object.Status.Tokens {
		recorded := &object.Status.Tokens[i]
		if recorded.NotBefore == nil {
			continue // not handed over yet
		}
		digest, err := token.ParseHash(recorded.Hash)
		if err != nil {
			klog.Background().Error(err, "Leaving out a token whose hash cannot be read: it is refused as unknown",
				"apikey", klog.KObj(object), "uid", object.UID, "field", fmt.Sprintf("status.tokens[%d].hash", i))
			continue
		}
		e := entry{digest: digest, Key: r.Key}
		e.IssuedAt = recorded.NotBefore.Unix()
		if recorded.NotAfter != nil {
			e.endsAt = min(e.endsAt, recorded.NotAfter.Unix())
		}
		r.tokens = append(r.tokens, e)
	}
	return r
}

func newKey(object *v1alpha1.APIKey) Key {
	validity := apikey.ValidityOf(object)
	// One allocation for all three, apart from the rest of the object; the namespace is shared by all its keys.
	name, appName := len(object.Name), len(object.Name)+len(object.Spec.AppName)
	kept := object.Name + object.Spec.AppName + string(object.UID)
	return Key{
		deactivated: validity.Deactivated,
		ended:       validity.Ended,
		endsAt:      validity.ExpiresAt,
		keyEndsAt:   validity.ExpiresAt,
		Access:      accessOf(&object.Spec),
		Namespace:   unique.Make(object.Namespace).Value(),
		Name:        kept[:name],
		AppName:     kept[name:appName],
		UID:         kept[appName:],
	}
}

func accessOf(spec *v1alpha1.APIKeySpec) Access {
	var access Access
	if spec.ReadAccess {
		access |= Read
	}
	if spec.WriteAccess {
		access |= Write
	}
	return access
}
