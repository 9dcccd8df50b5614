// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// completeKeys completes the names of the keys that fit, each with its app name as description. It completes app names when the first
// characters of one are given.
func (c *cluster) completeKeys(fits func(*v1alpha1.APIKey) bool) cobra.CompletionFunc {
	return func(command *cobra.Command, given []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		s, err := c.connect(command)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		keys, err := s.keys(command.Context(), selectOptions{chunkSize: defaultChunkSize})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var completions []cobra.Completion
		for _, key := range keys {
			switch {
			case !fits(key) || slices.Contains(given, key.Name) || slices.Contains(given, key.Spec.AppName):
			case strings.HasPrefix(key.Name, prefix):
				completions = append(completions, cobra.CompletionWithDesc(key.Name, key.Spec.AppName))
			case strings.HasPrefix(key.Spec.AppName, prefix):
				completions = append(completions, key.Spec.AppName)
			}
		}
		slices.Sort(completions)
		return completions, cobra.ShellCompDirectiveNoFileComp
	}
}

// registerCompletions registers the completion of the connection flags.
func (c *cluster) registerCompletions(root *cobra.Command) {
	mustRegister(root, "namespace", c.completeNamespaces)
	mustRegister(root, "context", c.completeFromKubeconfig(func(config *clientcmdapi.Config) []string { return names(config.Contexts) }))
	mustRegister(root, "cluster", c.completeFromKubeconfig(func(config *clientcmdapi.Config) []string { return names(config.Clusters) }))
	mustRegister(root, "user", c.completeFromKubeconfig(func(config *clientcmdapi.Config) []string { return names(config.AuthInfos) }))
}

func (c *cluster) completeNamespaces(command *cobra.Command, _ []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
	s, err := c.connect(command)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	namespaces := &metav1.PartialObjectMetadataList{}
	namespaces.SetGroupVersionKind(namespaceKind.GroupVersion().WithKind(namespaceKind.Kind + "List"))
	if err := s.List(command.Context(), namespaces); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var all []string
	for i := range namespaces.Items {
		all = append(all, namespaces.Items[i].Name)
	}
	return withPrefix(all, prefix), cobra.ShellCompDirectiveNoFileComp
}

func (c *cluster) completeFromKubeconfig(namesIn func(*clientcmdapi.Config) []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		config, err := c.flags.ToRawKubeConfigLoader().RawConfig()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return withPrefix(namesIn(&config), prefix), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFlag completes a flag with these values.
func completeFlag(command *cobra.Command, flag string, values ...string) {
	mustRegister(command, flag, func(_ *cobra.Command, _ []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return withPrefix(slices.Clone(values), prefix), cobra.ShellCompDirectiveNoFileComp
	})
}

func mustRegister(command *cobra.Command, flag string, complete cobra.CompletionFunc) {
	if err := command.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // the flag does not exist
	}
}

func names[V any](byName map[string]V) []string { return slices.Sorted(maps.Keys(byName)) }

func withPrefix(all []string, prefix string) []cobra.Completion {
	return slices.DeleteFunc(all, func(name string) bool { return !strings.HasPrefix(name, prefix) })
}
