// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/runcontroller"
)

func TestTheLifeOfAKey(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.types("list")
	terminal.types("create", "Frontend App", "-r")
	frontend := terminal.key("Frontend App")
	framework.Eventually(terminal, "the next second comes, so that the order is known", func() bool {
		return time.Now().After(frontend.CreationTimestamp.Add(time.Second))
	})
	terminal.types("create", "CI-Pipeline", "--write", "--read", "--expires-in=30d")
	terminal.types("create", "Frontend App", "-w")
	terminal.types("list")
	terminal.types("list", "-o", "wide", "--no-headers")
	terminal.types("count")
	terminal.types("deactivate", string(frontend.UID))
	terminal.types("deactivate", frontend.Name)
	terminal.types("deactivate", "nobody", "10000000-0000-0000-0000-000000000000", terminal.key("CI-Pipeline").Name)
	terminal.types("list")
	terminal.types("list", "--active-only")
	terminal.types("count", "-a")
	terminal.types("create", "Frontend App", "-w")
	terminal.types("count", "-a")
	terminal.assertGolden()
}

func TestAKeyIsCreatedAsAManager(t *testing.T) {
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

func TestACreatedKeyIsPrintedWithItsTokenInEveryFormat(t *testing.T) {
	terminal := newTerminalWithController(t)
	printed := terminal.types("create", "Frontend App", "-r", "-o", "jsonpath={.token}")
	terminal.assertTokenOf(terminal.key("Frontend App"), printed.stdout)
	terminal.types("create", "CI-Pipeline", "-r", "-o", "yaml")
	terminal.types("create", "Third", "-r", "-o", "go-template={{range .status.conditions}}{{.reason}} {{end}}{{.token}}")
	terminal.types("create", "Partner", "-w", "--secret", "-o", "name")
	terminal.assertGolden()
}

func TestAKeyThatCouldNotBePrintedIsNotMade(t *testing.T) {
	terminal := newTerminal(t)
	terminal.types("create", "Frontend App", "-r", "-o", "name")
	terminal.types("create", "Frontend App", "-r", "-o", "jsonpath={.tokn}")
	terminal.types("create", "Frontend App", "-r", "--template={{printf \"%.9s\" .token}}")
	terminal.types("create", "Frontend App", "-r", "--wait=false", "-o", "go-template={{if .status}}{{.token}}{{end}}")
	terminal.types("create", "Frontend App", "-r", "-o", "jsonpath={.token")
	terminal.types("create", "Frontend App", "-r", "-o", "pretty")
	if keys := terminal.keys(); len(keys) != 0 {
		t.Errorf("there are keys: %v", keys)
	}
	terminal.assertGolden()
}

func TestNothingIsLeftOfAKeyWhosePrintingFailed(t *testing.T) {
	terminal := newTerminalWithController(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	framework.Must(terminal, err)
	defer func() { framework.Must(terminal, full.Close()) }()
	for _, args := range [][]string{{}, {"-o", "json"}, {"--wait=false"}, {"--secret"}} {
		var stderr strings.Builder
		command := terminal.command(append([]string{"create", "Frontend App", "-r"}, args...)...)
		command.Stdout, command.Stderr = full, &stderr
		_ = command.Run() // its exit code tells
		want := "Error: no key was created: it could not be printed: write /dev/stdout: no space left on device\n"
		if code := command.ProcessState.ExitCode(); code != exitFailure || stderr.String() != want {
			t.Errorf("create %v: exit code %d, %s", args, code, &stderr)
		}
		framework.Eventually(terminal, "the key is gone", func() bool { return len(terminal.keys()) == 0 })
	}
}

func TestNobodyCanApplyWhatIsPrintedWithAToken(t *testing.T) {
	terminal := newTerminalWithController(t)
	printed := terminal.run("create", "Frontend App", "-r", "-o", "json")
	file := filepath.Join(t.TempDir(), "created.json")
	framework.Must(terminal, os.WriteFile(file, []byte(printed.stdout), 0o600))
	output, err := terminal.env.Kubectl(t, "apply", "-f", file)
	if err == nil || !strings.Contains(output, `no matches for kind "CreatedAPIKey" in version "keys.squirrel.dev/v1alpha1"`) {
		t.Errorf("kubectl apply says %s", output)
	}
}

func TestListsInTheFormatsOfKubectl(t *testing.T) {
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

func TestAListOfAllNamespacesTellsThem(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.run("create", "Frontend App", "-r")
	key := terminal.key("Frontend App")
	got := terminal.run("list", "-A")
	if !strings.HasPrefix(got.stdout, "NAMESPACE ") || !strings.Contains(got.stdout, "\n"+terminal.namespace+"   "+string(key.UID)) {
		t.Errorf("the list is:\n%s", got.stdout)
	}
}

func TestALongListIsReadPageByPage(t *testing.T) {
	terminal := newTerminal(t)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		terminal.declare(name)
	}
	pages := 0
	ofTwo := interceptor.NewClient(terminal.env.Client, interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			pages++
			return c.List(ctx, list, append(options, client.Limit(2))...)
		},
	})
	keys, err := (&session{WithWatch: ofTwo}).keys(t.Context(), terminal.namespace)
	framework.Must(terminal, err)
	if len(keys) != 5 || pages != 3 {
		t.Errorf("%d keys in %d pages", len(keys), pages)
	}
}

func TestATokenIsRevealedOnce(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.types("create", "Partner", "-r", "--secret-name=partner-token", "--secret-key=key", "--secret-ttl=1h")
	key := terminal.key("Partner")
	if spec := key.Spec.Secret; spec == nil || spec.Name != "partner-token" || spec.Key != "key" || spec.TTL.Duration != time.Hour {
		t.Errorf("the Secret is declared as %+v", spec)
	}
	revealed := terminal.types("reveal", key.Name)
	terminal.assertTokenOf(key, strings.TrimSuffix(revealed.stdout, "\n"))
	if terminal.secret("partner-token") != nil {
		t.Error("the Secret is still there")
	}
	terminal.types("reveal", key.Name)
	terminal.assertGolden()
}

func TestOfManyWhoRevealATokenOneGetsIt(t *testing.T) {
	const many = 8
	terminal := newTerminalWithController(t)
	terminal.declare("partner")
	terminal.await("partner", v1alpha1.ReasonIssued)
	results := make([]result, many)
	var revealing sync.WaitGroup
	for i := range results {
		revealing.Go(func() { results[i] = terminal.run("reveal", "partner") })
	}
	revealing.Wait()
	got := 0
	for _, result := range results {
		switch {
		case result.code == 0:
			terminal.assertTokenOf(terminal.key("App partner"), strings.TrimSuffix(result.stdout, "\n"))
			got++
		case result.code != exitFailure || result.stdout != "":
			t.Errorf("one who got no token saw %+v", result)
		}
	}
	if got != 1 {
		t.Errorf("%d got the token", got)
	}
}

func TestATokenIsAwaitedBeforeItIsRevealed(t *testing.T) {
	terminal := newTerminal(t)
	terminal.declare("partner")
	terminal.types("reveal", "partner", "--wait=false")
	terminal.types("reveal", "partner", "--timeout=300ms")
	runcontroller.Start(t, terminal.env, terminal.namespace)
	revealed := terminal.types("reveal", "partner")
	terminal.assertTokenOf(terminal.key("App partner"), strings.TrimSuffix(revealed.stdout, "\n"))
	terminal.assertGolden()
}

func TestWhatIsNotTheKeysTokenIsNotRevealed(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.declare("brought", func(key *v1alpha1.APIKey) { key.Spec.TokenHash = token.Hash(token.New()) })
	terminal.declare("ended")
	terminal.declare("replaced")
	for _, name := range []string{"brought", "ended", "replaced"} {
		terminal.await(name, v1alpha1.ReasonIssued)
	}
	terminal.run("deactivate", "ended")
	forged := terminal.secret("replaced-token")
	framework.Must(terminal, terminal.env.Client.Delete(t.Context(), forged))
	forged.ResourceVersion, forged.UID = "", ""
	forged.Data = map[string][]byte{"token": []byte(token.New())}
	framework.Must(terminal, terminal.env.Client.Create(t.Context(), forged))

	terminal.types("reveal", "brought")
	terminal.types("reveal", "ended")
	terminal.types("reveal", "replaced")
	terminal.types("reveal", "nobody")
	if terminal.secret("replaced-token") == nil {
		t.Error("a Secret that is not the key's was deleted")
	}
	terminal.assertGolden()
}

func TestAKeyThatIsNamedAsTheIDOfAnotherIsNotTakenForIt(t *testing.T) {
	terminal := newTerminalWithController(t)
	victim := terminal.declare("victim")
	id := string(victim.UID)
	decoy := terminal.declare(id, func(key *v1alpha1.APIKey) { key.Spec.AppName = "Decoy" })
	for _, name := range []string{"victim", id} {
		terminal.await(name, v1alpha1.ReasonIssued)
	}
	want := `Error: "` + id + `" is the name of one key and the ID of another: for the one of this name give its ID, "` + string(decoy.UID) +
		`"; for the one of this ID give its name, "victim"` + "\n"
	for _, command := range []string{"deactivate", "reveal", "export"} {
		if got := terminal.run(command, id); got != (result{stderr: want, code: exitFailure}) {
			t.Errorf("%s: %+v", command, got)
		}
	}
	for _, key := range terminal.keys() {
		if !keyclient.IsActive(&key, time.Now()) || terminal.secret(key.Status.SecretName) == nil {
			t.Errorf("%q was ended, or its token taken", key.Name)
		}
	}
	for argument, wanted := range map[string]string{string(decoy.UID): id, "victim": "victim"} {
		if got := terminal.run("deactivate", argument, "-o", "name"); got.stdout != "apikey.keys.squirrel.dev/"+wanted+"\n" {
			t.Errorf("deactivate %s: %+v", argument, got)
		}
	}
}

func TestAKeyThatCannotBeReadIsListedAndNotExported(t *testing.T) {
	terminal := newTerminal(t)
	terminal.declare("broken")
	terminal.env.UpdateInEtcd(t, terminal.namespace, "broken", func(object map[string]any) {
		object["spec"].(map[string]any)["readAccess"] = "true"
	})
	if got := terminal.run("list", "-o", "name"); got != (result{stdout: "apikey.keys.squirrel.dev/broken\n"}) {
		t.Errorf("list: %+v", got)
	}
	refusal := fmt.Sprintf("APIKey \"broken\" in namespace %q is not exported: fields of it cannot be read (spec.readAccess)\n", terminal.namespace)
	want := result{stderr: "Exported 0 keys. Left out 0 that are not active, and 0 bootstrap keys.\nError: " + refusal, code: exitFailure}
	if got := terminal.run("export"); got != want {
		t.Errorf("export: %+v", got)
	}
	if got := terminal.run("export", "broken"); got != (result{stderr: "Error: " + refusal, code: exitFailure}) {
		t.Errorf("export broken: %+v", got)
	}
}

func TestAnExportMakesTheSameTokensGoodElsewhere(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.declare("a-minted", func(key *v1alpha1.APIKey) {
		key.Spec.WriteAccess = true
		key.Spec.ExpiresAt = new(metav1.NewTime(time.Now().Add(time.Hour)))
		key.Spec.Secret = &v1alpha1.TokenSecret{Name: "minted"}
		key.Labels = map[string]string{"team": "blue", v1alpha1.LabelManager: "true"}
		key.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: "{}", "purpose": "test"}
	})
	terminal.declare("b-brought", func(key *v1alpha1.APIKey) { key.Spec.TokenHash = token.Hash(token.New()) })
	terminal.declare("c-ended")
	terminal.declare("d-bootstrap", func(key *v1alpha1.APIKey) { key.Labels = map[string]string{v1alpha1.LabelBootstrap: "true"} })
	for _, name := range []string{"a-minted", "b-brought", "c-ended", "d-bootstrap"} {
		terminal.await(name, v1alpha1.ReasonIssued)
	}
	terminal.run("deactivate", "c-ended")
	terminal.await("c-ended", v1alpha1.ReasonDeactivated)
	terminal.types("export")
	terminal.types("export", "-o", "json", "a-minted")
	terminal.types("export", "c-ended", "b-brought", "nobody")
	terminal.types("export", "d-bootstrap")
	terminal.types("export", "-o", "table")
	terminal.types("export", "-A", "a-minted")
	terminal.assertGolden()

	other := newTerminalBeside(terminal)
	manifests := strings.ReplaceAll(terminal.run("export").stdout, "namespace: "+terminal.namespace, "namespace: "+other.namespace)
	other.apply(manifests)
	other.apply(manifests) // again, as from Git
	for _, name := range []string{"a-minted", "b-brought"} {
		other.await(name, v1alpha1.ReasonIssued)
		if there, here := other.key("App "+name), terminal.key("App "+name); there.Status.Tokens[0].Hash != here.Status.Tokens[0].Hash {
			t.Errorf("%s has another token there", name)
		}
	}
}

// newTerminalBeside returns a terminal in another namespace whose keys are issued.
func newTerminalBeside(t *terminal) *terminal {
	t.Helper()
	other := &terminal{T: t.T, env: t.env, namespace: t.env.Namespace(t)}
	runcontroller.Start(t, t.env, other.namespace)
	return other
}

func (t *terminal) apply(manifests string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "manifests.yaml")
	framework.Must(t, os.WriteFile(file, []byte(manifests), 0o600))
	_, err := t.env.Kubectl(t, "apply", "-f", file)
	framework.Must(t, err)
}

func TestMistakesAreToldWithTheRightUsage(t *testing.T) {
	terminal := newTerminal(t)
	for _, line := range []string{
		"create",
		"create Frontend App -r",
		"create App",
		"create App -r --expires-at=tomorrow",
		"create App -r --expires-at=2020-01-01T00:00:00Z",
		"create App -r --expires-in=soon",
		"create App -r --expires-in=1h --expires-at=2099-01-01T00:00:00Z",
		"create App -x",
		"create App -r --timeout=0",
		"create App -r --manager",
		"reveal partner --timeout=-1s",
		"list everything",
		"list -o pretty",
		"deactivate",
		"reveal",
		"remove",
	} {
		if got := terminal.types(strings.Fields(line)...); got.code != exitUsage {
			t.Errorf("kubectl apikey %s: exit code %d", line, got.code)
		}
	}
	if keys := terminal.keys(); len(keys) != 0 {
		t.Errorf("there are keys: %v", keys)
	}
	terminal.assertGolden()
}

func TestFailuresAreToldInPlainWords(t *testing.T) {
	terminal := newTerminal(t)
	terminal.types("create", "\tFrontend", "-r")
	terminal.types("create", "Frontend App", "-r", "-n", "no-such-namespace")
	terminal.types("create", "Frontend App", "-r", "--timeout=300ms")
	if keys := terminal.keys(); len(keys) != 0 {
		t.Errorf("left: %v", keys)
	}
	// Not served: the same answer as of a cluster without the CustomResourceDefinition.
	terminal.types("list", "--server="+terminal.env.Config.Host+"/nowhere")
	terminal.types("create", "Frontend App", "-r", "--server="+terminal.env.Config.Host+"/nowhere")
	terminal.types("reveal", "partner", "--server="+terminal.env.Config.Host+"/nowhere")
	terminal.types("list", "--server=https://127.0.0.1:1")
	terminal.types("list", "--context=nowhere")
	anonymous := rest.AnonymousClientConfig(terminal.env.Config)
	anonymous.BearerToken = "not a token"
	terminal.logIn(anonymous)
	terminal.types("list")
	terminal.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	terminal.types("list")
	terminal.types("list", "--kubeconfig=no-such-file")
	terminal.assertGolden()
}

func TestWithoutPermissionTheRoleThatLacksIsNamed(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.declare("partner")
	terminal.await("partner", v1alpha1.ReasonIssued)
	terminal.logIn(terminal.env.User(t, "jane"))
	terminal.types("list")
	terminal.allow("jane", "get", "list")
	terminal.types("count")
	terminal.types("create", "Frontend App", "-r")
	terminal.types("deactivate", "partner")
	terminal.types("reveal", "partner")
	terminal.assertGolden()
}

// allow lets a user do this with the namespace's keys.
func (t *terminal) allow(user string, verbs ...string) {
	t.Helper()
	metadata := metav1.ObjectMeta{Namespace: t.namespace, Name: user}
	framework.Must(t, t.env.Client.Create(t.Context(), &rbacv1.Role{
		ObjectMeta: metadata,
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"apikeys"}, Verbs: verbs}},
	}))
	framework.Must(t, t.env.Client.Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metadata,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: user},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}))
	framework.Eventually(t, "the permission is in force", func() bool { return t.run("list").code == 0 })
}

func TestCtrlCWhileAKeyIsCreatedLeavesNothing(t *testing.T) {
	terminal := newTerminal(t)
	command := terminal.command("create", "Frontend App", "-r", "--timeout=1h")
	wait := terminal.start(command)
	framework.Eventually(terminal, "the key is declared", func() bool { return len(terminal.keys()) == 1 })
	framework.Must(terminal, command.Process.Signal(syscall.SIGINT))
	terminal.record(command.Args[1:], wait())
	if keys := terminal.keys(); len(keys) != 0 {
		t.Errorf("left: %v", keys)
	}
	terminal.assertGolden()
}

func TestAKeyThatIsNotWaitedForStays(t *testing.T) {
	terminal := newTerminal(t)
	terminal.types("create", "Frontend App", "-r", "--wait=false")
	terminal.types("create", "Partner", "-r", "--wait=false", "--secret")
	if key := terminal.key("Frontend App"); apikey.IsIssued(key) {
		t.Error("it is issued")
	}
	terminal.assertGolden()
}

// kubectl finds the plugin and what completes its arguments in the PATH.
func TestKubectlRunsAndCompletesThePlugin(t *testing.T) {
	terminal := newTerminal(t)
	for _, name := range []string{"a", "b"} {
		terminal.declare(name)
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
