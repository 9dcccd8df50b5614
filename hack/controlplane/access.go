// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
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

// AdminConfig gives access to everything.
func (p *ControlPlane) AdminConfig() *rest.Config { return rest.CopyConfig(p.admin) }

// Kubeconfig is the path of a kubeconfig file that gives access to everything.
func (p *ControlPlane) Kubeconfig() string { return p.file("kubeconfig") }

// Kubectl runs kubectl with access to everything, as [Kubectl.Run] does.
func (p *ControlPlane) Kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	return Kubectl{Program: p.Binary("kubectl"), Kubeconfig: p.Kubeconfig(), CacheDir: p.file("kubectl")}.Run(ctx, stdin, args...)
}

// Kubectl is kubectl with the access that a kubeconfig file gives.
type Kubectl struct{ Program, Kubeconfig, CacheDir string }

// Run runs kubectl, and returns what it prints to its standard output and error. If it fails, the error says that too.
func (k Kubectl) Run(ctx context.Context, stdin string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, k.Program, args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+k.Kubeconfig, "KUBECACHEDIR="+k.CacheDir)
	var output bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(stdin), &output, &output
	err := process.Run(command)
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case err != nil:
		err = fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, output.String())
	}
	return output.String(), err
}

// UserConfig gives access as this user in these groups, who may do what RBAC grants them.
func (p *ControlPlane) UserConfig(user string, groups ...string) (*rest.Config, error) {
	client, err := p.authority.issueClient(user, groups)
	if err != nil {
		return nil, err
	}
	config := p.anonymousConfig()
	config.CertData, config.KeyData = client.certificate, client.key
	return config, nil
}

// ServiceAccountConfig gives access as an existing ServiceAccount, by a token that lasts as long as this control plane could.
func (p *ControlPlane) ServiceAccountConfig(ctx context.Context, namespace, name string) (*rest.Config, error) {
	request := &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(certificateLifetime / time.Second))},
	}
	token, err := p.clients.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("cannot get a token of ServiceAccount %s/%s: %w", namespace, name, err)
	}
	config := p.anonymousConfig()
	config.BearerToken = token.Status.Token
	return config, nil
}

func (p *ControlPlane) anonymousConfig() *rest.Config {
	return &rest.Config{
		Host:            p.apiPort.url("https"),
		TLSClientConfig: rest.TLSClientConfig{CAData: p.authority.pem()},
		QPS:             -1, // the API server itself holds back who asks too much
	}
}

// WriteKubeconfig writes a kubeconfig file that gives the access of config, with the given default namespace.
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
