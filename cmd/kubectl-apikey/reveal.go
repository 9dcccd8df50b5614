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

type revealOptions struct{ waitOptions }

func newRevealCommand(cluster *cluster) *cobra.Command {
	o := &revealOptions{}
	command := &cobra.Command{
		Use:   "reveal " + keyArgument,
		Short: "Print the token of a key from its one-time Secret, and delete the Secret",
		Long: `Print the token that the controller has generated for a key.

The command deletes the one-time Secret before it prints the token: if several users run it, one of them gets the token. The token
cannot be printed again.`,
		Example: `  # Print the token of the key partner
  kubectl apikey reveal partner`,
		Args:    exactlyOneKey,
		PreRunE: func(*cobra.Command, []string) error { return o.validate() },
		RunE:    cluster.run(o.run),
		ValidArgsFunction: cluster.completeKeys(func(key *v1alpha1.APIKey) bool {
			return key.Spec.TokenHash == "" && !apikey.IsRetired(key)
		}),
	}
	o.register(command.Flags(), "the controller has written the Secret")
	return command
}

func (o *revealOptions) run(ctx context.Context, s *session, args []string) error {
	keys, err := s.find(ctx, args...)
	if err != nil {
		return err
	}
	key, err := o.waitUntilIssued(ctx, s, keys[0])
	if err != nil {
		return err
	}
	secret, token, err := readToken(ctx, s, key)
	if err != nil {
		return err
	}
	if err := deleteSecret(ctx, s, secret); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(s.out, token); err != nil {
		return fmt.Errorf("the Secret is deleted, but printing the token failed; deactivate APIKey %q and create another key: %w", key.Name, err)
	}
	_, err = fmt.Fprintf(s.errOut, "\nSave the token now: it was shown only once. Its Secret %q is deleted.\n", secret.Name)
	return err
}

// waitUntilIssued returns the key once the controller has handed over its token.
func (o *revealOptions) waitUntilIssued(ctx context.Context, s *session, key *v1alpha1.APIKey) (*v1alpha1.APIKey, error) {
	switch {
	case key.Spec.TokenHash != "":
		return nil, fmt.Errorf("APIKey %q has no Secret, because the controller has not generated its token: ask the user who created "+
			"the key for the token", key.Name)
	case apikey.IsRetired(key):
		return nil, fmt.Errorf("APIKey %q has ended, and its token is not accepted: create another key", key.Name)
	case apikey.IsIssued(key):
		return key, nil
	case !o.wait:
		return nil, fmt.Errorf("APIKey %q is not issued yet: try again later, or omit --wait=false", key.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	return keyclient.WaitUntilAccepted(ctx, s, key)
}

// readToken returns the one-time Secret of a key and the token in it.
func readToken(ctx context.Context, s *session, key *v1alpha1.APIKey) (secret *corev1.Secret, token string, err error) {
	if key.Status.SecretName == "" {
		return nil, "", errNoSecret(key)
	}
	secret = &corev1.Secret{}
	err = s.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: key.Status.SecretName}, secret)
	if apierrors.IsNotFound(err) || (err == nil && secret.DeletionTimestamp != nil) {
		return nil, "", errNoSecret(key)
	}
	if err != nil {
		return nil, "", err
	}
	token, ok := apikey.TokenIn(key, secret)
	if !ok {
		return nil, "", fmt.Errorf("the Secret %q does not contain the token of APIKey %q: another party has changed it; if no client has "+
			"the token, deactivate the key and create another", secret.Name, key.Name)
	}
	return secret, token, nil
}

func errNoSecret(key *v1alpha1.APIKey) error {
	return fmt.Errorf("the token of APIKey %q was already revealed, or the ttl of its Secret has passed; if no client has the token, "+
		"deactivate the key and create another", key.Name)
}

// deleteSecret deletes the Secret as it was read. Of concurrent calls, one succeeds.
func deleteSecret(ctx context.Context, s *session, secret *corev1.Secret) error {
	err := s.Delete(ctx, secret, client.Preconditions{UID: &secret.UID, ResourceVersion: &secret.ResourceVersion})
	switch {
	case apierrors.IsNotFound(err) || apierrors.IsConflict(err):
		return fmt.Errorf("another user has deleted or changed the Secret %q at the same time, so the token is not printed", secret.Name)
	case err != nil:
		return fmt.Errorf("the token is not printed, because deleting the Secret %q failed: %w", secret.Name, err)
	default:
		return nil
	}
}
