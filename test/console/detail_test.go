// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build console

package console_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/chromedp/chromedp/kb"
	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
)

// properties waits until the view of a key shows a name, and returns its terms and texts.
func (p *tab) properties(object string) (found map[string]string) {
	p.Helper()
	p.eventually("the page shows the key "+object, func() bool {
		found = run[map[string]string](p, `Object.fromEntries([...document.querySelectorAll("#detail .properties > div:not([hidden])")].map(
		  ({ children: [term, text] }) => [term.innerText, (text.querySelector("code") ?? text).innerText.trim()]))`)
		return found["Name"] == object
	})
	return found
}

// commands returns the commands of the view of a key.
func (p *tab) commands() []string {
	p.Helper()
	return run[[]string](p, `[...document.querySelectorAll("#detail .commands code")].map(code => code.textContent)`)
}

// manifest returns the manifest in the view of a key.
func (p *tab) manifest() string {
	p.Helper()
	return run[string](p, `document.querySelector("#detail pre").textContent`)
}

func detailShowsAKey(f *fixture) {
	p := f.enter(f.key)
	p.allow(readClipboard)
	own := p.bootstrap()
	p.createKey("Partner", "In 30 days")
	partner := p.row("Partner")
	p.click("link", "Partner")
	got := p.properties(partner.Object)
	for _, term := range []string{"Created", "Updated"} {
		if !strings.HasPrefix(got[term], time.Now().UTC().Format("2006-01-02")) || !strings.HasSuffix(got[term], "just now") {
			f.Errorf("%s is %q", term, got[term])
		}
		delete(got, term)
	}
	want := map[string]string{
		"Name": partner.Object, "ID": partner.ID, "Token": partner.Hint, "Access": "Read", "Created by": own.Name, "Manager label": "No",
		"Last used": "No use seen since the token was issued",
		"Expires":   f.spec("Partner").ExpiresAt.UTC().Format("2006-01-02 15:04") + " in 30 days",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		f.Errorf("the properties differ (-want +got):\n%s", diff)
	}
	if title := run[string](p, `document.title`); title != f.Namespace+" · Partner · apikey-operator" {
		f.Errorf("the title is %q", title)
	}
	p.sees("Authenticators accept this key.")
	p.sees("The client that created the key, or rotated it last, received the token. The cluster holds only its hash, and there is no Secret.")
	on := partner.Object + " --namespace=" + f.Namespace
	commands := []string{"kubectl describe apikey " + on, "kubectl apikey rotate " + on, "kubectl apikey deactivate " + on}
	if diff := cmp.Diff(commands, p.commands()); diff != "" {
		f.Errorf("the commands differ (-want +got):\n%s", diff)
	}
	if manifest := p.manifest(); !strings.Contains(manifest, "  appName: Partner\n") || strings.Contains(manifest, "sha256:") {
		f.Errorf("the manifest is\n%s", manifest)
	}
	for button, want := range map[string]string{
		"Copy the ID":   partner.ID,
		"Copy the name": partner.Object,
		"Copy the command: Show the object and its events": "kubectl describe apikey " + on,
		"Copy the manifest": p.manifest(),
	} {
		p.click("button", button)
		p.eventually(button+" copies", func() bool { return run[string](p, `navigator.clipboard.readText()`) == want })
	}
	run[any](p, `Object.defineProperty(navigator, "clipboard", {value: undefined}); null`) // as on a page from plain HTTP
	p.click("button", "Copy the ID")
	p.sees("Selected: press Ctrl+C or ⌘C to copy.")
	if selected := run[string](p, `getSelection().toString()`); selected != partner.ID {
		f.Errorf("the selection is %q, want %q", selected, partner.ID)
	}

	p.click("link", own.Name) // that created it
	got = p.properties(own.Object)
	if got["Created by"] != "The console, from its key file" || got["Manager label"] != "Yes" || got["Expires"] != "Never" {
		f.Errorf("the bootstrap key is shown as %v", got)
	}
	p.sees("This page’s key")
	p.sees("The token is in the key file of the console.")
}

// createKey creates a key with the dialog.
func (p *tab) createKey(appName, expires string) {
	p.Helper()
	p.click("button", "Create key")
	p.fill("textbox", "App name", appName)
	p.choose("Expires", expires)
	p.click("button", "Create")
	p.sees("Token of " + appName)
	p.click("button", "Close")
	p.click("button", "Close without copying")
}

func detailShowsTheHandover(f *fixture) {
	f.mint("shop", "Shop", func(spec *v1alpha1.APIKeySpec) {
		spec.WriteAccess, spec.Secret = true, &v1alpha1.TokenSecret{Name: "shop-key", Key: "key", TTL: &metav1.Duration{Duration: time.Hour}}
	})
	f.createForeignSecret("report-token")
	f.mint("report", "Report")
	p := f.enter(f.key)
	p.eventually("the keys are processed", func() bool {
		p.click("button", "Refresh")
		return p.row("Shop").State == "Active" && p.row("Report").State == "Blocked"
	})
	p.click("link", "Shop")
	p.sees("The controller wrote the token to the Secret shop-key, under key. The Secret exists until a user reveals the token, " +
		"the key ends, or 1h have passed.")
	on := "shop --namespace=" + f.Namespace
	want := []string{
		"kubectl describe apikey " + on, "kubectl apikey reveal " + on, "kubectl apikey rotate " + on,
		"kubectl label apikey " + on + " keys.squirrel.dev/manager=true --overwrite", "kubectl apikey deactivate " + on,
	}
	if diff := cmp.Diff(want, p.commands()); diff != "" {
		f.Errorf("the commands differ (-want +got):\n%s", diff)
	}
	if creator := p.properties("shop")["Created by"]; creator != "kubectl, a manifest or another tool" {
		f.Errorf("the key was created by %q", creator)
	}
	p.click("link", "All keys")
	p.click("link", "Report")
	p.sees("The Secret for the token exists already and does not belong to this key")
	p.sees("Delete or rename that Secret: the controller then continues. Or deactivate this key.")
	p.sees("The controller will write the token to the Secret report-token, under token.")
	conditions := run[[]string](p, `[...document.querySelectorAll(".conditions li p:first-child")].map(p => p.innerText)`)
	if diff := cmp.Diff([]string{"Ready False", "Active False", "Stalled True"}, conditions); diff != "" {
		f.Errorf("the conditions differ (-want +got):\n%s", diff)
	}
}

func detailShowsTheLastUseOfEachToken(f *fixture) {
	f.createKey("Web Shop")
	f.awaitActive(2)
	for range 2 { // two former tokens
		f.patch("Web Shop", func(key *v1alpha1.APIKey) {
			next := token.New()
			key.Spec.TokenHash, key.Spec.TokenHint = token.Hash(next), token.Hint(next)
		})
		hash := f.spec("Web Shop").TokenHash
		framework.Eventually(f, "the new token is accepted", func() (done bool) {
			f.record("Web Shop", func(tokens []v1alpha1.TokenRecord) { done = tokens[0].Hash == hash })
			return done
		})
	}
	f.record("Web Shop", func(tokens []v1alpha1.TokenRecord) {
		for i := range tokens {
			tokens[i].NotBefore = ago(time.Duration(i+1) * 5 * time.Hour)
		}
		tokens[1].LastUsedAt = ago(time.Hour) // since its successor was issued
		tokens[2].LastUsedAt = ago(12 * time.Hour)
	})
	f.awaitUsed(1)
	p := f.enter(f.key)
	p.click("link", "Web Shop")
	p.sees("accepted until")
	former := run[[]string](p, `[...document.querySelectorAll("#detail .former p")].map(p => p.className + ": " + p.innerText)`)
	want := []string{"in-use: Last used 1 hour ago: its clients must switch to the new token.", "note: Last used 12 hours ago."}
	if diff := cmp.Diff(want, former); diff != "" {
		f.Errorf("the former tokens differ (-want +got):\n%s", diff)
	}
	if newest := run[string](p, `document.querySelector("#detail [data-field=hint] small").innerText`); newest != "No use seen" {
		f.Errorf("the last use of the newest token is shown as %q", newest)
	}
	p.checkAccessibility("a key with former tokens that are used")
}

func detailNamesAnUnknownKey(f *fixture) {
	p := f.enter(f.key)
	p.visit("#keys/00000000-0000-4000-8000-000000000000")
	p.sees("No key has this ID. The key may have been deleted.")
	p.expectError("404 " + keysCall + "/00000000-0000-4000-8000-000000000000")
	p.absent("button", "Edit")
	p.click("link", "All keys")
	p.bootstrap()
	for _, path := range []string{".", "..", "self", "count", "%", "%2e"} { // other paths of the API
		p.visit("#keys/" + path)
		p.sees("No key has this ID. The key may have been deleted.")
		p.absent("button", "Edit")
		p.click("link", "All keys")
		p.bootstrap()
	}

	f.createKey("Short-lived")
	p.click("button", "Refresh")
	key := &v1alpha1.APIKey{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: p.row("Short-lived").Object}}
	call := keysCall + "/" + p.row("Short-lived").ID
	p.click("link", "Short-lived")
	p.sees("Authenticators accept this key.")
	p.tabTo("button", "Edit")
	framework.Must(f, f.Env.Client.Delete(f.Context(), key))
	framework.Eventually(f, "the console has seen the deletion", func() bool {
		return f.status("GET", strings.TrimPrefix(call, "api/v1/"), f.key) == http.StatusNotFound
	})
	run[any](p, `document.dispatchEvent(new Event("visibilitychange")); null`)
	p.sees("No key has this ID. The key may have been deleted.")
	p.expectError("404 " + call)
	if focused := p.focused(); focused != "heading Short-lived" {
		f.Errorf("%q has the focus", focused)
	}
}

func detailNamesTheDeploymentTool(f *fixture) {
	f.issue("Web Shop")
	f.patch("Web Shop", func(key *v1alpha1.APIKey) { key.Labels = map[string]string{"kustomize.toolkit.fluxcd.io/name": "apps"} })
	p := f.enter(f.key)
	p.click("link", "Web Shop")
	f.createKey("Web Shop") // waits for the app name, and is not in the list that the page has
	p.sees("Flux manages this key, and may revert a change that you make here: change its manifest too.")
	p.checkAccessibility("a key that a tool manages")
	p.click("button", "Edit")
	p.sees("Flux manages this key, and may revert the change: change its manifest too.")
	p.click("button", "Cancel")
	p.click("button", "Deactivate")
	p.find("dialog", "Deactivate Web Shop?")
	p.sees("If another key waits for the app name, the controller then issues that key.")
	p.sees("Flux manages this key: set active: false in its manifest too. A manifest with active: true is refused then.")
}

func detailDeactivatesAKey(f *fixture) {
	issued := f.issue("Old App")
	p := f.enter(f.key)
	p.click("link", "Old App")
	p.sees("Authenticators accept this key.")
	p.click("button", "Deactivate")
	p.find("dialog", "Deactivate Old App?")
	run[any](p, `document.querySelector("#deactivate [type=submit]").click(); null`) // two buttons have this name
	p.sees("This key was deactivated, and authenticators refuse it. This is final.")
	p.absent("button", "Edit")
	p.eventually("the title has the focus", func() bool { return p.focused() == "heading Old App" })
	if f.status("GET", "api-keys/count", issued) != http.StatusUnauthorized {
		f.Error("the key is accepted")
	}
	p.press(kb.Escape)
	p.awaitState("Old App", "Deactivated")
}

func editChangesAccessAndExpiry(f *fixture) {
	issued := f.issue("Partner", expires(10*day))
	p := f.enter(f.key)
	p.click("link", "Partner")
	p.click("button", "Edit")
	p.find("dialog", "Edit Partner")
	if kept := run[string](p, `document.getElementById("edit-expiry").selectedOptions[0].text`); kept !=
		fmt.Sprintf("No change (%s)", f.spec("Partner").ExpiresAt.UTC().Format("2006-01-02 15:04")) {
		f.Errorf("the expiry is shown as %q", kept)
	}
	p.click("checkbox", "Read GET, HEAD, OPTIONS")
	p.click("button", "Save") // without any access: the browser moves the focus to the invalid field
	p.eventually("the invalid field has the focus", func() bool { return p.focused() == "checkbox Read GET, HEAD, OPTIONS" })
	p.click("checkbox", "Write all other methods")
	p.choose("Expires", "In 90 days")
	p.click("button", "Save")
	p.sees("Partner was changed.")
	p.sees("in 3 months")
	spec := f.spec("Partner")
	if spec.ReadAccess || !spec.WriteAccess || time.Until(spec.ExpiresAt.Time.Add(-90*day)).Abs() > expiryTolerance {
		f.Errorf("the key is changed to %+v", spec)
	}
	if f.status("GET", "api-keys/count", issued) != http.StatusUnauthorized {
		f.Error("the key has read access")
	}

	p.click("button", "Edit")
	p.choose("Expires", "Never")
	p.click("button", "Save")
	p.eventually("the key does not expire", func() bool { return f.spec("Partner").ExpiresAt == nil })
	p.absent("dialog", "Edit Partner")
	p.click("button", "Edit")
	before := f.generation("Partner")
	p.click("button", "Save") // without a change
	p.absent("dialog", "Edit Partner")
	if after := f.generation("Partner"); after != before {
		f.Errorf("the generation changes from %d to %d", before, after)
	}

	p.click("button", "Edit")
	f.patch("Partner", func(key *v1alpha1.APIKey) { key.Spec.Active = new(false) }) // by another user
	framework.Eventually(f, "the console knows", func() bool {
		_, body := f.request("GET", "api-keys", f.key)
		return strings.Contains(body, `"state":"deactivated"`)
	})
	p.click("checkbox", "Read GET, HEAD, OPTIONS")
	p.click("button", "Save")
	p.sees("This key has ended, so it cannot be changed.")
	p.expectError("409 " + keysCall + "/" + f.id("Partner"))
	p.click("button", "Cancel")
	p.sees("This key was deactivated, and authenticators refuse it. This is final.")
}

// id returns the ID of the key of an app, as the API lists it.
func (f *fixture) id(appName string) string {
	f.Helper()
	var list struct {
		Payload []struct{ ID, AppName string }
	}
	_, body := f.request("GET", "api-keys", f.key)
	framework.Must(f, json.Unmarshal([]byte(strings.ReplaceAll(body, `"app_name"`, `"AppName"`)), &list))
	for _, key := range list.Payload {
		if key.AppName == appName {
			return key.ID
		}
	}
	f.Fatalf("no key has the app name %s", appName)
	return ""
}

// generation returns the metadata.generation of the key of an app.
func (f *fixture) generation(appName string) int64 {
	f.Helper()
	keys := &v1alpha1.APIKeyList{}
	framework.Must(f, f.Env.Client.List(f.Context(), keys))
	for i := range keys.Items {
		if key := &keys.Items[i]; key.Namespace == f.Namespace && key.Spec.AppName == appName {
			return key.Generation
		}
	}
	f.Fatalf("no key has the app name %s", appName)
	return 0
}

const editForceLabel = "This is the key of this page. Take access or time from it anyway."

func editTheKeyOfThePageNeedsForce(f *fixture) {
	own := f.issue("Own", writes)
	p := f.enter(own)
	p.click("link", "Own")
	p.click("button", "Edit")
	p.absent("checkbox", editForceLabel)
	p.choose("Expires", "In 30 days")
	p.find("checkbox", editForceLabel)
	p.click("button", "Save") // the browser requires the check
	p.choose("Expires", "On a date…")
	p.absent("checkbox", editForceLabel) // until a date is chosen
	p.choose("Expires", "Never")
	p.absent("checkbox", editForceLabel)
	p.click("checkbox", "Read GET, HEAD, OPTIONS")
	p.click("checkbox", editForceLabel)
	p.click("button", "Save")
	p.sees("The API key of this page has no read access, so it cannot list keys.")
	if spec := f.spec("Own"); spec.ReadAccess || spec.ExpiresAt != nil {
		f.Errorf("the key is changed to %+v", spec)
	}
}
