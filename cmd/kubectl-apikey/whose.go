// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

type whoseOptions struct {
	allNamespaces bool
	endKeys       bool
	deactivateOptions
}

func newWhoseCommand(cluster *cluster) *cobra.Command {
	o := &whoseOptions{deactivateOptions: deactivateOptions{newPrintOptions("deactivated")}}
	command := &cobra.Command{
		Use:        "whose",
		SuggestFor: []string{"find", "identify", "lookup", "who", "whois"},
		Short:      "Find the key of a token",
		Long: `Find the key of a token, for instance of one that has leaked. The command reads the token from the terminal without showing it, or
from a pipe, and never as an argument. White space around the token, and "Bearer " before it, do not matter.

The token stays on your machine. The command compares its SHA-256 with the hashes of all tokens on record, superseded ones and those of
ended keys included. Without --namespace, it searches all namespaces. It prints the last use of the token, not of the key.

A key that was deleted, and a superseded token that has ended, leave no record. If no key has the token, the exit code is 1.`,
		Example: `  # Enter a token, and print the key that it belongs to
  kubectl apikey whose

  # Read the token from a file
  kubectl apikey whose <leaked.token

  # End the key of a token at once
  kubectl apikey whose --deactivate <leaked.token

  # End the token, and keep the key
  kubectl apikey whose -n shop -o name <leaked.token | xargs kubectl apikey rotate -n shop --overlap=0s`,
		Args:              noTokenArgument,
		PreRunE:           func(command *cobra.Command, _ []string) error { return o.complete(command, cluster) },
		RunE:              cluster.run(o.run),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	command.Flags().BoolVar(&o.endKeys, "deactivate", false,
		"Deactivate each key that has the token. To end the token alone, use 'kubectl apikey rotate' with --overlap=0s instead.")
	o.addFlags(command)
	return command
}

// noTokenArgument refuses arguments, and does not repeat them.
func noTokenArgument(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return errors.New("a token must not be an argument, because the history of your shell and the list of processes would show it: " +
			"enter it at the prompt, or pipe it to the command")
	}
	return nil
}

func (o *whoseOptions) complete(command *cobra.Command, cluster *cluster) error {
	if strings.HasPrefix(*cluster.flags.BearerToken, token.Prefix) {
		return errors.New("--token is a credential for the Kubernetes API, which would receive it: enter the token at the prompt, " +
			"or pipe it to the command")
	}
	o.allNamespaces = *cluster.flags.Namespace == ""
	return o.printOptions.complete(command.Flags())
}

func (o *whoseOptions) run(ctx context.Context, s *session, _ []string) error {
	plaintext, err := inputToken(ctx, s.input, s.errOut)
	if err != nil {
		return err
	}
	keys, err := s.keys(ctx, selectOptions{allNamespaces: o.allNamespaces, chunkSize: defaultChunkSize})
	if err != nil {
		return err
	}
	found := findToken(keys, token.Hash(plaintext))
	if len(found) == 0 {
		return o.errNoKey(s, plaintext)
	}
	var errs []error
	for _, f := range found {
		errs = append(errs, o.report(ctx, s.in(f.key.Namespace), f))
	}
	return errors.Join(errs...)
}

func (o *whoseOptions) errNoKey(s *session, plaintext string) error {
	where := "in any namespace"
	if !o.allNamespaces {
		where = fmt.Sprintf("in namespace %q", s.namespace)
	}
	advice := "check that the token is complete, and that --context selects its cluster"
	if strings.HasPrefix(plaintext, token.Prefix) && len(plaintext) != token.Length {
		advice = fmt.Sprintf("it has %d characters, and a generated token has %d", len(plaintext), token.Length)
	}
	return fmt.Errorf("no key %s has this token, without the white space around it: %s; a key that was deleted, and a superseded token that "+
		"has ended, leave no record", where, advice)
}

// foundToken is a token on record. The record is nil if a key only declares the hash of the token.
type foundToken struct {
	key    *v1alpha1.APIKey
	record *v1alpha1.TokenRecord
}

// findToken returns the keys that have the hash of a token on record or declare it.
func findToken(keys []*v1alpha1.APIKey, hash string) []foundToken {
	var found []foundToken
	for _, key := range keys {
		if record := apikey.RecordOf(key, hash); record != nil || key.Spec.TokenHash == hash {
			found = append(found, foundToken{key, record})
		}
	}
	return found
}

// state returns whether authenticators accept the token, and until when.
func (f foundToken) state(now time.Time) string {
	switch state := apikey.StateOf(f.key, now); {
	case state == apikey.StateUnreadable:
		return "not accepted, because fields of the key cannot be read"
	case state != apikey.StateActive && f.key.Status.DeactivatedAt != nil:
		return "ended at " + timestamp(f.key.Status.DeactivatedAt.Time)
	case state == apikey.StateExpired:
		return "ended at " + timestamp(f.key.Spec.ExpiresAt.Time)
	case state != apikey.StateActive:
		return "ended"
	case !f.isIssued():
		return fmt.Sprintf("not accepted (%s)", reason(f.key))
	case apikey.HasEnded(f.record, now):
		return "superseded, ended at " + timestamp(f.record.NotAfter.Time)
	case f.isSuperseded():
		return "superseded, accepted until " + timestamp(f.record.NotAfter.Time)
	default:
		return "active"
	}
}

func (f foundToken) isIssued() bool { return f.record != nil && f.record.NotBefore != nil }

func (f foundToken) isSuperseded() bool { return f.isIssued() && f.record.NotAfter != nil }

// isAccepted reports whether authenticators accept the token, or may accept it later.
func (f foundToken) isAccepted(now time.Time) bool {
	return apikey.StateOf(f.key, now) == apikey.StateActive && !(f.isSuperseded() && apikey.HasEnded(f.record, now))
}

// report prints a key that has the token. With --deactivate, it ends the key.
func (o *whoseOptions) report(ctx context.Context, s *session, f foundToken) error {
	ends := o.endKeys && !apikey.IsRetired(f.key)
	switch {
	case o.printer == nil:
		if err := printDetails(s.out, "API Key found", f.key, f.details(s.now())...); err != nil {
			return err
		}
	case !ends: // otherwise, the deactivated key is printed
		return printedKey{key: f.key}.print(o.printer, s.out)
	}
	switch {
	case ends:
		return o.end(ctx, s, f)
	case f.isAccepted(s.now()):
		_, err := fmt.Fprintf(s.errOut, "\n%s", f.advice())
		return err
	default:
		return nil
	}
}

func (f foundToken) details(now time.Time) [][2]string {
	hint, lastUsed := f.key.Spec.TokenHint, none
	if f.record != nil {
		hint, lastUsed = f.record.Hint, lastUse(f.record.LastUsedAt, now)
	}
	details := [][2]string{
		{"Namespace", f.key.Namespace},
		{"Token", f.state(now)},
		{"Hint", cmp.Or(hint, none)},
		{"Last Used", lastUsed},
		{"Managed By", cmp.Or(keyclient.DeclaredBy(f.key), none)},
	}
	if f.key.Labels[v1alpha1.LabelManager] == "true" {
		details = append(details, [2]string{"Manager", "it may create and deactivate other keys"})
	}
	return details
}

// advice returns the commands that end the token or its key.
func (f foundToken) advice() string {
	name := fmt.Sprintf("apikey/%s -n %s", f.key.Name, f.key.Namespace)
	end := "To end the key: kubectl apikey deactivate " + name + "\n"
	switch {
	case f.key.Labels[v1alpha1.LabelBootstrap] == "true":
		return "To replace the key: delete the key file of its console, and restart that console\n" + end
	case !apikey.IsIssued(f.key):
		return end
	}
	force := ""
	if keyclient.HashDeclaredBy(f.key) != "" {
		force = " --force"
	}
	return "To end the token and keep the key: kubectl apikey rotate " + name + " --overlap=0s" + force + "\n" + end
}

// end deactivates the key of a token.
func (o *whoseOptions) end(ctx context.Context, s *session, f foundToken) error {
	if err := o.deactivate(ctx, s, f.key); err != nil || !f.isSuperseded() {
		return err
	}
	_, err := fmt.Fprint(s.errOut,
		"\nThe key had a newer token. To end only a superseded token, use 'kubectl apikey rotate' with --overlap=0s.\n")
	return err
}
