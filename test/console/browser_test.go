// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build console

package console_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/heapprofiler"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/test/framework"
)

const pollInterval = 20 * time.Millisecond

// startBrowser starts the browser that hack/debian downloads, with its fonts, until ctx is done. The browser writes to dir.
func startBrowser(ctx context.Context, dir string) (context.Context, error) {
	root, err := controlplane.FindRepository()
	if err != nil {
		return nil, err
	}
	debian := filepath.Join(root, "bin", "debian")
	libraries, err := librariesIn(debian)
	if err != nil {
		return nil, err
	}
	fonts := filepath.Join(dir, "fonts.conf")
	if err := os.WriteFile(fonts, fmt.Appendf(nil, fontsConfig, debian, dir), 0o600); err != nil {
		return nil, err
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(filepath.Join(debian, "usr", "lib", "chromium", "chromium-headless-shell")),
		chromedp.UserDataDir(filepath.Join(dir, "profile")),
		chromedp.Env("LD_LIBRARY_PATH="+strings.Join(libraries, ":"), "FONTCONFIG_FILE="+fonts, "HOME="+dir, "TZ=UTC"),
		chromedp.Flag("disable-gpu", true),
		chromedp.Flag("disable-component-update", true),
	)
	allocated, _ := chromedp.NewExecAllocator(ctx, options...)
	running, _ := chromedp.NewContext(allocated)
	if err := chromedp.Do(running); err != nil {
		return nil, fmt.Errorf("the browser does not start (`make test-console` downloads what it needs): %w", err)
	}
	return running, nil
}

// librariesIn returns the library directories of the Debian packages that hack/debian extracts.
func librariesIn(debian string) (directories []string, err error) {
	for _, pattern := range []string{"lib/*-linux-gnu*", "usr/lib/*-linux-gnu*", "usr/lib/*-linux-gnu*/pulseaudio"} {
		found, err := filepath.Glob(filepath.Join(debian, pattern))
		if err != nil {
			return nil, err
		}
		directories = append(directories, found...)
	}
	return directories, nil
}

// fontsConfig makes screenshots the same on all machines.
const fontsConfig = `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
  <dir>%s/usr/share/fonts</dir>
  <cachedir>%s/fonts</cachedir>
  <alias><family>system-ui</family><prefer><family>Inter</family></prefer></alias>
  <alias><family>sans-serif</family><prefer><family>Inter</family><family>DejaVu Sans</family></prefer></alias>
  <alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
</fontconfig>
`

// tab is a tab of the browser. Messages on the browser console, exceptions, and requests to other origins fail the test.
type tab struct {
	testing.TB
	ctx context.Context
	// url of the page.
	url string

	mu     sync.Mutex
	faults []string
	errors []string // responses with an error status
	heap   strings.Builder
}

// open opens a page in a tab with its own storage.
func open(t testing.TB, url string) *tab {
	t.Helper()
	return openIn(t, url, chromedp.WithNewBrowserContext())
}

// another opens the page in another tab with the same storage.
func (p *tab) another() *tab {
	p.Helper()
	return openIn(p.TB, p.url, chromedp.WithExistingBrowserContext(chromedp.FromContext(p.ctx).BrowserContextID))
}

func openIn(t testing.TB, url string, where chromedp.ContextOption) *tab {
	t.Helper()
	p := &tab{TB: t, url: url}
	var cancel context.CancelFunc
	p.ctx, cancel = chromedp.NewContext(sharedBrowser, where, chromedp.WithListener(p.observe))
	t.Cleanup(cancel)
	t.Cleanup(p.assertNoFaults)
	framework.Must(p, chromedp.Do(p.ctx, chromedp.EmulateViewport(1280, 800)))
	call(p, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	p.allow(writeClipboard)
	p.visit("")
	return p
}

// Permissions of pages. A browser with a window lets a page write to the clipboard after a click; the headless shell needs the permission.
const (
	readClipboard  = "clipboard-read"
	writeClipboard = "clipboard-write"
)

// allow grants all pages with the storage of this tab a permission.
func (p *tab) allow(permission string) {
	p.Helper()
	_, err := chromedp.CallBrowser(p.ctx, browser.SetPermission, browser.SetPermissionParams{
		Permission:       &browser.PermissionDescriptor{Name: permission},
		Setting:          browser.PermissionSettingGranted,
		BrowserContextID: chromedp.FromContext(p.ctx).BrowserContextID,
	})
	framework.Must(p, err)
}

// visit loads the page with a fragment, such as "#settings".
func (p *tab) visit(fragment string) {
	p.Helper()
	do(p, chromedp.Navigate(p.url+fragment))
}

// reload reloads the page.
func (p *tab) reload() {
	p.Helper()
	do(p, chromedp.Reload())
}

// block blocks the requests to a path, until unblock.
func (p *tab) block(call string) {
	p.Helper()
	setBlocked(p, &network.BlockPattern{URLPattern: p.url + call, Block: true})
}

func (p *tab) unblock() {
	p.Helper()
	setBlocked(p)
}

func setBlocked(p *tab, patterns ...*network.BlockPattern) {
	p.Helper()
	call(p, network.SetBlockedURLs, network.SetBlockedURLsParams{URLPatterns: patterns})
}

// observe records the events of the tab.
func (p *tab) observe(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch event := event.(type) {
	case *runtime.EventConsoleAPICalled:
		for _, argument := range event.Args {
			p.faults = append(p.faults, fmt.Sprintf("console.%s: %s %s", event.Type, argument.Value, argument.Description))
		}
	case *runtime.EventExceptionThrown:
		p.faults = append(p.faults, fmt.Sprintf("exception: %+v", *event.ExceptionDetails))
	case *log.EventEntryAdded:
		if event.Entry.Source != log.EntrySourceNetwork { // error responses are recorded below
			p.faults = append(p.faults, fmt.Sprintf("log: %s: %s", event.Entry.Source, event.Entry.Text))
		}
	case *network.EventRequestWillBeSent:
		if address := event.Request.URL; !strings.HasPrefix(address, p.url) && !strings.HasPrefix(address, "data:") { // icons of form controls
			p.faults = append(p.faults, "request to "+address)
		}
	case *network.EventResponseReceived:
		if event.Response.Status >= 400 {
			address, _, _ := strings.Cut(strings.TrimPrefix(event.Response.URL, p.url), "?")
			p.errors = append(p.errors, fmt.Sprintf("%d %s", event.Response.Status, address))
		}
	case *heapprofiler.EventAddHeapSnapshotChunk:
		p.heap.WriteString(event.Chunk)
	}
}

// assertNoFaults fails the test for faults of the page, and for error responses that the test does not expect.
func (p *tab) assertNoFaults() {
	p.Helper()
	for _, fault := range p.takeFaults() {
		p.Errorf("the page: %s", fault)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, unexpected := range p.errors {
		p.Errorf("an unexpected error response: %s", unexpected)
	}
}

func (p *tab) takeFaults() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	faults := p.faults
	p.faults = nil
	return faults
}

// expectError waits for an error response, such as "401 api/v1/api-keys", one or several times.
func (p *tab) expectError(want string) {
	p.Helper()
	p.eventually("a request of the page fails with "+want, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		before := len(p.errors)
		p.errors = slices.DeleteFunc(p.errors, func(r string) bool { return r == want })
		return len(p.errors) < before
	})
}

// tabTo presses the Tab key until the element with this role and name has the focus, and checks that the focus is visible.
func (p *tab) tabTo(role, name string) {
	p.Helper()
	const most = 30
	passed := make([]string, 0, most)
	for len(passed) < most {
		p.press(kb.Tab)
		reached := p.focused()
		if reached == role+" "+name {
			if outline := run[string](p, `getComputedStyle(document.activeElement).outlineStyle`); outline == "none" {
				p.Errorf("the focus of %s is not visible", reached)
			}
			return
		}
		passed = append(passed, reached)
	}
	p.Fatalf("the Tab key does not lead to %s %q, only to %q", role, name, passed)
}

// find waits until the accessibility tree contains one element with this role and name.
func (p *tab) find(role, name string) cdp.BackendNodeID {
	p.Helper()
	var found []cdp.BackendNodeID
	p.eventually(fmt.Sprintf("the page has one %s %q", role, name), func() bool {
		found = p.query(role, name)
		return len(found) == 1
	})
	return found[0]
}

// query returns the elements of the accessibility tree with this role and name.
func (p *tab) query(role, name string) (found []cdp.BackendNodeID) {
	p.Helper()
	document := call(p, dom.GetDocument, dom.GetDocumentParams{})
	ctx, cancel := context.WithTimeout(p.ctx, time.Second) // the browser does not respond if it replaces the document meanwhile
	defer cancel()
	tree, err := chromedp.Call(ctx, accessibility.QueryAXTree, accessibility.QueryAXTreeParams{
		BackendNodeID: document.Root.BackendNodeID, Role: role, AccessibleName: name,
	})
	if err != nil {
		return nil
	}
	for _, node := range tree.Nodes {
		if !node.Ignored {
			found = append(found, node.BackendDOMNodeID)
		}
	}
	return found
}

// absent waits until the page has no such element.
func (p *tab) absent(role, name string) {
	p.Helper()
	p.eventually(fmt.Sprintf("the page has no %s %q", role, name), func() bool { return len(p.query(role, name)) == 0 })
}

// click clicks on the element with this role and name, once it does not move any more.
func (p *tab) click(role, name string) {
	p.Helper()
	var at, before dom.Quad
	p.eventually(fmt.Sprintf("the %s %q does not move", role, name), func() bool {
		before, at = at, p.locate(p.find(role, name))
		return at != nil && slices.Equal(before, at)
	})
	do(p, chromedp.MouseClickXY((at[0]+at[4])/2, (at[1]+at[5])/2))
}

// locate scrolls an element into view and returns its corners, or nil if it does not exist any more.
func (p *tab) locate(node cdp.BackendNodeID) dom.Quad {
	p.Helper()
	_, err := chromedp.Call(p.ctx, dom.ScrollIntoViewIfNeeded, dom.ScrollIntoViewIfNeededParams{BackendNodeID: node})
	if err != nil {
		return nil
	}
	corners, err := chromedp.Call(p.ctx, dom.GetContentQuads, dom.GetContentQuadsParams{BackendNodeID: node})
	if err != nil || len(corners.Quads) == 0 {
		return nil
	}
	return corners.Quads[0]
}

// fill clicks into a field and replaces its text.
func (p *tab) fill(role, name, text string) {
	p.Helper()
	p.click(role, name)
	do(p, chromedp.KeyEvent("a", chromedp.KeyModifiers(chromedp.ModifierCtrl)))
	p.press(kb.Backspace)
	p.write(text)
}

// choose selects an option of a list with the keyboard.
func (p *tab) choose(name, option string) {
	p.Helper()
	call(p, dom.Focus, dom.FocusParams{BackendNodeID: p.find("combobox", name)})
	p.press(kb.Home)
	p.eventually("the list has "+option, func() bool {
		if run[string](p, `document.activeElement.selectedOptions[0].text`) == option {
			return true
		}
		p.press(kb.ArrowDown)
		return false
	})
}

// write enters a text, as an input method does.
func (p *tab) write(text string) {
	p.Helper()
	call(p, input.InsertText, input.InsertTextParams{Text: text})
}

// press presses keys in order.
func (p *tab) press(keys ...string) {
	p.Helper()
	for _, key := range keys {
		do(p, chromedp.KeyEvent(key))
	}
}

// shortcut presses keys that are characters. The browser enters them into the field with the focus, unless the page handles them.
func (p *tab) shortcut(characters ...string) {
	p.Helper()
	for _, character := range characters {
		event := input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyDown, Key: character, Text: character}
		call(p, input.DispatchKeyEvent, event)
		event.Type, event.Text = input.DispatchKeyEventTypeKeyUp, ""
		call(p, input.DispatchKeyEvent, event)
	}
}

// sees waits until the page shows a text.
func (p *tab) sees(text string) {
	p.Helper()
	p.eventually(fmt.Sprintf("the page shows %q", text), func() bool { return strings.Contains(p.text(), text) })
}

// text returns the visible text of the page.
func (p *tab) text() string {
	p.Helper()
	return run[string](p, `document.body.innerText`)
}

// focused returns the role and name of the element with the focus, such as "button Create".
func (p *tab) focused() string {
	p.Helper()
	object := call(p, runtime.Evaluate, runtime.EvaluateParams{Expression: `document.activeElement`})
	tree := call(p, accessibility.GetPartialAXTree, accessibility.GetPartialAXTreeParams{ObjectID: object.Result.ObjectID, FetchRelatives: new(false)})
	return fmt.Sprintf("%s %s", value(tree.Nodes[0].Role), value(tree.Nodes[0].Name))
}

func value(v *accessibility.Value) (text string) {
	if v == nil || json.Unmarshal(v.Value, &text) != nil {
		return ""
	}
	return text
}

// memory returns a snapshot of the JavaScript heap after a garbage collection.
func (p *tab) memory() string {
	p.Helper()
	p.mu.Lock()
	p.heap.Reset()
	p.mu.Unlock()
	call(p, heapprofiler.TakeHeapSnapshot, heapprofiler.TakeHeapSnapshotParams{})
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.heap.String()
}

// emulate sets the color scheme, "light" or "dark", and the size of the window. It turns animations off.
func (p *tab) emulate(scheme string, width, height int64) {
	p.Helper()
	do(p, chromedp.EmulateViewport(width, height))
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
}

// row is a row of the table.
type row struct {
	// ID of the key, and Name of its app.
	ID, Name string
	// Object is the name of the APIKey.
	Object                                                       string
	Marks                                                        []string
	Problem                                                      string
	Hint, Access, State, Created, Updated, Used, Expires, Action string
}

// rows returns the rows of the table.
func (p *tab) rows() []row {
	p.Helper()
	return run[[]row](p, `[...document.querySelectorAll("tbody tr")].map(row => {
	  const text = (selector) => row.querySelector(selector).innerText.trim();
	  return {
	    ID: row.dataset.id, Name: text("a"), Object: text(".object"), Problem: text(".problem"),
	    Marks: [...row.querySelectorAll(".mark")].map(mark => mark.innerText),
	    ...Object.fromEntries(["Hint", "Access", "State", "Created", "Updated", "Used", "Expires", "Action"].map(
	      field => [field, text("[data-field=" + field.toLowerCase() + "]")])),
	  };
	})`)
}

func (p *tab) eventually(what string, condition func() bool) {
	p.Helper()
	deadline := time.After(framework.Timeout)
	for !condition() {
		select {
		case <-deadline:
			p.Fatalf("timed out after %s waiting until %s. The page shows:\n%s", framework.Timeout, what, p.text())
		case <-time.After(pollInterval):
		}
	}
}

// call sends a command to the browser.
func call[P, R any](p *tab, command cdp.Command[P, R], params P) R {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, framework.Timeout)
	defer cancel()
	result, err := chromedp.Call(ctx, command, params)
	framework.Must(p, err)
	return result
}

// run runs JavaScript in the page, and returns the value of its last expression.
func run[T any](p *tab, script string) T {
	p.Helper()
	return do(p, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
}

// do runs an action in the tab, and returns its result.
func do[T any](p *tab, action chromedp.Action[T]) T {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, framework.Timeout)
	defer cancel()
	result, err := chromedp.Run(ctx, action)
	framework.Must(p, err)
	return result
}
