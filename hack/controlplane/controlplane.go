// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package controlplane runs a Kubernetes control plane of its own on the loopback address: etcd, kube-apiserver and, where the binary is
// there, kube-controller-manager. It is the one way in which `make run`, `make demo` and the tests get one; with nodes that join it, it
// is that of a whole cluster.
//
// Against envtest, it adds kube-controller-manager, data that stays, an API server that stops and starts again while its port is held,
// logs, and processes that end with this program, however it ends.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/keyutil"

	"squirrel.dev/apikey-operator/hack/process"
)

// Options say which control plane to start.
type Options struct {
	// Dir holds all that the control plane writes: its data, which a later control plane in the same directory finds again,
	// certificates and a kubeconfig. It is made when it is missing.
	Dir string
	// LogDir gets one log file per process. It is made when it is missing.
	LogDir string
	// Assets is the directory of the binaries; [FindAssets] finds it.
	Assets string
	// CRDDir is a directory whose CustomResourceDefinitions are installed; empty installs none.
	CRDDir string
	// Cluster is set for a control plane that nodes join.
	Cluster *Cluster
	// APIServerFlags are given to kube-apiserver after all others.
	APIServerFlags []string
}

// ControlPlane is a running control plane.
type ControlPlane struct {
	options   Options
	authority *authority
	etcdPort  *port
	apiPort   *port
	admin     *rest.Config
	clients   kubernetes.Interface

	etcd, apiServer, controllerManager *process.Process
}

// Start starts a control plane and returns when it is ready. On any error, cancellation of ctx included, nothing is left running.
// Stop ends it.
func Start(ctx context.Context, options Options) (*ControlPlane, error) {
	p := &ControlPlane{options: options}
	steps := []func(context.Context) error{
		p.checkBinaries,
		p.makeDirectories,
		p.holdPorts,
		p.makeIdentities,
		p.startEtcd,
		p.StartAPIServer,
		p.installCRDs, // before kube-controller-manager starts: it looks for new kinds to collect only every 30 seconds
		p.startControllerManager,
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("the embedded control plane did not start: %w", err), p.Stop())
		}
	}
	return p, nil
}

// Stop ends the control plane. Its directory stays.
func (p *ControlPlane) Stop() error {
	kill(&p.controllerManager)
	p.StopAPIServer()
	var err error
	if p.etcd != nil {
		err = p.etcd.Stop()
		p.etcd = nil
	}
	for _, port := range []*port{p.apiPort, p.etcdPort} {
		if port != nil {
			port.release()
		}
	}
	p.apiPort, p.etcdPort = nil, nil
	return err
}

// kill ends a process that keeps nothing: all that it was asked to write is in etcd.
func kill(running **process.Process) {
	if *running != nil {
		(*running).Kill()
		*running = nil
	}
}

// HasControllerManager says whether kube-controller-manager runs. Without it nothing is collected as garbage, a deleted namespace stays,
// and namespaces have no default ServiceAccount; tokens of ServiceAccounts work.
func (p *ControlPlane) HasControllerManager() bool { return p.controllerManager != nil }

// Processes are the processes of the control plane, in the order in which they were started.
func (p *ControlPlane) Processes() []*process.Process {
	var running []*process.Process
	for _, process := range []*process.Process{p.etcd, p.apiServer, p.controllerManager} {
		if process != nil {
			running = append(running, process)
		}
	}
	return running
}

// EtcdURL is where etcd serves.
func (p *ControlPlane) EtcdURL() string { return p.etcdPort.url("http") }

// Binary is the path of one of the control plane's binaries, kubectl among them.
func (p *ControlPlane) Binary(name string) string { return filepath.Join(p.options.Assets, name) }

func (p *ControlPlane) file(elements ...string) string {
	return filepath.Join(append([]string{p.options.Dir}, elements...)...)
}

func (p *ControlPlane) logFile(process string) string {
	return filepath.Join(p.options.LogDir, process+".log")
}

func (p *ControlPlane) checkBinaries(context.Context) error {
	needed := []string{"etcd", "kube-apiserver", "kubectl"}
	if p.hasNodes() {
		needed = append(needed, "kube-controller-manager")
	}
	for _, name := range needed {
		if _, err := exec.LookPath(p.Binary(name)); err != nil {
			last := len(needed) - 1
			return fmt.Errorf("no program %s: run `make kube`, or set %s to a directory that has %s and %s: %w",
				p.Binary(name), assetsVariable, strings.Join(needed[:last], ", "), needed[last], err)
		}
	}
	return nil
}

func (p *ControlPlane) makeDirectories(context.Context) error {
	for _, dir := range []string{p.options.LogDir, p.file("etcd"), p.file("pki")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return nil
}

func (p *ControlPlane) holdPorts(context.Context) (err error) {
	if p.etcdPort, err = holdFreePort(loopback); err != nil {
		return err
	}
	p.apiPort, err = holdFreePort(p.cluster().Address)
	return err
}

// makeIdentities makes keys and certificates, new ones at each start: so none is ever too old.
func (p *ControlPlane) makeIdentities(context.Context) (err error) {
	if p.authority, err = newAuthority(); err != nil {
		return err
	}
	serving, err := p.issueIdentity()
	if err != nil {
		return err
	}
	kubeletClient, err := p.authority.issueClient("kube-apiserver", []string{"system:masters"})
	if err != nil {
		return err
	}
	accounts, err := keyutil.MakeEllipticPrivateKeyPEM()
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"ca.crt":             p.authority.pem(),
		"apiserver.crt":      serving.certificate,
		"apiserver.key":      serving.key,
		"kubelet-client.crt": kubeletClient.certificate,
		"kubelet-client.key": kubeletClient.key,
		"accounts.key":       accounts,
	}
	for name, content := range files {
		if err := os.WriteFile(p.file("pki", name), content, 0o600); err != nil {
			return err
		}
	}
	if p.admin, err = p.UserConfig("admin", "system:masters"); err != nil {
		return err
	}
	if p.clients, err = kubernetes.NewForConfig(p.admin); err != nil {
		return err
	}
	return WriteKubeconfig(p.Kubeconfig(), p.admin, metav1.NamespaceDefault)
}

func (p *ControlPlane) startEtcd(ctx context.Context) (err error) {
	p.etcd, err = process.Start(ctx, process.Command{
		Path: p.Binary("etcd"),
		Args: []string{
			"--data-dir=" + p.file("etcd"),
			"--listen-client-urls=" + p.etcdPort.url("http"),
			"--advertise-client-urls=" + p.etcdPort.url("http"),
			"--listen-peer-urls=http://" + loopback.String() + ":0", // the only member: nobody calls there
			"--socket-reuse-port",
			"--unsafe-no-fsync", // what is written outlives the process, which is all that is promised here
			"--log-level=warn",
		},
		Log:   p.logFile("etcd"),
		Ready: process.HTTPReady(p.etcdPort.url("http") + "/health"),
	})
	return err
}

// StartAPIServer starts the API server again after StopAPIServer, at the same address, and returns when it is ready.
func (p *ControlPlane) StartAPIServer(ctx context.Context) (err error) {
	p.apiServer, err = process.Start(ctx, process.Command{
		Path: p.Binary("kube-apiserver"),
		Args: slices.Concat([]string{
			"--etcd-servers=" + p.etcdPort.url("http"),
			"--bind-address=" + p.apiPort.Addr().String(),
			"--advertise-address=" + p.apiPort.Addr().String(),
			fmt.Sprintf("--secure-port=%d", p.apiPort.Port()),
			"--permit-port-sharing",
			"--service-cluster-ip-range=" + p.cluster().Services.String(),
			"--tls-cert-file=" + p.file("pki", "apiserver.crt"),
			"--tls-private-key-file=" + p.file("pki", "apiserver.key"),
			"--client-ca-file=" + p.file("pki", "ca.crt"),
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file=" + p.file("pki", "accounts.key"),
			"--service-account-signing-key-file=" + p.file("pki", "accounts.key"),
			"--allow-privileged",
		}, p.nodeFlags(), p.options.APIServerFlags),
		Log:   p.logFile("kube-apiserver"),
		Ready: p.apiServerReady,
	})
	return err
}

// StopAPIServer ends the API server at once; its port stays held, and connections to it are refused. kube-controller-manager goes on and
// reconnects.
func (p *ControlPlane) StopAPIServer() { kill(&p.apiServer) }

func (p *ControlPlane) startControllerManager(ctx context.Context) error {
	const name = "kube-controller-manager"
	if _, err := os.Stat(p.Binary(name)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	config, err := p.UserConfig("system:" + name)
	if err != nil {
		return err
	}
	kubeconfig := p.file("pki", name+".kubeconfig")
	if err := WriteKubeconfig(kubeconfig, config, metav1.NamespaceSystem); err != nil {
		return err
	}
	p.controllerManager, err = process.Start(ctx, process.Command{
		Path: p.Binary(name),
		Args: []string{
			"--kubeconfig=" + kubeconfig,
			"--controllers=" + p.controllers(),
			"--service-account-private-key-file=" + p.file("pki", "accounts.key"),
			"--root-ca-file=" + p.file("pki", "ca.crt"),
			"--use-service-account-credentials",
			"--leader-elect=false",
			"--secure-port=0",
			"--kube-api-qps=300",
			"--kube-api-burst=600",
			"--flex-volume-plugin-dir=" + p.file("volume-plugins"), // none: the default is one outside
		},
		Log:   p.logFile(name),
		Ready: p.controllerManagerReady,
	})
	return err
}

func (p *ControlPlane) apiServerReady(ctx context.Context) error {
	if err := p.clients.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error(); err != nil {
		return err
	}
	_, err := p.clients.CoreV1().Namespaces().Get(ctx, metav1.NamespaceDefault, metav1.GetOptions{})
	return err
}

// controllerManagerReady sees whether kube-controller-manager works by what it does to a new namespace.
func (p *ControlPlane) controllerManagerReady(ctx context.Context) error {
	_, err := p.clients.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return errors.New("namespaces have no default ServiceAccount yet")
	}
	return err
}
