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

const (
	// timeout bounds every wait for something that must come.
	timeout = 20 * time.Second
	// poll is how often it is looked for.
	poll = 20 * time.Millisecond
)

// startBrowser starts the browser that hack/debian got, with its fonts, until ctx is done. dir is for what it writes.
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
		chromedp.ExecPath(filepath.Join(debian, "usr", "lib", "chromium", "chromium")),
		chromedp.UserDataDir(filepath.Join(dir, "profile")),
		chromedp.Env("LD_LIBRARY_PATH="+strings.Join(libraries, ":"), "FONTCONFIG_FILE="+fonts, "HOME="+dir, "TZ=UTC"),
		chromedp.Flag("disable-gpu", true),
		chromedp.Flag("disable-component-update", true),
	)
	allocated, _ := chromedp.NewExecAllocator(ctx, options...)
	running, _ := chromedp.NewContext(allocated)
	if err := chromedp.Do(running); err != nil {
		return nil, fmt.Errorf("the browser does not start (`make test-console` gets what it needs): %w", err)
	}
	return running, nil
}

// librariesIn returns where programs from the packages that hack/debian extracted find their libraries.
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

// fontsConfig makes pages look the same on every machine.
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

// tab is a browser's tab of its own, with a user before it. What no page may do, a message on the console or a request to another origin,
// for example, fails the test.
type tab struct {
	testing.TB
	ctx context.Context
	// url of the page.
	url string

	mu       sync.Mutex
	faults   []string
	refusals []string
	heap     strings.Builder
}

// open opens a page in a tab that shares nothing with other tabs.
func open(t testing.TB, url string) *tab {
	t.Helper()
	return openIn(t, url, chromedp.WithNewBrowserContext())
}

// another opens the page in another tab of the same user.
func (p *tab) another() *tab {
	p.Helper()
	return openIn(p.TB, p.url, chromedp.WithExistingBrowserContext(chromedp.FromContext(p.ctx).BrowserContextID))
}

func openIn(t testing.TB, url string, where chromedp.ContextOption) *tab {
	t.Helper()
	p := &tab{TB: t, url: url}
	var cancel context.CancelFunc
	p.ctx, cancel = chromedp.NewContext(theBrowser, where, chromedp.WithListener(p.observe))
	t.Cleanup(cancel)
	t.Cleanup(p.examine)
	framework.Must(p, chromedp.Do(p.ctx, chromedp.EmulateViewport(1280, 800)))
	call(p, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	p.visit("")
	return p
}

// visit loads the page at this place of its: "#settings", for example.
func (p *tab) visit(place string) {
	p.Helper()
	do(p, chromedp.Navigate(p.url+place))
}

// reload loads the page again, as its user does.
func (p *tab) reload() {
	p.Helper()
	do(p, chromedp.Reload())
}

// block leaves this call without an answer, until unblock.
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

// observe gathers what happens in the tab.
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
		if event.Entry.Source != log.EntrySourceNetwork { // an answer that is a refusal is none of the page's faults
			p.faults = append(p.faults, fmt.Sprintf("log: %s: %s", event.Entry.Source, event.Entry.Text))
		}
	case *network.EventRequestWillBeSent:
		if address := event.Request.URL; !strings.HasPrefix(address, p.url) && !strings.HasPrefix(address, "data:") { // its own icons
			p.faults = append(p.faults, "request to "+address)
		}
	case *network.EventResponseReceived:
		if event.Response.Status >= 400 {
			address, _, _ := strings.Cut(strings.TrimPrefix(event.Response.URL, p.url), "?")
			p.refusals = append(p.refusals, fmt.Sprintf("%d %s", event.Response.Status, address))
		}
	case *heapprofiler.EventAddHeapSnapshotChunk:
		p.heap.WriteString(event.Chunk)
	}
}

// examine fails the test for what no page may do, and for refusals that it has not told of.
func (p *tab) examine() {
	p.Helper()
	for _, fault := range p.takeFaults() {
		p.Errorf("the page: %s", fault)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, refusal := range p.refusals {
		p.Errorf("the page was refused something that nobody expected: %s", refusal)
	}
}

func (p *tab) takeFaults() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	faults := p.faults
	p.faults = nil
	return faults
}

// refused waits until the page was refused a call: "401 api/v1/api-keys". A refusal that is given n times is waited for once.
func (p *tab) refused(refusal string) {
	p.Helper()
	p.eventually("the page is answered "+refusal, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		before := len(p.refusals)
		p.refusals = slices.DeleteFunc(p.refusals, func(r string) bool { return r == refusal })
		return len(p.refusals) < before
	})
}

// tabTo presses the Tab key until the one element of this role and name has the focus, and sees to it that the focus can be seen.
func (p *tab) tabTo(role, name string) {
	p.Helper()
	const most = 30
	passed := make([]string, 0, most)
	for len(passed) < most {
		p.press(kb.Tab)
		reached := p.focused()
		if reached == role+" "+name {
			if outline := run[string](p, `getComputedStyle(document.activeElement).outlineStyle`); outline == "none" {
				p.Errorf("nobody sees that %s has the focus", reached)
			}
			return
		}
		passed = append(passed, reached)
	}
	p.Fatalf("the Tab key does not lead to %s %q, only to %q", role, name, passed)
}

// find waits until there is one element that assistive technology is told of with this role and this name.
func (p *tab) find(role, name string) cdp.BackendNodeID {
	p.Helper()
	var found []cdp.BackendNodeID
	p.eventually(fmt.Sprintf("there is one %s %q", role, name), func() bool {
		found = p.lookFor(role, name)
		return len(found) == 1
	})
	return found[0]
}

// lookFor returns the elements that assistive technology is told of with this role and this name.
func (p *tab) lookFor(role, name string) (found []cdp.BackendNodeID) {
	p.Helper()
	document := call(p, dom.GetDocument, dom.GetDocumentParams{})
	tree, err := chromedp.Call(p.ctx, accessibility.QueryAXTree, accessibility.QueryAXTreeParams{
		BackendNodeID: document.Root.BackendNodeID, Role: role, AccessibleName: name,
	})
	if err != nil {
		return nil // the document has been replaced
	}
	for _, node := range tree.Nodes {
		if !node.Ignored {
			found = append(found, node.BackendDOMNodeID)
		}
	}
	return found
}

// absent waits until there is no such element.
func (p *tab) absent(role, name string) {
	p.Helper()
	p.eventually(fmt.Sprintf("there is no %s %q", role, name), func() bool { return len(p.lookFor(role, name)) == 0 })
}

// click clicks on the one element of this role and name, once it lies still.
func (p *tab) click(role, name string) {
	p.Helper()
	var at, before dom.Quad
	p.eventually(fmt.Sprintf("the %s %q lies still", role, name), func() bool {
		before, at = at, p.locate(p.find(role, name))
		return at != nil && slices.Equal(before, at)
	})
	do(p, chromedp.MouseClickXY((at[0]+at[4])/2, (at[1]+at[5])/2))
}

// locate brings an element into view and returns its corners, or nil if it is gone.
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

// fill clicks into a field, and writes a text in the place of what is there.
func (p *tab) fill(role, name, text string) {
	p.Helper()
	p.click(role, name)
	do(p, chromedp.KeyEvent("a", chromedp.KeyModifiers(chromedp.ModifierCtrl)))
	p.press(kb.Backspace)
	p.write(text)
}

// choose chooses from a list as the keyboard does.
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

// write writes as a keyboard does, or an input method where no keyboard has the letter.
func (p *tab) write(text string) {
	p.Helper()
	call(p, input.InsertText, input.InsertTextParams{Text: text})
}

// press presses keys, one after the other.
func (p *tab) press(keys ...string) {
	p.Helper()
	for _, key := range keys {
		do(p, chromedp.KeyEvent(key))
	}
}

// sees waits until the page shows a text.
func (p *tab) sees(text string) {
	p.Helper()
	p.eventually(fmt.Sprintf("the page shows %q", text), func() bool { return strings.Contains(p.text(), text) })
}

// text is what the page shows.
func (p *tab) text() string {
	p.Helper()
	return run[string](p, `document.body.innerText`)
}

// focused says which element has the focus: "button Create".
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

// memory is all that the page's scripts hold, once what nothing refers to is gone.
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

// look makes the page look as a user has set it up: "light" or "dark", this wide and high. Nothing moves.
func (p *tab) look(scheme string, width, height int64) {
	p.Helper()
	do(p, chromedp.EmulateViewport(width, height))
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
}

// row is what a row of the table says of a key.
type row struct{ Name, Access, State, Created, Updated, Expires, ID, Action string }

// rows returns what the table shows.
func (p *tab) rows() []row {
	p.Helper()
	return run[[]row](p, `[...document.querySelectorAll("tbody tr")].map(row => Object.fromEntries(
	  ["name", "access", "state", "created", "updated", "expires", "id", "action"].map(
	    field => [field[0].toUpperCase() + field.slice(1), row.querySelector("[data-field=" + field + "]").innerText.trim()])))`)
}

func (p *tab) eventually(what string, condition func() bool) {
	p.Helper()
	deadline := time.After(timeout)
	for !condition() {
		select {
		case <-deadline:
			p.Fatalf("waited %s in vain until %s. The page shows:\n%s", timeout, what, p.text())
		case <-time.After(poll):
		}
	}
}

// call calls the browser for a tab.
func call[P, R any](p *tab, command cdp.Command[P, R], params P) R {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, timeout)
	defer cancel()
	result, err := chromedp.Call(ctx, command, params)
	framework.Must(p, err)
	return result
}

// run runs JavaScript in a page, and returns what its last expression gives.
func run[T any](p *tab, script string) T {
	p.Helper()
	return do(p, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
}

// do does something in a tab, and returns what comes of it.
func do[T any](p *tab, action chromedp.Action[T]) T {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, timeout)
	defer cancel()
	result, err := chromedp.Run(ctx, action)
	framework.Must(p, err)
	return result
}
