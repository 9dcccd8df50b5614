// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build console

package console_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/page"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// BenchmarkFiveHundredKeys measures the page with 500 keys: see [benchmarkPage].
func BenchmarkFiveHundredKeys(b *testing.B) { benchmarkPage(b, 500, "1–100 of 500", "49") }

// BenchmarkTenThousandKeys measures the page with 10 000 keys: see [benchmarkPage].
func BenchmarkTenThousandKeys(b *testing.B) { benchmarkPage(b, 10_000, "1–100 of 10,000", "999") }

// benchmarkPage measures, after a load, the time until the first rows and until all rows are painted; after a letter in the search, a click
// on a column and a click on Next, the time until the new rows are painted. 11 keys have the wanted number in their names.
func benchmarkPage(b *testing.B, keys int, firstPage, wanted string) {
	env := testenv.Shared(b)
	controller := operator.StartController(b, env.Config)
	f := newFixture(b, env)
	controller.Kill() // it would issue each key
	f.createKeys(keys - 1)
	framework.Eventually(f, "the console lists all keys", func() bool {
		_, body := f.request("GET", "api-keys/count", f.key)
		return body == fmt.Sprintf(`{"errorCode":0,"errorMessage":null,"payload":%d}`, keys)
	})
	p := f.enter(f.key)
	call(p, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: stopwatch})

	for b.Loop() {
		p.visit("")
		p.sees(firstPage)
		p.eventually("all rows are painted", func() bool { return run[bool](p, `watch.all > 0`) })
		b.ReportMetric(run[float64](p, `watch.first`), "ms/first-rows")
		b.ReportMetric(run[float64](p, `watch.all`), "ms/all-rows")
		run[any](p, `watch.slowest = 0`)
		p.click("searchbox", search)
		p.press(strings.Split("service-"+wanted, "")...)
		p.sees("1–11 of 11")
		b.ReportMetric(run[float64](p, `watch.slowest`), "ms/letter")
		p.fill("searchbox", search, "")
		p.sees(firstPage)
		run[any](p, `watch.slowest = 0`)
		p.click("button", "App name")
		p.eventually("the order has changed", func() bool { return p.rows()[0].Name != "" && run[bool](p, `watch.slowest > 0`) })
		b.ReportMetric(run[float64](p, `watch.slowest`), "ms/sort")
		run[any](p, `watch.slowest = 0`)
		p.click("button", "Next")
		p.sees("101–200 of ")
		p.eventually("the next page is painted", func() bool { return run[bool](p, `watch.slowest > 0`) })
		b.ReportMetric(run[float64](p, `watch.slowest`), "ms/page")
	}
}

// stopwatch is a script that measures times in milliseconds until a frame is painted. Those of the first row and of the whole list begin with
// the load of the page. The slowest one of an input begins with the input.
const stopwatch = `
  globalThis.watch = { first: 0, all: 0, slowest: 0 };
  const whenShown = (note) => requestAnimationFrame(() => setTimeout(() => note(performance.now())));
  new MutationObserver(() => {
    if (!document.querySelector("#rows tr")) return;
    if (!watch.first) whenShown((now) => { watch.first ||= now; });
    const loading = document.getElementById("range").textContent.includes("loading");
    if (!watch.all && !loading) whenShown((now) => { watch.all ||= now; });
  }).observe(document, { subtree: true, childList: true, characterData: true });
  for (const kind of ["input", "click"]) {
    addEventListener(kind, ({ timeStamp }) => whenShown((now) => { watch.slowest = Math.max(watch.slowest, now - timeStamp); }),
      { capture: true });
  }
`

// createKeys creates this many keys: "Service 1" and so on.
func (f *fixture) createKeys(count int) {
	f.Helper()
	numbers := make(chan int)
	var creating sync.WaitGroup
	for range 16 {
		creating.Go(func() {
			for number := range numbers {
				f.createKey(fmt.Sprintf("Service %d", number), func(spec *v1alpha1.APIKeySpec) { spec.WriteAccess = number%2 == 0 })
			}
		})
	}
	for number := range count {
		numbers <- number + 1
	}
	close(numbers)
	creating.Wait()
}
