// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import "strings"

// The answers. Those of each protocol that are called so, and nothing else, are in answers_test.go.
const (
	granted         = "granted"
	toldRead        = "told: read"
	toldWrite       = "told: write"
	toldBoth        = "told: read, write"
	unauthenticated = "unauthenticated"
	noRead          = "no read access"
	noWrite         = "no write access"
	noRead403       = "no read access (403)"
	noWrite403      = "no write access (403)"
	unavailable     = "unavailable"
	misuse400       = "misuse (400)"
	misuse404       = "misuse (404)"
	misuse500       = "misuse (500)"
	misuseError     = "misuse (status.error)"
)

// Why a protocol is not asked: it cannot carry the question.
const (
	unaskable = "– "
	noMethod  = unaskable + "no method"
	oneMethod = unaskable + "always one method"
	noHeader  = unaskable + "no header"
	isConnect = unaskable + "no `:protocol`"
	otherPort = unaskable + "own port"
	ownFirst  = unaskable + "own key refused"
)

// cells are the answers to one question, in the order of the columns.
type cells [8]string

// inAll is the same answer in each column.
func inAll(answer string) (all cells) {
	for i := range all {
		all[i] = answer
	}
	return all
}

// situation is a row of the table.
type situation struct {
	name string
	ask  question
	want cells
}

// chapter is a part of the table.
type chapter struct {
	title      string
	situations []situation
}

// question is what a client sends to a service, and how the service's gateway asks about it. Where the text has {reader}, the token of
// the key reader is filled in, and so with each key; {shop} is the namespace of all keys but the stranger.
type question struct {
	// server is the authenticator that is asked.
	server string
	// key is the one that an answer must be about, if it is about one.
	key string
	// namespace is asked for, if any.
	namespace string
	// methods are those that the gateway tells: one, unless it is not set up right.
	methods []string
	// protocol is that of an extended CONNECT (RFC 8441).
	protocol string
	// uri is what the client asks for.
	uri string
	// headers are the client's.
	headers []string
	// tokens are all that a protocol without headers carries.
	tokens []string
	// atAnothers says that the gateway asks at the endpoint of another kind of gateway.
	atAnothers bool
}

// The authenticators.
const (
	synced    = "synced"
	with403   = "--insufficient-access-status=403"
	notSynced = "not synced"
)

// by is a request of this method with a key.
func by(key, method string, headers ...string) question {
	q := sending(append(headers, "X-API-Key: {"+key+"}")...).carrying("{" + key + "}")
	q.key, q.methods = key, []string{method}
	return q
}

// sending is a GET with these headers and no token.
func sending(headers ...string) question {
	return question{server: synced, key: "reader", namespace: "{shop}", methods: []string{"GET"}, uri: "/orders", headers: headers}
}

// carrying returns the question with tokens for the protocols without headers.
func (q question) carrying(tokens ...string) question {
	q.tokens = tokens
	return q
}

func (q question) of(server string) question {
	q.server = server
	return q
}

func (q question) in(namespace string) question {
	q.namespace = namespace
	return q
}

func (q question) told(methods ...string) question {
	q.methods = methods
	return q
}

func (q question) webSocketOverHTTP2() question {
	q.protocol = "websocket"
	return q
}

func (q question) at(uri string) question {
	q.uri = uri
	return q
}

func (q question) atTheEndpointOfAnother() question {
	q.atAnothers = true
	return q
}

var overlong = strings.Repeat("k", 513)

// table is all that is asked.
var table = []chapter{
	{"What a key may do", []situation{
		{"read access, GET", by("reader", "GET"), cells{granted, granted, granted, granted, granted, toldRead, toldRead, granted}},
		{"read access, HEAD", by("reader", "HEAD"), cells{granted, granted, granted, granted, granted, toldRead, toldRead, granted}},
		{"read access, OPTIONS", by("reader", "OPTIONS"), cells{granted, granted, granted, granted, granted, toldRead, toldRead, granted}},
		{"read access, POST", by("reader", "POST"), cells{noWrite, noWrite, noWrite, noWrite, noWrite, toldRead, toldRead, granted}},
		{"read access, DELETE", by("reader", "DELETE"), cells{noWrite, noWrite, noWrite, noWrite, noWrite, toldRead, toldRead, granted}},
		{"read access, a method nobody knows", by("reader", "BREW"),
			cells{noWrite, noWrite, noWrite, noWrite, noWrite, toldRead, toldRead, granted}},
		{"read access, `get` in lower case", by("reader", "get"),
			cells{noWrite, noWrite, noWrite, noWrite, noWrite, toldRead, toldRead, granted}},
		{"read access, CONNECT", by("reader", "CONNECT"), cells{noWrite, noWrite, noWrite, noWrite, noWrite, toldRead, toldRead, granted}},
		{"read access, WebSocket (GET with Upgrade)", by("reader", "GET", "Connection: Upgrade", "Upgrade: websocket"),
			cells{granted, granted, granted, granted, granted, toldRead, toldRead, granted}},
		{"read access, WebSocket over HTTP/2 (CONNECT with `:protocol`)", by("reader", "CONNECT").webSocketOverHTTP2(),
			cells{isConnect, granted, isConnect, isConnect, isConnect, noMethod, noMethod, oneMethod}},
		{"write access, GET", by("writer", "GET"), cells{noRead, noRead, noRead, noRead, noRead, toldWrite, toldWrite, noRead}},
		{"write access, HEAD", by("writer", "HEAD"), cells{noRead, noRead, noRead, noRead, noRead, toldWrite, toldWrite, noRead}},
		{"write access, POST", by("writer", "POST"), cells{granted, granted, granted, granted, granted, toldWrite, toldWrite, noRead}},
		{"read and write access, GET", by("both", "GET"), cells{granted, granted, granted, granted, granted, toldBoth, toldBoth, granted}},
		{"read and write access, POST", by("both", "POST"), cells{granted, granted, granted, granted, granted, toldBoth, toldBoth, granted}},
		{"read access, POST, with `--insufficient-access-status=403`", by("reader", "POST").of(with403),
			cells{noWrite403, noWrite403, noWrite403, noWrite403, noWrite403, toldRead, toldRead, granted}},
		{"write access, GET, with `--insufficient-access-status=403`", by("writer", "GET").of(with403),
			cells{noRead403, noRead403, noRead403, noRead403, noRead403, toldWrite, toldWrite, noRead403}},
	}},
	{"What else names a method", namingSituations()},
	{"Which key it is", []situation{
		{"a key whose hash was brought", by("brought", "GET"), cells{granted, granted, granted, granted, granted, toldRead, toldRead, granted}},
		{"a key that expires later", by("expiring", "GET"), cells{granted, granted, granted, granted, granted, toldRead, toldRead, granted}},
		{"an unknown key", by("unknown", "GET"), inAll(unauthenticated)},
		{"a deactivated key", by("deactivated", "GET"), inAll(unauthenticated)},
		{"an expired key", by("expired", "GET"), inAll(unauthenticated)},
		{"a deleted key", by("deleted", "GET"), inAll(unauthenticated)},
		{"a key of another namespace", by("stranger", "GET"), inAll(unauthenticated)},
	}},
	{"Where the key is", []situation{
		{"nowhere", sending(),
			cells{unauthenticated, unauthenticated, unauthenticated, unauthenticated, unauthenticated, misuseError, misuse400, unauthenticated}},
		{"Authorization: Bearer", sending("Authorization: Bearer {reader}").carrying("{reader}"),
			cells{granted, granted, granted, granted, granted, toldRead, toldRead, granted}},
		{"Authorization: Basic, as password", sending("Authorization: Basic {user:reader in Base64}"),
			cells{unauthenticated, unauthenticated, unauthenticated, unauthenticated, unauthenticated, noHeader, noHeader, granted}},
		{"X-API-Key, beside a foreign Authorization", sending("X-API-Key: {reader}", "Authorization: Bearer foreign"),
			cells{granted, granted, granted, granted, granted, noHeader, noHeader, unauthenticated}},
		{"Authorization, beside a foreign X-API-Key", sending("X-API-Key: foreign", "Authorization: Bearer {reader}"),
			cells{unauthenticated, unauthenticated, unauthenticated, unauthenticated, unauthenticated, noHeader, noHeader, unauthenticated}},
		{"X-API-Key twice (a field or parameter twice)", sending("X-API-Key: {reader}", "X-API-Key: {reader}").carrying("{reader}", "{reader}"),
			cells{unauthenticated, unauthenticated, unauthenticated, unauthenticated, unauthenticated, misuse400, misuse400, unauthenticated}},
		{"Authorization twice", sending("Authorization: Bearer {reader}", "Authorization: Bearer {reader}"),
			cells{unauthenticated, unauthenticated, unauthenticated, unauthenticated, unauthenticated, noHeader, noHeader, unauthenticated}},
		{"two keys, joined by a comma", sending("X-API-Key: {reader},{both}").carrying("{reader},{both}"), inAll(unauthenticated)},
		{"white space inside", sending("X-API-Key: {reader} x").carrying("{reader} x"), inAll(unauthenticated)},
		{"more than 512 bytes", sending("X-API-Key: " + overlong).carrying(overlong), inAll(unauthenticated)},
		{"empty", sending("X-API-Key:").carrying(""),
			cells{unauthenticated, unauthenticated, unauthenticated, unauthenticated, unauthenticated, misuseError, misuse400, unauthenticated}},
		{"the query of the URL", sending().at("/orders?token={reader}"),
			cells{unauthenticated, unauthenticated, unauthenticated, unauthenticated, unauthenticated, misuseError, misuse400, misuse400}},
	}},
	{"How the gateway asks", []situation{
		{"without method", by("reader", "").told(), cells{oneMethod, misuse500, misuse400, misuse400, misuse400, noMethod, noMethod, oneMethod}},
		{"with two methods", by("reader", "").told("GET", "GET"),
			cells{oneMethod, oneMethod, misuse400, misuse400, misuse400, noMethod, noMethod, oneMethod}},
		{"at the endpoint of another gateway", by("reader", "GET").atTheEndpointOfAnother(),
			cells{misuse400, otherPort, misuse400, misuse400, misuse400, noMethod, noMethod, noMethod}},
		{"without the client's path", by("reader", "GET").at(""),
			cells{misuse404, granted, granted, granted, granted, toldRead, toldRead, granted}},
		{"without namespace", by("reader", "GET").in(""),
			cells{misuse404, misuse500, misuse404, misuse404, misuse404, misuse404, misuse404, misuse404}},
		{"with a namespace that cannot be", by("reader", "GET").in("Shop"),
			cells{misuse404, misuse500, misuse404, misuse404, misuse404, misuse404, misuse404, misuse404}},
		{"with a namespace without keys", by("reader", "GET").in("nowhere"),
			cells{unauthenticated, unauthenticated, unauthenticated, unauthenticated, unauthenticated, unauthenticated, ownFirst, unauthenticated}},
	}},
	{"While the authenticator does not know the keys", []situation{
		{"read access, GET", by("reader", "GET").of(notSynced), inAll(unavailable)},
		{"an unknown key", by("unknown", "GET").of(notSynced), inAll(unavailable)},
		{"no key", sending().of(notSynced),
			cells{unavailable, unavailable, unavailable, unavailable, unavailable, misuseError, misuse400, unavailable}},
	}},
}

// methodHeaders are all headers by which some gateway, as it is or as it is often configured, names the method of a client's request.
var methodHeaders = []string{
	"Method", "X-Forwarded-Method", "X-Original-Method", "X-Envoy-Original-Method", "X-Auth-Request-Method", "X-Forwarded-HTTP-Method",
	"X-Forwarded-Verb", "X-Method", "X-Orig-Method", "X-Origin-Method", "X-Original-HTTP-Method", "X-Original-Request-Method",
	"X-Original-Verb", "X-Real-Method", "X-Request-Method",
}

// namingSituations are those of a request whose method is named in one more place. A gateway that names it in the very header that a client
// sends overwrites what that says.
func namingSituations() (situations []situation) {
	for _, header := range methodHeaders {
		want := cells{misuse400, noWrite, noWrite, noWrite, noWrite, noHeader, noHeader, granted}
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
	return append(situations, situation{"read access, GET of `/orders?_method=DELETE`", by("reader", "GET").at("/orders?_method=DELETE"),
		cells{granted, granted, granted, granted, granted, toldRead, misuse400, misuse400}})
}

// columnHeaders are the headers in which the gateways of columns name the method.
var columnHeaders = map[int]string{2: "X-Original-Method", 3: "Method", 4: "X-Forwarded-Method"}
