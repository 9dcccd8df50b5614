// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// TestTheServerIsLikeARealOne takes the steps of each scenario with the simulated API server and with a real one.
func TestTheServerIsLikeARealOne(t *testing.T) {
	for name, scenario := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			simulatedAPI, realAPI := newSimulatedAPI(), newRealAPI(t)
			for _, s := range scenario {
				if got := simulatedAPI.take(t, s); got != s.want {
					t.Errorf("simulated: %s:\n got: %s\nwant: %s", s.name, got, s.want)
				}
				if got := realAPI.take(t, s); got != s.want {
					t.Errorf("real: %s:\n got: %s\nwant: %s", s.name, got, s.want)
				}
			}
		})
	}
}

// expectation is the effect of a request. Each scenario has one key and one Secret.
type expectation struct {
	name    string
	request func(*api) error
	want    string // the response, the events of a watch of keys, and the change of the Secret
}

const (
	created       = "ok; ADDED uid=1 generation=1 active=true " + firstStatus
	firstStatus   = "conditions=[Ready=Unknown (Pending: Waiting for the controller.) at 1970-01-01T00:00:00Z]"
	writtenStatus = "observedGeneration=7 secretName=written deactivatedAt=2001-09-09T01:46:40Z tokens=[2001-09-09T01:46:40Z] " +
		"conditions=[Ready=True (Issued: -) at 2001-09-09T01:46:40Z]"
)

var scenarios = map[string][]expectation{
	"creation": {
		{
			"the status is ignored", createKey(setStatus, setTokenSecret),
			"ok; ADDED uid=1 generation=1 active=true secret.key=token " + firstStatus,
		},
		{"a key of this name exists", createKey(), "AlreadyExists"},
	},
	"update of the spec": {
		{"create", createKey(), created},
		{"a change increases the generation", updateKey(setWriteAccess), "ok; MODIFIED generation=2 writeAccess=true"},
		{"labels and annotations do not", updateKey(setLabel, setAnnotation), "ok; MODIFIED labels=map[a:b] annotations=map[c:d]"},
		{"an update without a change writes nothing", updateKey(), "ok"},
		{"the status is ignored", updateKey(setStatus), "ok"},
		{"the metadata that the server sets is ignored", updateKey(setServerMetadata), "ok"},
		{"a default replaces a removed value", updateKey(removeActive), "ok"},
		{"an old resourceVersion conflicts", updateKey(setWriteAccess, setVersion("1")), "Conflict"},
		{"no resourceVersion is invalid", updateKey(setWriteAccess, setVersion("")), "Invalid"},
		{"another UID conflicts", updateKey(setWriteAccess, setUID("other")), "Conflict"},
		{"no UID is the current one", updateKey(setActive(false), setUID("")), "ok; MODIFIED generation=3 active="},
		{"delete", deleteKey(), "ok; DELETED"},
		{"a deleted key is not found", updateKey(setWriteAccess), "NotFound"},
		{"create again", createKey(), "ok; ADDED uid=2 generation=1 labels= annotations= active=true writeAccess="},
	},
	"update of the status": {
		{"create", createKey(), created},
		{
			"changes only the status, with times in seconds", updateStatus(setStatus, setWriteAccess, setLabel),
			"ok; MODIFIED " + writtenStatus,
		},
		{"an update without a change writes nothing", updateStatus(), "ok"},
		{"an old resourceVersion conflicts", updateStatus(setVersion("1"), setObserved), "Conflict"},
		{"no resourceVersion is invalid", updateStatus(setVersion(""), setObserved), "Invalid"},
		{"another UID conflicts", updateStatus(setUID("other"), setObserved), "Conflict"},
		{
			"the status can be empty", updateStatus(removeStatus),
			"ok; MODIFIED observedGeneration= secretName= deactivatedAt= tokens= conditions=",
		},
		{"delete", deleteKey(), "ok; DELETED"},
		{"a deleted key is not found", updateStatus(setObserved), "NotFound"},
		{"create again", createKey(), "ok; ADDED uid=2 " + firstStatus},
		{"the UID of a former key conflicts", updateStatus(setUID("other"), setObserved), "Conflict"},
	},
	"deletion": {
		{"create", createKey(), created},
		{"another UID conflicts", deleteKey(otherUID), "Conflict"},
		{"an old resourceVersion conflicts", deleteKey(oldVersion), "Conflict"},
		{"the event has the last state", deleteKey(), "ok; DELETED"},
		{"a deleted key is not found", deleteKey(), "NotFound"},
		{"nor with a UID", deleteKey(otherUID), "NotFound"},
		{"create again", createKey(), "ok; ADDED uid=2"},
		{"preconditions that are met", deleteSameKey, "ok; DELETED"},
	},
	"deletion with a finalizer": {
		{
			"create", createKey(setFinalizers(finalizerUser)),
			"ok; ADDED uid=1 generation=1 finalizers=[example.com/hold] active=true " + firstStatus,
		},
		{"the key stays", deleteKey(), "ok; MODIFIED generation=2 deleting=true"},
		{"a second deletion writes nothing", deleteKey(), "ok"},
		{"with the same name, no key can be created", createKey(), "AlreadyExists"},
		{"the status can be written", updateStatus(setStatus), "ok; MODIFIED " + writtenStatus},
		{"the spec can be written", updateKey(setWriteAccess), "ok; MODIFIED generation=3 writeAccess=true"},
		{"without its last finalizer, the key is deleted with the last stored state", updateKey(setFinalizers(), setLabel), "ok; DELETED"},
	},
	"deletion by policy": {
		{"create", createKey(), created},
		{"create a Secret of the key", createSecret(), "ok; Secret uid=2 owners=1 type=keys.squirrel.dev/token data=x"},
		{"background", until(noSecret, deleteKey(byBackground)), "ok; DELETED; Secret is deleted"},
		{"create", createKey(), "ok; ADDED uid=3"},
		{"create a Secret of the key", createSecret(), "ok; Secret uid=4"},
		{
			"foreground", until(noKeyOrSecret, deleteKey(byForeground)),
			"ok; MODIFIED generation=2 deleting=true finalizers=[foregroundDeletion]; DELETED; Secret is deleted",
		},
		{"create", createKey(), "ok; ADDED uid=5 generation=1 deleting= finalizers="},
		{"create a Secret of the key", createSecret(), "ok; Secret uid=6"},
		{
			"orphan", until(noKey, deleteKey(byOrphan)),
			"ok; MODIFIED generation=2 deleting=true finalizers=[orphan]; DELETED; Secret owners=",
		},
		{
			"create with a finalizer of the garbage collector", createKey(setFinalizers(finalizerOrphan)),
			"ok; ADDED uid=7 generation=1 deleting=",
		},
		{"background removes it", deleteKey(byBackground), "ok; DELETED"},
	},
	"deletion by policy with a finalizer": {
		{
			"create", createKey(setFinalizers(finalizerUser)),
			"ok; ADDED uid=1 generation=1 finalizers=[example.com/hold] active=true " + firstStatus,
		},
		{"create a Secret of the key", createSecret(), "ok; Secret uid=2 owners=1 type=keys.squirrel.dev/token data=x"},
		{
			"orphan", until(hasUserFinalizer, deleteKey(byOrphan)),
			"ok; MODIFIED generation=2 deleting=true finalizers=[example.com/hold orphan]; MODIFIED finalizers=[example.com/hold]; Secret owners=",
		},
		{
			"foreground", until(hasUserFinalizer, deleteKey(byForeground)),
			"ok; MODIFIED finalizers=[example.com/hold foregroundDeletion]; MODIFIED finalizers=[example.com/hold]",
		},
		{
			"foreground again", until(hasUserFinalizer, deleteKey(byForeground)),
			"ok; MODIFIED finalizers=[example.com/hold foregroundDeletion]; MODIFIED finalizers=[example.com/hold]",
		},
		{"background", until(hasUserFinalizer, deleteKey(byBackground)), "ok"},
		{"remove the finalizer", updateKey(setFinalizers()), "ok; DELETED"},
	},
	"Secret": {
		{"create", createSecret(), "ok; Secret uid=1 type=keys.squirrel.dev/token data=x"},
		{"exists", createSecret(), "AlreadyExists"},
		{"update", updateSecret(setSecretLabel), "ok; Secret labels=map[a:b]"},
		{"an update without a change writes nothing", updateSecret(), "ok"},
		{"an old resourceVersion conflicts", updateSecret(setSecretVersion("1")), "Conflict"},
		{"another UID conflicts", updateSecret(setSecretUID("other")), "Conflict"},
		{"no resourceVersion is the current one", updateSecret(setData("c"), setSecretVersion("")), "ok; Secret data=c"},
		{"the type cannot change", updateSecret(setType), "Invalid"},
		{"becomes immutable", updateSecret(setImmutable(true)), "ok; Secret immutable=true"},
		{"immutable data cannot change", updateSecret(setData("d")), "Invalid"},
		{"immutable stays", updateSecret(setImmutable(false)), "Invalid"},
		{"labels of an immutable Secret can change", updateSecret(removeSecretLabel), "ok; Secret labels="},
		{"another UID conflicts", deleteSecret(otherUID), "Conflict"},
		{"an old resourceVersion conflicts", deleteSecret(oldVersion), "Conflict"},
		{"delete", deleteSecret(), "ok; Secret is deleted"},
		{"is not found", deleteSecret(), "NotFound"},
		{"a deleted Secret is not found", updateSecret(), "NotFound"},
		{"create for a key that does not exist", until(noSecret, createSecret(setOwner("former"))), "ok"},
		{"create a key", createKey(), "ok; ADDED uid=2 generation=1 active=true " + firstStatus},
		{"create for a former key of this name", until(noSecret, createSecret(setOwner("former"))), "ok"},
	},
}

// The options of deletions.
const (
	byBackground = client.PropagationPolicy(metav1.DeletePropagationBackground)
	byForeground = client.PropagationPolicy(metav1.DeletePropagationForeground)
	byOrphan     = client.PropagationPolicy(metav1.DeletePropagationOrphan)
)

var (
	otherUID   = client.Preconditions{UID: new(types.UID("other"))}
	oldVersion = client.Preconditions{ResourceVersion: new("1")}
)

// The requests. They refer to the key or Secret as it was last seen.

func createKey(changes ...func(*v1alpha1.APIKey)) func(*api) error {
	return func(a *api) error {
		a.response = testenv.NewKey(a.namespace, "key", changes...)
		return a.Create(context.Background(), a.response)
	}
}

func updateKey(changes ...func(*v1alpha1.APIKey)) func(*api) error {
	return func(a *api) error {
		a.response = changed(a.key, changes)
		return a.Update(context.Background(), a.response)
	}
}

func updateStatus(changes ...func(*v1alpha1.APIKey)) func(*api) error {
	return func(a *api) error {
		a.response = changed(a.key, changes)
		return a.Status().Update(context.Background(), a.response)
	}
}

func deleteKey(options ...client.DeleteOption) func(*api) error {
	return func(a *api) error {
		return a.Delete(context.Background(), testenv.NewKey(a.namespace, "key"), options...)
	}
}

// deleteSameKey deletes the key if it is the one that was last seen.
func deleteSameKey(a *api) error {
	return deleteKey(client.Preconditions{UID: &a.key.UID, ResourceVersion: &a.key.ResourceVersion})(a)
}

func createSecret(changes ...func(*corev1.Secret)) func(*api) error {
	return func(a *api) error {
		secret := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: "secret"}, Type: v1alpha1.SecretTypeToken,
			Data: map[string][]byte{"token": []byte("x")},
		}
		if a.key != nil {
			secret.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(a.key, v1alpha1.GroupVersion.WithKind("APIKey"))}
		}
		return a.Create(context.Background(), changed(secret, changes))
	}
}

func updateSecret(changes ...func(*corev1.Secret)) func(*api) error {
	return func(a *api) error { return a.Update(context.Background(), changed(a.secret, changes)) }
}

func deleteSecret(options ...client.DeleteOption) func(*api) error {
	return func(a *api) error {
		return a.Delete(context.Background(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: "secret"}}, options...)
	}
}

// Changes of a key.

func setTokenSecret(key *v1alpha1.APIKey) { key.Spec.Secret = &v1alpha1.TokenSecret{} }
func setWriteAccess(key *v1alpha1.APIKey) { key.Spec.WriteAccess = !key.Spec.WriteAccess }
func removeActive(key *v1alpha1.APIKey)   { key.Spec.Active = nil }
func setLabel(key *v1alpha1.APIKey)       { key.Labels = map[string]string{"a": "b"} }
func setAnnotation(key *v1alpha1.APIKey)  { key.Annotations = map[string]string{"c": "d"} }
func setServerMetadata(key *v1alpha1.APIKey) {
	key.Generation, key.CreationTimestamp = 9, metav1.Unix(0, 0)
}
func setObserved(key *v1alpha1.APIKey)  { key.Status.ObservedGeneration++ }
func removeStatus(key *v1alpha1.APIKey) { key.Status = v1alpha1.APIKeyStatus{} }

func setStatus(key *v1alpha1.APIKey) {
	at := metav1.NewTime(time.Unix(1_000_000_000, 999_999_999))
	key.Status = v1alpha1.APIKeyStatus{
		SecretName: "written", ObservedGeneration: 7, DeactivatedAt: &at,
		Tokens: []v1alpha1.TokenRecord{{Hash: "sha256:" + strings.Repeat("0", 64), NotBefore: &at}},
		Conditions: []metav1.Condition{{
			Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonIssued, Message: "-", LastTransitionTime: at,
		}},
	}
}

func setActive(active bool) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { key.Spec.Active = &active }
}

func setFinalizers(finalizers ...string) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { key.Finalizers = finalizers }
}

func setVersion(version string) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { key.ResourceVersion = version }
}

func setUID(uid types.UID) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { key.UID = uid }
}

// Changes of a Secret.

func setSecretLabel(secret *corev1.Secret)    { secret.Labels = map[string]string{"a": "b"} }
func removeSecretLabel(secret *corev1.Secret) { secret.Labels = nil }
func setType(secret *corev1.Secret)           { secret.Type = corev1.SecretTypeOpaque }

func setSecretVersion(version string) func(*corev1.Secret) {
	return func(secret *corev1.Secret) { secret.ResourceVersion = version }
}

func setSecretUID(uid types.UID) func(*corev1.Secret) {
	return func(secret *corev1.Secret) { secret.UID = uid }
}

func setData(data string) func(*corev1.Secret) {
	return func(secret *corev1.Secret) { secret.Data = map[string][]byte{"token": []byte(data)} }
}

func setOwner(uid types.UID) func(*corev1.Secret) {
	return func(secret *corev1.Secret) {
		owner := &v1alpha1.APIKey{ObjectMeta: metav1.ObjectMeta{Name: "key", UID: uid}}
		secret.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(owner, v1alpha1.GroupVersion.WithKind("APIKey"))}
	}
}

func setImmutable(immutable bool) func(*corev1.Secret) {
	return func(secret *corev1.Secret) { secret.Immutable = &immutable }
}

// until returns a request whose effect is complete when the garbage collector has acted.
func until(isComplete func(*api) bool, request func(*api) error) func(*api) error {
	return func(a *api) error {
		a.isComplete = isComplete
		return request(a)
	}
}

func noKey(a *api) bool         { return a.last == watch.Deleted }
func noSecret(a *api) bool      { return a.readSecret() == nil }
func noKeyOrSecret(a *api) bool { return noKey(a) && noSecret(a) }
func hasUserFinalizer(a *api) bool {
	return slices.Equal(a.key.Finalizers, []string{finalizerUser})
}

// api is a Kubernetes API with one key and one Secret.
type api struct {
	client.WithWatch
	namespace string
	// receive returns the events that a watch of keys has delivered since the last call.
	receive func() []watch.Event
	// isComplete reports whether the garbage collector has acted on the last request.
	isComplete func(*api) bool

	response *v1alpha1.APIKey // to the write of the key
	last     watch.EventType
	key      *v1alpha1.APIKey // as it was last seen
	secret   *corev1.Secret
	uids     []types.UID
	// known has the last values of the fields of the key and the Secret, and revisions the last resourceVersions.
	known     map[string]string
	revisions map[string]int64
}

func newSimulatedAPI() *api {
	s := &simulation{schedule: schedule{began: time.Now()}, knowledge: newKnowledge()}
	s.server = newServer(s)
	s.users, s.collector = &process{simulation: s, up: true}, &process{simulation: s, up: true}
	var received []watch.Event
	s.users.newWatcher(func([]*v1alpha1.APIKey) {}, func(c *change) {
		received = append(received, watch.Event{Type: c.kind, Object: c.key})
	}, func() {})
	s.runAll()
	return &api{
		namespace: "a",
		WithWatch: &liveClient{process: s.users, send: func(_ context.Context, request *call) error { return request.execute() }},
		receive: func() []watch.Event {
			s.runAll()
			defer func() { received = nil }()
			return received
		},
		known: map[string]string{}, revisions: map[string]int64{},
	}
}

// runAll runs the events until there are no more.
func (s *simulation) runAll() {
	for s.next() {
	}
}

func newRealAPI(t *testing.T) *api {
	t.Helper()
	env := testenv.Shared(t)
	a := &api{WithWatch: env.Client, namespace: env.Namespace(t), known: map[string]string{}, revisions: map[string]int64{}}
	keys, err := a.Watch(t.Context(), &v1alpha1.APIKeyList{}, client.InNamespace(a.namespace))
	framework.Must(t, err)
	t.Cleanup(keys.Stop)
	a.receive = func() (received []watch.Event) {
		for {
			select {
			case event := <-keys.ResultChan():
				received = append(received, event)
			default:
				return received
			}
		}
	}
	return a
}

// take takes a step, and describes what happens.
func (a *api) take(t *testing.T, s expectation) string {
	t.Helper()
	a.isComplete, a.response = func(*api) bool { return true }, nil
	err := s.request(a)
	happened := []string{"ok"}
	if err != nil {
		happened[0] = string(apierrors.ReasonForError(err))
	}
	stored := a.key // as the request has stored it, or as it was before
	framework.Eventually(t, s.name, func() bool {
		for _, e := range a.receive() {
			a.last, a.key = e.Type, e.Object.(*v1alpha1.APIKey)
			if len(happened) == 1 && a.last != watch.Deleted {
				stored = a.key
			}
			happened = append(happened, string(e.Type)+a.changes("key", fieldsOfKey(a.key), a.key))
		}
		hasAllEvents := a.last == "" || a.last == watch.Deleted
		if current := a.readKey(); current != nil {
			hasAllEvents = a.key != nil && current.ResourceVersion == a.key.ResourceVersion
		}
		return hasAllEvents && a.isComplete(a)
	})
	if err == nil && a.response != nil && a.response.ResourceVersion != stored.ResourceVersion {
		happened = append(happened, "another resourceVersion in the response")
	}
	current := a.readSecret()
	switch {
	case current != nil && (a.secret == nil || a.secret.ResourceVersion != current.ResourceVersion):
		happened = append(happened, "Secret"+a.changes("Secret", fieldsOfSecret(current), current))
		a.secret = current
	case current == nil && a.known["Secret uid"] != "":
		happened = append(happened, "Secret is deleted")
		delete(a.known, "Secret uid")
	}
	return strings.Join(happened, "; ")
}

type field struct{ name, value string }

// changes describes the fields that have changed since the last call.
func (a *api) changes(kind string, fields []field, object metav1.Object) string {
	if !slices.Contains(a.uids, object.GetUID()) {
		a.uids = append(a.uids, object.GetUID())
	}
	fields = append([]field{
		{"uid", fmt.Sprint(slices.Index(a.uids, object.GetUID()) + 1)},
		{"generation", fmt.Sprint(object.GetGeneration())},
		{"deleting", fmt.Sprint(object.GetDeletionTimestamp() != nil)},
		{"finalizers", fmt.Sprint(object.GetFinalizers())},
		{"labels", fmt.Sprint(object.GetLabels())},
		{"annotations", fmt.Sprint(object.GetAnnotations())},
		{"owners", fmt.Sprint(len(object.GetOwnerReferences()))},
	}, fields...)
	text := ""
	for _, f := range fields {
		if isEmpty := slices.Contains([]string{"0", "false", "[]", "map[]"}, f.value); isEmpty {
			f.value = ""
		}
		if known := a.known[kind+" "+f.name]; known != f.value {
			text += " " + f.name + "=" + f.value
		}
		a.known[kind+" "+f.name] = f.value
	}
	if revisionOf(object) <= a.revisions[kind] {
		text += " with an old resourceVersion"
	}
	a.revisions[kind] = revisionOf(object)
	if created := object.GetCreationTimestamp(); created.Nanosecond() != 0 || time.Since(created.Time) > time.Minute {
		text += " with a wrong creationTimestamp"
	}
	return text
}

func fieldsOfKey(key *v1alpha1.APIKey) []field {
	fields := []field{
		{"active", fmt.Sprint(key.Spec.Active != nil && *key.Spec.Active)},
		{"writeAccess", fmt.Sprint(key.Spec.WriteAccess)},
		{"observedGeneration", fmt.Sprint(key.Status.ObservedGeneration)},
		{"secretName", key.Status.SecretName},
		{"deactivatedAt", describeTime(key.Status.DeactivatedAt)},
	}
	if key.Spec.Secret != nil {
		fields = append(fields, field{"secret.key", key.Spec.Secret.Key})
	}
	tokens, conditions := []string{}, []string{}
	for _, record := range key.Status.Tokens {
		tokens = append(tokens, describeTime(record.NotBefore))
	}
	for _, c := range key.Status.Conditions {
		at := describeTime(&c.LastTransitionTime)
		conditions = append(conditions, fmt.Sprintf("%s=%s (%s: %s) at %s", c.Type, c.Status, c.Reason, c.Message, at))
	}
	return append(fields, field{"tokens", fmt.Sprint(tokens)}, field{"conditions", fmt.Sprint(conditions)})
}

func fieldsOfSecret(secret *corev1.Secret) []field {
	return []field{
		{"type", string(secret.Type)}, {"data", string(secret.Data["token"])},
		{"immutable", fmt.Sprint(secret.Immutable != nil && *secret.Immutable)},
	}
}

func describeTime(at *metav1.Time) string {
	if at == nil {
		return ""
	}
	return at.UTC().Format(time.RFC3339Nano)
}

func (a *api) readKey() *v1alpha1.APIKey {
	key := &v1alpha1.APIKey{}
	return read(a, "key", key)
}

func (a *api) readSecret() *corev1.Secret {
	return read(a, "secret", &corev1.Secret{})
}

// read returns the object, or nil if it does not exist.
func read[T client.Object](a *api, name string, object T) (none T) {
	err := a.Get(context.Background(), client.ObjectKey{Namespace: a.namespace, Name: name}, object)
	if apierrors.IsNotFound(err) {
		return none
	}
	must(err)
	return object
}

// changed returns a changed copy of the object.
func changed[T interface {
	client.Object
	DeepCopy() T
}](object T, changes []func(T)) T {
	object = object.DeepCopy()
	for _, change := range changes {
		change(object)
	}
	return object
}
