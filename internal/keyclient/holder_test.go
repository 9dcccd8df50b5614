// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package keyclient_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/test/framework"
)

func TestCheckAppName_ReturnsTheHolderInAnyFormOfTheName(t *testing.T) {
	f := newFixtureWithController(t)
	for _, appName := range []string{"Frontend App", `a=b,c\d!"`, "🐿 前端", "Caf\u00e9", "Cafe\u0301 2"} {
		holder := f.create(appName).Key
		for _, form := range []string{appName, norm.NFC.String(appName), norm.NFD.String(appName)} {
			assertHeld(t, keyclient.CheckAppName(t.Context(), f.Env.Client, f.Namespace, form), form, holder.Name)
		}
		framework.Must(t, keyclient.CheckAppName(t.Context(), f.Env.Client, f.Namespace, appName+" of another team"))
		framework.Must(t, keyclient.CheckAppName(t.Context(), f.Env.Client, metav1.NamespaceDefault, appName))
	}
}

func TestCheckAppName_NamesTheIssuedKeyOfThoseThatWait(t *testing.T) {
	f := newFixtureWithController(t)
	holder := f.create("Frontend App").Key
	waiting, err := keyclient.CreateNoWait(t.Context(), f.Env.Client, f.options("Frontend App"))
	framework.Must(t, err)
	f.WaitForReady(waiting.Key.Name, v1alpha1.ReasonAppNameConflict)
	assertHeld(t, keyclient.CheckAppName(t.Context(), f.Env.Client, f.Namespace, "Frontend App"), "Frontend App", holder.Name)

	f.Deactivate(holder.Name)
	f.WaitForReady(waiting.Key.Name, v1alpha1.ReasonIssued)
	assertHeld(t, keyclient.CheckAppName(t.Context(), f.Env.Client, f.Namespace, "Frontend App"), "Frontend App", waiting.Key.Name)

	framework.Must(t, f.Env.Client.Delete(t.Context(), waiting.Key))
	framework.Must(t, keyclient.CheckAppName(t.Context(), f.Env.Client, f.Namespace, "Frontend App"))
}

func TestCheckAppName_LeavesTheDecisionToTheControllerIfKeysCannotBeListed(t *testing.T) {
	f := newFixtureWithController(t)
	f.create("Frontend App")
	f.Create(&rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "creator"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"apikeys"}, Verbs: []string{"create"}}},
	})
	f.Create(&rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "creator"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "creator"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "creator-" + f.Namespace}},
	})
	creator, err := client.New(f.Env.User(t, "creator-"+f.Namespace), client.Options{Scheme: f.Env.Scheme})
	framework.Must(t, err)
	framework.Must(t, keyclient.CheckAppName(t.Context(), creator, f.Namespace, "Frontend App"))
	framework.Eventually(t, "RBAC grants the creation", func() bool {
		created, err := keyclient.CreateNoWait(t.Context(), creator, f.options("Frontend App"))
		if apierrors.IsForbidden(err) {
			return false
		}
		framework.Must(t, err)
		f.WaitForReady(created.Key.Name, v1alpha1.ReasonAppNameConflict)
		return true
	})

	withoutSelectors := f.clientWith(func(http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			return &http.Response{
				StatusCode: http.StatusBadRequest, Header: http.Header{"Content-Type": {"application/json"}}, Request: request,
				Body: io.NopCloser(strings.NewReader(`{"apiVersion":"v1","kind":"Status","status":"Failure","code":400,"reason":"BadRequest",` +
					`"message":"Unable to find \"keys.squirrel.dev/v1alpha1, Resource=apikeys\" that match field selector: ` +
					`field label not supported: spec.appName"}`)),
			}, nil
		})
	})
	framework.Must(t, keyclient.CheckAppName(t.Context(), withoutSelectors, f.Namespace, "Frontend App"))
}

func TestCheckAppName_ReturnsOtherErrors(t *testing.T) {
	f := newFixture(t)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	err := keyclient.CheckAppName(cancelled, f.Env.Client, f.Namespace, "Frontend App")
	if err == nil || !strings.HasPrefix(err.Error(), `list the APIKeys with the app name "Frontend App": `) {
		t.Errorf("the error is %v", err)
	}
}
