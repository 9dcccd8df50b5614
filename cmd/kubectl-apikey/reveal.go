// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

// reveal prints a token that waits in its one-time Secret.
type reveal struct{ waiting }

func newRevealCommand(cluster *cluster) *cobra.Command {
	r := &reveal{}
	command := &cobra.Command{
		Use:   "reveal NAME|ID",
		Short: "Print the token of a key from its one-time Secret, and delete the Secret",
		Long: `Print the token that the controller made for a key. Its one-time Secret is deleted first, so that of several who ask only one
gets the token. Nobody can print it again.`,
		Example:           `  kubectl apikey reveal partner`,
		Args:              oneKey,
		PreRunE:           func(*cobra.Command, []string) error { return r.validate() },
		RunE:              cluster.run(r.run),
		ValidArgsFunction: cluster.completeNames,
	}
	r.register(command.Flags(), "the token was handed over")
	return command
}

func (r *reveal) run(ctx context.Context, s *session, args []string) error {
	key, err := s.find(ctx, args[0])
	if err != nil {
		return err
	}
	key, err = r.awaitHandover(ctx, s, key)
	if err != nil {
		return err
	}
	secret, token, err := readToken(ctx, s, key)
	if err != nil {
		return err
	}
	if err := take(ctx, s, secret); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(s.out, token); err != nil {
		return fmt.Errorf("the token could not be printed, and its Secret is gone; deactivate APIKey %q, and create another: %w", key.Name, err)
	}
	_, err = fmt.Fprintf(s.errOut, "\nSave the token now: it was shown only once. Its Secret %q is deleted.\n", secret.Name)
	return err
}

// awaitHandover returns the key once its token was handed over.
func (r *reveal) awaitHandover(ctx context.Context, s *session, key *v1alpha1.APIKey) (*v1alpha1.APIKey, error) {
	switch {
	case key.Spec.TokenHash != "":
		return nil, fmt.Errorf("APIKey %q has no Secret: its token was not made by the controller, and only whoever made it has it", key.Name)
	case apikey.IsRetired(key):
		return nil, fmt.Errorf("APIKey %q has ended: its token is accepted no more", key.Name)
	case apikey.IsIssued(key):
		return key, nil
	case !r.wait:
		return nil, fmt.Errorf("APIKey %q is not issued yet", key.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	return keyclient.AwaitAccepted(ctx, s, key)
}

// readToken returns the key's one-time Secret, and the token in it.
func readToken(ctx context.Context, s *session, key *v1alpha1.APIKey) (secret *corev1.Secret, token string, err error) {
	if key.Status.SecretName == "" {
		return nil, "", errTaken(key)
	}
	secret = &corev1.Secret{}
	err = s.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: key.Status.SecretName}, secret)
	if apierrors.IsNotFound(err) || (err == nil && secret.DeletionTimestamp != nil) {
		return nil, "", errTaken(key)
	}
	if err != nil {
		return nil, "", err
	}
	token, ok := apikey.TokenIn(key, secret)
	if !ok {
		return nil, "", fmt.Errorf("the Secret %q does not hold the token of APIKey %q: somebody has put another one in its place",
			secret.Name, key.Name)
	}
	return secret, token, nil
}

func errTaken(key *v1alpha1.APIKey) error {
	return fmt.Errorf("the token of APIKey %q was taken before, or the time of its Secret was over; if nobody has it, deactivate the key, "+
		"and create another", key.Name)
}

// take deletes the Secret as it was read: of several who do so, one succeeds.
func take(ctx context.Context, s *session, secret *corev1.Secret) error {
	err := s.Delete(ctx, secret, client.Preconditions{UID: &secret.UID, ResourceVersion: &secret.ResourceVersion})
	switch {
	case apierrors.IsNotFound(err) || apierrors.IsConflict(err):
		return fmt.Errorf("somebody else took or changed the Secret %q at this moment: nothing is printed", secret.Name)
	case err != nil:
		return fmt.Errorf("delete the Secret %q, without which nothing is printed: %w", secret.Name, err)
	default:
		return nil
	}
}
