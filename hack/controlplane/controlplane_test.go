// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane_test

import (
	"context"
	"fmt"
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
		hasNodes bool
		remedy   string
	}{
		"kube-apiserver": {
			[]string{"etcd", "kubectl"}, false,
			"run `make kube`, or set KUBEBUILDER_ASSETS to a directory with etcd, kube-apiserver and kubectl",
		},
		"kube-controller-manager": {[]string{"etcd", "kube-apiserver", "kubectl"}, true, "run `make node`, which builds it"},
	} {
		assets := linkBinaries(t, test.binaries...)
		options := options(t, assets)
		if test.hasNodes {
			options.Cluster = &controlplane.Cluster{ControllerManager: filepath.Join(assets, missing)}
		}
		_, err := controlplane.Start(t.Context(), options)
		want := "start the embedded control plane: " + filepath.Join(assets, missing) + " does not exist: " + test.remedy
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

const controllersManifest = `apiVersion: v1
kind: Namespace
metadata: {name: team}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot, namespace: team}
---
apiVersion: v1
kind: Secret
metadata: {name: robot-token, namespace: team, annotations: {kubernetes.io/service-account.name: robot}}
type: kubernetes.io/service-account-token
---
apiVersion: v1
kind: ConfigMap
metadata: {name: owner, namespace: team}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: part, labels: {aggregate-to: whole}}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: whole}
aggregationRule: {clusterRoleSelectors: [{matchLabels: {aggregate-to: whole}}]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: policy}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], resources: [configmaps], operations: [CREATE]}]}
  validations: [{expression: object.metadata.nam == 'x'}]
`

const dependentManifest = `apiVersion: v1
kind: ConfigMap
metadata: {name: dependent, namespace: team, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: owner, uid: %s}]}
`

func TestStart_RunsTheControllersThatNeedNoNodes(t *testing.T) {
	g := NewWithT(t)
	assets, err := controlplane.FindAssets()
	g.Expect(err).NotTo(HaveOccurred())
	plane, err := controlplane.Start(t.Context(), options(t, assets))
	g.Expect(err).NotTo(HaveOccurred())
	defer plane.Kill()
	kubectl := func(stdin string, args ...string) string {
		t.Helper()
		output, err := plane.Kubectl(t.Context(), stdin, args...)
		g.Expect(err).NotTo(HaveOccurred())
		return output
	}
	wait := func(object, condition string) {
		t.Helper()
		kubectl("", "wait", object, "--namespace=team", "--timeout=60s", "--for="+condition)
	}

	kubectl(controllersManifest, "apply", "--filename=-")
	uid := kubectl("", "get", "configmap/owner", "--namespace=team", "--output=jsonpath={.metadata.uid}")
	kubectl(fmt.Sprintf(dependentManifest, uid), "apply", "--filename=-")
	wait("serviceaccount/default", "create")
	wait("configmap/kube-root-ca.crt", "create")
	wait("secret/robot-token", "jsonpath={.data.token}")
	wait("clusterrole/whole", "jsonpath={.rules[0].resources[0]}=pods")
	wait("validatingadmissionpolicy/policy", "jsonpath={.status.typeChecking.expressionWarnings[0].fieldRef}=spec.validations[0].expression")
	kubectl("", "delete", "configmap/owner", "--namespace=team")
	wait("configmap/dependent", "delete")
	kubectl("", "delete", "namespace/team", "--wait=false")
	wait("namespace/team", "delete")
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
