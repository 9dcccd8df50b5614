// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"squirrel.dev/apikey-operator/api/token"
)

const (
	demoTimeout   = 3 * time.Minute
	answerTimeout = 15 * time.Second
	answerPoll    = 50 * time.Millisecond
)

const demoManifest = `apiVersion: v1
kind: Namespace
metadata:
  name: shop
---
apiVersion: keys.squirrel.dev/v1alpha1
kind: APIKey
metadata:
  name: frontend
  namespace: shop
spec:
  appName: Frontend App
  readAccess: true
`

// demo starts everything on data that is thrown away, shows what a key does, and checks each answer.
func demo(ctx context.Context, place place) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, demoTimeout, fmt.Errorf("the demo took longer than %s", demoTimeout))
	defer cancel()
	started := time.Now()
	dir, err := os.MkdirTemp("", "apikey-operator-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := &stack{place: place, dir: dir, logDir: filepath.Join(place.home, "demo-log"), anyPorts: true}
	if err := s.start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	t := &tour{stack: s}
	if err := t.take(ctx); err != nil {
		return fmt.Errorf("%w\nThe logs are in %s", err, relative(s.logDir))
	}
	place.say("\nEverything answered as it should, in %.0f seconds. Play with it yourself: make run", time.Since(started).Seconds())
	return nil
}

// tour is a series of commands and requests that shows what an API key does.
type tour struct {
	*stack
	token        string // of the key that is declared with kubectl
	bootstrapKey string
	created      struct{ ID, Token string } // the key that is created by the REST API
}

func (t *tour) take(ctx context.Context) error {
	steps := []struct {
		title string
		do    func(context.Context) error
	}{
		{"Declare an API key that may read.", t.declare},
		{"Its token was minted once. The one-time Secret has it; the APIKey keeps only its hash.", t.readToken},
		{"A gateway asks whether a request may pass that reads. It may.", t.mayRead},
		{"The same key with a request that writes. It may not: 401.", t.mayNotWrite},
		{"Deactivate the key. That is final.", t.deactivate},
		{"The same read as before, and the answer is 401.", t.mayNotRead},
		{"Without kubectl: the console made a bootstrap key, and wrote it to a file that only its owner can read.", t.readBootstrapKey},
		{"With it, create a key by the REST API. This answer alone has the token.", t.create},
		{"The new key may read at once.", t.createdMayRead},
		{"List the keys.", t.list},
		{"Count those that are active: the new one and the bootstrap key.", t.count},
		{"Deactivate the new key.", t.deactivateCreated},
		{"Its read is answered 401.", t.createdMayNotRead},
	}
	for i, step := range steps {
		t.say("\n%d. %s\n", i+1, step.title)
		err := step.do(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

func (t *tour) declare(ctx context.Context) error {
	if _, err := t.kubectl(ctx, demoManifest, "apply", "--filename", "-"); err != nil {
		return err
	}
	if _, err := t.kubectl(ctx, "", "wait", "apikey", "frontend", "--namespace", "shop", "--for=condition=Ready"); err != nil {
		return err
	}
	_, err := t.kubectl(ctx, "", "get", "apikey", "frontend", "--namespace", "shop")
	return err
}

func (t *tour) readToken(ctx context.Context) error {
	recorded, err := t.kubectl(ctx, "", "get", "apikey", "frontend", "--namespace", "shop", "--output", "jsonpath={.status.tokens[0].hash}")
	if err != nil {
		return err
	}
	t.token, err = t.kubectl(ctx, "", "get", "secret", "frontend-token", "--namespace", "shop",
		"--output", "go-template={{.data.token | base64decode}}")
	if err != nil {
		return err
	}
	if hash := token.Hash(t.token); recorded != hash {
		return fmt.Errorf("the APIKey records the hash %s, but that of the token in the Secret is %s", recorded, hash)
	}
	return nil
}

func (t *tour) mayRead(ctx context.Context) error {
	return t.ask(ctx, "shop", http.MethodGet, t.token, expectation{status: http.StatusOK, header: map[string]string{
		"X-Auth-App": "Frontend%20App", "X-Auth-Namespace": "shop", "X-Auth-Access": "read",
	}})
}

func (t *tour) mayNotWrite(ctx context.Context) error {
	return t.ask(ctx, "shop", http.MethodPost, t.token,
		expectation{status: http.StatusUnauthorized, message: "API key does not have write access"})
}

func (t *tour) deactivate(ctx context.Context) error {
	_, err := t.kubectl(ctx, "", "patch", "apikey", "frontend", "--namespace", "shop", "--type=merge",
		"--patch", `{"spec": {"active": false}}`)
	return err
}

func (t *tour) mayNotRead(ctx context.Context) error {
	return t.ask(ctx, "shop", http.MethodGet, t.token, expectation{status: http.StatusUnauthorized})
}

func (t *tour) readBootstrapKey(context.Context) error {
	info, err := os.Stat(t.apiKeyFile)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(t.apiKeyFile)
	if err != nil {
		return err
	}
	t.bootstrapKey = strings.TrimSpace(string(content))
	t.say("  %s %s\n  %s", info.Mode(), t.apiKeyFile, masked(t.bootstrapKey))
	return nil
}

func (t *tour) create(ctx context.Context) error {
	answer, err := t.manage(ctx, http.MethodPost, "", `{"app_name": "Partner Portal", "read_access": true, "write_access": false}`,
		expectation{status: http.StatusOK, message: `"app_name":"Partner Portal"`})
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(answer), &struct{ Payload any }{&t.created})
}

func (t *tour) createdMayRead(ctx context.Context) error {
	return t.ask(ctx, consoleNamespace, http.MethodGet, t.created.Token, expectation{status: http.StatusOK, header: map[string]string{
		"X-Auth-App": "Partner%20Portal", "X-Auth-Namespace": consoleNamespace, "X-Auth-Key-Id": t.created.ID, "X-Auth-Access": "read",
	}})
}

func (t *tour) list(ctx context.Context) error {
	answer, err := t.manage(ctx, http.MethodGet, "", "", expectation{status: http.StatusOK, message: t.created.ID})
	if err == nil && strings.Contains(answer, t.created.Token) {
		return errors.New("the list shows the token")
	}
	return err
}

func (t *tour) count(ctx context.Context) error {
	_, err := t.manage(ctx, http.MethodGet, "/count?active_only=true", "", expectation{status: http.StatusOK, message: `"payload":2`})
	return err
}

func (t *tour) deactivateCreated(ctx context.Context) error {
	_, err := t.manage(ctx, http.MethodDelete, "/"+t.created.ID, "", expectation{status: http.StatusOK, message: `"is_active":false`})
	return err
}

func (t *tour) createdMayNotRead(ctx context.Context) error {
	return t.ask(ctx, consoleNamespace, http.MethodGet, t.created.Token, expectation{status: http.StatusUnauthorized})
}

// kubectl shows a command and what it prints, and returns that. Of a token it shows only the first characters.
func (t *tour) kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	words := make([]string, 0, len(args))
	for _, arg := range args {
		words = append(words, shellQuote(arg))
	}
	if stdin != "" {
		words = append(words, "<<END\n"+stdin+"END")
	}
	t.say("%s", indent("$ kubectl "+strings.Join(words, " ")))
	output, err := t.plane.Kubectl(ctx, stdin, args...)
	t.say("%s", indent(maskTokens(output)))
	return output, err
}

// expectation is what an answer has to be.
type expectation struct {
	status  int
	header  map[string]string
	message string // in the body; empty expects nothing of it
}

// ask asks the authenticator as a gateway would, about a request of this method, until the answer is as expected: the authenticator
// hears of a change a few milliseconds after whoever made it has it acknowledged. It shows the last answer.
func (t *tour) ask(ctx context.Context, namespace, method, key string, want expectation) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	question := call{
		method: http.MethodGet, url: t.authURL + "/auth/forward/" + namespace, key: key,
		header: map[string]string{"X-Forwarded-Method": method},
	}
	for {
		answer, err := question.make(ctx)
		if err != nil {
			return err
		}
		difference := want.differenceFrom(answer)
		if difference == nil || waitFor(ctx, answerPoll) != nil {
			t.show(question, answer)
			return difference
		}
	}
}

// manage makes a call of the console's REST API with the bootstrap key, and returns the body of the answer.
func (t *tour) manage(ctx context.Context, method, path, body string, want expectation) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	c := call{method: method, url: t.consoleURL + "/api/v1/api-keys" + path, key: t.bootstrapKey, body: body}
	if body != "" {
		c.header = map[string]string{"Content-Type": "application/json"}
	}
	answer, err := c.make(ctx)
	if err != nil {
		return "", err
	}
	t.show(c, answer)
	return answer.body, want.differenceFrom(answer)
}

func (t *tour) show(c call, a *answer) {
	t.say("%s\n\n%s", indent(c.String()), indent(maskTokens(a.String())))
}

// call is a request with an API key.
type call struct {
	method, url, key string
	header           map[string]string // besides the key
	body             string
}

// make makes the call and reads the answer.
func (c call) make(ctx context.Context) (*answer, error) {
	request, err := http.NewRequestWithContext(ctx, c.method, c.url, strings.NewReader(c.body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("X-API-Key", c.key)
	for name, value := range c.header {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return &answer{Response: response, body: strings.TrimSuffix(string(body), "\n")}, err
}

// String shows the call without the key.
func (c call) String() string {
	lines := []string{c.method + " " + c.url, "X-API-Key: " + masked(c.key)}
	for _, name := range slices.Sorted(maps.Keys(c.header)) {
		lines = append(lines, name+": "+c.header[name])
	}
	if c.body != "" {
		lines = append(lines, c.body)
	}
	return strings.Join(lines, "\n")
}

func (e expectation) differenceFrom(got *answer) error {
	if got.StatusCode != e.status {
		return fmt.Errorf("the answer was %s, and %d was expected", got.Status, e.status)
	}
	for name, value := range e.header {
		if got.Header.Get(name) != value {
			return fmt.Errorf("the answer's header %s was %q, and %q was expected", name, got.Header.Get(name), value)
		}
	}
	if !strings.Contains(got.body, e.message) {
		return fmt.Errorf("the answer was %s, and %q was expected in it", got.body, e.message)
	}
	return nil
}

// answer is a response whose body was read.
type answer struct {
	*http.Response
	body string
}

// String shows what matters of an answer: its status, whose key it was about, and its body.
func (a *answer) String() string {
	lines := []string{a.Proto + " " + a.Status}
	for _, name := range slices.Sorted(maps.Keys(a.Header)) {
		if strings.HasPrefix(name, "X-Auth-") || name == "Www-Authenticate" {
			lines = append(lines, name+": "+a.Header.Get(name))
		}
	}
	if a.body != "" {
		lines = append(lines, a.body)
	}
	return strings.Join(lines, "\n")
}

func waitFor(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var mintedToken = regexp.MustCompile(token.Prefix + `[\w-]{43}`)

// maskTokens leaves of each token in a text only its hint.
func maskTokens(text string) string { return mintedToken.ReplaceAllStringFunc(text, masked) }

func masked(key string) string { return token.Hint(key) + "..." }

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n  ")
}
