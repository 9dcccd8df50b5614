// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"squirrel.dev/apikey-operator/test/framework"
)

// pathCase is the path of a client's request, which Envoy appends to its prefix, and the status of the response.
type pathCase struct {
	path   string
	status int
}

// pathCases returns paths of clients. net/http rejects a path with a percent sign that does not begin an escape before it calls a handler:
// with 400, or over HTTP/2 by resetting the stream.
func pathCases() []pathCase {
	cases := []pathCase{{"50%off", 400}, {"%", 400}, {"%2", 400}, {"%zz", 400}, {"a/%u00e4", 400}, {"%%41", 400}, {"100%?a=b", 400}}
	for _, path := range []string{
		"", "/", "//", "///a//b//", "a/../b", "..", "/../../other/x", "./a", "a/.", "%2e%2e%2fother", "%2F", "%2f%2F", "%00", "%0d%0aX:%20y",
		"%5c", "%25", "50%25off", "%ff%fe", "%C3%A4", "\u00e4\U0001f980", "\xff\xfe", "a;b=c", ";", "a?b", "?", "??", "?50%off", "a?%", "?/../%",
		"a#b", "#", "*", "**", "a:b", ":8080", "@host/", "http://auth/auth/envoy/other/", "!$&'()*+,=~-._", "\"<>^`{|}\\[]", "a%20b", "+",
		strings.Repeat("a/", 25_000), strings.Repeat("%20", 16_000),
	} {
		cases = append(cases, pathCase{path, 200})
	}
	return cases
}

func TestInvariant4_AValidKeyIsGrantedWithAnyPath(t *testing.T) {
	address := setup{}.serve(t)
	for _, prefix := range []string{"/auth/envoy/shop/", "http://auth/auth/envoy/shop/"} {
		for _, c := range pathCases() {
			want := readerGranted()
			if c.status == 400 {
				want = badRequest
			}
			t.Run(prefix+cut(c.path), func(t *testing.T) {
				assertResponse(t, send(t, address, head("GET "+prefix+c.path, "X-API-Key: "+readToken)), want)
			})
		}
	}
}

// A request line cannot contain these bytes.
func TestHandler_RejectsInvalidPaths(t *testing.T) {
	address := setup{}.serve(t)
	for _, path := range []string{"a b", "\x00", "\x01", "\x7f", "a\tb", " "} {
		assertResponse(t, send(t, address, head("GET /auth/envoy/shop/"+path, "X-API-Key: "+readToken)), badRequest)
	}
}

// The requests before the bad one get their responses, and its own response arrives before the connection is closed.
func TestHandler_ABadPathClosesTheConnectionAfterTheResponse(t *testing.T) {
	address := setup{}.serve(t)
	connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	framework.Must(t, err)
	defer connection.Close()
	framework.Must(t, connection.SetDeadline(time.Now().Add(timeout)))
	good, bad := httpCheck("envoy", "X-API-Key: "+readToken), head("GET /auth/envoy/shop/50%off", "X-API-Key: "+readToken)
	if _, err := io.WriteString(connection, good+good+bad); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(connection)
	for i, want := range []response{readerGranted(), readerGranted(), badRequest} {
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatalf("response %d: %v", i, err)
		}
		assertResponse(t, read(t, response), want)
	}
	if _, err := reader.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last response, reading returns %v, want EOF", err)
	}
	assertResponse(t, send(t, address, good), readerGranted())
}

func TestInvariant4_ABadPathOverHTTP2AffectsNoOtherRequest(t *testing.T) {
	server := httptest.NewUnstartedServer(setup{}.handler(t))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	client := dialHTTP2(t, server.Listener.Addr().String())
	for _, c := range pathCases() {
		if len(c.path) > 10_000 { // it needs more than one frame of headers
			continue
		}
		bad, before, after := client.get("/auth/envoy/shop/"+c.path), client.get("/auth/envoy/shop/before"), client.get("/auth/envoy/shop/after")
		want := map[uint32]string{bad: "200", before: "200", after: "200"}
		if c.status == 400 {
			want[bad] = http2.ErrCodeProtocol.String()
		}
		for range 3 {
			if stream, got := client.nextResponse(); want[stream] != got {
				t.Errorf("%s: stream %d of %d to %d ended with %s, want %s", cut(c.path), stream, bad, after, got, want[stream])
			}
		}
	}
}

func TestInvariant4_AValidKeyIsGrantedWithAnyPathOverGRPC(t *testing.T) {
	client := setup{}.serveEnvoy(t, "")
	for _, c := range pathCases() {
		check := newCheck("headers", "GET", "X-API-Key: "+readToken)
		check.Attributes.Request.Http.Path = "/" + strings.ToValidUTF8(c.path, "?")
		assertCheck(t, client, check, inGRPC(readerGranted(), "x-api-key"))
	}
}

// http2Client sends paths that a client of net/http rejects.
type http2Client struct {
	*testing.T
	framer *http2.Framer
	last   uint32
}

func dialHTTP2(t *testing.T, address string) *http2Client {
	t.Helper()
	dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}}
	connection, err := dialer.DialContext(t.Context(), "tcp", address)
	framework.Must(t, err)
	t.Cleanup(func() { _ = connection.Close() })
	c := &http2Client{T: t, framer: http2.NewFramer(connection, connection)}
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framework.Must(c, connection.SetDeadline(time.Now().Add(timeout)))
	_, err = io.WriteString(connection, http2.ClientPreface)
	framework.Must(c, err)
	framework.Must(c, c.framer.WriteSettings())
	return c
}

// get sends a GET with a valid key, and returns its stream.
func (c *http2Client) get(path string) (stream uint32) {
	c.Helper()
	c.last += 2
	stream = c.last - 1
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "auth"}, {":path", path}, {"x-api-key", readToken}} {
		framework.Must(c, encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}))
	}
	framework.Must(c, c.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true,
	}))
	return stream
}

// nextResponse returns the next stream with a response or a reset, and the status or the error.
func (c *http2Client) nextResponse() (stream uint32, how string) {
	c.Helper()
	for {
		frame, err := c.framer.ReadFrame()
		framework.Must(c, err)
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			return frame.StreamID, frame.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return frame.StreamID, frame.ErrCode.String()
		case *http2.GoAwayFrame:
			c.Fatalf("the server closes the connection: %v", frame)
		}
	}
}

func cut(path string) string {
	if len(path) > 40 {
		return path[:40] + "... (" + strconv.Itoa(len(path)) + ")"
	}
	return fmt.Sprintf("%q", path)
}
