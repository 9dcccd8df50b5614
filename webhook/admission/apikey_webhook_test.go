// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package admission_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework/testenv"
	"squirrel.dev/apikey-operator/webhook/admission"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// user is a client that creates keys in one namespace and collects warnings.
type user struct {
	client.Client
	namespace string

	mu       sync.Mutex
	warnings []string
}

// HandleWarningHeaderWithContext implements rest.WarningHandlerWithContext.
func (u *user) HandleWarningHeaderWithContext(_ context.Context, _ int, _ string, text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.warnings = append(u.warnings, text)
}

func (u *user) takeWarnings() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	defer func() { u.warnings = nil }()
	return slices.Clone(u.warnings)
}

func newUser(t *testing.T, env *testenv.Env) *user {
	t.Helper()
	u := &user{namespace: env.Namespace(t)}
	config := rest.CopyConfig(env.Config)
	config.WarningHandlerWithContext = u
	var err error
	if u.Client, err = client.New(config, client.Options{Scheme: env.Scheme}); err != nil {
		t.Fatal(err)
	}
	return u
}

func (u *user) key(name string, change ...func(*v1alpha1.APIKey)) *v1alpha1.APIKey {
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: u.namespace, Name: name},
		Spec:       v1alpha1.APIKeySpec{AppName: "App " + name, ReadAccess: true},
	}
	for _, c := range change {
		c(key)
	}
	return key
}

// startWebhook serves the admission webhook until the test ends, and returns when the API server calls it.
func startWebhook(t *testing.T, env *testenv.Env) {
	t.Helper()
	port, certDir := env.Webhook(t, "../../config/webhook/validating.yaml")
	mgr, err := ctrl.NewManager(env.Config, ctrl.Options{
		Scheme:        env.Scheme,
		Metrics:       metricsserver.Options{BindAddress: "0"},
		WebhookServer: webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: port, CertDir: certDir}),
		Logger:        logr.Discard(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := apikey.Index(ctx, mgr.GetFieldIndexer()); err != nil {
		t.Fatal(err)
	}
	if err := admission.SetupWebhookWithManager(mgr); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	probe := newUser(t, env)
	gomega.NewWithT(t).Eventually(func() []string { // the API server loads the configuration after a moment
		_ = probe.Create(ctx, probe.key("probe", withHashOf("probe")), client.DryRunAll)
		return probe.takeWarnings()
	}, 30*time.Second, 50*time.Millisecond).ShouldNot(gomega.BeEmpty())
}

func withAppName(name string) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { key.Spec.AppName = name }
}

func withHashOf(plaintext string) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { key.Spec.TokenHash = token.Hash(plaintext) }
}

func withHint(hint string) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { key.Spec.TokenHint = hint }
}

func expiringIn(in time.Duration) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = new(metav1.NewTime(time.Now().Add(in))) }
}

func inactive(key *v1alpha1.APIKey) { key.Spec.Active = new(false) }

const (
	nameWarning = `App name "Frontend" is held by APIKey "first": deactivate or delete that key, or create this one with another app name. ` +
		`Until then, this key is not accepted.`
	usedWarning = `APIKey "first" already has this token hash: delete that key, or import another token. ` +
		`Until then, this key is not accepted.`
	hashWarning = "spec.tokenHash is safe only for a token of at least 128 random bits: a guessable token can be found from its hash"
	pastWarning = "spec.expiresAt is in the past: the key has expired, and an expired key cannot become valid again"
)

func TestValidateCreate(t *testing.T) {
	env := testenv.Shared(t)
	startWebhook(t, env)
	u := newUser(t, env)
	other := newUser(t, env)

	// Two issued keys, and an inactive one.
	issue(t, u, u.key("first", withAppName("Frontend"), withHashOf("imported")))
	issue(t, other, other.key("other", withAppName("Backend")))
	issue(t, u, u.key("ended", withAppName("Ended"), inactive))
	waitForCache(t, u)

	for name, test := range map[string]struct {
		key      *v1alpha1.APIKey
		warnings []string
	}{
		"a free app name":            {key: u.key("second")},
		"an app name in use":         {key: u.key("second", withAppName("Frontend")), warnings: []string{nameWarning}},
		"one of another namespace":   {key: u.key("second", withAppName("Backend"))},
		"one of an inactive key":     {key: u.key("second", withAppName("Ended"))},
		"one in use, but inactive":   {key: u.key("second", withAppName("Frontend"), inactive)},
		"an imported hash":           {key: u.key("second", withHashOf("new")), warnings: []string{hashWarning}},
		"a hash of a minted token":   {key: u.key("second", withHashOf("new"), withHint("sq_KnIr"))},
		"a hash of another token":    {key: u.key("second", withHashOf("new"), withHint("KnIr")), warnings: []string{hashWarning}},
		"a hash in use":              {key: u.key("second", withHashOf("imported")), warnings: []string{usedWarning, hashWarning}},
		"one of another namespace's": {key: other.key("second", withHashOf("imported")), warnings: []string{hashWarning}},
		"an expiry in the past":      {key: u.key("second", expiringIn(-time.Hour)), warnings: []string{pastWarning}},
		"an expiry in the future":    {key: u.key("second", expiringIn(time.Hour))},
	} {
		t.Run(name, func(t *testing.T) {
			if err := u.Create(t.Context(), test.key, client.DryRunAll); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(test.warnings, u.takeWarnings()); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

// A key that is applied again after its deletion does not wait for the deleted one, which the cache may still hold.
func TestValidateCreate_DoesNotNameAKeyOfTheSameName(t *testing.T) {
	env := testenv.Shared(t)
	startWebhook(t, env)
	u := newUser(t, env)
	issue(t, u, u.key("first", withAppName("Frontend")))
	waitForCache(t, u)
	err := u.Create(t.Context(), u.key("first", withAppName("Frontend")), client.DryRunAll)
	if !apierrors.IsAlreadyExists(err) {
		t.Errorf("the error is %v", err)
	}
	if warnings := u.takeWarnings(); len(warnings) > 0 {
		t.Errorf("the warnings are %q", warnings)
	}
}

func TestValidateUpdate(t *testing.T) {
	env := testenv.Shared(t)
	startWebhook(t, env)
	u := newUser(t, env)
	key := u.key("frontend", withHashOf("imported"))
	issue(t, u, key)
	u.takeWarnings()

	for _, step := range []struct {
		change   func(*v1alpha1.APIKey)
		warnings []string
	}{
		{change: func(key *v1alpha1.APIKey) { key.Spec.WriteAccess = true }},
		{change: expiringIn(time.Hour)},
		{change: expiringIn(-time.Hour), warnings: []string{pastWarning}},
		{change: func(key *v1alpha1.APIKey) { key.Labels = map[string]string{"a": "b"} }},
		{change: inactive},
	} {
		step.change(key)
		if err := u.Update(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.warnings, u.takeWarnings()); diff != "" {
			t.Errorf("warnings (-want +got):\n%s", diff)
		}
	}
	if err := u.Delete(t.Context(), key); err != nil {
		t.Error(err)
	}
}

func TestValidateUpdate_WarnsOfChangesThatDoNotReachTheSecret(t *testing.T) {
	env := testenv.Shared(t)
	startWebhook(t, env)
	u := newUser(t, env)
	const warning = `Secret "handover" exists, and changes of spec.secret.labels and spec.secret.annotations do not reach it: change the Secret too`
	key := u.key("frontend", func(key *v1alpha1.APIKey) { key.Spec.Secret = &v1alpha1.TokenSecret{Name: "handover"} })
	if err := u.Create(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		secretName string
		change     func(*v1alpha1.TokenSecret)
		warnings   []string
	}{
		{"", func(secret *v1alpha1.TokenSecret) { secret.Labels = map[string]v1alpha1.LabelValue{"a": "before"} }, nil},
		{"handover", func(secret *v1alpha1.TokenSecret) { secret.Labels["a"] = "after" }, []string{warning}},
		{"handover", func(secret *v1alpha1.TokenSecret) { secret.Annotations = map[string]v1alpha1.AnnotationValue{"a": "b"} }, []string{warning}},
		{"handover", func(secret *v1alpha1.TokenSecret) { secret.TTL = &metav1.Duration{Duration: time.Hour} }, nil},
		{"", func(secret *v1alpha1.TokenSecret) { secret.Labels = nil }, nil},
	} {
		key.Status.SecretName = step.secretName
		if err := u.Status().Update(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		step.change(key.Spec.Secret)
		if err := u.Update(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.warnings, u.takeWarnings()); diff != "" {
			t.Errorf("warnings (-want +got):\n%s", diff)
		}
	}
}

func TestValidateUpdate_WarnsOfRotations(t *testing.T) {
	env := testenv.Shared(t)
	startWebhook(t, env)
	u := newUser(t, env)
	const (
		noOverlap = "spec.rotation.overlap is 0s: each rotation refuses the clients that still use the former token"
		endsAll   = "spec.rotation.request.overlap is 0s: the rotation refuses the clients that still use a former token"
		handled   = "spec.rotation.request.at is not later than status.rotationHandled (2027-01-01T00:00:00Z) and has no effect: set a later time"
		older     = "spec.rotation.request.at is earlier than the issue of the token (2027-01-01T00:00:05Z) and has no effect: set a later time"
	)
	request := func(second int) *v1alpha1.RotationRequest {
		return &v1alpha1.RotationRequest{At: metav1.Date(2027, 1, 1, 0, 0, second, 0, time.UTC)}
	}
	zero := &metav1.Duration{}
	key := u.key("frontend", func(key *v1alpha1.APIKey) { key.Spec.Rotation = &v1alpha1.Rotation{Overlap: zero} })
	if err := u.Create(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{noOverlap}, u.takeWarnings()); diff != "" {
		t.Errorf("warnings of the creation (-want +got):\n%s", diff)
	}
	key.Status.RotationHandled = new(request(0).At)
	if err := u.Status().Update(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		rule     string
		change   func(*v1alpha1.Rotation)
		warnings []string
	}{
		{"the overlap stays", func(r *v1alpha1.Rotation) { r.Interval = &metav1.Duration{Duration: time.Hour} }, nil},
		{"an overlap", func(r *v1alpha1.Rotation) { r.Overlap = &metav1.Duration{Duration: time.Second} }, nil},
		{"no overlap", func(r *v1alpha1.Rotation) { r.Overlap = zero }, []string{noOverlap}},
		{"a new request", func(r *v1alpha1.Rotation) { r.Request = request(1) }, nil},
		{"a request without an overlap", func(r *v1alpha1.Rotation) { r.Request.Overlap = zero }, []string{endsAll}},
		{"the request stays", func(r *v1alpha1.Rotation) { r.Interval = nil }, nil},
		{"a request that was handled", func(r *v1alpha1.Rotation) { r.Request = request(0) }, []string{handled}},
		{"no request", func(r *v1alpha1.Rotation) { r.Request = nil }, nil},
		{"a request of a key of which none was handled", func(*v1alpha1.Rotation) {
			key.Status.RotationHandled = nil
			key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash("issued"), NotBefore: new(request(5).At)}}
			if err := u.Status().Update(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			key.Spec.Rotation.Request = request(5)
		}, nil},
		{"a request that is older than the token", func(r *v1alpha1.Rotation) { r.Request = request(4) }, []string{older}},
	} {
		step.change(key.Spec.Rotation)
		if err := u.Update(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.warnings, u.takeWarnings()); diff != "" {
			t.Errorf("%s: warnings (-want +got):\n%s", step.rule, diff)
		}
	}
}

func TestValidateUpdate_WarnsOfAReplacedTokenHash(t *testing.T) {
	env := testenv.Shared(t)
	startWebhook(t, env)
	u := newUser(t, env)
	key := u.key("frontend", withHashOf("a former token"), withHint("sq_form"))
	issue(t, u, key)
	waitForCache(t, u)
	u.takeWarnings()
	for _, step := range []struct {
		rule     string
		change   []func(*v1alpha1.APIKey)
		warnings []string
	}{
		{"a minted token", []func(*v1alpha1.APIKey){withHashOf("another token"), withHint("sq_anot")}, nil},
		{"an unknown token", []func(*v1alpha1.APIKey){withHashOf("a third token"), withHint("third")}, []string{
			"spec.tokenHash is safe only for a token of at least 128 random bits: a guessable token can be found from its hash",
		}},
		{"the token of another key", []func(*v1alpha1.APIKey){withHashOf("last"), withHint("sq_last")}, []string{
			`APIKey "last" already has this token hash: delete that key, or import another token. Until then, the former token stays accepted.`,
		}},
	} {
		for _, change := range step.change {
			change(key)
		}
		if err := u.Update(t.Context(), key, client.DryRunAll); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.warnings, u.takeWarnings()); diff != "" {
			t.Errorf("%s: warnings (-want +got):\n%s", step.rule, diff)
		}
	}
}

// issue creates a key with the status of an issued one.
func issue(t *testing.T, u *user, key *v1alpha1.APIKey) {
	t.Helper()
	if err := u.Create(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	now := metav1.Now()
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash(key.Namespace + key.Name), NotBefore: &now}}
	if key.Spec.TokenHash != "" {
		key.Status.Tokens[0].Hash = key.Spec.TokenHash
	}
	if err := u.Status().Update(t.Context(), key); err != nil {
		t.Fatal(err)
	}
}

// waitForCache waits until the webhook's cache holds all issued keys.
func waitForCache(t *testing.T, u *user) {
	t.Helper()
	issue(t, u, u.key("last", withHashOf("last")))
	gomega.NewWithT(t).Eventually(func() string {
		u.takeWarnings()
		if err := u.Create(t.Context(), u.key("probe", withHashOf("last")), client.DryRunAll); err != nil {
			t.Fatal(err)
		}
		return strings.Join(u.takeWarnings(), "")
	}, 30*time.Second, 20*time.Millisecond).Should(gomega.ContainSubstring("already has this token hash"))
}
