// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
)

const certManagerOverlay = configDir + "/overlays/cert-manager"

func TestCertManagerOverlay_IsAcceptedByTheCRDs(t *testing.T) {
	env := installed(t)
	env.InstallCertManagerCRDs(t)
	env.Apply(t, "", "--dry-run=server", "--kustomize", certManagerOverlay)
}

// The process must read the Secret that cert-manager writes, and the certificate must contain the name that clients connect to.
func TestCertManagerOverlay_IssuesTheServingCertificates(t *testing.T) {
	binary := operator.Program(t)
	for _, test := range []struct{ deployment, certificate, service string }{
		{"apikey-authenticator", "apikey-authenticator", "apikey-authenticator.apikey-system.svc"},
		{"apikey-controller", "apikey-controller-webhook", "apikey-controller-webhook.apikey-system.svc"},
	} {
		t.Run(test.deployment, func(t *testing.T) {
			g := NewWithT(t)
			var deployment appsv1.Deployment
			var certificate struct {
				Spec struct {
					SecretName string
					DNSNames   []string
				}
			}
			readRendered(t, "Deployment", test.deployment, &deployment)
			readRendered(t, "Certificate", test.certificate, &certificate)
			pod := deployment.Spec.Template.Spec
			serving := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Secret != nil })
			g.Expect(pod.Volumes[serving].Secret.SecretName).To(Equal(certificate.Spec.SecretName))
			g.Expect(certificate.Spec.DNSNames).To(ContainElement(test.service))
			isMounted := func(arg string) bool {
				return strings.Contains(arg, "="+pod.Containers[0].VolumeMounts[serving].MountPath)
			}
			g.Expect(slices.ContainsFunc(pod.Containers[0].Args, isMounted)).To(BeTrue(), "a flag names the mounted directory: %v", pod.Containers[0].Args)

			args := slices.Concat(pod.Containers[0].Args, []string{"--help"})
			output, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput()
			g.Expect(err).NotTo(HaveOccurred(), string(output))
		})
	}
}

func TestCertManagerOverlay_TheControllerNeitherIssuesCertificatesNorHasThePermissions(t *testing.T) {
	var deployment appsv1.Deployment
	var clusterRole rbacv1.ClusterRole
	var role rbacv1.Role
	readRendered(t, "Deployment", "apikey-controller", &deployment)
	readRendered(t, "ClusterRole", "apikey-controller", &clusterRole)
	readRendered(t, "Role", "apikey-controller", &role)
	g := NewWithT(t)
	g.Expect(deployment.Spec.Template.Spec.Containers[0].Args).NotTo(ContainElement("--mint-certificates"))
	var resources []string
	for _, rule := range slices.Concat(clusterRole.Rules, role.Rules) {
		resources = append(resources, rule.Resources...)
	}
	slices.Sort(resources)
	g.Expect(slices.Compact(resources)).To(Equal([]string{"apikeys", "apikeys/status", "events", "leases", "secrets"}))
	g.Expect(role.Rules).NotTo(ContainElement(HaveField("Resources", ContainElement("secrets"))))
}

// readRendered reads an object from the output of kustomize for the overlay.
func readRendered(t *testing.T, kind, name string, into any) {
	t.Helper()
	output, err := installed(t).Kubectl(t, "kustomize", certManagerOverlay)
	framework.Must(t, err)
	for document := range strings.SplitSeq(output, "\n---\n") {
		var object struct {
			Kind     string
			Metadata struct{ Name string }
		}
		framework.Must(t, yaml.Unmarshal([]byte(document), &object))
		if object.Kind == kind && object.Metadata.Name == name {
			framework.Must(t, yaml.Unmarshal([]byte(document), into))
			return
		}
	}
	t.Fatalf("the overlay has no %s %s", kind, name)
}
