// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
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
