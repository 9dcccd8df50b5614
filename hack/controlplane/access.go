// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"squirrel.dev/apikey-operator/hack/process"
)

// AdminConfig returns a client configuration with all rights.
func (p *ControlPlane) AdminConfig() *rest.Config { return rest.CopyConfig(p.admin) }

// Kubeconfig returns the path of a kubeconfig with all rights.
func (p *ControlPlane) Kubeconfig() string { return p.file("kubeconfig") }

// Kubectl runs kubectl with all rights: see [Kubectl.Run].
func (p *ControlPlane) Kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	return Kubectl{Program: p.Binary("kubectl"), Kubeconfig: p.Kubeconfig(), CacheDir: p.file("kubectl")}.Run(ctx, stdin, args...)
}

// Kubectl is kubectl with a kubeconfig.
type Kubectl struct{ Program, Kubeconfig, CacheDir string }

// Run runs kubectl, and returns its standard output and error. If kubectl fails, the error includes them.
func (k Kubectl) Run(ctx context.Context, stdin string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, k.Program, args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+k.Kubeconfig, "KUBECACHEDIR="+k.CacheDir)
	command.Stdin = strings.NewReader(stdin)
	return process.Output(ctx, command)
}

// UserConfig returns a client configuration of a user with groups, whose rights RBAC grants.
func (p *ControlPlane) UserConfig(user string, groups ...string) (*rest.Config, error) {
	client, err := p.authority.issueClient(user, groups)
	if err != nil {
		return nil, err
	}
	config := p.anonymousConfig()
	config.CertData, config.KeyData = client.certificate, client.key
	return config, nil
}

// ServiceAccountConfig returns a client configuration of a ServiceAccount.
func (p *ControlPlane) ServiceAccountConfig(ctx context.Context, namespace, name string) (*rest.Config, error) {
	token, err := p.ServiceAccountToken(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	config := p.anonymousConfig()
	config.BearerToken = token
	return config, nil
}

// ServiceAccountToken returns a token of a ServiceAccount, for the Kubernetes API unless it is for other audiences. The token does not
// expire before the certificates.
func (p *ControlPlane) ServiceAccountToken(ctx context.Context, namespace, name string, audiences ...string) (string, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences: audiences, ExpirationSeconds: new(int64(certificateLifetime / time.Second)),
	}}
	token, err := p.clients.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("create a token of the ServiceAccount %s/%s: %w", namespace, name, err)
	}
	return token.Status.Token, nil
}

func (p *ControlPlane) anonymousConfig() *rest.Config {
	return &rest.Config{
		Host:            p.apiPort.url("https"),
		TLSClientConfig: rest.TLSClientConfig{CAData: p.authority.pem()},
		QPS:             -1, // the API server limits rates itself
	}
}

// WriteKubeconfig writes a kubeconfig with the credentials of config and a default namespace.
func WriteKubeconfig(path string, config *rest.Config, namespace string) error {
	const name = "embedded"
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters[name] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	kubeconfig.AuthInfos[name] = &clientcmdapi.AuthInfo{
		ClientCertificateData: config.CertData,
		ClientKeyData:         config.KeyData,
		Token:                 config.BearerToken,
	}
	kubeconfig.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name, Namespace: namespace}
	kubeconfig.CurrentContext = name
	content, err := clientcmd.Write(*kubeconfig)
	if err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o600)
}
