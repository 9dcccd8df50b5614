// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// usageTemplate is that of cobra without the connection flags, which 'kubectl apikey options' prints, as in kubectl.
const usageTemplate = `Usage:
{{- if .HasAvailableSubCommands}}
  {{.CommandPath}} COMMAND [flags]

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}
{{- else}}
  {{.UseLine}}
{{- end}}
{{- if .HasExample}}

Examples:
{{.Example}}
{{- end}}
{{- if .LocalNonPersistentFlags.HasAvailableFlags}}

Flags:
{{.LocalNonPersistentFlags.FlagUsages | trimTrailingWhitespaces}}
{{- end}}

{{if .HasAvailableSubCommands -}}
Use "{{.CommandPath}} COMMAND --help" for the flags of a command.
{{end -}}
Use "{{.Root.CommandPath}} options" for the flags of all commands, such as --namespace (-n) and --context.
`

// newOptionsCommand returns the command that prints the flags of all commands.
func newOptionsCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "options",
		Short:             "Print the flags of all commands",
		Long:              "Print the flags of all commands. They select the cluster, the namespace and the credentials, as in kubectl.",
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(command *cobra.Command, _ []string) error {
			_, err := command.OutOrStdout().Write([]byte(command.InheritedFlags().FlagUsages()))
			return err
		},
	}
}

// describeOutputFlags replaces kubectl's descriptions of the flags that select the output.
func describeOutputFlags(command *cobra.Command, formats []string, defaultOutput string) {
	for flag, usage := range map[string]string{
		"output":                      "Output format: " + strings.Join(formats, ", ") + ". Default: " + defaultOutput + ".",
		"template":                    "Template for -o=go-template, or its file for -o=go-template-file.",
		"allow-missing-template-keys": "Ignore fields of a template that do not exist.",
		"show-managed-fields":         "Print the managed fields with -o=json and -o=yaml.",
	} {
		command.Flag(flag).Usage = usage
	}
}
