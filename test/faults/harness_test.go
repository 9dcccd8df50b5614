// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package faults_test holds the built program to its promises while what it relies on fails.
package faults_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/testenv"
)

const (
	// patience bounds every wait for something that must come.
	patience = 30 * time.Second
	// poll is how often it is looked for.
	poll = 20 * time.Millisecond
	// anyPort is an address for a server that logs where it listens.
	anyPort = "127.0.0.1:0"
)

// program is the path of the built program.
var program string

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	var err error
	if program, err = build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	testenv.Main(m)
}

// build builds the program with the race detector, whose findings fail the test that ran it. What was built stays: the next run has it
// at once when nothing changed.
func build() (path string, err error) {
	root, err := controlplane.FindRepository()
	if err != nil {
		return "", err
	}
	path = filepath.Join(root, "bin", "race", "apikey-operator")
	command := exec.Command("go", "build", "-race", "-o", path, "./cmd/apikey-operator")
	command.Dir = root
	if output, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", command, err, output)
	}
	return path, nil
}

// operator is a running process of the program.
type operator struct {
	*process.Process
	t          testing.TB
	subcommand string
}

// startProcess runs the program with these arguments, as whom config says. It is killed when the test ends, and fails the test if it
// panicked or had a data race.
func startProcess(t testing.TB, config *rest.Config, args ...string) *operator {
	t.Helper()
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	must(t, controlplane.WriteKubeconfig(kubeconfig, config, metav1.NamespaceDefault))
	o := &operator{t: t, subcommand: args[0]}
	var err error
	o.Process, err = process.Start(t.Context(), process.Command{
		Path: program,
		Args: args,
		Env:  []string{"KUBECONFIG=" + kubeconfig},
		Log:  filepath.Join(dir, "log"),
	})
	must(t, err)
	t.Cleanup(func() {
		o.Kill()
		o.examineLog()
	})
	return o
}

// startController runs a controller without webhook and election, unless the arguments say otherwise.
func startController(t testing.TB, config *rest.Config, args ...string) *operator {
	t.Helper()
	return startProcess(t, config, append([]string{
		"controller", "--webhook=false", "--leader-elect=false", "--health-probe-bind-address=" + anyPort,
	}, args...)...)
}

// startAuthenticator runs an authenticator over plain HTTP.
func startAuthenticator(t testing.TB, config *rest.Config, args ...string) *operator {
	t.Helper()
	return startProcess(t, config, append([]string{
		"authenticator", "--plaintext", "--listen-address=" + anyPort, "--health-probe-bind-address=" + anyPort,
		"--metrics-bind-address=" + anyPort,
	}, args...)...)
}

// printed returns all that the process has printed.
func (o *operator) printed() string {
	o.t.Helper()
	content, err := os.ReadFile(o.Log())
	must(o.t, err)
	return string(content)
}

func (o *operator) examineLog() {
	printed := o.printed()
	for _, fault := range []string{"DATA RACE", "panic"} {
		if strings.Contains(printed, fault) {
			o.t.Errorf("the log of the %s has a %s", o.subcommand, fault)
		}
	}
	if o.t.Failed() {
		o.t.Logf("the log of the %s:\n%s", o.subcommand, printed)
	}
}

// address waits until the process serves and returns where. The authenticator's servers are "authenticator", "metrics" and "health", the
// controller's "health probe".
func (o *operator) address(server string) string {
	o.t.Helper()
	var address string
	eventually(o.t, "the process serves "+server, func() bool {
		select {
		case <-o.Ended():
			o.t.Fatalf("the process ended: %v", o.Err())
		default:
		}
		for line := range strings.Lines(o.printed()) {
			var entry struct{ Msg, Server, Name, Addr string }
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Addr != "" && (entry.Server == server || entry.Name == server) {
				address = entry.Addr
				return true
			}
		}
		return false
	})
	return address
}

// freeAddress returns an address for a server that does not tell which port it got. Nothing holds it until that server listens.
func freeAddress(t testing.TB) string {
	t.Helper()
	port, err := controlplane.FreePort(0)
	must(t, err)
	return "127.0.0.1:" + strconv.Itoa(port)
}

// exit waits for the end of the process and says how it ended: "exit status 0" or "signal: killed".
func (o *operator) exit() string {
	o.t.Helper()
	await(o.t, "the process ends", o.Ended())
	how, _, _ := strings.Cut(o.Err().Error(), "\n")
	return how
}

// proxy stands between a process and the API server.
type proxy struct {
	// config leads a process through the proxy.
	config *rest.Config

	server *httptest.Server
	broken atomic.Bool
}

// startProxy starts a proxy that forwards calls as whom upstream says. An intercept that is not nil is given the handler that forwards,
// and answers in its place; a panic with http.ErrAbortHandler breaks the caller's connection. A call that writes is whole and outlives
// its caller, so that it can be forwarded at any time; one that waits for something gives up when t.Context() is done.
func startProxy(t testing.TB, upstream *rest.Config, intercept func(forward http.Handler) http.Handler) *proxy {
	t.Helper()
	target, err := url.Parse(upstream.Host)
	must(t, err)
	transport, err := rest.TransportFor(upstream)
	must(t, err)
	var handler http.Handler = &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1,                         // watches
		ErrorLog:      log.New(io.Discard, "", 0), // the caller is told
	}
	if intercept != nil {
		handler = intercept(handler)
	}
	p := &proxy{}
	p.server = httptest.NewServer(p.unlessBroken(outlivingItsCaller(handler)))
	t.Cleanup(func() {
		p.server.CloseClientConnections()
		p.server.Close()
	})
	p.config = &rest.Config{Host: p.server.URL, QPS: -1}
	return p
}

// breakOff ends all calls, watches too, and lets no other through until mend.
func (p *proxy) breakOff() {
	p.broken.Store(true)
	p.server.CloseClientConnections()
}

func (p *proxy) mend() { p.broken.Store(false) }

func (p *proxy) unlessBroken(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.broken.Load() {
			panic(http.ErrAbortHandler)
		}
		handler.ServeHTTP(w, r)
	})
}

// outlivingItsCaller lets a handler carry out a call that writes whatever becomes of its caller.
func outlivingItsCaller(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 10*patience)
			defer cancel()
			r = r.WithContext(ctx)
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		handler.ServeHTTP(w, r)
	})
}

func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	eventuallyWithin(t, patience, poll, what, condition)
}

// eventuallyWithin waits until a condition holds, and looks for it at this interval.
func eventuallyWithin(t testing.TB, bound, interval time.Duration, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(bound)
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waited %s in vain until %s", bound, what)
		case <-time.After(interval):
		}
	}
}

// await waits for what a channel tells by being closed.
func await(t testing.TB, what string, told <-chan struct{}) {
	t.Helper()
	awaitWithin(t, patience, what, told)
}

func awaitWithin(t testing.TB, bound time.Duration, what string, told <-chan struct{}) {
	t.Helper()
	select {
	case <-told:
	case <-time.After(bound):
		t.Fatalf("waited %s in vain until %s", bound, what)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
