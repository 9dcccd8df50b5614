// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package bootstrap gives a management API its first API key: one that is read from a file, or made and written there. Whoever can read
// the file can make all other keys. It becomes an APIKey like the others, by its hash.
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
	// namePrefix, and the start of the key's hash, are the name and the app name of the APIKey: what nobody else has.
	namePrefix    = "bootstrap-"
	nameHashBytes = 6

	// attemptTimeout bounds an attempt, which asks the Kubernetes API a few things and waits for the controller.
	attemptTimeout = 15 * time.Second

	// acceptancePoll is how often this process is asked whether it has heard that the key is issued.
	acceptancePoll = 5 * time.Millisecond

	// lossPoll is how often this process is asked whether it still accepts the key.
	lossPoll = 200 * time.Millisecond
)

// Config says which key is to count, and where.
type Config struct {
	// File holds the key. It is made when it does not exist.
	File string
	// Namespace of the APIKey.
	Namespace string
	// Client reads and writes APIKeys without a cache.
	Client client.WithWatch
	// Authenticator of this process: the key is ready once it accepts the APIKey.
	Authenticator *authn.Authenticator
	// Log never gets the key.
	Log *slog.Logger
}

// Key is a bootstrap key that is to be accepted. Of the key itself it keeps only the hash and the hint.
type Key struct {
	Config
	digest token.Digest
	hint   string

	// former are the active keys of other key files that were there when this process first looked: those that this key takes the place
	// of. It does not look again: of two keys that are first declared at once, each of its own file, at most one has seen the other, and so
	// they do not end each other.
	former []v1alpha1.APIKey
	looked bool

	current atomic.Pointer[state]
}

// state is what has become of a key.
type state struct {
	problem  error            // why it is not settled; nil when it is
	accepted *v1alpha1.APIKey // nil when it is not accepted, or never will be
}

// New reads the key file, or makes it. An error says what is wrong with the file, and what to do.
func New(config Config) (*Key, error) {
	key, err := loadOrCreate(config.File)
	if err != nil {
		return nil, err
	}
	k := &Key{Config: config, digest: token.Sum(key), hint: token.Hint(key)}
	k.current.Store(&state{problem: errors.New("it was not declared yet")})
	return k, nil
}

// Ready returns nil while the key is accepted, or once it is certain that it never will be; else why not. Until then an unknown key is
// to be refused as one that cannot be checked: it may be this one.
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

// Run makes the key one that is accepted, and keeps it so: it creates the APIKey, deactivates the keys of other files once that is
// accepted, and creates the APIKey again when it is deleted. It returns when ctx is done, or when the key never will be accepted, as when
// its owner ends it. Whatever else goes wrong is logged and tried again. It returns no error: other keys count without this one.
func (k *Key) Run(ctx context.Context) error {
	_ = retries().Until(ctx, true, true, func(ctx context.Context) (done bool, _ error) {
		accepted, done := k.attempt(ctx)
		if accepted != nil {
			k.awaitLoss(ctx, accepted)
		}
		return done, nil
	})
	return nil
}

// attempt returns the APIKey if all is done until that is lost; done says that the key never will be accepted.
func (k *Key) attempt(ctx context.Context) (accepted *v1alpha1.APIKey, done bool) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	accepted, err := k.accept(ctx)
	var never *finalError
	switch {
	case errors.As(err, &never): // and former keys are left alone: this one does not take their place
		k.Log.Error("The bootstrap key is not accepted", "err", err)
		k.current.Store(&state{})
		return nil, true
	case err != nil:
		k.wait(err)
		return nil, false
	}
	if k.current.Swap(&state{accepted: accepted}).problem != nil {
		k.Log.Info(fmt.Sprintf("API key authentication ready (key file: %s)", k.File), "apikey", accepted.Name)
	}
	if err := k.endFormer(ctx); err != nil {
		k.Log.Warn("A bootstrap key of another key file is not deactivated yet; trying again", "err", err)
		return nil, false
	}
	return accepted, false
}

// wait keeps why the key is not settled, and logs it when it is something new.
func (k *Key) wait(reason error) {
	former := k.current.Swap(&state{problem: reason})
	if former.problem == nil || former.problem.Error() != reason.Error() {
		k.Log.Warn("The bootstrap key is not accepted; trying again", "err", reason)
	}
}

// awaitLoss returns when this process does not accept the key any more, or when ctx is done. What it asks is in memory.
func (k *Key) awaitLoss(ctx context.Context, accepted *v1alpha1.APIKey) {
	err := wait.PollUntilContextCancel(ctx, lossPoll, true, func(context.Context) (bool, error) { return !k.accepts(accepted), nil })
	if err == nil {
		k.wait(lost(accepted))
	}
}

func lost(object *v1alpha1.APIKey) error {
	return fmt.Errorf("APIKey %q was deleted or has ended", object.Name)
}

// accepts says whether this process accepts the token of this very object.
func (k *Key) accepts(object *v1alpha1.APIKey) bool {
	return k.Authenticator.Accepts(object.Namespace, object.Name, string(object.UID))
}

// retries are the pauses between attempts: doubling from 0.2 s to 5 s, each stretched by up to half at random. They are short again ten
// minutes later.
func retries() wait.DelayFunc {
	pauses := wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.5, Cap: 5 * time.Second, Steps: 10}
	return pauses.DelayWithReset(clock.RealClock{}, 10*time.Minute)
}

// finalError says why the key is not accepted, and never will be by this process.
type finalError struct{ message string }

func (e *finalError) Error() string { return e.message }

// accept returns the APIKey once it is accepted. The error is a finalError when it never will be.
func (k *Key) accept(ctx context.Context) (*v1alpha1.APIKey, error) {
	object, others, err := k.find(ctx)
	if err != nil {
		return nil, err
	}
	if !k.looked {
		k.former, k.looked = others, true
	}
	if object == nil {
		object, err = k.declare(ctx)
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
		return nil, k.taken(conflict)
	case err != nil:
		return nil, err
	default:
		return object, k.awaitHeard(ctx, object)
	}
}

// taken says that an APIKey which was not made of a key file has the hash of this key.
func (k *Key) taken(conflict *apikey.Conflict) error {
	return &finalError{fmt.Sprintf("the key of the file %s is that of another APIKey (%s): delete that APIKey, or delete the file so that "+
		"a new key is made, and restart", k.File, strings.TrimSuffix(conflict.Message, "."))}
}

// find returns the APIKey of this key, or nil, and the active ones that were made of other key files.
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

// adopt makes an APIKey that is there a manager, unless its label says otherwise: a console before this version made it without.
func (k *Key) adopt(ctx context.Context, object *v1alpha1.APIKey) error {
	if err := k.checkAlive(object); err != nil {
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

func (k *Key) checkAlive(object *v1alpha1.APIKey) error {
	switch state := apikey.StateOf(object, time.Now()); {
	case object.DeletionTimestamp != nil:
		return fmt.Errorf("APIKey %q is being deleted, and is made again when it is gone", object.Name)
	case state == apikey.StateUnreadable:
		return fmt.Errorf("APIKey %q has fields that cannot be read (%s): correct them, or delete it, and it is made again",
			object.Name, strings.Join(object.Unreadable, ", "))
	case state == apikey.StateExpired && !apikey.IsRetired(object): // the clock of this process may be wrong
		return fmt.Errorf("APIKey %q has expired by the clock of this process, and the controller has not recorded that yet", object.Name)
	case state != apikey.StateActive:
		how := "was deactivated"
		if state == apikey.StateExpired {
			how = "has expired"
		}
		return &finalError{fmt.Sprintf("the key of the file %s %s (APIKey %q), which is final: delete the file and restart, and a new key "+
			"is made", k.File, how, object.Name)}
	default:
		return nil
	}
}

// endFormer deactivates the keys of other files. That somebody else did so at the same time is fine.
func (k *Key) endFormer(ctx context.Context) error {
	for i := range k.former {
		_, err := keyclient.Deactivate(ctx, k.Client, k.Namespace, k.former[i].Name, k.former[i].UID)
		switch {
		case err == nil: // a warning, because another console may go on with that file
			k.Log.Warn("Deactivated the bootstrap key of another key file: this one takes its place",
				"deactivated", k.former[i].Name, "apikey", k.name(), "keyFile", k.File)
		case errors.Is(err, keyclient.ErrAlreadyInactive), errors.Is(err, keyclient.ErrNotFound):
		default:
			return err
		}
	}
	k.former = nil
	return nil
}

// declare creates the APIKey and returns it. That somebody else did so at the same time is fine.
func (k *Key) declare(ctx context.Context) (*v1alpha1.APIKey, error) {
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
	conflict := apikey.ConflictIn(err) // as the admission webhook tells it
	switch {
	case err == nil:
		k.Log.Info("Created the APIKey of the bootstrap key", "apikey", object.Name)
		return object, nil
	case conflict != nil && conflict.Reason == v1alpha1.ReasonTokenHashConflict:
		return nil, k.taken(conflict)
	case !apierrors.IsAlreadyExists(err):
		return nil, fmt.Errorf("create APIKey %q: %w", k.name(), err)
	}
	found, _, err := k.find(ctx)
	if err == nil && found == nil {
		err = fmt.Errorf("there is another APIKey %q: delete it, or label it %s=true if its tokenHash is that of the key file",
			k.name(), v1alpha1.LabelBootstrap)
	}
	return found, err
}

// checkFile returns nil while the file holds the key. An APIKey that is deleted is not created again when the file has gone too, or holds
// another key: then the owner of both wants another one.
func (k *Key) checkFile() error {
	key, err := load(k.File)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &finalError{fmt.Sprintf("there is no APIKey %q, and the key file %s does not exist any more: restart, and a new key is made",
			k.name(), k.File)}
	case err != nil:
		return err
	case token.Sum(key) != k.digest:
		return &finalError{fmt.Sprintf("there is no APIKey %q, and the key file %s holds another key since this process started: restart, "+
			"and that one is used", k.name(), k.File)}
	default:
		return nil
	}
}

func (k *Key) name() string { return fmt.Sprintf("%s%x", namePrefix, k.digest[:nameHashBytes]) }

// awaitHeard returns when this process has heard that the key is issued.
func (k *Key) awaitHeard(ctx context.Context, object *v1alpha1.APIKey) error {
	heard := func(context.Context) (bool, error) { return k.accepts(object), nil }
	if err := wait.PollUntilContextCancel(ctx, acceptancePoll, true, heard); err != nil {
		return fmt.Errorf("APIKey %q is issued, but this process has not heard of it yet", k.name())
	}
	return nil
}
