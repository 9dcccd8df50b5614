// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

// Package e2e_test installs the image in a cluster and uses it there as people do: `make e2e`. It brings up a cluster of one node of its
// own; where the environment has IMAGE, it uses the cluster that KUBECONFIG leads to, which can get these images:
//
//	IMAGE          apikey-operator
//	UPGRADE_IMAGE  the same under another tag
//	TRAFFIC_IMAGE  what is around it in the tests: bin/images/traffic.tar, or a static build of test/e2e/traffic as the entry point
//	GATEWAY_IMAGE  Caddy as the entry point: bin/images/caddy.tar, or a static build
//
// What it measures is in bin/e2e/report.md.
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
	"squirrel.dev/apikey-operator/test/framework/testnode"
)

const (
	configDir = "../../config"

	// timeout bounds what a cluster does by itself.
	timeout = 3 * time.Minute
	polling = 100 * time.Millisecond
)

// images are the names of what runs in pods.
type images struct {
	operator, upgrade string // apikey-operator, of two versions
	traffic, gateway  string
}

// ownImages are what `make e2e` builds, by the names of their archives.
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
	dir        string // for files of ours
	kubeconfig string
	clients    kubernetes.Interface
	api        client.WithWatch
	client     controlplane.Kubectl
	node       *testnode.Node // nil on a cluster that is not our own
	report     *report
	installation
}

// shared is the cluster of all tests.
var shared *cluster

func TestMain(m *testing.M) {
	gomega.SetDefaultEventuallyTimeout(timeout)
	gomega.SetDefaultEventuallyPollingInterval(polling)
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
	if err := shared.find(ctx); err != nil {
		return 0, err
	}
	ended := make(chan int, 1)
	go func() { ended <- m.Run() }()
	select {
	case code := <-ended:
		return code, shared.report.write(filepath.Join(root, "bin", "e2e", "report.md"))
	case <-ctx.Done():
		stopListening() // a second signal ends this at once
		return 0, errors.New("interrupted")
	}
}

// find finds the cluster that the environment names, else brings up one of our own.
func (c *cluster) find(ctx context.Context) error {
	kubeconfig, image := os.Getenv("KUBECONFIG"), os.Getenv("IMAGE")
	switch {
	case image == "":
		return c.startNode(ctx)
	case kubeconfig == "":
		return errors.New("IMAGE is for another cluster than our own: set KUBECONFIG to the file that leads to it, or unset IMAGE")
	}
	c.images = images{
		operator: image,
		upgrade:  os.Getenv("UPGRADE_IMAGE"),
		traffic:  os.Getenv("TRAFFIC_IMAGE"),
		gateway:  os.Getenv("GATEWAY_IMAGE"),
	}
	if c.upgrade == "" || c.traffic == "" || c.gateway == "" {
		return errors.New("with IMAGE, the cluster has to get three images more. Set UPGRADE_IMAGE to IMAGE under another tag. " +
			"`make bin/images/traffic.tar bin/images/caddy.tar` makes archives of the others, as \"docker save\" writes them: have the cluster get " +
			"them, and set TRAFFIC_IMAGE and GATEWAY_IMAGE to how it calls them")
	}
	return c.connect(kubeconfig)
}

// startNode brings up a cluster of one node that has the images.
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
	config.QPS = -1 // the API server itself holds back who asks too much
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

// release ends a cluster of our own, and leaves the others as they were.
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

// namespace makes a namespace for a test alone, whose pods have to be restricted. It is deleted after the test.
func (c *cluster) namespace(t *testing.T) string {
	t.Helper()
	namespace, err := c.clients.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "apikey-e2e-",
		Labels:       map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.kubectl(t, "", "delete", "namespace", namespace.Name, "--wait=false") })
	return namespace.Name
}

// apply applies a file of testdata, with this cluster's images, in a namespace; it is deleted after the test.
func (c *cluster) apply(t *testing.T, name, namespace string) {
	t.Helper()
	file, err := os.ReadFile(filepath.Join("testdata", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	manifest := strings.NewReplacer(
		"TRAFFIC_IMAGE", c.traffic, "GATEWAY_IMAGE", c.gateway, "IMAGE", c.operator, "NAMESPACE", namespace,
	).Replace(string(file))
	t.Cleanup(func() {
		c.kubectl(t, manifest, "delete", "--ignore-not-found", "--wait=false", "--filename", "-")
	})
	c.kubectl(t, manifest, "apply", "--filename", "-")
}

// await waits until an object is as kubectl's --for says. If that does not come, the test tells what the cluster says of it.
func (c *cluster) await(t *testing.T, namespace, object, is string) {
	t.Helper()
	_, err := c.client.Run(t.Context(), "", "wait", object, "--namespace", namespace, "--for", is, "--timeout", timeout.String())
	if err != nil {
		t.Fatalf("%v\n%s", err, c.kubectl(t, "", "describe", object, "--namespace", namespace))
	}
}

// kubectl returns what kubectl prints. If it fails, so does the test.
func (c *cluster) kubectl(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	output, err := c.client.Run(context.WithoutCancel(t.Context()), stdin, args...) // cleaning up, too
	if err != nil {
		t.Fatal(err)
	}
	return output
}

// make makes a target of the Makefile, for this cluster, and returns what that prints.
func (c *cluster) make(ctx context.Context, target string, variables ...string) (string, error) {
	command := exec.CommandContext(ctx, "make", append([]string{"--directory", c.root, target, "KUBECONFIG=" + c.kubeconfig}, variables...)...)
	command.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig, "MAKEFLAGS=")
	output, err := command.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("make %s: %w\n%s", target, err, output)
	}
	return string(output), nil
}
