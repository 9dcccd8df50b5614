// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build console

package console_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

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
	keyNotAccepted = "The console does not accept this key: it is not an active key of this namespace."
	keyRefused     = "The console does not accept the API key of this page: it is not an active key of this namespace. Enter another key."
	selfCall       = "api/v1/api-keys/self"
	keysCall       = "api/v1/api-keys"
	search         = "Search keys"
)

// storedKey returns the API key in the storage of the browser.
func (p *tab) storedKey() string {
	p.Helper()
	return run[string](p, `localStorage.getItem("apikey_operator_api_key:/") ?? ""`)
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
	p.sees(keyNotAccepted)
	p.expectError("401 " + selfCall)
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
	p.block(selfCall)
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

func settingsKeepAKeyForTheSession(f *fixture) {
	p := open(f, f.url)
	p.click("checkbox", "Only for this session: forget the key when I close this tab")
	p.signIn(f.key)
	if stored := p.storedKey(); stored != "" {
		f.Errorf("the browser stores the key %q after the session", stored)
	}
	p.visit("#settings")
	p.reload()
	p.sees("Stored until you close this tab: " + f.key[:7] + "…")
	other := p.another()
	other.sees("Where to find a key")

	other.signIn(f.key)
	p.reload()
	p.sees("Stored until you close this tab: ")
	other.click("link", "Settings")
	other.click("button", "Forget")
	p.sees("The API key was forgotten in another tab.")

	other.signIn(f.key)
	p.click("link", "Keys")
	p.sees("1 active, 1 total")
	p.click("link", "Settings")
	p.click("checkbox", "Only for this session: forget the key when I close this tab")
	p.signIn(f.key)
	other.sees("The API key was forgotten in another tab.")
	p.click("link", "Settings")
	p.click("button", "Forget")
	if held := run[int](p, `localStorage.length + sessionStorage.length`); held > 0 {
		f.Errorf("the browser still has %d entries", held)
	}
}

func settingsShowTheKeyOfThePage(f *fixture) {
	f.createKey("Console", writes)
	p := f.enter(f.key)
	if title := run[string](p, `document.title`); title != f.Namespace+" · API keys · apikey-operator" {
		f.Errorf("the title is %q", title)
	}
	own := p.bootstrap()
	p.click("link", "Settings")
	p.sees("Manages keys")
	if title := run[string](p, `document.title`); title != f.Namespace+" · Settings · apikey-operator" {
		f.Errorf("the title is %q", title)
	}
	want := map[string]string{
		"App name": own.Name, "Name": own.Name, "Namespace": f.Namespace, "Access": "Read + Write", "Manages keys": "Yes", "Expires": "Never",
		"Kind": "Bootstrap key, which the console created at its first start",
	}
	if diff := cmp.Diff(want, p.facts("own-key")); diff != "" {
		f.Errorf("the settings show another key (-want +got):\n%s", diff)
	}
}

// facts returns the terms and texts of a description list.
func (p *tab) facts(id string) map[string]string {
	p.Helper()
	return run[map[string]string](p, fmt.Sprintf(`Object.fromEntries([...document.querySelectorAll("#%s dt")].map(
	  term => [term.innerText, term.nextElementSibling.innerText]))`, id))
}

func pageOffersOnlyWhatItsKeyMayDo(f *fixture) {
	p := f.enter(f.issue("Reader"))
	const readOnly = "This key has no write access, so it cannot create or deactivate keys."
	p.sees(readOnly)
	p.click("button", "Create key")
	p.absent("dialog", "Create key")
	p.click("link", "Settings")
	p.eventually("the settings name the problem", func() bool { return p.facts("own-key")["Manages keys"] == "No. "+readOnly })

	writer := f.issue("Writer", func(spec *v1alpha1.APIKeySpec) { spec.ReadAccess, spec.WriteAccess = false, true })
	p.fill("textbox", "API key", writer)
	p.click("button", "Save")
	p.sees("The API key of this page has no read access, so it cannot list keys.")
	if text := p.text(); strings.Contains(text, "There are no keys yet.") {
		f.Errorf("the page knows no keys, and shows:\n%s", text)
	}
	p.click("button", "Create key")
	p.fill("textbox", "App name", "Report")
	p.click("button", "Create")
	p.sees("Token of Report")
	p.click("button", "Close")
	p.click("button", "Close without copying")

	app := f.issue("An App", writes)
	f.start(f.Env.Config, "--api-key-file=", "--managers=labelled")
	framework.Eventually(f, "it is ready", func() bool { return f.status("GET", "api-keys/count", app) == http.StatusOK })
	p = f.enter(app)
	p.sees("allow it for this one: kubectl label apikey ")

	f.setManager("An App", app, true)
	p.click("button", "Refresh")
	p.eventually("the page allows to create keys", func() bool { return !strings.Contains(p.text(), "kubectl label") })
	p.click("button", "Create key")
	f.setManager("An App", app, false)
	p.fill("textbox", "App name", "Too late")
	p.click("button", "Create")
	p.sees("allow it for this one: kubectl label apikey ")
	p.expectError("403 " + keysCall)
	p.click("button", "Cancel")
	p.click("button", "Create key")
	p.absent("dialog", "Create key")
}

func settingsOpenWhenTheKeyIsRefused(f *fixture) {
	visitor := f.issue("Visitor")
	p := f.enter(visitor)
	p.row("Visitor")
	f.deactivate("Visitor", visitor)

	p.click("button", "Refresh")
	p.sees(keyRefused)
	p.expectError("401 " + selfCall)
	p.sees("Stored in this browser: " + visitor[:7] + "…")
	if rows := p.rows(); len(rows) > 0 {
		f.Errorf("without a valid key, the page shows %v", rows)
	}
	p.signIn(f.key)
	p.awaitState("Visitor", "Deactivated")
	p.click("link", "Settings")
	p.sees("Stored in this browser")
	if text := p.text(); strings.Contains(text, "refused") {
		f.Errorf("the page still shows the error of the former key:\n%s", text)
	}
}

func createKeepsItsInputWhenTheAPIKeyIsRefused(f *fixture) {
	visitor, second := f.issue("Visitor", writes), f.issue("Second visitor", writes)
	p := f.enter(visitor)
	p.click("button", "Create key")
	p.fill("textbox", "App name", "Patience")
	p.click("checkbox", "Write all other methods")
	f.deactivate("Visitor", visitor)

	p.click("button", "Create")
	p.sees(keyRefused)
	p.expectError("401 " + keysCall)
	p.expectError("401 " + selfCall)

	p.fill("textbox", "API key", second)
	p.click("button", "Save")
	p.find("dialog", "Create key")
	f.deactivate("Second visitor", second)
	p.click("button", "Create")
	p.sees(keyRefused)
	p.expectError("401 " + keysCall)
	p.expectError("401 " + selfCall)

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
	p.allow(readClipboard)
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
		"Copy token": shown,
		"Copy line":  "FRONTEND_APP_API_KEY=" + shown,
	} {
		p.click("button", button)
		p.eventually(button+" copies", func() bool { return run[string](p, `navigator.clipboard.readText()`) == want })
	}
	p.sees("Copied.")
	f.runsWithToken(run[string](p, `document.getElementById("token-use").textContent`), shown)
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

// runsWithToken runs the command of the token dialog, and enters the token.
func (f *fixture) runsWithToken(command, issued string) {
	f.Helper()
	var sent string
	service := f.serve(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { sent = r.Method + " " + r.Header.Get("X-Api-Key") }))
	dir := f.TempDir()
	shell := exec.CommandContext(f.Context(), "bash", "-c", strings.ReplaceAll(command, "https://your-service.example/", service))
	shell.Dir, shell.Stdin = dir, strings.NewReader(issued+"\n")
	output, err := shell.CombinedOutput()
	if err != nil || strings.Contains(command, issued) {
		f.Fatalf("the command\n%s\nfails: %v\n%s", command, err, output)
	}
	if sent != "GET "+issued {
		f.Errorf("the service receives %q", sent)
	}
	info, err := os.Stat(filepath.Join(dir, "frontend-app.header"))
	framework.Must(f, err)
	if mode := info.Mode(); mode != 0o600 {
		f.Errorf("the mode of the file is %s", mode)
	}
}

func tokenDialogNamesTheApp(f *fixture) {
	f.start(f.Env.Config, "--api-key-file=", "--service-url=https://shop.example.com/v1?a=1&b=2")
	framework.Eventually(f, "it is ready", func() bool { return f.status("GET", "api-keys/count", f.key) == http.StatusOK })
	p := f.enter(f.key)
	p.click("button", "Create key")
	for appName, want := range map[string][2]string{
		"Web Shop":               {"WEB_SHOP_API_KEY", "web-shop.header"},
		"Café Zoë: menu":         {"CAFE_ZOE_MENU_API_KEY", "cafe-zoe-menu.header"},
		"Partner API key":        {"PARTNER_API_KEY", "partner-api-key.header"},
		"3D viewer":              {"APP_3D_VIEWER_API_KEY", "3d-viewer.header"},
		"لوحة التحكم":            {"API_KEY", "api-key.header"},
		"$(id); `rm -r *`":       {"ID_RM_R_API_KEY", "id-rm-r.header"},
		strings.Repeat("W", 255): {strings.Repeat("W", 60) + "_API_KEY", strings.Repeat("w", 60) + ".header"},
	} {
		p.fill("textbox", "App name", appName)
		p.click("button", "Create")
		p.sees("Token of " + appName)
		if got := run[string](p, `document.getElementById("token-env").textContent.split("=")[0]`); got != want[0] {
			f.Errorf("the variable for %s is %s, want %s", appName, got, want[0])
		}
		command := run[string](p, `document.getElementById("token-use").textContent`)
		if end := "curl --header @" + want[1] + " 'https://shop.example.com/v1?a=1&b=2'"; !strings.HasSuffix(command, end) {
			f.Errorf("the command for %s is %s, want %s", appName, command, end)
		}
		if text := p.text(); strings.Contains(text, "Replace the address") {
			f.Errorf("the dialog does not know the service:\n%s", text)
		}
		p.emulate("light", 320, 256) // as with a zoom of 400 %
		p.checkReflow("the token of " + appName)
		p.click("button", "Close")
		p.click("button", "Close without copying")
		p.click("button", "Create key")
	}
	p.click("checkbox", "Write all other methods")
	p.click("checkbox", "Read GET, HEAD, OPTIONS")
	p.fill("textbox", "App name", "Writer")
	p.click("button", "Create")
	p.sees("--request POST")
	p.click("button", "Close")
	p.click("button", "Close without copying")
}

// expiryTolerance bounds the time from the choice of an expiry in a test until the page has computed it.
const expiryTolerance = 20 * time.Second

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
	for appName, want := range map[string]time.Time{
		"A month":  now.Add(30 * day),
		"A year":   now.Add(365 * day),
		"Two days": soon,
	} {
		expires := f.spec(appName).ExpiresAt.In(zone)
		if late := expires.Sub(want).Truncate(time.Second); late < 0 || late > expiryTolerance {
			f.Errorf("%s expires at %s, want %s", appName, expires, want)
		}
		if got := p.row(appName).Expires; !strings.HasPrefix(got, expires.Format("2006-01-02 15:04")) {
			f.Errorf("%s expires at %s, and the page shows %q", appName, expires, got)
		}
	}
	if got := p.row("Two days").Marks; !slices.Equal(got, []string{"Expires in 2 days"}) {
		f.Errorf("the page marks a key that expires the day after tomorrow with %q", got)
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
	if got := p.row("Cut short").State; got != "Deactivated" {
		f.Errorf("the state of a key that was deactivated before its expiry is %s", got)
	}
}

func createKeepsTheChoiceOfExpiry(f *fixture) {
	p := f.enter(f.key)
	create := func(appName, proposed, chosen string) {
		f.Helper()
		p.click("button", "Create key")
		if got := run[string](p, `document.getElementById("expiry").selectedOptions[0].text`); got != proposed {
			f.Errorf("the proposed expiry is %q, want %q", got, proposed)
		}
		p.fill("textbox", "App name", appName)
		p.choose("Expires", chosen)
		p.click("button", "Create")
		p.sees("Token of " + appName)
		p.click("button", "Close")
		p.click("button", "Close without copying")
		p.row(appName)
	}
	create("First", "In 90 days", "In 90 days")
	create("Second", "In 90 days", "Never")
	create("Third", "Never", "Never")
	if f.spec("Third").ExpiresAt != nil {
		f.Error("a key expires in spite of the choice")
	}
	p.reload()
	p.row("Third")
	p.click("button", "Create key")
	p.sees("The key is valid until it is deactivated.")
	p.choose("Expires", "In 30 days")
	p.sees("The key is valid until " + time.Now().UTC().Add(30*24*time.Hour).Format("2006-01-02"))
	p.click("button", "Cancel")
}

// shiftClock shifts the clock of the browser for the next page.
func (p *tab) shiftClock(by time.Duration) {
	p.Helper()
	call(p, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: fmt.Sprintf(`
	  globalThis.Date = class extends Date {
	    constructor(...given) { if (given.length) super(...given); else super(new.target.now()); }
	    static now() { return super.now() + %d; }
	  };
	`, by.Milliseconds())})
}

func pageKeepsTheClockOfTheServer(f *fixture) {
	p := open(f, f.url)
	p.shiftClock(2 * day)
	p.reload()
	p.signIn(f.key)
	p.click("button", "Create key")
	p.fill("textbox", "App name", "Month")
	p.choose("Expires", "In 30 days")
	want := time.Now().Add(30 * 24 * time.Hour)
	p.sees("The key is valid until " + want.UTC().Format("2006-01-02"))
	p.click("button", "Create")
	p.sees("Token of Month")
	if expires := f.spec("Month").ExpiresAt; expires.Sub(want).Abs() > expiryTolerance {
		f.Errorf("the key expires at %s, want %s", expires, want)
	}
	p.click("button", "Close")
	p.click("button", "Close without copying")
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

	p.fill("textbox", "App name", "with\u2028a separator")
	p.click("button", "Create")
	p.sees("The app name must be 1 to 255 printable characters of any language, without leading or trailing space.")
	p.expectError("422 " + keysCall)

	f.console.Kill()
	p.click("button", "Create")
	p.sees("The console does not respond. The key may have been created, and its token is lost: check the list of keys.")
	want := map[string]any{"name": "with\u2028a separator", "read": true, "write": true}
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

func writes(spec *v1alpha1.APIKeySpec) { spec.WriteAccess = true }

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
	p.awaitState("Old App", "Deactivated")
	if action := p.row("Old App").Action; action != "" {
		f.Errorf("an inactive key has the action %q", action)
	}
	p.sees("2 active, 3 total")
	if f.status("GET", "api-keys/count", old) != http.StatusUnauthorized || f.status("GET", "api-keys/count", other) != http.StatusOK {
		f.Error("another key is deactivated")
	}

	p.click("button", "Deactivate Other App")
	p.find("dialog", "Deactivate Other App?")
	f.deactivate("Other App", other) // by another user
	p.click("button", "Deactivate")
	p.sees("This key has already ended.")
	p.expectError("409 " + keysCall + "/" + p.row("Other App").ID)
	p.awaitState("Other App", "Deactivated")
	p.click("button", "Cancel")
}

const forceLabel = "This page uses this key. Deactivate it anyway: the page then needs another key."

func deactivateKeysThatWereNeverIssued(f *fixture) {
	f.issue("Web Shop")
	f.createKey("Web Shop") // waits for the app name
	p := f.enter(f.key)
	p.eventually("the second key waits", func() bool {
		p.click("button", "Refresh")
		return slices.ContainsFunc(p.rows(), func(r row) bool { return r.State == "Waiting" })
	})
	waiting := p.findRow("the key that waits", func(r row) bool { return r.State == "Waiting" })
	holder := p.findRow("the holder", func(r row) bool { return r.Name == "Web Shop" && r.State == "Active" })

	p.openDeactivate(holder.ID)
	p.sees("Clients that use this key are refused at once. You cannot undo this. The key test-")
	p.sees(", which waits for the app name, is then issued.")
	facts := p.facts("deactivate-facts")
	if facts["ID"] != holder.ID || !strings.HasPrefix(facts["Name"], "test-") || !strings.HasPrefix(facts["Token"], "sq_") {
		f.Errorf("the dialog names another key: %v", facts)
	}
	p.click("button", "Cancel")

	p.openDeactivate(waiting.ID)
	p.sees("This key waits for its app name. It stops waiting, and is never issued. You cannot undo this.")
	p.click("button", "Deactivate")
	p.sees("Web Shop was deactivated.")
	p.eventually("the key is deactivated", func() bool {
		return p.findRow("the key", func(r row) bool { return r.ID == waiting.ID }).State == "Deactivated"
	})
	p.openDeactivate(holder.ID)
	p.sees("Another key can then use the app name.")
	f.createKey("Web Shop")
	framework.Eventually(f, "the console has seen the third key", func() bool {
		_, body := f.request("GET", "api-keys", f.key)
		return strings.Count(body, `"Web Shop"`) == 3
	})
	p.click("button", "Deactivate")
	p.sees("Web Shop was deactivated. The key test-")
	p.sees(" gets the app name.")
}

// openDeactivate opens the dialog that deactivates the key with an ID.
func (p *tab) openDeactivate(id string) {
	p.Helper()
	run[any](p, fmt.Sprintf(`document.querySelector("[data-id='%s'] [data-action=deactivate]").click()`, id))
	p.find("dialog", "Deactivate Web Shop?")
}

func deactivateTheKeyOfThePageNeedsForce(f *fixture) {
	own := f.issue("Own", writes)
	p := f.enter(own)
	p.click("button", "Deactivate Own")
	p.find("checkbox", forceLabel)
	p.click("button", "Deactivate") // the browser requires the check
	if f.status("GET", "api-keys/count", own) != http.StatusOK {
		f.Error("the key of the page is deactivated without force")
	}
	p.click("checkbox", forceLabel)
	p.click("button", "Deactivate")
	p.sees(keyRefused)
	p.expectError("401 " + selfCall)
}

func deactivateNamesTheLastUse(f *fixture) {
	for appName, change := range map[string]func([]v1alpha1.TokenRecord){
		"Recent": used(100*day, 3*time.Hour), "Old": used(200*day, 120*day), "Unused": used(120*day, 0), "New": used(3*time.Hour, 0),
	} {
		f.createKey(appName)
		f.record(appName, change)
	}
	f.createForeignSecret("blocked-token")
	f.mint("blocked", "Blocked")
	f.awaitUsed(2)
	f.awaitActive(5)
	p := f.enter(f.key)
	p.awaitState("Blocked", "Blocked")
	const note = "The last use is recorded about once a day. Requests to this console do not count."
	for appName, want := range map[string]string{
		"Recent": "Last used 3 hours ago. Clients that use this key are refused at once.",
		"Old":    "Not used in the last 90 days. Last used 4 months ago. Clients that use this key are refused at once.",
		"Unused": "Not used in the last 90 days. No use seen since the token was issued 4 months ago.",
		"New":    "No use seen since the token was issued 3 hours ago.",
	} {
		p.click("button", "Deactivate "+appName)
		p.find("dialog", "Deactivate "+appName+"?")
		p.sees(want)
		p.sees(note)
		p.click("button", "Cancel")
	}
	p.click("button", "Deactivate Blocked")
	p.sees("This key is not issued, and never will be.")
	if text := p.text(); strings.Contains(text, note) || strings.Contains(text, "No use seen since") {
		f.Errorf("the dialog of a key that is not issued names its last use:\n%s", text)
	}
	p.click("button", "Cancel")

	p.click("link", "Recent")
	p.click("button", "Deactivate")
	p.sees("Last used 3 hours ago. Clients that use this key are refused at once.")
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

	p.tabTo("button", "Rotate the token of Keyboard App")
	p.press(kb.Enter)
	p.eventually("the choice has the focus", func() bool { return p.focused() == "combobox "+acceptFormer })
	p.press(kb.ArrowDown)
	p.tabTo("button", "Rotate")
	p.press(kb.Enter)
	p.sees("Token of Keyboard App")
	p.tabTo("button", "Copy token")
	p.press(kb.Enter)
	p.sees("Copied.")
	p.tabTo("button", "Close")
	p.press(kb.Enter)
	p.eventually("the focus is on the button that opened the dialog", func() bool {
		return p.focused() == "button Rotate the token of Keyboard App"
	})

	p.tabTo("searchbox", search)
	p.write("old")
	p.eventually("the table shows one key", func() bool { return len(p.rows()) == 1 })
	p.tabTo("button", "Deactivate Old App")
	p.press(kb.Enter)
	p.eventually("the Cancel button has the focus", func() bool { return p.focused() == "button Cancel" })
	p.tabTo("button", "Deactivate")
	p.press(kb.Enter)
	p.awaitState("Old App", "Deactivated")
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
