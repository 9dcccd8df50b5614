// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	systemNamespace = "apikey-system"
	controllers     = "apikey-controller"
	authenticators  = "apikey-authenticator"

	replicas = 2 // of each Deployment

	// installBound is how long the installation may take on an empty cluster.
	installBound = time.Minute
)

// installation is that of apikey-operator, by the first test that needs it.
type installation struct {
	installed bool
	duration  time.Duration
}

// install installs apikey-operator once, and returns when it is ready.
func (c *cluster) install(t *testing.T) {
	t.Helper()
	if c.installed {
		return
	}
	_, err := c.clients.CoreV1().Namespaces().Get(t.Context(), systemNamespace, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Fatalf("the cluster has the namespace %s: uninstall apikey-operator, because the tests install and uninstall it themselves: %v", systemNamespace, err)
	}
	c.installed = true
	c.duration = c.applyInstaller(t, c.operator)
	t.Logf("installed and ready after %s", c.duration.Round(100*time.Millisecond))
}

// applyInstaller builds and applies the installer of an image, and returns how long it took until all pods were ready.
func (c *cluster) applyInstaller(t *testing.T, image string) time.Duration {
	t.Helper()
	if output, err := c.make(t.Context(), "build-installer", "IMAGE="+image); err != nil {
		t.Fatal(err, output)
	}
	start := time.Now()
	c.kubectl(t, "", "apply", "--server-side", "--filename", filepath.Join(c.root, "dist", "install.yaml"))
	c.awaitReady(t, image)
	return time.Since(start)
}

// awaitReady waits until all replicas have this image and are ready, and their predecessors are deleted.
func (c *cluster) awaitReady(t *testing.T, image string) {
	t.Helper()
	NewWithT(t).Eventually(func(g Gomega) {
		for _, name := range []string{controllers, authenticators} {
			deployment, err := c.clients.AppsV1().Deployments(systemNamespace).Get(t.Context(), name, metav1.GetOptions{})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(deployment.Status.ObservedGeneration).To(Equal(deployment.Generation))
			g.Expect(deployment.Spec.Template.Spec.Containers[0].Image).To(Equal(image))
			status := deployment.Status
			g.Expect([]int32{status.Replicas, status.UpdatedReplicas, status.ReadyReplicas}).To(HaveEach(int32(replicas)), name)
			g.Expect(deployment.Status.Conditions).To(ContainElement(And(
				HaveField("Type", appsv1.DeploymentAvailable), HaveField("Status", corev1.ConditionTrue))), name)
		}
		pods, err := c.clients.CoreV1().Pods(systemNamespace).List(t.Context(), metav1.ListOptions{})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(pods.Items).To(HaveLen(2 * replicas))
	}).Should(Succeed())
}

func TestInstall_IsReadyWithinAMinute(t *testing.T) {
	g := NewWithT(t)
	shared.install(t)
	g.Expect(shared.duration).To(BeNumerically("<", installBound))
	shared.report.add("Installing", fmt.Sprintf("All pods are ready %.1f s after `kubectl apply -f dist/install.yaml` on an empty cluster.", shared.duration.Seconds()))
}

func TestAdmissionWebhook_WarnsOfAConflict(t *testing.T) {
	g := NewWithT(t)
	shared.install(t)
	namespace := shared.namespace(t)
	first := testenv.NewKey(namespace, "first", func(key *v1alpha1.APIKey) { key.Spec.AppName = "The App" })
	g.Expect(shared.api.Create(t.Context(), first)).To(Succeed())
	const second = "{apiVersion: keys.squirrel.dev/v1alpha1, kind: APIKey, metadata: {name: second}, spec: {appName: The App, readAccess: true}}"
	g.Eventually(func() string {
		return shared.kubectl(t, second, "create", "--dry-run=server", "--filename=-", "--namespace="+namespace)
	}).Should(ContainSubstring(`Warning: App name "The App" is held by APIKey "first"`))
}

// GOMEMLIMIT makes the garbage collector keep the process below the limit of its container, above which it would be killed.
func TestProcesses_SetGOMEMLIMIT(t *testing.T) {
	g := NewWithT(t)
	shared.install(t)
	for _, deployment := range []string{authenticators, controllers} {
		for _, pod := range shared.pods(t, deployment) {
			limit := float64(pod.Spec.Containers[0].Resources.Limits.Memory().Value())
			g.Expect(shared.kubectl(t, "", "logs", pod.Name, "--namespace", pod.Namespace)).
				To(ContainSubstring(`"GOMEMLIMIT":%d,`, int64(limit*0.9)), pod.Name)
		}
	}
}

func TestUninstall_KeepsTheKeysForTheNextInstallation(t *testing.T) {
	g := NewWithT(t)
	shared.install(t)
	tenant := shared.tenant(t)
	tenant.keepCopying(t) // the next installation has another CA
	before := tenant.keys(t)
	g.Expect(before).NotTo(BeEmpty())

	output, err := shared.make(t.Context(), "uninstall")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(output).To(ContainSubstring("kubectl delete"), "how to delete the remaining objects")
	g.Expect(shared.remains(t)).To(ConsistOf("customresourcedefinition.apiextensions.k8s.io/apikeys.keys.squirrel.dev"))
	g.Expect(tenant.keys(t)).To(Equal(before))

	again := shared.applyInstaller(t, shared.operator)
	t.Logf("installed again and ready after %s", again.Round(100*time.Millisecond))
	g.Eventually(func() string { return tenant.send(t, http.MethodGet, "valid") }).Should(HavePrefix("200 "))
	tenant.expectProtected(t)
}

// remains returns the names of the installed objects that still exist.
func (c *cluster) remains(t *testing.T) []string {
	t.Helper()
	manifest, err := os.ReadFile(filepath.Join(c.root, "dist", "install.yaml"))
	framework.Must(t, err)
	return lines(c.kubectl(t, string(manifest), "get", "--ignore-not-found", "--output", "name", "--filename", "-"))
}
