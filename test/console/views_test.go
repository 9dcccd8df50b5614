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
	"sync"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
)

var screenshots = flag.String("screenshots", "", "directory for pictures of the views, such as docs/console")

// eachViewCanBeUsedByAll visits each view and examines it with axe-core.
func eachViewCanBeUsedByAll(name string, width, height int64) func(*fixture) {
	scheme := name
	if name == "narrow" {
		scheme = "light"
	}
	return func(f *fixture) {
		f.furnish()
		p := open(f, f.url)
		p.look(scheme, width, height)
		view := func(view string) {
			p.Helper()
			p.examineAccess(view)
			p.photograph(view + "-" + name)
		}

		p.sees("Where to find a key")
		view("first-run")
		p.fill("textbox", "API key", "sq_unknown")
		p.click("button", "Save")
		p.sees("This key was refused")
		p.refused("401 " + countCall)
		p.examineAccess("a refused key")
		p.signIn(f.key)
		p.awaitState("Conference demo", "Expired")
		view("keys")
		p.fill("searchbox", search, "no such thing")
		p.sees("No key matches")
		p.examineAccess("no match")
		p.fill("searchbox", search, "")

		p.click("button", "Deactivate Partner: Nordwind Logistics")
		view("deactivate")
		p.click("button", "Cancel")
		own := p.bootstrap()
		p.click("button", "Deactivate "+own.Name)
		p.click("button", "Deactivate")
		p.sees(forceLabel)
		p.refused("409 " + keysCall + "/" + own.ID)
		p.examineAccess("the own key")
		p.click("button", "Cancel")

		p.click("button", "New key")
		p.fill("textbox", "App name", "Billing export")
		p.click("button", "Create")
		p.sees("An active key has the app name")
		p.refused("409 " + keysCall)
		p.choose("Expires", "On a date …")
		p.examineAccess("a refused creation")
		p.choose("Expires", "In 90 days")
		p.fill("textbox", "App name", "Mobile app")
		p.click("button", "Cancel")
		p.click("button", "New key")
		view("create")
		p.click("button", "Create")
		p.sees("The token of Mobile app")
		p.hideToken()
		view("token")
		p.click("button", "Done")
		p.sees("The token has not been copied")
		p.examineAccess("a token not copied")
		p.click("button", "Close without copying")

		p.click("link", "Settings")
		p.sees("Kept in this browser")
		view("settings")
	}
}

// furnish declares keys such as people have.
func (f *fixture) furnish() {
	f.Helper()
	write := func(spec *v1alpha1.APIKeySpec) { spec.WriteAccess = true }
	writeOnly := func(spec *v1alpha1.APIKeySpec) { spec.ReadAccess, spec.WriteAccess = false, true }
	inactive := func(spec *v1alpha1.APIKeySpec) { spec.Active = new(false) }
	expires := func(in time.Duration) func(*v1alpha1.APIKeySpec) {
		return func(spec *v1alpha1.APIKeySpec) {
			spec.ExpiresAt = new(metav1.NewTime(time.Now().Add(in).Truncate(time.Second)))
		}
	}
	const day = 24 * time.Hour
	f.declare("Conference demo", expires(3*time.Second))
	f.declare("Admin tool", write)
	f.declare("CI pipeline", writeOnly, expires(200*day))
	f.declare("Metrics scraper")
	f.declare("Old mobile app", inactive)
	f.declare("Partner: Nordwind Logistics", write, expires(3*day+time.Hour))
	f.declare("لوحة التحكم الداخلية", write)
	f.declare("Frontend App")
	f.declare("Billing export", expires(365*day))
	f.awaitEnded("Conference demo") // before that, 8 may be those that are issued so far
	f.awaitActive(8)
}

// hideToken shows a token that is none in the place of the one that was created, for pictures.
func (p *tab) hideToken() {
	p.Helper()
	run[any](p, `for (const id of ["token-text", "token-use"]) {
	  const element = document.getElementById(id);
	  element.textContent = element.textContent.replace(/sq_[\w-]+/, "sq_KnIrtn1btDx-LXyyjI11-ypUrcJpQmCTm09muyQIeG8").replace(/http:\/\/[^/]+/, "https://keys.example.com");
	} null`)
}

// axe is the source of axe-core.
var axe = sync.OnceValues(func() (string, error) {
	content, err := os.ReadFile(filepath.Join(repository, "bin", "axe", "axe.min.js"))
	if err != nil {
		return "", fmt.Errorf("axe-core is missing (`make test-console` gets it): %w", err)
	}
	return string(content), nil
})

// examineAccess lets axe-core look for what bars people from a view.
func (p *tab) examineAccess(view string) {
	p.Helper()
	source, err := axe()
	framework.Must(p, err)
	run[any](p, source+"; null")
	for _, violation := range run[[]string](p, `axe.run().then(({ violations }) => violations.map(({ id, help, nodes }) =>
	  id + ": " + help + ": " + nodes.map(node => node.target + " " + node.failureSummary).join("; ")))`) {
		p.Errorf("%s bars people: %s", view, violation)
	}
}

// photograph takes a picture of the view, if pictures are wanted.
func (p *tab) photograph(name string) {
	p.Helper()
	if *screenshots == "" {
		return
	}
	p.eventually("no message lies over the view", func() bool { return run[string](p, `document.getElementById("toast").textContent`) == "" })
	call(p, input.DispatchMouseEvent, input.DispatchMouseEventParams{Type: input.DispatchMouseEventTypeMouseMoved}) // away from what would show that it is there
	picture, err := png.Decode(bytes.NewReader(do(p, chromedp.CaptureScreenshot())))
	framework.Must(p, err)
	var small bytes.Buffer
	framework.Must(p, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&small, fewColors(picture)))
	framework.Must(p, os.WriteFile(filepath.Join(repository, *screenshots, name+".png"), small.Bytes(), 0o644))
}

// fewColors returns a picture in 256 colors, the most frequent of those that differ: the file is a third as large, and nobody sees it.
func fewColors(picture image.Image) image.Image {
	bounds := picture.Bounds()
	count := map[color.RGBA]int{}
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			count[color.RGBAModel.Convert(picture.At(x, y)).(color.RGBA)]++
		}
	}
	few := make(color.Palette, 0, 256)
	for _, c := range slices.SortedFunc(maps.Keys(count), func(a, b color.RGBA) int { return count[b] - count[a] }) {
		if len(few) < cap(few) && !slices.ContainsFunc(few, func(f color.Color) bool { return alike(c, f.(color.RGBA)) }) {
			few = append(few, c)
		}
	}
	small := image.NewPaletted(bounds, few)
	draw.Draw(small, bounds, picture, bounds.Min, draw.Src)
	return small
}

func alike(a, b color.RGBA) bool {
	const most = 1
	near := func(a, b uint8) bool { return max(a, b)-min(a, b) <= most }
	return near(a.R, b.R) && near(a.G, b.G) && near(a.B, b.B)
}

func whatTheBrowserForbidsDoesNotHappenUnnoticed(f *fixture) {
	p := open(f, f.url)
	for what, script := range map[string]string{
		"markup made of text":     `document.querySelector("main").innerHTML = "<p>text</p>"`,
		"a script in the page":    `document.body.append(Object.assign(document.createElement("script"), {src: "data:text/javascript,globalThis.intruder=1"}))`,
		"a style in the page":     `document.querySelector("main").setAttribute("style", "color: red")`,
		"another origin":          `fetch("http://127.0.0.1:9/")`,
		"an image from elsewhere": `document.body.append(Object.assign(new Image(), {src: "http://127.0.0.1:9/pixel.png"}))`,
	} {
		run[any](p, fmt.Sprintf(`try { Promise.resolve((() => { %s })()).catch(() => {}) } catch {} null`, script))
		p.eventually("the browser tells of "+what, func() bool { return len(p.takeFaults()) > 0 })
	}
	if run[bool](p, `"intruder" in globalThis`) {
		f.Error("a script that is not the page's was run")
	}
	p.takeFaults() // what was told twice
}
