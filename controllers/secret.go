// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
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

// Annotations of a one-time Secret, which identify its key and token. They stay if the key is deleted without its Secret, which removes the
// owner reference. The labels and annotations of spec.secret cannot contain them.
const (
	annotationKeyName   = "keys.squirrel.dev/apikey"
	annotationKeyUID    = "keys.squirrel.dev/apikey-uid"
	annotationTokenHash = "keys.squirrel.dev/token-hash"
)

// Labels of a one-time Secret. The labels of spec.secret cannot contain them.
const (
	labelManagedBy = "app.kubernetes.io/managed-by"
	labelKeyName   = "keys.squirrel.dev/apikey"
)

// newSecret returns the one-time Secret that hands over the minted token. The key owns it, so that it is deleted with the key.
func newSecret(key *v1alpha1.APIKey, minted string) *corev1.Secret {
	owner := *metav1.NewControllerRef(key, v1alpha1.GroupVersion.WithKind("APIKey"))
	owner.BlockOwnerDeletion = new(false)
	labels := map[string]string{labelManagedBy: "apikey-operator", labelKeyName: labelValueOf(key.Name)}
	annotations := map[string]string{
		annotationKeyName: key.Name, annotationKeyUID: string(key.UID), annotationTokenHash: token.Hash(minted),
	}
	if declared := key.Spec.Secret; declared != nil {
		addAbsent(labels, declared.Labels)
		addAbsent(annotations, declared.Annotations)
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       key.Namespace,
			Name:            apikey.SecretName(key),
			Labels:          labels,
			Annotations:     annotations,
			OwnerReferences: []metav1.OwnerReference{owner},
		},
		Type: v1alpha1.SecretTypeToken,
		Data: map[string][]byte{apikey.SecretKey(key): []byte(minted)},
	}
}

// addAbsent adds the entries whose keys are absent.
func addAbsent[V ~string](entries map[string]string, more map[string]V) {
	for name, value := range more {
		if _, exists := entries[name]; !exists {
			entries[name] = string(value)
		}
	}
}

// maxLabelLength is the maximum length of a label's value.
const maxLabelLength = 63

// labelValueOf returns the name of a key as the value of a label. In a longer name than a label can have, a hash replaces the end.
func labelValueOf(name string) string {
	if len(name) <= maxLabelLength {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	suffix := "-" + hex.EncodeToString(sum[:4])
	return name[:maxLabelLength-len(suffix)] + suffix
}

// createSecret creates the key's one-time Secret.
func (r *APIKeyReconciler) createSecret(ctx context.Context, key *v1alpha1.APIKey, secret *corev1.Secret) error {
	writesTotal.WithLabelValues(writtenSecret).Inc()
	return secretWriteError(key, r.Secrets.Create(ctx, secret.DeepCopy()))
}

// replaceSecret creates the key's one-time Secret with the claimed token, or writes the token to the one that exists. It returns a conflict
// if another Secret has the name, or if finalizers keep a Secret that must be replaced.
func (r *APIKeyReconciler) replaceSecret(ctx context.Context, key *v1alpha1.APIKey, secret *corev1.Secret) error {
	current, err := r.readSecret(ctx, key)
	switch {
	case err != nil:
		return err
	case current == nil:
		return r.createSecret(ctx, key, secret)
	case apikey.RecordIn(key, current) == apikey.ClaimOf(key): // an earlier call wrote it
		return nil
	case holdsToken(current, key) && isUpdatable(current, key):
		return r.updateSecret(ctx, key, current, secret)
	case holdsToken(current, key):
		if _, err := r.deleteExactly(ctx, current); err != nil {
			return secretWriteError(key, err)
		}
	default:
		if err := r.clearSecret(ctx, key, current); err != nil {
			return err
		}
	}
	if len(current.Finalizers) > 0 { // the deletion waits for them
		return finalizerConflict(current)
	}
	return r.createSecret(ctx, key, secret)
}

// isUpdatable reports whether the controller may write another token to the key's Secret. Earlier versions of the controller wrote
// immutable Secrets. `kubectl delete --cascade=orphan` removes the owner reference, without which a policy refuses the update. In a Secret
// that is being deleted, the token would be lost.
func isUpdatable(secret *corev1.Secret, key *v1alpha1.APIKey) bool {
	return !ptr.Deref(secret.Immutable, false) && metav1.IsControlledBy(secret, key) && secret.DeletionTimestamp == nil
}

// updateSecret writes the token of a Secret to the current one, and keeps everything else that it has. Pods and other tools continue to
// read the same object.
func (r *APIKeyReconciler) updateSecret(ctx context.Context, key *v1alpha1.APIKey, current, secret *corev1.Secret) error {
	updated := current.DeepCopy()
	for _, name := range []string{annotationKeyName, annotationKeyUID, annotationTokenHash} {
		metav1.SetMetaDataAnnotation(&updated.ObjectMeta, name, secret.Annotations[name])
	}
	maps.Copy(updated.Data, secret.Data)
	writesTotal.WithLabelValues(writtenSecret).Inc()
	err := r.Secrets.Update(ctx, updated)
	if isNotFound(err) { // it was deleted since it was read
		return r.createSecret(ctx, key, secret)
	}
	return secretWriteError(key, err)
}

// deleteExactly deletes a Secret if it has not changed since it was read: it may hold another token then. It reports whether it deleted
// the Secret; it returns no error if the Secret was gone.
func (r *APIKeyReconciler) deleteExactly(ctx context.Context, secret *corev1.Secret) (deleted bool, err error) {
	writesTotal.WithLabelValues(writtenSecret).Inc()
	err = r.Secrets.Delete(ctx, secret, client.Preconditions{UID: &secret.UID, ResourceVersion: &secret.ResourceVersion})
	if isNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// holdsToken reports whether the Secret holds a token of the key.
func holdsToken(secret *corev1.Secret, key *v1alpha1.APIKey) bool {
	return apikey.RecordIn(key, secret) != nil
}

// wasHandedOver reports whether the key's Secret exists and holds the claimed token.
func (r *APIKeyReconciler) wasHandedOver(ctx context.Context, key *v1alpha1.APIKey) (bool, error) {
	claim := apikey.ClaimOf(key)
	if claim == nil || key.Spec.TokenHash != "" {
		return false, nil
	}
	secret, err := r.readSecret(ctx, key)
	return secret != nil && apikey.RecordIn(key, secret) == claim, err
}

// clearSecretName deletes a void Secret that has the name of the key's Secret. It returns a conflict if another Secret has the name, or if
// the key's Secret is being deleted.
func (r *APIKeyReconciler) clearSecretName(ctx context.Context, key *v1alpha1.APIKey) error {
	if key.Spec.TokenHash != "" {
		return nil
	}
	secret, err := r.readSecret(ctx, key)
	if secret == nil || err != nil {
		return err
	}
	switch record := apikey.RecordIn(key, secret); {
	case record == nil:
		return r.clearSecret(ctx, key, secret)
	case record == apikey.ClaimOf(key): // its controller has written it since wasHandedOver read the Secret
		return errKeyChanged(key)
	case secret.DeletionTimestamp != nil:
		return finalizerConflict(secret)
	default:
		return nil
	}
}

// clearSecret deletes a Secret that holds no token of the key, if it is void.
func (r *APIKeyReconciler) clearSecret(ctx context.Context, key *v1alpha1.APIKey, secret *corev1.Secret) error {
	if deleted, err := r.deleteVoidSecret(ctx, key, secret); deleted || err != nil {
		if uid, _ := writtenFor(secret, key); uid == key.UID && err == nil && !apikey.IsIssued(key) {
			r.recordReissue(key)
		}
		return err
	}
	switch ofFormerKey, err := r.isOfFormerKey(ctx, secret, key); {
	case err != nil:
		return err
	case ofFormerKey:
		return errFormerSecret
	}
	return secretConflict(secret, key)
}

// isOfFormerKey reports whether the Secret belongs to another key that was deleted or has ended, so that the garbage collector or the
// controller will soon delete it.
func (r *APIKeyReconciler) isOfFormerKey(ctx context.Context, secret *corev1.Secret, key *v1alpha1.APIKey) (bool, error) {
	owner := owningKey(secret)
	if owner == nil || owner.UID == key.UID || r.backoffs.waited(key, r.phaseOf(key)) >= formerSecretTimeout {
		return false, nil
	}
	former := &v1alpha1.APIKey{}
	err := r.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: owner.Name}, former, client.DisableReadYourWritesConsistency)
	switch {
	case apierrors.IsNotFound(err):
		return true, nil
	case err != nil:
		return false, err
	default:
		return former.UID != owner.UID || apikey.IsRetired(former), nil
	}
}

// writtenFor returns the UID of the former or current key of this name that the controller wrote the Secret for, and the hash of the token
// in it. Both are empty if the controller did not write the Secret, or if the Secret was changed since.
func writtenFor(secret *corev1.Secret, key *v1alpha1.APIKey) (uid types.UID, hash string) {
	if secret.Type != v1alpha1.SecretTypeToken || len(secret.Data) != 1 {
		return "", ""
	}
	for _, plaintext := range secret.Data {
		hash = token.Hash(string(plaintext))
	}
	owner, annotations := metav1.GetControllerOf(secret), secret.Annotations
	uid = types.UID(annotations[annotationKeyUID])
	if annotations[annotationTokenHash] != hash || annotations[annotationKeyName] != key.Name || (owner != nil && owner.UID != uid) {
		return "", ""
	}
	return uid, hash
}

// deleteVoidSecret deletes the Secret if its token can never be accepted. The controller must have written it for a former key of this
// name, or for this key and a hash that the status does not record. No other key may have that hash. Such a Secret remains if a controller
// was paused for long, or if its key was deleted without it.
//
// The key is read from the API server after the Secret: a controller records a hash before it writes the Secret. A hash that is not
// recorded now was therefore dropped. The write that would accept its token fails, because it requires the resource version with the hash.
func (r *APIKeyReconciler) deleteVoidSecret(ctx context.Context, key *v1alpha1.APIKey, secret *corev1.Secret) (deleted bool, err error) {
	uid, hash := writtenFor(secret, key)
	if uid == "" || slices.Contains(apikey.HashesOf(key), hash) {
		return false, nil
	}
	current, err := r.readAgain(ctx, key)
	if err != nil {
		return false, err
	}
	if current.IsUnreadable(recordedFields...) || slices.Contains(apikey.HashesOf(current), hash) {
		return false, errKeyChanged(key)
	}
	holders, err := apikey.ListByHash(ctx, r, key.Namespace, hash)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(holders, func(holder v1alpha1.APIKey) bool { return holder.UID != key.UID }) {
		return false, nil // another key imported the token
	}
	if _, err := r.deleteExactly(ctx, secret); err != nil {
		return false, fmt.Errorf("delete the void Secret %q: %w", secret.Name, err)
	}
	log.FromContext(ctx).Info("Deleted a Secret whose token was never accepted or whose key was deleted", "secret", secret.Name, "uid", uid)
	return true, nil
}

// checkUnchanged returns a conflict if the key has changed since the cache read it. Its owner may have extended its ttl, or a restore of
// etcd may have undone its end.
func (r *APIKeyReconciler) checkUnchanged(ctx context.Context, key *v1alpha1.APIKey) error {
	current, err := r.readAgain(ctx, key)
	if err == nil && current.ResourceVersion != key.ResourceVersion {
		return errKeyChanged(key)
	}
	return err
}

// readAgain reads the key from the API server. It returns a conflict if the key was deleted.
func (r *APIKeyReconciler) readAgain(ctx context.Context, key *v1alpha1.APIKey) (*v1alpha1.APIKey, error) {
	current := &v1alpha1.APIKey{}
	if err := r.Secrets.Get(ctx, client.ObjectKeyFromObject(key), current); client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("read the key again: %w", err)
	}
	if current.UID != key.UID {
		return nil, errKeyChanged(key)
	}
	return current, nil
}

// errKeyChanged returns the conflict that the cache has not seen a change of the key.
func errKeyChanged(key *v1alpha1.APIKey) error {
	return apierrors.NewConflict(v1alpha1.GroupVersion.WithResource("apikeys").GroupResource(), key.Name,
		errors.New("the key has changed since the cache read it"))
}

// owningKey returns the owner reference to the APIKey that controls the Secret, or nil.
func owningKey(secret *corev1.Secret) *metav1.OwnerReference {
	owner := metav1.GetControllerOf(secret)
	if owner == nil || owner.Kind != "APIKey" || secret.Type != v1alpha1.SecretTypeToken {
		return nil
	}
	return owner
}

// finalizerConflict returns the conflict with a Secret that is being deleted, and keeps its name until its finalizers are removed.
func finalizerConflict(secret *corev1.Secret) *apikey.Conflict {
	return &apikey.Conflict{Reason: v1alpha1.ReasonSecretConflict, Holder: secret.Name, Message: fmt.Sprintf(
		"Secret %q is being deleted, and its finalizers (%s) keep it: remove them, or wait until the tool that set them does. %s",
		secret.Name, strings.Join(secret.Finalizers, ", "), retriesWithBackoff)}
}

// secretConflict returns the conflict with a Secret that has the name of the key's Secret.
func secretConflict(secret *corev1.Secret, key *v1alpha1.APIKey) *apikey.Conflict {
	message := fmt.Sprintf("Secret %q already exists and was not written for this key: "+
		"delete it if it is unused, or create this key with another spec.secret.name. %s",
		secret.Name, retriesWithBackoff)
	if apikey.IsIssued(key) {
		message = fmt.Sprintf("Secret %q was not written for this key, or was changed since: delete it if it is unused. "+
			"The controller then creates it with the new token. %s", secret.Name, retriesWithBackoff)
	}
	if owner := owningKey(secret); owner != nil && owner.UID != key.UID {
		message = fmt.Sprintf("Secret %q hands over the token of APIKey %q: create this key with another spec.secret.name.",
			secret.Name, owner.Name)
	}
	if former := secret.Annotations[annotationKeyName]; former != "" && former != key.Name && metav1.GetControllerOf(secret) == nil {
		message = fmt.Sprintf("Secret %q belonged to APIKey %q, which was deleted without it: "+
			"delete it, or create this key with another spec.secret.name. %s", secret.Name, former, retriesWithBackoff)
	}
	return &apikey.Conflict{Reason: v1alpha1.ReasonSecretConflict, Holder: secret.Name, Message: message}
}

// deleteSecret deletes the key's one-time Secret, if it exists and is the controller's, and removes its name from the status. It reports
// whether it deleted a Secret.
func (r *APIKeyReconciler) deleteSecret(ctx context.Context, key *v1alpha1.APIKey) (deleted bool, err error) {
	if key.Status.SecretName == "" {
		return false, nil
	}
	secret, err := r.readSecret(ctx, key)
	if err != nil {
		return false, err
	}
	switch {
	case secret == nil:
	case holdsToken(secret, key):
		if err := r.checkUnchanged(ctx, key); err != nil {
			return false, err
		}
		if deleted, err = r.deleteExactly(ctx, secret); err != nil {
			return false, fmt.Errorf("delete the one-time Secret %q: %w", secret.Name, err)
		}
	default:
		if deleted, err = r.deleteVoidSecret(ctx, key, secret); err != nil {
			return false, err
		}
	}
	key.Status.SecretName = ""
	return deleted, nil
}

// readSecret reads the key's Secret from the API server, or returns nil if it does not exist.
func (r *APIKeyReconciler) readSecret(ctx context.Context, key *v1alpha1.APIKey) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	err := r.Secrets.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: apikey.SecretName(key)}, secret)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read the Secret %q: %w", apikey.SecretName(key), err)
	default:
		return secret, nil
	}
}

// secretDeadline returns when the one-time Secret of an issued key is due for deletion. ok is false if the Secret has no ttl or was
// deleted, or if a rotation writes another token to it.
func secretDeadline(key *v1alpha1.APIKey) (due time.Time, ok bool) {
	newest := apikey.NewestToken(key)
	if newest == nil || apikey.ClaimOf(key) != nil || key.Status.SecretName == "" || key.Spec.Secret == nil || key.Spec.Secret.TTL == nil {
		return time.Time{}, false
	}
	return newest.NotBefore.Add(key.Spec.Secret.TTL.Duration), true
}

func (r *APIKeyReconciler) secretIsDue(key *v1alpha1.APIKey) bool {
	due, ok := secretDeadline(key)
	return ok && !r.Now().Before(due)
}
