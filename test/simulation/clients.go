// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

// act lets clients do the remaining number of actions, one after the other. After the last one, all disturbances end.
func (s *simulation) act(remaining int) {
	if remaining == 0 {
		s.after(s.outage(), s.heal)
		return
	}
	s.takeAction()
	s.counts.actions++
	s.checkAllDecisions()
	s.after(s.pace(), func() { s.act(remaining - 1) })
}

// takeAction lets a client do something. The plainest action is none.
func (s *simulation) takeAction() {
	switch s.below(31) {
	case 0:
	case 1, 2:
		s.createMinted()
	case 3, 4:
		s.createRivals()
	case 5, 6, 7:
		s.createImported()
	case 8, 9:
		s.change("deactivates", func(key *v1alpha1.APIKey) { key.Spec.Active = new(false) })
	case 10, 11:
		expiry := s.chooseExpiry()
		s.change("changes the expiry of", func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = expiry })
	case 12:
		s.change("changes the access of", func(key *v1alpha1.APIKey) { key.Spec.WriteAccess = !key.Spec.WriteAccess })
	case 13, 14:
		s.deleteKey()
	case 15:
		s.replaceKey()
	case 16:
		s.change("removes the finalizer of", func(key *v1alpha1.APIKey) { key.Finalizers = nil })
	case 17, 18:
		s.deleteSecret()
	case 19:
		s.writeForeignSecret()
	case 20:
		s.change("annotates", func(key *v1alpha1.APIKey) {
			metav1.SetMetaDataAnnotation(&key.ObjectMeta, "example.com/touched", s.now.String())
		})
	case 21:
		s.createUnconfirmed()
	case 22:
		s.sweep()
	case 24, 25:
		s.requestRotation()
	case 26:
		s.configureRotation()
	case 27, 28:
		s.replaceImport()
	case 29:
		s.change("withdraws the rotation of", func(key *v1alpha1.APIKey) { key.Spec.Rotation = nil })
	case 30:
		s.fillTokens()
	case 23:
		if s.chance(5) {
			s.createCrowd()
		}
		ttl := s.chooseTTL()
		s.change("changes the ttl of", func(key *v1alpha1.APIKey) {
			if key.Spec.Secret != nil {
				key.Spec.Secret.TTL = ttl
			}
		})
	}
}

// Few names, so that keys conflict. The two forms of Café are the same app name.
var (
	keyNames = []string{"k1", "k2", "k3", "k4"}
	appNames = []string{"shop", "Caf\u00e9", "Cafe\u0301"}
)

func (s *simulation) chooseNamespace() string { return one(&s.choices, "a", "a", "a", "b") }

// chooseKey chooses a key that exists, or returns nil.
func (s *simulation) chooseKey() *v1alpha1.APIKey {
	keys := s.server.listKeys()
	if len(keys) == 0 {
		return nil
	}
	return one(&s.choices, keys...)
}

func (s *simulation) chooseExpiry() *metav1.Time {
	after := one(&s.choices, 0, -time.Hour, 3*time.Second, 12*time.Second, time.Minute, time.Hour)
	if after == 0 {
		return nil
	}
	return new(metav1.NewTime(s.clock().Add(after).Truncate(time.Second)))
}

func (s *simulation) chooseTTL() *metav1.Duration {
	if ttl := one(&s.choices, 0, time.Minute, 2*time.Minute); ttl != 0 {
		return &metav1.Duration{Duration: ttl}
	}
	return nil
}

func (s *simulation) newKey() *v1alpha1.APIKey {
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.chooseNamespace(), Name: one(&s.choices, keyNames...)},
		Spec:       v1alpha1.APIKeySpec{AppName: one(&s.choices, appNames...), ReadAccess: true},
	}
	if s.chance(15) {
		key.Spec.ExpiresAt = s.chooseExpiry()
	}
	if s.chance(5) {
		key.Finalizers = []string{finalizerUser}
	}
	return key
}

func (s *simulation) createMinted() {
	key := s.newKey()
	if s.chance(50) {
		key.Spec.Secret = &v1alpha1.TokenSecret{Name: one(&s.choices, "", "shared"), Key: one(&s.choices, "", "TOKEN"), TTL: s.chooseTTL()}
	}
	s.create(key)
}

func (s *simulation) createImported() {
	key, imported := s.newKey(), s.chooseImport()
	key.Spec.TokenHash, key.Spec.TokenHint = imported.hash, imported.plaintext[:7]
	s.create(key)
}

// createRivals creates two keys at once that conflict with each other: they have the same app name, or import the same token.
func (s *simulation) createRivals() {
	one, other := s.newKey(), s.newKey()
	other.Namespace = one.Namespace
	if s.chance(40) {
		imported := s.chooseImport()
		one.Spec.TokenHash, one.Spec.TokenHint = imported.hash, imported.plaintext[:7]
		other.Spec.TokenHash, other.Spec.TokenHint = imported.hash, imported.plaintext[:7]
	} else {
		other.Spec.AppName = one.Spec.AppName
	}
	s.create(one)
	s.create(other)
}

func (s *simulation) create(key *v1alpha1.APIKey) {
	if created, err := s.server.createKey(s.users, key); err == nil {
		s.log("user", func() string { return fmt.Sprintf("creates %s with UID %s", s.describeSpec(key), created.UID) })
	}
}

// createCrowd creates many keys of one app name.
func (s *simulation) createCrowd() {
	for i := range 20 {
		s.create(&v1alpha1.APIKey{
			ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: fmt.Sprintf("c%02d", i)},
			Spec:       v1alpha1.APIKeySpec{AppName: "shop", ReadAccess: true},
		})
	}
}

// change changes a key that exists.
func (s *simulation) change(verb string, change func(*v1alpha1.APIKey)) {
	current := s.chooseKey()
	if current == nil {
		return
	}
	key := current.DeepCopy()
	change(key)
	if key.Spec.ExpiresAt != nil && current.Status.DeactivatedAt != nil {
		return
	}
	s.log("user", func() string { return verb + " " + s.describeSpec(key) })
	_, _ = s.server.updateSpec(s.users, key)
}

func (s *simulation) deleteKey() {
	key := s.chooseKey()
	if key == nil {
		return
	}
	policy := one(&s.choices, metav1.DeletePropagationBackground, metav1.DeletePropagationBackground, metav1.DeletePropagationForeground,
		metav1.DeletePropagationOrphan)
	s.log("user", func() string { return fmt.Sprintf("deletes %s (%s)", describeName(key), policy) })
	_ = s.server.deleteKey(s.users, client.ObjectKeyFromObject(key), nil, policy)
}

// requestRotation requests a rotation, now or at another time.
func (s *simulation) requestRotation() {
	at := s.clock().Add(one(&s.choices, 0, 500*time.Millisecond, 10*time.Second, 40*time.Second, -time.Hour))
	request := &v1alpha1.RotationRequest{At: metav1.NewTime(at), Overlap: s.chooseOverlap()}
	s.change("requests a rotation of", func(key *v1alpha1.APIKey) {
		if key.Spec.TokenHash == "" {
			rotation := rotationOf(key)
			rotation.Request = request
			key.Spec.Rotation = &rotation
		}
	})
}

// fillTokens requests rotations of a key, each when the one before has probably ended, until its list of tokens is full. The last request
// has another overlap, which may be 0.
func (s *simulation) fillTokens() {
	key := s.chooseKey()
	if key == nil || key.Spec.TokenHash != "" {
		return
	}
	last := one(&s.choices, &metav1.Duration{}, nil)
	for i := range maxTokens {
		s.after(time.Duration(i)*10*time.Second, func() {
			current := s.server.keys[client.ObjectKeyFromObject(key)]
			if current == nil {
				return
			}
			requested := current.DeepCopy()
			rotation := rotationOf(current)
			rotation.Request = &v1alpha1.RotationRequest{At: metav1.NewTime(s.clock())}
			if i == maxTokens-1 {
				rotation.Request.Overlap = last
			}
			requested.Spec.Rotation = &rotation
			s.log("user", func() string { return "requests a rotation of " + s.describeSpec(requested) })
			_, _ = s.server.updateSpec(s.users, requested)
		})
	}
}

// configureRotation changes the interval, which is shorter than the schema permits, and the overlap.
func (s *simulation) configureRotation() {
	interval, overlap := one(&s.choices, 0, 200*time.Second), s.chooseOverlap()
	s.change("configures the rotation of", func(key *v1alpha1.APIKey) {
		rotation := rotationOf(key)
		rotation.Overlap, rotation.Interval = overlap, nil
		if key.Spec.TokenHash == "" && interval > 0 {
			rotation.Interval = &metav1.Duration{Duration: interval}
		}
		key.Spec.Rotation = &rotation
	})
}

func rotationOf(key *v1alpha1.APIKey) v1alpha1.Rotation {
	if key.Spec.Rotation == nil {
		return v1alpha1.Rotation{}
	}
	return *key.Spec.Rotation.DeepCopy()
}

func (s *simulation) chooseOverlap() *metav1.Duration {
	overlap := one(&s.choices, -1, 0, 3*time.Second, 20*time.Second, time.Minute)
	if overlap < 0 {
		return nil
	}
	return &metav1.Duration{Duration: overlap}
}

// replaceImport rotates an imported key.
func (s *simulation) replaceImport() {
	imported := s.chooseImport()
	s.change("replaces the token of", func(key *v1alpha1.APIKey) {
		if key.Spec.TokenHash != "" {
			key.Spec.TokenHash, key.Spec.TokenHint = imported.hash, imported.plaintext[:7]
		}
	})
}

// replaceKey deletes a key and creates another one with its name, as `kubectl replace --force` does.
func (s *simulation) replaceKey() {
	former := s.chooseKey()
	if former == nil {
		return
	}
	s.log("user", func() string { return "deletes " + describeName(former) })
	_ = s.server.deleteKey(s.users, client.ObjectKeyFromObject(former), nil, metav1.DeletePropagationBackground)
	key := s.newKey()
	key.Namespace, key.Name = former.Namespace, former.Name
	s.create(key)
}

// deleteSecret lets a client read the token in a Secret, and delete the Secret.
func (s *simulation) deleteSecret() {
	names := sortedNames(s.server.secrets)
	if len(names) == 0 {
		return
	}
	name := one(&s.choices, names...)
	s.log("user", func() string { return "reads and deletes " + s.describeSecret(s.server.secrets[name]) })
	_ = s.server.deleteSecret(s.users, name, nil)
}

// writeForeignSecret writes a Secret that has the name of a key's Secret, in one of the ways that users and tools do.
func (s *simulation) writeForeignSecret() {
	key := s.chooseKey()
	if key == nil {
		return
	}
	name := types.NamespacedName{Namespace: key.Namespace, Name: nameOfSecret(key)}
	current := s.server.secrets[name]
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}, Type: corev1.SecretTypeOpaque}
	switch s.below(4) {
	case 1: // looks like one of the controller's
		secret.Type, secret.Immutable = v1alpha1.SecretTypeToken, new(true)
		secret.Data = map[string][]byte{"token": []byte("not-a-token-of-this-key")}
		secret.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(key, v1alpha1.GroupVersion.WithKind("APIKey"))}
	case 2: // a copy, as `kubectl replace --force` creates it
		if current != nil {
			secret = current.DeepCopy()
			secret.UID, secret.ResourceVersion = "", ""
		}
	case 3: // edited
		if current != nil {
			secret = current.DeepCopy()
			metav1.SetMetaDataLabel(&secret.ObjectMeta, "example.com/edited", "true")
			if s.chance(50) {
				secret.Immutable = new(true) // as earlier versions of the controller wrote it
			}
			s.log("user", func() string { return "labels " + s.describeSecret(secret) })
			_, _ = s.server.updateSecret(s.users, secret)
			return
		}
	}
	if current != nil {
		_ = s.server.deleteSecret(s.users, name, nil)
	}
	s.log("user", func() string { return "creates " + s.describeSecret(secret) })
	_, _ = s.server.createSecret(s.users, secret)
}

// createUnconfirmed lets a console create a key and then confirm it, as its REST API does, unless the console crashes.
func (s *simulation) createUnconfirmed() {
	p := s.newConsole("console")
	live := &liveClient{process: p, send: p.do}
	options := keyclient.CreateOptions{
		Namespace: s.chooseNamespace(), Name: one(&s.choices, keyNames...), AppName: one(&s.choices, appNames...), ReadAccess: true,
		Unconfirmed: true,
	}
	var created *keyclient.CreateResult
	p.execute(func() { created, _ = keyclient.CreateNoWait(context.Background(), live, options) }, func() {
		if created == nil {
			p.crash()
			return
		}
		s.register(created.Token)
		p.after(s.outage(), func() {
			p.execute(func() { _, _ = keyclient.Confirm(context.Background(), live, created.Key) }, p.crash)
		})
	})
}

// sweep lets a console end a key that was not confirmed in time.
func (s *simulation) sweep() {
	key := s.chooseKey()
	if key == nil || !keyclient.IsUnconfirmed(key) {
		return
	}
	p := s.newConsole(sweeper)
	live := &liveClient{process: p, send: p.do}
	p.execute(func() {
		_, _ = keyclient.EndUnconfirmed(context.Background(), live, key.Namespace, key.Name, key.UID, s.clock)
	}, p.crash)
}

const sweeper = "sweeper"

func (s *simulation) newConsole(name string) *process {
	p := &process{simulation: s, name: name}
	p.start()
	s.consoles = append(s.consoles, p)
	return p
}
