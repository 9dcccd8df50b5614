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

func TestNodeRunsPodsAndLeavesNothing(t *testing.T) {
	g := NewWithT(t)
	place, tmp := thePlace(t), t.TempDir()
	before := look(t, place)
	up := startUp(t, tmp)
	startPods(t, place)
	g.Expect(dns().LookupHost(t.Context(), "kubernetes.default.svc.cluster.local")).To(ConsistOf("10.97.0.1"))
	_, err := dns().LookupHost(t.Context(), "nobody.default.svc.cluster.local")
	g.Expect(err).To(MatchError(ContainSubstring("no such host")))

	another, err := exec.CommandContext(t.Context(), filepath.Join(place.programs, "node"), "up").CombinedOutput()
	g.Expect(err).To(HaveOccurred())
	g.Expect(string(another)).To(Equal(fmt.Sprintf("a node is running already, as process %d: end that one first\n", up.PID())))

	g.Expect(up.Stop()).To(Succeed())
	g.Expect(up.Err()).To(MatchError(HavePrefix("exit status 0\n")))
	g.Expect(processtest.WithTemporary(t, tmp)).To(BeEmpty())
	g.Expect(cmp.Diff(before, look(t, place))).To(BeEmpty())
}

func TestKilledNodeLeavesNothingRunningAndTheNextRemovesTheRest(t *testing.T) {
	g := NewWithT(t)
	place, tmp := thePlace(t), t.TempDir()
	before := look(t, place)
	killed := startUp(t, tmp)
	startPods(t, place)
	killed.Kill()
	g.Eventually(func() []string { return processtest.WithTemporary(t, tmp) }).WithTimeout(timeout).Should(BeEmpty())
	g.Eventually(func() string { return look(t, place).Links }).WithTimeout(timeout).Should(Equal(before.Links))
	g.Expect(processesInCgroups(t)).To(BeEmpty())

	g.Expect(startUp(t, tmp).Stop()).To(Succeed())
	g.Expect(cmp.Diff(before, look(t, place))).To(BeEmpty())
}

func TestCheckTellsWhoeverIsNotRootWhatToDo(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	g.Expect(os.Chmod(filepath.Dir(dir), 0o755)).To(Succeed()) // it would be root's alone
	program := filepath.Join(dir, "node")
	content, err := os.ReadFile(filepath.Join(thePlace(t).programs, "node"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.WriteFile(program, content, 0o755)).To(Succeed())
	check := exec.CommandContext(t.Context(), program, "check")
	check.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	output, err := check.CombinedOutput()
	g.Expect(err).To(HaveOccurred())
	g.Expect(string(output)).To(Equal("a node makes namespaces, control groups and network links, which only root may. " +
		"Give the tests another cluster instead: make e2e KUBECONFIG=FILE IMAGE=NAME\n"))
}

func thePlace(t *testing.T) place {
	t.Helper()
	place, err := findPlace()
	if err != nil {
		t.Fatal(err)
	}
	return place
}

// startPods returns once two pods run.
func startPods(t *testing.T, place place) {
	t.Helper()
	kubectl := controlplane.Kubectl{
		Program:    filepath.Join(place.assets, "kubectl"),
		Kubeconfig: place.kubeconfig,
		CacheDir:   t.TempDir(),
	}
	for _, args := range [][]string{
		{"create", "deployment", "sleepers", "--image=" + pauseImage, "--replicas=2"},
		{"rollout", "status", "deployment", "sleepers", "--timeout=" + timeout.String()},
	} {
		if _, err := kubectl.Run(t.Context(), "", args...); err != nil {
			t.Fatal(err)
		}
	}
}

// dns asks the cluster's DNS through its Service.
func dns() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(dnsAddress.String(), "53"))
	}}
}

// processesInCgroups returns the processes of pods.
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

// machine is what a node could change of this machine, and must not.
type machine struct {
	Links, Routes, Mounts, Settings string
	Cgroups, Files                  []string
}

// look returns what is there to see of this machine.
func look(t *testing.T, place place) machine {
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
	for _, file := range []string{place.state, place.kubeconfig} {
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

// startUp starts a node. What it starts inherits its TMPDIR, and can be told by it.
func startUp(t *testing.T, tmp string) *testnode.Node {
	t.Helper()
	node, err := testnode.Start(t.Context(), "TMPDIR="+tmp)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Stop() })
	return node
}
