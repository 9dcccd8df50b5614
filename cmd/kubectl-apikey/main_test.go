// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/runcontroller"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

var update = flag.Bool("update", false, "write the golden files")

// program is the path of the built program.
var program string

func TestMain(m *testing.M) {
	root, err := controlplane.FindRepository()
	if err == nil {
		program = filepath.Join(root, "bin", "kubectl-apikey")
		command := exec.Command("go", "build", "-o", program, "./cmd/kubectl-apikey")
		command.Dir, command.Stderr = root, os.Stderr
		err = command.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	testenv.Main(m)
}

// terminal runs commands in a namespace of the cluster, and records them with their output.
type terminal struct {
	*testing.T
	env        *testenv.Env
	namespace  string
	kubeconfig string
	session    strings.Builder
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	t.Parallel()
	env := testenv.Shared(t)
	terminal := &terminal{T: t, env: env, namespace: env.Namespace(t)}
	terminal.logIn(env.Config)
	return terminal
}

// newTerminalWithController returns a terminal with a controller for its namespace.
func newTerminalWithController(t *testing.T) *terminal {
	t.Helper()
	terminal := newTerminal(t)
	runcontroller.Start(t, terminal.env, terminal.namespace)
	return terminal
}

// logIn sets the kubeconfig of the following commands.
func (t *terminal) logIn(config *rest.Config) {
	t.Helper()
	t.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	framework.Must(t, controlplane.WriteKubeconfig(t.kubeconfig, config, t.namespace))
}

// result is the output of a command, and its exit code.
type result struct {
	stdout, stderr string
	code           int
}

// command returns a command. Commands that wait for the controller get a longer timeout than the default.
func (t *terminal) command(args ...string) *exec.Cmd {
	if waits := slices.Contains([]string{"create", "reveal", "rotate"}, args[0]); waits && !strings.Contains(strings.Join(args, " "), "--timeout") {
		args = append(slices.Clone(args), "--timeout="+framework.Timeout.String())
	}
	command := exec.CommandContext(t.Context(), program, args...)
	command.Env = []string{"KUBECONFIG=" + t.kubeconfig, "HOME=" + filepath.Dir(t.kubeconfig)}
	return command
}

// run runs a command without recording it.
func (t *terminal) run(args ...string) result {
	t.Helper()
	return t.start(t.command(args...))()
}

// start starts a command. wait returns its result when it has ended.
func (t *terminal) start(command *exec.Cmd) (wait func() result) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	framework.Must(t, command.Start())
	return func() result {
		t.Helper()
		var exit *exec.ExitError
		if err := command.Wait(); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return result{stdout: stdout.String(), stderr: stderr.String(), code: command.ProcessState.ExitCode()}
	}
}

const outputClosed = "the standard output is closed, and the token would be lost: write it to a file that only you can read"

// runClosed runs a command whose standard output is closed.
func (t *terminal) runClosed(args ...string) result {
	t.Helper()
	command := t.command(args...)
	command.Path, command.Args = "/bin/sh", append([]string{"sh", "-c", `exec "$0" "$@" >&-`}, command.Args...)
	return t.start(command)()
}

// types runs a command, and records it with its output.
func (t *terminal) types(args ...string) result {
	t.Helper()
	got := t.run(args...)
	t.record(args, got)
	return got
}

func (t *terminal) record(args []string, got result) {
	t.session.WriteString("$ kubectl apikey")
	for _, arg := range args {
		if strings.ContainsAny(arg, " '{}") || arg == "" {
			arg = "'" + arg + "'"
		}
		t.session.WriteString(" " + arg)
	}
	t.session.WriteString("\n" + got.stdout)
	for line := range strings.Lines(got.stderr) {
		t.session.WriteString("[stderr] " + line)
	}
	if got.code != 0 {
		fmt.Fprintf(&t.session, "[exit code %d]\n", got.code)
	}
	t.session.WriteString("\n")
}

// masks replace text that differs between runs with text of the same length.
var masks = []struct {
	what *regexp.Regexp
	by   string
}{
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "00000000-0000-0000-0000-000000000000"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "2026-01-01T00:00:00Z"},
	{regexp.MustCompile(`\bsq_[-_A-Za-z0-9]{43}`), "sq_" + strings.Repeat("x", 43)},
	{regexp.MustCompile(`\bsq_[-_A-Za-z0-9]{4}([^-_A-Za-z0-9])`), "sq_xxxx$1"},
	{regexp.MustCompile(`sha256:[0-9a-f]{64}`), "sha256:" + strings.Repeat("0", 64)},
	{regexp.MustCompile(`\b(frontend|frontend-app|ci-pipeline|partner)-[a-z2-7]{8}\b`), "$1-xxxxxxxx"},
	{regexp.MustCompile(`\btest-[a-z0-9]{5}\b`), "test-xxxxx"},
	{regexp.MustCompile(`resourceVersion(": "|: ")\d+`), "resourceVersion${1}0"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "127.0.0.1:0"},
	{regexp.MustCompile(`/\S+/kubeconfig\b`), "/home/user/kubeconfig"},
}

// assertGolden compares the record with the golden file of the test.
func (t *terminal) assertGolden() {
	t.Helper()
	got := t.session.String()
	for _, mask := range masks {
		got = mask.what.ReplaceAllString(got, mask.by)
	}
	path := filepath.Join("testdata", t.Name()+".golden")
	if *update {
		framework.Must(t, os.MkdirAll("testdata", 0o755))
		framework.Must(t, os.WriteFile(path, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	framework.Must(t, err)
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("the output differs from %s, which -update writes (-want +got):\n%s", path, diff)
	}
}

func (t *terminal) keys() []v1alpha1.APIKey {
	t.Helper()
	list := &v1alpha1.APIKeyList{}
	framework.Must(t, t.env.Client.List(t.Context(), list, client.InNamespace(t.namespace)))
	return list.Items
}

// key returns the only key with this app name.
func (t *terminal) key(appName string) *v1alpha1.APIKey {
	t.Helper()
	var found *v1alpha1.APIKey
	keys := t.keys()
	for i := range keys {
		if keys[i].Spec.AppName == appName {
			if found != nil {
				t.Fatalf("several keys have the app name %q", appName)
			}
			found = &keys[i]
		}
	}
	if found == nil {
		t.Fatalf("no key has the app name %q", appName)
	}
	return found
}

// secret returns a Secret, or nil.
func (t *terminal) secret(name string) *corev1.Secret {
	t.Helper()
	secret := &corev1.Secret{}
	err := t.env.Client.Get(t.Context(), client.ObjectKey{Namespace: t.namespace, Name: name}, secret)
	if apierrors.IsNotFound(err) {
		return nil
	}
	framework.Must(t, err)
	return secret
}

// apply creates an APIKey, as a user does with kubectl apply.
func (t *terminal) apply(name string, change ...func(*v1alpha1.APIKey)) *v1alpha1.APIKey {
	t.Helper()
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: t.namespace, Name: name},
		Spec:       v1alpha1.APIKeySpec{AppName: "App " + name, ReadAccess: true},
	}
	for _, c := range change {
		c(key)
	}
	framework.Must(t, t.env.Client.Create(t.Context(), key))
	return key
}

// awaitReason waits until the Ready condition of a key has this reason.
func (t *terminal) awaitReason(name, wanted string) {
	t.Helper()
	framework.Eventually(t, "the reason of "+name+" is "+wanted, func() bool {
		key := &v1alpha1.APIKey{}
		framework.Must(t, t.env.Client.Get(t.Context(), client.ObjectKey{Namespace: t.namespace, Name: name}, key))
		return reason(key) == wanted && key.Status.ObservedGeneration == key.Generation
	})
}

// assertTokenOf checks that this is the token of an issued key.
func (t *terminal) assertTokenOf(key *v1alpha1.APIKey, plaintext string) {
	t.Helper()
	if !apikey.IsIssued(key) || key.Status.Tokens[0].Hash != token.Hash(plaintext) {
		t.Errorf("%q is not issued, or has another token", key.Name)
	}
}

func TestLifecycleOfAKey(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.types("list")
	terminal.types("create", "Frontend App", "-r")
	frontend := terminal.key("Frontend App")
	framework.Eventually(terminal, "the next key is created in another second", func() bool {
		return time.Now().After(frontend.CreationTimestamp.Add(time.Second))
	})
	terminal.types("create", "CI-Pipeline", "--write", "--read", "--expires-in=30d")
	terminal.types("create", "Frontend App", "-w")
	terminal.types("list")
	terminal.types("list", "-o", "wide", "--no-headers")
	terminal.types("count")
	terminal.types("deactivate", string(frontend.UID))
	terminal.types("deactivate", frontend.Name)
	terminal.types("deactivate", "unknown", "10000000-0000-0000-0000-000000000000", terminal.key("CI-Pipeline").Name)
	terminal.types("list")
	terminal.types("list", "--active-only")
	terminal.types("count", "-a")
	terminal.types("create", "Frontend App", "-w")
	terminal.types("count", "-a")
	terminal.assertGolden()
}

func TestUsageErrors(t *testing.T) {
	terminal := newTerminal(t)
	for _, line := range []string{
		"create",
		"create Frontend App -r",
		"create App",
		"create App -r --expires-at=tomorrow",
		"create App -r --expires-at=2020-01-01T00:00:00Z",
		"create App -r --expires-in=soon",
		"create App -r --expires-in=5",
		"create App -r --secret-ttl=60",
		"create App -r --dry-run=yes",
		"create App -r --dry-run server",
		"create App -r --labels=team",
		"create App -r --expires-in=1h --expires-at=2099-01-01T00:00:00Z",
		"create App -x",
		"create App -r --timeout=0",
		"create App -r --manager",
		"reveal partner --timeout=-1s",
		"list everything",
		"list -o pretty",
		"list -l team=blue=green",
		"list --field-selector=metadata.name",
		"list --chunk-size=-1",
		"list --unused=90",
		"list --unused=1h",
		"list --unused=never",
		"list --expiring=0s",
		"list --expiring=-1d",
		"count everything",
		"count --unused=0d",
		"prune",
		"prune partner --ended-before=90d",
		"prune --ended-before=90",
		"prune --ended-before=90d --dry-run=yes",
		"prune --ended-before=90d -l team=blue=green",
		"prune --ended-before=90d -o pretty",
		"whose sq_0123",
		"whose --token=sq_0123",
		"whose -o pretty",
		"export partner -l team=blue",
		"deactivate",
		"reveal",
		"rotate",
		"rotate partner other",
		"rotate partner --overlap=soon",
		"rotate partner --overlap=5",
		"rotate partner --overlap=-1h",
		"rotate partner --timeout=0s",
		"rotate partner -o pretty",
		"renew",
		"remove",
		"get",
		"lst",
		"options everything",
	} {
		if got := terminal.types(strings.Fields(line)...); got.code != exitUsage {
			t.Errorf("kubectl apikey %s: exit code %d", line, got.code)
		}
	}
	if keys := terminal.keys(); len(keys) != 0 {
		t.Errorf("the keys are %v", keys)
	}
	terminal.assertGolden()
}
