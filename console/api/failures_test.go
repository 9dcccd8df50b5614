// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/console/api"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/test/framework"
)

const (
	refusedByCluster = "The cluster refused the request, and nothing was changed: "
	patchBody        = `{"write_access": true}`
)

// refusesWrites waits until a rule of the API server is in effect, and checks that it refuses each write with this text.
func (f *fixture) refusesWrites(text string) {
	f.Helper()
	existing := "/v1/api-keys/" + string(f.reader.Key.UID)
	framework.Eventually(f, "the rule is in effect", func() bool {
		return f.call("PATCH "+existing, f.writer.Token, patchBody).status != http.StatusOK
	})
	f.assertRefused("PATCH "+existing, patchBody, text)
	f.assertRefused("POST /v1/api-keys", readOnly, text)
	f.assertRefused("DELETE "+existing, "", text)
	f.assertRefused("POST "+existing+"/rotate", "", text)
	if keys := f.keys(); len(keys) != 0 {
		f.Errorf("the keys are %v", keys)
	}
}

// assertRefused checks that the cluster refuses a request with this text after the name of the object.
func (f *fixture) assertRefused(request, body, text string) {
	f.Helper()
	got := f.call(request, f.writer.Token, body)
	message := strings.ReplaceAll(got.body, `\"`, `"`)
	if got.status != http.StatusUnprocessableEntity || !strings.Contains(message, refusedByCluster) || !strings.Contains(message, text) ||
		strings.Contains(message, "sha256:") {
		f.Errorf("the response to %s is %d %s, want %s", request, got.status, message, text)
	}
}

func TestRefusals_AQuotaIsNamed(t *testing.T) {
	f := newFixture(t)
	const counted = "count/apikeys.keys.squirrel.dev"
	hard := corev1.ResourceList{counted: resource.MustParse("2")}
	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "few-keys"}, Spec: corev1.ResourceQuotaSpec{Hard: hard},
	}
	framework.Must(t, f.Env.Client.Create(t.Context(), quota))
	quota.Status = corev1.ResourceQuotaStatus{Hard: hard, Used: hard}
	framework.Must(t, f.Env.Client.Status().Update(t.Context(), quota))
	framework.Eventually(t, "the quota is in effect", func() bool {
		got := f.call("POST /v1/api-keys", f.writer.Token, readOnly)
		if got.status == http.StatusOK {
			f.deleteKeys()
		}
		return got.status != http.StatusOK
	})
	f.assertRefused("POST /v1/api-keys", readOnly, "exceeded quota: few-keys, requested: "+counted+"=1, used: "+counted+"=2, limited: "+counted+"=2")
	if keys := f.keys(); len(keys) != 0 {
		t.Errorf("the keys are %v", keys)
	}
	f.deactivate(string(f.reader.Key.UID))
}

func TestRefusals_APolicyIsNamed(t *testing.T) {
	f := newFixture(t)
	name := "policy-of-" + f.Namespace
	policy := &admissionregistrationv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionregistrationv1.RuleWithOperations{
					Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
					Rule:       admissionregistrationv1.Rule{APIGroups: []string{"keys.squirrel.dev"}, APIVersions: []string{"*"}, Resources: []string{"apikeys"}},
				},
			}}},
			Validations: []admissionregistrationv1.Validation{{
				Expression: "false", MessageExpression: "'freeze until Monday, not for ' + (has(object.spec.tokenHash) ? object.spec.tokenHash : '')",
			}},
		},
	}
	binding := &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: name, ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
			MatchResources: &admissionregistrationv1.MatchResources{NamespaceSelector: f.selector()},
		},
	}
	f.createForTest(policy, binding)
	f.refusesWrites("ValidatingAdmissionPolicy '" + name + "' with binding '" + name + "' denied request: freeze until Monday, not for (hash)")
}

// deleteKeys deletes all keys but reader and writer.
func (f *fixture) deleteKeys() {
	f.Helper()
	for _, key := range f.keys() {
		framework.Must(f, f.Env.Client.Delete(f.Context(), &key))
	}
}

// selector selects the namespace.
func (f *fixture) selector() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: f.Namespace}}
}

// createForTest creates objects of the cluster until the test ends.
func (f *fixture) createForTest(objects ...client.Object) {
	f.Helper()
	for _, object := range objects {
		framework.Must(f, f.Env.Client.Create(f.Context(), object))
		f.Cleanup(func() { framework.Must(f, f.Env.Client.Delete(context.Background(), object)) })
	}
}

func TestRefusals_AWebhookIsNamed(t *testing.T) {
	f := newFixture(t)
	webhook := f.startWebhook(func(w http.ResponseWriter, review *admissionv1.AdmissionReview) {
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Result: &metav1.Status{Message: "ask the security team"}}
		_ = json.NewEncoder(w).Encode(review)
	})
	f.refusesWrites(`admission webhook "` + webhook + `" denied the request: ask the security team`)
}

// A webhook chooses the status of a denial, and need not explain it.
func TestRefusals_AWebhookIsNamedWhateverStatusItSends(t *testing.T) {
	f := newFixture(t)
	var result atomic.Pointer[metav1.Status]
	webhook := f.startWebhook(func(w http.ResponseWriter, review *admissionv1.AdmissionReview) {
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Result: result.Load()}
		_ = json.NewEncoder(w).Encode(review)
	})
	f.refusesWrites(`admission webhook "` + webhook + `" denied the request without explanation`)
	for _, code := range []int32{400, 401, 403, 404, 409, 410, 422, 429, 500, 503, 504} {
		result.Store(&metav1.Status{Code: code, Message: fmt.Sprint("status ", code)})
		f.refusesWrites(fmt.Sprintf(`admission webhook %q denied the request: status %d`, webhook, code))
	}
}

// A console changes the key that it has created before it responds.
func TestRefusals_OfChangesAloneLeaveNoCreatedKey(t *testing.T) {
	f := newFixture(t)
	webhook := f.startWebhook(func(w http.ResponseWriter, review *admissionv1.AdmissionReview) {
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: review.Request.Operation == admissionv1.Create}
		_ = json.NewEncoder(w).Encode(review)
	})
	f.refusesWrites(`admission webhook "` + webhook + `" denied the request without explanation`)
}

func TestRefusals_AWebhookThatFailsIsNamed(t *testing.T) {
	f := newFixture(t)
	webhook := f.startWebhook(func(w http.ResponseWriter, _ *admissionv1.AdmissionReview) { w.WriteHeader(http.StatusBadGateway) })
	want := fmt.Sprintf("The Kubernetes API could not call the admission webhook %q, and nothing was changed: check that webhook, and try again.",
		webhook)
	existing := "/v1/api-keys/" + string(f.reader.Key.UID)
	framework.Eventually(t, "the webhook is called", func() bool {
		return f.call("PATCH "+existing, f.writer.Token, patchBody).status == http.StatusServiceUnavailable
	})
	f.call("POST /v1/api-keys", f.writer.Token, readOnly).assertError(t, 503, want)
	f.call("PATCH "+existing, f.writer.Token, patchBody).assertError(t, 503, want)
	f.call("DELETE "+existing, f.writer.Token).assertError(t, 503, want)
	if keys := f.keys(); len(keys) != 0 {
		t.Errorf("the keys are %v", keys)
	}
}

// startWebhook registers a validating webhook for the specs of the keys of the namespace, and returns its name.
func (f *fixture) startWebhook(respond func(http.ResponseWriter, *admissionv1.AdmissionReview)) (name string) {
	f.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		review := &admissionv1.AdmissionReview{}
		if err := json.NewDecoder(r.Body).Decode(review); err != nil {
			f.Error(err)
		}
		respond(w, review)
	}))
	f.Cleanup(server.Close)
	name = f.Namespace + ".example.com"
	f.createForTest(&admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: name, AdmissionReviewVersions: []string{"v1"}, NamespaceSelector: f.selector(),
			SideEffects: new(admissionregistrationv1.SideEffectClassNone),
			ClientConfig: admissionregistrationv1.WebhookClientConfig{
				URL: &server.URL, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
			},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{"keys.squirrel.dev"}, APIVersions: []string{"*"}, Resources: []string{"apikeys"}},
			}},
		}},
	})
	return name
}

// failingTransport returns a console whose requests for keys to the Kubernetes API are answered by a function. Others pass.
func (f *fixture) failingTransport(answer func(next http.RoundTripper, r *http.Request) (*http.Response, error)) *console {
	f.Helper()
	config := f.consoleConfig()
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if strings.Contains(r.URL.Path, "/apikeys") {
				return answer(next, r)
			}
			return next.RoundTrip(r)
		})
	})
	failing, err := client.NewWithWatch(config, client.Options{Scheme: f.Env.Scheme})
	framework.Must(f, err)
	return f.startConsole(func(o *api.Options) { o.Client = failing })
}

// statusResponse returns the response of an API server that has an error.
func statusResponse(r *http.Request, err *apierrors.StatusError) *http.Response {
	status := err.Status()
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	content, _ := json.Marshal(status)
	return &http.Response{
		StatusCode: int(status.Code), Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(string(content))), Request: r,
	}
}

// announceSent reports that the headers of a request were sent, as the transport of net/http does.
func announceSent(r *http.Request) { httptrace.ContextClientTrace(r.Context()).WroteHeaders() }

func TestOutages_TheResponseSaysWhetherSomethingWasChanged(t *testing.T) {
	const (
		unreachable = "The Kubernetes API cannot be reached, and nothing was changed: try again."
		busy        = "The Kubernetes API cannot process the request at the moment, and nothing was changed: try again."
		unknown     = "The Kubernetes API did not confirm the change, which may have taken effect: read the key before you try again."
		deleted     = "The Kubernetes API did not confirm the creation of the key. If it creates the key late, the console deactivates " +
			"that key: try again."
		notDeleted = "The key was not accepted within 10s, and deleting it failed. If it exists, the console deactivates it within two minutes " +
			"after the Kubernetes API responds again. Try again then."
		denied = "The Kubernetes API denied the request of this server, and nothing was changed: see the log of this server."
	)
	refusedDial := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	resource := schema.GroupResource{Group: "keys.squirrel.dev", Resource: "apikeys"}
	f := newFixture(t)
	for name, c := range map[string]struct {
		answer      func(next http.RoundTripper, r *http.Request) (*http.Response, error)
		status      int
		post, patch string
	}{
		"connections are refused": {
			func(http.RoundTripper, *http.Request) (*http.Response, error) { return nil, refusedDial }, 503, unreachable, unreachable,
		},
		"the name is unknown": {
			func(http.RoundTripper, *http.Request) (*http.Response, error) {
				return nil, &net.DNSError{Err: "no such host", Name: "kubernetes"}
			}, 503, unreachable, unreachable,
		},
		"the connection breaks after each write": {
			func(next http.RoundTripper, r *http.Request) (*http.Response, error) {
				if r.Method == http.MethodPost || r.Method == http.MethodPatch {
					announceSent(r)
					return nil, io.ErrUnexpectedEOF
				}
				return next.RoundTrip(r)
			}, 503, deleted, unknown,
		},
		"the connection breaks after each write, and then there is none": {
			func(next http.RoundTripper, r *http.Request) (*http.Response, error) {
				switch {
				case r.Method == http.MethodPost, r.Method == http.MethodPatch:
					announceSent(r)
					return nil, io.ErrUnexpectedEOF
				case strings.Contains(r.URL.Path, "/frontend-app-"): // the key that may have been created
					return nil, refusedDial
				}
				return next.RoundTrip(r)
			}, 503, notDeleted, unknown,
		},
		"etcd does not respond in time": {
			func(next http.RoundTripper, r *http.Request) (*http.Response, error) {
				if r.Method == http.MethodPost || r.Method == http.MethodPatch {
					announceSent(r)
					return statusResponse(r, apierrors.NewInternalError(errors.New("etcdserver: request timed out"))), nil
				}
				return next.RoundTrip(r)
			}, 503, deleted, unknown,
		},
		"another request changes the quota": {
			func(next http.RoundTripper, r *http.Request) (*http.Response, error) {
				if r.Method == http.MethodPost || r.Method == http.MethodPatch {
					announceSent(r)
					return statusResponse(r, apierrors.NewConflict(corev1.Resource("resourcequotas"), "q", errors.New("the object has been modified"))), nil
				}
				return next.RoundTrip(r)
			}, 503, busy, busy,
		},
		"the console's credentials are not accepted": {
			func(_ http.RoundTripper, r *http.Request) (*http.Response, error) {
				return statusResponse(r, apierrors.NewUnauthorized("Unauthorized")), nil
			}, 500, denied, denied,
		},
		"the namespace is being deleted": {
			func(next http.RoundTripper, r *http.Request) (*http.Response, error) {
				if r.Method == http.MethodPost || r.Method == http.MethodPatch {
					announceSent(r)
					return statusResponse(r, apierrors.NewForbidden(resource, "x",
						errors.New("unable to create new content in namespace shop because it is being terminated"))), nil
				}
				return next.RoundTrip(r)
			}, 422, refusedByCluster + `apikeys.keys.squirrel.dev "x" is forbidden: unable to create new content in namespace shop because it is being ` +
				"terminated", refusedByCluster + `apikeys.keys.squirrel.dev "x" is forbidden: unable to create new content in namespace shop because it ` +
				"is being terminated",
		},
	} {
		console := f.failingTransport(c.answer)
		existing := "/v1/api-keys/" + string(f.reader.Key.UID)
		t.Run(name, func(t *testing.T) {
			console.call("POST /v1/api-keys", f.writer.Token, readOnly).assertError(t, c.status, c.post)
			console.call("PATCH "+existing, f.writer.Token, patchBody).assertError(t, c.status, c.patch)
			console.call("DELETE "+existing, f.writer.Token).assertError(t, c.status, c.patch)
			console.call("POST "+existing+"/rotate", f.writer.Token).assertError(t, c.status, c.patch)
			if keys := f.keys(); len(keys) != 0 {
				t.Errorf("the keys are %v", keys)
			}
		})
	}
}

// The API server has made each change, but the console does not know.
func TestOutages_ATokenThatIsLostIsReported(t *testing.T) {
	f := newFixture(t)
	c := f.failingTransport(func(next http.RoundTripper, r *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(r)
		if err != nil || r.Method != http.MethodPatch {
			return response, err
		}
		return nil, errors.Join(io.ErrUnexpectedEOF, response.Body.Close())
	})
	c.call("POST /v1/api-keys/"+string(f.reader.Key.UID)+"/rotate", f.writer.Token).assertError(t, 503, "The new token may be accepted, and is "+
		"lost: the Kubernetes API did not confirm the change. The former token may end after the overlap: rotate the key again.")
	f.assertAccepted("the former token", f.reader.Token, true)
}

// A server that is not the API server, such as one whose certificate is not trusted, gets no request.
// The API server has confirmed the key, so that no console deactivates it, but the console that creates it does not know.
func TestOutages_AKeyWhoseConfirmationIsLostIsDeleted(t *testing.T) {
	f := newFixture(t)
	loseConfirmation := func(next http.RoundTripper, r *http.Request) (*http.Response, error) {
		received, err := next.RoundTrip(r)
		if err != nil || r.Method != http.MethodPatch {
			return received, err
		}
		if keys := f.keys(); len(keys) != 1 || keyclient.IsUnconfirmed(&keys[0]) {
			t.Errorf("the keys are %v", keys)
		}
		announceSent(r)
		return nil, errors.Join(io.ErrUnexpectedEOF, received.Body.Close())
	}
	f.failingTransport(loseConfirmation).call("POST /v1/api-keys", f.writer.Token, readOnly).
		assertError(t, 503, "The Kubernetes API did not confirm the creation of the key, and no key is left: try again.")
	if keys := f.keys(); len(keys) != 0 {
		t.Errorf("the keys are %v", keys)
	}
	got := f.failingTransport(func(next http.RoundTripper, r *http.Request) (*http.Response, error) {
		if r.Method == http.MethodDelete {
			return nil, io.ErrUnexpectedEOF
		}
		return loseConfirmation(next, r)
	}).call("POST /v1/api-keys", f.writer.Token, readOnly)
	left := f.keys()
	if len(left) != 1 {
		t.Fatalf("the keys are %v", left)
	}
	got.assertError(t, 503, fmt.Sprintf("The Kubernetes API did not confirm the creation of the key, and deleting it failed. No client has its "+
		"token: deactivate the key with the ID %s, and try again.", left[0].UID))
}

func TestOutages_NothingIsSentToAServerWithAnotherCertificate(t *testing.T) {
	f := newFixture(t)
	other := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("got %s %s", r.Method, r.URL) }))
	other.Config.ErrorLog = nil
	t.Cleanup(other.Close)
	config := f.consoleConfig()
	config.Host = other.URL
	kubernetes, err := client.NewWithWatch(config, client.Options{Scheme: f.Env.Scheme, Mapper: f.Env.Client.RESTMapper()})
	framework.Must(t, err)
	c := f.startConsole(func(o *api.Options) { o.Client = kubernetes })
	c.call("POST /v1/api-keys", f.writer.Token, readOnly).
		assertError(t, 503, "The Kubernetes API cannot be reached, and nothing was changed: try again.")
}
