// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package bootstrap gives a console its first API key. The key is in a file; the console generates it if the file does not exist. A user
// who can read the file can create all other keys. The console creates an APIKey with the hash of the key.
package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/webhook/authn"
)

const (
	// namePrefix, followed by the first bytes of the hash of the key, is the name and the app name of the APIKey.
	namePrefix    = "bootstrap-"
	nameHashBytes = 6

	// attemptTimeout bounds an attempt. Its requests to the Kubernetes API are few, but it waits for the controller.
	attemptTimeout = 15 * time.Second
)

// Config of a Key.
type Config struct {
	// File holds the key. It is created if it does not exist.
	File string
	// Namespace of the APIKey.
	Namespace string
	// Client reads and writes APIKeys without a cache.
	Client client.WithWatch
	// Authenticator of this process. The key is ready once the Authenticator accepts it.
	Authenticator *authn.Authenticator
	// Await returns nil once the condition is true, which it checks at once and after each event of an APIKey, or an error when ctx is done.
	Await func(ctx context.Context, condition func() bool) error
	// Log never gets the key.
	Log *slog.Logger
}

// Key is a bootstrap key. It holds only the hash and the hint of the key itself.
type Key struct {
	Config
	digest token.Digest
	hint   string

	// former are the active keys of other key files at the first list of this process. This key replaces them. Later lists do not change
	// former: of two keys that are created at the same time, at most one has seen the other, and they do not deactivate each other.
	former []v1alpha1.APIKey
	listed bool

	current atomic.Pointer[state]
}

// state of a key.
type state struct {
	problem  error            // why the key is neither accepted nor given up, or nil
	accepted *v1alpha1.APIKey // nil when the key is not accepted
}

// New reads the key file, or creates it. An error explains what is wrong with the file and what to do.
func New(config Config) (*Key, error) {
	key, err := loadOrCreate(config.File)
	if err != nil {
		return nil, err
	}
	k := &Key{Config: config, digest: token.Sum(key), hint: token.Hint(key)}
	k.current.Store(&state{problem: errors.New("its APIKey has not been created yet")})
	return k, nil
}

// Ready returns nil while the key is accepted, and once it is given up. Otherwise it returns the reason. Until it returns nil, an unknown
// key may be this one, so that the console must not refuse it as invalid.
func (k *Key) Ready() error {
	current := k.current.Load()
	problem := current.problem
	if problem == nil && current.accepted != nil && !k.accepts(current.accepted) {
		problem = lost(current.accepted)
	}
	if problem != nil {
		return fmt.Errorf("the bootstrap key is not accepted: %w", problem)
	}
	return nil
}

// Run creates the APIKey of the key, deactivates the keys of other files once the key is accepted, and creates the APIKey again when it is
// deleted. It returns when ctx is done, or when it gives the key up, for example because its owner has deactivated it. It logs and retries
// after all other errors. It returns no error, because other keys work without this one.
func (k *Key) Run(ctx context.Context) error {
	_ = newBackoff().Until(ctx, true, true, func(ctx context.Context) (done bool, _ error) {
		accepted, done := k.attempt(ctx)
		if accepted != nil && k.Await(ctx, func() bool { return !k.accepts(accepted) }) == nil {
			k.setProblem(lost(accepted))
		}
		return done, nil
	})
	return nil
}

// attempt is one attempt of Run. It returns the APIKey if the key is accepted and the keys of other files are deactivated. done is true if
// the key is given up.
func (k *Key) attempt(ctx context.Context) (accepted *v1alpha1.APIKey, done bool) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	accepted, err := k.accept(ctx)
	var final *finalError
	switch {
	case errors.As(err, &final): // and the former keys stay active
		k.Log.Error("The bootstrap key is not accepted", "err", err)
		k.current.Store(&state{})
		return nil, true
	case err != nil:
		k.setProblem(err)
		return nil, false
	}
	if k.current.Swap(&state{accepted: accepted}).problem != nil {
		k.Log.Info(fmt.Sprintf("API key authentication ready (key file: %s)", k.File), "apikey", accepted.Name)
	}
	if err := k.deactivateFormer(ctx); err != nil {
		k.Log.Warn("Deactivating the bootstrap key of another key file failed, retrying", "err", err)
		return nil, false
	}
	return accepted, false
}

// setProblem records why the key is not accepted, and logs it if it has changed.
func (k *Key) setProblem(problem error) {
	former := k.current.Swap(&state{problem: problem})
	if former.problem == nil || former.problem.Error() != problem.Error() {
		k.Log.Warn("The bootstrap key is not accepted, retrying", "err", problem)
	}
}

func lost(object *v1alpha1.APIKey) error {
	return fmt.Errorf("APIKey %q was deleted or has ended", object.Name)
}

// accepts reports whether this process accepts the token of this very object.
func (k *Key) accepts(object *v1alpha1.APIKey) bool {
	return k.Authenticator.Accepts(object.Namespace, object.Name, string(object.UID))
}

// newBackoff returns the delays between attempts: from 0.2 s, doubling to 5 s, each with up to half as much jitter. They start again from
// 0.2 s after ten minutes.
func newBackoff() wait.DelayFunc {
	backoff := wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.5, Cap: 5 * time.Second, Steps: 10}
	return backoff.DelayWithReset(clock.RealClock{}, 10*time.Minute)
}

// finalError is the reason why this process gives the key up.
type finalError struct{ message string }

func (e *finalError) Error() string { return e.message }

// accept returns the APIKey once it is accepted. The error is a finalError when the key is given up.
func (k *Key) accept(ctx context.Context) (*v1alpha1.APIKey, error) {
	object, others, err := k.find(ctx)
	if err != nil {
		return nil, err
	}
	if !k.listed {
		k.former, k.listed = others, true
	}
	if object == nil {
		object, err = k.create(ctx)
	} else {
		err = k.adopt(ctx, object)
	}
	if err != nil {
		return nil, err
	}
	_, err = keyclient.WaitUntilAccepted(ctx, k.Client, object)
	var conflict *apikey.Conflict
	switch {
	case errors.As(err, &conflict) && conflict.Reason == v1alpha1.ReasonTokenHashConflict:
		if err := keyclient.Delete(ctx, k.Client, object); err != nil {
			return nil, err
		}
		return nil, k.hashConflict(conflict)
	case err != nil:
		return nil, err
	}
	if k.Await(ctx, func() bool { return k.accepts(object) }) != nil {
		return nil, fmt.Errorf("APIKey %q is issued, but this process has not seen that yet", object.Name)
	}
	return object, nil
}

// hashConflict returns the error when another APIKey, not one of a key file, has the hash of the key.
func (k *Key) hashConflict(conflict *apikey.Conflict) error {
	return &finalError{fmt.Sprintf("another APIKey has the key of the file %s (%s): delete that APIKey, or delete the file to generate "+
		"a new key, and restart", k.File, strings.TrimSuffix(conflict.Message, "."))}
}

// find returns the APIKey of this key, or nil, and the active APIKeys of other key files.
func (k *Key) find(ctx context.Context) (object *v1alpha1.APIKey, others []v1alpha1.APIKey, err error) {
	var keys v1alpha1.APIKeyList
	if err := k.Client.List(ctx, &keys, client.InNamespace(k.Namespace), client.MatchingLabels{v1alpha1.LabelBootstrap: "true"}); err != nil {
		return nil, nil, fmt.Errorf("list the APIKeys with the label %s: %w", v1alpha1.LabelBootstrap, err)
	}
	for i := range keys.Items {
		switch key := &keys.Items[i]; {
		case key.Spec.TokenHash == k.digest.String():
			object = key
		case !apikey.IsRetired(key):
			others = append(others, *key)
		}
	}
	return object, others, nil
}

// adopt labels an existing APIKey as one that manages keys, unless it has the label with any value: older consoles did not set it.
func (k *Key) adopt(ctx context.Context, object *v1alpha1.APIKey) error {
	if err := k.checkActive(object); err != nil {
		return err
	}
	if _, labelled := object.Labels[v1alpha1.LabelManager]; labelled {
		return nil
	}
	before := object.DeepCopy()
	object.Labels[v1alpha1.LabelManager] = "true"
	if err := k.Client.Patch(ctx, object, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("label APIKey %q %s=true: %w", object.Name, v1alpha1.LabelManager, err)
	}
	k.Log.Info("Labelled the APIKey of the bootstrap key as one that manages keys", "apikey", object.Name)
	return nil
}

func (k *Key) checkActive(object *v1alpha1.APIKey) error {
	switch state := apikey.StateOf(object, time.Now()); {
	case object.DeletionTimestamp != nil:
		return fmt.Errorf("APIKey %q is being deleted; it is created again once it is gone", object.Name)
	case state == apikey.StateUnreadable:
		return fmt.Errorf("APIKey %q has fields that cannot be read (%s): correct them, or delete it, so that it is created again",
			object.Name, strings.Join(object.Unreadable, ", "))
	case state == apikey.StateExpired && !apikey.IsRetired(object): // the clock of this process may be wrong
		return fmt.Errorf("APIKey %q has expired by the clock of this process, and the controller has not recorded that yet", object.Name)
	case state != apikey.StateActive:
		how := "was deactivated"
		if state == apikey.StateExpired {
			how = "has expired"
		}
		return &finalError{fmt.Sprintf("the key of the file %s %s (APIKey %q), which is final: delete the file and restart, so that a new key "+
			"is generated", k.File, how, object.Name)}
	default:
		return nil
	}
}

// deactivateFormer deactivates the keys of other files. Another console may do so at the same time.
func (k *Key) deactivateFormer(ctx context.Context) error {
	for i := range k.former {
		_, err := keyclient.Deactivate(ctx, k.Client, k.Namespace, k.former[i].Name, k.former[i].UID)
		switch {
		case err == nil: // a warning, because another console may still use that file
			k.Log.Warn("Deactivated the bootstrap key of another key file, which this one replaces",
				"deactivated", k.former[i].Name, "apikey", k.name(), "keyFile", k.File)
		case errors.Is(err, keyclient.ErrAlreadyInactive), errors.Is(err, keyclient.ErrNotFound):
		default:
			return err
		}
	}
	k.former = nil
	return nil
}

// create creates the APIKey and returns it. Another console may do so at the same time.
func (k *Key) create(ctx context.Context) (*v1alpha1.APIKey, error) {
	if err := k.checkFile(); err != nil {
		return nil, err
	}
	labels := map[string]string{v1alpha1.LabelBootstrap: "true", v1alpha1.LabelManager: "true"}
	object := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: k.Namespace, Name: k.name(), Labels: labels},
		Spec: v1alpha1.APIKeySpec{
			AppName:     k.name(),
			ReadAccess:  true,
			WriteAccess: true,
			TokenHash:   k.digest.String(),
			TokenHint:   k.hint,
		},
	}
	err := k.Client.Create(ctx, object)
	switch {
	case err == nil:
		k.Log.Info("Created the APIKey of the bootstrap key", "apikey", object.Name)
		return object, nil
	case !apierrors.IsAlreadyExists(err):
		return nil, fmt.Errorf("create APIKey %q: %w", k.name(), err)
	}
	found, _, err := k.find(ctx)
	if err == nil && found == nil {
		err = fmt.Errorf("another APIKey %q exists: delete it, or label it %s=true if its tokenHash is that of the key file",
			k.name(), v1alpha1.LabelBootstrap)
	}
	return found, err
}

// checkFile returns nil while the file holds the key. When the owner has deleted the APIKey, and the file too or put another key there,
// the APIKey is not created again.
func (k *Key) checkFile() error {
	key, err := load(k.File)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &finalError{fmt.Sprintf("neither APIKey %q nor the key file %s exists: restart to generate a new key", k.name(), k.File)}
	case err != nil:
		return err
	case token.Sum(key) != k.digest:
		return &finalError{fmt.Sprintf("APIKey %q does not exist, and the key file %s holds another key since this process has started: "+
			"restart to use that key", k.name(), k.File)}
	default:
		return nil
	}
}

func (k *Key) name() string { return fmt.Sprintf("%s%x", namePrefix, k.digest[:nameHashBytes]) }
