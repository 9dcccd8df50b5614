// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package admission_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
	"squirrel.dev/apikey-operator/webhook/admission"
)

func TestProbe_ShowsWhetherTheAPIServerCallsTheWebhook(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t)
	namespace := env.Namespace(t)
	var log bytes.Buffer
	registry := prometheus.NewRegistry()
	probe, err := admission.NewProbe(env.Config, env.Scheme, namespace, slog.New(slog.NewJSONHandler(&log, nil)), registry)
	framework.Must(t, err)
	expect := func(situation string, probes int, wantCalled float64, wantMessages ...string) {
		t.Helper()
		for range probes {
			probe.Send(t.Context())
		}
		if diff := cmp.Diff(wantCalled, gauge(t, registry), cmpopts.EquateNaNs()); diff != "" {
			t.Errorf("%s: apikey_admission_webhook_called (-want +got):\n%s", situation, diff)
		}
		if diff := cmp.Diff(wantMessages, messages(t, &log)); diff != "" {
			t.Errorf("%s: the log (-want +got):\n%s", situation, diff)
		}
	}
	const (
		notCalled = "The API server cannot call the admission webhook, so each creation and change of an APIKey takes longer, and warnings are " +
			"missing: allow connections from the API server to the port of --webhook-listen-address, or install without the webhook"
		calledAgain = "The API server calls the admission webhook again"
	)

	expect("before the first probe", 0, math.NaN())
	closed, err := controlplane.FreePort(0)
	framework.Must(t, err)
	_, err = env.ControlPlane.RegisterWebhooks(t.Context(), "../../config/webhook/validating.yaml", closed, t.TempDir())
	framework.Must(t, err)
	expect("after two failures", 2, 0)
	expect("after the third failure", 1, 0, notCalled)
	expect("after further failures", 2, 0)

	startWebhook(t, env)
	expect("with the webhook", 2, 1, calledAgain)

	var keys v1alpha1.APIKeyList
	framework.Must(t, env.Client.List(t.Context(), &keys, client.InNamespace(namespace)))
	if len(keys.Items) != 0 {
		t.Errorf("got %d keys in the namespace of the probes, want none", len(keys.Items))
	}
}

func TestProbe_DoesNotKnowWhetherTheWebhookIsCalledIfTheAPIServerRefusesTheProbe(t *testing.T) {
	t.Parallel()
	env := testenv.Shared(t)
	var log bytes.Buffer
	registry := prometheus.NewRegistry()
	probe, err := admission.NewProbe(
		env.User(t, "without-permissions"), env.Scheme, env.Namespace(t), slog.New(slog.NewJSONHandler(&log, nil)), registry)
	framework.Must(t, err)
	for range 5 {
		probe.Send(t.Context())
	}
	if called := gauge(t, registry); !math.IsNaN(called) || log.Len() != 0 {
		t.Errorf("apikey_admission_webhook_called is %v, want NaN; the log is %q, want nothing", called, &log)
	}
}

// gauge returns the value of the only metric.
func gauge(t *testing.T, registry *prometheus.Registry) float64 {
	t.Helper()
	families, err := registry.Gather()
	framework.Must(t, err)
	if len(families) != 1 || families[0].GetName() != "apikey_admission_webhook_called" {
		t.Fatalf("got the metrics %v, want apikey_admission_webhook_called", families)
	}
	return families[0].GetMetric()[0].GetGauge().GetValue()
}

// messages returns the messages that were logged since the last call.
func messages(t *testing.T, log *bytes.Buffer) (messages []string) {
	t.Helper()
	for decoder := json.NewDecoder(log); decoder.More(); {
		var line struct{ Msg string }
		framework.Must(t, decoder.Decode(&line))
		messages = append(messages, line.Msg)
	}
	log.Reset()
	return messages
}
