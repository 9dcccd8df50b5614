// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import "strings"

// The names of responses. The responses of each protocol are in responses_test.go.
const (
	granted             = "granted"
	validRead           = "valid: read"
	validWrite          = "valid: write"
	validBoth           = "valid: read, write"
	unauthenticated     = "unauthenticated"
	noRead              = "no read access"
	noWrite             = "no write access"
	noRead403           = "no read access (403)"
	noWrite403          = "no write access (403)"
	unavailable         = "unavailable"
	misconfigured400    = "misconfigured (400)"
	misconfigured404    = "misconfigured (404)"
	misconfigured500    = "misconfigured (500)"
	misconfiguredStatus = "misconfigured (status.error)"
)

// The reasons why a protocol cannot send a check.
const (
	notApplicable = "– "
	noMethod      = notApplicable + "no method"
	oneMethod     = notApplicable + "always one method"
	noHeader      = notApplicable + "no header"
	isConnect     = notApplicable + "no `:protocol`"
	otherPort     = notApplicable + "separate port"
	ownFirst      = notApplicable + "own key denied"
)

// cells are the names of the responses to a check, in the order of the columns.
type cells [8]string

// inAll returns the same response in each column.
func inAll(name string) (all cells) {
	for i := range all {
		all[i] = name
	}
	return all
}

// situation is a row of the table.
type situation struct {
	name  string
	check check
	want  cells
}

// chapter is a part of the table.
type chapter struct {
	title      string
	situations []situation
}

// check is a client's request, and how the gateway sends it. {reader} stands for the token of the key reader, and so for each key; {shop}
// stands for the namespace of all keys but the stranger.
type check struct {
	// server is the authenticator.
	server string
	// key is the key of the response, if it has one.
	key string
	// namespace that the gateway names, if any.
	namespace string
	// methods that the gateway sends: one, unless it is misconfigured.
	methods []string
	// protocol of an extended CONNECT (RFC 8441).
	protocol string
	// uri of the client's request.
	uri string
	// headers of the client's request.
	headers []string
	// tokens of a protocol without headers.
	tokens []string
	// wrongEndpoint is true if the gateway uses the endpoint of another one.
	wrongEndpoint bool
}

// The authenticators.
const (
	synced    = "synced"
	with403   = "--insufficient-access-status=403"
	notSynced = "not synced"
)

// by returns a check with this method and a key.
func by(key, method string, headers ...string) check {
	c := sending(append(headers, "X-API-Key: {"+key+"}")...).carrying("{" + key + "}")
	c.key, c.methods = key, []string{method}
	return c
}

// sending returns a check with GET, these headers and no token.
func sending(headers ...string) check {
	return check{server: synced, key: "reader", namespace: "{shop}", methods: []string{"GET"}, uri: "/orders", headers: headers}
}

// carrying returns the check with tokens for the protocols without headers.
func (c check) carrying(tokens ...string) check {
	c.tokens = tokens
	return c
}

func (c check) sentTo(server string) check {
	c.server = server
	return c
}

func (c check) in(namespace string) check {
	c.namespace = namespace
	return c
}

func (c check) withMethods(methods ...string) check {
	c.methods = methods
	return c
}

func (c check) asWebSocketOverHTTP2() check {
	c.protocol = "websocket"
	return c
}

func (c check) forURI(uri string) check {
	c.uri = uri
	return c
}

func (c check) atAnotherEndpoint() check {
	c.wrongEndpoint = true
	return c
}

var overlong = strings.Repeat("k", 513)

// table has all checks and their responses.
var table = []chapter{
	{"Access of the key", []situation{
		{"read access, GET", by("reader", "GET"), cells{granted, granted, granted, granted, granted, validRead, validRead, granted}},
		{"read access, HEAD", by("reader", "HEAD"), cells{granted, granted, granted, granted, granted, validRead, validRead, granted}},
		{"read access, OPTIONS", by("reader", "OPTIONS"), cells{granted, granted, granted, granted, granted, validRead, validRead, granted}},
		{"read access, POST", by("reader", "POST"), cells{noWrite, noWrite, noWrite, noWrite, noWrite, validRead, validRead, granted}},
		{"read access, DELETE", by("reader", "DELETE"), cells{noWrite, noWrite, noWrite, noWrite, noWrite, validRead, validRead, granted}},
		{"read access, an unknown method", by("reader", "BREW"),
			cells{noWrite, noWrite, noWrite, noWrite, noWrite, validRead, validRead, granted}},
		{"read access, `get` in lower case", by("reader", "get"),
			cells{noWrite, noWrite, noWrite, noWrite, noWrite, validRead, validRead, granted}},
		{"read access, CONNECT", by("reader", "CONNECT"), cells{noWrite, noWrite, noWrite, noWrite, noWrite, validRead, validRead, granted}},
		{"read access, WebSocket (GET with Upgrade)", by("reader", "GET", "Connection: Upgrade", "Upgrade: websocket"),
			cells{granted, granted, granted, granted, granted, validRead, validRead, granted}},
		{"read access, WebSocket over HTTP/2 (CONNECT with `:protocol`)", by("reader", "CONNECT").asWebSocketOverHTTP2(),
			cells{isConnect, granted, isConnect, isConnect, isConnect, noMethod, noMethod, oneMethod}},
		{"write access, GET", by("writer", "GET"), cells{noRead, noRead, noRead, noRead, noRead, validWrite, validWrite, noRead}},
		{"write access, HEAD", by("writer", "HEAD"), cells{noRead, noRead, noRead, noRead, noRead, validWrite, validWrite, noRead}},
		{"write access, POST", by("writer", "POST"), cells{granted, granted, granted, granted, granted, validWrite, validWrite, noRead}},
		{"read and write access, GET", by("both", "GET"), cells{granted, granted, granted, granted, granted, validBoth, validBoth, granted}},
		{"read and write access, POST", by("both", "POST"), cells{granted, granted, granted, granted, granted, validBoth, validBoth, granted}},
		{"read access, POST, with `--insufficient-access-status=403`", by("reader", "POST").sentTo(with403),
			cells{noWrite403, noWrite403, noWrite403, noWrite403, noWrite403, validRead, validRead, granted}},
		{"write access, GET, with `--insufficient-access-status=403`", by("writer", "GET").sentTo(with403),
			cells{noRead403, noRead403, noRead403, noRead403, noRead403, validWrite, validWrite, noRead403}},
	}},
	{"Headers that name a method", methodHeaderSituations()},
	{"State of the key", []situation{
		{"a key with an imported hash", by("imported", "GET"), cells{granted, granted, granted, granted, granted, validRead, validRead, granted}},
		{"a key that expires later", by("expiring", "GET"), cells{granted, granted, granted, granted, granted, validRead, validRead, granted}},
		{"the new token of a rotation", by("rotated", "GET"),
			cells{granted, granted, granted, granted, granted, validRead, validRead, granted}},
		{"a superseded token, before its end", by("superseded", "GET"),
			cells{granted, granted, granted, granted, granted, validRead, validRead, granted}},
		{"a superseded token, after its end", by("replaced", "GET"), inAll(unauthenticated)},
		{"an unknown key", by("unknown", "GET"), inAll(unauthenticated)},
		{"a deactivated key", by("deactivated", "GET"), inAll(unauthenticated)},
		{"an expired key", by("expired", "GET"), inAll(unauthenticated)},
		{"a deleted key", by("deleted", "GET"), inAll(unauthenticated)},
		{"a key of another namespace", by("stranger", "GET"), inAll(unauthenticated)},
	}},
	{"Place of the key", []situation{
		{"none", sending(),
			cells{unauthenticated, unauthenticated, unauthenticated, unauthenticated, unauthenticated, misconfiguredStatus, misconfigured400, unauthenticated}},
		{"Authorization: Bearer", sending("Authorization: Bearer {reader}").carrying("{reader}"),
			cells{granted, granted, granted, granted, granted, validRead, validRead, granted}},
		{"Authorization: Basic, as password", sending("Authorization: Basic {user:reader in Base64}"),
			cells{unauthenticated, unauthenticated, unauthenticated, unauthenticated, unauthenticated, noHeader, noHeader, granted}},
		{"X-API-Key, and another Authorization", sending("X-API-Key: {reader}", "Authorization: Bearer foreign"),
			cells{granted, granted, granted, granted, granted, noHeader, noHeader, unauthenticated}},
		{"Authorization, and another X-API-Key", sending("X-API-Key: foreign", "Authorization: Bearer {reader}"),
			cells{unauthenticated, unauthenticated, unauthenticated, unauthenticated, unauthenticated, noHeader, noHeader, unauthenticated}},
		{"X-API-Key twice (a field or parameter twice)", sending("X-API-Key: {reader}", "X-API-Key: {reader}").carrying("{reader}", "{reader}"),
			cells{unauthenticated, unauthenticated, unauthenticated, unauthenticated, unauthenticated, misconfigured400, misconfigured400, unauthenticated}},
		{"Authorization twice", sending("Authorization: Bearer {reader}", "Authorization: Bearer {reader}"),
			cells{unauthenticated, unauthenticated, unauthenticated, unauthenticated, unauthenticated, noHeader, noHeader, unauthenticated}},
		{"two keys, joined by a comma", sending("X-API-Key: {reader},{both}").carrying("{reader},{both}"), inAll(unauthenticated)},
		{"white space inside", sending("X-API-Key: {reader} x").carrying("{reader} x"), inAll(unauthenticated)},
		{"more than 512 bytes", sending("X-API-Key: " + overlong).carrying(overlong), inAll(unauthenticated)},
		{"empty", sending("X-API-Key:").carrying(""),
			cells{unauthenticated, unauthenticated, unauthenticated, unauthenticated, unauthenticated, misconfiguredStatus, misconfigured400, unauthenticated}},
		{"the query of the URL", sending().forURI("/orders?token={reader}"),
			cells{unauthenticated, unauthenticated, unauthenticated, unauthenticated, unauthenticated, misconfiguredStatus, misconfigured400, misconfigured400}},
	}},
	{"Configuration of the gateway", []situation{
		{"without method", by("reader", "").withMethods(), cells{oneMethod, misconfigured500, misconfigured400, misconfigured400, misconfigured400, noMethod, noMethod, oneMethod}},
		{"with two methods", by("reader", "").withMethods("GET", "GET"),
			cells{oneMethod, oneMethod, misconfigured400, misconfigured400, misconfigured400, noMethod, noMethod, oneMethod}},
		{"at the endpoint of another gateway", by("reader", "GET").atAnotherEndpoint(),
			cells{misconfigured400, otherPort, misconfigured400, misconfigured400, misconfigured400, noMethod, noMethod, noMethod}},
		{"without the client's path", by("reader", "GET").forURI(""),
			cells{misconfigured404, granted, granted, granted, granted, validRead, validRead, granted}},
		{"without namespace", by("reader", "GET").in(""),
			cells{misconfigured404, misconfigured500, misconfigured404, misconfigured404, misconfigured404, misconfigured404, misconfigured404, misconfigured404}},
		{"with an invalid namespace", by("reader", "GET").in("Shop"),
			cells{misconfigured404, misconfigured500, misconfigured404, misconfigured404, misconfigured404, misconfigured404, misconfigured404, misconfigured404}},
		{"with a namespace without keys", by("reader", "GET").in("nowhere"),
			cells{unauthenticated, unauthenticated, unauthenticated, unauthenticated, unauthenticated, unauthenticated, ownFirst, unauthenticated}},
	}},
	{"Before the authenticator knows the keys", []situation{
		{"read access, GET", by("reader", "GET").sentTo(notSynced), inAll(unavailable)},
		{"an unknown key", by("unknown", "GET").sentTo(notSynced), inAll(unavailable)},
		{"no key", sending().sentTo(notSynced),
			cells{unavailable, unavailable, unavailable, unavailable, unavailable, misconfiguredStatus, misconfigured400, unavailable}},
	}},
}

// methodHeaders are the headers that gateways set to the method of a client's request, by default or in common configurations.
var methodHeaders = []string{
	"Method", "X-Forwarded-Method", "X-Original-Method", "X-Envoy-Original-Method", "X-Auth-Request-Method", "X-Forwarded-HTTP-Method",
	"X-Forwarded-Verb", "X-Method", "X-Orig-Method", "X-Origin-Method", "X-Original-HTTP-Method", "X-Original-Request-Method",
	"X-Original-Verb", "X-Real-Method", "X-Request-Method",
}

// methodHeaderSituations have a header that names another method. A gateway that sends the method in the same header overwrites its value.
func methodHeaderSituations() (situations []situation) {
	for _, header := range methodHeaders {
		want := cells{misconfigured400, noWrite, noWrite, noWrite, noWrite, noHeader, noHeader, granted}
		for i, column := range columnHeaders {
			if header == column {
				want[i] = granted
			}
		}
		situations = append(situations, situation{"read access, GET with `" + header + ": POST`", by("reader", "GET", header+": POST"), want})
	}
	for _, header := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"} {
		situations = append(situations,
			situation{"read access, GET with `" + header + ": DELETE`", by("reader", "GET", header+": DELETE"),
				cells{noWrite, noWrite, noWrite, noWrite, noWrite, noHeader, noHeader, granted}},
			situation{"read access, POST with `" + header + ": GET`", by("reader", "POST", header+": GET"),
				cells{noWrite, noWrite, noWrite, noWrite, noWrite, noHeader, noHeader, granted}},
			situation{"read and write access, GET with `" + header + ": DELETE`", by("both", "GET", header+": DELETE"),
				cells{granted, granted, granted, granted, granted, noHeader, noHeader, granted}},
			situation{"write access, POST with `" + header + ": DELETE`", by("writer", "POST", header+": DELETE"),
				cells{granted, granted, granted, granted, granted, noHeader, noHeader, noRead}},
			situation{"write access, POST with `" + header + ": GET`", by("writer", "POST", header+": GET"),
				cells{noRead, noRead, noRead, noRead, noRead, noHeader, noHeader, noRead}})
	}
	return append(situations, situation{"read access, GET of `/orders?_method=DELETE`", by("reader", "GET").forURI("/orders?_method=DELETE"),
		cells{granted, granted, granted, granted, granted, validRead, misconfigured400, misconfigured400}})
}

// columnHeaders are the headers with the method, by the index of the column.
var columnHeaders = map[int]string{2: "X-Original-Method", 3: "Method", 4: "X-Forwarded-Method"}
