// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/test/framework"
)

func TestKeys_ReadsPages(t *testing.T) {
	terminal := newTerminal(t)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		terminal.apply(name)
	}
	pages := 0
	ofTwo := interceptor.NewClient(terminal.env.Client, interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			pages++
			return c.List(ctx, list, append(options, client.Limit(2))...)
		},
	})
	keys, err := (&session{WithWatch: ofTwo, namespace: terminal.namespace}).keys(t.Context(), false)
	framework.Must(terminal, err)
	if len(keys) != 5 || pages != 3 {
		t.Errorf("%d keys in %d pages", len(keys), pages)
	}
}

func TestFind_RefusesAnArgumentThatIsBothNameAndID(t *testing.T) {
	terminal := newTerminalWithController(t)
	victim := terminal.apply("victim")
	id := string(victim.UID)
	decoy := terminal.apply(id, func(key *v1alpha1.APIKey) { key.Spec.AppName = "Decoy" })
	for _, name := range []string{"victim", id} {
		terminal.awaitReason(name, v1alpha1.ReasonIssued)
	}
	want := `Error: "` + id + `" is the name of one key and the ID of another: use the ID "` + string(decoy.UID) + `" for the key with this name, or the name ` +
		`"victim" for the key with this ID` + "\n"
	for _, command := range []string{"deactivate", "reveal", "export"} {
		if got := terminal.run(command, id); got != (result{stderr: want, code: exitFailure}) {
			t.Errorf("%s: %+v", command, got)
		}
	}
	for _, key := range terminal.keys() {
		if !keyclient.IsActive(&key, time.Now()) || terminal.secret(key.Status.SecretName) == nil {
			t.Errorf("%q is deactivated, or its token revealed", key.Name)
		}
	}
	for argument, wanted := range map[string]string{string(decoy.UID): id, "victim": "victim"} {
		if got := terminal.run("deactivate", argument, "-o", "name"); got.stdout != "apikey.keys.squirrel.dev/"+wanted+"\n" {
			t.Errorf("deactivate %s: %+v", argument, got)
		}
	}
}

// kubectl finds the plugin and kubectl_complete-apikey in the PATH.
func TestKubectl_RunsAndCompletesThePlugin(t *testing.T) {
	terminal := newTerminal(t)
	for _, name := range []string{"a", "b"} {
		terminal.apply(name)
	}
	completer, err := filepath.Abs(".")
	framework.Must(terminal, err)
	path := strings.Join([]string{filepath.Dir(terminal.env.Binary("kubectl")), filepath.Dir(program), completer, os.Getenv("PATH")}, ":")
	for want, args := range map[string][]string{
		"2\n":         {"apikey", "count"},
		"a\nb\n:4\n":  {"__complete", "apikey", "reveal", ""},
		"b\n:4\n":     {"__complete", "apikey", "deactivate", "a", ""},
		"a\nb\n:4\n ": {"__complete", "apikey", "export", ""},
		":4\n":        {"__complete", "apikey", "create", ""},
	} {
		command := terminal.command(args...)
		command.Path = terminal.env.Binary("kubectl")
		command.Args[0] = "kubectl"
		command.Env = append(command.Env, "PATH="+path)
		if got := terminal.start(command)(); got.stdout != strings.TrimSuffix(want, " ") {
			t.Errorf("kubectl %v: %+v", args, got)
		}
	}
}
