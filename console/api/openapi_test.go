// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/google/go-cmp/cmp"

	"squirrel.dev/apikey-operator/console/api"
	"squirrel.dev/apikey-operator/test/framework"
)

// openAPI is the document that the API serves.
var openAPI = sync.OnceValues(func() (*openapi3.T, error) {
	content, err := os.ReadFile("openapi.json")
	if err != nil {
		return nil, err
	}
	return openapi3.NewLoader().LoadFromData(content)
})

// checkAgainstOpenAPI returns how a response differs from its description in openapi.json. Where openapi.json has no operation, the response
// must be an error.
func checkAgainstOpenAPI(request *http.Request, got response) error {
	document, err := openAPI()
	if err != nil {
		return err
	}
	return openapi3filter.ValidateResponse(request.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: request, Route: routeIn(document, request)},
		Status:                 got.status,
		Header:                 got.header,
		Body:                   io.NopCloser(strings.NewReader(got.body)),
		Options:                &openapi3filter.Options{IncludeResponseStatus: true},
	})
}

// routeIn returns the operation for a request. Where openapi.json has none, it returns one whose responses are all errors.
func routeIn(document *openapi3.T, request *http.Request) *routers.Route {
	path, item := itemIn(document, strings.TrimSuffix(request.URL.Path, "/"))
	if item != nil {
		if operation := item.GetOperation(request.Method); operation != nil {
			return &routers.Route{Spec: document, Path: path, PathItem: item, Method: request.Method, Operation: operation}
		}
	}
	anyError := document.Components.Responses["InternalError"].Value.Content["application/json"].Schema.Value.AllOf[0]
	response := openapi3.NewResponse().WithContent(openapi3.NewContentWithJSONSchemaRef(anyError))
	none := &openapi3.Operation{Responses: openapi3.NewResponses(openapi3.WithStatus(404, &openapi3.ResponseRef{Value: response}))}
	for _, status := range []string{"401", "405", "503"} {
		none.Responses.Set(status, &openapi3.ResponseRef{Value: response})
	}
	return &routers.Route{Spec: document, Path: path, Method: request.Method, Operation: none}
}

func itemIn(document *openapi3.T, path string) (string, *openapi3.PathItem) {
	if path == "" {
		return "/", document.Paths.Value("/")
	}
	for _, base := range document.Servers {
		below, ok := strings.CutPrefix(path, base.URL)
		switch item := document.Paths.Value(below); {
		case !ok || below == "/":
			continue
		case item != nil:
			return below, item
		}
		id, ok := strings.CutPrefix(below, "/api-keys/")
		id, rotates := strings.CutSuffix(id, "/rotate")
		switch {
		case !ok || id == "" || strings.Contains(id, "/"):
		case rotates:
			return below, document.Paths.Value("/api-keys/{id}/rotate")
		default:
			return below, document.Paths.Value("/api-keys/{id}")
		}
	}
	return path, nil
}

func TestOpenAPI_IsValid(t *testing.T) {
	document, err := openAPI()
	framework.Must(t, err)
	framework.Must(t, document.Validate(t.Context(), openapi3.EnableExamplesValidation()))
	if document.OpenAPI != "3.1.0" {
		t.Errorf("the version is %s", document.OpenAPI)
	}
}

func TestOpenAPI_DescribesAllRoutes(t *testing.T) {
	document, err := openAPI()
	framework.Must(t, err)
	var described []string
	for path, item := range document.Paths.Map() {
		for method, operation := range item.Operations() {
			described = append(described, operation.OperationID+": "+method+" "+path)
		}
	}
	slices.Sort(described)
	if diff := cmp.Diff(api.Routes(), described); diff != "" {
		t.Errorf("the routes (-code +openapi.json):\n%s", diff)
	}
}

func TestOpenAPI_NeedsNoKey(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"/api/v1/openapi.json", "/v1/openapi.json"} {
		got := f.call("GET "+path, "")
		document, err := openapi3.NewLoader().LoadFromData([]byte(got.body))
		framework.Must(t, err)
		framework.Must(t, document.Validate(t.Context()))
	}
}
