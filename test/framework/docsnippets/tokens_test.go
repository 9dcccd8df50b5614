// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package docsnippets

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/test/framework"
)

// tokenArgument matches an argument of a command that has a token. Other users of the machine see it in the list of processes.
var tokenArgument = regexp.MustCompile(`(?i)(-H|--header)[ =]?["']?(X-API-Key|Authorization): ?[^"'@ ]|` +
	`--(token|oauth2-bearer)[ =]["']?(\$|sq_)|` +
	`(-u|--user)[ =]?["'][^"']*:\$|` +
	`(-d|--data|--data-urlencode|--json)[ =]?["'][^@]*token[^@]*(\$|sq_)|` +
	`--from-literal[ =][^ ]*=["']?(\$|sq_)`)

func TestTokenArgument(t *testing.T) {
	for line, want := range map[string]bool{
		`curl -H "X-API-Key: $KEY" $URL`:                                           true,
		`curl --header="Authorization: Bearer sq_KnIr" $URL`:                       true,
		`curl -H "X-API-Key: $(cat key)" $URL`:                                     true,
		`curl -u "service:$KEY" $URL`:                                              true,
		`curl --data-urlencode "token=$KEY" $URL`:                                  true,
		`curl --oauth2-bearer "$KEY" $URL`:                                         true,
		`kubectl get pods --token=$KEY`:                                            true,
		`kubectl create secret generic a --from-literal=token=$KEY`:                true,
		`curl --header @key.header $URL`:                                           false,
		`curl --config my-service.curl --data-urlencode token@client.token $URL`:   false,
		`kubectl apikey create App -r -o jsonpath='X-API-Key: {.token}' >a.header`: false,
		`printf 'X-API-Key: %s\n' "$KEY" > key.header`:                             false,
	} {
		if got := tokenArgument.MatchString(line); got != want {
			t.Errorf("%s: got %t, want %t", line, got, want)
		}
	}
}

// Users paste the commands of pages, help texts and messages.
func TestTexts_NoCommandLineHasAToken(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	read := 0
	for _, start := range []string{
		"README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", ".github", "charts", "cmd", "config", "console", "docs", "hack", "internal",
	} {
		framework.Must(t, filepath.WalkDir(filepath.Join(root, start), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || strings.HasSuffix(path, "_test.go") ||
				!slices.Contains([]string{".md", ".go", ".yaml", ".yml", ".txt", ".html", ".js", ".json"}, filepath.Ext(path)) {
				return err
			}
			content, err := os.ReadFile(path)
			framework.Must(t, err)
			read++
			for line := range strings.Lines(string(content)) {
				if tokenArgument.MatchString(line) {
					t.Errorf("%s has a token on a command line: %s", path, line)
				}
			}
			return nil
		}))
	}
	if read < 100 {
		t.Errorf("only %d files were read", read)
	}
}
