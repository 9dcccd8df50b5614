// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build console

package console_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"

	"squirrel.dev/apikey-operator/test/framework"
)

const (
	signInPath = "/sign-in"
	signInPage = `<!doctype html><html lang="en"><title>Sign in</title><p>The sign-in page</p></html>`
	session    = "session"
	otherHost  = "http://login.example/"
)

// loginProxy is a reverse proxy that forwards only requests with its cookie, or with its Basic credentials. Its sign-in page asks for
// nothing.
type loginProxy struct {
	*httptest.Server
	// refuse responds to requests without a session.
	refuse http.HandlerFunc
	// ended is true when the session of the user has ended.
	ended atomic.Bool
	// refused counts the requests without a session.
	refused atomic.Int32
}

// startLoginProxy starts a loginProxy in front of the console.
func (f *fixture) startLoginProxy(hasSession func(*http.Request) bool, refuse http.HandlerFunc) *loginProxy {
	f.Helper()
	p := &loginProxy{refuse: refuse}
	forward := f.reverseProxy()
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == signInPath:
			p.ended.Store(false)
			http.SetCookie(w, &http.Cookie{Name: session, Value: "valid", Path: "/", HttpOnly: true})
			http.Redirect(w, r, "/", http.StatusFound)
		case r.Header.Get("Sec-Fetch-Dest") == "image": // the browser loads the icon at any time
			forward.ServeHTTP(w, r)
		case p.ended.Load() || !hasSession(r):
			p.refused.Add(1)
			p.refuse(w, r)
		default:
			forward.ServeHTTP(w, r)
		}
	}))
	f.Cleanup(p.Close)
	return p
}

// reverseProxy returns a reverse proxy for the console.
func (f *fixture) reverseProxy() http.Handler {
	f.Helper()
	target, err := url.Parse(f.url)
	framework.Must(f, err)
	return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
}

func hasCookie(r *http.Request) bool {
	cookie, err := r.Cookie(session)
	return err == nil && cookie.Value == "valid"
}

func redirectToSignIn(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, signInPath, http.StatusFound)
}

// respond returns a handler that responds to loads of a page with a redirect to the sign-in page, and to other requests as given.
func respond(status int, mediaType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Sec-Fetch-Mode") == "navigate" {
			redirectToSignIn(w, r)
			return
		}
		w.Header().Set("Content-Type", mediaType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// The sessions end while the page is open.
func proxyAsksToSignInAgain(f *fixture) {
	f.issue("Old App")
	for name, c := range map[string]struct {
		refuse http.HandlerFunc
		did    string
		status string // of the response, if it is an error
	}{
		"a redirect": {redirectToSignIn, "redirected the request, probably to its sign-in page", ""},
		"a redirect to another host": {func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Sec-Fetch-Mode") == "navigate" {
				redirectToSignIn(w, r)
				return
			}
			http.Redirect(w, r, otherHost, http.StatusFound)
		}, "redirected the request, probably to its sign-in page", ""},
		"its page":     {respond(http.StatusOK, "text/html", signInPage), "answered with a page, probably its sign-in page", ""},
		"401 and JSON": {respond(http.StatusUnauthorized, "application/json", `{}`), "answered with status 401", "401 "},
		"403 and HTML": {respond(http.StatusForbidden, "text/html", signInPage), "answered with status 403", "403 "},
		"200 and JSON": {respond(http.StatusOK, "application/json", `{"login": ""}`), "answered with a page, probably its sign-in page", ""},
	} {
		problem := "A proxy in front of the console " + c.did + ". To sign in again, reload the page."
		proxy := f.startLoginProxy(hasCookie, c.refuse)
		p := open(f, proxy.URL+"/")
		expectError := func(path string) {
			if c.status != "" {
				p.expectError(c.status + path)
			}
		}
		p.signIn(f.key)
		p.row("Old App")

		proxy.ended.Store(true)
		proxy.refused.Store(0)
		p.click("button", "Refresh")
		p.sees(problem)
		expectError(selfCall)
		for range 3 { // the page does not send a request each time: the browser could ask for Basic credentials again and again
			run[any](p, `document.dispatchEvent(new Event("visibilitychange")); null`)
		}
		p.checkAccessibility("a session that has ended")
		p.click("button", "Deactivate Old App")
		p.click("button", "Deactivate")
		p.find("button", "Reload the page") // the one in the dialog: the rest of the page is inert
		expectError(keysCall + "/" + p.row("Old App").ID)
		p.click("button", "Cancel")
		p.click("button", "Create key")
		p.fill("textbox", "App name", "Patience")
		p.click("button", "Create")
		p.find("button", "Reload the page")
		expectError(keysCall)
		p.click("button", "Cancel")
		if refused := proxy.refused.Load(); refused != 3 {
			f.Errorf("after %s, the page sent %d requests instead of 3", name, refused)
		}

		p.click("link", "Settings")
		expectError(selfCall)
		p.fill("textbox", "API key", f.key)
		p.click("button", "Save")
		p.eventually("the form shows the problem", func() bool {
			return strings.HasPrefix(run[string](p, `document.getElementById("entry-problem").innerText`), problem)
		})
		expectError(selfCall)
		p.click("link", "Keys")
		expectError(selfCall)
		p.find("button", "Reload the page")
		run[any](p, `globalThis.former = true`)
		p.click("button", "Reload the page")
		p.eventually("the page is loaded again", func() bool { return run[bool](p, `!("former" in globalThis) && document.body !== null`) })
		p.row("Old App") // with the stored key and a new session
		if text := p.text(); strings.Contains(text, "proxy") || strings.Contains(text, "Retrying") {
			f.Errorf("after %s and the next session, the page shows:\n%s", name, text)
		}
		for _, fault := range p.takeFaults() {
			if fault != "request to "+otherHost { // the browser reports redirects that it does not follow
				f.Errorf("after %s, the page: %s", name, fault)
			}
		}
	}
}

func proxyFailureIsRetried(f *fixture) {
	proxy := f.startLoginProxy(hasCookie, respond(http.StatusBadGateway, "text/html", "<h1>Bad Gateway</h1>"))
	p := open(f, proxy.URL+"/")
	p.signIn(f.key)
	proxy.ended.Store(true)
	p.click("button", "Refresh")
	p.sees("A proxy in front of the console answered with status 502. Retrying…")
	p.click("button", "Create key")
	p.fill("textbox", "App name", "Patience")
	p.click("button", "Create")
	p.sees("A proxy in front of the console answered with status 502. The key may have been created, and its token is lost: check the list " +
		"of keys.")
	p.click("button", "Cancel")
	proxy.ended.Store(false)
	p.eventually("the page does not retry any more", func() bool { return !strings.Contains(p.text(), "Retrying") })
	p.expectError("502 " + selfCall)
	p.expectError("502 " + keysCall)

	proxy = f.startLoginProxy(hasCookie, respond(http.StatusNotFound, "text/html", "<h1>Not Found</h1>"))
	p = open(f, proxy.URL+"/")
	p.signIn(f.key)
	p.sees("1 active, 1 total")
	proxy.ended.Store(true)
	p.click("button", "Refresh")
	p.sees("A proxy in front of the console answered with status 404. It must forward all requests below /.")
	p.expectError("404 " + selfCall)
}

func proxyWithBasicCredentials(f *fixture) {
	proxy := f.startLoginProxy(func(r *http.Request) bool {
		user, password, ok := r.BasicAuth()
		return ok && user == "admin" && password == "secret"
	}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="console"`)
		http.Error(w, "Sign in", http.StatusUnauthorized)
	})
	p := open(f, f.url)
	p.leaveFor(proxy.URL + "/")
	withCredentials := strings.Replace(p.url, "http://", "http://admin:secret@", 1)
	call(p, page.Navigate, page.NavigateParams{URL: withCredentials}) // as a user who signs in
	p.awaitAddress(p.url)
	p.signIn(f.key)
	p.sees("1 active, 1 total")
	for _, fault := range p.takeFaults() {
		if !strings.HasPrefix(fault, "request to ") { // the files of the page, and the icon of the former one
			f.Error(fault)
		}
	}
	p.visit("#settings") // without credentials in the address: the browser sends those that it knows
	p.sees("Stored in this browser")
	p.click("link", "Keys")
	p.sees("1 active, 1 total")
}

// leaveFor lets the tab send requests to another URL only.
func (p *tab) leaveFor(url string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.url = url
}

// prefixes returns the handler of a proxy that forwards the paths below prefixes to consoles, without the prefixes. It does not redirect a
// prefix without a slash at the end. All other paths belong to another site.
func prefixes(consoles map[string]http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for prefix, console := range consoles {
			if r.URL.Path == prefix || strings.HasPrefix(r.URL.Path, prefix+"/") {
				http.StripPrefix(prefix, console).ServeHTTP(w, r)
				return
			}
		}
		_, _ = io.WriteString(w, "Another site")
	})
}

func (f *fixture) serve(handler http.Handler) (address string) {
	f.Helper()
	server := httptest.NewServer(handler)
	f.Cleanup(server.Close)
	return server.URL + "/"
}

// navigate begins to load a path. The load may be replaced by another one.
func (p *tab) navigate(path string) {
	p.Helper()
	call(p, page.Navigate, page.NavigateParams{URL: p.url + path})
}

// awaitAddress waits until the tab has loaded the page at an address.
func (p *tab) awaitAddress(want string) {
	p.Helper()
	p.eventually("the address is "+want, func() bool {
		ctx, cancel := context.WithTimeout(p.ctx, framework.Timeout)
		defer cancel()
		address, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.readyState === "complete" ? location.href : ""`))
		return err == nil && address == want // an error if the browser replaces the document meanwhile
	})
}

func pageAddsTheSlashToItsPath(f *fixture) {
	root := f.serve(prefixes(map[string]http.Handler{"/team/keys": f.reverseProxy()}))
	p := open(f, root)
	p.navigate("team/keys?from=mail#settings")
	p.awaitAddress(root + "team/keys/?from=mail#settings")
	p.signIn(f.key)
	p.sees("1 active, 1 total")
	p.awaitAddress(root + "team/keys/?from=mail#keys")
	if styled := run[string](p, `getComputedStyle(document.body).marginTop`); styled != "0px" {
		f.Error("the page has no style")
	}

	console := f.reverseProxy()
	everywhere := f.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // at each path
		_, file, isFile := strings.Cut(r.URL.Path, "/assets/")
		r.URL.Path = "/"
		if isFile {
			r.URL.Path = "/assets/" + file
		}
		console.ServeHTTP(w, r)
	}))
	p = open(f, everywhere)
	p.navigate("/login.example")
	p.awaitAddress(everywhere + "/login.example/") // not http://login.example/
	p.sees("Where to find a key")
}

func consolesOfAHostKeepTheirKeys(f *fixture) {
	other := newFixture(f, f.Env)
	var sent atomic.Value // the API key that the other console received last
	forward := other.reverseProxy()
	root := f.serve(prefixes(map[string]http.Handler{
		"/a": f.reverseProxy(),
		"/b": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if key := r.Header.Get("X-Api-Key"); key != "" {
				sent.Store(key)
			}
			forward.ServeHTTP(w, r)
		}),
	}))
	p := open(f, root)
	p.visit("a/")
	p.signIn(f.key)
	p.visit("b/")
	p.sees("Where to find a key")
	p.signIn(other.key)
	p.visit("a/")
	p.sees("1 active, 1 total")
	p.click("link", "Settings")
	p.sees("Stored in this browser: " + f.key[:7])
	p.visit("b/")
	p.sees("1 active, 1 total")
	if got := sent.Load(); got != other.key {
		f.Errorf("the other console receives the key %v", got)
	}
	p.click("link", "Settings")
	p.click("button", "Forget")
	p.visit("a/")
	p.sees("1 active, 1 total")

	// Former versions of the page have one entry for all consoles.
	run[any](p, `localStorage.setItem("apikey_operator_api_key", localStorage.getItem("apikey_operator_api_key:/a/"));
	  localStorage.removeItem("apikey_operator_api_key:/a/"); null`)
	p.visit("b/")
	p.sees(keyRefused)
	p.expectError("401 b/" + selfCall)
	p.visit("a/")
	p.sees("1 active, 1 total")
	want := map[string]string{"apikey_operator_api_key:/a/": f.key}
	if diff := cmp.Diff(want, run[map[string]string](p, `({...localStorage})`)); diff != "" {
		f.Errorf("the stored keys differ (-want +got):\n%s", diff)
	}
}
