// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build upgrade

package upgrade_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// TestSkew runs controller, authenticator and console of two neighbouring releases together, in each combination, with the manifests of
// the newer one. docs/operations/upgrade.md describes what does not work until all have the newer version.
func TestSkew(t *testing.T) {
	t.Parallel()
	previous, this := previousRelease(t), thisRelease(t)
	env := testenv.StartEmpty(t)
	_, err := env.Kubectl(t, "apply", "--server-side", "--kustomize="+this.config()+"/default")
	framework.Must(t, err)
	for _, controller := range []release{previous, this} {
		for _, authenticator := range []release{previous, this} {
			for _, console := range []release{previous, this} {
				v := versions{controller, authenticator, console}
				name := fmt.Sprintf("controller of %s, authenticator of %s, console of %s", controller.name, authenticator.name, console.name)
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					s := newSkewed(t, env, v)
					s.issueKeys()
					s.rotateMinted(v.controller == this)
					s.rotateCreated(v.controller == this, v.console == this)
					if v.controller != this {
						s.controllers.roll(this)
						s.awaitTokens("minted", 2)
					}
					s.deactivate()
				})
			}
		}
	}
}

// skewed is an installation for one namespace, whose processes have different versions.
type skewed struct {
	*fixture
	processes

	manager string // the token of a key that may manage keys
	minted  string // the token of the key "minted"
	created createdKey
}

// createdKey is a key that the console has created.
type createdKey struct{ ID, Token string }

func newSkewed(t *testing.T, env *testenv.Env, v versions) *skewed {
	t.Helper()
	f := &fixture{Fixture: testenv.NewFixture(t, env), keyFile: filepath.Join(t.TempDir(), ".api_key")}
	applyManifests(f, v.console, kustomizationOf("namespace: NAMESPACE\nresources: [CONFIG/overlays/console]\n")(f, v.console))
	s := &skewed{fixture: f, processes: f.newProcesses(systemNamespace, func() []string {
		return []string{"--webhook=false", "--leader-elect=false"}
	}, "--namespaces="+f.Namespace)}
	s.start(v, 1)
	s.manager = f.tokenInFile()
	return s
}

// issueKeys issues a key for kubectl, and one for a client of the console.
func (s *skewed) issueKeys() {
	s.Helper()
	s.CreateKey("minted")
	s.WaitForReady("minted", v1alpha1.ReasonIssued)
	s.minted = s.tokenOf("minted")
	s.expectStatus(s.minted, http.StatusOK)
	s.rest(http.MethodPost, "", `{"app_name": "Created", "read_access": true, "write_access": false}`, http.StatusOK, &s.created)
	s.expectStatus(s.created.Token, http.StatusOK)
}

// rotateMinted requests a rotation, which only a controller of this version handles.
func (s *skewed) rotateMinted(rotates bool) {
	s.Helper()
	s.UpdateKey("minted", func(key *v1alpha1.APIKey) {
		key.Spec.Rotation = &v1alpha1.Rotation{Request: &v1alpha1.RotationRequest{At: metav1.Now()}}
	})
	want := 1
	if rotates {
		want = 2
	}
	s.awaitTokens("minted", want)
	s.expectStatus(s.minted, http.StatusOK)
	s.expectStatus(s.tokenOf("minted"), http.StatusOK)
}

// awaitTokens waits until the controller has seen the current spec of a key, and the key has so many tokens and no claim.
func (s *skewed) awaitTokens(name string, tokens int) {
	s.Helper()
	framework.Eventually(s, fmt.Sprintf("%s has %d tokens", name, tokens), func() bool {
		key := s.GetKey(name)
		return key.Status.ObservedGeneration == key.Generation && len(key.Status.Tokens) == tokens && apikey.ClaimOf(key) == nil
	})
}

// rotateCreated rotates the key of the console. The console of the previous release cannot, and this one reports that the controller did
// not act. The former token stays accepted.
func (s *skewed) rotateCreated(controllerRotates, consoleRotates bool) {
	s.Helper()
	want := http.StatusOK
	switch {
	case !consoleRotates:
		want = http.StatusNotFound
	case !controllerRotates:
		want = http.StatusServiceUnavailable
	}
	var rotated createdKey
	s.rest(http.MethodPost, "/"+s.created.ID+"/rotate", `{"overlap": "1h"}`, want, &rotated)
	s.expectStatus(s.created.Token, http.StatusOK)
	if want == http.StatusOK {
		s.expectStatus(rotated.Token, http.StatusOK)
	}
}

// deactivate deactivates both keys.
func (s *skewed) deactivate() {
	s.Helper()
	s.rest(http.MethodDelete, "/"+s.created.ID, "", http.StatusOK, nil)
	s.Deactivate("minted")
	for _, plaintext := range []string{s.created.Token, s.minted} {
		s.expectStatus(plaintext, http.StatusUnauthorized)
	}
	s.WaitForReady("minted", v1alpha1.ReasonDeactivated)
}

// expectStatus waits until the authenticator responds with this status to a token.
func (s *skewed) expectStatus(plaintext string, want int) {
	s.Helper()
	s.awaitStatus(s.authenticators.addresses(), plaintext, want)
}

// rest sends a request to the console, and expects this status.
func (s *skewed) rest(method, path, body string, want int, payload any) {
	s.Helper()
	framework.Eventually(s, "the console accepts its bootstrap key", func() bool {
		status, err := s.consoles.list(s.manager)
		framework.Must(s, err)
		return status == http.StatusOK
	})
	got, err := s.call(method, "http://"+s.consoles.next()+"/api/v1/api-keys"+path, s.manager, body, payload)
	framework.Must(s, err)
	if got != want {
		s.Fatalf("%s /api/v1/api-keys%s: got status %d, want %d", method, path, got, want)
	}
}
