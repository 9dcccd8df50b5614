// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

type revealOptions struct{ waitOptions }

func newRevealCommand(cluster *cluster) *cobra.Command {
	o := &revealOptions{}
	command := &cobra.Command{
		Use:        "reveal " + keyArgument,
		SuggestFor: []string{"token", "read"},
		Short:      "Print the token of a key from its one-time Secret, and delete the Secret",
		Long: `Print the token that the controller has generated for a key.

The command deletes the one-time Secret before it prints the token: if several users run it, one of them gets the token. The token
cannot be printed again. During a rotation, the command waits for the new token.`,
		Example: `  # Print the token of the key partner
  kubectl apikey reveal partner

  # Write the token of an app to a file that only you can read
  (umask 077 && kubectl apikey reveal "Partner Portal" >token)`,
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
	if err := checkNotClosed(s.out); err != nil {
		return err
	}
	keys, err := s.find(ctx, args...)
	if err != nil {
		return err
	}
	key, err := o.waitUntilHandedOver(ctx, s, keys[0])
	if err != nil {
		return err
	}
	// Neither Ctrl-C nor a closed pipe may end the process between the deletion of the Secret and the output.
	signal.Ignore(syscall.SIGPIPE)
	ctx = context.WithoutCancel(ctx)
	taken, err := takeToken(ctx, s, key)
	if err != nil {
		return err
	}
	return printToken(ctx, s, key, taken)
}

// waitUntilHandedOver returns the key once the controller has handed over its newest token.
func (o *revealOptions) waitUntilHandedOver(ctx context.Context, s *session, key *v1alpha1.APIKey) (*v1alpha1.APIKey, error) {
	issued := apikey.IsIssued(key)
	switch {
	case key.Spec.TokenHash != "":
		return nil, fmt.Errorf("APIKey %q has no Secret, because the controller has not generated its token: ask the user who created "+
			"the key for the token, or rotate it: kubectl apikey rotate %s", key.Name, key.Name)
	case apikey.IsRetired(key):
		return nil, fmt.Errorf("APIKey %q has ended, and its token is not accepted: create another key", key.Name)
	case issued && (!o.wait || !apikey.IsRotationPending(key, s.now())):
		return key, nil
	case !o.wait:
		return nil, fmt.Errorf("APIKey %q is not issued yet: try again later, or omit --wait=false", key.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	if !issued {
		return keyclient.WaitUntilAccepted(ctx, s, key)
	}
	rotated, err := keyclient.WaitUntilRotated(ctx, s, key, s.now)
	if err != nil {
		return nil, fmt.Errorf("the token of APIKey %q is being rotated (to print the one in its Secret, use --wait=false): %w", key.Name, err)
	}
	return rotated, nil
}

// takenToken is a token with its one-time Secret, which is deleted.
type takenToken struct {
	token  string
	secret *corev1.Secret
	// shared is true if another user may have deleted the Secret and have the token.
	shared bool
}

const (
	deletionTimeout  = 10 * time.Second
	deletionAttempts = 4
)

// takeToken deletes the one-time Secret of a key, and returns the token that it held. Of concurrent calls, one succeeds. If the response to
// the deletion is lost and the Secret is gone, the call succeeds too, because the token is stored nowhere else.
func takeToken(ctx context.Context, s *session, key *v1alpha1.APIKey) (*takenToken, error) {
	var taken *takenToken
	responseLost := false
	backoff := wait.Backoff{Steps: deletionAttempts, Duration: 500 * time.Millisecond, Factor: 2}
	err := retry.OnError(backoff, mayRetry, func() error {
		ctx, cancel := context.WithTimeout(ctx, deletionTimeout)
		defer cancel()
		if responseLost {
			gone, err := isGone(ctx, s, taken.secret)
			if gone || err != nil {
				taken.shared = gone
				return err
			}
		}
		secret, token, err := readToken(ctx, s, key)
		if err != nil {
			return err
		}
		taken = &takenToken{token: token, secret: secret}
		err = s.Delete(ctx, secret, client.Preconditions{UID: &secret.UID, ResourceVersion: &secret.ResourceVersion})
		switch {
		case err == nil:
			return nil
		case apierrors.IsNotFound(err) && responseLost:
			taken.shared = true
			return nil
		case apierrors.IsNotFound(err):
			return fmt.Errorf("another user has deleted the Secret %q at the same time, so the token is not printed", secret.Name)
		default:
			responseLost = responseLost || !isResponse(err)
			return fmt.Errorf("the token is not printed, because the Secret %q could not be deleted; run the command again: %w", secret.Name, err)
		}
	})
	return taken, err
}

// mayRetry reports whether another attempt to delete a Secret may succeed. A conflict means that the Secret was changed.
func mayRetry(err error) bool { return apierrors.IsConflict(err) || !isResponse(err) }

// isResponse reports whether an error is the decision of the API server, as opposed to a lost response or a failure of a server.
func isResponse(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		var failed *url.Error
		return !errors.As(err, &failed)
	}
	code := status.Status().Code
	return code < http.StatusInternalServerError && code != http.StatusTooManyRequests
}

// isGone reports whether a Secret is deleted, even if another one has its name.
func isGone(ctx context.Context, s *session, secret *corev1.Secret) (bool, error) {
	current := &corev1.Secret{}
	err := s.Get(ctx, client.ObjectKeyFromObject(secret), current)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	return err == nil && (current.UID != secret.UID || current.DeletionTimestamp != nil), err
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
	switch {
	case !ok:
		return nil, "", fmt.Errorf("the Secret %q does not contain the token of APIKey %q: another party has changed it; if no client has "+
			"the token, delete the Secret and rotate the key", secret.Name, key.Name)
	case apikey.RecordIn(key, secret).NotAfter != nil:
		return nil, "", fmt.Errorf("the Secret %q contains a superseded token of APIKey %q: another party has changed it; rotate the key",
			secret.Name, key.Name)
	default:
		return secret, token, nil
	}
}

func errNoSecret(key *v1alpha1.APIKey) error {
	return fmt.Errorf("the token of APIKey %q was already revealed, or the ttl of its Secret has passed; if no client has the token, "+
		"rotate it: kubectl apikey rotate %s", key.Name, key.Name)
}

// printToken prints a token. If that fails, it creates the Secret again.
func printToken(ctx context.Context, s *session, key *v1alpha1.APIKey, taken *takenToken) error {
	if _, err := fmt.Fprintln(s.out, taken.token); err != nil {
		return errors.Join(fmt.Errorf("printing the token failed: %w", err), restoreSecret(ctx, s, key, taken.secret))
	}
	advice := fmt.Sprintf("Save the token now: it was shown only once. Its Secret %q is deleted.", taken.secret.Name)
	if taken.shared {
		advice += fmt.Sprintf("\nThe response to the deletion was lost. Another user may have deleted the Secret and have the token too: if you "+
			"cannot exclude that, end it: kubectl apikey rotate %s --overlap=0s", key.Name)
	}
	_, err := fmt.Fprintf(s.errOut, "\n%s\n", advice)
	return err
}

// restoreSecret creates a deleted Secret again. It always returns an error, which contains the next step.
func restoreSecret(ctx context.Context, s *session, key *v1alpha1.APIKey, secret *corev1.Secret) error {
	ctx, cancel := context.WithTimeout(ctx, deletionTimeout)
	defer cancel()
	err := s.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: secret.Namespace, Name: secret.Name,
			Labels: secret.Labels, Annotations: secret.Annotations, OwnerReferences: secret.OwnerReferences,
		},
		Type:      secret.Type,
		Immutable: secret.Immutable,
		Data:      secret.Data,
	})
	if err != nil {
		return fmt.Errorf("the Secret %q is deleted and could not be created again; rotate APIKey %q: %w", secret.Name, key.Name, err)
	}
	return fmt.Errorf("the Secret %q was created again: run the command again", secret.Name)
}
