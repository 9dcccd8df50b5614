// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllermanager

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsscheme "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/scheme"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/util/keyutil"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
	"k8s.io/kubernetes/pkg/controller/clusterroleaggregation"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
	"k8s.io/kubernetes/pkg/controller/validatingadmissionpolicystatus"
	"k8s.io/kubernetes/pkg/generated/openapi"
	tokens "k8s.io/kubernetes/pkg/serviceaccount"
)

// constructors create the controllers by name. Names, ServiceAccounts, numbers of workers and periods are those of the official program.
var constructors = map[string]func(*manager, context.Context) (run func(context.Context), err error){
	"clusterrole-aggregation-controller":          (*manager).newClusterRoleAggregation,
	"garbage-collector-controller":                (*manager).newGarbageCollector,
	"namespace-controller":                        (*manager).newNamespaceController,
	"root-ca-certificate-publisher-controller":    (*manager).newRootCAPublisher,
	"serviceaccount-controller":                   (*manager).newServiceAccountController,
	"serviceaccount-token-controller":             (*manager).newTokenController,
	"validatingadmissionpolicy-status-controller": (*manager).newPolicyStatusController,
}

func (m *manager) newClusterRoleAggregation(context.Context) (func(context.Context), error) {
	client, err := m.clients.Client("clusterrole-aggregation-controller")
	if err != nil {
		return nil, err
	}
	controller := clusterroleaggregation.NewClusterRoleAggregation(m.informers.Rbac().V1().ClusterRoles(), client.RbacV1())
	return func(ctx context.Context) { controller.Run(ctx, 5) }, nil
}

func (m *manager) newGarbageCollector(ctx context.Context) (func(context.Context), error) {
	config, err := m.clients.Config("generic-garbage-collector")
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	config.QPS *= 2 // each deletion takes two requests
	metadataClient, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	graph := garbagecollector.NewDependencyGraphBuilder(ctx, m.metadataClient, m.mapper, garbagecollector.DefaultIgnoredResources(),
		informerfactory.NewInformerFactory(m.informers, m.metadataInformers), m.informersStarted)
	collector, err := garbagecollector.NewComposedGarbageCollector(ctx, client, metadataClient, m.mapper, graph)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) {
		var running sync.WaitGroup
		running.Go(func() { collector.Run(ctx, 20, discoveryPeriod) })
		running.Go(func() { collector.Sync(ctx, client.Discovery(), discoveryPeriod) })
		running.Wait()
	}, nil
}

func (m *manager) newNamespaceController(ctx context.Context) (func(context.Context), error) {
	config, err := m.clients.Config("namespace-controller")
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = config.QPS*20, config.Burst*100 // it lists each kind in each deleted namespace
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	metadataClient, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	controller := namespace.NewNamespaceController(ctx, client, metadataClient, client.Discovery().ServerPreferredNamespacedResources,
		m.informers.Core().V1().Namespaces(), 5*time.Minute, corev1.FinalizerKubernetes)
	return func(ctx context.Context) { controller.Run(ctx, 10) }, nil
}

func (m *manager) newRootCAPublisher(context.Context) (func(context.Context), error) {
	client, err := m.clients.Client("root-ca-cert-publisher")
	if err != nil {
		return nil, err
	}
	core := m.informers.Core().V1()
	publisher, err := rootcacertpublisher.NewPublisher(core.ConfigMaps(), core.Namespaces(), client, m.rootCA)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { publisher.Run(ctx, 1) }, nil
}

func (m *manager) newServiceAccountController(ctx context.Context) (func(context.Context), error) {
	client, err := m.clients.Client("service-account-controller")
	if err != nil {
		return nil, err
	}
	core := m.informers.Core().V1()
	controller, err := serviceaccount.NewServiceAccountsController(klog.FromContext(ctx), core.ServiceAccounts(), core.Namespaces(), client,
		serviceaccount.DefaultServiceAccountsControllerOptions())
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { controller.Run(ctx, 1) }, nil
}

// newTokenController returns the controller that writes tokens of ServiceAccounts to Secrets. As in the official program, it has the rights
// of kube-controller-manager instead of a ServiceAccount.
func (m *manager) newTokenController(ctx context.Context) (func(context.Context), error) {
	client, err := m.ownClients.Client("tokens-controller")
	if err != nil {
		return nil, err
	}
	key, err := keyutil.PrivateKeyFromFile(m.accountsKeyFile)
	if err != nil {
		return nil, err
	}
	generator, err := tokens.JWTTokenGenerator(tokens.LegacyIssuer, key)
	if err != nil {
		return nil, err
	}
	core := m.informers.Core().V1()
	controller, err := serviceaccount.NewTokensController(klog.FromContext(ctx), core.ServiceAccounts(), core.Secrets(), client,
		serviceaccount.TokensControllerOptions{TokenGenerator: generator, RootCA: m.rootCA})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { controller.Run(ctx, 5) }, nil
}

// newPolicyStatusController returns the controller that checks the types in the expressions of ValidatingAdmissionPolicies.
func (m *manager) newPolicyStatusController(context.Context) (func(context.Context), error) {
	client, err := m.clients.Client("validatingadmissionpolicy-status-controller")
	if err != nil {
		return nil, err
	}
	schemas := resolver.NewDefinitionsSchemaResolver(openapi.GetOpenAPIDefinitions, scheme.Scheme, apiextensionsscheme.Scheme).
		Combine(&resolver.ClientDiscoveryResolver{Discovery: client.Discovery()})
	controller, err := validatingadmissionpolicystatus.NewController(
		m.informers.Admissionregistration().V1().ValidatingAdmissionPolicies(),
		client.AdmissionregistrationV1().ValidatingAdmissionPolicies(),
		&validating.TypeChecker{SchemaResolver: schemas, RestMapper: m.mapper},
	)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { controller.Run(ctx, 5) }, nil
}
