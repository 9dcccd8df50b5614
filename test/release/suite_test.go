// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build release

package release_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	version      = "v0.98.7"
	chartVersion = "0.98.7"
	repository   = "owner/apikey-operator"
	image        = "ghcr.io/owner/apikey-operator"
	commitTime   = "2026-01-02T03:04:05Z"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// clone is a repository with the files of the working tree in its only commit, which is tagged with the version. Its changelog has a
// section for the version, and no page says that there is no release.
type clone string

func newClone(t *testing.T) clone {
	t.Helper()
	root, err := controlplane.FindRepository()
	framework.Must(t, err)
	c := clone(filepath.Join(t.TempDir(), "clone"))
	framework.Must(t, os.Mkdir(string(c), 0o755))
	shell(t, root, `git ls-files -z --cached --others --exclude-standard --deduplicate |
		while IFS= read -r -d '' file; do if [[ -e $file ]]; then printf '%s\0' "$file"; fi; done |
		tar --create --null --files-from=- | tar --extract --directory="$1"`, string(c))
	c.shell(t, `sed -i 's/^## Unreleased$/&\n\n## `+chartVersion+` - 2026-01-02\n\nThe first release./' CHANGELOG.md`)
	c.shell(t, `grep --recursive --files-with-matches 'No version is released' --include=*.md . | xargs sed -i 's/No version is released/Versions are released/'`)
	c.shell(t, "git init --quiet --initial-branch=main")
	c.commit(t, "cut the release")
	c.shell(t, "git tag "+version)
	c.linkTools(t, root)
	return c
}

// cloneTo clones the repository into another directory, as a user whose files only that user can read.
func (c clone) cloneTo(t *testing.T, dir string) clone {
	t.Helper()
	c.shell(t, `umask 077; git clone --quiet . "$1"`, dir)
	other := clone(dir)
	other.linkTools(t, string(c))
	return other
}

// linkTools makes the built tools of a directory available.
func (c clone) linkTools(t *testing.T, from string) {
	t.Helper()
	framework.Must(t, os.MkdirAll(filepath.Join(string(c), "bin"), 0o755))
	framework.Must(t, os.Symlink(filepath.Join(from, "bin", "tools"), filepath.Join(string(c), "bin", "tools")))
}

func (c clone) commit(t *testing.T, message string) {
	t.Helper()
	c.shell(t, `git add --all
		export GIT_AUTHOR_DATE=`+commitTime+` GIT_COMMITTER_DATE=`+commitTime+`
		git -c user.name=test -c user.email=test@example.com commit --quiet --message="$1"`, message)
}

// shell runs a script in the clone, and returns its output.
func (c clone) shell(t *testing.T, script string, args ...string) string {
	t.Helper()
	return shell(t, string(c), script, args...)
}

// release runs what `make release` runs, and returns its output.
func (c clone) release(t *testing.T, version, repository string, env ...string) (string, error) {
	t.Helper()
	command := exec.CommandContext(t.Context(), filepath.Join(string(c), "hack", "release"), version, repository)
	command.Env = append(os.Environ(), env...)
	output, err := command.CombinedOutput()
	return string(output), err
}

// dist returns the path of a file of the release.
func (c clone) dist(name string) string { return filepath.Join(string(c), "dist", "release", name) }

// files returns the names of the files in a directory.
func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	framework.Must(t, err)
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = entry.Name()
	}
	return names
}

// read returns the content of a file.
func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	framework.Must(t, err)
	return string(content)
}

// shell runs a script of bash in a directory, and returns its output.
func shell(t *testing.T, dir, script string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "bash", append([]string{"-euo", "pipefail", "-c", script, "bash"}, args...)...)
	command.Dir = dir
	output, err := process.Output(t.Context(), command)
	framework.Must(t, err)
	return strings.TrimSpace(output)
}

// extract extracts an archive into a new directory.
func extract(t *testing.T, archive string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	shell(t, dir, `tar --extract --file="$1"`, archive)
	return dir
}
