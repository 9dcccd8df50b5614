// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// Annotations of a one-time Secret: the key and the token that the controller wrote it for. They stay when the key is deleted without its
// Secret, which takes the owner reference away.
const (
	annotationKeyName   = "keys.squirrel.dev/apikey"
	annotationKeyUID    = "keys.squirrel.dev/apikey-uid"
	annotationTokenHash = "keys.squirrel.dev/token-hash"
)

// secretName is the name of the key's one-time Secret.
func secretName(key *v1alpha1.APIKey) string {
	if key.Spec.Secret != nil && key.Spec.Secret.Name != "" {
		return key.Spec.Secret.Name
	}
	return key.Name + "-token"
}

// newSecret is the one-time Secret that hands over the minted token. It belongs to the key, and goes when the key goes.
func newSecret(key *v1alpha1.APIKey, minted string) *corev1.Secret {
	owner := *metav1.NewControllerRef(key, v1alpha1.GroupVersion.WithKind("APIKey"))
	owner.BlockOwnerDeletion = new(false)
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: key.Namespace,
			Name:      secretName(key),
			Labels:    map[string]string{"app.kubernetes.io/managed-by": "apikey-operator"},
			Annotations: map[string]string{
				annotationKeyName: key.Name, annotationKeyUID: string(key.UID), annotationTokenHash: token.Hash(minted),
			},
			OwnerReferences: []metav1.OwnerReference{owner},
		},
		Type:      v1alpha1.SecretTypeToken,
		Immutable: new(true),
		Data:      map[string][]byte{apikey.SecretKey(key): []byte(minted)},
	}
}

// createSecret creates the one-time Secret.
func (r *APIKeyReconciler) createSecret(ctx context.Context, key *v1alpha1.APIKey, minted string) error {
	writesTotal.WithLabelValues(writtenSecret).Inc()
	return r.Secrets.Create(ctx, newSecret(key, minted))
}

// isOurs says whether the Secret is the one that this controller wrote for the key.
func isOurs(secret *corev1.Secret, key *v1alpha1.APIKey) bool {
	_, ours := apikey.TokenIn(key, secret)
	return ours
}

// wasHandedOver says whether the key's Secret is there already, with a token of the recorded hash.
func (r *APIKeyReconciler) wasHandedOver(ctx context.Context, key *v1alpha1.APIKey) (bool, error) {
	if !apikey.IsClaimed(key) || key.Spec.TokenHash != "" {
		return false, nil
	}
	secret, err := r.readSecret(ctx, key)
	return secret != nil && isOurs(secret, key), err
}

// clearSecretName removes a void Secret from the place of the one that is to be written, and returns a conflict when another one is there.
func (r *APIKeyReconciler) clearSecretName(ctx context.Context, key *v1alpha1.APIKey) error {
	if key.Spec.TokenHash != "" {
		return nil
	}
	secret, err := r.readSecret(ctx, key)
	if secret == nil || err != nil {
		return err
	}
	if removed, err := r.removeVoidSecret(ctx, key, secret); removed || err != nil {
		if uid, _ := writtenFor(secret, key); uid == key.UID && err == nil && !apikey.IsClaimed(key) { // of a claimed one, claim says so
			r.announceMintedAgain(key)
		}
		return err
	}
	if r.isOfFormerKey(secret, key) {
		return errFormerSecret
	}
	return secretConflict(secret, key)
}

// isOfFormerKey says whether the Secret belongs to a former key of this name, and the garbage collector can be expected to remove it.
func (r *APIKeyReconciler) isOfFormerKey(secret *corev1.Secret, key *v1alpha1.APIKey) bool {
	owner := owningKey(secret)
	return owner != nil && owner.Name == key.Name && owner.UID != key.UID &&
		r.Now().Sub(key.CreationTimestamp.Time) < formerSecretPatience
}

// writtenFor returns the UID of the key, of this key's name, that the controller wrote the Secret for, and the hash of the token in it.
// Both are empty when it wrote it for no such key, or when it is not as the controller wrote it. Earlier controllers left no annotations:
// what they wrote for this very key is known by its owner.
func writtenFor(secret *corev1.Secret, key *v1alpha1.APIKey) (uid types.UID, hash string) {
	if secret.Type != v1alpha1.SecretTypeToken || !ptr.Deref(secret.Immutable, false) || len(secret.Data) != 1 {
		return "", ""
	}
	for _, plaintext := range secret.Data {
		hash = token.Hash(string(plaintext))
	}
	owner := metav1.GetControllerOf(secret)
	marked, isMarked := secret.Annotations[annotationTokenHash]
	uid = types.UID(secret.Annotations[annotationKeyUID])
	switch {
	case !isMarked && metav1.IsControlledBy(secret, key):
		return key.UID, hash
	case !isMarked, marked != hash, secret.Annotations[annotationKeyName] != key.Name, owner != nil && owner.UID != uid:
		return "", ""
	default:
		return uid, hash
	}
}

// removeVoidSecret deletes the Secret if its token cannot be accepted any more: if the controller wrote it for a former key of this name,
// or for this key and a hash that is not on record, and no other key has that hash. A controller that was stopped for long wrote it, or
// its key was deleted without it.
//
// The key is read again, after the Secret and from the API server: a hash is put on record before its Secret is written. So if it is not
// on record now, it was given up, and the write that would accept it fails, since it is made on the condition that it is still there.
func (r *APIKeyReconciler) removeVoidSecret(ctx context.Context, key *v1alpha1.APIKey, secret *corev1.Secret) (removed bool, err error) {
	uid, hash := writtenFor(secret, key)
	if uid == "" || slices.Contains(apikey.HashesOf(key), hash) {
		return false, nil
	}
	current := &v1alpha1.APIKey{}
	if err := r.Secrets.Get(ctx, client.ObjectKeyFromObject(key), current); client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("read the key again: %w", err)
	}
	if current.UID != key.UID || current.IsUnreadable(recordedFields...) || slices.Contains(apikey.HashesOf(current), hash) {
		return false, apierrors.NewConflict(v1alpha1.GroupVersion.WithResource("apikeys").GroupResource(), key.Name,
			errors.New("the key is not as the cache has it"))
	}
	holders, err := apikey.ListByHash(ctx, r, key.Namespace, hash)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(holders, func(holder v1alpha1.APIKey) bool { return holder.UID != key.UID }) {
		return false, nil // it became the token of another key, by its hash
	}
	writesTotal.WithLabelValues(writtenSecret).Inc()
	err = r.Secrets.Delete(ctx, secret, client.Preconditions{UID: &secret.UID, ResourceVersion: &secret.ResourceVersion})
	if err != nil && !isGone(err) {
		return false, fmt.Errorf("delete the void Secret %q: %w", secret.Name, err)
	}
	log.FromContext(ctx).Info("removed a Secret whose token was never accepted or whose key is gone", "secret", secret.Name,
		"uid", uid)
	return true, nil
}

// owningKey returns the reference to the APIKey that controls the Secret, or nil.
func owningKey(secret *corev1.Secret) *metav1.OwnerReference {
	owner := metav1.GetControllerOf(secret)
	if owner == nil || owner.Kind != "APIKey" || secret.Type != v1alpha1.SecretTypeToken {
		return nil
	}
	return owner
}

// secretConflict says what to do about a Secret that is in the way of the key's own.
func secretConflict(secret *corev1.Secret, key *v1alpha1.APIKey) *apikey.Conflict {
	message := fmt.Sprintf("Secret %q exists already and was not written for this key: "+
		"delete it if nobody needs it, or create this key with another spec.secret.name. %s",
		secret.Name, triesAgain)
	if owner := owningKey(secret); owner != nil && owner.UID != key.UID {
		message = fmt.Sprintf("Secret %q hands over the token of APIKey %q: create this key with another spec.secret.name.",
			secret.Name, owner.Name)
	}
	if left := secret.Annotations[annotationKeyName]; left != "" && left != key.Name && metav1.GetControllerOf(secret) == nil {
		message = fmt.Sprintf("Secret %q was left behind by APIKey %q: delete it, or create this key with another spec.secret.name. "+
			"%s", secret.Name, left, triesAgain)
	}
	return &apikey.Conflict{Reason: v1alpha1.ReasonSecretConflict, Holder: secret.Name, Message: message}
}

// removeSecret deletes the key's one-time Secret, if it is there and is ours, and takes it from the record. It says whether it deleted.
func (r *APIKeyReconciler) removeSecret(ctx context.Context, key *v1alpha1.APIKey) (removed bool, err error) {
	if key.Status.SecretName == "" {
		return false, nil
	}
	secret, err := r.readSecret(ctx, key)
	if err != nil {
		return false, err
	}
	switch {
	case secret == nil:
	case isOurs(secret, key):
		writesTotal.WithLabelValues(writtenSecret).Inc()
		err := r.Secrets.Delete(ctx, secret, client.Preconditions{UID: &secret.UID})
		if err != nil && !isGoneOrReplaced(err) {
			return false, fmt.Errorf("delete the one-time Secret %q: %w", secret.Name, err)
		}
		removed = err == nil
	default:
		if removed, err = r.removeVoidSecret(ctx, key, secret); err != nil {
			return false, err
		}
	}
	key.Status.SecretName = ""
	return removed, nil
}

// isGoneOrReplaced says whether a deletion failed because the object of that UID is not there any more.
func isGoneOrReplaced(err error) bool {
	return isGone(err) || wasOvertaken(err)
}

// readSecret reads the key's Secret from the API server itself; nil when there is none.
func (r *APIKeyReconciler) readSecret(ctx context.Context, key *v1alpha1.APIKey) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	err := r.Secrets.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: secretName(key)}, secret)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read the Secret %q: %w", secretName(key), err)
	default:
		return secret, nil
	}
}

// secretDue returns when the one-time Secret of a key is to go, if the key is issued and the Secret is there and has a time to live.
func secretDue(key *v1alpha1.APIKey) (time.Time, bool) {
	if !apikey.IsIssued(key) || key.Status.SecretName == "" || key.Spec.Secret == nil || key.Spec.Secret.TTL == nil {
		return time.Time{}, false
	}
	return key.Status.Tokens[0].NotBefore.Add(key.Spec.Secret.TTL.Duration), true
}

func (r *APIKeyReconciler) secretIsDue(key *v1alpha1.APIKey) bool {
	due, ok := secretDue(key)
	return ok && !r.Now().Before(due)
}
