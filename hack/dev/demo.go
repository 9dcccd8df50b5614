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
	demoTimeout     = 3 * time.Minute
	responseTimeout = 15 * time.Second
	checkInterval   = 50 * time.Millisecond
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

// demo starts all processes with temporary data, shows the life of a key, and verifies each response.
func demo(ctx context.Context, w workspace) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, demoTimeout, fmt.Errorf("the demo took longer than %s", demoTimeout))
	defer cancel()
	started := time.Now()
	dir, err := os.MkdirTemp("", "apikey-operator-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := &stack{workspace: w, dir: dir, logDir: filepath.Join(w.home, "demo-log"), anyPorts: true}
	if err := s.start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	t := &tour{stack: s}
	if err := t.run(ctx); err != nil {
		return fmt.Errorf("%w\nThe logs are in %s", err, relative(s.logDir))
	}
	w.printLine("\nAll responses were as expected, after %.0f seconds. To try it yourself: make run", time.Since(started).Seconds())
	return nil
}

// tour is a series of commands and requests that shows the life of a key.
type tour struct {
	*stack
	token        string // the newest one of the key that kubectl creates
	formerToken  string
	bootstrapKey string
	created      struct{ ID, Token string } // the key that the REST API creates
}

func (t *tour) run(ctx context.Context) error {
	steps := []struct {
		title string
		run   func(context.Context) error
	}{
		{"Create an API key with read access.", t.createKey},
		{"The controller has minted a token. The one-time Secret holds it; the APIKey holds only its hash.", t.readToken},
		{"A gateway checks a request that reads. It is granted.", t.checkRead},
		{"It checks a request that writes. It is denied: 401.", t.checkWrite},
		{"Rotate the token. The former one stays accepted for 5 seconds after the rotation.", t.rotate},
		{"The Secret has the new token. Gateways accept both.", t.checkBoth},
		{"After the overlap, a read with the former token is denied: 401.", t.checkFormer},
		{"Deactivate the key. That is final.", t.deactivate},
		{"The gateway checks the same read again. It is denied: 401.", t.checkReadAfterEnd},
		{"Without kubectl: the console has created a bootstrap key, in a file that only its owner can read.", t.readBootstrapKey},
		{"Create a key with the REST API. Only this response contains the token.", t.createByREST},
		{"The new key can read at once.", t.checkCreated},
		{"List the keys.", t.list},
		{"Count the active keys: the new one and the bootstrap key.", t.count},
		{"Deactivate the new key.", t.deactivateCreated},
		{"A read with it is denied: 401.", t.checkCreatedAfterEnd},
	}
	for i, step := range steps {
		t.printLine("\n%d. %s\n", i+1, step.title)
		err := step.run(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

func (t *tour) createKey(ctx context.Context) error {
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
		return fmt.Errorf("the APIKey holds the hash %s, but the token in the Secret has the hash %s", recorded, hash)
	}
	return nil
}

func (t *tour) checkRead(ctx context.Context) error { return t.checkReadWith(ctx, t.token) }

func (t *tour) checkReadWith(ctx context.Context, key string) error {
	return t.check(ctx, "shop", http.MethodGet, key, expectation{status: http.StatusOK, header: map[string]string{
		"X-Auth-App": "Frontend%20App", "X-Auth-Namespace": "shop", "X-Auth-Access": "read",
	}})
}

func (t *tour) checkWrite(ctx context.Context) error {
	return t.check(ctx, "shop", http.MethodPost, t.token,
		expectation{status: http.StatusUnauthorized, message: "API key does not have write access"})
}

// rotate requests a rotation, as kubectl apikey rotate does, and waits until the former token has an end.
func (t *tour) rotate(ctx context.Context) error {
	request := fmt.Sprintf(`{"spec": {"rotation": {"request": {"at": %q, "overlap": "5s"}}}}`, time.Now().UTC().Format(time.RFC3339))
	if _, err := t.kubectl(ctx, "", "patch", "apikey", "frontend", "--namespace", "shop", "--type=merge", "--patch", request); err != nil {
		return err
	}
	_, err := t.kubectl(ctx, "", "wait", "apikey", "frontend", "--namespace", "shop", "--for=jsonpath={.status.tokens[1].notAfter}")
	return err
}

func (t *tour) checkBoth(ctx context.Context) error {
	t.formerToken = t.token
	if err := t.checkReadWith(ctx, t.formerToken); err != nil {
		return err
	}
	if err := t.readToken(ctx); err != nil {
		return err
	}
	return t.checkRead(ctx)
}

func (t *tour) checkFormer(ctx context.Context) error {
	return t.check(ctx, "shop", http.MethodGet, t.formerToken, expectation{status: http.StatusUnauthorized})
}

func (t *tour) deactivate(ctx context.Context) error {
	_, err := t.kubectl(ctx, "", "patch", "apikey", "frontend", "--namespace", "shop", "--type=merge",
		"--patch", `{"spec": {"active": false}}`)
	return err
}

func (t *tour) checkReadAfterEnd(ctx context.Context) error {
	return t.check(ctx, "shop", http.MethodGet, t.token, expectation{status: http.StatusUnauthorized})
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
	t.printLine("  %s %s\n  %s", info.Mode(), t.apiKeyFile, masked(t.bootstrapKey))
	return nil
}

func (t *tour) createByREST(ctx context.Context) error {
	body, err := t.callREST(ctx, http.MethodPost, "", `{"app_name": "Partner Portal", "read_access": true, "write_access": false}`,
		expectation{status: http.StatusOK, message: `"app_name":"Partner Portal"`})
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(body), &struct{ Payload any }{&t.created})
}

func (t *tour) checkCreated(ctx context.Context) error {
	return t.check(ctx, consoleNamespace, http.MethodGet, t.created.Token, expectation{status: http.StatusOK, header: map[string]string{
		"X-Auth-App": "Partner%20Portal", "X-Auth-Namespace": consoleNamespace, "X-Auth-Key-Id": t.created.ID, "X-Auth-Access": "read",
	}})
}

func (t *tour) list(ctx context.Context) error {
	body, err := t.callREST(ctx, http.MethodGet, "", "", expectation{status: http.StatusOK, message: t.created.ID})
	if err == nil && strings.Contains(body, t.created.Token) {
		return errors.New("the list contains the token")
	}
	return err
}

func (t *tour) count(ctx context.Context) error {
	_, err := t.callREST(ctx, http.MethodGet, "/count?active_only=true", "", expectation{status: http.StatusOK, message: `"payload":2`})
	return err
}

func (t *tour) deactivateCreated(ctx context.Context) error {
	_, err := t.callREST(ctx, http.MethodDelete, "/"+t.created.ID, "", expectation{status: http.StatusOK, message: `"is_active":false`})
	return err
}

func (t *tour) checkCreatedAfterEnd(ctx context.Context) error {
	return t.check(ctx, consoleNamespace, http.MethodGet, t.created.Token, expectation{status: http.StatusUnauthorized})
}

// kubectl runs and prints a command, and returns its output. It prints only the first characters of tokens.
func (t *tour) kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	command := []string{"$ kubectl"}
	for _, arg := range args {
		command = append(command, shellQuote(arg))
	}
	if stdin != "" {
		command = append(command, "<<END\n"+stdin+"END")
	}
	t.printLine("%s", indent(strings.Join(command, " ")))
	output, err := t.plane.Kubectl(ctx, stdin, args...)
	t.printLine("%s", indent(maskTokens(output)))
	return output, err
}

// check sends a check of a request with this method to the authenticator, as a gateway does, and prints the last response. It repeats the
// check until the response is as expected, because the authenticator's watch receives a change some milliseconds after the change was made.
func (t *tour) check(ctx context.Context, namespace, method, key string, want expectation) error {
	ctx, cancel := context.WithTimeout(ctx, responseTimeout)
	defer cancel()
	check := apiRequest{
		method: http.MethodGet, url: t.authURL + "/auth/forward/" + namespace, key: key,
		header: map[string]string{"X-Forwarded-Method": method},
	}
	for {
		response, err := check.send(ctx)
		if err != nil {
			return err
		}
		mismatch := want.match(response)
		if mismatch == nil || sleep(ctx, checkInterval) != nil {
			t.print(check, response)
			return mismatch
		}
	}
}

// callREST sends a request to the console's REST API with the bootstrap key, and returns the body of the response.
func (t *tour) callREST(ctx context.Context, method, path, body string, want expectation) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, responseTimeout)
	defer cancel()
	request := apiRequest{method: method, url: t.consoleURL + "/api/v1/api-keys" + path, key: t.bootstrapKey, body: body}
	if body != "" {
		request.header = map[string]string{"Content-Type": "application/json"}
	}
	response, err := request.send(ctx)
	if err != nil {
		return "", err
	}
	t.print(request, response)
	return response.body, want.match(response)
}

func (t *tour) print(request apiRequest, response *apiResponse) {
	t.printLine("%s\n\n%s", indent(request.String()), indent(maskTokens(response.String())))
}

// apiRequest is a request with an API key.
type apiRequest struct {
	method, url, key string
	header           map[string]string // without the key
	body             string
}

// send sends the request and reads the response.
func (r apiRequest) send(ctx context.Context) (*apiResponse, error) {
	request, err := http.NewRequestWithContext(ctx, r.method, r.url, strings.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("X-API-Key", r.key)
	for name, value := range r.header {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return &apiResponse{Response: response, body: strings.TrimSuffix(string(body), "\n")}, err
}

// String returns the request with a masked key.
func (r apiRequest) String() string {
	lines := []string{r.method + " " + r.url, "X-API-Key: " + masked(r.key)}
	for _, name := range slices.Sorted(maps.Keys(r.header)) {
		lines = append(lines, name+": "+r.header[name])
	}
	if r.body != "" {
		lines = append(lines, r.body)
	}
	return strings.Join(lines, "\n")
}

// apiResponse is a response with its body.
type apiResponse struct {
	*http.Response
	body string
}

// String returns the status, the headers about the key, and the body.
func (r *apiResponse) String() string {
	lines := []string{r.Proto + " " + r.Status}
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		if strings.HasPrefix(name, "X-Auth-") || name == "Www-Authenticate" {
			lines = append(lines, name+": "+r.Header.Get(name))
		}
	}
	if r.body != "" {
		lines = append(lines, r.body)
	}
	return strings.Join(lines, "\n")
}

// expectation is an expected response.
type expectation struct {
	status  int
	header  map[string]string
	message string // a part of the body
}

// match returns an error if the response is not as expected.
func (e expectation) match(got *apiResponse) error {
	if got.StatusCode != e.status {
		return fmt.Errorf("the response is %s, want %d", got.Status, e.status)
	}
	for name, value := range e.header {
		if got.Header.Get(name) != value {
			return fmt.Errorf("the header %s of the response is %q, want %q", name, got.Header.Get(name), value)
		}
	}
	if !strings.Contains(got.body, e.message) {
		return fmt.Errorf("the response is %s, want %q in it", got.body, e.message)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var mintedToken = regexp.MustCompile(token.Prefix + `[\w-]{43}`)

// maskTokens replaces each token in a text by its hint.
func maskTokens(text string) string { return mintedToken.ReplaceAllStringFunc(text, masked) }

func masked(key string) string { return token.Hint(key) + "..." }

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n  ")
}
