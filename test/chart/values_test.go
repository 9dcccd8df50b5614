// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build chart

package chart_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"squirrel.dev/apikey-operator/test/framework/binaries"
)

const (
	consoleOn = "console: {enabled: true, namespace: shop}\n"

	// allOptions sets every value that needs no CustomResourceDefinition of another project.
	allOptions = `
image:
  repository: registry.example.com/keys
  tag: v9
  digest: 'sha256:0000000000000000000000000000000000000000000000000000000000000000'
  pullPolicy: Always
imagePullSecrets: [{name: registry}]
logLevel: debug
crds: {keep: false}
certificates: {source: secrets, webhookCABundle: "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"}
controller: {replicas: 3, extraArgs: [--webhook=false], ` + placement + `}
authenticator: {autoscaling: {enabled: false}, replicas: 5, extraArgs: [--max-staleness=5m], ` + placement + `}
console: {enabled: true, namespace: default, certificateSecret: mine, replicas: 2, extraArgs: [--shutdown-delay=1s], ` + placement + `}
`
	placement = "resources: {limits: {cpu: 1, memory: 1Gi}}, nodeSelector: {disk: ssd}, tolerations: [{operator: Exists}], " +
		"affinity: {nodeAffinity: {}}, priorityClassName: system-cluster-critical, " +
		"podAnnotations: {note: 'yes'}, podLabels: {team: keys}"
)

func TestValues_ChangeNothingElse(t *testing.T) {
	t.Parallel()
	const (
		controller    = "Deployment/apikey-controller: "
		authenticator = "Deployment/apikey-authenticator: "
		console       = "Deployment/apikey-console: "
		pod           = "spec.template.spec."
		container     = "spec.template.spec.containers[0]."
		autoscaler    = "HorizontalPodAutoscaler/apikey-authenticator: "
		networkPolicy = "NetworkPolicy/apikey-authenticator: "
		webhook       = "ValidatingWebhookConfiguration/apikeys.keys.squirrel.dev: "
		definition    = "CustomResourceDefinition/apikeys.keys.squirrel.dev: "
	)
	// inAll returns the changes for the Deployment of each component.
	inAll := func(changes ...string) (all []string) {
		for _, process := range []string{controller, authenticator, console} {
			for _, change := range changes {
				all = append(all, process+change)
			}
		}
		return all
	}
	before := parse(t, render(t, "apikey-system", consoleOn))
	imageBefore := flat(before["Deployment/apikey-controller"])[container+"image"]
	for _, test := range []struct {
		values string
		want   []string
	}{
		{"image: {repository: r/keys, tag: v9}", inAll("-"+container+"image="+imageBefore, "+"+container+"image=r/keys:v9")},
		{"image: {repository: r/keys, tag: '', digest: 'sha256:" + strings.Repeat("0", 64) + "'}",
			inAll("-"+container+"image="+imageBefore, "+"+container+"image=r/keys@sha256:"+strings.Repeat("0", 64))},
		{"image: {repository: r/keys, tag: '', digest: ''}",
			inAll("-"+container+"image="+imageBefore, "+"+container+"image=r/keys:latest")}, // the appVersion
		{"image: {pullPolicy: Always}", inAll("-"+container+"imagePullPolicy=IfNotPresent", "+"+container+"imagePullPolicy=Always")},
		{"imagePullSecrets: [{name: registry}]", inAll("+" + pod + "imagePullSecrets[0].name=registry")},
		{"logLevel: debug", []string{
			controller + "-" + container + "args[6]=--console-namespaces=shop",
			controller + "+" + container + "args[6]=--log-level=debug",
			controller + "+" + container + "args[7]=--console-namespaces=shop",
			authenticator + "+" + container + "args[5]=--log-level=debug",
			console + "+" + container + "args[6]=--log-level=debug",
		}},
		{"crds: {enabled: false}", []string{definition + "gone"}},
		{"crds: {keep: false}", []string{definition + "-metadata.annotations.helm.sh/resource-policy=keep"}},
		{`certificates: {source: secrets, webhookCABundle: "-----BEGIN CERTIFICATE-----"}`, []string{
			controller + "-" + container + "args[1]=--mint-certificates",
			controller + "+" + container + "args[1]=--webhook-cert-dir=/etc/apikey-operator/webhook-tls",
			controller + "+" + container + "volumeMounts[1].mountPath=/etc/apikey-operator/webhook-tls",
			controller + "+" + container + "volumeMounts[1].name=webhook-tls",
			controller + "+" + container + "volumeMounts[1].readOnly=true",
			controller + "+" + pod + "volumes[1].name=webhook-tls",
			controller + "+" + pod + "volumes[1].secret.secretName=apikey-controller-webhook-tls",
			controller + "-" + pod + "volumes[0].projected.sources[1].configMap.name=apikey-operator-ca",
			controller + "-" + pod + "volumes[0].projected.sources[1].configMap.optional=true",
			controller + "-" + pod + "volumes[0].projected.sources[1].configMap.items[0].key=ca.crt",
			controller + "-" + pod + "volumes[0].projected.sources[1].configMap.items[0].path=ca.crt",
			controller + "+" + pod + "volumes[0].projected.sources[1].secret.name=apikey-authenticator-tls",
			controller + "+" + pod + "volumes[0].projected.sources[1].secret.optional=true",
			controller + "+" + pod + "volumes[0].projected.sources[1].secret.items[0].key=ca.crt",
			controller + "+" + pod + "volumes[0].projected.sources[1].secret.items[0].path=ca.crt",
			webhook + "+webhooks[0].clientConfig.caBundle=LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t",
			controller + "-" + container + "args[6]=--console-namespaces=shop",
			"Role/apikey-console-certificate: gone", "RoleBinding/apikey-console-certificate: gone",
			"Role/apikey-controller: less", "ClusterRole/apikey-controller: less",
		}},
		{"controller: {replicas: 3}", []string{controller + "-spec.replicas=2", controller + "+spec.replicas=3"}},
		{"controller: {extraArgs: [--ca-lifetime=720h]}", []string{controller + "+" + container + "args[7]=--ca-lifetime=720h"}},
		{"controller: {resources: {requests: {cpu: 1}}}", []string{
			controller + "-" + container + "resources.requests.cpu=50m", controller + "+" + container + "resources.requests.cpu=1"}},
		{"controller: {podAnnotations: {a: b}}", []string{controller + "+spec.template.metadata.annotations.a=b"}},
		{"controller: {podLabels: {a: b}}", []string{controller + "+spec.template.metadata.labels.a=b"}},
		{"controller: {nodeSelector: {disk: ssd}}", []string{controller + "+" + pod + "nodeSelector.disk=ssd"}},
		{"controller: {tolerations: [{key: a}]}", []string{controller + "+" + pod + "tolerations[0].key=a"}},
		{"controller: {affinity: {nodeAffinity: {a: b}}}", []string{controller + "+" + pod + "affinity.nodeAffinity.a=b"}},
		{"controller: {priorityClassName: high}", []string{controller + "+" + pod + "priorityClassName=high"}},
		{"authenticator: {replicas: 3}", nil}, // the autoscaler sets the replicas
		{"authenticator: {autoscaling: {enabled: false}, replicas: 3}", []string{autoscaler + "gone", authenticator + "+spec.replicas=3"}},
		{"authenticator: {autoscaling: {minReplicas: 3, maxReplicas: 4, averageUtilization: 50}}", []string{
			autoscaler + "-spec.minReplicas=2", autoscaler + "+spec.minReplicas=3",
			autoscaler + "-spec.maxReplicas=10", autoscaler + "+spec.maxReplicas=4",
			autoscaler + "-spec.metrics[0].resource.target.averageUtilization=80",
			autoscaler + "+spec.metrics[0].resource.target.averageUtilization=50",
		}},
		{"authenticator: {extraArgs: [--max-staleness=5m]}", []string{authenticator + "+" + container + "args[5]=--max-staleness=5m"}},
		{"authenticator: {priorityClassName: high}", []string{authenticator + "+" + pod + "priorityClassName=high"}},
		{"console: {replicas: 2}", []string{console + "-spec.replicas=1", console + "+spec.replicas=2"}},
		{"console: {extraArgs: [--managers=write-access]}", []string{console + "+" + container + "args[6]=--managers=write-access"}},
		{"console: {certificateSecret: mine}", []string{
			controller + "-" + container + "args[6]=--console-namespaces=shop",
			"Role/apikey-console-certificate: gone", "RoleBinding/apikey-console-certificate: gone",
			console + "-" + pod + "volumes[0].secret.secretName=apikey-console-tls", console + "+" + pod + "volumes[0].secret.secretName=mine"}},
		{"console: {enabled: false}", []string{
			controller + "-" + container + "args[6]=--console-namespaces=shop",
			"Role/apikey-console-certificate: gone", "RoleBinding/apikey-console-certificate: gone",
			console + "gone", "NetworkPolicy/apikey-console: gone", "Role/apikey-console: gone", "RoleBinding/apikey-console: gone",
			"Service/apikey-console: gone", "ServiceAccount/apikey-console: gone"}},
		{"lastUse: {enabled: false}", []string{
			"Service/apikey-authenticator-usage: gone", "ClusterRole/apikey-authenticator-usage: gone", "ClusterRoleBinding/apikey-authenticator-usage: gone",
			networkPolicy + "-spec.ingress[2].from[0].podSelector.matchLabels.app.kubernetes.io/component=controller",
			networkPolicy + "-spec.ingress[2].from[0].podSelector.matchLabels.app.kubernetes.io/name=apikey-operator",
			networkPolicy + "-spec.ingress[2].ports[0].port=usage", networkPolicy + "-spec.ingress[2].ports[0].protocol=TCP",
			authenticator + "-" + container + "args[4]=--usage-listen-address=:8444",
			authenticator + "-" + container + "ports[4].name=usage", authenticator + "-" + container + "ports[4].containerPort=8444",
			controller + "-" + container + "args[3]=--usage-endpoints=https://apikey-authenticator-usage:8444",
			controller + "-" + container + "args[4]=--usage-ca-file=/var/run/secrets/apikey-operator/usage/ca.crt",
			controller + "-" + container + "args[5]=--usage-token-file=/var/run/secrets/apikey-operator/usage/token",
			controller + "-" + container + "args[6]=--console-namespaces=shop",
			controller + "+" + container + "args[3]=--console-namespaces=shop",
			controller + "-" + container + "volumeMounts[0].mountPath=/var/run/secrets/apikey-operator/usage",
			controller + "-" + container + "volumeMounts[0].name=usage", controller + "-" + container + "volumeMounts[0].readOnly=true",
			controller + "-" + pod + "volumes[0].name=usage",
			controller + "-" + pod + "volumes[0].projected.sources[0].serviceAccountToken.audience=apikey-usage",
			controller + "-" + pod + "volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds=3600",
			controller + "-" + pod + "volumes[0].projected.sources[0].serviceAccountToken.path=token",
			controller + "-" + pod + "volumes[0].projected.sources[1].configMap.name=apikey-operator-ca",
			controller + "-" + pod + "volumes[0].projected.sources[1].configMap.optional=true",
			controller + "-" + pod + "volumes[0].projected.sources[1].configMap.items[0].key=ca.crt",
			controller + "-" + pod + "volumes[0].projected.sources[1].configMap.items[0].path=ca.crt",
		}},
		{"podDisruptionBudget: {enabled: false}", []string{
			"PodDisruptionBudget/apikey-authenticator: gone", "PodDisruptionBudget/apikey-controller: gone"}},
		{"networkPolicy: {enabled: false}", []string{
			"NetworkPolicy/apikey-authenticator: gone", "NetworkPolicy/apikey-console: gone", "NetworkPolicy/apikey-controller: gone"}},
	} {
		t.Run(test.values, func(t *testing.T) {
			t.Parallel()
			after := parse(t, render(t, "apikey-system", consoleOn, test.values))
			want, got := slices.Sorted(slices.Values(test.want)), slices.Sorted(slices.Values(changes(before, after)))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("changes differ (-want +got):\n%s", diff)
			}
		})
	}
}

// changes lists the differences: the values that an object lost (-) and gained (+), and the objects that are gone or new. For roles that have
// fewer rules than before it lists only "less".
func changes(before, after map[string]object) (changes []string) {
	for name := range after {
		if before[name] == nil {
			changes = append(changes, name+": new")
		}
	}
	for name, o := range before {
		if after[name] == nil {
			changes = append(changes, name+": gone")
			continue
		}
		old, now := flat(o), flat(after[name])
		if strings.Contains(strings.SplitN(name, "/", 2)[0], "Role") && len(now) < len(old) {
			changes = append(changes, name+": less")
			continue
		}
		for path, value := range old {
			if now[path] != value {
				changes = append(changes, fmt.Sprintf("%s: -%s=%s", name, path, value))
			}
		}
		for path, value := range now {
			if old[path] != value {
				changes = append(changes, fmt.Sprintf("%s: +%s=%s", name, path, value))
			}
		}
	}
	return changes
}

// flat returns the scalars of an object, by path.
func flat(o object) map[string]string {
	scalars := map[string]string{}
	var add func(path string, value any)
	add = func(path string, value any) {
		switch value := value.(type) {
		case object:
			for key, v := range value {
				add(strings.TrimPrefix(path+"."+key, "."), v)
			}
		case []any:
			for i, v := range value {
				add(fmt.Sprintf("%s[%d]", path, i), v)
			}
		default:
			scalars[path] = fmt.Sprint(value)
		}
	}
	add("", o)
	return scalars
}

func TestNamespace_IsThatOfTheRelease(t *testing.T) {
	t.Parallel()
	for _, values := range []string{allOptions, consoleOn + "certificates: {source: cert-manager}\nprometheus: {enabled: true}"} {
		for line := range strings.SplitSeq(render(t, "elsewhere", values), "\n") {
			if strings.Contains(line, "apikey-system") {
				t.Errorf("the release in the namespace elsewhere has the line %q", line)
			}
		}
	}
	namespaces := map[any]bool{}
	for _, o := range parse(t, render(t, "123", allOptions)) {
		namespaces[o["metadata"].(object)["namespace"]] = true
	}
	delete(namespaces, nil) // cluster-scoped objects
	if want := map[any]bool{"123": true, "default": true}; !maps.Equal(namespaces, want) {
		t.Errorf("the release in the namespace 123, with a console for default, has objects in %v, want %v", namespaces, want)
	}
}

func TestPrometheusLabels_AreSet(t *testing.T) {
	t.Parallel()
	objects := parse(t, render(t, "apikey-system", "prometheus: {enabled: true, labels: {release: kube-prometheus-stack}}"))
	for _, name := range []string{"ServiceMonitor/apikey-operator", "PodMonitor/apikey-console", "PrometheusRule/apikey-operator"} {
		if label := flat(objects[name])["metadata.labels.release"]; label != "kube-prometheus-stack" {
			t.Errorf("%s has the label release: %q", name, label)
		}
	}
}

func TestInvalidValues_AreRejected(t *testing.T) {
	t.Parallel()
	for values, want := range map[string]string{
		"replicas: 3":                          "additional properties 'replicas' not allowed",
		"controller: {replica: 3}":             "at '/controller': additional properties 'replica' not allowed",
		"controller: {replicas: many}":         "at '/controller/replicas': got string, want integer",
		"controller: {extraArgs: [webhook]}":   "at '/controller/extraArgs/0': 'webhook' does not match pattern '^--'",
		"image: {digest: latest}":              "at '/image/digest': 'latest' does not match pattern '^(sha256:[0-9a-f]{64})?$'",
		"logLevel: verbose":                    "at '/logLevel': value must be one of '', 'debug', 'info', 'warn', 'error'",
		"certificates: {source: files}":        "at '/certificates/source': value must be one of 'minted', 'cert-manager', 'secrets'",
		"certificates: {webhookCABundle: abc}": "at '/certificates/webhookCABundle': 'abc' does not match pattern",
		"crds: {keep: 'yes'}":                  "at '/crds/keep': got string, want boolean",
		"scope: namespace":                     "at '/scope': value must be one of 'all', 'cluster', 'namespaces'",
		"namespaces: [Shop]":                   "at '/namespaces/0': 'Shop' does not match pattern",
		"webhook: false":                       "at '/webhook': got boolean, want object",
		"namespaces: [shop]":                   "namespaces requires scope=namespaces",
		"scope: cluster\nnamespaces: [shop]":   "namespaces requires scope=namespaces",
		"console: {namespace: Shop}":           "at '/console/namespace': 'Shop' does not match pattern",
		"console: {enabled: true}":             "set console.namespace to the namespace whose keys the console manages",
		"scope: cluster\n" + consoleOn: "scope=cluster installs no process: set console.enabled=false, and enable the console in a release " +
			"with scope=namespaces",
		"scope: namespaces\n" + consoleOn:                                       "console.namespace=shop is not served: add it to namespaces",
		"scope: namespaces\ncertificates: {source: cert-manager}\n" + consoleOn: "console.namespace=shop is not served: add it to namespaces",
		"scope: namespaces\ncertificates: {source: secrets}\n" + consoleOn:      "console.namespace=shop is not served: add it to namespaces",
	} {
		t.Run(values, func(t *testing.T) {
			t.Parallel()
			output, err := binaries.Helm(t, "template", release, chart, with(t, values))
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v\n%s\nwant: %s", err, output, want)
			}
		})
	}
}
