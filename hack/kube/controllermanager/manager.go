// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllermanager

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/controller-manager/pkg/clientbuilder"
)

// discoveryPeriod is how often controllers discover new kinds. It is that of the official program.
const discoveryPeriod = 30 * time.Second

// resyncPeriod is how often informers deliver all objects again. It is the shortest one of the official program.
const resyncPeriod = 12 * time.Hour

// manager has the clients and informers that the controllers share.
type manager struct {
	options
	rootCA            []byte
	ownClients        clientbuilder.ControllerClientBuilder // with the rights of kube-controller-manager
	clients           clientbuilder.ControllerClientBuilder // with the rights of the ServiceAccount of each controller
	metadataClient    metadata.Interface
	informers         informers.SharedInformerFactory
	metadataInformers metadatainformer.SharedInformerFactory
	informersStarted  chan struct{}
	mapper            *restmapper.DeferredDiscoveryRESTMapper
}

func run(ctx context.Context, o options) error {
	m, err := newManager(o)
	if err != nil {
		return err
	}
	controllers, err := m.newControllers(ctx)
	if err != nil {
		return err
	}
	m.informers.Start(ctx.Done())
	m.metadataInformers.Start(ctx.Done())
	close(m.informersStarted)
	controllers = append(controllers, m.resetMapper)
	var running sync.WaitGroup
	for _, controller := range controllers {
		running.Go(func() { controller(ctx) })
	}
	running.Wait()
	return nil
}

func newManager(o options) (*manager, error) {
	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return nil, err
	}
	rootCA, err := os.ReadFile(o.rootCAFile)
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = o.qps, o.burst
	config.ContentType = runtime.ContentTypeProtobuf

	m := &manager{
		options:          o,
		rootCA:           rootCA,
		ownClients:       clientbuilder.SimpleControllerClientBuilder{ClientConfig: config},
		informersStarted: make(chan struct{}),
	}
	client, err := m.ownClients.Client("shared-informers")
	if err != nil {
		return nil, err
	}
	m.clients = clientbuilder.NewDynamicClientBuilder(rest.AnonymousClientConfig(config), client.CoreV1(), metav1.NamespaceSystem)
	if m.metadataClient, err = metadata.NewForConfig(config); err != nil {
		return nil, err
	}
	m.informers = informers.NewSharedInformerFactoryWithOptions(client, resyncPeriod, informers.WithTransform(trimManagedFields))
	m.metadataInformers = metadatainformer.NewSharedInformerFactoryWithOptions(m.metadataClient, resyncPeriod,
		metadatainformer.WithTransform(trimManagedFields))
	m.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	return m, nil
}

// trimManagedFields saves the memory of fields that no controller reads.
func trimManagedFields(object any) (any, error) {
	if accessor, err := meta.Accessor(object); err == nil {
		accessor.SetManagedFields(nil)
	}
	return object, nil
}

// newControllers returns the functions that run the controllers.
func (m *manager) newControllers(ctx context.Context) ([]func(context.Context), error) {
	var controllers []func(context.Context)
	for _, name := range m.options.controllers {
		newController, ok := constructors[name]
		if !ok {
			return nil, fmt.Errorf("this kube-controller-manager has no controller %s: it has only %s",
				name, strings.Join(slices.Sorted(maps.Keys(constructors)), ", "))
		}
		controller, err := newController(m, ctx)
		if err != nil {
			return nil, fmt.Errorf("create the controller %s: %w", name, err)
		}
		controllers = append(controllers, controller)
	}
	return controllers, nil
}

// resetMapper lets the mapper discover new kinds.
func (m *manager) resetMapper(ctx context.Context) {
	wait.UntilWithContext(ctx, func(context.Context) { m.mapper.Reset() }, discoveryPeriod)
}
