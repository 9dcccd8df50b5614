// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build overlays

package overlays_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const prometheusOperator = "github.com/prometheus-operator/prometheus-operator@v0.94.0" // for its CustomResourceDefinitions

// The webhook refuses rules that Prometheus cannot read.
func TestPrometheusOverlay_IsAcceptedByTheAdmissionWebhookOfThePrometheusOperator(t *testing.T) {
	t.Parallel()
	env := testenv.StartEmpty(t)
	env.InstallCRDs(t, prometheusOperator, "example/prometheus-operator-crd")
	env.Apply(t, "", "--kustomize", configDir+"/default")
	port, certDir := env.Webhook(t, "testdata/prometheus-operator-webhook.yaml")
	webhook := binaries.Start(t, process.Command{
		Path: binaries.Path(t, "prometheus-operator", "admission-webhook"),
		Args: []string{
			fmt.Sprintf("--web.listen-address=127.0.0.1:%d", port), "--web.cert-file=" + filepath.Join(certDir, "tls.crt"),
			"--web.key-file=" + filepath.Join(certDir, "tls.key"), "--web.client-ca-file=",
		},
		Log: filepath.Join(t.TempDir(), "log"),
	})
	refuseInvalidRule(t, env)
	env.Apply(t, "", "--kustomize", configDir+"/overlays/prometheus")
	select {
	case <-webhook.Ended():
		t.Errorf("the webhook ended: %v", webhook.Err())
	default:
	}
}

// refuseInvalidRule waits until the API server calls the webhook, which must refuse a rule.
func refuseInvalidRule(t *testing.T, env *testenv.Env) {
	t.Helper()
	const invalid = `{apiVersion: monitoring.coreos.com/v1, kind: PrometheusRule, metadata: {name: invalid, namespace: default},
spec: {groups: [{name: invalid, rules: [{alert: Invalid, expr: 'rate('}]}]}}`
	const refused = `"prometheusrules" is invalid: : 5:11: group "invalid", rule 1, "Invalid": could not parse expression: 1:6: parse error: ` +
		"unclosed left parenthesis"
	framework.Eventually(t, "the webhook refuses an invalid rule", func() bool {
		_, err := env.ControlPlane.Kubectl(t.Context(), invalid, "create", "--filename=-")
		if err == nil {
			t.Fatal("the webhook has accepted an invalid rule")
		}
		return strings.Contains(err.Error(), refused)
	})
}
