// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/gomega"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// helperFile is an environment variable with the path of a key file. With it, this program is a helper process instead of a test. It prints
// a line, waits until its standard input is closed, and prints the key or the error.
const helperFile = "BOOTSTRAP_TEST_HELPER_FILE"

func TestMain(m *testing.M) {
	if file := os.Getenv(helperFile); file != "" {
		fmt.Println("waiting")
		_, _ = io.Copy(io.Discard, os.Stdin)
		if key, err := loadOrCreate(file); err != nil {
			fmt.Print(err)
		} else {
			fmt.Print(key)
		}
		os.Exit(0)
	}
	testenv.Main(m)
}

const goodKey = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestLoadOrCreate_CreatesAFileThatOnlyItsOwnerCanRead(t *testing.T) {
	g := NewWithT(t)
	file := filepath.Join(t.TempDir(), "data", ".api_key")
	key, err := loadOrCreate(file)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(key).To(MatchRegexp("^[0-9a-f]{64}$"))

	content, err := os.ReadFile(file)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(content)).To(Equal(key + "\n"))
	info, err := os.Lstat(file)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(info.Mode()).To(Equal(fs.FileMode(0o600)))
	g.Expect(filesIn(t, filepath.Dir(file))).To(Equal([]string{".api_key"}), "no draft is left")

	again, err := loadOrCreate(file)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(again).To(Equal(key))

	g.Expect(os.Remove(file)).To(Succeed())
	other, err := loadOrCreate(file)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(other).NotTo(Equal(key))
}

func TestLoadOrCreate_ValidFiles(t *testing.T) {
	for name, write := range map[string]func(file string) error{
		"with the end of the line":                     contentOf(goodKey+"\n", 0o600),
		"without the end of the line":                  contentOf(goodKey, 0o600),
		"with a Windows end of line":                   contentOf(goodKey+"\r\n", 0o600),
		"that its owner only can read":                 contentOf(goodKey, 0o400),
		"that the group can read, as fsGroup has it":   contentOf(goodKey, 0o440),
		"that the group can change, as fsGroup has it": contentOf(goodKey, 0o660),
		"as Kubernetes mounts a Secret":                mountedSecret(0o440),
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), ".api_key")
			framework.Must(t, write(file))
			before := filesIn(t, filepath.Dir(file))
			key, err := loadOrCreate(file)
			if key != goodKey || err != nil {
				t.Errorf("loaded %q, %v", key, err)
			}
			if diff := cmp.Diff(before, filesIn(t, filepath.Dir(file))); diff != "" {
				t.Errorf("the directory was changed:\n%s", diff)
			}
		})
	}
}

func TestLoadOrCreate_InvalidFiles(t *testing.T) {
	const (
		advice     = "write 64 hexadecimal digits to it, (umask 077; openssl rand -hex 32 > FILE), or name another file with --api-key-file"
		otherUsers = "all users may read or write the key file FILE (mode %s), so its key is not secret: delete the file, so that the next start generates a new key, or chmod 600 it if no other user has read it yet. Mount a Secret with defaultMode: 0400 and set the fsGroup of the pod, so that only the pod can read it"
		notDigits  = "the key file FILE does not consist of 64 hexadecimal digits. Delete it, so that the next start generates a new key, or " + advice
		tooShort   = "the key file FILE is too short: it has %d characters, and a key has 64 hexadecimal digits. Delete it, so that the next start generates a new key, or " + advice
		unwritable = "the key file FILE does not exist and cannot be created (%s): allow user %d to write to its directory, or " + advice
	)
	for name, test := range map[string]struct {
		write func(file string) error
		want  string
	}{
		"that the world can read":            {contentOf(goodKey, 0o644), fmt.Sprintf(otherUsers, "0644")},
		"that the world can change":          {contentOf(goodKey, 0o602), fmt.Sprintf(otherUsers, "0602")},
		"as Kubernetes mounts it by default": {mountedSecret(0o644), fmt.Sprintf(otherUsers, "0644")},
		"empty":                              {contentOf("", 0o600), fmt.Sprintf(tooShort, 0)},
		"with one digit too few":             {contentOf(goodKey[1:]+"\n", 0o600), fmt.Sprintf(tooShort, 63)},
		"with one digit too many":            {contentOf(goodKey+"0\n", 0o600), notDigits},
		"with a password":                    {contentOf("swordfish", 0o600), fmt.Sprintf(tooShort, 9)},
		"with another character":             {contentOf("x"+goodKey[1:], 0o600), notDigits},
		"with leading space":                 {contentOf(" "+goodKey, 0o600), notDigits},
		"with two lines":                     {contentOf(goodKey+"\n"+goodKey+"\n", 0o600), notDigits},
		"with a byte order mark":             {contentOf("\ufeff"+goodKey, 0o600), notDigits},
		"of a megabyte":                      {contentOf(strings.Repeat("a", 1<<20), 0o600), notDigits},
		"that is a directory": {func(file string) error { return os.Mkdir(file, 0o700) },
			"the key file FILE is a directory: remove it, or name a file with --api-key-file"},
		"that is a pipe": {func(file string) error { return syscall.Mkfifo(file, 0o600) },
			"the key file FILE is not a regular file: remove it, or name another file with --api-key-file"},
		"that is a link to nothing": {func(file string) error { return os.Symlink("nothing", file) },
			"the key file FILE is a symbolic link to a file that does not exist: remove it, or " + advice},
		"in a directory that is a file": {func(file string) error {
			return errors.Join(os.Remove(filepath.Dir(file)), os.WriteFile(filepath.Dir(file), nil, 0o600))
		}, fmt.Sprintf("the key file cannot be read (open FILE: not a directory): allow user %d to read it, or name another file with --api-key-file", unprivileged())},
		"that its reader may not read":                  {contentOf(goodKey, 0o000), fmt.Sprintf("the key file cannot be read (open FILE: permission denied): allow user %d to read it, or name another file with --api-key-file", unprivileged())},
		"that is missing in a folder that is read-only": {func(file string) error { return os.Chmod(filepath.Dir(file), 0o555) }, fmt.Sprintf(unwritable, "open FILE.*: permission denied", unprivileged())},
		"that is missing in a folder that cannot be made": {func(file string) error {
			dir := filepath.Dir(file)
			return errors.Join(os.Remove(dir), os.Chmod(filepath.Dir(dir), 0o555))
		}, fmt.Sprintf(unwritable, "mkdir DIR: permission denied", unprivileged())},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := directory(t)
			file := filepath.Join(dir, ".api_key")
			framework.Must(t, os.Mkdir(dir, 0o700))
			framework.Must(t, test.write(file))
			chownAll(t, filepath.Dir(dir))
			process := startHelper(t, file)
			process.release(t)
			got := process.output(t)
			got = draftName.ReplaceAllString(strings.ReplaceAll(strings.ReplaceAll(got, file, "FILE"), dir, "DIR"), "FILE.*:")
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("the error (-want +got):\n%s", diff)
			}
		})
	}
}

var draftName = regexp.MustCompile(`FILE\.[0-9]+:`)

func TestLoadOrCreate_ConcurrentProcessesGetOneKey(t *testing.T) {
	const rounds, processes = 5, 8
	for range rounds {
		dir := directory(t)
		file := filepath.Join(dir, ".api_key")
		var helpers []*helper
		for range processes {
			helpers = append(helpers, startHelper(t, file))
		}
		for _, h := range helpers {
			h.release(t)
		}
		var outputs []string
		for _, h := range helpers {
			outputs = append(outputs, h.output(t))
		}
		g := NewWithT(t)
		g.Expect(outputs[0]).To(MatchRegexp("^[0-9a-f]{64}$"))
		g.Expect(slices.Compact(outputs)).To(HaveLen(1))
		g.Expect(filesIn(t, dir)).To(Equal([]string{".api_key"}), "no draft is left")
	}
}

// helper is this program as a process without privileges.
type helper struct {
	*exec.Cmd
	stdin  io.Closer
	stdout io.Reader
}

// startHelper starts a process that waits before it gets the key of this file.
func startHelper(t *testing.T, file string) *helper {
	t.Helper()
	h := &helper{Cmd: exec.CommandContext(t.Context(), "/proc/self/exe")} // other users may execute it by this path too
	h.Env = append(os.Environ(), helperFile+"="+file)
	if syscall.Geteuid() == 0 {
		h.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(unprivileged()), Gid: uint32(unprivileged())}}
	}
	var err error
	h.stdin, err = h.StdinPipe()
	framework.Must(t, err)
	h.stdout, err = h.StdoutPipe()
	framework.Must(t, err)
	framework.Must(t, h.Start())
	_, err = io.ReadFull(h.stdout, make([]byte, len("waiting\n")))
	framework.Must(t, err)
	return h
}

// release makes the process get the key.
func (h *helper) release(t *testing.T) {
	t.Helper()
	framework.Must(t, h.stdin.Close())
}

// output returns the key, or the error.
func (h *helper) output(t *testing.T) string {
	t.Helper()
	output, err := io.ReadAll(h.stdout)
	framework.Must(t, err)
	framework.Must(t, h.Wait())
	return string(output)
}

// unprivileged returns the user that helpers run as. It is not root, because permissions do not apply to root.
func unprivileged() int {
	if uid := syscall.Geteuid(); uid != 0 {
		return uid
	}
	return 65534
}

// directory returns the path of a directory that does not exist yet, and that helpers may create.
func directory(t *testing.T) string {
	t.Helper()
	temporary := t.TempDir()
	framework.Must(t, os.Chmod(filepath.Dir(temporary), 0o711))
	outer := filepath.Join(temporary, "outer")
	framework.Must(t, os.Mkdir(outer, 0o700))
	chownAll(t, outer)
	return filepath.Join(outer, "data")
}

// chownAll makes the user of the helpers the owner of a directory and its content.
func chownAll(t *testing.T, directory string) {
	t.Helper()
	if syscall.Geteuid() != 0 {
		return
	}
	framework.Must(t, filepath.WalkDir(directory, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, unprivileged(), unprivileged()))
	}))
}

func contentOf(content string, mode fs.FileMode) func(file string) error {
	return func(file string) error {
		return errors.Join(os.WriteFile(file, []byte(content), 0o600), os.Chmod(file, mode))
	}
}

// mountedSecret writes a file as the kubelet mounts one of a Secret: behind two symbolic links, so that it can replace all files at once.
func mountedSecret(mode fs.FileMode) func(file string) error {
	return func(file string) error {
		dir, name := filepath.Split(file)
		const version = "..2026_11_22_04_55_34.1"
		return errors.Join(
			os.Mkdir(filepath.Join(dir, version), 0o755),
			contentOf(goodKey, mode)(filepath.Join(dir, version, name)),
			os.Symlink(version, filepath.Join(dir, "..data")),
			os.Symlink(filepath.Join("..data", name), file),
		)
	}
}

func filesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	framework.Must(t, err)
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}
