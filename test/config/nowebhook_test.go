// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"squirrel.dev/apikey-operator/test/framework"
)

func TestNoWebhookOverlay_LeavesOutOnlyTheWebhook(t *testing.T) {
	env := installed(t)
	names := func(dir string) map[string]bool {
		output, err := env.Kubectl(t, "apply", "--server-side", "--dry-run=server", "--output=name", "--kustomize", configDir+"/"+dir)
		framework.Must(t, err)
		names := map[string]bool{}
		for name := range strings.FieldsSeq(output) {
			names[name] = true
		}
		return names
	}
	want := names("default")
	for _, name := range []string{
		"service/apikey-controller-webhook", "validatingwebhookconfiguration.admissionregistration.k8s.io/apikeys.keys.squirrel.dev",
		"validatingadmissionpolicy.admissionregistration.k8s.io/apikey-webhook",
		"validatingadmissionpolicybinding.admissionregistration.k8s.io/apikey-webhook",
	} {
		if !want[name] {
			t.Errorf("config/default has no %s", name)
		}
		delete(want, name)
	}
	if diff := cmp.Diff(want, names("overlays/no-webhook")); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	manifests, err := env.Kubectl(t, "kustomize", configDir+"/overlays/no-webhook")
	framework.Must(t, err)
	var mentions []string
	for line := range strings.SplitSeq(manifests, "\n") {
		if strings.Contains(line, "webhook") {
			mentions = append(mentions, strings.TrimSpace(line))
		}
	}
	wantMentions := []string{
		"- --webhook=false",
		"&& request.name in ['apikey-operator-ca', 'apikey-authenticator-tls', 'apikey-controller-webhook-tls']", // of the policy apikey-secrets
	}
	if diff := cmp.Diff(wantMentions, mentions); diff != "" {
		t.Errorf("lines about the webhook (-want +got):\n%s", diff)
	}
}
