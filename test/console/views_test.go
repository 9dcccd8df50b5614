// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build console

package console_test

import (
	"bytes"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
)

var screenshots = flag.String("screenshots", "", "directory for screenshots of the views, such as docs/console")

// viewsAreAccessible opens each view and checks it with axe-core.
func viewsAreAccessible(name string, width, height int64) func(*fixture) {
	scheme := name
	if name != "dark" {
		scheme = "light"
	}
	return func(f *fixture) {
		f.createSampleKeys()
		p := open(f, f.url)
		p.emulate(scheme, width, height)
		check := func(view string) {
			p.Helper()
			p.checkAccessibility(view)
			p.checkReflow(view)
		}
		view := func(view string) {
			p.Helper()
			check(view)
			if name != "narrowest" {
				p.screenshot(view+"-"+name, f.Namespace)
			}
		}

		p.sees("Where to find a key")
		view("first-run")
		p.fill("textbox", "API key", "sq_unknown")
		p.click("button", "Save")
		p.sees("The console does not accept this key")
		p.expectError("401 " + selfCall)
		check("a refused key")
		p.signIn(f.key)
		p.awaitState("Conference demo", "Expired")
		p.sees("8 active, 1 waiting or blocked, 11 total")
		view("keys")
		p.fill("searchbox", search, "no such thing")
		p.sees("No keys match")
		check("no match")
		p.fill("searchbox", search, "")

		p.click("button", "Keyboard shortcuts")
		view("shortcuts")
		p.click("button", "Close")
		p.click("link", "Partner: Nordwind Logistics")
		p.sees("Authenticators accept this key.")
		view("detail")
		p.click("button", "Edit")
		view("edit")
		p.click("button", "Cancel")
		p.click("link", "All keys")
		p.fill("searchbox", search, "appnameconflict")
		p.lists("Frontend App")
		p.click("link", "Frontend App")
		p.sees("Another key has this app name, and authenticators refuse this key.")
		view("detail-waiting")
		p.click("link", "All keys")
		p.click("button", "Clear")

		p.click("button", "Deactivate Partner: Nordwind Logistics")
		view("deactivate")
		p.click("button", "Cancel")
		own := p.bootstrap()
		p.click("button", "Deactivate "+own.Name)
		p.sees(forceLabel)
		check("the own key")
		p.click("button", "Cancel")

		p.click("button", "Rotate the token of CI pipeline")
		view("rotate")
		p.choose(acceptFormer, "not at all: it has leaked")
		p.click("button", "Rotate")
		p.sees("The former token is no longer accepted.")
		p.hideToken()
		check("the new token of a key")
		p.click("button", "Close")
		p.click("button", "Close without copying")

		p.click("button", "Create key")
		p.fill("textbox", "App name", "Billing export")
		p.click("button", "Create")
		p.sees("An active key has the app name")
		p.expectError("409 " + keysCall)
		p.choose("Expires", "On a date…")
		check("a refused creation")
		p.choose("Expires", "In 90 days")
		p.fill("textbox", "App name", "Mobile app")
		p.click("button", "Cancel")
		p.click("button", "Create key")
		view("create")
		p.click("button", "Create")
		p.sees("Token of Mobile app")
		p.hideToken()
		view("token")
		p.click("button", "Close")
		p.sees("The token has not been copied")
		check("a token not copied")
		p.click("button", "Close without copying")

		p.click("link", "Settings")
		p.sees("Stored in this browser")
		view("settings")
	}
}

// createSampleKeys creates keys for the screenshots.
func (f *fixture) createSampleKeys() {
	f.Helper()
	writeOnly := func(spec *v1alpha1.APIKeySpec) { spec.ReadAccess, spec.WriteAccess = false, true }
	inactive := func(spec *v1alpha1.APIKeySpec) { spec.Active = new(false) }
	f.createKey("Conference demo", expires(3*time.Second))
	f.createKey("Admin tool", writes)
	f.createKey("CI pipeline", writeOnly, expires(200*day))
	f.createKey("Metrics scraper")
	f.createKey("Old mobile app", inactive)
	f.createKey("Partner: Nordwind Logistics", writes, expires(3*day+time.Hour))
	f.createKey("لوحة التحكم الداخلية", writes)
	f.createKey("Frontend App")
	f.createKey("Billing export", expires(365*day))
	f.awaitEnded("Conference demo") // otherwise 8 keys may be active while others are not issued yet
	f.awaitActive(8)
	f.record("Admin tool", used(40*day, 2*time.Hour))
	f.record("CI pipeline", used(165*day, 26*time.Hour))
	f.record("Metrics scraper", used(300*day, 20*time.Minute))
	f.record("Partner: Nordwind Logistics", used(87*day, 6*time.Hour))
	f.record("لوحة التحكم الداخلية", used(200*day, 130*day))
	f.record("Frontend App", used(12*day, 40*time.Minute))
	f.awaitUsed(6)
	f.mint("frontend-app-second", "Frontend App", writes)
	framework.Eventually(f, "the second key waits for its app name", func() bool {
		_, body := f.request("GET", "api-keys", f.key)
		return strings.Contains(body, v1alpha1.ReasonAppNameConflict)
	})
}

// hideToken replaces the token on the page with an invalid one, for the screenshots.
func (p *tab) hideToken() {
	p.Helper()
	run[any](p, `for (const id of ["token-text", "token-env"]) {
	  const element = document.getElementById(id);
	  element.textContent = element.textContent.replace(/sq_[\w-]+/, "sq_KnIrtn1btDx-LXyyjI11-ypUrcJpQmCTm09muyQIeG8");
	} null`)
}

// axe is the source of axe-core.
var axe = sync.OnceValues(func() (string, error) {
	content, err := os.ReadFile(filepath.Join(repository, "bin", "axe", "axe.min.js"))
	if err != nil {
		return "", fmt.Errorf("axe-core is missing (`make test-console` downloads it): %w", err)
	}
	return string(content), nil
})

// checkAccessibility checks a view with axe-core.
func (p *tab) checkAccessibility(view string) {
	p.Helper()
	source, err := axe()
	framework.Must(p, err)
	run[any](p, source+"; null")
	run[any](p, `Promise.allSettled(document.getAnimations().map(({ finished }) => finished)).then(() => null)`) // a dialog fades in
	for _, violation := range run[[]string](p, `axe.run().then(({ violations }) => violations.map(({ id, help, nodes }) =>
	  id + ": " + help + ": " + nodes.map(node => node.target + " " + node.failureSummary).join("; ")))`) {
		p.Errorf("%s is not accessible: %s", view, violation)
	}
}

// checkReflow checks that users need not scroll a view horizontally (WCAG 1.4.10).
func (p *tab) checkReflow(view string) {
	p.Helper()
	for _, wide := range run[[]string](p, `[document.documentElement, ...document.querySelectorAll("dialog[open], dialog[open] *")]
	  .filter(e => e.scrollWidth > e.clientWidth && getComputedStyle(e).overflowX !== "hidden" && e.clientWidth > 1)
	  .map(e => e.tagName + " " + e.id)`) {
		p.Errorf("%s is too wide: %s", view, wide)
	}
}

// screenshot saves a screenshot of the view, if the flag is set.
func (p *tab) screenshot(name, namespace string) {
	p.Helper()
	if *screenshots == "" {
		return
	}
	p.hideTestNames(namespace)
	p.eventually("no message covers the view", func() bool { return run[string](p, `document.getElementById("toast").textContent`) == "" })
	call(p, input.DispatchMouseEvent, input.DispatchMouseEventParams{Type: input.DispatchMouseEventTypeMouseMoved}) // away from elements with a hover style
	picture, err := png.Decode(bytes.NewReader(do(p, chromedp.CaptureScreenshot())))
	framework.Must(p, err)
	var small bytes.Buffer
	framework.Must(p, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&small, quantize(picture)))
	framework.Must(p, os.WriteFile(filepath.Join(repository, *screenshots, name+".png"), small.Bytes(), 0o644))
}

// hideTestNames replaces the names of the test on the page with those of a shop.
func (p *tab) hideTestNames(namespace string) {
	p.Helper()
	run[any](p, fmt.Sprintf(`{
	  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	  while (texts.nextNode()) {
	    const text = texts.currentNode;
	    if (text.data.includes("test-")) text.data = text.data.replaceAll(%q, "shop").replaceAll("test-", "");
	  }
	} null`, namespace))
}

// quantize returns a picture in its 256 most frequent colors, which makes the file a third as large without a visible difference.
func quantize(picture image.Image) image.Image {
	bounds := picture.Bounds()
	count := map[color.RGBA]int{}
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			count[color.RGBAModel.Convert(picture.At(x, y)).(color.RGBA)]++
		}
	}
	palette := make(color.Palette, 0, 256)
	for _, c := range slices.SortedFunc(maps.Keys(count), func(a, b color.RGBA) int { return count[b] - count[a] }) {
		if len(palette) < cap(palette) && !slices.ContainsFunc(palette, func(p color.Color) bool { return isSimilar(c, p.(color.RGBA)) }) {
			palette = append(palette, c)
		}
	}
	small := image.NewPaletted(bounds, palette)
	draw.Draw(small, bounds, picture, bounds.Min, draw.Src)
	return small
}

func isSimilar(a, b color.RGBA) bool {
	const tolerance = 1
	near := func(a, b uint8) bool { return max(a, b)-min(a, b) <= tolerance }
	return near(a.R, b.R) && near(a.G, b.G) && near(a.B, b.B)
}

func contentSecurityPolicyIsEnforced(f *fixture) {
	p := open(f, f.url)
	for what, script := range map[string]string{
		"markup from text":             `document.querySelector("main").innerHTML = "<p>text</p>"`,
		"an inline script":             `document.body.append(Object.assign(document.createElement("script"), {src: "data:text/javascript,globalThis.intruder=1"}))`,
		"an inline style":              `document.querySelector("main").setAttribute("style", "color: red")`,
		"another origin":               `fetch("http://127.0.0.1:9/")`,
		"an image from another origin": `document.body.append(Object.assign(new Image(), {src: "http://127.0.0.1:9/pixel.png"}))`,
	} {
		run[any](p, fmt.Sprintf(`try { Promise.resolve((() => { %s })()).catch(() => {}) } catch {} null`, script))
		p.eventually("the browser reports "+what, func() bool { return len(p.takeFaults()) > 0 })
	}
	if run[bool](p, `"intruder" in globalThis`) {
		f.Error("the browser ran a script of another origin")
	}
	p.takeFaults() // repeated reports
}
