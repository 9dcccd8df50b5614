// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package hack_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// repository is a Git repository with a copy of hack/commits.
type repository struct {
	*WithT
	dir string
}

// newRepository returns a repository whose only commit adds the directory internal/serving.
func newRepository(t *testing.T) *repository {
	t.Helper()
	r := &repository{WithT: NewWithT(t), dir: t.TempDir()}
	r.git("init", "--quiet", "--initial-branch=main")
	r.write("internal/serving/serving.go", "package serving\n")
	r.commit("No area, and before the check")
	return r
}

// run runs a program in the repository, without the configuration of this machine's Git.
func (r *repository) run(program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	cmd.Dir = r.dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + r.dir, "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
	}
	output, err := cmd.CombinedOutput()
	return string(output), err
}

func (r *repository) git(args ...string) string {
	output, err := r.run("git", args...)
	r.Expect(err).NotTo(HaveOccurred(), output)
	return strings.TrimSpace(output)
}

func (r *repository) write(name, content string) {
	path := filepath.Join(r.dir, name)
	r.Expect(os.MkdirAll(filepath.Dir(path), 0o755)).To(Succeed())
	r.Expect(os.WriteFile(path, []byte(content), 0o755)).To(Succeed())
}

// commit commits everything, or nothing, and returns the abbreviated name of the commit as the script prints it.
func (r *repository) commit(subject string) string {
	r.git("add", "--all")
	r.git("commit", "--quiet", "--allow-empty", "--message="+subject)
	return r.git("rev-parse", "HEAD")[:12]
}

// addScript writes the script of this directory into the repository.
func (r *repository) addScript() {
	script, err := os.ReadFile("commits")
	r.Expect(err).NotTo(HaveOccurred())
	r.write("hack/commits", string(script))
}

func TestCommits_MessageHasAnAreaAndAnImperativeSummary(t *testing.T) {
	r := newRepository(t)
	r.addScript()
	for _, c := range []struct{ subject, problem string }{
		{subject: "internal/serving: limit the size of a request"},
		{subject: "internal: pass the context on"},
		{subject: "docs: need no cluster for the first steps"},
		{subject: "ci: ping the server first"},
		{subject: "release: v0.2.0"},
		{subject: "ci: quote " + strings.Repeat("ü", 62)},
		{subject: "fixup! Anything"},
		{subject: "Merge branch 'main'"},

		{"ci: quote " + strings.Repeat("ü", 63), "shorten it to 72 characters: it has 73"},
		{"Limit the size of a request", `write it as "area: imperative summary"`},
		{"internal/serving:limit the size", `write it as "area: imperative summary"`},
		{"two words: limit the size", `write it as "area: imperative summary"`},
		{"docs: Limit the size", "begin the summary with a verb in lower case"},
		{"docs: limit the size.", "remove the period at the end"},
		{"docs: limits the size", `write the verb in the imperative, as in "add": not "limits"`},
		{"docs: limited the size", `write the verb in the imperative, as in "add": not "limited"`},
		{"docs: limiting the size", `write the verb in the imperative, as in "add": not "limiting"`},
		{"serving: limit the size", `begin it with a directory of the repository, docs, ci or release: not "serving"`},
		{"internal/serving/serving.go: limit the size",
			`begin it with a directory of the repository, docs, ci or release: not "internal/serving/serving.go"`},
	} {
		r.write("message", "\n# A comment of Git's editor.\n"+c.subject+"\n\nA body: it is not checked.\n")
		output, err := r.run("hack/commits", "--message", "message")
		if c.problem == "" {
			r.Expect(err).NotTo(HaveOccurred(), "%s: %s", c.subject, output)
			r.Expect(output).To(BeEmpty())
		} else {
			r.Expect(err).To(MatchError("exit status 1"), c.subject)
			r.Expect(output).To(Equal("commit message: " + c.subject + "\n  " + c.problem + "\n"))
		}
	}
}

func TestCommits_HistoryIsCheckedFromTheCommitThatAddedTheScript(t *testing.T) {
	r := newRepository(t)
	r.addScript()
	r.Expect(r.run("hack/commits")).To(Equal("hack/commits: no commit contains this script yet, so there are none to check.\n"))
	r.commit("Also bad, but it adds the script")
	r.git("checkout", "--quiet", "-b", "branch")
	r.commit("internal/serving: limit the size of a request")
	r.Expect(os.RemoveAll(filepath.Join(r.dir, "internal/serving"))).To(Succeed())
	r.commit("internal/serving: remove the package")
	r.git("checkout", "--quiet", "main")
	r.commit("docs: explain the limit")
	r.git("merge", "--quiet", "--no-ff", "--message=A merge has no area", "branch")
	r.Expect(r.run("hack/commits")).To(BeEmpty())

	first := r.commit("internal/serving: limit what does not exist any more")
	second := r.commit("docs: explains the limit")
	output, err := r.run("hack/commits")
	r.Expect(err).To(MatchError("exit status 1"))
	r.Expect(output).To(Equal(
		first + ": internal/serving: limit what does not exist any more\n" +
			"  begin it with a directory of the repository, docs, ci or release: not \"internal/serving\"\n" +
			second + ": docs: explains the limit\n" +
			"  write the verb in the imperative, as in \"add\": not \"explains\"\n"))
}

func TestCommits_ShallowCloneIsCheckedAsFarAsItReaches(t *testing.T) {
	r := newRepository(t)
	r.addScript()
	added := r.commit("hack: check the subjects of commits")
	bad := r.commit("docs: explains the limit")
	good := r.commit("docs: explain the limit")
	problem := bad + ": docs: explains the limit\n  write the verb in the imperative, as in \"add\": not \"explains\"\n"
	shallow := func(commit string) string {
		return "hack/commits: this clone is shallow: only the commits after " + commit +
			" are checked. \"git fetch --unshallow\" gets all.\n"
	}
	for _, c := range []struct {
		depth, want string
		fails       bool
	}{
		{"1", shallow(good), false},
		{"2", shallow(bad), false},
		{"3", shallow(added) + problem, true},
		{"4", problem, true},
	} {
		clone := &repository{WithT: r.WithT, dir: t.TempDir()}
		clone.git("clone", "--quiet", "--depth="+c.depth, "file://"+r.dir, ".")
		output, err := clone.run("hack/commits")
		r.Expect(output).To(Equal(c.want), "depth %s", c.depth)
		r.Expect(err != nil).To(Equal(c.fails), "depth %s: %v", c.depth, err)
	}
}
