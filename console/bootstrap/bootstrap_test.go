// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/runcontroller"
	"squirrel.dev/apikey-operator/test/framework/testenv"
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
	return newWorldIn(t, testenv.Shared(t))
}

func newWorldIn(t *testing.T, env *testenv.Env) *world {
	t.Helper()
	w := &world{T: t, env: env, namespace: env.Namespace(t), file: filepath.Join(t.TempDir(), ".api_key"), log: &syncBuffer{}}
	w.stopController = runcontroller.Start(t, env, w.namespace)
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

// run runs the key until the end of the test, and returns the token in its file once the key is settled.
func (w *world) run(key *Key) string {
	w.Helper()
	w.start(key)
	w.awaitSettled(key)
	return w.content()
}

// start runs the key until it is stopped, at the latest at the end of the test. A channel tells of its end.
func (w *world) start(key *Key) (stop func(), ended <-chan error) {
	w.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() { result <- key.Run(ctx) })
	stop = func() { cancel(); running.Wait() }
	w.Cleanup(stop)
	return stop, result
}

func (w *world) awaitSettled(key *Key) {
	w.Helper()
	NewWithT(w).Eventually(key.Ready).WithTimeout(patience).Should(Succeed())
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
		Namespace: w.namespace, Credential: authn.NewCredential(key), Access: authn.Read | authn.Write,
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

// onlyUID returns the UID of the APIKey of the key file, if there is one now.
func (w *world) onlyUID() types.UID {
	w.Helper()
	for _, key := range w.labelled() {
		return key.UID
	}
	return ""
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
	g.Expect(key.Ready()).To(MatchError("the bootstrap key is not accepted: it was not declared yet"))
	stop, _ := w.start(key)
	w.awaitSettled(key)
	stop()
	content := w.content()
	g.Expect(w.reason(content)).To(BeEmpty())

	name := nameOf(content)
	object := w.only()
	want := v1alpha1.APIKeySpec{AppName: name, ReadAccess: true, WriteAccess: true, Active: new(true),
		TokenHash: token.Hash(content), TokenHint: content[:7]}
	g.Expect(object.Name).To(Equal(name))
	g.Expect(object.Labels).To(Equal(map[string]string{"keys.squirrel.dev/bootstrap": "true", "keys.squirrel.dev/manager": "true"}))
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
	g.Eventually(w.log.String).WithTimeout(patience).Should(ContainSubstring(fmt.Sprintf(`level=ERROR msg="The bootstrap key is not accepted" `+
		`err="the key of the file %s was deactivated (APIKey \"%s\"), which is final: `, w.file, nameOf(former))), "the other console tells of it")
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
	w.start(key)

	g.Eventually(w.labelled).WithTimeout(patience).Should(HaveLen(2))
	for _, declared := range w.labelled() {
		g.Expect(*declared.Spec.Active).To(BeTrue(), "nothing has taken the place of APIKey %q", declared.Name)
	}
	g.Expect(w.reason(former)).To(BeEmpty())
	g.Expect(key.Ready()).NotTo(Succeed())

	runcontroller.Start(t, w.env, w.namespace)
	w.awaitSettled(key)
	g.Expect(w.reason(w.content())).To(BeEmpty())
	g.Eventually(func() authn.Reason { return w.reason(former) }).WithTimeout(patience).Should(Equal(authn.ReasonKeyDeactivated))
}

func TestAKeyThatAnotherAPIKeyHasIsGivenUpAndTheFormerOneStaysGood(t *testing.T) {
	conflict := &apikey.Conflict{
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
	formerKey := w.key()
	stop, _ := w.start(formerKey)
	w.awaitSettled(formerKey)
	former := w.content()
	stop()
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
		return apikey.IsIssued(holder)
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
	first := w.key()
	stop, _ := w.start(first)
	w.awaitSettled(first)
	stop()
	content, object := w.content(), w.only()
	w.stopController() // which would record the expiry
	w.patch(object, `{"spec": {"expiresAt": "2026-01-01T00:00:00Z"}}`)
	key := w.key()
	w.start(key)
	want := fmt.Sprintf("the bootstrap key is not accepted: APIKey %q has expired by the clock of this process, and the controller has "+
		"not recorded that yet", object.Name)
	g.Eventually(key.Ready).WithTimeout(patience).Should(MatchError(want))

	w.patch(object, `{"spec": {"expiresAt": null}}`)
	w.awaitSettled(key)
	g.Expect(w.reason(content)).To(BeEmpty())
}

func TestAKeyWhoseObjectWasDeletedIsDeclaredAgainAtTheNextStart(t *testing.T) {
	w, g := newWorld(t), NewWithT(t)
	first := w.key()
	stop, _ := w.start(first)
	w.awaitSettled(first)
	stop()
	content, former := w.content(), w.only()
	w.must(w.env.Client.Delete(t.Context(), former))
	g.Eventually(func() authn.Reason { return w.reason(content) }).WithTimeout(patience).Should(Equal(authn.ReasonKeyUnknown))
	g.Expect(first.Ready()).To(MatchError(fmt.Sprintf(`the bootstrap key is not accepted: APIKey %q was deleted or has ended`, former.Name)),
		"at once, not when a process has found out why")

	g.Expect(w.run(w.key())).To(Equal(content))
	g.Expect(w.reason(content)).To(BeEmpty())
	g.Expect(w.only().UID).NotTo(Equal(former.UID))
}

func TestARunningProcessMakesADeletedKeyAgain(t *testing.T) {
	w, g := newWorld(t), NewWithT(t)
	keys := []*Key{w.key(), w.key()} // of two processes
	for _, key := range keys {
		w.run(key)
	}
	content, former := w.content(), w.only()
	for range 2 {
		w.must(w.env.Client.Delete(t.Context(), former))
		g.Eventually(func() types.UID { return w.onlyUID() }).WithTimeout(patience).ShouldNot(Or(BeEmpty(), Equal(former.UID)))
		for _, key := range keys {
			w.awaitSettled(key)
		}
		g.Expect(w.reason(content)).To(BeEmpty())
		former = w.only()
	}
	name := nameOf(content)
	g.Expect(w.log.String()).To(ContainSubstring(fmt.Sprintf(`level=WARN msg="The bootstrap key is not accepted; trying again" `+
		`err="APIKey \"%s\" was deleted or has ended"`, name)))
	g.Expect(strings.Count(w.log.String(), `msg="Created the APIKey of the bootstrap key" apikey=`+name)).To(Equal(3), "one process each time")
	g.Expect(strings.Count(w.log.String(), `msg="API key authentication ready (key file: `+w.file)).To(Equal(6), "and both tell of each")
}

func TestADeletedKeyIsNotMadeAgainWhenItsFileIsGoneOrHoldsAnother(t *testing.T) {
	for want, change := range map[string]func(w *world) error{
		`there is no APIKey \"NAME\", and the key file FILE does not exist any more: restart, and a new key is made`: func(w *world) error {
			return os.Remove(w.file)
		},
		`there is no APIKey \"NAME\", and the key file FILE holds another key since this process started: restart, and that one is used`: func(w *world) error {
			return os.WriteFile(w.file, []byte(newKey()), 0o600)
		},
	} {
		t.Run(want, func(t *testing.T) {
			w, g := newWorld(t), NewWithT(t)
			key := w.key()
			_, ended := w.start(key)
			w.awaitSettled(key)
			content := w.content()
			w.must(change(w))
			g.Consistently(key.Ready).WithTimeout(2*lossPoll).Should(Succeed(), "while the APIKey is there, the file is not asked")
			w.must(w.env.Client.Delete(t.Context(), w.only()))

			g.Eventually(ended).WithTimeout(patience).Should(Receive(BeNil()))
			g.Expect(key.Ready()).To(Succeed(), "other keys count")
			g.Expect(w.reason(content)).To(Equal(authn.ReasonKeyUnknown))
			g.Expect(w.labelled()).To(BeEmpty())
			g.Expect(w.log.String()).To(ContainSubstring(`level=ERROR msg="The bootstrap key is not accepted" err="` +
				strings.NewReplacer("NAME", nameOf(content), "FILE", w.file).Replace(want) + `"`))
		})
	}
}

func TestARunningProcessLeavesAnEndedKeyEnded(t *testing.T) {
	w, g := newWorld(t), NewWithT(t)
	key := w.key()
	_, ended := w.start(key)
	w.awaitSettled(key)
	content, object := w.content(), w.only()
	w.patch(object, `{"spec": {"active": false}}`)

	g.Eventually(ended).WithTimeout(patience).Should(Receive(BeNil()))
	g.Expect(key.Ready()).To(Succeed(), "other keys count")
	g.Expect(w.log.String()).To(ContainSubstring(fmt.Sprintf(`level=ERROR msg="The bootstrap key is not accepted" `+
		`err="the key of the file %s was deactivated (APIKey \"%s\"), which is final: delete the file and restart, and a new key is made"`,
		w.file, object.Name)))
	w.must(w.env.Client.Delete(t.Context(), object))
	g.Eventually(func() authn.Reason { return w.reason(content) }).WithTimeout(patience).Should(Equal(authn.ReasonKeyUnknown))
	g.Expect(w.labelled()).To(BeEmpty(), "who ended it, and then deleted it, does not get it back")
}

func TestARunningProcessGivesUpADeletedKeyWhoseHashAnEndedKeyHas(t *testing.T) {
	w, g := newWorld(t), NewWithT(t)
	key := w.key()
	_, ended := w.start(key)
	w.awaitSettled(key)
	former := w.only()
	copied := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "copy"},
		Spec:       v1alpha1.APIKeySpec{AppName: "Copy", ReadAccess: true, Active: new(false), TokenHash: token.Hash(w.content())},
	}
	w.must(w.env.Client.Create(t.Context(), copied))
	g.Eventually(time.Now).WithTimeout(patience).Should(BeTemporally(">=", copied.CreationTimestamp.Add(time.Second)), "the copy is the older one")
	w.must(w.env.Client.Delete(t.Context(), former))

	g.Eventually(ended).WithTimeout(patience).Should(Receive(BeNil()))
	g.Expect(key.Ready()).To(Succeed(), "other keys count")
	g.Expect(w.log.String()).To(ContainSubstring(fmt.Sprintf(`level=ERROR msg="The bootstrap key is not accepted" `+
		`err="the key of the file %s is that of another APIKey (The token hash is that of APIKey \"copy\": delete that key, or bring `+
		`another token): delete that APIKey, or delete the file so that a new key is made, and restart"`, w.file)))
	g.Expect(w.labelled()).To(BeEmpty())
}

func TestARefusedCreationIsTriedAgainWithGrowingPauses(t *testing.T) {
	w, g := newWorld(t), NewWithT(t)
	var refusing atomic.Bool
	var attempts atomic.Int32
	key := w.key(func(config *Config) {
		config.Client = interceptor.NewClient(config.Client, interceptor.Funcs{
			Create: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
				if refusing.Load() {
					attempts.Add(1)
					return apierrors.NewForbidden(schema.GroupResource{}, object.GetName(), errors.New("exceeded quota: keys"))
				}
				return c.Create(ctx, object, options...)
			},
		})
	})
	w.run(key)
	refusing.Store(true)
	w.must(w.env.Client.Delete(t.Context(), w.only()))
	g.Eventually(attempts.Load).WithTimeout(patience).Should(BeNumerically(">=", 3))
	g.Expect(key.Ready()).To(MatchError(And(HavePrefix("the bootstrap key is not accepted: create APIKey"), HaveSuffix("exceeded quota: keys"))))
	g.Expect(strings.Count(w.log.String(), "exceeded quota")).To(Equal(1), "what does not change is logged once")
	refusing.Store(false)
	w.awaitSettled(key)

	pause, former := retries(), time.Duration(0)
	for range 5 {
		next := pause()
		g.Expect(next).To(BeNumerically(">", former))
		former = next
	}
	g.Expect(pause()).To(BeNumerically(">=", 5*time.Second))
}

func TestAKeyThatIsThereIsMadeAManagerUnlessItsLabelSaysOtherwise(t *testing.T) {
	for name, test := range map[string]struct{ patch, want string }{
		"made before there were managers":  {`{"metadata": {"labels": {"keys.squirrel.dev/manager": null}}}`, "true"},
		"not to be a manager by its owner": {`{"metadata": {"labels": {"keys.squirrel.dev/manager": "false"}}}`, "false"},
	} {
		t.Run(name, func(t *testing.T) {
			w, g := newWorld(t), NewWithT(t)
			w.run(w.key())
			object := w.only()
			w.patch(object, test.patch)
			w.run(w.key())
			g.Expect(w.only().Labels).To(HaveKeyWithValue("keys.squirrel.dev/manager", test.want))
			g.Expect(w.only().UID).To(Equal(object.UID))
		})
	}
}

func TestProcessesWithOneFileShareItsKey(t *testing.T) {
	w, g := newWorld(t), NewWithT(t)
	formerKey := w.key()
	stop, _ := w.start(formerKey)
	w.awaitSettled(formerKey)
	stop() // or it tells of its end
	former := w.content()
	w.must(os.Remove(w.file))
	keys := make([]*Key, 5)
	for i := range keys {
		keys[i] = w.key()
	}
	for _, key := range keys {
		w.start(key)
	}
	for _, key := range keys {
		w.awaitSettled(key)
	}
	g.Expect(w.labelled()).To(HaveLen(2))
	g.Expect(w.reason(w.content())).To(BeEmpty())
	g.Eventually(func() authn.Reason { return w.reason(former) }).WithTimeout(patience).Should(Equal(authn.ReasonKeyDeactivated))
	g.Expect(w.log.String()).NotTo(ContainSubstring("not accepted"))
	g.Eventually(func() int { return strings.Count(w.log.String(), "level=WARN") }).WithTimeout(patience).
		Should(Equal(1), "one of them ends the former key")
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
	anObjectOfAnotherToken := func(name string) *v1alpha1.APIKey {
		return &v1alpha1.APIKey{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1alpha1.LabelBootstrap: "true"}},
			Spec:       v1alpha1.APIKeySpec{AppName: "another", ReadAccess: true, TokenHash: token.Hash("of-another")},
		}
	}
	const another = `there is another APIKey "NAME": delete it, or label it keys.squirrel.dev/bootstrap=true if its tokenHash is that of the key file`
	for name, test := range map[string]struct {
		obstacle func(name string) *v1alpha1.APIKey
		want     string
	}{
		"its app name": {anAppNameThatIsHeld,
			`App name "NAME" is held by APIKey "holder": deactivate or delete that key, or create this one with another app name.`},
		"its name":                {anObjectWithoutTheLabel, another},
		"its name, and the label": {anObjectOfAnotherToken, another},
	} {
		t.Run(name, func(t *testing.T) {
			w, g := newWorld(t), NewWithT(t)
			key := w.key()
			held := test.obstacle(key.name())
			held.Namespace = w.namespace
			w.must(w.env.Client.Create(t.Context(), held))
			g.Eventually(func() bool {
				w.must(w.env.Client.Get(t.Context(), client.ObjectKeyFromObject(held), held))
				return apikey.IsIssued(held)
			}).WithTimeout(patience).Should(BeTrue())
			w.start(key)

			want := "the bootstrap key is not accepted: " + strings.ReplaceAll(test.want, "NAME", key.name())
			g.Eventually(key.Ready).WithTimeout(patience).Should(MatchError(want))
			w.must(w.env.Client.Delete(t.Context(), held))
			w.awaitSettled(key)
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
	w.start(key)

	g.Eventually(key.Ready).WithTimeout(patience).Should(MatchError(
		MatchRegexp("^the bootstrap key is not accepted: list the APIKeys with the label keys.squirrel.dev/bootstrap: .*the API is away$")))
	away.Store(false)
	w.awaitSettled(key)
	g.Expect(strings.Count(w.log.String(), "level=WARN")).To(Equal(1), "what does not change is logged once")
}

// roundTripper does what it is to do with a call to the API.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

// console is the built program.
type console struct {
	*operator.Process
	w *world
}

// startConsole starts the program. Once it serves, the key file is there.
func (w *world) startConsole() console {
	w.Helper()
	c := w.launchConsole()
	c.Address("console")
	return c
}

func (w *world) launchConsole() console {
	w.Helper()
	return console{w: w, Process: operator.Start(w.T, w.env.Config, "console", "--namespace="+w.namespace, "--api-key-file="+w.file,
		"--plaintext", "--listen-address="+operator.AnyPort, "--health-probe-bind-address="+operator.AnyPort, "--shutdown-delay=0s")}
}

// status of the answer to a list of keys.
func (c console) status(key string) int {
	c.w.Helper()
	status, _ := c.get("http://"+c.Address("console")+"/api/v1/api-keys", key)
	return status
}

// ready returns what the console says of its readiness.
func (c console) ready() (text string) {
	c.w.Helper()
	_, text = c.get("http://"+c.Address("health")+"/readyz", "")
	return text
}

func (c console) get(url, key string) (status int, body string) {
	c.w.Helper()
	request, err := http.NewRequestWithContext(c.w.Context(), http.MethodGet, url, nil)
	c.w.must(err)
	request.Header.Set("Authorization", "Bearer "+key)
	response, err := http.DefaultClient.Do(request)
	c.w.must(err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	c.w.must(err)
	return response.StatusCode, string(content)
}

// awaitAccepted waits until a key is accepted, which until then is never answered as one that is not good.
func (c console) awaitAccepted(key string) {
	c.w.Helper()
	g := NewWithT(c.w)
	g.Eventually(func() int {
		got := c.status(key)
		g.Expect(got).NotTo(Equal(http.StatusUnauthorized), "Invariant 4: until it is accepted, the console cannot know")
		return got
	}).WithTimeout(patience).Should(Equal(http.StatusOK))
}

func TestTheConsoleMakesItsKeyAgainWhenItsAPIKeyOrTheDefinitionOfAllIsDeleted(t *testing.T) {
	t.Parallel()
	w, g := newWorldIn(t, testenv.Start(t)), NewWithT(t)
	console := w.startConsole()
	key := w.content()
	console.awaitAccepted(key)
	first := w.only()

	w.must(w.env.Client.Delete(t.Context(), first))
	g.Eventually(w.onlyUID).WithTimeout(patience).ShouldNot(Or(BeEmpty(), Equal(first.UID)))
	console.awaitAccepted(key)

	definition := func(command string) {
		_, err := w.env.Kubectl(t, command, "--kustomize=../../config/crd")
		w.must(err)
	}
	definition("delete")
	g.Eventually(console.ready).WithTimeout(patience).Should(Equal(
		"the bootstrap key is not accepted: list the APIKeys with the label keys.squirrel.dev/bootstrap: " +
			"the server could not find the requested resource (get apikeys.keys.squirrel.dev)\n"))
	g.Expect(console.status(key)).To(Equal(http.StatusServiceUnavailable), "it is not a wrong key")
	definition("apply")
	console.awaitAccepted(key)
	g.Eventually(console.ready).WithTimeout(patience).Should(Equal("ok\n"))
	g.Eventually(func() string {
		_, count := console.get("http://"+console.Address("console")+"/api/v1/api-keys/count", key)
		return count
	}).WithTimeout(patience).Should(Equal(`{"errorCode":0,"errorMessage":null,"payload":1}`), "the list starts again, too")
	g.Expect(strings.Count(console.Printed(), "Created the APIKey of the bootstrap key")).To(Equal(3))
}

func TestTheConsoleRotatesItsKeyWhenTheFileIsDeletedAndItStartsAnew(t *testing.T) {
	w, g := newWorld(t), NewWithT(t)
	first := w.startConsole()
	former := w.content()
	first.awaitAccepted(former)
	g.Expect(first.Stop()).To(Succeed())

	second := w.startConsole()
	g.Expect(w.content()).To(Equal(former))
	second.awaitAccepted(former)
	g.Expect(second.Stop()).To(Succeed())

	w.must(os.Remove(w.file))
	third := w.startConsole()
	current := w.content()
	third.awaitAccepted(current)
	g.Eventually(func() int { return third.status(former) }).WithTimeout(patience).Should(Equal(http.StatusUnauthorized))
	g.Expect(third.Stop()).To(Succeed())

	w.must(os.Chmod(w.file, 0o604))
	refusing := w.launchConsole()
	g.Expect(refusing.Exit()).To(Equal("exit status 1"))
	g.Expect(refusing.Printed()).To(ContainSubstring("everybody can get at the key file " + w.file + " (mode 0604)"))
	for _, process := range []console{first, second, third, refusing} {
		g.Expect(process.Printed()).NotTo(Or(ContainSubstring(former), ContainSubstring(current)), "Invariant 1")
	}
}

func TestAKeyIsReadyOnlyWhenThisProcessAcceptsIt(t *testing.T) {
	w, g := newWorld(t), NewWithT(t)
	deaf := authn.NewAuthenticator(authn.NewKeyring(), 0, time.Now) // it never hears of any key
	key := w.key(func(config *Config) { config.Authenticator = deaf })
	stop, ended := w.start(key)

	g.Eventually(func() authn.Reason { return w.reason(w.content()) }).WithTimeout(patience).Should(BeEmpty(), "others accept it")
	g.Expect(key.Ready()).NotTo(Succeed())
	stop()
	g.Expect(ended).To(Receive(BeNil()), "it ends when it is told to")
	g.Expect(key.Ready()).NotTo(Succeed())
}
