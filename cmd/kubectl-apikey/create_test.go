// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/runcontroller"
)

func TestCreate_Manager(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.run("create", "Frontend App", "-r", "-w")
	terminal.run("create", "Key administration", "-r", "-w", "--manager")
	for appName, want := range map[string]map[string]string{
		"Frontend App": nil, "Key administration": {"keys.squirrel.dev/manager": "true"},
	} {
		if labels := terminal.key(appName).Labels; !maps.Equal(labels, want) {
			t.Errorf("the labels of %q are %v", appName, labels)
		}
	}
}

func TestCreate_PrintsTheTokenInAllFormats(t *testing.T) {
	terminal := newTerminalWithController(t)
	printed := terminal.types("create", "Frontend App", "-r", "-o", "jsonpath={.token}")
	terminal.assertTokenOf(terminal.key("Frontend App"), printed.stdout)
	terminal.types("create", "CI-Pipeline", "-r", "-o", "yaml")
	terminal.types("create", "Third", "-r", "-o", "go-template={{range .status.conditions}}{{.reason}} {{end}}{{.token}}")
	terminal.types("create", "Partner", "-w", "--secret", "-o", "name")
	terminal.assertGolden()
}

func TestCreate_RefusesAnOutputWithoutTheToken(t *testing.T) {
	terminal := newTerminal(t)
	terminal.types("create", "Frontend App", "-r", "-o", "name")
	terminal.types("create", "Frontend App", "-r", "-o", "jsonpath={.tokn}")
	terminal.types("create", "Frontend App", "-r", "--template={{printf \"%.9s\" .token}}")
	terminal.types("create", "Frontend App", "-r", "--wait=false", "-o", "go-template={{if .status}}{{.token}}{{end}}")
	terminal.types("create", "Frontend App", "-r", "-o", "jsonpath={.token")
	terminal.types("create", "Frontend App", "-r", "-o", "pretty")
	if keys := terminal.keys(); len(keys) != 0 {
		t.Errorf("the keys are %v", keys)
	}
	terminal.assertGolden()
}

func TestCreate_DeletesAKeyThatCannotBePrinted(t *testing.T) {
	terminal := newTerminalWithController(t)
	for _, args := range [][]string{{}, {"-o", "json"}, {"--wait=false"}, {"--secret"}} {
		for want, stdout := range map[string]*os.File{"no space left on device": openFull(terminal), "broken pipe": newClosedPipe(terminal)} {
			var stderr strings.Builder
			command := terminal.command(append([]string{"create", "Frontend App", "-r"}, args...)...)
			command.Stdout, command.Stderr = stdout, &stderr
			_ = command.Run() // it fails with an exit code
			want = "Error: no key was created: printing it failed: write /dev/stdout: " + want + "\n"
			if code := command.ProcessState.ExitCode(); code != exitFailure || stderr.String() != want {
				t.Errorf("create %v: exit code %d, %s", args, code, &stderr)
			}
			framework.Eventually(terminal, "the key is gone", func() bool { return len(terminal.keys()) == 0 })
		}
	}
}

func TestCreate_CreatesNoKeyIfTheOutputIsClosed(t *testing.T) {
	terminal := newTerminalWithController(t)
	for _, args := range [][]string{{}, {"-o", "json"}, {"--wait=false"}, {"--secret"}} {
		got := terminal.runClosed(append([]string{"create", "Frontend App", "-r"}, args...)...)
		want := "Error: no key was created: " + outputClosed + "\n"
		if got.code != exitFailure || got.stderr != want || len(terminal.keys()) != 0 {
			t.Errorf("create %v: %+v, want %s", args, got, want)
		}
	}
	discarded := terminal.command("create", "Frontend App", "-r") // exec opens /dev/null for it
	if err := discarded.Run(); err != nil || len(terminal.keys()) != 1 {
		t.Errorf("create whose output is discarded: %v", err)
	}
}

func TestCreate_TheOutputCannotBeApplied(t *testing.T) {
	terminal := newTerminalWithController(t)
	printed := terminal.run("create", "Frontend App", "-r", "-o", "json")
	file := filepath.Join(t.TempDir(), "created.json")
	framework.Must(terminal, os.WriteFile(file, []byte(printed.stdout), 0o600))
	output, err := terminal.env.Kubectl(t, "apply", "-f", file)
	if err == nil || !strings.Contains(output, `no matches for kind "CreatedAPIKey" in version "keys.squirrel.dev/v1alpha1"`) {
		t.Errorf("kubectl apply prints %s", output)
	}
}

func TestCreate_CtrlCDeletesTheKey(t *testing.T) {
	terminal := newTerminal(t)
	command := terminal.command("create", "Frontend App", "-r", "--timeout=1h")
	wait := terminal.start(command)
	framework.Eventually(terminal, "the key exists", func() bool { return len(terminal.keys()) == 1 })
	framework.Must(terminal, command.Process.Signal(syscall.SIGINT))
	terminal.record(command.Args[1:], wait())
	if keys := terminal.keys(); len(keys) != 0 {
		t.Errorf("the keys are %v", keys)
	}
	terminal.assertGolden()
}

func TestCreate_WithoutWaitKeepsTheKey(t *testing.T) {
	terminal := newTerminal(t)
	terminal.types("create", "Frontend App", "-r", "--wait=false")
	terminal.types("create", "Partner", "-r", "--wait=false", "--secret")
	if key := terminal.key("Frontend App"); apikey.IsIssued(key) {
		t.Error("it is issued")
	}
	terminal.assertGolden()
}

func TestCreate_CreatesNoKeyWhoseAppNameIsHeld(t *testing.T) {
	terminal := newTerminal(t)
	terminal.apply("holder", func(key *v1alpha1.APIKey) { key.Spec.AppName = "Frontend App" })
	for _, args := range [][]string{{}, {"--wait=false"}, {"--wait=false", "--secret"}} {
		got := terminal.run(append([]string{"create", "Frontend App", "-r"}, args...)...)
		want := result{code: exitFailure, stderr: `Error: no key was created: App name "Frontend App" is held by APIKey "holder": ` +
			"deactivate or delete that key, or create this one with another app name.\n"}
		if got != want {
			t.Errorf("create %v: got %+v, want %+v", args, got, want)
		}
	}
	if keys := terminal.keys(); len(keys) != 1 {
		t.Errorf("the keys are %v", keys)
	}
}

func TestCreate_NameAndLabels(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.types("create", "Partner", "-r", "-w", "--name=partner", "-l", "team=blue,stage=test", "--manager", "-o", "jsonpath={.metadata.labels}{.token}")
	terminal.types("create", "Other Partner", "-r", "--name=partner")
	terminal.types("create", "Other Partner", "-r", "--name=Other Partner")
	terminal.types("create", "Other Partner", "-r", "-l", "team=not valid")
	if key := terminal.key("Partner"); key.Name != "partner" || len(terminal.keys()) != 1 {
		t.Errorf("the keys are %v", terminal.keys())
	}
	terminal.assertGolden()
}

func TestCreate_DryRun(t *testing.T) {
	terminal := newTerminal(t)
	terminal.types("create", "Partner", "-r", "--name=partner", "--dry-run")
	terminal.types("create", "Partner", "-r", "--name=partner", "--dry-run=server")
	terminal.types("create", "Partner", "-r", "--name=partner", "--dry-run=server", "-o", "yaml")
	terminal.types("create", "\tPartner", "-r", "--name=partner", "--dry-run=server")
	namespace := terminal.namespace
	printed := terminal.types("create", "Partner", "-r", "--name=partner", "-l", "team=blue", "--dry-run=client", "-o", "yaml", "-n", namespace)
	terminal.kubeconfig = "/no-such-kubeconfig"
	terminal.types("create", "Partner", "-r", "--name=partner", "--secret-ttl=1h", "--dry-run=client", "-o", "yaml")
	if keys := terminal.keys(); len(keys) != 0 {
		t.Errorf("the keys are %v", keys)
	}
	terminal.assertGolden()
	terminal.kubectlApply(printed.stdout)
	runcontroller.Start(t, terminal.env, namespace)
	terminal.awaitReason("partner", v1alpha1.ReasonIssued)
}
