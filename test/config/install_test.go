// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

func TestInstall_HasNoWarningsAndNoDrift(t *testing.T) {
	env := installed(t)
	testenv.ExpectEachApplied(t, installation.output, "serverside-applied")
	for _, kustomization := range kustomizations(t) {
		if diff, err := env.Kubectl(t, "diff", "--server-side", "--kustomize", kustomization); err != nil {
			t.Errorf("the objects in the API server differ from %s: %s", kustomization, diff)
		}
	}
}

// When Argo CD, Flux or Helm apply the same manifests, they share the fields with kubectl. That is a conflict where the API server adds
// defaults to an atomic field, unless the manifests contain the defaults.
func TestInstall_AnotherFieldManagerCanApplyTheSameManifests(t *testing.T) {
	env := installed(t)
	for _, kustomization := range kustomizations(t) {
		output, err := env.Kubectl(t, "apply", "--server-side", "--dry-run=server", "--field-manager=other", "--kustomize", kustomization)
		if err != nil {
			t.Errorf("%v\n%s", err, output)
		}
	}
}

func TestConsoleOverlay_CanBeAppliedUnchanged(t *testing.T) {
	output, err := installed(t).Kubectl(t, "apply", "--server-side", "--dry-run=server", "--kustomize", configDir+"/overlays/console")
	if err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}

func TestSamples_AreAcceptedWithoutWarningsAndConflicts(t *testing.T) {
	g := NewWithT(t)
	env := installed(t)
	namespace := env.Namespace(t)
	output, err := env.Kubectl(t, "apply", "--namespace", namespace, "--kustomize", configDir+"/samples")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(output).NotTo(ContainSubstring("Warning"))

	var keys v1alpha1.APIKeyList
	g.Expect(env.Client.List(t.Context(), &keys, client.InNamespace(namespace))).To(Succeed())
	samples, err := filepath.Glob(configDir + "/samples/*.yaml")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(keys.Items).To(HaveLen(len(samples)-1), "one key in each file except kustomization.yaml")
	for i := range keys.Items {
		g.Expect(apikey.FindConflict(&keys.Items[i], keys.Items)).To(BeNil(), keys.Items[i].Name)
	}
}

// The labels of the namespaces enforce the restricted profile of Pod Security.
func TestPods_AreRestricted(t *testing.T) {
	env := installed(t)
	for _, deployment := range deployments(t) {
		t.Run(deployment.Name, func(t *testing.T) {
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: deployment.Namespace, Name: deployment.Name, Labels: deployment.Spec.Template.Labels},
				Spec:       deployment.Spec.Template.Spec,
			}
			expectError(t, "create the pod", env.Client.Create(t.Context(), pod.DeepCopy(), client.DryRunAll), "")

			pod.Spec.Containers[0].SecurityContext = nil
			err := env.Client.Create(t.Context(), pod, client.DryRunAll)
			NewWithT(t).Expect(err).To(MatchError(ContainSubstring(`violates PodSecurity "restricted:latest"`)), "a pod without security context")
		})
	}
}

func TestDeployments_UseFlagsThatExist(t *testing.T) {
	binary := operator.Program(t)
	for _, deployment := range deployments(t) {
		args := slices.Concat(deployment.Spec.Template.Spec.Containers[0].Args, []string{"--help"})
		if output, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %v\n%s", deployment.Name, args, err, output)
		}
	}
}

// deployments reads the Deployments of all processes.
func deployments(t *testing.T) []appsv1.Deployment {
	t.Helper()
	var list appsv1.DeploymentList
	framework.Must(t, installed(t).Client.List(t.Context(), &list, client.MatchingLabels{"app.kubernetes.io/name": "apikey-operator"}))
	if len(list.Items) != 3 {
		t.Fatalf("got %d Deployments, want 3", len(list.Items))
	}
	return list.Items
}
