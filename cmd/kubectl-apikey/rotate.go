// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

// rotatedKind is the kind of a printed key that contains its new token. It cannot be applied.
const rotatedKind = "RotatedAPIKey"

type rotateOptions struct {
	overlapFlag duration
	overlap     *time.Duration // nil for that of the key
	force       bool
	timeout     time.Duration
	printOptions
}

func newRotateCommand(cluster *cluster) *cobra.Command {
	o := &rotateOptions{printOptions: newPrintOptions("rotated")}
	command := &cobra.Command{
		Use:        "rotate " + keyArgument,
		SuggestFor: []string{"renew", "replace", "regenerate", "roll"},
		Short:      "Give a key a new token",
		Long: `Give a key a new token. The app name, the access, the ID and the expiry of the key stay.

The former token stays accepted for the overlap, so that clients can change to the new one without interruption. After a leak, use
--overlap=0s: the former tokens are then refused at once.

If the controller generated the token, it generates the new one too, and writes it to the Secret of the key. Pods that mount the Secret get
the new token within about a minute. If the Secret was deleted, the controller creates it again. 'kubectl apikey reveal' prints the new
token once, and deletes the Secret.

Otherwise the command generates the new token on your machine, sends only its hash to the cluster, and prints the token once. An overlap
that is shorter than that of such a key also shortens the time for which its older tokens stay accepted.

If the key comes from a manifest, for instance in Git, which has the hash of the token, the next 'apply' would set the former token back.
The command then rotates nothing and fails. It prints a new token, and the fields to set in the manifest. With --force, it rotates the key
in the cluster, and you change the manifest afterwards.

To rotate a key on a schedule, set spec.rotation.interval: kubectl explain apikey.spec.rotation`,
		Example: `  # Rotate the token of an app. The former token is accepted for another day
  kubectl apikey rotate "Frontend App"

  # Write only the new token, to a file that only you can read
  (umask 077 && kubectl apikey rotate "Frontend App" -o jsonpath='{.token}' >token)

  # The token of the key partner has leaked: end it at once
  kubectl apikey rotate partner --overlap=0s

  # Give the clients of a key a week to get the new token from its Secret
  kubectl apikey rotate partner --overlap=7d`,
		Args:    exactlyOneKey,
		PreRunE: func(command *cobra.Command, _ []string) error { return o.complete(command.Flags()) },
		RunE:    cluster.run(o.run),
		ValidArgsFunction: cluster.completeKeys(func(key *v1alpha1.APIKey) bool {
			return apikey.IsIssued(key) && !apikey.IsRetired(key)
		}),
	}
	flags := command.Flags()
	flags.Var(&o.overlapFlag, "overlap",
		"Time for which the former token stays accepted, such as 0s, 1h or 7d. Default: that of the key, or 24h.")
	flags.Lookup("overlap").DefValue = "" // not 0s
	flags.BoolVar(&o.force, "force", false, "Rotate a key in the cluster although a manifest declares the hash of its token.")
	flags.DurationVar(&o.timeout, "timeout", 30*time.Second, "Maximum time to wait until the new token is accepted, and is in its Secret.")
	o.addFlags(command)
	return command
}

func (o *rotateOptions) complete(flags *pflag.FlagSet) error {
	if flags.Changed("overlap") {
		o.overlap = new(time.Duration(o.overlapFlag.Duration))
	}
	if o.timeout <= 0 {
		return errors.New("--timeout must be greater than 0, such as 30s")
	}
	return o.printOptions.complete(flags)
}

func (o *rotateOptions) run(ctx context.Context, s *session, args []string) error {
	keys, err := s.find(ctx, args...)
	if err != nil {
		return err
	}
	key := keys[0]
	declaredBy := keyclient.HashDeclaredBy(key)
	if key.Spec.TokenHash != "" {
		if err := o.checkTokenIsPrinted(s, key); err != nil {
			return fmt.Errorf("rotate APIKey %q: %w", key.Name, err)
		}
	}
	if declaredBy != "" && !o.force && !apikey.IsRetired(key) {
		return o.printFields(s, key, declaredBy)
	}
	signal.Ignore(syscall.SIGPIPE) // a closed pipe would end the process before printOrUndo declares the former token again
	rotated, err := o.rotate(ctx, s, key)
	if err == nil {
		err = o.printOrUndo(ctx, s, rotated)
	}
	if err != nil {
		return err
	}
	return o.printAdvice(s, rotated, declaredBy)
}

// checkTokenIsPrinted returns an error if the output would lose the new token of a key.
func (o *rotateOptions) checkTokenIsPrinted(s *session, key *v1alpha1.APIKey) error {
	if err := checkNotClosed(s.out); err != nil || o.printer == nil {
		return err
	}
	sample, plaintext := key.DeepCopy(), token.New()
	sample.Spec.TokenHash, sample.Spec.TokenHint = token.Hash(plaintext), token.Hint(plaintext)
	sample.Status.Tokens = append([]v1alpha1.TokenRecord{
		{Hash: sample.Spec.TokenHash, Hint: sample.Spec.TokenHint, NotBefore: new(metav1.Now())},
	}, sample.Status.Tokens...)
	return checkTokenIsPrinted(o.flags, printedKey{key: sample, token: plaintext, kindWithToken: rotatedKind})
}

// printFields prints a new token, and the fields that declare it in the manifest of a key. It always returns an error, because the key is
// not rotated.
func (o *rotateOptions) printFields(s *session, key *v1alpha1.APIKey, declaredBy string) error {
	if o.printer != nil {
		return fmt.Errorf("APIKey %q is not rotated, because %s would set the former token back: omit --output to print the fields for its "+
			"manifest, or use --force", key.Name, declaredBy)
	}
	plaintext := token.New()
	spec := map[string]any{"tokenHash": token.Hash(plaintext), "tokenHint": token.Hint(plaintext)}
	if o.overlap != nil {
		spec["rotation"] = map[string]any{"overlap": metav1.Duration{Duration: *o.overlap}}
	}
	fields, err := yaml.Marshal(map[string]any{"spec": spec})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "Set these fields in the manifest of APIKey %q:\n\n%s\n"+
		"When the manifest is applied, this token is accepted:\n\n  %s\n\n", key.Name, fields, plaintext)
	if err != nil {
		return fmt.Errorf("printing the new token failed: %w", err)
	}
	return fmt.Errorf("APIKey %q is not rotated, because %s would set the former token back: save the token, and change the manifest as "+
		"printed above, or use --force", key.Name, declaredBy)
}

func (o *rotateOptions) rotate(ctx context.Context, s *session, key *v1alpha1.APIKey) (*keyclient.RotateResult, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	return keyclient.Rotate(ctx, s, key, keyclient.RotateOptions{Overlap: o.overlap, Now: s.now})
}

// printOrUndo prints a rotated key. If that fails, it undoes the rotation, unless the new token is in a Secret.
func (o *rotateOptions) printOrUndo(ctx context.Context, s *session, rotated *keyclient.RotateResult) error {
	err := o.print(s, rotated)
	switch {
	case err == nil:
		return nil
	case rotated.Token == "":
		return fmt.Errorf("APIKey %q has a new token, but printing the key failed: %w", rotated.Key.Name, err)
	default:
		return errors.Join(fmt.Errorf("APIKey %q is not rotated: printing its new token failed: %w", rotated.Key.Name, err),
			keyclient.UndoRotation(ctx, s, rotated))
	}
}

func (o *rotateOptions) print(s *session, rotated *keyclient.RotateResult) error {
	if o.printer != nil {
		return printedKey{key: rotated.Key, token: rotated.Token, kindWithToken: rotatedKind}.print(o.printer, s.out)
	}
	headline := "Token rotated successfully! The former token has ended."
	if rotated.Until != nil {
		headline = fmt.Sprintf("Token rotated successfully! The former token is accepted until %s.", timestamp(*rotated.Until))
	}
	handover := [2]string{"Token", rotated.Token}
	if rotated.Token == "" {
		handover = [2]string{"Secret", rotated.Key.Status.SecretName}
	}
	return printDetails(s.out, headline, rotated.Key, handover)
}

// printAdvice prints what the user must do after a rotation.
func (o *rotateOptions) printAdvice(s *session, rotated *keyclient.RotateResult, declaredBy string) error {
	key := rotated.Key
	advice := "Save the token now: it is shown only once and stored nowhere else."
	if rotated.Token == "" {
		advice = fmt.Sprintf("Pods that use the Secret get the new token from it. If no pod uses it, print the token, once, which deletes the "+
			"Secret: kubectl apikey reveal %s -n %s", key.Name, key.Namespace)
	}
	if declaredBy != "" {
		advice += fmt.Sprintf("\nSet tokenHash: %s and tokenHint: %s in the manifest of the key too: %s would set the former token back.",
			key.Spec.TokenHash, key.Spec.TokenHint, declaredBy)
	}
	if o.overlap != nil && rotated.Token != "" && apikey.OverlapOf(key) == *o.overlap {
		advice += fmt.Sprintf("\nThe overlap stays %s for later rotations too, unless you set spec.rotation.overlap.", *o.overlap)
	}
	_, err := fmt.Fprintf(s.errOut, "\n%s\n", advice)
	return err
}
