// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build console

package console_test

import (
	"net/http"
	"strings"
	"time"

	"github.com/chromedp/chromedp/kb"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
)

const (
	acceptFormer = "Accept the former token"
	rotateAnyway = "Rotate it here anyway."
)

// newToken returns the token that the page shows, and closes its dialog.
func (p *tab) newToken(appName string) string {
	p.Helper()
	p.sees("Token of " + appName)
	shown := run[string](p, `document.getElementById("token-text").textContent`)
	p.click("button", "Close")
	p.sees("The token has not been copied and cannot be shown again.")
	p.click("button", "Close without copying")
	return shown
}

// assertStatus checks the status of a read with a token.
func (f *fixture) assertStatus(name, issued string, want int) {
	f.Helper()
	if got := f.status("GET", "api-keys/count", issued); got != want {
		f.Errorf("the status of a read with the %s is %d, want %d", name, got, want)
	}
}

func rotateShowsTheNewTokenOnce(f *fixture) {
	former := f.issue("Web Shop")
	p := f.enter(f.key)
	p.allow(readClipboard)
	before := p.row("Web Shop")
	p.click("button", "Rotate the token of Web Shop")
	p.find("dialog", "Rotate the token of Web Shop")
	p.sees("The key gets a new token, which the page shows once. The ID, the access and the expiry of the key stay the same.")
	p.sees("Within this time, give the new token to each client that uses the key.")
	if facts := p.facts("rotate-facts"); facts["ID"] != before.ID || facts["Name"] != before.Object || facts["Token"] != before.Hint {
		f.Errorf("the dialog names another key: %v", facts)
	}
	p.click("button", "Cancel")
	p.absent("dialog", "Rotate the token of Web Shop")
	if p.row("Web Shop").Hint != before.Hint {
		f.Error("the token is rotated without a confirmation")
	}

	p.click("button", "Rotate the token of Web Shop")
	p.choose(acceptFormer, "for 1 hour")
	p.click("button", "Rotate")
	p.sees("Token of Web Shop")
	p.sees("The former token is accepted until " + time.Now().UTC().Add(time.Hour).Format("2006-01-02"))
	p.sees("If you lose it, rotate the token of the key to get another one.")
	p.sees("WEB_SHOP_API_KEY=sq_")
	p.click("button", "Copy token")
	p.sees("Copied.")
	issued := run[string](p, `document.getElementById("token-text").textContent`)
	p.click("button", "Close")
	p.sees("Web Shop has a new token.")
	f.assertStatus("new token", issued, http.StatusOK)
	f.assertStatus("former token", former, http.StatusOK)
	p.eventually("the list shows the new token", func() bool { return p.row("Web Shop").Hint == issued[:7]+"…" })
	if strings.Contains(p.memory(), issued) {
		f.Error("the page still has the token")
	}

	p.click("link", "Web Shop")
	properties := p.properties(before.Object)
	if _, scheduled := properties["Next rotation"]; scheduled || properties["Token"] != issued[:7]+"…" {
		f.Errorf("the properties are %v", properties)
	}
	p.sees(former[:7] + "… accepted until ")
	p.sees("in 59 minutes")
	p.checkAccessibility("a key with two tokens")
}

func rotateEndsATokenThatHasLeaked(f *fixture) {
	leaked := f.issue("Web Shop")
	p := f.enter(f.key)
	p.click("link", "Web Shop")
	p.click("button", "Rotate token")
	p.choose(acceptFormer, "not at all: it has leaked")
	p.sees("Clients that use a former token of this key are refused at once.")
	p.click("button", "Rotate")
	p.sees("The former token is no longer accepted.")
	f.assertStatus("leaked token", leaked, http.StatusUnauthorized)
	f.assertStatus("new token", p.newToken("Web Shop"), http.StatusOK)
	p.absent("term", "Former tokens")
	p.eventually("the focus is on the button that opened the dialog", func() bool { return p.focused() == "button Rotate token" })
}

func rotateNamesTheSecretOfAMintedToken(f *fixture) {
	f.mint("shop", "Shop", func(spec *v1alpha1.APIKeySpec) {
		spec.Secret = &v1alpha1.TokenSecret{Name: "shop-key", Key: "key"}
		spec.Rotation = &v1alpha1.Rotation{Interval: &metav1.Duration{Duration: 60 * day}}
	})
	p := f.enter(f.key)
	p.eventually("the key is issued", func() bool {
		p.click("button", "Refresh")
		return p.row("Shop").State == "Active"
	})
	before := p.row("Shop").Hint
	p.click("link", "Shop")
	if next := p.properties("shop")["Next rotation"]; !strings.HasSuffix(next, "in 2 months") {
		f.Errorf("the next rotation is %q", next)
	}
	p.click("button", "Rotate token")
	p.sees("The controller mints a new token, and writes it to the Secret shop-key, under key.")
	p.click("button", "Rotate")
	p.find("dialog", "New token of Shop")
	p.sees("The controller wrote the new token to the Secret shop-key, under key.")
	p.sees("The former token is accepted until ")
	p.checkAccessibility("the Secret of a new token")
	p.press(kb.Escape)
	p.sees("Shop has a new token.")
	p.sees(before + " accepted until ")
}

func rotateTheKeyOfThePage(f *fixture) {
	first := f.issue("Own", writes)
	p := f.enter(first)
	p.click("button", "Rotate the token of Own")
	p.absent("checkbox", rotateAnyway)
	p.click("button", "Rotate")
	second := p.newToken("Own")
	if stored := p.storedKey(); stored != second {
		f.Errorf("the browser stores %q", stored)
	}
	p.sees("Own has a new token.")

	p.click("button", "Rotate the token of Own")
	p.choose(acceptFormer, "not at all: it has leaked")
	p.sees("This page uses this key. If the response is lost, the page needs another key.")
	p.click("button", "Rotate") // the browser requires the check
	f.assertStatus("token of the page", second, http.StatusOK)
	p.click("checkbox", rotateAnyway)
	p.click("button", "Rotate")
	third := p.newToken("Own")
	f.assertStatus("former token of the page", second, http.StatusUnauthorized)
	p.reload() // with the stored key
	p.eventually("the list shows the new token", func() bool { return p.row("Own").Hint == third[:7]+"…" })
}

func rotateNamesProblems(f *fixture) {
	f.issue("Web Shop")
	issued := f.issue("Old App")
	f.patch("Web Shop", func(key *v1alpha1.APIKey) { key.Labels = map[string]string{"kustomize.toolkit.fluxcd.io/name": "apps"} })
	p := f.enter(f.key)
	p.absent("button", "Rotate the token of "+p.bootstrap().Name)

	p.click("button", "Rotate the token of Web Shop")
	p.sees("Flux declares the hash of the token, and would set the former token back: the new one then ends.")
	p.find("checkbox", rotateAnyway)
	p.checkAccessibility("a rotation that a tool may revert")
	p.click("button", "Cancel")

	p.click("button", "Rotate the token of Old App")
	p.find("dialog", "Rotate the token of Old App")
	f.deactivate("Old App", issued) // by another user
	p.click("button", "Rotate")
	p.sees("The key has ended, which is final, and cannot be changed: create another key.")
	p.expectError("409 " + keysCall + "/" + p.row("Old App").ID + "/rotate")
	p.click("button", "Cancel")
	p.awaitState("Old App", "Deactivated")
	p.absent("button", "Rotate the token of Old App")

	p.click("link", "Web Shop")
	p.click("button", "Rotate token")
	p.click("checkbox", rotateAnyway)
	f.console.Kill()
	p.click("button", "Rotate")
	p.sees("The console does not respond. The key may have a new token, which is lost. Check the key: if it has another token, rotate it again.")
	p.click("button", "Cancel")
}

func rotateNamesAKeyThatIsDeleted(f *fixture) {
	f.issue("Short-lived")
	p := f.enter(f.key)
	deleted := p.row("Short-lived")
	key := &v1alpha1.APIKey{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: deleted.Object}}
	framework.Must(f, f.Env.Client.Delete(f.Context(), key))
	framework.Eventually(f, "the console has seen the deletion", func() bool {
		return f.status("GET", "api-keys/"+deleted.ID, f.key) == http.StatusNotFound
	})
	p.click("button", "Rotate the token of Short-lived")
	p.sees("This key does not exist any more.")
	p.expectError("404 " + keysCall + "/" + deleted.ID)
	p.eventually("the list has no such key", func() bool { return len(p.rows()) == 1 })
}
