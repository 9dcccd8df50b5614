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
	"squirrel.dev/apikey-operator/test/framework/runcontroller"
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
	keys, err := (&session{WithWatch: ofTwo, namespace: terminal.namespace}).keys(t.Context(), selectOptions{chunkSize: defaultChunkSize})
	framework.Must(terminal, err)
	if len(keys) != 5 || pages != 3 {
		t.Errorf("%d keys in %d pages", len(keys), pages)
	}
}

func TestFind_RefusesAnArgumentThatIsBothNameAndID(t *testing.T) {
	terminal := newTerminalWithController(t)
	victim := terminal.apply("victim")
	id := string(victim.UID)
	terminal.apply(id, func(key *v1alpha1.APIKey) { key.Spec.AppName = "Decoy" })
	for _, name := range []string{"victim", id} {
		terminal.awaitReason(name, v1alpha1.ReasonIssued)
	}
	want := `Error: "` + id + `" fits several keys: use apikey/` + id + ` (by its name) or apikey/victim (by its ID)` + "\n"
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
	for argument, wanted := range map[string]string{"apikey/" + id: id, "App victim": "victim"} {
		if got := terminal.run("deactivate", argument, "-o", "name"); got.stdout != "apikey.keys.squirrel.dev/"+wanted+"\n" {
			t.Errorf("deactivate %s: %+v", argument, got)
		}
	}
}

func TestFind_FindsAKeyByEachOfItsNames(t *testing.T) {
	terminal := newTerminalWithController(t)
	key := terminal.apply("partner", func(key *v1alpha1.APIKey) { key.Spec.AppName = "Café/Bar" })
	terminal.awaitReason("partner", v1alpha1.ReasonIssued)
	for _, argument := range []string{
		"partner", string(key.UID), "Café/Bar", "Cafe\u0301/Bar", // with a composed and with a decomposed é
		"apikey/partner", "apikeys/partner", "ak/partner", "APIKey/partner", "apikeys.keys.squirrel.dev/partner",
		"apikey.v1alpha1.keys.squirrel.dev/partner",
	} {
		if got := terminal.run("export", argument); got.code != 0 || !strings.Contains(got.stdout, "name: partner\n") {
			t.Errorf("%q: %+v", argument, got)
		}
	}
	if got := terminal.run("export", "partner", "Café/Bar"); strings.Count(got.stdout, "kind: APIKey\n") != 1 {
		t.Errorf("two names of one key: %+v", got)
	}
}

func TestFind_ByAppName(t *testing.T) {
	terminal := newTerminal(t)
	partner := func(key *v1alpha1.APIKey) { key.Spec.AppName = "Partner" }
	terminal.apply("partner-1", partner)
	terminal.apply("partner-2", partner)
	terminal.types("deactivate", "Partner") // both wait for a controller
	runcontroller.Start(t, terminal.env, terminal.namespace)
	shop := func(key *v1alpha1.APIKey) { key.Spec.AppName = "Shop" }
	terminal.apply("shop-1", shop)
	terminal.awaitReason("shop-1", v1alpha1.ReasonIssued)
	terminal.apply("shop-2", shop)
	terminal.awaitReason("shop-2", v1alpha1.ReasonAppNameConflict)
	terminal.types("deactivate", "Shop") // the active one
	terminal.awaitReason("shop-2", v1alpha1.ReasonIssued)
	terminal.types("deactivate", "Shop")
	terminal.types("deactivate", "Shop")
	terminal.types("deactivate", "apikey/shop")
	terminal.assertGolden()
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
	for _, test := range []struct {
		want string
		args []string
	}{
		{"2\n", []string{"apikey", "count"}},
		{"a\tApp a\nb\tApp b\n:4\n", []string{"__complete", "apikey", "reveal", ""}},
		{"b\tApp b\n:4\n", []string{"__complete", "apikey", "deactivate", "a", ""}},
		{"App a\nApp b\n:4\n", []string{"__complete", "apikey", "deactivate", "App"}},
		{":4\n", []string{"__complete", "apikey", "export", ""}}, // no key is issued
		{":4\n", []string{"__complete", "apikey", "create", ""}},
		{":4\n", []string{"__complete", "apikey", "prune", ""}},
		{":4\n", []string{"__complete", "apikey", "whose", ""}},
		{terminal.namespace + "\n:4\n", []string{"__complete", "apikey", "list", "-n", terminal.namespace}},
		{"embedded\n:4\n", []string{"__complete", "apikey", "list", "--context", ""}},
		{"embedded\n:4\n", []string{"__complete", "apikey", "list", "--cluster", "e"}},
		{":4\n", []string{"__complete", "apikey", "list", "--user", "x"}},
		{"custom-columns\ncustom-columns-file\n:4\n", []string{"__complete", "apikey", "list", "-o", "custom"}},
		{"json\njsonpath\njsonpath-as-json\njsonpath-file\n:4\n", []string{"__complete", "apikey", "create", "-o", "js"}},
		{"yaml\n:4\n", []string{"__complete", "apikey", "export", "-o", "y"}},
		{"client\n:4\n", []string{"__complete", "apikey", "create", "--dry-run=c"}},
		{"server\n:4\n", []string{"__complete", "apikey", "prune", "--dry-run=s"}},
		{"name\n:4\n", []string{"__complete", "apikey", "whose", "-o", "n"}},
	} {
		command := terminal.command(test.args...)
		command.Path = terminal.env.Binary("kubectl")
		command.Args[0] = "kubectl"
		command.Env = append(command.Env, "PATH="+path)
		if got := terminal.start(command)(); got.stdout != test.want {
			t.Errorf("kubectl %v: %+v", test.args, got)
		}
	}
}
