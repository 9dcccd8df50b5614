// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/controllers"
)

// server is the Kubernetes API: its objects, their revisions, the events of watches, the garbage collector, and what admission refuses.
// Objects never change: a write replaces them. Each method that clients call is one request, which no other request interrupts.
type server struct {
	*simulation
	state
	changes   []*change // since the last compaction
	compacted *state    // at the last compaction
	uids      int
	refusals  map[string]error // of one-time Secrets, by namespace
	restores  int
	// restoredAt is the time of the last restore. It is negative before the first one.
	restoredAt time.Duration
	watchers   []*watcher
}

// state is what a backup contains.
type state struct {
	revision int64
	keys     map[types.NamespacedName]*v1alpha1.APIKey
	secrets  map[types.NamespacedName]*corev1.Secret
}

func (s state) clone() *state {
	return &state{revision: s.revision, keys: maps.Clone(s.keys), secrets: maps.Clone(s.secrets)}
}

// change is an event of a watch.
type change struct {
	kind     watch.EventType
	revision int64
	key      *v1alpha1.APIKey // of a deletion: its last state

	cached  *v1alpha1.APIKey // as the cache of a controller has it
	encoded []byte           // as the API server sends it
}

// asJSON returns the event as the API server sends it.
func (c *change) asJSON() []byte {
	if c.encoded == nil {
		c.encoded = encode(map[string]any{"type": c.kind, "object": c.key})
	}
	return c.encoded
}

func encode(object any) []byte {
	encoded, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	return encoded
}

var (
	keyResource    = v1alpha1.GroupVersion.WithResource("apikeys").GroupResource()
	secretResource = schema.GroupResource{Resource: "secrets"}

	errTooBusy  = apierrors.NewTooManyRequests("too many requests", 1)
	errInternal = apierrors.NewInternalError(errors.New("the server has a problem"))
	errTimedOut = apierrors.NewInternalError(errors.New("etcdserver: request timed out"))
)

// Finalizers with which the API server delays a deletion.
const (
	finalizerOrphan     = metav1.FinalizerOrphanDependents
	finalizerForeground = metav1.FinalizerDeleteDependents
	finalizerUser       = "example.com/hold"
)

func newServer(s *simulation) *server {
	empty := state{revision: 1, keys: map[types.NamespacedName]*v1alpha1.APIKey{}, secrets: map[types.NamespacedName]*corev1.Secret{}}
	return &server{simulation: s, restoredAt: -time.Hour, state: empty, compacted: empty.clone(), refusals: map[string]error{}}
}

// initialize sets what the API server sets at a creation.
func (s *server) initialize(object client.Object) {
	s.uids++
	s.revision++
	object.SetUID(types.UID(fmt.Sprintf("uid-%d%03d", s.below(10), s.uids))) // not in the order of creation
	object.SetResourceVersion(strconv.FormatInt(s.revision, 10))
	object.SetCreationTimestamp(metav1.NewTime(s.clock().Truncate(time.Second)))
}

func (s *server) createKey(by *process, key *v1alpha1.APIKey) (*v1alpha1.APIKey, error) {
	name := client.ObjectKeyFromObject(key)
	if s.keys[name] != nil {
		return nil, apierrors.NewAlreadyExists(keyResource, key.Name)
	}
	key = received(key)
	s.initialize(key)
	key.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "APIKey"}
	key.Generation = 1
	setDefaults(key)
	key.Status = v1alpha1.APIKeyStatus{Conditions: []metav1.Condition{{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonPending, Message: "Waiting for the controller.",
		LastTransitionTime: metav1.Unix(0, 0),
	}}}
	s.publish(by, watch.Added, nil, key)
	return key, nil
}

func setDefaults(key *v1alpha1.APIKey) {
	if key.Spec.Active == nil {
		key.Spec.Active = new(true)
	}
	if key.Spec.Secret != nil && key.Spec.Secret.Key == "" {
		key.Spec.Secret.Key = "token"
	}
}

// received returns a copy of an object that a client sent. JSON has no fractions of seconds.
func received(sent *v1alpha1.APIKey) *v1alpha1.APIKey {
	key := &v1alpha1.APIKey{}
	must(json.Unmarshal(encode(sent), key))
	return key
}

// updateStatus replaces the status.
func (s *server) updateStatus(by *process, update *v1alpha1.APIKey) (*v1alpha1.APIKey, error) {
	update = received(update)
	return s.updateKey(by, update, func(key *v1alpha1.APIKey) { key.Status = update.Status })
}

// updateSpec replaces all but the status.
func (s *server) updateSpec(by *process, update *v1alpha1.APIKey) (*v1alpha1.APIKey, error) {
	update = received(update)
	setDefaults(update)
	return s.updateKey(by, update, func(key *v1alpha1.APIKey) {
		key.Labels, key.Annotations, key.Finalizers = update.Labels, update.Annotations, update.Finalizers
		if !equality.Semantic.DeepEqual(key.Spec, update.Spec) {
			key.Spec = update.Spec
			key.Generation++
		}
	})
}

// updateKey changes a key. It writes nothing if that makes no difference.
func (s *server) updateKey(by *process, update *v1alpha1.APIKey, change func(*v1alpha1.APIKey)) (*v1alpha1.APIKey, error) {
	current := s.keys[client.ObjectKeyFromObject(update)]
	switch {
	case current == nil:
		return nil, apierrors.NewNotFound(keyResource, update.Name)
	case update.UID != "" && update.UID != current.UID:
		return nil, apierrors.NewConflict(keyResource, update.Name, errPrecondition)
	case update.ResourceVersion == "":
		return nil, apierrors.NewInvalid(current.GroupVersionKind().GroupKind(), update.Name, nil)
	case update.ResourceVersion != current.ResourceVersion:
		return nil, apierrors.NewConflict(keyResource, update.Name, errModified)
	}
	key := current.DeepCopy()
	change(key)
	if key.DeletionTimestamp != nil && len(key.Finalizers) == 0 {
		s.removeKey(by, current)
		return key, nil
	}
	return s.replaceKey(by, current, key), nil
}

// replaceKey stores the next state of a key, if it differs.
func (s *server) replaceKey(by *process, current, key *v1alpha1.APIKey) *v1alpha1.APIKey {
	if equality.Semantic.DeepEqual(current, key) {
		return current
	}
	s.revision++
	key.ResourceVersion = strconv.FormatInt(s.revision, 10)
	s.publish(by, watch.Modified, current, key)
	return key
}

// removeKey removes a key. The event of a watch has its last state, with the resourceVersion of the deletion.
func (s *server) removeKey(by *process, current *v1alpha1.APIKey) {
	key := current.DeepCopy()
	s.revision++
	key.ResourceVersion = strconv.FormatInt(s.revision, 10)
	s.publish(by, watch.Deleted, current, key)
}

// deleteKey deletes a key, or sets its deletionTimestamp if it has a finalizer.
func (s *server) deleteKey(
	by *process, name types.NamespacedName, conditions *metav1.Preconditions, policy metav1.DeletionPropagation,
) error {
	current := s.keys[name]
	switch {
	case current == nil:
		return apierrors.NewNotFound(keyResource, name.Name)
	case !meets(current, conditions):
		return apierrors.NewConflict(keyResource, name.Name, errPrecondition)
	}
	key := current.DeepCopy()
	key.Finalizers = slices.DeleteFunc(key.Finalizers, isOfCollector)
	switch policy {
	case metav1.DeletePropagationOrphan:
		key.Finalizers = append(key.Finalizers, finalizerOrphan)
	case metav1.DeletePropagationForeground:
		key.Finalizers = append(key.Finalizers, finalizerForeground)
	}
	if len(key.Finalizers) == 0 {
		s.removeKey(by, current)
		return nil
	}
	if key.DeletionTimestamp == nil {
		key.DeletionTimestamp = new(metav1.NewTime(s.clock().Truncate(time.Second)))
		key.Generation++
	}
	s.replaceKey(by, current, key)
	if policy != metav1.DeletePropagationBackground {
		s.after(s.collectorDelay(), func() { s.finalize(name, key.UID) })
	}
	return nil
}

func isOfCollector(finalizer string) bool {
	return finalizer == finalizerOrphan || finalizer == finalizerForeground
}

// publish stores the key, and sends the event to all watches.
func (s *server) publish(by *process, kind watch.EventType, former, key *v1alpha1.APIKey) {
	if name := client.ObjectKeyFromObject(key); kind == watch.Deleted {
		delete(s.keys, name)
		s.after(s.collectorDelay(), func() { s.collectGarbage() })
	} else {
		s.keys[name] = key
	}
	published := &change{kind: kind, revision: s.revision, key: key}
	s.changes = append(s.changes, published)
	s.checkKeyWrite(by, former, published)
	for _, w := range s.watchers {
		w.expect()
	}
}

func (s *server) createSecret(by *process, secret *corev1.Secret) (*corev1.Secret, error) {
	name := client.ObjectKeyFromObject(secret)
	if err := s.refusals[secret.Namespace]; err != nil && secret.Type == v1alpha1.SecretTypeToken {
		return nil, err // admission precedes the storage, which finds an existing object
	}
	if s.secrets[name] != nil {
		return nil, apierrors.NewAlreadyExists(secretResource, secret.Name)
	}
	secret = secret.DeepCopy()
	s.initialize(secret)
	s.secrets[name] = secret
	s.checkSecretWrite(by, nil, secret)
	s.after(s.collectorDelay(), func() { s.collectGarbage() })
	return secret, nil
}

// updateSecret replaces a Secret, and requires the current resourceVersion if the object has one. It writes nothing if that makes no
// difference.
func (s *server) updateSecret(by *process, secret *corev1.Secret) (*corev1.Secret, error) {
	name := client.ObjectKeyFromObject(secret)
	current := s.secrets[name]
	switch {
	case current == nil:
		return nil, apierrors.NewNotFound(secretResource, secret.Name)
	case secret.UID != "" && secret.UID != current.UID, secret.ResourceVersion != "" && secret.ResourceVersion != current.ResourceVersion:
		return nil, apierrors.NewConflict(secretResource, secret.Name, errModified)
	case secret.Type != current.Type, ptr.Deref(current.Immutable, false) && !hasSameData(secret, current):
		return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Secret").GroupKind(), secret.Name, nil)
	case s.refusals[secret.Namespace] != nil && by.isController:
		return nil, s.refusals[secret.Namespace]
	case current.Immutable != nil && *current.Immutable && !maps.EqualFunc(current.Data, secret.Data, slices.Equal):
		return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Secret").GroupKind(), secret.Name, nil)
	}
	secret = secret.DeepCopy()
	secret.UID, secret.CreationTimestamp, secret.ResourceVersion = current.UID, current.CreationTimestamp, current.ResourceVersion
	if equality.Semantic.DeepEqual(current, secret) {
		return current, nil
	}
	s.revision++
	secret.ResourceVersion = strconv.FormatInt(s.revision, 10)
	s.secrets[name] = secret
	s.checkSecretWrite(by, current, secret)
	return secret, nil
}

func hasSameData(a, b *corev1.Secret) bool {
	return equality.Semantic.DeepEqual(a.Data, b.Data) && equality.Semantic.DeepEqual(a.Immutable, b.Immutable)
}

func (s *server) deleteSecret(by *process, name types.NamespacedName, conditions *metav1.Preconditions) error {
	current := s.secrets[name]
	switch {
	case current == nil:
		return apierrors.NewNotFound(secretResource, name.Name)
	case !meets(current, conditions):
		return apierrors.NewConflict(secretResource, name.Name, errPrecondition)
	}
	s.revision++
	delete(s.secrets, name)
	s.checkSecretWrite(by, current, nil)
	return nil
}

var (
	errModified     = errors.New("the object has been modified")
	errPrecondition = errors.New("the precondition is not met")
)

// meets reports whether an object meets the preconditions of a deletion.
func meets(object metav1.Object, conditions *metav1.Preconditions) bool {
	return conditions == nil || (conditions.UID == nil || *conditions.UID == object.GetUID()) &&
		(conditions.ResourceVersion == nil || *conditions.ResourceVersion == object.GetResourceVersion())
}

// collectorDelay is the time until the garbage collector acts.
func (s *server) collectorDelay() time.Duration {
	return one(&s.choices, 10*time.Millisecond, 100*time.Millisecond, time.Second, 20*time.Second)
}

// collectGarbage deletes the Secrets whose owner does not exist.
func (s *server) collectGarbage() {
	for _, name := range sortedNames(s.secrets) {
		if owner := metav1.GetControllerOf(s.secrets[name]); owner != nil && !s.hasKey(name.Namespace, owner.UID) {
			secret := s.secrets[name]
			s.log("garbage collector", func() string { return "deletes " + s.describeSecret(secret) })
			_ = s.deleteSecret(s.collector, name, nil)
		}
	}
}

func (s *server) hasKey(namespace string, uid types.UID) bool {
	for name, key := range s.keys {
		if name.Namespace == namespace && key.UID == uid {
			return true
		}
	}
	return false
}

// finalize completes a deletion that orphans the Secrets of a key, or deletes them first. The key may be deleted before its Secrets
// nevertheless, because they do not block its deletion (blockOwnerDeletion is false).
func (s *server) finalize(name types.NamespacedName, uid types.UID) {
	key := s.keys[name]
	if key == nil || key.UID != uid || !slices.ContainsFunc(key.Finalizers, isOfCollector) {
		return
	}
	isOrphaned := slices.Contains(key.Finalizers, finalizerOrphan)
	isEarly := s.chance(50)
	for _, secretName := range sortedNames(s.secrets) {
		secret := s.secrets[secretName]
		switch {
		case !metav1.IsControlledBy(secret, key):
		case isOrphaned:
			secret = secret.DeepCopy()
			secret.OwnerReferences = nil
			_, _ = s.updateSecret(s.collector, secret)
		case !isEarly:
			_ = s.deleteSecret(s.collector, secretName, nil)
		}
	}
	s.log("garbage collector", func() string { return "ends the deletion of " + name.String() })
	key = key.DeepCopy()
	key.Finalizers = slices.DeleteFunc(key.Finalizers, isOfCollector)
	_, _ = s.updateSpec(s.collector, key)
}

// compact forgets the changes so far. A watch that has not delivered them ends with 410 Gone.
func (s *server) compact() {
	s.log("API server", text("compacts its revisions"))
	s.compacted, s.changes = s.clone(), nil
}

// changeAfter returns the first change after a revision, or nil. It returns false if that was compacted.
func (s *server) changeAfter(revision int64) (*change, bool) {
	if revision < s.compacted.revision {
		return nil, false
	}
	at, _ := slices.BinarySearchFunc(s.changes, revision+1, func(c *change, revision int64) int { return int(c.revision - revision) })
	if at == len(s.changes) {
		return nil, true
	}
	return s.changes[at], true
}

func (s *server) takeBackup() *state {
	s.log("API server", text("takes a backup"))
	return s.clone()
}

// isStopped reports whether the API servers are stopped for a restore. They are for longer than a reconcile takes, as the documentation
// says: no reconcile then acts on what it read before.
func (s *server) isStopped() bool { return s.now < s.restoredAt+controllers.ReconcileTimeout }

// restore returns to the backup, with revisions that are higher than all before, as the documentation of etcd recommends for Kubernetes.
func (s *server) restore(backup *state) {
	s.log("API server", text("restores the backup"))
	for _, key := range s.keys {
		s.noteTTL(key)
	}
	former := s.revision
	s.state = *backup.clone()
	s.revision = former + 1000
	s.compacted, s.changes = s.clone(), nil
	s.restores++
	s.restoredAt = s.now
	for _, w := range s.watchers {
		w.interrupt()
	}
	s.forgetAfterRestore()
	s.after(s.collectorDelay(), func() { s.collectGarbage() })
}

func (s *server) listKeys() []*v1alpha1.APIKey { return inOrder(s.keys) }

// listKeysAt lists the keys of a revision that is not compacted.
func (s *server) listKeysAt(revision int64) []*v1alpha1.APIKey {
	keys := maps.Clone(s.compacted.keys)
	for _, c := range s.changes {
		switch name := client.ObjectKeyFromObject(c.key); {
		case c.revision > revision:
			return inOrder(keys)
		case c.kind == watch.Deleted:
			delete(keys, name)
		default:
			keys[name] = c.key
		}
	}
	return inOrder(keys)
}

func inOrder(keys map[types.NamespacedName]*v1alpha1.APIKey) []*v1alpha1.APIKey {
	list := make([]*v1alpha1.APIKey, 0, len(keys))
	for _, name := range sortedNames(keys) {
		list = append(list, keys[name])
	}
	return list
}

func sortedNames[T any](objects map[types.NamespacedName]T) []types.NamespacedName {
	return slices.SortedFunc(maps.Keys(objects), func(a, b types.NamespacedName) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}
