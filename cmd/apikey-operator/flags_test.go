// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// The other processes read the kubeconfig with the same function.
func TestKubeconfig_MayNameAnAuthProvider(t *testing.T) {
	env := testenv.Shared(t)
	account := metav1.ObjectMeta{Namespace: env.Namespace(t), Name: "authenticator"}
	framework.Must(t, env.Client.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: account}))
	framework.Must(t, env.Client.Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: account.Namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: account.Namespace, Name: account.Name}},
	}))
	config := env.ServiceAccount(t, account.Namespace, account.Name)
	kubeconfig, err := clientcmd.LoadFromFile(env.Kubeconfig(t, config))
	framework.Must(t, err)
	for name := range kubeconfig.AuthInfos {
		kubeconfig.AuthInfos[name] = &clientcmdapi.AuthInfo{AuthProvider: &clientcmdapi.AuthProviderConfig{Name: "oidc", Config: map[string]string{
			"client-id": "kubectl", "idp-issuer-url": "https://issuer.invalid", "id-token": config.BearerToken,
		}}}
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	framework.Must(t, clientcmd.WriteToFile(*kubeconfig, path))

	p := startProgram(t, "authenticator", "--kubeconfig="+path, "--plaintext", "--grpc-listen-address=0", "--shutdown-delay=0",
		"--listen-address=127.0.0.1:0", "--health-probe-bind-address=127.0.0.1:0")
	health := "http://" + p.address("health")
	p.eventually("the process is ready", func() bool { status, _ := get(t, &http.Transport{}, health+"/readyz"); return status == 200 })
}
