// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"testing"

	. "github.com/onsi/gomega"
)

func TestImage_RunsInARestrictedPod(t *testing.T) {
	g := NewWithT(t)
	namespace := shared.namespace(t)
	shared.apply(t, "version", namespace)
	shared.await(t, namespace, "pod/version", "jsonpath={.status.phase}=Succeeded")
	g.Expect(shared.kubectl(t, "", "logs", "version", "--namespace", namespace)).To(MatchRegexp(`^apikey-operator \S+ go1\.\S+ linux/\w+\n$`))
}

func TestAuthenticator_ReachesTheAPIByDNSName(t *testing.T) {
	shared.install(t)
	namespace := shared.namespace(t)
	shared.apply(t, "api-by-name", namespace)
	shared.await(t, namespace, "pod/authenticator", "condition=Ready") // after the first list
}
