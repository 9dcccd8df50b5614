// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

// createdKind is the kind of what is printed of a key with its token: like an APIKey, but nobody can apply it.
const createdKind = "CreatedAPIKey"

// create makes a key: with a token minted here, or by the controller.
type create struct {
	creation  keyclient.CreateOptions
	expiresAt string
	expiresIn model.Duration
	manager   bool

	bySecret  bool
	secret    v1alpha1.TokenSecret
	secretTTL model.Duration

	waiting
	output  *genericclioptions.PrintFlags
	printer printers.ResourcePrinter // nil prints text
}

// waiting says whether to wait for a key to be accepted, and for how long.
type waiting struct {
	wait    bool
	timeout time.Duration
}

func (w *waiting) register(flags *pflag.FlagSet, forWhat string) {
	flags.BoolVar(&w.wait, "wait", true, "Wait until "+forWhat+".")
	flags.DurationVar(&w.timeout, "timeout", 10*time.Second, "How long to wait.")
}

func (w *waiting) validate() error {
	if w.timeout <= 0 {
		return errors.New("--timeout must be longer than 0, such as 10s; to not wait at all give --wait=false")
	}
	return nil
}

func newCreateCommand(cluster *cluster) *cobra.Command {
	c := &create{output: genericclioptions.NewPrintFlags("created")}
	command := &cobra.Command{
		Use:   "create APP_NAME [-r] [-w]",
		Short: "Create a key and print its token",
		Long: `Create a key for an app and print its token, once: nobody keeps it.

The token is made on this machine, and only its hash is sent to the cluster. With --secret the controller makes it and hands it over in
a Secret, which 'kubectl apikey reveal' prints once.`,
		Example: `  # A key that may only read
  kubectl apikey create "Frontend App" -r

  # A key that may read and write, for 30 days
  kubectl apikey create CI-Pipeline -r -w --expires-in=30d

  # A key that may create and end others by the console of the namespace
  kubectl apikey create "Key administration" -r -w --manager

  # Nothing but the token
  kubectl apikey create "Nightly Job" -w -o jsonpath='{.token}'

  # The token stays in the cluster, in the Secret partner-token, for an hour at most
  kubectl apikey create Partner -r --secret-name=partner-token --secret-ttl=1h`,
		Args: oneAppName,
		PreRunE: func(command *cobra.Command, args []string) error {
			c.creation.AppName = args[0]
			return c.complete(command.Flags())
		},
		RunE:              cluster.run(c.run),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := command.Flags()
	flags.BoolVarP(&c.creation.ReadAccess, "read", "r", false, "Allow requests that only read: GET, HEAD, OPTIONS and WebSockets.")
	flags.BoolVarP(&c.creation.WriteAccess, "write", "w", false, "Allow all other requests.")
	flags.BoolVar(&c.manager, "manager", false,
		"Let the key create and end others by the console (label "+v1alpha1.LabelManager+"=true).")
	flags.StringVar(&c.expiresAt, "expires-at", "", "When the key expires, such as 2027-06-01T00:00:00Z.")
	flags.Var(&c.expiresIn, "expires-in", "After how long the key expires, such as 12h, 30d or 1y.")
	flags.BoolVar(&c.bySecret, "secret", false,
		"Let the controller make the token and hand it over in a Secret. The other --secret flags imply it.")
	flags.StringVar(&c.secret.Name, "secret-name", "", "Name of that Secret. Default: the key's name and -token.")
	flags.StringVar(&c.secret.Key, "secret-key", "", "Entry of that Secret that holds the token. Default: token.")
	flags.Var(&c.secretTTL, "secret-ttl", "How long that Secret stays, at least 1m. Default: as long as the key is active.")
	for _, name := range []string{"expires-in", "secret-ttl"} {
		flags.Lookup(name).DefValue = "" // 0s means that there is none
	}
	command.MarkFlagsMutuallyExclusive("expires-at", "expires-in")
	c.register(flags, "the key is accepted. A key that is not, because of a conflict or in time, is removed again")
	c.output.AddFlags(command)
	return command
}

func oneAppName(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf(`give one app name, in quotes if it has spaces: kubectl apikey create "Frontend App" -r`)
	}
	return nil
}

// complete checks the flags, and takes from them what to create and how to print it. A key that could not be printed must not be made.
func (c *create) complete(flags *pflag.FlagSet) error {
	if !c.creation.ReadAccess && !c.creation.WriteAccess {
		return errors.New("give at least one of --read (-r) and --write (-w)")
	}
	if c.manager && !c.creation.WriteAccess {
		return errors.New("a key that manages others needs write access: give --write (-w) beside --manager")
	}
	if err := c.validate(); err != nil {
		return err
	}
	if c.manager {
		c.creation.Labels = map[string]string{v1alpha1.LabelManager: "true"}
	}
	if c.bySecret || flags.Changed("secret-name") || flags.Changed("secret-key") || flags.Changed("secret-ttl") {
		c.creation.Secret = &c.secret
	}
	if flags.Changed("secret-ttl") {
		c.secret.TTL = &metav1.Duration{Duration: time.Duration(c.secretTTL)}
	}
	if err := c.completeExpiry(flags, time.Now()); err != nil {
		return err
	}
	return c.completeOutput(flags)
}

func (c *create) completeExpiry(flags *pflag.FlagSet, now time.Time) error {
	var at time.Time
	switch {
	case flags.Changed("expires-in"):
		at = now.Add(time.Duration(c.expiresIn)).Truncate(time.Second)
	case flags.Changed("expires-at"):
		var err error
		if at, err = time.Parse(time.RFC3339, c.expiresAt); err != nil {
			return fmt.Errorf("--expires-at=%q is no date and time: give one such as 2027-06-01T00:00:00Z", c.expiresAt)
		}
	default:
		return nil
	}
	if !at.After(now) {
		return errors.New("the key would be expired from the start: give a time in the future")
	}
	c.creation.ExpiresAt = new(metav1.NewTime(at))
	return nil
}

func (c *create) completeOutput(flags *pflag.FlagSet) (err error) {
	if !flags.Changed("output") && !flags.Changed("template") {
		return nil
	}
	if c.printer, err = c.output.ToPrinter(); err != nil || c.creation.Secret != nil {
		return err
	}
	return c.checkTokenIsPrinted()
}

var errTokenNotPrinted = errors.New("this --output would lose the token: choose one that prints it whole, such as jsonpath={.token}, " +
	"or give --secret")

// checkTokenIsPrinted prints what the new key will look like, and looks for the token in it.
func (c *create) checkTokenIsPrinted() error {
	printer, err := c.output.ToPrinter() // not the one of the new key: printers of YAML separate what they print from what they printed before
	if err != nil {
		return err
	}
	specimen := c.specimen()
	var text strings.Builder
	if err := printObject(printer, &text, specimen); err != nil {
		return err
	}
	if !strings.Contains(text.String(), specimen.Token) {
		return errTokenNotPrinted
	}
	return nil
}

// specimen is like what will be created, as far as it can be known.
func (c *create) specimen() *keyclient.CreateResult {
	now, plaintext := metav1.Now(), token.New()
	hash, hint := token.Hash(plaintext), token.Hint(plaintext)
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "namespace", Name: "name", UID: uuid.NewUUID(), ResourceVersion: "1", Generation: 1, CreationTimestamp: now,
		},
		Spec: v1alpha1.APIKeySpec{
			AppName: c.creation.AppName, ReadAccess: c.creation.ReadAccess, WriteAccess: c.creation.WriteAccess, Active: new(true),
			ExpiresAt: c.creation.ExpiresAt, TokenHash: hash, TokenHint: hint,
		},
	}
	if c.wait {
		key.Status = v1alpha1.APIKeyStatus{
			ObservedGeneration: 1,
			Tokens:             []v1alpha1.TokenRecord{{Hash: hash, Hint: hint, NotBefore: &now}},
			Conditions: []metav1.Condition{
				{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonIssued},
				{Type: v1alpha1.ConditionActive, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonIssued},
			},
		}
	}
	return &keyclient.CreateResult{Key: key, Token: plaintext}
}

func (c *create) run(ctx context.Context, s *session, _ []string) error {
	c.creation.Namespace = s.namespace
	created, err := c.create(ctx, s)
	if err == nil {
		err = c.printOrRemove(ctx, s, created)
	}
	if err != nil {
		if remains := (*keyclient.CleanupError)(nil); errors.As(err, &remains) {
			return err
		}
		return fmt.Errorf("no key was created: %w", err)
	}
	advice := "Save the token now: it is shown only once, and nobody keeps it."
	if created.Token == "" {
		advice = fmt.Sprintf("To print the token, once: kubectl apikey reveal %s -n %s", created.Key.Name, created.Key.Namespace)
	}
	_, err = fmt.Fprintf(s.errOut, "\n%s\n", advice)
	return err
}

func (c *create) create(ctx context.Context, s *session) (*keyclient.CreateResult, error) {
	if !c.wait {
		return keyclient.CreateNoWait(ctx, s, c.creation)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return keyclient.Create(ctx, s, c.creation)
}

// printOrRemove prints the key, or leaves nothing of it: nobody would have its token.
func (c *create) printOrRemove(ctx context.Context, s *session, created *keyclient.CreateResult) error {
	if err := c.print(s, created); err != nil {
		return errors.Join(fmt.Errorf("it could not be printed: %w", err), keyclient.Remove(ctx, s, created.Key))
	}
	return nil
}

func (c *create) print(s *session, created *keyclient.CreateResult) error {
	if c.printer != nil {
		return printObject(c.printer, s.out, created)
	}
	headline := "API Key created successfully!"
	if !c.wait {
		headline = "API Key declared. It is not known yet whether it will be accepted."
	}
	var handover [][2]string
	switch {
	case created.Token != "":
		handover = [][2]string{{"Token", created.Token}}
	case created.Key.Status.SecretName != "":
		handover = [][2]string{{"Secret", created.Key.Status.SecretName}}
	}
	return printFacts(s.out, headline, created.Key, handover...)
}

func printObject(printer printers.ResourcePrinter, out io.Writer, created *keyclient.CreateResult) error {
	object, err := objectOf(created.Key)
	if err != nil {
		return err
	}
	if created.Token != "" {
		object.SetKind(createdKind)
		object.Object["token"] = created.Token
	}
	return printer.PrintObj(object, out)
}
