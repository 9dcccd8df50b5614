// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/gomega"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/hack/process/processtest"
	"squirrel.dev/apikey-operator/test/framework/testnode"
)

const timeout = 2 * time.Minute

func TestUp_RunsPodsAndLeavesNothing(t *testing.T) {
	g := NewWithT(t)
	paths, tmp := testPaths(t), t.TempDir()
	before := machineState(t, paths)
	up := startUp(t, tmp)
	startPods(t, paths)
	g.Expect(dns().LookupHost(t.Context(), "kubernetes.default.svc.cluster.local")).To(ConsistOf("10.97.0.1"))
	_, err := dns().LookupHost(t.Context(), "missing.default.svc.cluster.local")
	g.Expect(err).To(MatchError(ContainSubstring("no such host")))

	another, err := exec.CommandContext(t.Context(), filepath.Join(paths.programs, "node"), "up").CombinedOutput()
	g.Expect(err).To(HaveOccurred())
	g.Expect(string(another)).To(Equal(fmt.Sprintf("a node is running already, as process %d: stop it first\n", up.PID())))

	g.Expect(up.Stop()).To(Succeed())
	g.Expect(up.Err()).To(MatchError(HavePrefix("exit status 0\n")))
	g.Expect(processtest.WithTMPDIR(t, tmp)).To(BeEmpty())
	g.Expect(cmp.Diff(before, machineState(t, paths))).To(BeEmpty())
}

func TestUp_CleansUpAfterAKilledNode(t *testing.T) {
	g := NewWithT(t)
	paths, tmp := testPaths(t), t.TempDir()
	before := machineState(t, paths)
	killed := startUp(t, tmp)
	startPods(t, paths)
	killed.Kill()
	g.Eventually(func() []string { return processtest.WithTMPDIR(t, tmp) }).WithTimeout(timeout).Should(BeEmpty())
	g.Eventually(func() string { return machineState(t, paths).Links }).WithTimeout(timeout).Should(Equal(before.Links))
	g.Expect(processesInCgroups(t)).To(BeEmpty())

	g.Expect(startUp(t, tmp).Stop()).To(Succeed())
	g.Expect(cmp.Diff(before, machineState(t, paths))).To(BeEmpty())
}

func TestCheck_RequiresRoot(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	g.Expect(os.Chmod(filepath.Dir(dir), 0o755)).To(Succeed()) // for another user
	program := filepath.Join(dir, "node")
	content, err := os.ReadFile(filepath.Join(testPaths(t).programs, "node"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.WriteFile(program, content, 0o755)).To(Succeed())
	check := exec.CommandContext(t.Context(), program, "check")
	check.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	output, err := check.CombinedOutput()
	g.Expect(err).To(HaveOccurred())
	g.Expect(string(output)).To(Equal("a node requires root, to create namespaces, control groups and network links: become root, " +
		"or run the tests on another cluster with make e2e KUBECONFIG=FILE IMAGE=NAME\n"))
}

func TestCheckFreeSpace(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	g.Expect(checkFreeSpace(dir, 1<<20)).To(Succeed())
	g.Expect(checkFreeSpace(dir, 1<<60)).To(MatchError(MatchRegexp("^a node requires 1099511627776 MiB of free space in " + dir +
		", which has [0-9]+ MiB: free some, for example with `go clean -cache`, or run the tests on another cluster with make e2e KUBECONFIG=FILE IMAGE=NAME$")))
}

func testPaths(t *testing.T) paths {
	t.Helper()
	paths, err := findPaths()
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// startPods starts two pods and waits until they run.
func startPods(t *testing.T, paths paths) {
	t.Helper()
	kubectl := controlplane.Kubectl{
		Program:    filepath.Join(paths.assets, "kubectl"),
		Kubeconfig: paths.kubeconfig,
		CacheDir:   t.TempDir(),
	}
	for _, args := range [][]string{
		{"create", "deployment", "sleepers", "--image=" + pauseByDigest(t, paths), "--replicas=2"},
		{"rollout", "status", "deployment", "sleepers", "--timeout=" + timeout.String()},
	} {
		if _, err := kubectl.Run(t.Context(), "", args...); err != nil {
			t.Fatal(err)
		}
	}
}

// pauseByDigest returns the name by digest that the loaded image has.
func pauseByDigest(t *testing.T, paths paths) string {
	t.Helper()
	g := NewWithT(t)
	inside, err := findNamespaces(paths)
	g.Expect(err).NotTo(HaveOccurred())
	images, err := inside.output(t.Context(), nil, ctr("images", "list", "--quiet")...)
	g.Expect(err).NotTo(HaveOccurred())
	name := regexp.MustCompile(`localhost/pause@sha256:[0-9a-f]{64}`).FindString(images)
	g.Expect(name).NotTo(BeEmpty(), images)
	return name
}

// dns returns a resolver that uses the DNS Service of the cluster.
func dns() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(dnsAddress.String(), "53"))
	}}
}

// processesInCgroups returns the process IDs in the control groups of the node.
func processesInCgroups(t *testing.T) string {
	t.Helper()
	groups, err := nodeCgroups()
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, group := range groups {
		processes, _ := os.ReadFile(filepath.Join(group, "cgroup.procs"))
		all.Write(processes)
	}
	return all.String()
}

// machine is the state of this machine that a node must not change.
type machine struct {
	Links, Routes, Mounts, Settings string
	Cgroups, Files                  []string
}

// machineState returns the state of this machine.
func machineState(t *testing.T, paths paths) machine {
	t.Helper()
	g := NewWithT(t)
	read := func(files ...string) string {
		var all strings.Builder
		for _, file := range files {
			content, err := os.ReadFile(file)
			g.Expect(err).NotTo(HaveOccurred())
			all.Write(content)
		}
		return all.String()
	}
	var links strings.Builder
	interfaces, err := net.Interfaces()
	g.Expect(err).NotTo(HaveOccurred())
	for _, link := range interfaces {
		links.WriteString(link.Name + "\n")
	}
	cgroups, err := nodeCgroups()
	g.Expect(err).NotTo(HaveOccurred())
	var files []string
	for _, file := range []string{paths.state, paths.kubeconfig} {
		if _, err := os.Stat(file); err == nil {
			files = append(files, file)
		}
	}
	return machine{
		Links:  links.String(),
		Routes: read("/proc/net/route"),
		Mounts: read("/proc/self/mountinfo"),
		Settings: read("/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/panic", "/proc/sys/kernel/panic_on_oops",
			"/proc/sys/kernel/keys/root_maxkeys", "/proc/sys/kernel/keys/root_maxbytes", "/proc/sys/kernel/hostname",
			"/proc/sys/net/ipv4/ip_forward"),
		Cgroups: cgroups,
		Files:   files,
	}
}

// startUp starts a node. Its descendants inherit the TMPDIR.
func startUp(t *testing.T, tmp string) *testnode.Node {
	t.Helper()
	node, err := testnode.Start(t.Context(), "TMPDIR="+tmp)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Stop() })
	return node
}
