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

// kept is the API key that the browser keeps.
func (p *tab) kept() string {
	p.Helper()
	return run[string](p, `localStorage.getItem("apikey_operator_api_key") ?? ""`)
}

// row waits until the table shows the key of an app, and returns what it says of it.
func (p *tab) row(appName string) row {
	p.Helper()
	return p.findRow(appName, func(r row) bool { return r.Name == appName })
}

// bootstrap waits until the table shows the bootstrap key, and returns what it says of it.
func (p *tab) bootstrap() row {
	p.Helper()
	return p.findRow("the bootstrap key", func(r row) bool { return strings.HasPrefix(r.Name, "bootstrap-") })
}

func (p *tab) findRow(what string, matches func(row) bool) (found row) {
	p.Helper()
	p.eventually("the table has a row of "+what, func() bool {
		rows := p.rows()
		i := slices.IndexFunc(rows, matches)
		if i >= 0 {
			found = rows[i]
		}
		return i >= 0
	})
	return found
}

// awaitState waits until the table says that the key of an app is in this state.
func (p *tab) awaitState(appName, state string) {
	p.Helper()
	p.eventually(appName+" is "+state, func() bool { return p.row(appName).State == state })
}

func aKeyIsTriedBeforeItIsKept(f *fixture) {
	p := open(f, f.url)
	p.sees("Where to find a key")
	p.sees("data/.api_key")
	p.sees("kubectl apikey create")

	p.fill("textbox", "API key", "sq_unknown")
	p.click("button", "Save")
	p.sees("This key was refused: " + keyRequired)
	p.refused("401 " + countCall)
	p.fill("textbox", "API key", "ключ")
	p.click("button", "Save")
	p.sees("This is no API key: it has characters that no key has.")
	if kept := p.kept(); kept != "" {
		f.Errorf("the browser keeps %q, which is not good", kept)
	}

	p.click("button", "Show")
	if shown := run[string](p, `document.getElementById("key").type`); shown != "text" {
		f.Errorf("the key is entered in a field of type %q", shown)
	}
	p.signIn("  " + f.key + "\n")
	if kept := p.kept(); kept != f.key {
		f.Errorf("the browser keeps %q", kept)
	}
	p.sees("1 active, 1 in all")
	p.visit("") // again, as on another day
	p.sees("1 active, 1 in all")

	p.click("link", "Settings")
	p.sees("Kept in this browser: " + f.key[:7] + "…")
	p.reload()
	p.sees("Kept in this browser: " + f.key[:7] + "…")
	if shown := run[string](p, `document.body.outerHTML`); strings.Contains(shown, f.key) {
		f.Error("the page holds the whole key")
	}
	p.click("button", "Forget")
	p.sees("Where to find a key")
	p.click("link", "Keys")
	p.sees("Where to find a key") // there is nothing else to see without a key
	if kept := p.kept(); kept != "" {
		f.Errorf("the browser keeps %q", kept)
	}
}

func aKeyThatIsForgottenWhileAnotherIsTriedStaysForgotten(f *fixture) {
	p := f.enter(f.key)
	p.click("link", "Settings")
	p.block(countCall)
	p.fill("textbox", "API key", f.key)
	p.click("button", "Save")
	p.sees("The console does not answer. Trying again …")
	p.click("button", "Forget")
	p.unblock()
	p.find("button", "Save") // no longer "Checking …"
	if kept := p.kept(); kept != "" {
		f.Errorf("the browser keeps %q", kept)
	}
	if text := p.text(); strings.Contains(text, "Trying again") {
		f.Errorf("the page still says that it tries:\n%s", text)
	}
}

func aBrowserThatStoresNothingIsEnough(f *fixture) {
	p := open(f, f.url)
	call(p, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: `
	  Object.defineProperty(globalThis, "localStorage", { get() { throw new DOMException("Access is denied.", "SecurityError"); } });
	`})
	p.reload()
	p.signIn(f.key)
	p.sees("This browser stores nothing for the page: it needs the key again once it is closed or reloaded.")
	p.click("link", "Settings")
	p.sees("Kept until the page is closed or reloaded: " + f.key[:7] + "…")
	p.click("button", "Forget")
	p.sees("Where to find a key")
	p.signIn(f.key)
	p.reload()
	p.sees("Where to find a key")
}

func aKeyThatIsNoLongerGoodLeadsToTheSettings(f *fixture) {
	visitor := f.issue("Visitor")
	p := f.enter(visitor)
	p.row("Visitor")
	f.deactivate("Visitor", visitor)

	p.click("button", "Refresh")
	p.sees("The key of this page was refused: " + keyRequired)
	p.refused("401 " + keysCall)
	p.sees("Kept in this browser: " + visitor[:7] + "…")
	if rows := p.rows(); len(rows) > 0 {
		f.Errorf("who has no key still sees %v", rows)
	}
	p.signIn(f.key)
	p.awaitState("Visitor", "Inactive")
	p.click("link", "Settings")
	p.sees("Kept in this browser")
	if text := p.text(); strings.Contains(text, "refused") {
		f.Errorf("the refusal of a former key is still there:\n%s", text)
	}
}

func aNewKeyOutlivesALostAPIKey(f *fixture) {
	visitor, second := f.issue("Visitor", func(spec *v1alpha1.APIKeySpec) { spec.WriteAccess = true }), f.issue("Second visitor")
	p := f.enter(visitor)
	p.click("button", "New key")
	p.fill("textbox", "App name", "Patience")
	p.click("checkbox", "Write all other methods")
	f.deactivate("Visitor", visitor)

	p.click("button", "Create")
	p.sees("The key of this page was refused: " + keyRequired)
	p.refused("401 " + keysCall)
	p.refused("401 " + countCall)

	p.block(keysCall) // so that the next key is lost as well, before anything can be done with it
	p.fill("textbox", "API key", second)
	p.click("button", "Save")
	p.sees("The console does not answer. Trying again …")
	f.deactivate("Second visitor", second)
	p.unblock()
	p.sees("The key of this page was refused: " + keyRequired)
	p.refused("401 " + keysCall)

	p.signIn(f.key)
	p.find("dialog", "New key")
	p.click("button", "Create")
	p.sees("The token of Patience")
	p.click("button", "Done")
	p.click("button", "Close without copying")
	if got := p.row("Patience").Access; got != "Read + Write" {
		f.Errorf("Patience has access %q", got)
	}
}

func aTokenIsShownOnceAndKeptNowhere(f *fixture) {
	p := f.enter(f.key)
	p.allowClipboard()
	p.click("button", "New key")
	p.fill("textbox", "App name", "Frontend App")
	p.click("button", "Create")
	p.sees("The token of Frontend App")
	p.sees("Copy it now")
	shown := run[string](p, `document.getElementById("token-text").textContent`)
	if f.status("GET", "api-keys/count", shown) != http.StatusOK {
		f.Error("the token is not accepted")
	}
	if f.status("POST", "api-keys", shown) != http.StatusUnauthorized {
		f.Error("the token may write")
	}

	p.press(kb.Escape, kb.Escape)
	do(p, chromedp.MouseClickXY(5, 400)) // beside the dialog
	p.sees("The token has not been copied, and cannot be shown again.")
	if leaving := run[bool](p, `!dispatchEvent(new Event("beforeunload", {cancelable: true}))`); !leaving {
		f.Error("the page can be left without a question")
	}
	for button, want := range map[string]string{
		"Copy token":   shown,
		"Copy command": fmt.Sprintf("curl -H 'X-API-Key: %s' %sapi/v1/api-keys/count", shown, f.url),
	} {
		p.click("button", button)
		p.eventually(button+" copies", func() bool { return run[string](p, `navigator.clipboard.readText()`) == want })
	}
	p.sees("Copied.")
	p.click("button", "Done")
	p.sees("Frontend App is created.")
	p.row("Frontend App")

	for where, held := range map[string]string{
		"the document":        run[string](p, `document.documentElement.outerHTML + [...document.querySelectorAll("input, output")].map(e => e.value)`),
		"the storage":         run[string](p, `JSON.stringify([{...localStorage}, {...sessionStorage}])`),
		"the history":         run[string](p, `JSON.stringify([history.state, location.href, performance.getEntries()])`),
		"the scripts' memory": p.memory(),
	} {
		if strings.Contains(held, shown) {
			f.Errorf("%s still has the token", where)
		}
	}
	run[any](p, fmt.Sprintf(`globalThis.held = "%s"; null`, shown))
	if !strings.Contains(p.memory(), shown) {
		f.Error("a token that is held is not found: the search shows nothing")
	}
}

func anIDIsCopied(f *fixture) {
	p := f.enter(f.key)
	p.allowClipboard()
	own := p.bootstrap()
	p.click("button", "Copy the ID of "+own.Name)
	p.sees("The ID is copied.")
	if copied := run[string](p, `navigator.clipboard.readText()`); copied != own.ID {
		f.Errorf("%q is copied instead of %q", copied, own.ID)
	}

	run[any](p, `Object.defineProperty(navigator, "clipboard", {value: undefined}); null`) // as on a page that came over plain HTTP
	p.click("button", "Copy the ID of "+own.Name)
	p.sees("Selected: press Ctrl+C or ⌘C to copy.")
	if selected := run[string](p, `getSelection().toString()`); selected != own.ID {
		f.Errorf("%q is selected instead of %q", selected, own.ID)
	}
}

// allowClipboard lets the page read the clipboard too, which a browser asks its user about.
func (p *tab) allowClipboard() {
	p.Helper()
	_, err := chromedp.CallBrowser(p.ctx, browser.SetPermission, browser.SetPermissionParams{
		Permission:       &browser.PermissionDescriptor{Name: "clipboard-read"},
		Setting:          browser.PermissionSettingGranted,
		BrowserContextID: chromedp.FromContext(p.ctx).BrowserContextID,
	})
	framework.Must(p, err)
}

func aKeyExpiresWhenItsCreatorSays(f *fixture) {
	cutShort := time.Now().Add(8 * time.Second).Truncate(time.Second)
	f.declare("Cut short", func(spec *v1alpha1.APIKeySpec) {
		spec.ExpiresAt, spec.Active = new(metav1.NewTime(cutShort)), new(false)
	})
	p := open(f, f.url)
	call(p, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "Asia/Kolkata"})
	zone := time.FixedZone("Asia/Kolkata", int((5*time.Hour + 30*time.Minute).Seconds()))
	p.signIn(f.key)
	create := func(appName, expires string, date ...string) { // the date by the keys that are pressed
		f.Helper()
		p.click("button", "New key")
		p.fill("textbox", "App name", appName)
		p.choose("Expires", expires)
		if len(date) > 0 {
			p.tabTo("DateTime", "Date and time, here")
			p.press(date...)
		}
		p.click("button", "Create")
		p.sees("The token of " + appName)
		p.click("button", "Done")
		p.click("button", "Close without copying")
	}
	now := time.Now().In(zone)
	soon := time.Date(now.Year(), now.Month(), now.Day()+2, 0, 30, 0, 0, zone) // in UTC it is the day before
	create("For ever", "Never")
	create("A month", "In 30 days")
	create("A year", "In a year")
	create("Two days", "On a date …", soon.Format("010220060304PM"))
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
			f.Errorf("%s expires at %s, and is shown with %q", appName, expires, got)
		}
	}
	if got := p.row("Two days").Expires; !strings.HasSuffix(got, "\nin 2 days") {
		f.Errorf("the day after tomorrow is shown as %q", got)
	}
	if got := p.row("For ever").Expires; got != "Never" || f.spec("For ever").ExpiresAt != nil {
		f.Errorf("what never expires is shown with %q", got)
	}

	f.declare("A moment", func(spec *v1alpha1.APIKeySpec) { spec.ExpiresAt = new(metav1.NewTime(time.Now().Add(3 * time.Second))) })
	p.eventually("A moment is Expired", func() bool {
		p.click("button", "Refresh")
		return slices.ContainsFunc(p.rows(), func(r row) bool { return r.Name == "A moment" && r.State == "Expired" })
	})
	p.eventually("the key that was deactivated could have expired", func() bool { return time.Now().After(cutShort) })
	p.click("button", "Refresh")
	if got := p.row("Cut short").State; got != "Inactive" {
		f.Errorf("a key that was deactivated before it expired is %s", got)
	}
}

func aFailedCreationKeepsItsInput(f *fixture) {
	f.issue("Frontend App")
	p := f.enter(f.key)
	p.click("button", "New key")
	p.fill("textbox", "App name", "Frontend App")
	p.click("checkbox", "Write all other methods")
	p.click("button", "Create")
	p.sees(`An active key has the app name "Frontend App": deactivate that key, or choose another app name.`)
	p.refused("409 " + keysCall)

	p.fill("textbox", "App name", " with a space")
	p.click("button", "Create")
	p.sees("app_name must be 1 to 255 printable characters of any language, without leading or trailing space.")
	p.refused("422 " + keysCall)

	f.console.Kill()
	p.click("button", "Create")
	p.sees("The console does not answer. The key may have been created all the same, without anybody knowing its token: look for it in the list.")
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
	p.sees("The console does not answer. Trying again …")
}

func aReadOnlyKeyIsToldSo(f *fixture) {
	p := f.enter(f.issue("Reader"))
	p.click("button", "New key")
	p.fill("textbox", "App name", "Wish")
	p.click("button", "Create")
	p.sees("API key does not have write access")
	p.refused("401 " + keysCall)
	p.click("button", "Cancel")
	p.click("button", "Deactivate Reader")
	p.click("button", "Deactivate")
	p.sees("API key does not have write access")
	p.refused("401 " + keysCall + "/" + p.row("Reader").ID)
	p.click("button", "Cancel")
	p.sees("2 active, 2 in all")
}

func aKeyThatDoesNotManageIsToldHowItCould(f *fixture) {
	issued := f.issue("An App", func(spec *v1alpha1.APIKeySpec) { spec.WriteAccess = true })
	f.start(f.Env.Config, "--api-key-file=", "--managers=labelled")
	framework.Eventually(f, "it is ready", func() bool { return f.status("GET", "api-keys/count", issued) == http.StatusOK })
	const told = "This key may not create or end keys: use one that manages keys, or let it manage them: kubectl label apikey "
	p := f.enter(issued)
	p.click("button", "New key")
	p.fill("textbox", "App name", "Wish")
	p.click("button", "Create")
	p.sees(told)
	p.refused("403 " + keysCall)
	p.click("button", "Cancel")
	p.click("button", "Deactivate An App")
	p.click("button", "Deactivate")
	p.sees(told)
	p.refused("403 " + keysCall + "/" + p.row("An App").ID)
	p.click("button", "Cancel")
	p.sees("2 active, 2 in all")
}

func onlyTheKeyThatIsNamedIsDeactivated(f *fixture) {
	old, other := f.issue("Old App"), f.issue("Other App")
	p := f.enter(f.key)
	p.click("button", "Deactivate Old App")
	p.find("dialog", "Deactivate Old App?")
	p.click("button", "Cancel")
	p.click("button", "Deactivate Old App")
	p.press(kb.Escape)
	p.absent("dialog", "Deactivate Old App?")
	if f.status("GET", "api-keys/count", old) != http.StatusOK {
		f.Error("the key is deactivated although nobody confirmed it")
	}

	p.click("button", "Deactivate Old App")
	p.click("button", "Deactivate")
	p.sees("Old App is deactivated.")
	p.awaitState("Old App", "Inactive")
	if action := p.row("Old App").Action; action != "" {
		f.Errorf("a key that is inactive can be sent %q", action)
	}
	p.sees("2 active, 3 in all")
	if f.status("GET", "api-keys/count", old) != http.StatusUnauthorized || f.status("GET", "api-keys/count", other) != http.StatusOK {
		f.Error("another key is deactivated")
	}

	f.deactivate("Other App", other) // by somebody else, meanwhile
	p.click("button", "Deactivate Other App")
	p.click("button", "Deactivate")
	p.sees("The key is already inactive.")
	p.refused("409 " + keysCall + "/" + p.row("Other App").ID)
	p.awaitState("Other App", "Inactive")
	p.absent("checkbox", forceLabel)
	p.click("button", "Cancel")
}

const forceLabel = "Deactivate it all the same. This page then needs another key."

func theOwnKeyNeedsAnExtraStep(f *fixture) {
	own := f.issue("Own", func(spec *v1alpha1.APIKeySpec) { spec.WriteAccess = true })
	p := f.enter(own)
	call := keysCall + "/" + p.row("Own").ID
	p.click("button", "Deactivate Own")
	p.click("button", "Deactivate")
	p.sees("This is the key that the call is made with")
	p.refused("409 " + call)
	p.find("checkbox", forceLabel)
	p.click("button", "Deactivate") // without the extra step
	if f.status("GET", "api-keys/count", own) != http.StatusOK {
		f.Error("the own key is deactivated without the extra step")
	}
	p.click("checkbox", forceLabel)
	p.click("button", "Deactivate")
	p.sees("The key of this page was refused: " + keyRequired)
	p.refused("401 " + keysCall)
}

func allCanBeDoneWithTheKeyboard(f *fixture) {
	f.issue("Old App")
	p := open(f, f.url)
	p.tabTo("textbox", "API key")
	p.write(f.key)
	p.press(kb.Enter)
	p.sees("in all")

	p.tabTo("button", "New key")
	p.press(kb.Enter)
	p.eventually("the first field has the focus", func() bool { return p.focused() == "textbox App name" })
	p.write("Keyboard App")
	p.tabTo("checkbox", "Read GET, HEAD, OPTIONS")
	p.press(" ")
	p.tabTo("button", "Create")
	p.press(kb.Enter) // no access at all: the browser says so, and leads there
	p.eventually("the field that is wrong has the focus", func() bool { return p.focused() == "checkbox Read GET, HEAD, OPTIONS" })
	p.press(" ")
	p.tabTo("button", "Create")
	p.press(" ")
	p.sees("The token of Keyboard App")
	p.tabTo("button", "Copy token")
	p.press(kb.Enter)
	p.sees("Copied.")
	p.tabTo("button", "Done")
	p.press(kb.Enter)
	p.row("Keyboard App")
	p.eventually("the focus is where it was", func() bool { return p.focused() == "button New key" })

	p.tabTo("searchbox", search)
	p.write("old")
	p.eventually("the search is done", func() bool { return len(p.rows()) == 1 })
	p.tabTo("button", "Deactivate Old App")
	p.press(kb.Enter)
	p.eventually("the harmless button has the focus", func() bool { return p.focused() == "button Cancel" })
	p.tabTo("button", "Deactivate")
	p.press(kb.Enter)
	p.awaitState("Old App", "Inactive")
	p.tabTo("link", "Settings")
	p.press(kb.Enter)
	p.tabTo("button", "Forget")
	p.press(kb.Enter)
	p.sees("Where to find a key")
}

func namesAreTextInEveryScript(f *fixture) {
	names := []string{`<img src=x onerror=alert(1)>`, `"><script>alert(2)</script>`, "لوحة التحكم (1)", "ключ & 鍵"}
	for _, name := range names {
		f.declare(name)
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
		f.Errorf("Arabic is written %q", right)
	}

	p.click("button", "New key")
	p.fill("textbox", "App name", `<b onclick="alert(3)">`)
	p.click("button", "Create")
	p.sees(`The token of <b onclick="alert(3)">`)
	p.click("button", "Done")
	p.click("button", "Close without copying")
	p.row(`<b onclick="alert(3)">`)
	if intruders := run[int](p, `document.querySelectorAll("main img, main script, main b").length`); intruders > 0 {
		f.Errorf("%d elements were made of names", intruders)
	}
}

func keysAreSearchedSortedAndPaged(f *fixture) {
	const services = 120
	for i := range services {
		f.declare(fmt.Sprintf("Service %d", i+1), func(spec *v1alpha1.APIKeySpec) {
			spec.WriteAccess = i%2 == 0
			if i%10 == 0 {
				spec.Active = new(false)
			}
		})
	}
	f.awaitActive(1 + services - services/10)
	p := f.enter(f.key)
	p.sees("109 active, 121 in all")
	p.sees("1–50 of 121")

	p.click("button", "App name")
	p.click("button", "Next")
	p.sees("51–100 of 121")
	p.click("button", "Last")
	p.sees("101–121 of 121")
	if last := p.rows()[20].Name; last != "Service 120" {
		f.Errorf("the last by name, and number, is %q", last)
	}
	if sorted := run[string](p, `[...document.querySelectorAll("th[aria-sort]")].map(th => th.innerText + " " + th.ariaSort).join()`); sorted != "App name ascending" {
		f.Errorf("assistive technology is told that the order is %q", sorted)
	}
	p.click("button", "App name")
	p.sees("1–50 of 121")
	if first := p.rows()[0].Name; first != "Service 120" {
		f.Errorf("the first by name backwards is %q", first)
	}
	p.click("button", "Access")
	if first := p.rows()[0].Access; first != "Read" {
		f.Errorf("the first by access has %q", first)
	}
	p.click("button", "State")
	p.click("button", "State")
	if first := p.rows()[0].State; first != "Inactive" {
		f.Errorf("the first by state backwards is %q", first)
	}

	p.click("checkbox", "Active only")
	p.sees("1–50 of 109")
	p.fill("searchbox", search, "SERVICE 11")
	p.sees("1–9 of 9") // 11, 110 to 119 but for 11 and 111, which are inactive
	p.fill("searchbox", search, p.rows()[0].ID[:13])
	p.sees("1–1 of 1")
	p.fill("searchbox", search, "nothing like it")
	p.sees("No active key matches “nothing like it”.")
	p.fill("searchbox", search, "")
	p.sees("1–50 of 109")
}

func whatAnotherTabDoesWithTheAPIKeyIsDoneHere(f *fixture) {
	p := f.enter(f.key)
	other := p.another()
	other.sees("1 active, 1 in all")
	forget := func() {
		f.Helper()
		other.click("link", "Settings")
		other.click("button", "Forget")
		p.sees("The API key was forgotten in another tab.")
		p.sees("Where to find a key")
		if rows := p.rows(); len(rows) > 0 {
			f.Errorf("who has no key still sees %v", rows)
		}
	}
	forget()
	other.signIn(f.key)
	p.sees("1 active, 1 in all")

	p.click("button", "New key")
	p.fill("textbox", "App name", "Patience")
	forget()
	p.absent("dialog", "New key")
	other.signIn(f.key)
	p.find("dialog", "New key")
	p.click("button", "Create")
	p.sees("The token of Patience")
	forget() // which takes no token away that is nowhere else
	p.click("button", "Done")
	p.click("button", "Close without copying")
	p.sees("Patience is created.")
	if rows := p.rows(); len(rows) > 0 {
		f.Errorf("who has no key still sees %v", rows)
	}
}

func anyNumberOfKeysIsShown(f *fixture) {
	p := f.enter(f.key)
	run[any](p, `{
	  const payload = Array.from({ length: 200_000 }, (_, i) => ({ id: String(i), app_name: "Service " + i, read_access: true,
	    is_active: true, created_at: "2026-01-01T00:00:00Z", updated_at: "2026-01-01T00:00:00Z" }));
	  globalThis.fetch = async () => ({ ok: true, headers: new Headers(), json: async () => ({ payload }) });
	} null`)
	p.click("button", "Refresh")
	p.sees("200,000 active, 200,000 in all")
}
