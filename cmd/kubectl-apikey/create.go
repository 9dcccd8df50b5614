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
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

// createdKind is the kind of a printed key that contains its token. It cannot be applied.
const createdKind = "CreatedAPIKey"

type createOptions struct {
	key       keyclient.CreateOptions
	expiresAt string
	expiresIn duration
	labels    map[string]string
	manager   bool
	dryRun    string

	bySecret  bool
	secret    v1alpha1.TokenSecret
	secretTTL duration

	waitOptions
	printOptions
}

// waitOptions are the flags for the wait until a key is accepted.
type waitOptions struct {
	wait    bool
	timeout time.Duration
}

func (o *waitOptions) register(flags *pflag.FlagSet, condition string) {
	flags.BoolVar(&o.wait, "wait", true, "Wait until "+condition+".")
	flags.DurationVar(&o.timeout, "timeout", 10*time.Second, "Maximum time to wait.")
}

func (o *waitOptions) validate() error {
	if o.timeout <= 0 {
		return errors.New("--timeout must be greater than 0, such as 10s; to return at once, use --wait=false")
	}
	return nil
}

// printOptions are the flags for the output of a command that prints text by default.
type printOptions struct {
	flags   *genericclioptions.PrintFlags
	printer printers.ResourcePrinter // nil prints text
}

func newPrintOptions(operation string) printOptions {
	return printOptions{flags: genericclioptions.NewPrintFlags(operation)}
}

func (o *printOptions) addFlags(command *cobra.Command) {
	o.flags.AddFlags(command)
	describeOutputFlags(command, o.flags.AllowedFormats(), "text")
	completeFlag(command, "output", o.flags.AllowedFormats()...)
}

func (o *printOptions) complete(flags *pflag.FlagSet) (err error) {
	if flags.Changed("output") || flags.Changed("template") {
		o.printer, err = o.flags.ToPrinter()
	}
	return err
}

func newCreateCommand(cluster *cluster) *cobra.Command {
	o := &createOptions{printOptions: newPrintOptions("created")}
	command := &cobra.Command{
		Use:        "create APP_NAME [-r] [-w]",
		SuggestFor: []string{"add", "new", "issue", "mint"},
		Short:      "Create a key and print its token",
		Long: `Create a key for an app and print its token once.

The command generates the token on your machine and sends only its hash to the cluster. With --secret, the controller generates the
token and writes it to a Secret, from which 'kubectl apikey reveal' prints it once.

With --dry-run, the command creates no key and generates no token. It prints the APIKey that you can save and apply; the controller then
generates the token.`,
		Example: `  # Create a key with read access
  kubectl apikey create "Frontend App" -r

  # Create a key with read and write access that expires after 30 days
  kubectl apikey create CI-Pipeline -r -w --expires-in=30d

  # Create a key that may create and deactivate keys through the console of the namespace
  kubectl apikey create "Key administration" -r -w --manager

  # Write only the token, to a file that only you can read
  (umask 077 && kubectl apikey create "Nightly Job" -w -o jsonpath='{.token}' >token)

  # Leave the token in the Secret partner-token for at most one hour
  kubectl apikey create Partner -r --secret-name=partner-token --secret-ttl=1h

  # Write a manifest for Git
  kubectl apikey create Partner --name=partner -r --dry-run=client -o yaml >partner.yaml`,
		Args: exactlyOneAppName,
		PreRunE: func(command *cobra.Command, args []string) error {
			o.key.AppName = args[0]
			return o.complete(command.Flags())
		},
		RunE: func(command *cobra.Command, args []string) error {
			if o.dryRun == dryRunClient {
				return asFailure(o.runOnClient(cluster, command.OutOrStdout()))
			}
			return cluster.run(o.run)(command, args)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := command.Flags()
	flags.BoolVarP(&o.key.ReadAccess, "read", "r", false, "Allow GET, HEAD and OPTIONS requests, and WebSockets.")
	flags.BoolVarP(&o.key.WriteAccess, "write", "w", false, "Allow all other requests.")
	flags.StringVar(&o.key.Name, "name", "", "Name of the APIKey. Default: a name that begins like APP_NAME.")
	flags.StringToStringVarP(&o.labels, "labels", "l", nil, "`Labels` of the APIKey, such as team=blue,stage=test.")
	flags.BoolVar(&o.manager, "manager", false,
		"Allow the key to create and deactivate keys through the console (label "+v1alpha1.LabelManager+"=true). Requires --write.")
	flags.StringVar(&o.expiresAt, "expires-at", "", "Time at which the key expires, such as 2027-06-01T00:00:00Z.")
	flags.Var(&o.expiresIn, "expires-in", "Time until the key expires, such as 12h, 30d or 1y.")
	flags.BoolVar(&o.bySecret, "secret", false,
		"Let the controller generate the token and write it to a Secret. The other --secret flags imply this one.")
	flags.StringVar(&o.secret.Name, "secret-name", "", "Name of the Secret. Default: the name of the key, followed by -token.")
	flags.StringVar(&o.secret.Key, "secret-key", "", "Entry of the Secret that holds the token. Default: token.")
	flags.Var(&o.secretTTL, "secret-ttl", "Time after which the Secret is deleted, at least 1m. Default: when the key ends.")
	for _, name := range []string{"expires-in", "secret-ttl", "labels"} {
		flags.Lookup(name).DefValue = "" // not 0s or []
	}
	registerDryRun(command, &o.dryRun,
		"Print the APIKey without creating it: none, client or server. With server, the API server validates the APIKey.")
	o.register(flags, "the key is accepted. A key that is not accepted is deleted")
	o.addFlags(command)
	return command
}

func exactlyOneAppName(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return errors.New(`exactly one APP_NAME is required; quote a name with spaces: kubectl apikey create "Frontend App" -r`)
	}
	return nil
}

// complete validates the flags and derives the options from them. A key that could not be printed must not be created.
func (o *createOptions) complete(flags *pflag.FlagSet) error {
	switch {
	case !o.key.ReadAccess && !o.key.WriteAccess:
		return errors.New("--read (-r), --write (-w) or both are required")
	case o.manager && !o.key.WriteAccess:
		return errors.New("--manager requires --write (-w)")
	case flags.Changed("expires-at") && flags.Changed("expires-in"):
		return errors.New("--expires-at and --expires-in are mutually exclusive")
	}
	if err := o.validate(); err != nil {
		return err
	}
	if o.key.Labels = o.labels; o.manager {
		o.key.Labels = labels.Merge(o.labels, labels.Set{v1alpha1.LabelManager: "true"})
	}
	if o.bySecret || flags.Changed("secret-name") || flags.Changed("secret-key") || flags.Changed("secret-ttl") {
		o.key.Secret = &o.secret
	}
	if flags.Changed("secret-ttl") {
		o.secret.TTL = &metav1.Duration{Duration: time.Duration(o.secretTTL.Duration)}
	}
	if err := o.completeExpiry(flags, time.Now()); err != nil {
		return err
	}
	if o.dryRun != dryRunNone {
		return o.completeDryRun()
	}
	if err := o.printOptions.complete(flags); err != nil || o.printer == nil || o.key.Secret != nil {
		return err
	}
	return o.checkTokenIsPrinted()
}

func (o *createOptions) completeExpiry(flags *pflag.FlagSet, now time.Time) error {
	var at time.Time
	switch {
	case flags.Changed("expires-in"):
		at = now.Add(time.Duration(o.expiresIn.Duration)).Truncate(time.Second)
	case flags.Changed("expires-at"):
		var err error
		if at, err = time.Parse(time.RFC3339, o.expiresAt); err != nil {
			return fmt.Errorf("--expires-at=%q is not a date and time such as 2027-06-01T00:00:00Z", o.expiresAt)
		}
	default:
		return nil
	}
	if !at.After(now) {
		return errors.New("the expiry must be in the future")
	}
	o.key.ExpiresAt = new(metav1.NewTime(at))
	return nil
}

// checkTokenIsPrinted prints a sample key, and returns an error if the output does not contain its token.
func (o *createOptions) checkTokenIsPrinted() error {
	err := checkTokenIsPrinted(o.flags, o.printed(o.sample()))
	if errors.Is(err, errTokenNotPrinted) {
		err = fmt.Errorf("%w, or use --secret", err)
	}
	return err
}

// sample returns a key with the fields that the created key will have.
func (o *createOptions) sample() *keyclient.CreateResult {
	now, plaintext := metav1.Now(), token.New()
	hash, hint := token.Hash(plaintext), token.Hint(plaintext)
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "namespace", Name: "name", UID: uuid.NewUUID(), ResourceVersion: "1", Generation: 1, CreationTimestamp: now,
		},
		Spec: v1alpha1.APIKeySpec{
			AppName: o.key.AppName, ReadAccess: o.key.ReadAccess, WriteAccess: o.key.WriteAccess, Active: new(true),
			ExpiresAt: o.key.ExpiresAt, TokenHash: hash, TokenHint: hint,
		},
	}
	if o.wait {
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

func (o *createOptions) run(ctx context.Context, s *session, _ []string) error {
	o.key.Namespace = s.namespace
	if o.dryRun == dryRunServer {
		return o.runOnServer(ctx, s)
	}
	signal.Ignore(syscall.SIGPIPE) // a closed pipe would end the process before printOrDelete deletes the key
	var created *keyclient.CreateResult
	err := checkNotClosed(s.out)
	if err == nil {
		created, err = o.create(ctx, s)
	}
	if err == nil {
		err = o.printOrDelete(ctx, s, created)
	}
	if err != nil {
		if cleanup := (*keyclient.CleanupError)(nil); errors.As(err, &cleanup) {
			return err
		}
		return fmt.Errorf("no key was created: %w", err)
	}
	advice := "Save the token now: it is shown only once and stored nowhere else."
	if created.Token == "" {
		advice = fmt.Sprintf("To print the token, once: kubectl apikey reveal %s -n %s", created.Key.Name, created.Key.Namespace)
	}
	_, err = fmt.Fprintf(s.errOut, "\n%s\n", advice)
	return err
}

func (o *createOptions) create(ctx context.Context, s *session) (*keyclient.CreateResult, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	if err := keyclient.CheckAppName(ctx, s, s.namespace, o.key.AppName); err != nil {
		return nil, err
	}
	if !o.wait {
		return keyclient.CreateNoWait(ctx, s, o.key)
	}
	return keyclient.Create(ctx, s, o.key)
}

// printOrDelete prints a key. If that fails, it deletes the key, because the token is lost.
func (o *createOptions) printOrDelete(ctx context.Context, s *session, created *keyclient.CreateResult) error {
	if err := o.print(s, created); err != nil {
		return errors.Join(fmt.Errorf("printing it failed: %w", err), keyclient.Delete(ctx, s, created.Key))
	}
	return nil
}

func (o *createOptions) print(s *session, created *keyclient.CreateResult) error {
	if o.printer != nil {
		return o.printed(created).print(o.printer, s.out)
	}
	headline := "API Key created successfully!"
	if !o.wait {
		headline = "API Key created. The controller has not accepted it yet."
	}
	var handover [][2]string
	switch {
	case created.Token != "":
		handover = [][2]string{{"Token", created.Token}}
	case created.Key.Status.SecretName != "":
		handover = [][2]string{{"Secret", created.Key.Status.SecretName}}
	}
	return printDetails(s.out, headline, created.Key, handover...)
}

func (o *createOptions) printed(created *keyclient.CreateResult) printedKey {
	return printedKey{key: created.Key, token: created.Token, kindWithToken: createdKind}
}
