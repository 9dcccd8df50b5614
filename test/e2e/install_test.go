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
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

const (
	systemNamespace = "apikey-system"
	controllers     = "apikey-controller"
	authenticators  = "apikey-authenticator"

	replicas = 2 // of each

	// installBound is how long installing may take on an empty cluster.
	installBound = time.Minute
)

// installation is what installing took, once a test has asked for it.
type installation struct {
	installed bool
	took      time.Duration
}

// install installs apikey-operator, if no test has yet, and returns when it is ready.
func (c *cluster) install(t *testing.T) {
	t.Helper()
	if c.installed {
		return
	}
	_, err := c.clients.CoreV1().Namespaces().Get(t.Context(), systemNamespace, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Fatalf("the tests install apikey-operator and remove it again, and this cluster has a namespace %s already: %v", systemNamespace, err)
	}
	c.installed = true
	c.took = c.applyInstaller(t, c.operator)
	t.Logf("installed and ready after %s", c.took.Round(100*time.Millisecond))
}

// applyInstaller does what people do to install an image, or to upgrade to it, and returns how long it took until all is ready.
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

// awaitReady waits until all replicas are ready, with this image, and those that they replace are gone.
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

func TestInstallIsReadyWithinAMinute(t *testing.T) {
	g := NewWithT(t)
	shared.install(t)
	g.Expect(shared.took).To(BeNumerically("<", installBound))
	shared.report.add("Installing", fmt.Sprintf("All is ready %.1f s after `kubectl apply -f dist/install.yaml` on an empty cluster.", shared.took.Seconds()))
}

func TestAdmissionWebhookIsAsked(t *testing.T) {
	g := NewWithT(t)
	shared.install(t)
	namespace := shared.namespace(t)
	key := func(name string) *v1alpha1.APIKey {
		return &v1alpha1.APIKey{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec:       v1alpha1.APIKeySpec{AppName: "The App", ReadAccess: true},
		}
	}
	g.Expect(shared.api.Create(t.Context(), key("first"))).To(Succeed())
	g.Eventually(func() error { return shared.api.Create(t.Context(), key("second"), client.DryRunAll) }).
		Should(MatchError(ContainSubstring(`admission webhook "apikeys.keys.squirrel.dev" denied the request`)))
}

// Near the limit memory is worth more than time: a process that is over it is killed.
func TestProcessesKeepBelowTheirMemoryLimits(t *testing.T) {
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

func TestUninstallLeavesTheKeysAndTheNextInstallationKnowsThem(t *testing.T) {
	g := NewWithT(t)
	shared.install(t)
	tenant := shared.tenant(t)
	tenant.keepCopying(t) // the next installation has other authorities
	before := tenant.keys(t)
	g.Expect(before).NotTo(BeEmpty())

	output, err := shared.make(t.Context(), "uninstall")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(output).To(ContainSubstring("kubectl delete"), "how to remove what is left")
	g.Expect(shared.remains(t)).To(ConsistOf("customresourcedefinition.apiextensions.k8s.io/apikeys.keys.squirrel.dev"))
	g.Expect(tenant.keys(t)).To(Equal(before))

	again := shared.applyInstaller(t, shared.operator)
	t.Logf("installed again and ready after %s", again.Round(100*time.Millisecond))
	g.Eventually(func() string { return tenant.ask(t, http.MethodGet, "valid") }).Should(HavePrefix("200 "))
	tenant.expectProtected(t)
}

// remains returns the names of what is left in the cluster of those things that were installed.
func (c *cluster) remains(t *testing.T) []string {
	t.Helper()
	manifest, err := os.ReadFile(filepath.Join(c.root, "dist", "install.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return lines(c.kubectl(t, string(manifest), "get", "--ignore-not-found", "--output", "name", "--filename", "-"))
}
