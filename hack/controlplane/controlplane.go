// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

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

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/keyutil"

	"squirrel.dev/apikey-operator/hack/process"
)

// Options are the options of a control plane.
type Options struct {
	// Dir is the directory of the data, the certificates and a kubeconfig. Start creates it if it does not exist. A control plane that is
	// started again in the directory uses the same data.
	Dir string
	// LogDir is the directory of the logs, one for each process. Start creates it if it does not exist.
	LogDir string
	// Assets is the directory of the binaries: see [FindAssets].
	Assets string
	// CRDDir is a directory of CustomResourceDefinitions to install. It may be empty.
	CRDDir string
	// Cluster is for a control plane that nodes join. It may be nil.
	Cluster *Cluster
	// APIServerFlags are further flags of kube-apiserver.
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

// Start starts a control plane and returns when it is ready. On any error, cancellation of ctx included, no process is left running.
func Start(ctx context.Context, options Options) (*ControlPlane, error) {
	p := &ControlPlane{options: options}
	steps := []func(context.Context) error{
		p.checkBinaries,
		p.createDirectories,
		p.reservePorts,
		p.createCredentials,
		p.startEtcd,
		p.StartAPIServer,
		p.installCRDs, // first, because kube-controller-manager discovers new kinds only every 30 seconds
		p.startControllerManager,
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("start the embedded control plane: %w", err), p.Stop())
		}
	}
	return p, nil
}

// Stop stops the control plane, and keeps its directory.
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

// Kill stops the control plane at once, for callers that do not need its data any more. On a busy machine, etcd can hang when it is stopped
// in order.
func (p *ControlPlane) Kill() {
	kill(&p.etcd)
	_ = p.Stop() // only stopping etcd can fail
}

// kill kills a process whose state is in etcd, or is not needed any more.
func kill(running **process.Process) {
	if *running != nil {
		(*running).Kill()
		*running = nil
	}
}

// HasControllerManager reports whether kube-controller-manager runs. Without it, Kubernetes collects no garbage, deletes no namespace, and
// creates no default ServiceAccount.
func (p *ControlPlane) HasControllerManager() bool { return p.controllerManager != nil }

// Processes returns the processes of the control plane, in the order of their start.
func (p *ControlPlane) Processes() []*process.Process {
	var running []*process.Process
	for _, process := range []*process.Process{p.etcd, p.apiServer, p.controllerManager} {
		if process != nil {
			running = append(running, process)
		}
	}
	return running
}

// EtcdURL returns the URL of etcd.
func (p *ControlPlane) EtcdURL() string { return p.etcdPort.url("http") }

// Binary returns the path of a binary of the control plane, for example kubectl.
func (p *ControlPlane) Binary(name string) string { return filepath.Join(p.options.Assets, name) }

func (p *ControlPlane) file(elements ...string) string {
	return filepath.Join(append([]string{p.options.Dir}, elements...)...)
}

func (p *ControlPlane) logFile(process string) string {
	return filepath.Join(p.options.LogDir, process+".log")
}

func (p *ControlPlane) checkBinaries(context.Context) error {
	for _, name := range []string{"etcd", "kube-apiserver", "kubectl"} {
		if _, err := exec.LookPath(p.Binary(name)); err != nil {
			return fmt.Errorf("%s does not exist: run `make kube`, or set %s to a directory with etcd, kube-apiserver and kubectl: %w",
				p.Binary(name), assetsVariable, err)
		}
	}
	if program, _ := p.controllerManagerProgram(); p.hasNodes() {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s does not exist: run `make node`, which builds it: %w", program, err)
		}
	}
	return nil
}

func (p *ControlPlane) createDirectories(context.Context) error {
	for _, dir := range []string{p.options.LogDir, p.file("etcd"), p.file("pki")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return nil
}

func (p *ControlPlane) reservePorts(context.Context) (err error) {
	if p.etcdPort, err = reservePort(loopback); err != nil {
		return err
	}
	p.apiPort, err = reservePort(p.cluster().Address)
	return err
}

// createCredentials creates the certificates and keys. They are new at each start, so that none expires.
func (p *ControlPlane) createCredentials(context.Context) (err error) {
	if p.authority, err = newAuthority(); err != nil {
		return err
	}
	serving, err := p.issueServingCertificate()
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
			"--listen-peer-urls=http://" + loopback.String() + ":0", // unused by a single member
			"--socket-reuse-port",
			"--unsafe-no-fsync", // data must survive the process, not the machine
			"--log-level=warn",
		},
		Log:   p.logFile("etcd"),
		Ready: process.HTTPReady(p.etcdPort.url("http") + "/health"),
	})
	return err
}

// StartAPIServer starts the API server after StopAPIServer, at the same address, and returns when it is ready.
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

// StopAPIServer kills the API server. Its port stays reserved and refuses connections. kube-controller-manager keeps running and
// reconnects.
func (p *ControlPlane) StopAPIServer() { kill(&p.apiServer) }

func (p *ControlPlane) startControllerManager(ctx context.Context) error {
	const name = "kube-controller-manager"
	program, flags := p.controllerManagerProgram()
	if _, err := os.Stat(program); errors.Is(err, fs.ErrNotExist) {
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
		Path: program,
		Args: append(flags,
			"--kubeconfig="+kubeconfig,
			"--service-account-private-key-file="+p.file("pki", "accounts.key"),
			"--root-ca-file="+p.file("pki", "ca.crt"),
			"--use-service-account-credentials=true",
			"--leader-elect=false",
			"--secure-port=0",
			"--kube-api-qps=300",
			"--kube-api-burst=600",
		),
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

// controllerManagerReady checks that kube-controller-manager has created the default ServiceAccount of a namespace.
func (p *ControlPlane) controllerManagerReady(ctx context.Context) error {
	_, err := p.clients.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return errors.New("the namespace default has no default ServiceAccount yet")
	}
	return err
}
