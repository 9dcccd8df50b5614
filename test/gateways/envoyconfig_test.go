// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gateways

package gateways_test

import (
	"encoding/json"
	"testing"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"
	"sigs.k8s.io/yaml"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
)

// The tests do not run Envoy. They validate its configurations with the types of its API.
func TestEnvoy_ConfigurationsAreValid(t *testing.T) {
	t.Parallel()
	bootstrap := docsnippets.CodeBlock(t, "envoy.md", "envoy.yaml")
	checkEnvoy(t, bootstrap, &bootstrapv3.Bootstrap{})
	checkEnvoy(t, docsnippets.Replace(t, bootstrap, map[string]string{ // as the page says for HTTP
		"http2_protocol_options: {}": "http_protocol_options: {}", "port_value: 9191": "port_value: 443",
	}), &bootstrapv3.Bootstrap{})
	checkEnvoy(t, docsnippets.CodeBlock(t, "envoy.md", "/etc/envoy/apikey-ca.yaml"), &discoveryv3.DiscoveryResponse{})
	checkEnvoy(t, docsnippets.CodeBlock(t, "envoy.md", "a route without a check"), &routev3.Route{})

	for _, list := range []struct {
		page, name string
		message    func() proto.Message
	}{
		{"envoy.md", "http_filters, over HTTP", func() proto.Message { return &hcmv3.HttpFilter{} }},
		{limitsPage, "http_filters, after ext_authz", func() proto.Message { return &hcmv3.HttpFilter{} }},
		{limitsPage, "access_log", func() proto.Message { return &accesslogv3.AccessLog{} }},
	} {
		var elements []json.RawMessage
		framework.Must(t, yaml.Unmarshal([]byte(docsnippets.CodeBlock(t, list.page, list.name)), &elements))
		for _, element := range elements {
			checkEnvoy(t, string(element), list.message())
		}
	}
}

// checkEnvoy parses a part of Envoy's configuration as this message, and validates all messages in it.
func checkEnvoy(t *testing.T, configuration string, message proto.Message) {
	t.Helper()
	content, err := yaml.YAMLToJSONStrict([]byte(configuration))
	framework.Must(t, err)
	framework.Must(t, protojson.Unmarshal(content, message))
	validated := 0
	framework.Must(t, protorange.Range(message.ProtoReflect(), func(values protopath.Values) error {
		inside, ok := values.Index(-1).Value.Interface().(protoreflect.Message)
		if !ok {
			return nil
		}
		if validating, ok := inside.Interface().(interface{ ValidateAll() error }); ok {
			validated++
			return validating.ValidateAll()
		}
		return nil
	}))
	if validated == 0 {
		t.Error("nothing was validated")
	}
}
