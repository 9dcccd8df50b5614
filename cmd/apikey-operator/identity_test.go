// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const renamedAccount = `the controller runs as "system:serviceaccount:keys:team-apikey-controller", but the admission policies know only ` +
	`the ServiceAccount apikey-controller: remove namePrefix and nameSuffix from the kustomization, because the objects of apikey-operator ` +
	`have fixed names`

func TestValidateAccount(t *testing.T) {
	for username, want := range map[string]string{
		"system:serviceaccount:apikey-system:apikey-controller": "",
		"system:serviceaccount:keys:apikey-controller":          "", // with config/namespace
		"system:serviceaccount:keys:team-apikey-controller":     renamedAccount,
		"admin": "", "system:admin": "", "": "",
	} {
		got := ""
		if err := validateAccount(username); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: the error is %q, want %q", username, got, want)
		}
	}
}

func TestController_DoesNotStartAsARenamedServiceAccount(t *testing.T) {
	env := testenv.Shared(t)
	namespace := env.Namespace(t)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "team-apikey-controller"}}
	framework.Must(t, env.Client.Create(t.Context(), account))
	p := startProgram(t, "controller", "--kubeconfig="+env.Kubeconfig(t, env.ServiceAccount(t, namespace, account.Name)),
		"--system-namespace="+namespace, "--webhook=false")
	p.assertEnds("exit status 1")
	want := validateAccount("system:serviceaccount:" + namespace + ":team-apikey-controller").Error()
	if lines := p.lines(); lines[len(lines)-1].Err != want {
		t.Errorf("the log is %+v, want the error %q", lines, want)
	}
}
