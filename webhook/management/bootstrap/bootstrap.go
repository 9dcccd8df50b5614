// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package bootstrap gives a management API its first API key: one that is read from a file, or made and written there. Whoever can read
// the file can make all other keys. It becomes an APIKey like the others, by its hash.
package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/webhook/authn"
)

const (
	// Label marks the APIKeys that were made of key files, with the value "true". They are found again by it, and by their hash.
	Label = "keys.squirrel.dev/bootstrap"

	// namePrefix, and as many digits of the hash, are the name and the app name of the APIKey: one that nobody else has.
	namePrefix     = "bootstrap-"
	nameHashDigits = 12

	// acceptancePatience is how long the controller may take to issue the key before this looks at what holds it up.
	acceptancePatience = 10 * time.Second
	acceptancePoll     = 20 * time.Millisecond
)

// Config says which key is to count, and where.
type Config struct {
	// File holds the key. It is made when it does not exist.
	File string
	// Namespace of the APIKey.
	Namespace string
	// Client reads and writes APIKeys without a cache.
	Client client.Client
	// Decide tells when the key is accepted: the key is ready once this process accepts it.
	Decide func(authn.Request) authn.Verdict
	// Log never gets the key.
	Log *slog.Logger
}

// Key is a bootstrap key on its way to be accepted. Of the key itself it keeps only the credential.
type Key struct {
	Config
	credential authn.Credential
	hash, hint string

	waiting atomic.Pointer[error] // why it is not settled yet; nil when it is
}

// New reads the key file, or makes it. An error says what is wrong with the file, and what to do.
func New(config Config) (*Key, error) {
	key, err := loadOrCreate(config.File)
	if err != nil {
		return nil, err
	}
	k := &Key{Config: config, credential: authn.CredentialOf(key), hash: token.Hash(key), hint: token.Hint(key)}
	k.wait(errors.New("it was not declared yet"))
	return k, nil
}

// Ready returns nil once the key is accepted, or once it is certain that it never will be; else why not. Until then whoever presents
// an unknown key is to be told that keys cannot be checked: the key may be this one.
func (k *Key) Ready() error {
	if waiting := k.waiting.Load(); waiting != nil {
		return fmt.Errorf("the bootstrap key is not accepted yet: %w", *waiting)
	}
	return nil
}

// Run makes the key one that is accepted: it deactivates the keys of former files, declares the APIKey, and returns when the key is
// accepted, when it never will be, or when ctx is done. Whatever else goes wrong is logged and tried again. It returns no error: other
// keys count without this one.
func (k *Key) Run(ctx context.Context) error {
	_ = retries().DelayFunc().Until(ctx, true, true, func(ctx context.Context) (done bool, _ error) {
		err := k.settle(ctx)
		var dead *deadError
		switch {
		case err == nil:
			k.Log.Info(fmt.Sprintf("API key authentication ready (key file: %s)", k.File), "apikey", k.name())
		case errors.As(err, &dead):
			k.Log.Error("The bootstrap key is not accepted", "err", err)
		default:
			k.wait(err)
			return false, nil
		}
		k.waiting.Store(nil)
		return true, nil
	})
	return nil
}

// wait keeps why the key is not settled, and logs it when it is something new.
func (k *Key) wait(reason error) {
	former := k.waiting.Swap(&reason)
	if former != nil && (*former).Error() != reason.Error() {
		k.Log.Warn("The bootstrap key is not accepted yet; trying again", "err", reason)
	}
}

// retries are the pauses between attempts: doubling from 0.2 s to 5 s, each stretched by up to half at random.
func retries() wait.Backoff {
	return wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.5, Cap: 5 * time.Second, Steps: 10}
}

// deadError says that the key has ended, which is final.
type deadError struct {
	name, file string
	state      v1alpha1.State
}

func (e *deadError) Error() string {
	how := "was deactivated"
	if e.state == v1alpha1.StateExpired {
		how = "has expired"
	}
	return fmt.Sprintf("the key of the file %s %s (APIKey %q), which is final: delete the file and restart, and a new key is made",
		e.file, how, e.name)
}

// settle returns nil when the key is accepted, and a deadError when it never will be.
func (k *Key) settle(ctx context.Context) error {
	object, former, err := k.find(ctx)
	if err != nil {
		return err
	}
	if object != nil {
		if err := k.checkAlive(object); err != nil {
			return err // and former keys are left alone: this one does not take their place
		}
	}
	for i := range former {
		if err := k.deactivate(ctx, &former[i]); err != nil {
			return err
		}
	}
	if object == nil {
		if err := k.declare(ctx); err != nil {
			return err
		}
	}
	return k.waitUntilAccepted(ctx)
}

// find returns the APIKey of this key, or nil, and the active ones that were made of other key files.
func (k *Key) find(ctx context.Context) (object *v1alpha1.APIKey, former []v1alpha1.APIKey, err error) {
	var keys v1alpha1.APIKeyList
	if err := k.Client.List(ctx, &keys, client.InNamespace(k.Namespace), client.MatchingLabels{Label: "true"}); err != nil {
		return nil, nil, fmt.Errorf("cannot list the bootstrap keys: %w", err)
	}
	for i := range keys.Items {
		switch key := &keys.Items[i]; {
		case key.Spec.TokenHash == k.hash:
			object = key
		case key.State(time.Now()) == v1alpha1.StateActive:
			former = append(former, *key)
		}
	}
	return object, former, nil
}

func (k *Key) checkAlive(object *v1alpha1.APIKey) error {
	switch state := object.State(time.Now()); {
	case object.DeletionTimestamp != nil:
		return fmt.Errorf("APIKey %q is being deleted, and is made again when it is gone", object.Name)
	case state != v1alpha1.StateActive:
		return &deadError{name: object.Name, file: k.File, state: state}
	default:
		return nil
	}
}

func (k *Key) deactivate(ctx context.Context, former *v1alpha1.APIKey) error {
	patch := fmt.Appendf(nil, `{"metadata": {"uid": %q}, "spec": {"active": false}}`, former.UID)
	err := k.Client.Patch(ctx, former, client.RawPatch(types.MergePatchType, patch))
	switch {
	case apierrors.IsNotFound(err): // gone, which is as good
		return nil
	case err != nil:
		return fmt.Errorf("cannot deactivate the former bootstrap key, APIKey %q: %w", former.Name, err)
	}
	k.Log.Info("Deactivated the key of a former key file", "apikey", former.Name)
	return nil
}

// declare creates the APIKey. That somebody else did so at the same time is fine.
func (k *Key) declare(ctx context.Context) error {
	err := k.Client.Create(ctx, &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: k.Namespace, Name: k.name(), Labels: map[string]string{Label: "true"}},
		Spec: v1alpha1.APIKeySpec{
			AppName:     k.name(),
			ReadAccess:  true,
			WriteAccess: true,
			TokenHash:   k.hash,
			TokenHint:   k.hint,
		},
	})
	switch {
	case apierrors.IsAlreadyExists(err):
		object, _, err := k.find(ctx)
		if err == nil && object == nil {
			err = fmt.Errorf("there is another APIKey %q, without the label %s=true: delete it, or give it the label", k.name(), Label)
		}
		return err
	case err != nil:
		return fmt.Errorf("cannot create APIKey %q: %w", k.name(), err)
	default:
		return nil
	}
}

func (k *Key) name() string {
	digits := k.hash[len(k.hash)-2*len(token.Digest{}):]
	return namePrefix + digits[:nameHashDigits]
}

// waitUntilAccepted returns nil as soon as this process accepts the key, or else what the controller says of it.
func (k *Key) waitUntilAccepted(ctx context.Context) error {
	request := authn.Request{Namespace: k.Namespace, Credential: k.credential}
	accepted := func(context.Context) (bool, error) { return k.Decide(request).Decision == authn.Granted, nil }
	if wait.PollUntilContextTimeout(ctx, acceptancePoll, acceptancePatience, true, accepted) == nil {
		return nil
	}
	object, _, err := k.find(ctx)
	switch {
	case err != nil:
		return err
	case object == nil:
		return fmt.Errorf("APIKey %q was deleted, and is made again", k.name())
	}
	status := "it has no status"
	if ready := meta.FindStatusCondition(object.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		status = fmt.Sprintf("it has the status Ready=%s (%s): %s", ready.Status, ready.Reason, ready.Message)
	}
	return fmt.Errorf("APIKey %q was not accepted within %s; %s", object.Name, acceptancePatience, status)
}
