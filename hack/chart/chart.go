// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Where the certificates are from.
const (
	minted        = `eq .Values.certificates.source "minted"`
	notMinted     = `ne .Values.certificates.source "minted"`
	byCertManager = `eq .Values.certificates.source "cert-manager"`
	fromSecrets   = `eq .Values.certificates.source "secrets"`
)

// recipe says how an object of config/ becomes a template.
type recipe struct {
	leftOut bool // it is not part of the chart
	when    string
	// withoutMinting says when what only config/overlays/cert-manager has is there; "" is whenever nothing is minted.
	withoutMinting string
	edit           func(*chart, object) error // nil changes no more than in all objects
}

// recipes has one for each object of config/, by its kind and name.
func recipes() map[string]recipe {
	const (
		crds          = ".Values.crds.enabled"
		budgets       = ".Values.podDisruptionBudget.enabled"
		autoscaling   = ".Values.authenticator.autoscaling.enabled"
		network       = ".Values.networkPolicy.enabled"
		console       = ".Values.console.enabled"
		consoleAndNet = "and .Values.console.enabled .Values.networkPolicy.enabled"
		prometheus    = ".Values.prometheus.enabled"
	)
	return map[string]recipe{
		"Namespace/apikey-system": {leftOut: true}, // Helm makes it, or whoever installs

		"CustomResourceDefinition/apikeys.keys.squirrel.dev": {when: crds, edit: (*chart).keepDefinition},

		"ServiceAccount/apikey-authenticator":     {},
		"ServiceAccount/apikey-controller":        {},
		"Role/apikey-controller":                  {},
		"ClusterRole/apikey-authenticator":        {},
		"ClusterRole/apikey-controller":           {},
		"ClusterRole/apikey-editor":               {},
		"ClusterRole/apikey-viewer":               {},
		"RoleBinding/apikey-controller":           {},
		"ClusterRoleBinding/apikey-authenticator": {},
		"ClusterRoleBinding/apikey-controller":    {},

		"Service/apikey-authenticator":      {},
		"Service/apikey-controller-webhook": {},
		"Service/apikey-metrics":            {},

		"Deployment/apikey-authenticator":              {edit: (*chart).authenticator},
		"Deployment/apikey-controller":                 {edit: (*chart).controller},
		"HorizontalPodAutoscaler/apikey-authenticator": {when: autoscaling, edit: (*chart).autoscaler},
		"PodDisruptionBudget/apikey-authenticator":     {when: budgets},
		"PodDisruptionBudget/apikey-controller":        {when: budgets},
		"NetworkPolicy/apikey-authenticator":           {when: network},
		"NetworkPolicy/apikey-controller":              {when: network},

		"ValidatingAdmissionPolicy/apikey-secrets":                 {},
		"ValidatingAdmissionPolicy/apikey-status":                  {},
		"ValidatingAdmissionPolicy/apikey-webhook":                 {},
		"ValidatingAdmissionPolicyBinding/apikey-secrets":          {},
		"ValidatingAdmissionPolicyBinding/apikey-status":           {},
		"ValidatingAdmissionPolicyBinding/apikey-webhook":          {},
		"ValidatingWebhookConfiguration/apikeys.keys.squirrel.dev": {withoutMinting: byCertManager, edit: (*chart).webhook},

		"Issuer/apikey-operator":                {when: byCertManager},
		"Issuer/apikey-operator-self-signed":    {when: byCertManager},
		"Certificate/apikey-authenticator":      {when: byCertManager},
		"Certificate/apikey-controller-webhook": {when: byCertManager},
		"Certificate/apikey-operator-authority": {when: byCertManager},

		"ServiceAccount/apikey-console": {when: console, edit: (*chart).inConsoleNamespace},
		"Role/apikey-console":           {when: console, edit: (*chart).inConsoleNamespace},
		"RoleBinding/apikey-console":    {when: console, edit: (*chart).inConsoleNamespace},
		"Service/apikey-console":        {when: console, edit: (*chart).inConsoleNamespace},
		"Deployment/apikey-console":     {when: console, edit: (*chart).console},
		"NetworkPolicy/apikey-console":  {when: consoleAndNet, edit: (*chart).inConsoleNamespace},

		"ServiceMonitor/apikey-operator": {when: prometheus, edit: (*chart).selectedByPrometheus},
		"PodMonitor/apikey-console":      {when: prometheus, edit: (*chart).selectedByPrometheus},
		"PrometheusRule/apikey-operator": {when: prometheus, edit: (*chart).selectedByPrometheus},
		"ConfigMap/apikey-dashboard":     {when: prometheus},
	}
}

// chart is what a Helm chart is made of.
type chart struct {
	templater
	image     string            // of all processes in config/
	defaults  map[string]any    // what files are filled in with
	templates map[string]string // by their name
}

// newChart makes the templates, and finds out what values have to be by default so that nothing changes.
func newChart(kustomize func(dir string) ([]object, error)) (*chart, error) {
	c := &chart{defaults: map[string]any{}, templates: map[string]string{}}
	recipes := recipes()
	minting, err := byName(kustomize("config/default"))
	if err != nil {
		return nil, err
	}
	notMinting, err := byName(kustomize("config/overlays/cert-manager"))
	if err != nil {
		return nil, err
	}
	console, err := byName(kustomize("config/overlays/console"))
	if err != nil {
		return nil, err
	}
	prometheus, err := byName(kustomize("config/overlays/prometheus"))
	if err != nil {
		return nil, err
	}

	objects := map[string]object{}
	for _, more := range []map[string]object{notMinting, console, prometheus} {
		maps.Copy(objects, more)
	}
	for name, o := range minting {
		other, ok := notMinting[name]
		if !ok {
			return nil, fmt.Errorf("config/overlays/cert-manager lacks %s", name)
		}
		onlyOther := recipes[name].withoutMinting
		if onlyOther == "" {
			onlyOther = notMinted
		}
		if objects[name], err = c.mergeMaps(o, other, minted, onlyOther); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(objects)) {
		r, ok := recipes[name]
		if !ok {
			return nil, fmt.Errorf("config/ has %s, which hack/chart does not know: say there when the chart has it", name)
		}
		if err := c.add(name, objects[name], r); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		delete(recipes, name)
	}
	if len(recipes) > 0 {
		return nil, fmt.Errorf("config/ lacks what hack/chart knows: %v", slices.Sorted(maps.Keys(recipes)))
	}
	return c, nil
}

func byName(objects []object, err error) (map[string]object, error) {
	named := map[string]object{}
	for _, o := range objects {
		metadata, _ := o["metadata"].(object)
		named[fmt.Sprintf("%v/%v", o["kind"], metadata["name"])] = o
	}
	return named, err
}

// add makes an object a template.
func (c *chart) add(name string, o object, r recipe) error {
	if r.leftOut {
		return nil
	}
	if r.edit != nil {
		if err := r.edit(c, o); err != nil {
			return err
		}
	}
	labels, err := in[object](o, "metadata", "labels")
	if err != nil {
		return err
	}
	labels["helm"] = c.entry(`{{- include "apikey-operator.labels" . | nindent ` + sameIndentation + ` }}`)
	text, err := c.render(o, r.when)
	file := strings.ReplaceAll(strings.ToLower(name), "/", "-")
	c.templates[file] = text
	return err
}

// keepDefinition has Helm leave the definition where it is when the release goes, since all keys go with it.
func (c *chart) keepDefinition(definition object) error {
	annotations, err := in[object](definition, "metadata", "annotations")
	if err != nil {
		return err
	}
	annotations["helm"], err = c.when(".Values.crds.keep", object{"helm.sh/resource-policy": "keep"})
	return err
}

func (c *chart) controller(deployment object) error {
	if err := c.replicas(deployment, "controller"); err != nil {
		return err
	}
	return c.process(deployment, "controller")
}

func (c *chart) authenticator(deployment object) error {
	spec, err := in[object](deployment, "spec")
	if err != nil {
		return err
	}
	if _, ok := spec["replicas"]; ok {
		return errors.New("it has replicas, which are the HorizontalPodAutoscaler's")
	}
	spec["replicas"] = c.entry("{{- if not .Values.authenticator.autoscaling.enabled }}\n" +
		"replicas: {{ .Values.authenticator.replicas }}\n{{- end }}")
	return c.process(deployment, "authenticator")
}

func (c *chart) console(deployment object) error {
	volumes, err := in[[]any](deployment, "spec", "template", "spec", "volumes")
	if err != nil || len(volumes) != 1 {
		return errors.Join(err, errors.New("it is to have one volume, of its certificate"))
	}
	secret, err := in[object](volumes[0], "secret")
	if err != nil {
		return err
	}
	c.defaults["consoleCertificateSecret"] = secret["secretName"]
	secret["secretName"] = c.value(".Values.console.certificateSecret | quote")
	return errors.Join(c.inConsoleNamespace(deployment), c.replicas(deployment, "console"), c.process(deployment, "console"))
}

// replicas makes the replicas of a Deployment a value.
func (c *chart) replicas(deployment object, component string) error {
	spec, err := in[object](deployment, "spec")
	if err != nil {
		return err
	}
	c.defaults[component+"Replicas"] = spec["replicas"]
	spec["replicas"] = c.value(".Values." + component + ".replicas")
	return nil
}

// process has the values of a process decide on what people set differently.
func (c *chart) process(deployment object, component string) error {
	metadata, err := in[object](deployment, "spec", "template", "metadata")
	if err != nil {
		return err
	}
	labels, err := in[object](metadata, "labels")
	if err != nil {
		return err
	}
	pod, err := in[object](deployment, "spec", "template", "spec")
	if err != nil {
		return err
	}
	containers, err := in[[]any](pod, "containers")
	if err != nil {
		return err
	}
	container, ok := containers[0].(object)
	if !ok || len(containers) != 1 || container["name"] != component {
		return fmt.Errorf("it is to have one container, %s", component)
	}
	values := ".Values." + component + "."

	image := fmt.Sprint(container["image"])
	if c.image != "" && image != c.image {
		return fmt.Errorf("its image is %s, not %s as that of others", image, c.image)
	}
	c.image = image
	c.defaults["pullPolicy"] = container["imagePullPolicy"]
	container["image"] = c.value(`include "apikey-operator.image" . | quote`)
	container["imagePullPolicy"] = c.value(".Values.image.pullPolicy")

	c.defaults[component+"Resources"] = container["resources"]
	container["resources"] = c.block("resources", values+"resources")

	args, err := in[[]any](container, "args")
	if err != nil {
		return err
	}
	container["args"] = append(args,
		c.entry("{{- with .Values.logLevel }}\n- --log-level={{ . }}\n{{- end }}"),
		c.entry("{{- range "+values+"extraArgs }}\n- {{ . | quote }}\n{{- end }}"))

	if _, ok := metadata["annotations"]; ok {
		return errors.New("its pods have annotations, which are a value without a default")
	}
	metadata["annotations"] = c.optional("annotations", values+"podAnnotations")
	labels["values"] = c.entries(values + "podLabels")
	pod["imagePullSecrets"] = c.optional("imagePullSecrets", ".Values.imagePullSecrets")
	for _, key := range []string{"nodeSelector", "tolerations", "affinity", "priorityClassName"} {
		if _, ok := pod[key]; ok {
			return fmt.Errorf("it has %s, which is a value without a default", key)
		}
		pod[key] = c.optional(key, values+key)
	}
	return nil
}

func (c *chart) autoscaler(autoscaler object) error {
	spec, err := in[object](autoscaler, "spec")
	if err != nil {
		return err
	}
	metrics, err := in[[]any](spec, "metrics")
	if err != nil || len(metrics) != 1 {
		return errors.Join(err, errors.New("it is to have one metric, of CPU"))
	}
	target, err := in[object](metrics[0], "resource", "target")
	if err != nil {
		return err
	}
	values := ".Values.authenticator.autoscaling."
	for key, from := range map[string]object{"minReplicas": spec, "maxReplicas": spec, "averageUtilization": target} {
		c.defaults[key] = from[key]
		from[key] = c.value(values + key)
	}
	return nil
}

// webhook has the API server verify a certificate that somebody else made.
func (c *chart) webhook(configuration object) error {
	webhooks, err := in[[]any](configuration, "webhooks")
	if err != nil || len(webhooks) != 1 {
		return errors.Join(err, errors.New("it is to have one webhook"))
	}
	client, err := in[object](webhooks[0], "clientConfig")
	if err != nil {
		return err
	}
	client["caBundle"] = c.entry("{{- if and (" + fromSecrets + ") .Values.certificates.webhookCABundle }}\n" +
		"caBundle: {{ .Values.certificates.webhookCABundle | b64enc }}\n{{- end }}")
	return nil
}

// inConsoleNamespace moves an object out of the namespace that it has in config/overlays/console.
func (c *chart) inConsoleNamespace(o object) error {
	namespace := c.value(`required "set console.namespace to the namespace whose keys the console manages" .Values.console.namespace | quote`)
	metadata, err := in[object](o, "metadata")
	if err != nil {
		return err
	}
	metadata["namespace"] = namespace
	subjects, _ := o["subjects"].([]any)
	for _, subject := range subjects {
		subject.(object)["namespace"] = namespace
	}
	return nil
}

// selectedByPrometheus adds the labels by which a Prometheus selects what it reads.
func (c *chart) selectedByPrometheus(o object) error {
	labels, err := in[object](o, "metadata", "labels")
	if err != nil {
		return err
	}
	labels["prometheus"] = c.entries(".Values.prometheus.labels")
	return nil
}

// in returns what is in a part of an object.
func in[T any](part any, path ...string) (T, error) {
	for _, key := range path {
		o, _ := part.(object)
		part = o[key]
	}
	found, ok := part.(T)
	if !ok {
		return found, fmt.Errorf("it has no %s", strings.Join(path, "."))
	}
	return found, nil
}
