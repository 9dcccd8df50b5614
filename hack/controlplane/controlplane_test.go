// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"squirrel.dev/apikey-operator/hack/controlplane"
)

// linkBinaries returns a directory with links to some binaries of the control plane.
func linkBinaries(t *testing.T, names ...string) string {
	t.Helper()
	assets, err := controlplane.FindAssets()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range names {
		if err := os.Symlink(filepath.Join(assets, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func options(t *testing.T, assets string) controlplane.Options {
	t.Helper()
	dir := t.TempDir()
	return controlplane.Options{Dir: dir, LogDir: filepath.Join(dir, "log"), Assets: assets}
}

func TestStart_NamesTheMissingBinary(t *testing.T) {
	for missing, test := range map[string]struct {
		binaries []string
		cluster  *controlplane.Cluster
		needed   string
	}{
		"kube-apiserver":          {[]string{"etcd", "kubectl"}, nil, "etcd, kube-apiserver and kubectl"},
		"kube-controller-manager": {[]string{"etcd", "kube-apiserver", "kubectl"}, &controlplane.Cluster{}, "etcd, kube-apiserver, kubectl and kube-controller-manager"},
	} {
		assets := linkBinaries(t, test.binaries...)
		options := options(t, assets)
		options.Cluster = test.cluster
		_, err := controlplane.Start(t.Context(), options)
		want := "start the embedded control plane: " + filepath.Join(assets, missing) +
			" does not exist: run `make kube`, or set KUBEBUILDER_ASSETS to a directory with " + test.needed
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("the error is %v, want %s", err, want)
		}
	}
}

func TestStart_InterruptedReturnsAtOnce(t *testing.T) {
	g := NewWithT(t)
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	_, err := controlplane.Start(ctx, options(t, linkBinaries(t, "etcd", "kube-apiserver", "kubectl")))
	g.Expect(err).To(MatchError(context.Canceled))
}

// The releases of envtest have these binaries alone.
func TestStart_WithoutControllerManager(t *testing.T) {
	g := NewWithT(t)
	plane, err := controlplane.Start(t.Context(), options(t, linkBinaries(t, "etcd", "kube-apiserver", "kubectl")))
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(plane.Stop()).To(Succeed()) }()
	g.Expect(plane.HasControllerManager()).To(BeFalse())

	_, err = plane.Kubectl(t.Context(), "", "create", "serviceaccount", "robot")
	g.Expect(err).NotTo(HaveOccurred())
	robot, err := plane.ServiceAccountConfig(t.Context(), "default", "robot")
	g.Expect(err).NotTo(HaveOccurred())
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	g.Expect(controlplane.WriteKubeconfig(kubeconfig, robot, "default")).To(Succeed())
	g.Expect(plane.Kubectl(t.Context(), "", "--kubeconfig", kubeconfig, "auth", "whoami", "--output", "jsonpath={.status.userInfo.username}")).
		To(Equal("system:serviceaccount:default:robot"))
}

func TestFreePort_ReturnsThePreferredPortIfItIsFree(t *testing.T) {
	g := NewWithT(t)
	free, err := controlplane.FreePort(0)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(controlplane.FreePort(free)).To(Equal(free))

	inUse, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(inUse.Close()).To(Succeed()) }()
	port := inUse.Addr().(*net.TCPAddr).Port
	g.Expect(controlplane.FreePort(port)).NotTo(Equal(port))
}
