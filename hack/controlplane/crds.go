// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/yaml"
)

const (
	fieldManager = "embedded-control-plane"
	crdTimeout   = 20 * time.Second
)

// installCRDs applies the CustomResourceDefinitions of a directory and returns when the API server serves their resources.
func (p *ControlPlane) installCRDs(ctx context.Context) error {
	crds, err := readCRDs(p.options.CRDDir)
	if err != nil {
		return err
	}
	clients, err := apiextensions.NewForConfig(p.admin)
	if err != nil {
		return err
	}
	for _, crd := range crds {
		manifest, err := yaml.Marshal(crd)
		if err != nil {
			return err
		}
		_, err = clients.ApiextensionsV1().CustomResourceDefinitions().Patch(ctx, crd.Name, types.ApplyYAMLPatchType, manifest,
			metav1.PatchOptions{FieldManager: fieldManager, Force: new(true)})
		if err != nil {
			return fmt.Errorf("cannot install the CustomResourceDefinition %s: %w", crd.Name, err)
		}
	}
	for _, crd := range crds {
		if err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, crdTimeout, true, p.serves(crd)); err != nil {
			return fmt.Errorf("the API server does not serve %s: %w", crd.Name, err)
		}
	}
	return nil
}

// readCRDs reads the files of a directory that hold a CustomResourceDefinition.
func readCRDs(dir string) ([]*apiextensionsv1.CustomResourceDefinition, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	var crds []*apiextensionsv1.CustomResourceDefinition
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.Unmarshal(content, crd); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if crd.Kind == "CustomResourceDefinition" {
			crds = append(crds, crd)
		}
	}
	return crds, nil
}

// serves says whether discovery names the resource in every version that is served.
func (p *ControlPlane) serves(crd *apiextensionsv1.CustomResourceDefinition) wait.ConditionWithContextFunc {
	return func(context.Context) (bool, error) {
		for _, version := range crd.Spec.Versions {
			if !version.Served {
				continue
			}
			resources, err := p.clients.Discovery().ServerResourcesForGroupVersion(crd.Spec.Group + "/" + version.Name)
			if err != nil {
				return false, nil //nolint:nilerr // not yet
			}
			named := func(resource metav1.APIResource) bool { return resource.Name == crd.Spec.Names.Plural }
			if !slices.ContainsFunc(resources.APIResources, named) {
				return false, nil
			}
		}
		return true, nil
	}
}
