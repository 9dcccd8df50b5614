// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certutil "k8s.io/client-go/util/cert"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
)

// startProcess runs the built program as another console until the test ends. It waits until the console is ready.
func (f *fixture) startProcess(args ...string) *console {
	f.Helper()
	process := operator.Start(f, f.consoleConfig(), append([]string{
		"console", "--namespace=" + f.Namespace, "--listen-address=" + operator.AnyPort, "--health-probe-bind-address=" + operator.AnyPort,
		"--log-level=debug",
	}, args...)...)
	f.Cleanup(func() {
		if strings.Contains(process.Output(), token.Prefix) {
			f.Error("the console logs a token")
		}
	})
	framework.Eventually(f, "the console is ready", func() bool {
		response, err := http.Get("http://" + process.Address("health") + "/readyz")
		framework.Must(f, err)
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	return &console{t: f, url: "http://" + process.Address("console"), client: http.DefaultClient}
}

// startTLSProcess does the same, with TLS.
func (f *fixture) startTLSProcess(args ...string) *console {
	f.Helper()
	certificate, key, err := certutil.GenerateSelfSignedCertKey("127.0.0.1", nil, nil)
	framework.Must(f, err)
	dir := f.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	framework.Must(f, os.WriteFile(certFile, certificate, 0o600))
	framework.Must(f, os.WriteFile(keyFile, key, 0o600))
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(certificate)
	c := f.startProcess(append(args, "--tls-cert-file="+certFile, "--tls-private-key-file="+keyFile)...)
	c.url = strings.Replace(c.url, "http", "https", 1)
	c.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}, ForceAttemptHTTP2: true}}
	f.Cleanup(c.client.CloseIdleConnections)
	return c
}

func TestInvariant2_OfConcurrentCreationsThroughTwoConsolesOneSucceeds(t *testing.T) {
	const many = 50
	f := newFixture(t)
	keyFile := filepath.Join(t.TempDir(), "data", ".api_key")
	consoles := []*console{f.startProcess("--plaintext", "--api-key-file="+keyFile), f.startProcess("--plaintext", "--api-key-file="+keyFile)}
	content, err := os.ReadFile(keyFile)
	framework.Must(t, err)
	bootstrapKey := strings.TrimSpace(string(content))

	responses := make([]response, many)
	var creating sync.WaitGroup
	for i := range responses {
		creating.Go(func() { responses[i] = consoles[i%2].callUntilAvailable("POST /v1/api-keys", bootstrapKey, readOnly) })
	}
	creating.Wait()
	statuses := map[int]int{}
	for _, r := range responses {
		statuses[r.status]++
	}
	if diff := cmp.Diff(map[int]int{200: 1, 409: many - 1}, statuses); diff != "" {
		t.Fatalf("the number of responses by status (-want +got):\n%s", diff)
	}
	created := payload[apiKey](t, responses[slices.IndexFunc(responses, func(r response) bool { return r.status == http.StatusOK })])
	for _, r := range responses {
		if r.status == http.StatusConflict {
			assertNameConflict(t, r, "Frontend App", created.ID)
		}
	}
	var left []string
	for _, key := range f.keys() {
		if key.Spec.AppName == "Frontend App" {
			left = append(left, string(key.UID))
		}
	}
	if diff := cmp.Diff([]string{created.ID}, left); diff != "" {
		t.Errorf("the keys (-want +got):\n%s", diff)
	}
	for _, c := range consoles {
		framework.Eventually(f, "each console accepts the key", func() bool { return c.call("GET /v1/api-keys", created.Token).status == http.StatusOK })
	}
}

// assertNameConflict checks that a response says that another key has the app name: the created key, or one that gave way to it.
func assertNameConflict(t *testing.T, r response, appName, id string) {
	t.Helper()
	const key = `It is the key with the ID [-0-9a-f]{36}\.`
	quoted := regexp.QuoteMeta(fmt.Sprintf(`\"%s\"`, appName))
	for _, message := range []string{
		`An active key has the app name ` + quoted + `: deactivate that key, or choose another app name\.( It is the key with the ID ` + id + `\.)?`,
		`A key that is not issued yet has the app name ` + quoted + `: deactivate that key, or choose another app name\. ` + key,
		`A creation that is not finished holds the app name ` + quoted + `\. If it fails, the app name is free at [-0-9T:]+Z at the latest\. ` + key,
	} {
		if regexp.MustCompile(`^{"errorCode":409,"errorMessage":"` + message + `","payload":null}$`).MatchString(r.body) {
			return
		}
	}
	t.Errorf("the response is %d %s", r.status, r.body)
}

// callUntilAvailable sends a request until the status is not 503. On a busy machine, creations may take more than the 10 seconds allowed.
func (c *console) callUntilAvailable(methodAndPath, token, body string) response {
	c.t.Helper()
	deadline := time.Now().Add(2 * framework.Timeout)
	for {
		got := c.call(methodAndPath, token, body)
		if got.status != http.StatusServiceUnavailable || time.Now().After(deadline) {
			return got
		}
	}
}

func TestCreate_WithoutControllerTimesOutAndLeavesNoKey(t *testing.T) {
	f := newFixture(t)
	f.stopController()
	var creating sync.WaitGroup
	for protocol, c := range map[string]*console{
		"HTTP/1.1": f.startProcess("--plaintext", "--api-key-file="),
		"HTTP/2.0": f.startTLSProcess("--api-key-file="),
	} {
		creating.Go(func() {
			start := time.Now()
			got := c.call("POST /v1/api-keys", f.writer.Token, strings.Replace(readOnly, "Frontend", protocol, 1))
			got.assertError(t, 503, "The key was not accepted within 10s, and was deleted. Check that the controller is running, and try again.")
			if took := time.Since(start); got.protocol != protocol || got.header.Get("Retry-After") != "1" || took < 10*time.Second {
				t.Errorf("the response came over %s after %s, with %v", got.protocol, took, got.header)
			}
		})
	}
	creating.Wait()
	if keys := f.keys(); len(keys) != 0 {
		t.Errorf("left: %v", keys)
	}
}
