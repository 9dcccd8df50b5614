// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/hack/process/processtest"
	"squirrel.dev/apikey-operator/test/framework/testcache"
)

const timeout = 3 * time.Minute

// binary is the path of the built program.
var binary string

// homeVariable makes the test binary run `make run` in the directory that it names.
const homeVariable = "DEV_TEST_HOME"

func TestMain(m *testing.M) {
	if home := os.Getenv(homeVariable); home != "" {
		process.Main(func(ctx context.Context, _ []string) error {
			root, err := controlplane.FindRepository()
			if err != nil {
				return err
			}
			return run(ctx, workspace{root: root, home: home, out: os.Stdout}, false)
		})
		return
	}
	os.Exit(runTests(m))
}

// runTests builds the programs that `make run` and `make demo` start, and runs the tests.
func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "dev-test-")
	if err != nil {
		log.Print(err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary = filepath.Join(dir, "dev")
	for output, pkg := range map[string]string{
		binary:                      ".",
		"../../bin/apikey-operator": "../../cmd/apikey-operator",
		"../../bin/kubectl-apikey":  "../../cmd/kubectl-apikey",
	} {
		if message, err := exec.Command("go", "build", "-o", output, pkg).CombinedOutput(); err != nil {
			log.Printf("%v\n%s", err, message)
			return 1
		}
	}
	if err := testcache.DependOn(append([]string{"cmd", "config"}, testcache.OperatorSources...)...); err != nil {
		log.Print(err)
		return 1
	}
	return m.Run()
}

// program is the program as a separate process. Its descendants inherit its TMPDIR.
type program struct {
	*exec.Cmd
	tmp     string
	lines   chan string // of the output; closed at its end
	printed strings.Builder
}

func startProgram(t *testing.T, args ...string) *program {
	t.Helper()
	return startCommand(t, exec.CommandContext(t.Context(), binary, args...))
}

func startCommand(t *testing.T, command *exec.Cmd) *program {
	t.Helper()
	p := &program{Cmd: command, tmp: t.TempDir(), lines: make(chan string, 1000)}
	p.Env = append(append(os.Environ(), p.Env...), "TMPDIR="+p.tmp)
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	output, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Stderr = p.Stdout // for the messages of failed tests
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP) // otherwise the program inherits from nohup that it is ignored
	t.Cleanup(func() { signal.Stop(hangups) })
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for scanner := bufio.NewScanner(output); scanner.Scan(); {
			p.lines <- scanner.Text()
		}
	}()
	return p
}

// waitFor waits for a line with a prefix.
func (p *program) waitFor(t *testing.T, prefix string) {
	t.Helper()
	deadline := time.After(timeout)
	for {
		select {
		case line, more := <-p.lines:
			if !more {
				t.Fatalf("the program ended before it printed %q:\n%s", prefix, p.printed.String())
			}
			p.printed.WriteString(line + "\n")
			if strings.HasPrefix(line, prefix) {
				return
			}
		case <-deadline:
			t.Fatalf("timed out after %s waiting for %q:\n%s", timeout, prefix, p.printed.String())
		}
	}
}

// end returns the output and the exit code, which is -1 after a signal.
func (p *program) end(t *testing.T) (output string, exitCode int) {
	t.Helper()
	for line := range p.lines {
		p.printed.WriteString(line + "\n")
	}
	if err := p.Wait(); err != nil {
		if exit := (&exec.ExitError{}); !errors.As(err, &exit) {
			t.Fatal(err)
		}
	}
	return p.printed.String(), p.ProcessState.ExitCode()
}

func TestDemo_PrintsTheTourAndLeavesNoProcess(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	demo := startProgram(t, "demo")
	output, exitCode := demo.end(t)

	g.Expect(exitCode).To(Equal(0), output)
	g.Expect(output).To(MatchRegexp(`(?s)` + strings.Join([]string{
		`apikey\.keys\.squirrel\.dev/frontend created`,
		`sha256:[0-9a-f]{64}`,
		`sq_....\.\.\.`,
		`X-Forwarded-Method: GET`, `200 OK`, `X-Auth-App: Frontend%20App`,
		`X-Forwarded-Method: POST`, `401 Unauthorized`, `API key does not have write access`,
		`"overlap": "5s"`, `apikey\.keys\.squirrel\.dev/frontend patched`, `condition met`,
		`X-Forwarded-Method: GET`, `200 OK`, `sq_....\.\.\.`, `X-Forwarded-Method: GET`, `200 OK`,
		`X-Forwarded-Method: GET`, `401 Unauthorized`,
		`apikey\.keys\.squirrel\.dev/frontend patched`,
		`X-Forwarded-Method: GET`, `401 Unauthorized`,
		`-rw------- .*/\.api_key`, `[0-9a-f]{7}\.\.\.`,
		`POST http.*/api-keys`, `X-API-Key: [0-9a-f]{7}\.\.\.`, `200 OK`, `"app_name":"Partner Portal","token":"sq_....\.\.\."`,
		`X-Forwarded-Method: GET`, `200 OK`, `X-Auth-App: Partner%20Portal`,
		`GET http.*/api-keys`, `200 OK`, `"app_name":"Partner Portal","hint":"sq_....","read_access":true`,
		`GET http.*/api-keys/count\?active_only=true`, `200 OK`, `"payload":2`,
		`DELETE http.*/api-keys/`, `200 OK`, `"is_active":false`,
		`X-Forwarded-Method: GET`, `401 Unauthorized`,
		`All responses were as expected`,
	}, ".*")))
	g.Expect(mintedToken.FindString(output)).To(BeEmpty(), "a complete token is printed")
	g.Expect(output).NotTo(MatchRegexp(`[^:0-9a-f][0-9a-f]{64}`), "the complete bootstrap key is printed")
	g.Expect(processtest.WithTMPDIR(t, demo.tmp)).To(BeEmpty())
	g.Expect(os.ReadDir(demo.tmp)).To(BeEmpty())
}

func TestDemo_InterruptedLeavesNoProcess(t *testing.T) {
	t.Parallel()
	for _, moment := range []struct {
		line   string
		signal syscall.Signal
	}{
		{"Starting a Kubernetes control plane", syscall.SIGINT},
		{"Installing", syscall.SIGHUP},
		{"4. ", syscall.SIGTERM},
	} {
		t.Run(moment.signal.String()+" at "+moment.line, func(t *testing.T) {
			g := NewWithT(t)
			demo := startProgram(t, "demo")
			demo.waitFor(t, moment.line)
			g.Expect(syscall.Kill(-demo.Process.Pid, moment.signal)).To(Succeed()) // to the process group, as a terminal does
			output, exitCode := demo.end(t)

			g.Expect(exitCode).To(Equal(130), output)
			g.Expect(processtest.WithTMPDIR(t, demo.tmp)).To(BeEmpty())
			g.Expect(os.ReadDir(demo.tmp)).To(BeEmpty())
		})
	}
}

func TestDemo_KilledLeavesNoProcess(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	demo := startProgram(t, "demo")
	demo.waitFor(t, "Starting the authenticator")
	g.Expect(processtest.WithTMPDIR(t, demo.tmp)).NotTo(BeEmpty())
	g.Expect(demo.Process.Kill()).To(Succeed())
	demo.end(t)

	g.Eventually(func() []string { return processtest.WithTMPDIR(t, demo.tmp) }).WithTimeout(timeout).Should(BeEmpty())
}

// running is `make run` in the process of the test.
type running struct {
	lines *bufio.Scanner
	stop  context.CancelFunc
	ended chan error
}

func startRun(t *testing.T, w workspace) *running {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	w.out = writer
	r := &running{lines: bufio.NewScanner(reader), stop: stop, ended: make(chan error, 1)}
	go func() {
		r.ended <- run(ctx, w, false)
		_ = writer.Close()
	}()
	for r.lines.Scan() {
		if r.lines.Text() == "ready" {
			go func() { _, _ = io.Copy(io.Discard, reader) }()
			return r
		}
	}
	t.Fatalf("the run ended before it was ready: %v", <-r.ended)
	return nil
}

func TestRun_KeepsItsDataUntilAReset(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	root, err := controlplane.FindRepository()
	g.Expect(err).NotTo(HaveOccurred())
	w := workspace{root: root, home: t.TempDir(), out: io.Discard}
	env := filepath.Join(w.home, "env")

	command := exec.CommandContext(t.Context(), os.Args[0])
	command.Env = []string{homeVariable + "=" + w.home}
	first := startCommand(t, command)
	first.waitFor(t, "ready")
	g.Expect(probeObjects(t, env)).To(BeEmpty())
	g.Expect(shell(t, env, `"$KUBECTL" get clusterroles apikey-viewer apikey-editor --output name`)).To(Equal(
		"clusterrole.rbac.authorization.k8s.io/apikey-viewer\nclusterrole.rbac.authorization.k8s.io/apikey-editor\n"))
	uid := shell(t, env, `"$KUBECTL" get apikey frontend --output 'jsonpath={.metadata.uid}'`)
	g.Expect(shell(t, env, `TOKEN=$("$KUBECTL" get secret frontend-token --output go-template='{{.data.token | base64decode}}')
		printf '%s %s' "$AUTH_URL" "${#TOKEN}"`)).To(MatchRegexp(`^http://127\.0\.0\.1:[0-9]+ 46$`))
	bootstrapKey := shell(t, env, `cat "$API_KEY_FILE"`)
	list := apiRequest{method: http.MethodGet, url: shell(t, env, `printf %s "$CONSOLE_URL"`) + "/api/v1/api-keys", key: strings.TrimSpace(bootstrapKey)}
	keys, err := list.send(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(keys.body).To(MatchRegexp(`^\{"errorCode":0,.*"app_name":"Frontend App"`))
	g.Expect(run(t.Context(), w, false)).To(MatchError(ContainSubstring("is running already")))
	shell(t, env, fmt.Sprintf(`"$KUBECTL" create --filename - <<END
apiVersion: keys.squirrel.dev/v1alpha1
kind: APIKey
metadata: {namespace: %[1]s, name: %[2]s}
spec: {appName: Killed Probe, readAccess: true, secret: {name: %[2]s}}
END
		"$KUBECTL" wait apikey %[2]s --namespace %[1]s --for=condition=Ready`, systemNamespace, probeName))
	g.Expect(first.Process.Kill()).To(Succeed())
	first.end(t)

	second := startRun(t, w)
	g.Expect(shell(t, env, `"$KUBECTL" create --filename - <<END
apiVersion: keys.squirrel.dev/v1alpha1
kind: APIKey
metadata: {name: at-once}
spec: {appName: At Once, readAccess: true}
END
		"$KUBECTL" wait apikey at-once --for=condition=Ready --timeout=10s`)).To(ContainSubstring("condition met"))
	shell(t, env, `"$KUBECTL" delete apikey at-once`)
	g.Expect(probeObjects(t, env)).To(BeEmpty())
	g.Expect(shell(t, env, `"$KUBECTL" get apikey frontend --output 'jsonpath={.metadata.uid}'`)).To(Equal(uid))
	g.Expect(shell(t, env, `cat "$API_KEY_FILE"`)).To(Equal(bootstrapKey))
	t.Run("and then the walk-throughs of docs/management work", func(t *testing.T) { testWalkThroughs(t, w.home) })
	shell(t, env, `"$KUBECTL" patch apikey frontend $("$KUBECTL" get apikeys --selector keys.squirrel.dev/bootstrap --output name | cut -d/ -f2) \
		--type merge --patch '{"spec": {"active": false}}'
		"$KUBECTL" wait secret frontend-token --for=delete --timeout=10s`)
	second.stop()
	g.Expect(<-second.ended).To(Succeed())
	g.Expect(env).NotTo(BeAnExistingFile())

	third := startRun(t, w)
	g.Expect(shell(t, env, `"$KUBECTL" get secret frontend-token --output name`)).To(Equal("secret/frontend-token\n"))
	g.Expect(shell(t, env, `cat "$API_KEY_FILE"`)).NotTo(Equal(bootstrapKey))
	g.Expect(shell(t, env, `curl -sS --output /dev/null --write-out '%{http_code}' --header "X-API-Key: $(cat "$API_KEY_FILE")" \
		"$CONSOLE_URL/api/v1/api-keys"`)).To(Equal("200"))
	third.stop()
	g.Expect(<-third.ended).To(Succeed())

	interrupted, interrupt := context.WithCancel(t.Context())
	interrupt()
	g.Expect(run(interrupted, w, true)).To(MatchError(context.Canceled))
	g.Expect(filepath.Join(w.home, "data", "etcd", "member")).NotTo(BeADirectory())
}

// probeObjects returns the names of the keys and the Secrets in the namespace of the probe.
func probeObjects(t *testing.T, env string) string {
	t.Helper()
	return shell(t, env, "\"$KUBECTL\" get apikeys,secrets --ignore-not-found --output name --namespace "+systemNamespace)
}

// shell runs a script after the environment file, and returns its output.
func shell(t *testing.T, env, script string) string {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), "sh", "-euc", ". "+shellQuote(env)+"\n"+script).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return string(output)
}

func TestStartOnFreePorts_ChoosesOthersWhenAnotherProgramTakesAPort(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	var out strings.Builder
	s := &stack{workspace: workspace{out: &out}, anyPorts: true}
	var taken, used int
	g.Expect(s.startOnFreePorts(func(ports []int) error {
		if taken == 0 {
			taken = ports[0]
			other, err := net.Listen("tcp", address(taken))
			g.Expect(err).NotTo(HaveOccurred())
			t.Cleanup(func() { _ = other.Close() })
		}
		server, err := net.Listen("tcp", address(ports[0]))
		if err != nil {
			return err
		}
		used = ports[0]
		return server.Close()
	}, authenticatorPort)).To(Succeed())
	g.Expect(used).NotTo(Equal(taken))
	g.Expect(out.String()).To(Equal(fmt.Sprintf("Another program took one of the ports [%d]: choosing others ...\n", taken)))

	attempts := 0
	g.Expect(s.startOnFreePorts(func([]int) error { attempts++; return syscall.EADDRINUSE }, authenticatorPort)).To(MatchError(syscall.EADDRINUSE))
	g.Expect(attempts).To(Equal(portAttempts))
	g.Expect(s.startOnFreePorts(func([]int) error { return syscall.EACCES }, authenticatorPort)).To(MatchError(syscall.EACCES))
}

func TestShellQuote(t *testing.T) {
	for _, word := range []string{"plain", "/a/path", "http://127.0.0.1:1", "", "two words", "it's", `$HOME "quoted" \n`, "*"} {
		output, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+shellQuote(word)).Output()
		if err != nil || string(output) != word {
			t.Errorf("a shell expands %s to %q (%v), want %q", shellQuote(word), output, err, word)
		}
	}
}

func TestMaskTokens(t *testing.T) {
	minted := token.New()
	masked := maskTokens("before " + minted + " after")
	if want := "before " + minted[:7] + "... after"; masked != want {
		t.Errorf("masked is %q, want %q", masked, want)
	}
}

func TestExpectation_Match(t *testing.T) {
	want := expectation{status: http.StatusOK, header: map[string]string{"X-Auth-Access": "read"}, message: "welcome"}
	for _, test := range []struct {
		status       int
		access, body string
		err          string
	}{
		{http.StatusOK, "read", "you are welcome", "<nil>"},
		{http.StatusUnauthorized, "read", "welcome", "the response is 401 Unauthorized, want 200"},
		{http.StatusOK, "write", "welcome", `the header X-Auth-Access of the response is "write", want "read"`},
		{http.StatusOK, "read", "hello", `the response is hello, want "welcome" in it`},
	} {
		got := &apiResponse{body: test.body, Response: &http.Response{
			StatusCode: test.status,
			Status:     fmt.Sprintf("%d %s", test.status, http.StatusText(test.status)),
			Header:     http.Header{"X-Auth-Access": {test.access}},
		}}
		if err := fmt.Sprint(want.match(got)); err != test.err {
			t.Errorf("the error is %s, want %s", err, test.err)
		}
	}
}
