// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

// Package e2e_test tries the image in real pods: `make e2e`. It brings up a cluster of one node of its own; where the environment has
// IMAGE, it uses the cluster that KUBECONFIG leads to, which can get that image.
package e2e_test

import (
	"context"
	"errors"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/testnode"
)

const (
	configDir = "../../config"
	ownImage  = "localhost/apikey-operator:e2e" // as `make e2e` builds it

	// patience bounds what a cluster does by itself.
	patience = 2 * time.Minute
)

// cluster is a Kubernetes cluster with nodes.
type cluster struct {
	image   string // of apikey-operator
	dir     string // for files of ours
	clients kubernetes.Interface
	client  controlplane.Kubectl
	node    *testnode.Node // nil on a cluster that is not our own
}

// shared is the cluster of all tests.
var shared *cluster

func TestMain(m *testing.M) {
	code, err := runTests(m)
	if err != nil {
		log.Print(err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func runTests(m *testing.M) (code int, err error) {
	ctx, stopListening := signal.NotifyContext(context.Background(), process.EndingSignals()...)
	dir, err := os.MkdirTemp("", "apikey-operator-e2e-")
	if err != nil {
		return 0, err
	}
	shared = &cluster{dir: dir}
	defer func() { err = errors.Join(err, shared.release()) }()
	if err := shared.find(ctx); err != nil {
		return 0, err
	}
	ended := make(chan int, 1)
	go func() { ended <- m.Run() }()
	select {
	case code := <-ended:
		return code, nil
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
	default:
		c.image = image
		return c.connect(kubeconfig)
	}
}

// startNode brings up a cluster of one node that has the image.
func (c *cluster) startNode(ctx context.Context) (err error) {
	c.image = ownImage
	if c.node, err = testnode.Start(ctx); err != nil {
		return err
	}
	if err := c.node.Load(ctx, "apikey-operator"); err != nil {
		return err
	}
	return c.connect(c.node.Kubeconfig())
}

func (c *cluster) connect(kubeconfig string) error {
	assets, err := controlplane.FindAssets()
	if err != nil {
		return err
	}
	c.client = controlplane.Kubectl{Program: filepath.Join(assets, "kubectl"), Kubeconfig: kubeconfig, CacheDir: filepath.Join(c.dir, "kubectl")}
	rules := &clientcmd.ClientConfigLoadingRules{Precedence: filepath.SplitList(kubeconfig)}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return err
	}
	c.clients, err = kubernetes.NewForConfig(config)
	return err
}

// release ends a cluster of our own, and leaves the others as they are.
func (c *cluster) release() error {
	var err error
	if c.node != nil {
		err = c.node.Stop()
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

// apply applies a file of testdata, with this cluster's image, in a namespace; it is deleted after the test.
func (c *cluster) apply(t *testing.T, name, namespace string) {
	t.Helper()
	file, err := os.ReadFile(filepath.Join("testdata", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	manifest := strings.NewReplacer("IMAGE", c.image, "NAMESPACE", namespace).Replace(string(file))
	t.Cleanup(func() {
		c.kubectl(t, manifest, "delete", "--ignore-not-found", "--wait=false", "--filename", "-")
	})
	c.kubectl(t, manifest, "apply", "--filename", "-")
}

// await waits until an object is as kubectl's --for says. If that does not come, the test tells what the cluster says of it.
func (c *cluster) await(t *testing.T, namespace, object, is string) {
	t.Helper()
	_, err := c.client.Run(t.Context(), "", "wait", object, "--namespace", namespace, "--for", is, "--timeout", patience.String())
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
