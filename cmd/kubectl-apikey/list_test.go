// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
)

func TestList_PrintsTheFormatsOfKubectl(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.types("list", "-o", "json")
	terminal.run("create", "Frontend App", "-r")
	terminal.types("list", "-o", "json")
	terminal.types("list", "-o", "yaml")
	terminal.types("list", "-o", "name")
	terminal.types("list", "-o", "jsonpath={.items[*].spec.appName}")
	terminal.types("list", "-o", "custom-columns=NAME:.metadata.name")
	terminal.types("deactivate", terminal.key("Frontend App").Name, "-o", "name")
	terminal.assertGolden()
}

func TestList_AllNamespacesShowsTheNamespace(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.run("create", "Frontend App", "-r")
	key := terminal.key("Frontend App")
	got := terminal.run("list", "-A")
	if !strings.HasPrefix(got.stdout, "NAMESPACE ") || !strings.Contains(got.stdout, "\n"+terminal.namespace+"   "+string(key.UID)) {
		t.Errorf("the list is:\n%s", got.stdout)
	}
}

func TestList_SelectsAndSortsAsKubectlDoes(t *testing.T) {
	terminal := newTerminal(t)
	for name, team := range map[string]string{"a": "red", "b": "blue", "c": "red"} {
		terminal.apply(name, func(key *v1alpha1.APIKey) { key.Labels = map[string]string{"team": team} })
	}
	custom := "custom-columns=NAME:.metadata.name,APP:.spec.appName,HOLDER:.status.secretName"
	terminal.types("list", "-l", "team=red", "--sort-by=.metadata.name", "-o", "name")
	terminal.types("list", "-l", "team in (red),team!=blue", "--sort-by={.spec.appName}", "-o", custom)
	terminal.types("list", "--field-selector=metadata.name=b", "-o", custom, "--no-headers")
	terminal.types("list", "--field-selector=spec.readAccess=true")
	terminal.types("list", "--sort-by=metadata.name", "--show-labels")
	terminal.types("list", "--sort-by=.metadata.name", "-L", "team", "-o", "wide", "--chunk-size=1")
	terminal.types("list", "--sort-by=.spec.nothing")
	terminal.types("list", "--sort-by=.metadata.name", "--template={{range .items}}{{.metadata.name}} {{end}}")
	terminal.types("count", "-l", "team=red", "--chunk-size=0")
	terminal.assertGolden()
	for _, flags := range [][]string{
		{"-l", "team=red", "--sort-by=.metadata.name", "-o", "name"},
		{"-l", "team=red", "--sort-by=.metadata.name", "-o", custom},
		{"--field-selector=metadata.name=b", "-o", custom, "--no-headers"},
		{"-l", "team=blue", "-o", "jsonpath={.items[*].metadata.name}"},
		{"-l", "team=blue", "-o", "yaml"},
		{"-l", "team=blue", "-o", "json"},
	} {
		want, err := terminal.env.Kubectl(t, append([]string{"get", "apikeys", "-n", terminal.namespace}, flags...)...)
		framework.Must(t, err)
		got := terminal.run(append([]string{"list"}, flags...)...)
		if diff := cmp.Diff(want, got.stdout); diff != "" {
			t.Errorf("list %v (-kubectl +got):\n%s", flags, diff)
		}
	}
}
