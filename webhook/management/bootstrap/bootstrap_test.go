// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/issuing"
	"squirrel.dev/apikey-operator/test/operator"
	"squirrel.dev/apikey-operator/test/testenv"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// patience bounds every wait for something that must come.
const patience = 30 * time.Second

// world is one namespace, with a controller, and a process that knows its keys.
type world struct {
	*testing.T
	env           *testenv.Env
	namespace     string
	file          string // of the key
	authenticator *authn.Authenticator
	log           *syncBuffer

	stopController func()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	env := testenv.Shared(t)
	w := &world{T: t, env: env, namespace: env.Namespace(t), file: filepath.Join(t.TempDir(), ".api_key"), log: &syncBuffer{}}
	w.stopController = issuing.Start(t, env, w.namespace)
	w.authenticator = w.newAuthenticator()
	return w
}

// newAuthenticator returns the authenticator of one more process.
func (w *world) newAuthenticator() *authn.Authenticator {
	w.Helper()
	keyring := authn.NewKeyring()
	var running sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	running.Go(func() { _ = keyring.Run(ctx, w.env.Config, w.namespace) })
	w.Cleanup(func() { stop(); running.Wait() })
	return authn.NewAuthenticator(keyring, 0, time.Now)
}

// key returns the key of the world's file, in a process that starts now.
func (w *world) key(change ...func(*Config)) *Key {
	w.Helper()
	config := Config{
		File:          w.file,
		Namespace:     w.namespace,
		Client:        w.env.Client,
		Authenticator: w.authenticator,
		Log:           slog.New(slog.NewTextHandler(w.log, nil)),
	}
	for _, c := range change {
		c(&config)
	}
	key, err := New(config)
	w.must(err)
	return key
}

// run runs the key to its end, and returns the token in its file.
func (w *world) run(key *Key) string {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	w.must(key.Run(ctx))
	if err := key.Ready(); err != nil {
		w.Fatalf("it ended, and is not ready: %v", err)
	}
	return w.content()
}

// content of the key file.
func (w *world) content() string {
	w.Helper()
	content, err := os.ReadFile(w.file)
	w.must(err)
	return strings.TrimSpace(string(content))
}

// reason is why the process does not accept a token; empty when it does.
func (w *world) reason(key string) authn.Reason {
	return w.authenticator.Decide(authn.Request{
		Namespace: w.namespace, Credential: authn.CredentialOf(key), Access: authn.Read | authn.Write,
	}).Reason
}

// only returns the one APIKey that is labelled as one of a key file.
func (w *world) only() *v1alpha1.APIKey {
	w.Helper()
	keys := w.labelled()
	if len(keys) != 1 {
		w.Fatalf("%d keys are labelled", len(keys))
	}
	return &keys[0]
}

func (w *world) labelled() []v1alpha1.APIKey {
	w.Helper()
	var keys v1alpha1.APIKeyList
	w.must(w.env.Client.List(w.Context(), &keys, client.InNamespace(w.namespace), client.MatchingLabels{v1alpha1.LabelBootstrap: "true"}))
	return keys.Items
}

// patch changes an APIKey as its owner would.
func (w *world) patch(key *v1alpha1.APIKey, patch string) {
	w.Helper()
	w.must(w.env.Client.Patch(w.Context(), key, client.RawPatch("application/merge-patch+json", []byte(patch))))
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// syncBuffer is a buffer for several writers.
type syncBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

func TestInvariant1_TheKeyOfAFileIsAcceptedAndOnlyItsHashIsKnown(t *testing.T) {
	w, g := newWorld(t), NewWithT(t)
	key := w.key()
	g.Expect(key.Ready()).To(MatchError("the bootstrap key is not accepted yet: it was not declared yet"))
	content := w.run(key)
	g.Expect(w.reason(content)).To(BeEmpty())

	name := nameOf(content)
	object := w.only()
	want := v1alpha1.APIKeySpec{AppName: name, ReadAccess: true, WriteAccess: true, Active: new(true),
		TokenHash: token.Hash(content), TokenHint: content[:7]}
	g.Expect(object.Name).To(Equal(name))
	g.Expect(cmp.Diff(want, object.Spec)).To(BeEmpty())
	g.Expect(w.log.String()).To(ContainSubstring(fmt.Sprintf(`msg="API key authentication ready (key file: %s)" apikey=%s`, w.file, name)))
	for where, text := range map[string]string{"the log": w.log.String(), "the key, printed": fmt.Sprintf("%+v", key)} {
		g.Expect(text).NotTo(ContainSubstring(content), "Invariant 1: %s has the token", where)
	}

	again := w.run(w.key())
	g.Expect(again).To(Equal(content), "a restart keeps the key")
	g.Expect(w.only().UID).To(Equal(object.UID))
}

func TestANewFileEndsTheKeyOfTheFormerOne(t *testing.T) {
	w, g := newWorld(t), NewWithT(t)
	former := w.run(w.key())
	w.must(w.env.Client.Create(t.Context(), &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "bootstrap-of-somebody-else"},
		Spec:       v1alpha1.APIKeySpec{AppName: "bootstrap", ReadAccess: true, WriteAccess: true, TokenHash: token.Hash("of-somebody-else")},
	}))
	w.must(os.Remove(w.file))
	current := w.run(w.key())

	g.Expect(w.reason(current)).To(BeEmpty())
	g.Eventually(func() authn.Reason { return w.reason(former) }).WithTimeout(patience).Should(Equal(authn.ReasonKeyDeactivated))
	g.Eventually(func() authn.Reason { return w.reason("of-somebody-else") }).WithTimeout(patience).Should(BeEmpty(), "which has no label")
	g.Expect(w.labelled()).To(HaveLen(2), "the former one stays to be seen")
	g.Expect(w.log.String()).To(ContainSubstring(fmt.Sprintf(`level=WARN `+
		`msg="Deactivated the bootstrap key of another key file: this one takes its place" deactivated=%s apikey=%s keyFile=%s`,
		nameOf(former), nameOf(current), w.file)), "who shares no file with another console learns of it")
}

func nameOf(key string) string {
	return namePrefix + strings.TrimPrefix(token.Hash(key), "sha256:")[:2*nameHashBytes]
}

func TestTheFormerKeyIsGoodUntilTheNewOneIsAccepted(t *testing.T) {
	w, g := newWorld(t), NewWithT(t)
	former := w.run(w.key())
	w.stopController()
	w.must(os.Remove(w.file))
	key := w.key()
	done := make(chan error, 1)
	go func() { done <- key.Run(t.Context()) }()

	g.Eventually(w.labelled).WithTimeout(patience).Should(HaveLen(2))
	for _, declared := range w.labelled() {
		g.Expect(*declared.Spec.Active).To(BeTrue(), "nothing has taken the place of APIKey %q", declared.Name)
	}
	g.Expect(w.reason(former)).To(BeEmpty())
	g.Expect(key.Ready()).NotTo(Succeed())

	issuing.Start(t, w.env, w.namespace)
	g.Eventually(done).WithTimeout(patience).Should(Receive(BeNil()))
	g.Expect(w.reason(w.content())).To(BeEmpty())
	g.Eventually(func() authn.Reason { return w.reason(former) }).WithTimeout(patience).Should(Equal(authn.ReasonKeyDeactivated))
}

func TestAKeyThatAnotherAPIKeyHasIsGivenUpAndTheFormerOneStaysGood(t *testing.T) {
	conflict := &v1alpha1.Conflict{
		Reason:  v1alpha1.ReasonTokenHashConflict,
		Message: `The token hash is that of APIKey "holder": delete that key, or bring another token.`,
	}
	for finder, refusal := range map[string]error{
		"the controller": nil, "the admission webhook": &apierrors.StatusError{ErrStatus: conflict.Status()},
	} {
		t.Run("as found by "+finder, func(t *testing.T) { testTakenKey(newWorld(t), refusal) })
	}
}

// testTakenKey declares a key whose hash another APIKey has. Its creation is refused with this error, if any.
func testTakenKey(w *world, refusal error) {
	g := NewWithT(w)
	former := w.run(w.key())
	w.must(os.Remove(w.file))
	key := w.key(func(config *Config) {
		if refusal != nil {
			config.Client = interceptor.NewClient(config.Client, interceptor.Funcs{
				Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error { return refusal },
			})
		}
	})
	holder := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "holder"},
		Spec:       v1alpha1.APIKeySpec{AppName: "Holder", ReadAccess: true, TokenHash: token.Hash(w.content())},
	}
	w.must(w.env.Client.Create(w.Context(), holder))
	g.Eventually(func() bool {
		w.must(w.env.Client.Get(w.Context(), client.ObjectKeyFromObject(holder), holder))
		return holder.Issued()
	}).WithTimeout(patience).Should(BeTrue())

	w.run(key) // which ends, and is ready
	g.Expect(w.log.String()).To(ContainSubstring(fmt.Sprintf(`level=ERROR msg="The bootstrap key is not accepted" `+
		`err="the key of the file %s is that of another APIKey (The token hash is that of APIKey \"holder\": delete that key, or bring `+
		`another token): delete that APIKey, or delete the file so that a new key is made, and restart"`, w.file)))
	g.Expect(w.only().Name).To(Equal(nameOf(former)), "nothing is left of the key that is given up")
	g.Expect(*w.only().Spec.Active).To(BeTrue())
	g.Expect(w.reason(former)).To(BeEmpty())
}

func TestAKeyThatWasEndedStaysSoUntilItsFileIsDeleted(t *testing.T) {
	for end, patch := range map[string]string{
		"was deactivated": `{"spec": {"active": false}}`,
		"has expired":     `{"spec": {"expiresAt": "2026-01-01T00:00:00Z"}}`,
	} {
		t.Run(end, func(t *testing.T) {
			w, g := newWorld(t), NewWithT(t)
			content := w.run(w.key())
			object := w.only()
			w.patch(object, patch)
			other := &v1alpha1.APIKey{
				ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "of-another-file", Labels: map[string]string{v1alpha1.LabelBootstrap: "true"}},
				Spec:       v1alpha1.APIKeySpec{AppName: "of another file", ReadAccess: true, TokenHash: token.Hash("of-another-file")},
			}
			w.must(w.env.Client.Create(t.Context(), other))

			w.run(w.key())
			g.Expect(w.reason(content)).NotTo(BeEmpty())
			g.Expect(w.log.String()).To(ContainSubstring(fmt.Sprintf(`level=ERROR msg="The bootstrap key is not accepted" `+
				`err="the key of the file %s %s (APIKey \"%s\"), which is final: delete the file and restart, and a new key is made"`,
				w.file, end, object.Name)))
			w.must(w.env.Client.Get(t.Context(), client.ObjectKeyFromObject(other), other))
			g.Expect(*other.Spec.Active).To(BeTrue(), "a key that has ended takes nobody's place")

			w.must(os.Remove(w.file))
			g.Expect(w.reason(w.run(w.key()))).To(BeEmpty())
		})
	}
}

func TestAnExpiryThatIsNotOnRecordIsNotFinal(t *testing.T) {
	w, g := newWorld(t), NewWithT(t)
	content := w.run(w.key())
	object := w.only()
	w.stopController() // which would record the expiry
	w.patch(object, `{"spec": {"expiresAt": "2026-01-01T00:00:00Z"}}`)
	key := w.key()
	var running sync.WaitGroup
	running.Go(func() { w.must(key.Run(t.Context())) })
	want := fmt.Sprintf("the bootstrap key is not accepted yet: APIKey %q has expired by the clock of this process, and the controller has "+
		"not recorded that yet", object.Name)
	g.Eventually(key.Ready).WithTimeout(patience).Should(MatchError(want))

	w.patch(object, `{"spec": {"expiresAt": null}}`)
	running.Wait()
	g.Expect(key.Ready()).To(Succeed())
	g.Expect(w.reason(content)).To(BeEmpty())
}

func TestAKeyWhoseObjectWasDeletedIsDeclaredAgain(t *testing.T) {
	w, g := newWorld(t), NewWithT(t)
	content := w.run(w.key())
	former := w.only()
	w.must(w.env.Client.Delete(t.Context(), former))
	g.Eventually(func() authn.Reason { return w.reason(content) }).WithTimeout(patience).Should(Equal(authn.ReasonKeyUnknown))

	g.Expect(w.run(w.key())).To(Equal(content))
	g.Expect(w.reason(content)).To(BeEmpty())
	g.Expect(w.only().UID).NotTo(Equal(former.UID))
}

func TestProcessesWithOneFileShareItsKey(t *testing.T) {
	w, g := newWorld(t), NewWithT(t)
	former := w.run(w.key())
	w.must(os.Remove(w.file))
	keys := make([]*Key, 5)
	for i := range keys {
		keys[i] = w.key()
	}
	var running sync.WaitGroup
	for _, key := range keys {
		running.Go(func() { w.must(key.Run(t.Context())) })
	}
	running.Wait()
	for _, key := range keys {
		g.Expect(key.Ready()).To(Succeed())
	}
	g.Expect(w.labelled()).To(HaveLen(2))
	g.Expect(w.reason(w.content())).To(BeEmpty())
	g.Eventually(func() authn.Reason { return w.reason(former) }).WithTimeout(patience).Should(Equal(authn.ReasonKeyDeactivated))
	g.Expect(w.log.String()).NotTo(ContainSubstring("not accepted"))
	g.Expect(strings.Count(w.log.String(), "level=WARN")).To(Equal(1), "one of them ends the former key")
}

func TestWhatHoldsUpAKeyIsToldAndTheKeyIsAcceptedOnceItIsGone(t *testing.T) {
	anAppNameThatIsHeld := func(name string) *v1alpha1.APIKey {
		return &v1alpha1.APIKey{
			ObjectMeta: metav1.ObjectMeta{Name: "holder"},
			Spec:       v1alpha1.APIKeySpec{AppName: name, ReadAccess: true, TokenHash: token.Hash("of-the-holder")},
		}
	}
	anObjectWithoutTheLabel := func(name string) *v1alpha1.APIKey {
		return &v1alpha1.APIKey{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       v1alpha1.APIKeySpec{AppName: "another", ReadAccess: true},
		}
	}
	for want, obstacle := range map[string]func(name string) *v1alpha1.APIKey{
		`App name "NAME" is held by APIKey "holder": deactivate or delete that key, or create this one with another app name.`: anAppNameThatIsHeld,
		`there is an APIKey "NAME" without the label keys.squirrel.dev/bootstrap=true: delete it, or give it the label`:        anObjectWithoutTheLabel,
	} {
		t.Run(want, func(t *testing.T) {
			w, g := newWorld(t), NewWithT(t)
			key := w.key()
			held := obstacle(key.name())
			held.Namespace = w.namespace
			w.must(w.env.Client.Create(t.Context(), held))
			g.Eventually(func() bool {
				w.must(w.env.Client.Get(t.Context(), client.ObjectKeyFromObject(held), held))
				return held.Issued()
			}).WithTimeout(patience).Should(BeTrue())
			done := make(chan error, 1)
			go func() { done <- key.Run(t.Context()) }()

			want := "the bootstrap key is not accepted yet: " + strings.ReplaceAll(want, "NAME", key.name())
			g.Eventually(key.Ready).WithTimeout(patience).Should(MatchError(want))
			w.must(w.env.Client.Delete(t.Context(), held))
			g.Eventually(done).WithTimeout(patience).Should(Receive(BeNil()))
			g.Expect(key.Ready()).To(Succeed())
			g.Expect(w.reason(w.content())).To(BeEmpty())
		})
	}
}

func TestAKeyWaitsForTheKubernetesAPI(t *testing.T) {
	w, g := newWorld(t), NewWithT(t)
	var away atomic.Bool
	away.Store(true)
	config := rest.CopyConfig(w.env.Config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			if away.Load() {
				return nil, errors.New("the API is away")
			}
			return next.RoundTrip(request)
		})
	})
	unreliable, err := client.NewWithWatch(config, client.Options{Scheme: w.env.Scheme, Mapper: w.env.Client.RESTMapper()})
	w.must(err)
	key := w.key(func(config *Config) { config.Client = unreliable })
	done := make(chan error, 1)
	go func() { done <- key.Run(t.Context()) }()

	g.Eventually(key.Ready).WithTimeout(patience).Should(MatchError(
		MatchRegexp("^the bootstrap key is not accepted yet: list the APIKeys with the label keys.squirrel.dev/bootstrap: .*the API is away$")))
	away.Store(false)
	g.Eventually(done).WithTimeout(patience).Should(Receive(BeNil()))
	g.Expect(key.Ready()).To(Succeed())
	g.Expect(strings.Count(w.log.String(), "level=WARN")).To(Equal(1), "what does not change is logged once")
}

// roundTripper does what it is to do with a call to the API.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

func TestTheConsoleRotatesItsKeyWhenTheFileIsDeletedAndItStartsAnew(t *testing.T) {
	w, g := newWorld(t), NewWithT(t)
	start := func() (process *operator.Process, status func(key string) int) {
		process = operator.Start(t, w.env.Config, "console", "--namespace="+w.namespace, "--api-key-file="+w.file, "--plaintext",
			"--listen-address="+operator.AnyPort, "--health-probe-bind-address="+operator.AnyPort, "--shutdown-delay=0s")
		url := "http://" + process.Address("console") + "/api/v1/api-keys"
		return process, func(key string) int {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
			w.must(err)
			request.Header.Set("Authorization", "Bearer "+key)
			response, err := http.DefaultClient.Do(request)
			w.must(err)
			w.must(response.Body.Close())
			return response.StatusCode
		}
	}
	isAccepted := func(status func(key string) int, key string) {
		g.Eventually(func() int {
			got := status(key)
			g.Expect(got).NotTo(Equal(http.StatusUnauthorized), "Invariant 4: until it is accepted, nobody can tell")
			return got
		}).WithTimeout(patience).Should(Equal(http.StatusOK))
	}
	first, status := start()
	former := w.content()
	isAccepted(status, former)
	g.Expect(first.Stop()).To(Succeed())

	second, status := start()
	g.Expect(w.content()).To(Equal(former))
	isAccepted(status, former)
	g.Expect(second.Stop()).To(Succeed())

	w.must(os.Remove(w.file))
	third, status := start()
	current := w.content()
	isAccepted(status, current)
	g.Eventually(func() int { return status(former) }).WithTimeout(patience).Should(Equal(http.StatusUnauthorized))
	g.Expect(third.Stop()).To(Succeed())

	w.must(os.Chmod(w.file, 0o604))
	refusing := operator.Start(t, w.env.Config, "console", "--namespace="+w.namespace, "--api-key-file="+w.file, "--plaintext")
	g.Expect(refusing.Exit()).To(Equal("exit status 1"))
	g.Expect(refusing.Printed()).To(ContainSubstring("everybody can get at the key file " + w.file + " (mode 0604)"))
	for _, process := range []*operator.Process{first, second, third, refusing} {
		g.Expect(process.Printed()).NotTo(Or(ContainSubstring(former), ContainSubstring(current)), "Invariant 1")
	}
}

func TestAKeyIsReadyOnlyWhenThisProcessAcceptsIt(t *testing.T) {
	w, g := newWorld(t), NewWithT(t)
	deaf := authn.NewAuthenticator(authn.NewKeyring(), 0, time.Now) // it never hears of any key
	key := w.key(func(config *Config) { config.Authenticator = deaf })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- key.Run(ctx) }()

	g.Eventually(func() authn.Reason { return w.reason(w.content()) }).WithTimeout(patience).Should(BeEmpty(), "others accept it")
	g.Expect(key.Ready()).NotTo(Succeed())
	cancel()
	g.Eventually(done).WithTimeout(patience).Should(Receive(BeNil()), "it ends when it is told to")
	g.Expect(key.Ready()).NotTo(Succeed())
}
