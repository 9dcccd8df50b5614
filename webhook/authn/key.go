// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"fmt"
	"unique"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/klog/v2"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// Key has the parts of an APIKey, and of the token that was presented, that a verdict returns. They never change.
type Key struct {
	// The fields that a decision reads come first: see entry.

	deactivated, ended bool // as in apikey.Validity
	// Access that the key gives.
	Access  Access
	lastUse lastUse // of the token; the only field that changes
	// Namespace of the APIKey. The key is accepted in this one alone.
	Namespace string
	endsAt    int64 // end of the token, not later than that of its key, in seconds since 1970, or apikey.NeverExpires

	keyEndsAt int64 // end of the key, in the same form
	// Name of the APIKey.
	Name string
	// AppName is the app that the key belongs to, as UTF-8.
	AppName string
	// UID of the APIKey. A later APIKey of the same name has another one.
	UID string
	// IssuedAt is when the token was handed over, in seconds since 1970.
	IssuedAt int64
}

// ExpiresAt returns when the token expires, in seconds since 1970, or apikey.NeverExpires.
func (k *Key) ExpiresAt() int64 { return k.endsAt }

// entry is a token that was handed over, and its key. Only its last use changes. The first of its two cache lines holds all that a decision
// to grant reads and writes.
type entry struct {
	digest token.Digest
	Key
}

// isSameToken reports whether both entries are of one token of one APIKey.
func (e *entry) isSameToken(other *entry) bool {
	return e.digest == other.digest && e.UID == other.UID && e.Namespace == other.Namespace
}

// parsedKey has the parts of an APIKey that the store holds: an entry for each token that was handed over.
type parsedKey struct {
	namespace, name, uid string
	entries              []entry
}

// parse returns the parsed form of an object. A Reflector hands over APIKeys from a watch, and parsed keys from a list.
func parse(object any) (*parsedKey, error) {
	switch object := object.(type) {
	case *parsedKey:
		return object, nil
	case *v1alpha1.APIKey:
		return new(newParsedKey(object)), nil
	default:
		return nil, fmt.Errorf("the keyring holds APIKeys, not %T", object)
	}
}

// newParsedKey parses an APIKey. It logs the fields that could not be decoded. It leaves out a token whose hash cannot be read, and keeps
// the others.
func newParsedKey(object *v1alpha1.APIKey) parsedKey {
	if object.Unreadable != nil {
		klog.Background().Error(nil, "Ignoring fields of an APIKey that cannot be read: they give no access, and an unreadable end counts "+
			"as past", "apikey", klog.KObj(object), "uid", object.UID, "fields", object.Unreadable)
	}
	key := newKey(object)
	parsed := parsedKey{namespace: key.Namespace, name: key.Name, uid: key.UID}
	for i := range object.Status.Tokens {
		recorded := &object.Status.Tokens[i]
		if recorded.NotBefore == nil {
			continue // not handed over yet
		}
		digest, err := token.ParseHash(recorded.Hash)
		if err != nil {
			klog.Background().Error(err, "Ignoring a token of an APIKey, because its hash cannot be read: requests with it are refused",
				"apikey", klog.KObj(object), "uid", object.UID, "field", fmt.Sprintf("status.tokens[%d].hash", i))
			continue
		}
		e := entry{digest: digest, Key: key}
		e.IssuedAt = recorded.NotBefore.Unix()
		if recorded.NotAfter != nil {
			e.endsAt = min(e.endsAt, recorded.NotAfter.Unix())
		}
		parsed.entries = append(parsed.entries, e)
	}
	return parsed
}

func newKey(object *v1alpha1.APIKey) Key {
	validity := apikey.ValidityOf(object)
	// One allocation for the three strings, instead of references to parts of the decoded object. All keys of a namespace share its name.
	name, appName := len(object.Name), len(object.Name)+len(object.Spec.AppName)
	joined := object.Name + object.Spec.AppName + string(object.UID)
	return Key{
		deactivated: validity.Deactivated,
		ended:       validity.Ended,
		endsAt:      validity.ExpiresAt,
		keyEndsAt:   validity.ExpiresAt,
		Access:      accessOf(&object.Spec),
		Namespace:   unique.Make(object.Namespace).Value(),
		Name:        joined[:name],
		AppName:     joined[name:appName],
		UID:         joined[appName:],
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

// A Reflector takes only runtime.Objects as the items of a list.
var _ runtime.Object = (*parsedKey)(nil)

// DeepCopyObject returns the parsed key itself, which never changes.
func (p *parsedKey) DeepCopyObject() runtime.Object { return p }

// GetObjectKind returns no kind.
func (*parsedKey) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }
