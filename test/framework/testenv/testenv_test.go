// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package testenv_test

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestUsersAndServiceAccounts_AreSubjectToRBAC(t *testing.T) {
	g := NewWithT(t)
	env := testenv.Shared(t)
	namespace := env.Namespace(t)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "reader"}}
	g.Expect(env.Client.Create(t.Context(), account)).To(Succeed())

	for subject, config := range map[string]*rest.Config{
		"jane": env.User(t, "jane", "developers"),
		"system:serviceaccount:" + namespace + ":reader": env.ServiceAccount(t, namespace, "reader"),
	} {
		reader, err := client.New(config, client.Options{Scheme: env.Scheme})
		g.Expect(err).NotTo(HaveOccurred())
		err = reader.List(t.Context(), &v1alpha1.APIKeyList{}, client.InNamespace(namespace))
		g.Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%v", err)
		g.Expect(err.Error()).To(ContainSubstring(`User "` + subject + `" cannot list resource "apikeys"`))
	}
}

func TestKubectl_ReadsObjectsOfTheClient(t *testing.T) {
	g := NewWithT(t)
	env := testenv.Shared(t)
	namespace := env.Namespace(t)
	g.Expect(env.Client.Create(t.Context(), testenv.NewKey(namespace, "frontend"))).To(Succeed())

	output, err := env.Kubectl(t, "get", "apikeys", "--namespace", namespace, "--output=name")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(output).To(Equal("apikey.keys.squirrel.dev/frontend\n"))

	_, err = env.Kubectl(t, "get", "apikeys", "--namespace", namespace, "backend")
	g.Expect(err).To(MatchError(ContainSubstring(`apikeys.keys.squirrel.dev "backend" not found`)))
}

func TestGarbageCollection_NeedsKubeControllerManager(t *testing.T) {
	g := NewWithT(t)
	env := testenv.Shared(t)
	owner := testenv.NewKey(env.Namespace(t), "owner")
	g.Expect(env.Client.Create(t.Context(), owner)).To(Succeed())
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Namespace: owner.Namespace, Name: "owned",
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, v1alpha1.GroupVersion.WithKind("APIKey"))},
	}}
	g.Expect(env.Client.Create(t.Context(), secret)).To(Succeed())

	g.Expect(env.Client.Delete(t.Context(), owner)).To(Succeed())
	isGone := func() bool {
		return apierrors.IsNotFound(env.Client.Get(t.Context(), client.ObjectKeyFromObject(secret), &corev1.Secret{}))
	}
	if env.HasControllerManager() {
		g.Eventually(isGone).WithTimeout(20 * time.Second).Should(BeTrue())
	} else {
		g.Consistently(isGone).Should(BeFalse())
	}
}

func TestStart_KeepsDataOverARestartAndLeavesNoProcessBehind(t *testing.T) {
	g := NewWithT(t)
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	var pids []int
	t.Run("the API server keeps its data and address over a restart", func(t *testing.T) {
		g := NewWithT(t)
		env := testenv.Start(t)
		for _, process := range env.Processes() {
			pids = append(pids, process.PID())
		}
		key := testenv.NewKey(env.Namespace(t), "kept")
		g.Expect(env.Client.Create(t.Context(), key)).To(Succeed())

		env.StopAPIServer()
		err := env.Client.Get(t.Context(), client.ObjectKeyFromObject(key), &v1alpha1.APIKey{})
		g.Expect(errors.Is(err, syscall.ECONNREFUSED)).To(BeTrue(), "while the API server is stopped: %v", err)

		g.Expect(env.StartAPIServer(t.Context())).To(Succeed())
		var again v1alpha1.APIKey
		g.Expect(env.Client.Get(t.Context(), client.ObjectKeyFromObject(key), &again)).To(Succeed())
		g.Expect(again.UID).To(Equal(key.UID))
		for _, process := range env.Processes() {
			pids = append(pids, process.PID())
		}
	})

	g.Expect(len(pids)).To(BeNumerically(">=", 2))
	for _, pid := range pids {
		g.Expect(syscall.Kill(pid, 0)).To(MatchError(syscall.ESRCH))
	}
	left, err := filepath.Glob(filepath.Join(temporary, "*"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(left).To(BeEmpty())
}
