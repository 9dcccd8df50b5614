// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

// Values of --dry-run, as in kubectl.
const (
	dryRunNone   = "none"
	dryRunClient = "client"
	dryRunServer = "server"
)

// registerDryRun adds the flag --dry-run to a command.
func registerDryRun(command *cobra.Command, dryRun *string, usage string) {
	command.Flags().StringVar(dryRun, "dry-run", dryRunNone, usage)
	command.Flags().Lookup("dry-run").NoOptDefVal = dryRunClient
	completeFlag(command, "dry-run", dryRunNone, dryRunClient, dryRunServer)
}

func validateDryRun(dryRun string) error {
	if dryRun != dryRunNone && dryRunSuffixes[dryRun] == "" {
		return fmt.Errorf("--dry-run must be %s, %s or %s", dryRunNone, dryRunClient, dryRunServer)
	}
	return nil
}

// dryRunSuffixes are what kubectl prints behind an operation that a dry run has not made.
var dryRunSuffixes = map[string]string{dryRunClient: " (dry run)", dryRunServer: " (server dry run)"}

func (o *createOptions) completeDryRun() (err error) {
	if err := validateDryRun(o.dryRun); err != nil {
		return err
	}
	o.flags.NamePrintFlags.Operation = "created" + dryRunSuffixes[o.dryRun]
	o.printer, err = o.flags.ToPrinter()
	return err
}

// newKeyWithoutToken returns the APIKey of a dry run. The token of a key that is not created would be useless, and no client could use a
// key that is created with its hash.
func (o *createOptions) newKeyWithoutToken() *v1alpha1.APIKey {
	key, _ := keyclient.NewKey(o.key)
	key.Spec.TokenHash, key.Spec.TokenHint = "", ""
	key.Annotations = nil // they record a creation
	return key
}

// runOnClient prints the APIKey without a cluster. As in kubectl, the namespace is printed only if --namespace is set.
func (o *createOptions) runOnClient(cluster *cluster, out io.Writer) error {
	namespace, isSet, err := cluster.flags.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return err
	}
	if isSet {
		o.key.Namespace = namespace
	}
	manifest, err := toManifest(o.newKeyWithoutToken())
	if err != nil {
		return err
	}
	return o.printer.PrintObj(manifest, out)
}

// runOnServer prints the APIKey as the API server would create it.
func (o *createOptions) runOnServer(ctx context.Context, s *session) error {
	key := o.newKeyWithoutToken()
	if err := s.Create(ctx, key, client.DryRunAll); err != nil {
		return err
	}
	object, err := toUnstructured(key)
	if err != nil {
		return err
	}
	return o.printer.PrintObj(object, s.out)
}
