// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testnode"
)

const (
	configDir = "../../config"

	timeout      = 3 * time.Minute
	pollInterval = 100 * time.Millisecond
)

// images are the names of the images of the pods.
type images struct {
	operator, upgrade string // apikey-operator, of two versions
	traffic, gateway  string
}

// ownImages are the images that `make e2e` builds, and ownArchives their files in bin/images.
var (
	ownImages = images{
		operator: "localhost/apikey-operator:e2e",
		upgrade:  "localhost/apikey-operator:e2e-upgrade",
		traffic:  "localhost/traffic:1",
		gateway:  "localhost/caddy:1",
	}
	ownArchives = []string{"apikey-operator", "apikey-operator-upgrade", "traffic", "caddy"}
)

// cluster is a Kubernetes cluster with nodes.
type cluster struct {
	images
	root       string // of the repository
	dir        string // for temporary files
	kubeconfig string
	clients    kubernetes.Interface
	api        client.WithWatch
	client     controlplane.Kubectl
	node       *testnode.Node // nil on an existing cluster
	report     *report
	installation
}

// shared is the cluster of all tests.
var shared *cluster

func TestMain(m *testing.M) {
	gomega.SetDefaultEventuallyTimeout(timeout)
	gomega.SetDefaultEventuallyPollingInterval(pollInterval)
	code, err := runTests(m)
	if err != nil {
		log.Print(err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func runTests(m *testing.M) (code int, err error) {
	ctx, stopListening := signal.NotifyContext(context.Background(), process.TerminationSignals()...)
	root, err := controlplane.FindRepository()
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "apikey-operator-e2e-")
	if err != nil {
		return 0, err
	}
	shared = &cluster{root: root, dir: dir, report: &report{}}
	defer func() { err = errors.Join(err, shared.release()) }()
	if err := shared.start(ctx); err != nil {
		return 0, err
	}
	ended := make(chan int, 1)
	go func() { ended <- m.Run() }()
	select {
	case code := <-ended:
		if code != 0 {
			shared.logNodes()
		}
		return code, shared.report.write(filepath.Join(root, "bin", "e2e", "report.md"))
	case <-ctx.Done():
		stopListening() // a second signal ends the process at once
		return 0, errors.New("interrupted")
	}
}

// start connects to the cluster in the environment, or starts one.
func (c *cluster) start(ctx context.Context) error {
	kubeconfig, image := os.Getenv("KUBECONFIG"), os.Getenv("IMAGE")
	switch {
	case image == "":
		return c.startNode(ctx)
	case kubeconfig == "":
		return errors.New("IMAGE requires an existing cluster: set KUBECONFIG to its kubeconfig file, or unset IMAGE")
	}
	c.images = images{
		operator: image,
		upgrade:  os.Getenv("UPGRADE_IMAGE"),
		traffic:  os.Getenv("TRAFFIC_IMAGE"),
		gateway:  os.Getenv("GATEWAY_IMAGE"),
	}
	if c.upgrade == "" || c.traffic == "" || c.gateway == "" {
		return errors.New("IMAGE requires three more images. Set UPGRADE_IMAGE to IMAGE with another tag. `make bin/images/traffic.tar bin/images/caddy.tar` " +
			"builds the others in the format of \"docker save\": push them to a registry, and set TRAFFIC_IMAGE and GATEWAY_IMAGE to their names")
	}
	return c.connect(kubeconfig)
}

// startNode starts a cluster of one node and loads the images.
func (c *cluster) startNode(ctx context.Context) (err error) {
	c.images = ownImages
	if c.node, err = testnode.Start(ctx); err != nil {
		return err
	}
	for _, archive := range ownArchives {
		if err := c.node.Load(ctx, archive); err != nil {
			return err
		}
	}
	return c.connect(c.node.Kubeconfig())
}

func (c *cluster) connect(kubeconfig string) error {
	assets, err := controlplane.FindAssets()
	if err != nil {
		return err
	}
	c.kubeconfig = kubeconfig
	c.client = controlplane.Kubectl{Program: filepath.Join(assets, "kubectl"), Kubeconfig: kubeconfig, CacheDir: filepath.Join(c.dir, "kubectl")}
	rules := &clientcmd.ClientConfigLoadingRules{Precedence: filepath.SplitList(kubeconfig)}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return err
	}
	ctrllog.SetLogger(logr.Discard())
	config.QPS = -1 // API Priority and Fairness limits the rate
	config.WarningHandler = rest.NoWarnings{}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	if c.api, err = client.NewWithWatch(config, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	c.clients, err = kubernetes.NewForConfig(config)
	return err
}

// logNodes logs what keeps pods from the nodes, such as a full disk.
func (c *cluster) logNodes() {
	output, err := c.client.Run(context.Background(), "", "get", "nodes", "--output",
		`custom-columns=NODE:.metadata.name,TAINTS:.spec.taints[*].key,CONDITIONS:.status.conditions[?(@.status=="True")].type`)
	log.Print(output, err)
}

// release stops a cluster that was started, and removes apikey-operator from an existing one.
func (c *cluster) release() error {
	var err error
	switch {
	case c.node != nil:
		err = c.node.Stop()
	case c.installed:
		_, makeErr := c.make(context.Background(), "uninstall")
		_, deleteErr := c.client.Run(context.Background(), "", "delete", "--kustomize", configDir+"/crd")
		err = errors.Join(makeErr, deleteErr)
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}

// namespace creates a namespace for a test, with the restricted profile of Pod Security. It is deleted after the test.
func (c *cluster) namespace(t *testing.T) string {
	t.Helper()
	namespace, err := c.clients.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "apikey-e2e-",
		Labels:       map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}, metav1.CreateOptions{})
	framework.Must(t, err)
	t.Cleanup(func() { c.kubectl(t, "", "delete", "namespace", namespace.Name, "--wait=false") })
	return namespace.Name
}

// apply applies a file of testdata with the images of the cluster. Its objects are deleted after the test.
func (c *cluster) apply(t *testing.T, name, namespace string) {
	t.Helper()
	file, err := os.ReadFile(filepath.Join("testdata", name+".yaml"))
	framework.Must(t, err)
	manifest := strings.NewReplacer(
		"TRAFFIC_IMAGE", c.traffic, "GATEWAY_IMAGE", c.gateway, "IMAGE", c.operator, "NAMESPACE", namespace,
	).Replace(string(file))
	t.Cleanup(func() {
		c.kubectl(t, manifest, "delete", "--ignore-not-found", "--wait=false", "--filename", "-")
	})
	c.kubectl(t, manifest, "apply", "--filename", "-")
}

// await waits for an object with `kubectl wait --for`. If it times out, the failure describes the object.
func (c *cluster) await(t *testing.T, namespace, object, condition string) {
	t.Helper()
	_, err := c.client.Run(t.Context(), "", "wait", object, "--namespace", namespace, "--for", condition, "--timeout", timeout.String())
	if err != nil {
		t.Fatalf("%v\n%s", err, c.kubectl(t, "", "describe", object, "--namespace", namespace))
	}
}

// kubectl runs kubectl, and returns its output. An error ends the test.
func (c *cluster) kubectl(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	output, err := c.client.Run(context.WithoutCancel(t.Context()), stdin, args...) // cleanups run after the context of the test
	framework.Must(t, err)
	return output
}

// make runs make for this cluster, and returns its output.
func (c *cluster) make(ctx context.Context, target string, variables ...string) (string, error) {
	command := exec.CommandContext(ctx, "make", append([]string{"--directory", c.root, target, "KUBECONFIG=" + c.kubeconfig}, variables...)...)
	command.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig, "MAKEFLAGS=")
	output, err := command.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("make %s: %w\n%s", target, err, output)
	}
	return string(output), nil
}
