// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build console

package console_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const day = 24 * time.Hour

// names returns the app names in the table.
func (p *tab) names() []string {
	p.Helper()
	names := []string{}
	for _, r := range p.rows() {
		names = append(names, r.Name)
	}
	return names
}

// lists waits until the table shows the keys of these apps, in any order.
func (p *tab) lists(appNames ...string) {
	p.Helper()
	slices.Sort(appNames)
	p.eventually(fmt.Sprintf("the table shows %q", appNames), func() bool {
		names := p.names()
		slices.Sort(names)
		return slices.Equal(names, appNames)
	})
}

// fragment waits until the URL has a fragment.
func (p *tab) fragment(want string) {
	p.Helper()
	p.eventually("the fragment of the URL is "+want, func() bool { return run[string](p, `location.hash`) == want })
}

// expires returns a change of a spec that sets the expiry.
func expires(in time.Duration) func(*v1alpha1.APIKeySpec) {
	return func(spec *v1alpha1.APIKeySpec) {
		spec.ExpiresAt = new(metav1.NewTime(time.Now().Add(in).Truncate(time.Second)))
	}
}

// expiresAtTheEndOfDay lets a key expire at the end of a day after this one. The page says the same of it at any time of this day.
func expiresAtTheEndOfDay(days int) func(*v1alpha1.APIKeySpec) {
	now := time.Now().UTC() // as in the browser
	return expires(time.Date(now.Year(), now.Month(), now.Day()+days, 23, 59, 59, 0, time.UTC).Sub(now))
}

// mint creates a key whose token the controller mints, with a name.
func (f *fixture) mint(name, appName string, change ...func(*v1alpha1.APIKeySpec)) {
	f.Helper()
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: name},
		Spec:       v1alpha1.APIKeySpec{AppName: appName, ReadAccess: true},
	}
	for _, c := range change {
		c(&key.Spec)
	}
	framework.Must(f, f.Env.Client.Create(f.Context(), key))
}

// createForeignSecret creates a Secret that belongs to no key.
func (f *fixture) createForeignSecret(name string) {
	f.Helper()
	framework.Must(f, f.Env.Client.Create(f.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: name}}))
}

func tableShowsStatesAndTheirReasons(f *fixture) {
	f.mint("holder", "Shop")
	p := f.enter(f.key)
	p.click("button", "Refresh")
	f.createForeignSecret("report-token")
	f.mint("report", "Report job")
	f.mint("second", "Shop")
	f.createKey("Old app", func(spec *v1alpha1.APIKeySpec) { spec.Active = new(false) })
	find := func(object, state string) (found row) {
		f.Helper()
		p.eventually(object+" is "+state, func() bool {
			p.click("button", "Refresh")
			rows := p.rows()
			i := slices.IndexFunc(rows, func(r row) bool { return r.Object == object && r.State == state })
			if i >= 0 {
				found = rows[i]
			}
			return i >= 0
		})
		return found
	}
	const held = `App name "Shop" is held by APIKey "holder": deactivate or delete that key, or create this one with another app name.`
	if got := find("second", "Waiting"); got.Problem != held || got.Action != "Deactivate" || got.Hint != "" {
		f.Errorf("the key that waits for its app name is shown as %+v", got)
	}
	if got := find("report", "Blocked"); !strings.Contains(got.Problem, `"report-token"`) || got.Action != "Deactivate" {
		f.Errorf("the key that waits for its Secret is shown as %+v", got)
	}
	if got := find("holder", "Active"); got.Problem != "" || !strings.HasPrefix(got.Hint, "sq_") || got.Action != "Deactivate" {
		f.Errorf("the active key is shown as %+v", got)
	}
	if got := p.row("Old app"); got.State != "Deactivated" || got.Action != "" {
		f.Errorf("the deactivated key is shown as %+v", got)
	}
	p.sees("2 active, 2 waiting or blocked, 5 total")

	p.fill("searchbox", search, "report secretconflict")
	p.lists("Report job")
	p.click("button", "Deactivate Report job")
	p.click("button", "Deactivate")
	p.lists() // its reason is another one now
	p.click("button", "Clear")
	p.awaitState("Report job", "Deactivated")
}

// For 10 s, the controller waits for the other key.
func tableShowsATokenConflictAtOnce(f *fixture) {
	imported := token.New()
	same := func(spec *v1alpha1.APIKeySpec) {
		spec.TokenHash, spec.TokenHint = token.Hash(imported), token.Hint(imported)
	}
	f.createKey("Shop", same)
	f.awaitActive(2)
	f.createKey("Report job", same)
	framework.Eventually(f, "the console has seen the conflict", func() bool {
		_, body := f.request("GET", "api-keys", f.key)
		return strings.Contains(body, v1alpha1.ReasonTokenHashConflict)
	})
	p := f.enter(f.key)
	if got := p.row("Report job"); got.State != "Blocked" || !strings.HasSuffix(got.Problem, "delete that key, or import another token.") {
		f.Errorf("the key with the token of another one is shown as %+v", got)
	}
	p.click("link", "Report job")
	p.sees("Another key has the same token, and authenticators refuse this key.")
	if text := p.text(); strings.Contains(text, "1970") {
		f.Errorf("a condition without a time has one:\n%s", text)
	}
}

// TestPendingKey_IsShownAndCanBeDeactivated runs without a controller.
func TestPendingKey_IsShownAndCanBeDeactivated(t *testing.T) {
	env := testenv.Shared(t)
	controller := operator.StartController(t, env.Config)
	f := newFixture(t, env)
	controller.Kill()
	f.mint("patience", "Patience")
	p := f.enter(f.key)
	p.awaitState("Patience", "Pending")
	got := p.row("Patience")
	if got.Problem != "Waiting for the controller." || got.Action != "Deactivate" {
		f.Errorf("the pending key is shown as %+v", got)
	}
	p.click("link", "Patience")
	p.sees("The controller has not issued this key yet, and authenticators refuse it.")
	p.press(kb.Escape)
	p.click("button", "Deactivate Patience")
	p.click("button", "Deactivate")
	p.awaitState("Patience", "Deactivated")
}

func tableMarksKeys(f *fixture) {
	issued := f.issue("Admin tool", writes)
	f.patch("Admin tool", func(key *v1alpha1.APIKey) { key.Labels = map[string]string{v1alpha1.LabelManager: "true"} })
	f.createKey("Plain")
	p := f.enter(issued)
	p.eventually("the table shows the label", func() bool {
		p.click("button", "Refresh")
		return len(p.row("Admin tool").Marks) == 2
	})
	want := map[string][]string{"Admin tool": {"This page’s key", "Manager"}, "Plain": {}, "bootstrap": {"Bootstrap key"}}
	got := map[string][]string{"Admin tool": p.row("Admin tool").Marks, "Plain": p.row("Plain").Marks, "bootstrap": p.bootstrap().Marks}
	if diff := cmp.Diff(want, got); diff != "" {
		f.Errorf("the marks differ (-want +got):\n%s", diff)
	}
}

func tableSearchesSortsAndPages(f *fixture) {
	const services = 220
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
	p.sees("199 active, 221 total")
	p.sees("1–100 of 221")

	p.click("button", "App name")
	p.click("button", "Next")
	p.sees("101–200 of 221")
	p.click("button", "Last")
	p.sees("201–221 of 221")
	if last := p.rows()[20].Name; last != "Service 220" {
		f.Errorf("the last key by name is %q", last)
	}
	if sorted := run[string](p, `[...document.querySelectorAll("th[aria-sort]")].map(th => th.innerText + " " + th.ariaSort).join()`); sorted != "App name ascending" {
		f.Errorf("the order for assistive technology is %q", sorted)
	}
	p.click("button", "App name")
	p.sees("1–100 of 221")
	if first := p.rows()[0].Name; first != "Service 220" {
		f.Errorf("the first key by descending name is %q", first)
	}
	p.click("button", "Access")
	if first := p.rows()[0].Access; first != "Read" {
		f.Errorf("the access of the first key is %q", first)
	}
	p.click("button", "State")
	p.click("button", "State")
	if first := p.rows()[0].State; first != "Deactivated" {
		f.Errorf("the state of the first key is %q", first)
	}

	p.choose("State", "Active")
	p.sees("1–100 of 199")
	p.fill("searchbox", search, "SERVICE-11 Test") // words in any order, here of the name
	p.sees("1–9 of 9")                             // 110 and 112 to 119: 11 and 111 are deactivated
	p.fill("searchbox", search, p.rows()[0].ID[:13])
	p.sees("1–1 of 1")
	p.fill("searchbox", search, p.rows()[0].ID[1:13]) // not from its start
	p.sees("No keys match")
	p.click("button", "Clear")
	p.choose("State", "Active")
	p.sees("1–100 of 199")
	p.fill("searchbox", search, p.rows()[0].Object)
	p.sees("1–1 of 1")
	p.fill("searchbox", search, "nothing like it")
	p.sees("No keys match “nothing like it” and the filters.")
	p.click("button", "Show all keys")
	p.sees("1–100 of 221")
	p.eventually("the search has the focus", func() bool { return p.focused() == "searchbox "+search })
}

func tableShowsManyKeys(f *fixture) {
	p := f.enter(f.key)
	run[any](p, `{
	  const payload = Array.from({ length: 200_000 }, (_, i) => ({ id: String(i), name: "service-" + i, app_name: "Service " + i,
	    read_access: true, state: "active", reason: "Issued", created_at: "2026-01-01T00:00:00Z", updated_at: "2026-01-01T00:00:00Z" }));
	  const { fetch } = globalThis;
	  globalThis.fetch = async (url, options) => {
	    const response = await fetch(url, options);
	    if (url.pathname.endsWith("/api-keys")) response.text = async () => JSON.stringify({ errorCode: 0, payload });
	    return response;
	  };
	} null`)
	p.click("button", "Refresh")
	p.sees("200,000 active, 200,000 total")
}

func tableFilters(f *fixture) {
	f.createKey("Reader", expires(5*day))
	f.createKey("Writer", func(spec *v1alpha1.APIKeySpec) { spec.ReadAccess, spec.WriteAccess = false, true }, expires(20*day))
	f.createKey("Both", writes, expires(200*day))
	f.createKey("Gone", expires(3*time.Second))
	f.createKey("Stopped", func(spec *v1alpha1.APIKeySpec) { spec.Active = new(false) }, expires(5*day))
	f.record("Reader", used(200*day, 100*day))
	f.record("Writer", used(100*day, 0))
	f.record("Both", used(200*day, 80*day))
	f.awaitUsed(2)
	f.awaitEnded("Gone")
	f.awaitActive(4)
	p := f.enter(f.key)
	own := p.bootstrap().Name
	for _, c := range []struct {
		filter, option, fragment string
		want                     []string
	}{
		{"State", "Active", "#keys?state=active", []string{own, "Reader", "Writer", "Both"}},
		{"State", "Expired", "#keys?state=expired", []string{"Gone"}},
		{"State", "Deactivated", "#keys?state=deactivated", []string{"Stopped"}},
		{"State", "Waiting or blocked", "#keys?state=stalled", []string{}},
		{"State", "Any state", "#keys", []string{own, "Reader", "Writer", "Both", "Gone", "Stopped"}},
		{"Access", "Can read", "#keys?access=read", []string{own, "Reader", "Both", "Gone", "Stopped"}},
		{"Access", "Can write", "#keys?access=write", []string{own, "Writer", "Both"}},
		{"Access", "Read only", "#keys?access=read-only", []string{"Reader", "Gone", "Stopped"}},
		{"Access", "Write only", "#keys?access=write-only", []string{"Writer"}},
		{"Access", "Any access", "#keys", []string{own, "Reader", "Writer", "Both", "Gone", "Stopped"}},
		{"Expiry", "Within 7 days", "#keys?expiry=7d", []string{"Reader"}},
		{"Expiry", "Within 30 days", "#keys?expiry=30d", []string{"Reader", "Writer"}},
		{"Expiry", "Never", "#keys?expiry=never", []string{own}},
		{"Expiry", "Expired", "#keys?expiry=expired", []string{"Gone"}},
		{"Expiry", "Any expiry", "#keys", []string{own, "Reader", "Writer", "Both", "Gone", "Stopped"}},
		{"Last use", "Unused for 90 days", "#keys?unused=90d", []string{"Reader", "Writer"}},
		{"Expiry", "Within 7 days", "#keys?expiry=7d&unused=90d", []string{"Reader"}},
	} {
		p.choose(c.filter, c.option)
		p.fragment(c.fragment)
		p.lists(c.want...)
	}
	p.reload()
	p.lists("Reader")
	p.click("button", "Clear")
	p.fragment("#keys")
	p.lists(own, "Reader", "Writer", "Both", "Gone", "Stopped")
}

func tableShowsTheLastUse(f *fixture) {
	at := ago(3 * time.Hour)
	for _, appName := range []string{"Recent", "Old", "Silent"} {
		f.createKey(appName)
	}
	f.record("Recent", func(tokens []v1alpha1.TokenRecord) { tokens[0].LastUsedAt = at })
	f.record("Old", used(200*day, 120*day))
	f.record("Silent", used(30*day, 0))
	f.createForeignSecret("blocked-token")
	f.mint("blocked", "Blocked")
	f.awaitUsed(2)
	p := f.enter(f.key)
	shown := map[string]string{}
	for _, appName := range []string{"Recent", "Old", "Silent", "Blocked"} {
		shown[appName] = p.row(appName).Used
	}
	want := map[string]string{"Recent": "3 hours ago", "Old": "4 months ago", "Silent": "No use seen", "Blocked": "–"}
	if diff := cmp.Diff(want, shown); diff != "" {
		f.Errorf("the last uses differ (-want +got):\n%s", diff)
	}
	p.click("button", "Last used")
	p.fragment("#keys?sort=-used")
	if tooltip := run[string](p, `document.querySelector("tbody [data-field=used] time").title`); tooltip != at.UTC().Format(time.RFC3339) {
		f.Errorf("the tooltip of the last use is %q", tooltip)
	}
	if names := p.names()[:2]; !slices.Equal(names, []string{"Recent", "Old"}) {
		f.Errorf("the keys that were used last are %q", names)
	}
	p.click("button", "Last used")
	p.fragment("#keys?sort=used")
	if names := p.names()[3:]; !slices.Equal(names, []string{"Old", "Recent"}) {
		f.Errorf("in ascending order, the last keys are %q", names)
	}
}

func tableMarksKeysThatExpireSoon(f *fixture) {
	f.createKey("Hours", expires(5*time.Hour+time.Minute))
	f.createKey("Days", expiresAtTheEndOfDay(6))
	f.createKey("Weeks", expiresAtTheEndOfDay(20))
	f.createKey("Months", expires(90*day))
	f.createKey("Stopped", expires(5*time.Hour), func(spec *v1alpha1.APIKeySpec) { spec.Active = new(false) })
	f.awaitActive(5)
	p := f.enter(f.key)
	p.awaitState("Stopped", "Deactivated")
	want := map[string][]string{
		"Hours": {"alarm", "Expires in 5 hours"}, "Days": {"warning", "Expires in 6 days"}, "Weeks": {}, "Months": {}, "Stopped": {},
	}
	got := map[string][]string{}
	for name := range want {
		got[name] = run[[]string](p, fmt.Sprintf(`[...document.querySelectorAll("[data-id='%s'] .mark")].flatMap(
		  mark => [mark.dataset.mark, mark.innerText])`, p.row(name).ID))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		f.Errorf("the marks differ (-want +got):\n%s", diff)
	}
	for name, distance := range map[string]string{"Hours": "", "Days": "", "Weeks": "in 20 days", "Months": "", "Stopped": ""} {
		if _, shown, _ := strings.Cut(p.row(name).Expires, "\n"); shown != distance {
			f.Errorf("the expiry of %s is followed by %q, want %q", name, shown, distance)
		}
	}
	p.checkAccessibility("keys that expire soon")
	p.click("link", "Hours")
	p.sees("Expires in 5 hours")
	p.checkAccessibility("a key that expires soon")
}

func tableFindsTheKeyOfAToken(f *fixture) {
	issued := f.issue("Lost and found")
	f.createKey("Other")
	p := f.enter(f.key)
	p.row("Lost and found")
	p.click("searchbox", search)
	p.write("found " + issued)
	p.sees("The search uses the start of the token only.")
	p.lists("Lost and found")
	p.fragment("#keys?q=found+" + issued[:7])
	if held := run[string](p, `document.documentElement.outerHTML + document.getElementById("search").value + location.href`); strings.Contains(held, issued) {
		f.Error("the page keeps the token")
	}
}

func tableKeepsItsSelectionInTheURL(f *fixture) {
	for i := range 120 {
		f.createKey(fmt.Sprintf("Service %d", i+1), writes)
	}
	f.createKey("Another app")
	f.awaitActive(122)
	p := f.enter(f.key)
	p.choose("Access", "Can write")
	p.click("button", "App name")
	p.fill("searchbox", search, "service")
	p.fragment("#keys?q=service&access=write&sort=name")
	p.click("button", "Next")
	p.fragment("#keys?q=service&access=write&sort=name&page=2")
	shown := func() {
		f.Helper()
		p.sees("101–120 of 120")
		if first := p.rows()[0].Name; first != "Service 101" {
			f.Errorf("the first key is %q", first)
		}
		if text := run[string](p, `document.getElementById("search").value`); text != "service" {
			f.Errorf("the search is %q", text)
		}
	}
	shown()
	p.reload()
	shown()
	p.click("link", "Service 120")
	p.sees("Handover of the token")
	p.reload()
	p.sees("Handover of the token")
	p.click("link", "All keys")
	shown()

	do(p, chromedp.NavigateBack()) // to the key
	p.sees("Handover of the token")
	do(p, chromedp.NavigateBack())
	shown()
	do(p, chromedp.NavigateBack())
	p.sees("1–100 of 120")
	do(p, chromedp.NavigateForward())
	shown()
	do(p, chromedp.NavigateBack())
	do(p, chromedp.NavigateBack()) // before the order, but after the filter
	p.fragment("#keys?access=write")
	p.sees("1–100 of 121")

	p.visit("#keys?state=none&access=constructor&expiry=__proto__&unused=1d&sort=-toString&page=-1&other=1") // as a user may have written it
	p.sees("1–100 of 122")
	p.absent("button", "Clear")
	chosen := run[[]string](p, `[...document.querySelectorAll(".tools select")].map(list => list.selectedOptions[0]?.text)`)
	if diff := cmp.Diff([]string{"Any state", "Any access", "Any expiry", "Any last use", "Created"}, chosen); diff != "" {
		f.Errorf("the lists show other options (-want +got):\n%s", diff)
	}
}

func tableIsLeftAndFoundAgain(f *fixture) {
	for i := range 60 {
		f.createKey(fmt.Sprintf("Service %d", i+1))
	}
	f.awaitActive(61)
	p := f.enter(f.key)
	p.click("button", "App name")
	p.click("link", "Service 50")
	p.sees("Handover of the token")
	if scroll := run[float64](p, `scrollY`); scroll != 0 {
		f.Errorf("the key is shown from %f px", scroll)
	}
	p.eventually("the title has the focus", func() bool { return p.focused() == "heading Service 50" })
	for how, leave := range map[string]func(){
		"with Escape":          func() { p.press(kb.Escape) },
		"with the link":        func() { p.click("link", "All keys") },
		"with the back button": func() { do(p, chromedp.NavigateBack()) },
	} {
		leave()
		p.eventually("the link has the focus after leaving "+how, func() bool { return p.focused() == "link Service 50" })
		if visible := run[bool](p, `(() => { const { top, bottom } = document.activeElement.getBoundingClientRect(); return top >= 0 && bottom <= innerHeight })()`); !visible {
			f.Errorf("the row is not visible after leaving %s", how)
		}
		p.press(kb.Enter)
		p.sees("Handover of the token")
	}
}

func tableReversesItsOrderOnANarrowScreen(f *fixture) {
	f.createKey("Aardvark")
	f.createKey("Zebra")
	f.awaitActive(3)
	p := f.enter(f.key)
	p.emulate("light", 320, 640)
	p.choose("Sort by", "App name")
	p.eventually("the first key is Aardvark", func() bool { return p.names()[0] == "Aardvark" })
	p.click("button", "Ascending: reverse the order")
	p.eventually("the first key is Zebra", func() bool { return p.names()[0] == "Zebra" })
	p.fragment("#keys?sort=-name")
	p.find("button", "Descending: reverse the order")
}

func tableRefreshesItself(f *fixture) {
	p := open(f, f.url)
	call(p, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: `{
	  const { setTimeout } = globalThis;
	  globalThis.tick = () => {}; // what the page does each 30 s
	  globalThis.setTimeout = (run, delay, ...rest) => delay === 30_000 ? (globalThis.tick = run, 0) : setTimeout(run, delay, ...rest);
	}`})
	p.reload()
	p.signIn(f.key)
	own := p.bootstrap().Name
	add := func(appName string) {
		f.Helper()
		before := f.countActive()
		f.createKey(appName)
		f.awaitActive(before + 1)
	}

	p.tabTo("link", own)
	run[any](p, `getSelection().selectAllChildren(document.activeElement); null`)
	add("First")
	run[any](p, `tick(); null`)
	p.lists(own, "First")
	if focused, selected := p.focused(), run[string](p, `getSelection().toString()`); focused != "link "+own || selected != own {
		f.Errorf("after a refresh, %q has the focus, and %q is selected", focused, selected)
	}

	p.shortcut("n")
	p.find("dialog", "Create key")
	add("Second")
	run[any](p, `tick(); document.dispatchEvent(new Event("visibilitychange")); null`)
	p.press(kb.Escape)
	p.absent("dialog", "Create key")
	p.lists(own, "First")
	run[any](p, `document.dispatchEvent(new Event("visibilitychange")); null`)
	p.lists(own, "First", "Second")

	p.click("link", "First")
	p.sees("Authenticators accept this key.")
	f.patch("First", func(key *v1alpha1.APIKey) { key.Spec.Active = new(false) })
	p.eventually("the view shows that the key ended", func() bool {
		run[any](p, `tick(); null`)
		return strings.Contains(p.text(), "This key was deactivated, and authenticators refuse it.")
	})
	p.absent("button", "Edit")
}

// countActive returns the number of active keys.
func (f *fixture) countActive() (count int) {
	f.Helper()
	_, body := f.request("GET", "api-keys/count?active_only=true", f.key)
	_, err := fmt.Sscanf(body, `{"errorCode":0,"errorMessage":null,"payload":%d}`, &count)
	framework.Must(f, err)
	return count
}

func tableIgnoresTheClockOfTheBrowser(f *fixture) {
	f.createKey("Tomorrow", expiresAtTheEndOfDay(1))
	f.createKey("Next week", expiresAtTheEndOfDay(6))
	f.awaitActive(3)
	p := open(f, f.url)
	p.shiftClock(2 * day)
	p.reload()
	p.signIn(f.key)
	tomorrow := p.row("Tomorrow")
	if tomorrow.State != "Active" || tomorrow.Action != "Deactivate" || !slices.Equal(tomorrow.Marks, []string{"Expires tomorrow"}) {
		f.Errorf("the key that expires tomorrow is shown as %+v", tomorrow)
	}
	p.choose("Expiry", "Within 7 days")
	p.lists("Tomorrow", "Next week")
	p.choose("Expiry", "Any expiry")
	p.click("button", "Deactivate Tomorrow")
	p.click("button", "Deactivate")
	p.awaitState("Tomorrow", "Deactivated")
	p.click("link", "Next week")
	p.sees("in 6 days")
	p.sees("just now")
}

func keyboardShortcuts(f *fixture) {
	f.createKey("First")
	f.createKey("Second")
	f.awaitActive(3)
	p := f.enter(f.key)
	p.click("button", "App name")
	own := p.bootstrap().Name
	focused := func(want string) {
		f.Helper()
		p.eventually(want+" has the focus", func() bool { return p.focused() == want })
	}
	// handled reports whether the page handles a key, so that the browser does not.
	handled := func(key string, shift bool) bool {
		f.Helper()
		return run[bool](p, fmt.Sprintf(`!document.activeElement.dispatchEvent(
		  new KeyboardEvent("keydown", {key: %q, shiftKey: %t, bubbles: true, cancelable: true}))`, key, shift))
	}
	run[any](p, `document.activeElement.blur(); null`)
	p.press(kb.ArrowDown)
	focused("link " + own)
	p.press(kb.ArrowDown, kb.ArrowDown, kb.ArrowDown)
	focused("link Second")
	if handled("ArrowDown", false) || handled("ArrowUp", true) {
		f.Error("the page handles arrow keys that scroll it, or select text")
	}
	p.press(kb.ArrowUp)
	focused("link First")
	p.press(kb.Enter)
	p.sees("Handover of the token")
	p.shortcut("n", "/") // not in this view
	focused("heading First")
	p.press(kb.Escape)
	focused("link First")

	p.shortcut("/")
	focused("searchbox " + search)
	p.shortcut("n", "?", "/")
	p.sees("No keys match “n?/”.")
	p.click("button", "Show all keys")
	p.tabTo("button", "Create key")
	p.shortcut("n")
	p.find("dialog", "Create key")
	p.press(kb.Escape)
	p.absent("dialog", "Create key")
	do(p, chromedp.KeyEvent("n", chromedp.KeyModifiers(chromedp.ModifierCtrl)))
	p.absent("dialog", "Create key")

	p.shortcut("?")
	p.find("dialog", "Keyboard shortcuts")
	p.shortcut("n")
	p.click("checkbox", "Use the shortcuts with a single character")
	p.click("button", "Close")
	p.shortcut("n", "?", "/")
	p.press(kb.ArrowDown)
	focused("link " + own)
	p.reload()
	p.bootstrap()
	p.shortcut("n", "?")
	p.absent("dialog", "Create key")
	p.click("button", "Keyboard shortcuts")
	p.click("checkbox", "Use the shortcuts with a single character")
	p.click("button", "Close")
	p.shortcut("n")
	p.find("dialog", "Create key")
}
