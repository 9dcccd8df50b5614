// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build console

package console_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
)

const (
	keyRequired = "A valid API key is required: send it in the X-API-Key header, or as Authorization: Bearer."
	countCall   = "api/v1/api-keys/count"
	keysCall    = "api/v1/api-keys"
	search      = "Search by app name or ID"
)

// storedKey returns the API key in the storage of the browser.
func (p *tab) storedKey() string {
	p.Helper()
	return run[string](p, `localStorage.getItem("apikey_operator_api_key") ?? ""`)
}

// row waits until the table shows the key of an app, and returns the row.
func (p *tab) row(appName string) row {
	p.Helper()
	return p.findRow(appName, func(r row) bool { return r.Name == appName })
}

// bootstrap waits until the table shows the bootstrap key, and returns the row.
func (p *tab) bootstrap() row {
	p.Helper()
	return p.findRow("the bootstrap key", func(r row) bool { return strings.HasPrefix(r.Name, "bootstrap-") })
}

func (p *tab) findRow(what string, matches func(row) bool) (found row) {
	p.Helper()
	p.eventually("the table shows "+what, func() bool {
		rows := p.rows()
		i := slices.IndexFunc(rows, matches)
		if i >= 0 {
			found = rows[i]
		}
		return i >= 0
	})
	return found
}

// awaitState waits until the table shows the key of an app in this state.
func (p *tab) awaitState(appName, state string) {
	p.Helper()
	p.eventually(appName+" is "+state, func() bool { return p.row(appName).State == state })
}

func settingsCheckAKeyBeforeTheyStoreIt(f *fixture) {
	p := open(f, f.url)
	p.sees("Where to find a key")
	p.sees("data/.api_key")
	p.sees("kubectl apikey create")

	p.fill("textbox", "API key", "sq_unknown")
	p.click("button", "Save")
	p.sees("The console refused this key: " + keyRequired)
	p.expectError("401 " + countCall)
	p.fill("textbox", "API key", "ключ")
	p.click("button", "Save")
	p.sees("This is not an API key: it contains characters that API keys do not have.")
	if stored := p.storedKey(); stored != "" {
		f.Errorf("the browser stores the invalid key %q", stored)
	}

	p.click("button", "Show")
	if shown := run[string](p, `document.getElementById("key").type`); shown != "text" {
		f.Errorf("the type of the field is %q", shown)
	}
	p.signIn("  " + f.key + "\n")
	if stored := p.storedKey(); stored != f.key {
		f.Errorf("the browser stores %q", stored)
	}
	p.sees("1 active, 1 total")
	p.visit("") // with the stored key
	p.sees("1 active, 1 total")

	p.click("link", "Settings")
	p.sees("Stored in this browser: " + f.key[:7] + "…")
	p.reload()
	p.sees("Stored in this browser: " + f.key[:7] + "…")
	if shown := run[string](p, `document.body.outerHTML`); strings.Contains(shown, f.key) {
		f.Error("the page contains the whole key")
	}
	p.click("button", "Forget")
	p.sees("Where to find a key")
	p.click("link", "Keys")
	p.sees("Where to find a key") // the only view without a key
	if stored := p.storedKey(); stored != "" {
		f.Errorf("the browser stores %q", stored)
	}
}

func settingsForgetAKeyWhileAnotherIsChecked(f *fixture) {
	p := f.enter(f.key)
	p.click("link", "Settings")
	p.block(countCall)
	p.fill("textbox", "API key", f.key)
	p.click("button", "Save")
	p.sees("The console does not respond. Retrying…")
	p.click("button", "Forget")
	p.unblock()
	p.find("button", "Save") // not "Checking…"
	if stored := p.storedKey(); stored != "" {
		f.Errorf("the browser stores %q", stored)
	}
	if text := p.text(); strings.Contains(text, "Retrying") {
		f.Errorf("the page still retries:\n%s", text)
	}
}

func settingsWorkWithoutStorage(f *fixture) {
	p := open(f, f.url)
	call(p, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: `
	  Object.defineProperty(globalThis, "localStorage", { get() { throw new DOMException("Access is denied.", "SecurityError"); } });
	`})
	p.reload()
	p.signIn(f.key)
	p.sees("This browser does not store data for this page: enter the key again after you close or reload the page.")
	p.click("link", "Settings")
	p.sees("Stored until you close or reload the page: " + f.key[:7] + "…")
	p.click("button", "Forget")
	p.sees("Where to find a key")
	p.signIn(f.key)
	p.reload()
	p.sees("Where to find a key")
}

func settingsOpenWhenTheKeyIsRefused(f *fixture) {
	visitor := f.issue("Visitor")
	p := f.enter(visitor)
	p.row("Visitor")
	f.deactivate("Visitor", visitor)

	p.click("button", "Refresh")
	p.sees("The console refused the API key of this page: " + keyRequired)
	p.expectError("401 " + keysCall)
	p.sees("Stored in this browser: " + visitor[:7] + "…")
	if rows := p.rows(); len(rows) > 0 {
		f.Errorf("without a valid key, the page shows %v", rows)
	}
	p.signIn(f.key)
	p.awaitState("Visitor", "Inactive")
	p.click("link", "Settings")
	p.sees("Stored in this browser")
	if text := p.text(); strings.Contains(text, "refused") {
		f.Errorf("the page still shows the error of the former key:\n%s", text)
	}
}

func createKeepsItsInputWhenTheAPIKeyIsRefused(f *fixture) {
	visitor, second := f.issue("Visitor", func(spec *v1alpha1.APIKeySpec) { spec.WriteAccess = true }), f.issue("Second visitor")
	p := f.enter(visitor)
	p.click("button", "Create key")
	p.fill("textbox", "App name", "Patience")
	p.click("checkbox", "Write all other methods")
	f.deactivate("Visitor", visitor)

	p.click("button", "Create")
	p.sees("The console refused the API key of this page: " + keyRequired)
	p.expectError("401 " + keysCall)
	p.expectError("401 " + countCall)

	p.block(keysCall) // until the next key is refused too
	p.fill("textbox", "API key", second)
	p.click("button", "Save")
	p.sees("The console does not respond. Retrying…")
	f.deactivate("Second visitor", second)
	p.unblock()
	p.sees("The console refused the API key of this page: " + keyRequired)
	p.expectError("401 " + keysCall)

	p.signIn(f.key)
	p.find("dialog", "Create key")
	p.click("button", "Create")
	p.sees("Token of Patience")
	p.click("button", "Close")
	p.click("button", "Close without copying")
	if got := p.row("Patience").Access; got != "Read + Write" {
		f.Errorf("Patience has access %q", got)
	}
}

func tokenIsShownOnceAndStoredNowhere(f *fixture) {
	p := f.enter(f.key)
	p.allowClipboard()
	p.click("button", "Create key")
	p.fill("textbox", "App name", "Frontend App")
	p.click("button", "Create")
	p.sees("Token of Frontend App")
	p.sees("Copy the token now")
	shown := run[string](p, `document.getElementById("token-text").textContent`)
	if f.status("GET", "api-keys/count", shown) != http.StatusOK {
		f.Error("the token is not accepted")
	}
	if f.status("POST", "api-keys", shown) != http.StatusUnauthorized {
		f.Error("the token has write access")
	}

	p.press(kb.Escape, kb.Escape)
	do(p, chromedp.MouseClickXY(5, 400)) // outside the dialog
	p.sees("The token has not been copied and cannot be shown again.")
	if leaving := run[bool](p, `!dispatchEvent(new Event("beforeunload", {cancelable: true}))`); !leaving {
		f.Error("the browser does not ask before it leaves the page")
	}
	for button, want := range map[string]string{
		"Copy token":   shown,
		"Copy command": fmt.Sprintf("curl -H 'X-API-Key: %s' %sapi/v1/api-keys/count", shown, f.url),
	} {
		p.click("button", button)
		p.eventually(button+" copies", func() bool { return run[string](p, `navigator.clipboard.readText()`) == want })
	}
	p.sees("Copied.")
	p.click("button", "Close")
	p.sees("Frontend App was created.")
	p.row("Frontend App")

	for where, held := range map[string]string{
		"the document":        run[string](p, `document.documentElement.outerHTML + [...document.querySelectorAll("input, output")].map(e => e.value)`),
		"the storage":         run[string](p, `JSON.stringify([{...localStorage}, {...sessionStorage}])`),
		"the history":         run[string](p, `JSON.stringify([history.state, location.href, performance.getEntries()])`),
		"the scripts' memory": p.memory(),
	} {
		if strings.Contains(held, shown) {
			f.Errorf("%s still contains the token", where)
		}
	}
	run[any](p, fmt.Sprintf(`globalThis.held = "%s"; null`, shown))
	if !strings.Contains(p.memory(), shown) {
		f.Error("the search does not find a token in memory")
	}
}

func tableCopiesAnID(f *fixture) {
	p := f.enter(f.key)
	p.allowClipboard()
	own := p.bootstrap()
	p.click("button", "Copy the ID of "+own.Name)
	p.sees("ID copied.")
	if copied := run[string](p, `navigator.clipboard.readText()`); copied != own.ID {
		f.Errorf("the clipboard contains %q, want %q", copied, own.ID)
	}

	run[any](p, `Object.defineProperty(navigator, "clipboard", {value: undefined}); null`) // as on a page from plain HTTP
	p.click("button", "Copy the ID of "+own.Name)
	p.sees("Selected: press Ctrl+C or ⌘C to copy.")
	if selected := run[string](p, `getSelection().toString()`); selected != own.ID {
		f.Errorf("the selection is %q, want %q", selected, own.ID)
	}
}

// allowClipboard grants the page the permission to read the clipboard.
func (p *tab) allowClipboard() {
	p.Helper()
	_, err := chromedp.CallBrowser(p.ctx, browser.SetPermission, browser.SetPermissionParams{
		Permission:       &browser.PermissionDescriptor{Name: "clipboard-read"},
		Setting:          browser.PermissionSettingGranted,
		BrowserContextID: chromedp.FromContext(p.ctx).BrowserContextID,
	})
	framework.Must(p, err)
}

func createSetsTheExpiry(f *fixture) {
	cutShort := time.Now().Add(8 * time.Second).Truncate(time.Second)
	f.createKey("Cut short", func(spec *v1alpha1.APIKeySpec) {
		spec.ExpiresAt, spec.Active = new(metav1.NewTime(cutShort)), new(false)
	})
	p := open(f, f.url)
	call(p, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "Asia/Kolkata"})
	zone := time.FixedZone("Asia/Kolkata", int((5*time.Hour + 30*time.Minute).Seconds()))
	p.signIn(f.key)
	create := func(appName, expires string, date ...string) { // as key presses
		f.Helper()
		p.click("button", "Create key")
		p.fill("textbox", "App name", appName)
		p.choose("Expires", expires)
		if len(date) > 0 {
			p.tabTo("DateTime", "Date and time in your time zone")
			p.press(date...)
		}
		p.click("button", "Create")
		p.sees("Token of " + appName)
		p.click("button", "Close")
		p.click("button", "Close without copying")
	}
	now := time.Now().In(zone)
	soon := time.Date(now.Year(), now.Month(), now.Day()+2, 0, 30, 0, 0, zone) // in UTC it is the day before
	create("Forever", "Never")
	create("A month", "In 30 days")
	create("A year", "In a year")
	create("Two days", "On a date…", soon.Format("010220060304PM"))
	const day = 24 * time.Hour
	for appName, want := range map[string]time.Time{
		"A month":  now.Add(30 * day),
		"A year":   now.Add(365 * day),
		"Two days": soon,
	} {
		expires := f.spec(appName).ExpiresAt.In(zone)
		if late := expires.Sub(want).Truncate(time.Second); late < 0 || late > timeout {
			f.Errorf("%s expires at %s, want %s", appName, expires, want)
		}
		if got := p.row(appName).Expires; !strings.HasPrefix(got, expires.Format("2006-01-02 15:04")) {
			f.Errorf("%s expires at %s, and the page shows %q", appName, expires, got)
		}
	}
	if got := p.row("Two days").Expires; !strings.HasSuffix(got, "\nin 2 days") {
		f.Errorf("the page shows the day after tomorrow as %q", got)
	}
	if got := p.row("Forever").Expires; got != "Never" || f.spec("Forever").ExpiresAt != nil {
		f.Errorf("the page shows no expiry as %q", got)
	}

	f.createKey("A moment", func(spec *v1alpha1.APIKeySpec) { spec.ExpiresAt = new(metav1.NewTime(time.Now().Add(3 * time.Second))) })
	p.eventually("A moment is Expired", func() bool {
		p.click("button", "Refresh")
		return slices.ContainsFunc(p.rows(), func(r row) bool { return r.Name == "A moment" && r.State == "Expired" })
	})
	p.eventually("the expiry of the deactivated key has passed", func() bool { return time.Now().After(cutShort) })
	p.click("button", "Refresh")
	if got := p.row("Cut short").State; got != "Inactive" {
		f.Errorf("the state of a key that was deactivated before its expiry is %s", got)
	}
}

func createKeepsItsInputAfterAnError(f *fixture) {
	f.issue("Frontend App")
	p := f.enter(f.key)
	p.click("button", "Create key")
	p.fill("textbox", "App name", "Frontend App")
	p.click("checkbox", "Write all other methods")
	p.click("button", "Create")
	p.sees(`An active key has the app name "Frontend App": deactivate that key, or choose another app name.`)
	p.expectError("409 " + keysCall)

	p.fill("textbox", "App name", " with a space")
	p.click("button", "Create")
	p.sees("app_name must be 1 to 255 printable characters of any language, without leading or trailing space.")
	p.expectError("422 " + keysCall)

	f.console.Kill()
	p.click("button", "Create")
	p.sees("The console does not respond. The key may have been created, and its token is lost: check the list of keys.")
	want := map[string]any{"name": " with a space", "read": true, "write": true}
	got := run[map[string]any](p, `({
	  name: document.getElementById("app-name").value,
	  read: document.getElementById("read-access").checked,
	  write: document.getElementById("write-access").checked,
	})`)
	if diff := cmp.Diff(want, got); diff != "" {
		f.Errorf("the input is lost (-want +got):\n%s", diff)
	}
	p.click("button", "Cancel")
	p.click("button", "Refresh")
	p.sees("The console does not respond. Retrying…")
}

func readOnlyKeySeesTheErrorOfTheAPI(f *fixture) {
	p := f.enter(f.issue("Reader"))
	p.click("button", "Create key")
	p.fill("textbox", "App name", "Report")
	p.click("button", "Create")
	p.sees("API key does not have write access")
	p.expectError("401 " + keysCall)
	p.click("button", "Cancel")
	p.click("button", "Deactivate Reader")
	p.click("button", "Deactivate")
	p.sees("API key does not have write access")
	p.expectError("401 " + keysCall + "/" + p.row("Reader").ID)
	p.click("button", "Cancel")
	p.sees("2 active, 2 total")
}

func keyWithoutManagerLabelSeesTheErrorOfTheAPI(f *fixture) {
	issued := f.issue("An App", func(spec *v1alpha1.APIKeySpec) { spec.WriteAccess = true })
	f.start(f.Env.Config, "--api-key-file=", "--managers=labelled")
	framework.Eventually(f, "it is ready", func() bool { return f.status("GET", "api-keys/count", issued) == http.StatusOK })
	const denied = "This key may not create, change or deactivate keys: use a key that may, or allow it for this one: kubectl label apikey "
	p := f.enter(issued)
	p.click("button", "Create key")
	p.fill("textbox", "App name", "Report")
	p.click("button", "Create")
	p.sees(denied)
	p.expectError("403 " + keysCall)
	p.click("button", "Cancel")
	p.click("button", "Deactivate An App")
	p.click("button", "Deactivate")
	p.sees(denied)
	p.expectError("403 " + keysCall + "/" + p.row("An App").ID)
	p.click("button", "Cancel")
	p.sees("2 active, 2 total")
}

func deactivateOnlyTheChosenKey(f *fixture) {
	old, other := f.issue("Old App"), f.issue("Other App")
	p := f.enter(f.key)
	p.click("button", "Deactivate Old App")
	p.find("dialog", "Deactivate Old App?")
	p.click("button", "Cancel")
	p.click("button", "Deactivate Old App")
	p.press(kb.Escape)
	p.absent("dialog", "Deactivate Old App?")
	if f.status("GET", "api-keys/count", old) != http.StatusOK {
		f.Error("the key is deactivated without a confirmation")
	}

	p.click("button", "Deactivate Old App")
	p.click("button", "Deactivate")
	p.sees("Old App was deactivated.")
	p.awaitState("Old App", "Inactive")
	if action := p.row("Old App").Action; action != "" {
		f.Errorf("an inactive key has the action %q", action)
	}
	p.sees("2 active, 3 total")
	if f.status("GET", "api-keys/count", old) != http.StatusUnauthorized || f.status("GET", "api-keys/count", other) != http.StatusOK {
		f.Error("another key is deactivated")
	}

	f.deactivate("Other App", other) // by another user
	p.click("button", "Deactivate Other App")
	p.click("button", "Deactivate")
	p.sees("The key is already inactive.")
	p.expectError("409 " + keysCall + "/" + p.row("Other App").ID)
	p.awaitState("Other App", "Inactive")
	p.absent("checkbox", forceLabel)
	p.click("button", "Cancel")
}

const forceLabel = "Deactivate it anyway. This page then needs another key."

func deactivateTheKeyOfThePageNeedsForce(f *fixture) {
	own := f.issue("Own", func(spec *v1alpha1.APIKeySpec) { spec.WriteAccess = true })
	p := f.enter(own)
	call := keysCall + "/" + p.row("Own").ID
	p.click("button", "Deactivate Own")
	p.click("button", "Deactivate")
	p.sees("This is the key that authenticates the request")
	p.expectError("409 " + call)
	p.find("checkbox", forceLabel)
	p.click("button", "Deactivate") // without force
	if f.status("GET", "api-keys/count", own) != http.StatusOK {
		f.Error("the key of the page is deactivated without force")
	}
	p.click("checkbox", forceLabel)
	p.click("button", "Deactivate")
	p.sees("The console refused the API key of this page: " + keyRequired)
	p.expectError("401 " + keysCall)
}

func keyboardReachesAllControls(f *fixture) {
	f.issue("Old App")
	p := open(f, f.url)
	p.tabTo("textbox", "API key")
	p.write(f.key)
	p.press(kb.Enter)
	p.sees("total")

	p.tabTo("button", "Create key")
	p.press(kb.Enter)
	p.eventually("the first field has the focus", func() bool { return p.focused() == "textbox App name" })
	p.write("Keyboard App")
	p.tabTo("checkbox", "Read GET, HEAD, OPTIONS")
	p.press(" ")
	p.tabTo("button", "Create")
	p.press(kb.Enter) // without any access: the browser moves the focus to the invalid field
	p.eventually("the invalid field has the focus", func() bool { return p.focused() == "checkbox Read GET, HEAD, OPTIONS" })
	p.press(" ")
	p.tabTo("button", "Create")
	p.press(" ")
	p.sees("Token of Keyboard App")
	p.tabTo("button", "Copy token")
	p.press(kb.Enter)
	p.sees("Copied.")
	p.tabTo("button", "Close")
	p.press(kb.Enter)
	p.row("Keyboard App")
	p.eventually("the focus is on the button that opened the dialog", func() bool { return p.focused() == "button Create key" })

	p.tabTo("searchbox", search)
	p.write("old")
	p.eventually("the table shows one key", func() bool { return len(p.rows()) == 1 })
	p.tabTo("button", "Deactivate Old App")
	p.press(kb.Enter)
	p.eventually("the Cancel button has the focus", func() bool { return p.focused() == "button Cancel" })
	p.tabTo("button", "Deactivate")
	p.press(kb.Enter)
	p.awaitState("Old App", "Inactive")
	p.tabTo("link", "Settings")
	p.press(kb.Enter)
	p.tabTo("button", "Forget")
	p.press(kb.Enter)
	p.sees("Where to find a key")
}

func tableShowsNamesAsText(f *fixture) {
	names := []string{`<img src=x onerror=alert(1)>`, `"><script>alert(2)</script>`, "لوحة التحكم (1)", "ключ & 鍵"}
	for _, name := range names {
		f.createKey(name)
	}
	f.awaitActive(1 + len(names))
	p := f.enter(f.key)
	for _, name := range names {
		p.row(name)
		p.click("button", "Deactivate "+name)
		p.find("dialog", "Deactivate "+name+"?")
		p.click("button", "Cancel")
		p.fill("searchbox", search, name)
		p.eventually("the search finds "+name, func() bool { rows := p.rows(); return len(rows) == 1 && rows[0].Name == name })
		p.fill("searchbox", search, "")
	}
	right := run[string](p, `getComputedStyle([...document.querySelectorAll("tbody bdi")].find(e => e.textContent.startsWith("ل"))).direction`)
	if right != "rtl" {
		f.Errorf("the direction of Arabic is %q", right)
	}

	p.click("button", "Create key")
	p.fill("textbox", "App name", `<b onclick="alert(3)">`)
	p.click("button", "Create")
	p.sees(`Token of <b onclick="alert(3)">`)
	p.click("button", "Close")
	p.click("button", "Close without copying")
	p.row(`<b onclick="alert(3)">`)
	if elements := run[int](p, `document.querySelectorAll("main img, main script, main b").length`); elements > 0 {
		f.Errorf("%d elements were created from names", elements)
	}
}

func tableSearchesSortsAndPages(f *fixture) {
	const services = 120
	for i := range services {
		f.createKey(fmt.Sprintf("Service %d", i+1), func(spec *v1alpha1.APIKeySpec) {
			spec.WriteAccess = i%2 == 0
			if i%10 == 0 {
				spec.Active = new(false)
			}
		})
	}
	f.awaitActive(1 + services - services/10)
	p := f.enter(f.key)
	p.sees("109 active, 121 total")
	p.sees("1–50 of 121")

	p.click("button", "App name")
	p.click("button", "Next")
	p.sees("51–100 of 121")
	p.click("button", "Last")
	p.sees("101–121 of 121")
	if last := p.rows()[20].Name; last != "Service 120" {
		f.Errorf("the last key by name is %q", last)
	}
	if sorted := run[string](p, `[...document.querySelectorAll("th[aria-sort]")].map(th => th.innerText + " " + th.ariaSort).join()`); sorted != "App name ascending" {
		f.Errorf("the order for assistive technology is %q", sorted)
	}
	p.click("button", "App name")
	p.sees("1–50 of 121")
	if first := p.rows()[0].Name; first != "Service 120" {
		f.Errorf("the first key by descending name is %q", first)
	}
	p.click("button", "Access")
	if first := p.rows()[0].Access; first != "Read" {
		f.Errorf("the access of the first key is %q", first)
	}
	p.click("button", "State")
	p.click("button", "State")
	if first := p.rows()[0].State; first != "Inactive" {
		f.Errorf("the state of the first key is %q", first)
	}

	p.click("checkbox", "Active only")
	p.sees("1–50 of 109")
	p.fill("searchbox", search, "SERVICE 11")
	p.sees("1–9 of 9") // 110 and 112 to 119: 11 and 111 are inactive
	p.fill("searchbox", search, p.rows()[0].ID[:13])
	p.sees("1–1 of 1")
	p.fill("searchbox", search, "nothing like it")
	p.sees("No active keys match “nothing like it”.")
	p.fill("searchbox", search, "")
	p.sees("1–50 of 109")
}

func tabsShareTheAPIKey(f *fixture) {
	p := f.enter(f.key)
	other := p.another()
	other.sees("1 active, 1 total")
	forget := func() {
		f.Helper()
		other.click("link", "Settings")
		other.click("button", "Forget")
		p.sees("The API key was forgotten in another tab.")
		p.sees("Where to find a key")
		if rows := p.rows(); len(rows) > 0 {
			f.Errorf("without a valid key, the page shows %v", rows)
		}
	}
	forget()
	other.signIn(f.key)
	p.sees("1 active, 1 total")

	p.click("button", "Create key")
	p.fill("textbox", "App name", "Patience")
	forget()
	p.absent("dialog", "Create key")
	other.signIn(f.key)
	p.find("dialog", "Create key")
	p.click("button", "Create")
	p.sees("Token of Patience")
	forget() // the token dialog stays open
	p.click("button", "Close")
	p.click("button", "Close without copying")
	p.sees("Patience was created.")
	if rows := p.rows(); len(rows) > 0 {
		f.Errorf("without a valid key, the page shows %v", rows)
	}
}

func tableShowsManyKeys(f *fixture) {
	p := f.enter(f.key)
	run[any](p, `{
	  const payload = Array.from({ length: 200_000 }, (_, i) => ({ id: String(i), app_name: "Service " + i, read_access: true,
	    is_active: true, created_at: "2026-01-01T00:00:00Z", updated_at: "2026-01-01T00:00:00Z" }));
	  globalThis.fetch = async () => ({ ok: true, headers: new Headers(), json: async () => ({ payload }) });
	} null`)
	p.click("button", "Refresh")
	p.sees("200,000 active, 200,000 total")
}
