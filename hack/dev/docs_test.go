// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
)

// testWalkThroughs pastes the commands of pages into a shell while `make run` is running. Each command must print the output that its page
// shows.
func testWalkThroughs(t *testing.T, home string) {
	t.Helper()
	root, err := controlplane.FindRepository()
	framework.Must(t, err)
	for _, page := range []string{"docs/management/rest.md", "docs/cli.md", "docs/management/moving.md"} {
		t.Run(page, func(t *testing.T) {
			docsnippets.Walkthrough{Page: page, Dir: walkThroughDirectory(t, root, home)}.Run(t)
		})
	}
	for _, page := range []string{
		"key-in-a-pod.md", "rotate-a-token.md", "expiring-keys.md", "unused-keys.md", "key-lost.md", "key-leaked.md", "many-clusters.md",
	} {
		t.Run("docs/tasks/"+page, func(t *testing.T) {
			dir := clusterDirectory(t, root, home)
			docsnippets.Walkthrough{Page: "docs/tasks/" + page, Dir: dir, Env: []string{
				"KUBECONFIG=" + filepath.Join(dir, "kubeconfig"), "PATH=" + dir + string(os.PathListSeparator) + os.Getenv("PATH"),
			}}.Run(t)
		})
	}
}

// clusterDirectory returns the directory of a user: it has kubectl with the plugin, and a kubeconfig of the cluster. The namespace of the
// kubeconfig is new, and has the keys of two apps that the pages name. Their tokens are in the files leaked.token and agency.token.
func clusterDirectory(t *testing.T, root, home string) string {
	t.Helper()
	dir := t.TempDir()
	shell(t, filepath.Join(home, "env"), `cd `+shellQuote(dir)+`
		namespace=$("$KUBECTL" create namespace "tasks-$$" --output 'jsonpath={.metadata.name}')
		cp "$KUBECONFIG" kubeconfig
		"$KUBECTL" config set-context --current --namespace "$namespace" --kubeconfig kubeconfig
		ln -s "$KUBECTL" kubectl
		ln -s `+shellQuote(filepath.Join(root, "bin", "kubectl-apikey"))+` kubectl-apikey
		umask 077
		./kubectl-apikey create "Frontend App" -r --kubeconfig kubeconfig --output 'jsonpath={.token}' >leaked.token
		./kubectl-apikey create Agency -r --kubeconfig kubeconfig --output 'jsonpath={.token}' >agency.token`)
	return dir
}

// walkThroughDirectory returns a directory with the files of this repository that the pages use, and the file that moving.md exports from a
// database.
func walkThroughDirectory(t *testing.T, root, home string) string {
	t.Helper()
	dir := t.TempDir()
	framework.Must(t, os.MkdirAll(filepath.Join(dir, "bin", "dev"), 0o700))
	framework.Must(t, os.Symlink(filepath.Join(home, "env"), filepath.Join(dir, "bin", "dev", "env")))
	framework.Must(t, os.Symlink(filepath.Join(root, "bin", "kubectl-apikey"), filepath.Join(dir, "bin", "kubectl-apikey")))
	rows := ""
	for _, app := range []string{`It's "quoted"`, `Back\slash & Söhne: #1`} {
		rows += strings.Join([]string{strings.TrimPrefix(token.Hash(token.New()), "sha256:"), "true", "false", app}, "\t") + "\n"
	}
	framework.Must(t, os.WriteFile(filepath.Join(dir, "keys.tsv"), []byte(rows), 0o600))
	return dir
}
