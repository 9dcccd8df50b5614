// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gateways

package gateways_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
	"squirrel.dev/apikey-operator/test/framework/proxies"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// middleware is a service with the code of middleware.md.
type middleware struct {
	// files are the code blocks of the page. The first one is the middleware, the second one the service.
	files [2]string
	// listen is the code of the service that has its address, and listenAt the format of its replacement with a host and a port.
	listen, listenAt string
	// command returns the command that runs the service in a directory with the files.
	command func(t *testing.T, dir, host, port string) process.Command
}

// maxMiddlewareLines limits the first file, which users add to their service.
const maxMiddlewareLines = 40

var middlewares = map[string]middleware{
	"Go": {
		files:  [2]string{"requirekey.go", "main.go"},
		listen: `":8000"`, listenAt: `"%s:%s"`,
		command: func(t *testing.T, dir, _, _ string) process.Command {
			t.Helper()
			framework.Must(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module example.com/shop\n\ngo 1.24\n"), 0o600))
			build := exec.CommandContext(t.Context(), "go", "build", "-o", "service", ".")
			build.Dir = dir
			if output, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, output)
			}
			return process.Command{Path: filepath.Join(dir, "service")}
		},
	},
	"FastAPI": {
		files: [2]string{"requirekey.py", "main.py"},
		command: func(t *testing.T, dir, host, port string) process.Command {
			t.Helper()
			return process.Command{
				Path: debianProgram(t, "python3"),
				Args: []string{"-m", "uvicorn", "--app-dir=" + dir, "--host=" + host, "--port=" + port, "main:app"},
				Env:  []string{"PYTHONPATH=" + binaries.Path(t, "debian", "usr", "lib", "python3", "dist-packages")},
			}
		},
	},
	"Express": {
		files:  [2]string{"requirekey.js", "main.js"},
		listen: `listen(8000)`, listenAt: `listen({host: "%s", port: %s})`,
		command: func(t *testing.T, dir, _, _ string) process.Command {
			t.Helper()
			return process.Command{
				Path: debianProgram(t, "node"),
				Args: []string{filepath.Join(dir, "main.js")},
				Env:  []string{"NODE_PATH=" + binaries.Path(t, "debian", "usr", "share", "nodejs")},
			}
		},
	},
}

// debianProgram returns the path of a program in bin/debian, or of the installed one, which hack/debian does not download again.
func debianProgram(t *testing.T, name string) string {
	t.Helper()
	if path := filepath.Join(binaries.Path(t, "debian"), "usr", "bin", name); exec.Command(path, "--version").Run() == nil {
		return path
	}
	path := filepath.Join("/usr/bin", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run this test with its `make` target, which downloads the program", err)
	}
	return path
}

// start starts the service, which sends its checks to an authenticator, and returns its URL.
func (m middleware) start(s *shop, authenticator string) string {
	s.Helper()
	dir, address := s.TempDir(), binaries.FreeAddress(s)
	host, port, _ := strings.Cut(address, ":")
	replacements := [2]map[string]string{}
	if m.listen != "" {
		replacements[1] = map[string]string{m.listen: fmt.Sprintf(m.listenAt, host, port)}
	}
	for i, file := range m.files {
		code := docsnippets.CodeBlock(s, "middleware.md", file)
		if lines := strings.Count(code, "\n") - 1; i == 0 && lines > maxMiddlewareLines { // without the name of the file
			s.Errorf("%s has %d lines, more than %d", file, lines, maxMiddlewareLines)
		}
		configure(s, filepath.Join(dir, file), code, replacements[i])
	}
	command := m.command(s.T, dir, host, port)
	command.Env = append(command.Env, binaries.DebianLibraryPath(s),
		"AUTHENTICATOR_URL=https://"+authenticator+"/auth/forward/"+s.namespace, "AUTHENTICATOR_CA="+s.caFile, "NODE_EXTRA_CA_CERTS="+s.caFile)
	proxies.Start(s, address, command)
	return "http://" + address
}

func TestMiddleware(t *testing.T) {
	t.Parallel()
	s := newShop(t, testenv.Shared(t))
	synced, unsynced := s.syncedAuthenticator().Address("authenticator"), s.unsyncedAuthenticator().Address("authenticator")
	for name, m := range middlewares {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inTest := s.in(t)
			url := m.start(inTest, localhost(synced))
			for _, test := range []struct {
				name, method string
				header       []string
				status       int
				body         string
			}{
				{"a read", "GET", []string{s.apiKey("reader")}, 200, readersApp},
				{"a bearer token", "GET", []string{"Authorization: Bearer " + s.keys["reader"].token}, 200, readersApp},
				{"a write", "POST", []string{s.apiKey("writer")}, 200, "Importer"},
				{"a client that names itself", "GET", []string{s.apiKey("reader"), "X-Auth-App: admin"}, 200, readersApp},
				{"a write without access", "POST", []string{s.apiKey("reader")}, 401, `"errorMessage":"API key does not have write access"`},
				{"an override of the method", "GET", []string{s.apiKey("reader"), "X-HTTP-Method-Override: DELETE"}, 401, "write access"},
				{"a client that names a method", "DELETE", []string{s.apiKey("reader"), "X-Forwarded-Method: GET"}, 401, "write access"},
				{"a key of another namespace", "GET", []string{s.apiKey("stranger")}, 401, "A valid API key is required"},
				{"two keys", "GET", []string{s.apiKey("reader"), s.apiKey("both")}, 401, "errorMessage"},
				{"without a key", "GET", nil, 401, "A valid API key is required"},
			} {
				status, body := send(t, test.method, url+"/orders", test.header...)
				if status != test.status || !strings.Contains(body, test.body) {
					t.Errorf("%s: got %d %s, want %d %s", test.name, status, body, test.status, test.body)
				}
			}
			for name, address := range map[string]string{"unsynced": localhost(unsynced), "absent": "localhost:1"} {
				down := m.start(inTest, address)
				if status, body := send(t, "GET", down, s.apiKey("reader")); status != 503 || !strings.Contains(body, "API keys cannot be checked") {
					t.Errorf("with an authenticator that is %s: got %d %s", name, status, body)
				}
			}
		})
	}
}

// localhost returns an address with a name that the certificate of the authenticator has.
func localhost(address string) string {
	_, port, _ := strings.Cut(address, ":")
	return "localhost:" + port
}

// send sends a request, and returns the status and the body of the response.
func send(t *testing.T, method, url string, headers ...string) (status int, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	framework.Must(t, err)
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Add(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	framework.Must(t, err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	framework.Must(t, err)
	return response.StatusCode, string(content)
}
