// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
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
	"squirrel.dev/apikey-operator/console/api"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/runcontroller"
	"squirrel.dev/apikey-operator/test/framework/testenv"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// fixture is a namespace with a controller, and a process with an authenticator for its keys.
type fixture struct {
	*testenv.Fixture
	file          string // of the key
	keys          *api.KeyCache
	authenticator *authn.Authenticator
	log           *framework.Buffer

	stopController func()
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	t.Parallel()
	return newFixtureIn(t, testenv.Shared(t))
}

func newFixtureIn(t *testing.T, env *testenv.Env) *fixture {
	t.Helper()
	f := &fixture{Fixture: testenv.NewFixture(t, env), file: filepath.Join(t.TempDir(), ".api_key"), log: &framework.Buffer{}}
	f.stopController = runcontroller.Start(t, env, f.Namespace)
	keyring := authn.NewKeyring()
	f.keys, f.authenticator = api.NewKeyCache(keyring), authn.NewAuthenticator(keyring, 0, time.Now)
	var running sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	running.Go(func() { _ = f.keys.Run(ctx, f.Env.Client, f.Namespace) })
	t.Cleanup(func() { stop(); running.Wait() })
	return f
}

// key returns the key of the fixture's file, as a process reads it when it starts.
func (f *fixture) key(change ...func(*Config)) *Key {
	f.Helper()
	config := Config{
		File:          f.file,
		Namespace:     f.Namespace,
		Client:        f.Env.Client,
		Authenticator: f.authenticator,
		Await:         f.keys.Await,
		Log:           slog.New(slog.NewTextHandler(f.log, nil)),
	}
	for _, c := range change {
		c(&config)
	}
	key, err := New(config)
	framework.Must(f, err)
	return key
}

// run runs the key until the end of the test. It waits until the key is ready, and returns the token in its file.
func (f *fixture) run(key *Key) string {
	f.Helper()
	f.start(key)
	f.awaitReady(key)
	return f.content()
}

// start runs the key until stop is called or the test ends. The channel gets the result of Run.
func (f *fixture) start(key *Key) (stop func(), ended <-chan error) {
	f.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() { result <- key.Run(ctx) })
	stop = func() { cancel(); running.Wait() }
	f.Cleanup(stop)
	return stop, result
}

func (f *fixture) awaitReady(key *Key) {
	f.Helper()
	NewWithT(f).Eventually(key.Ready).WithTimeout(framework.Timeout).Should(Succeed())
}

// content of the key file.
func (f *fixture) content() string {
	f.Helper()
	content, err := os.ReadFile(f.file)
	framework.Must(f, err)
	return strings.TrimSpace(string(content))
}

// reason is why the process does not accept a token; empty when it does.
func (f *fixture) reason(key string) authn.Reason {
	return f.authenticator.Decide(authn.Request{
		Namespace: f.Namespace, Credential: authn.NewCredential(key), Access: authn.Read | authn.Write,
	}).Reason
}

// only returns the one APIKey that is labelled as one of a key file.
func (f *fixture) only() *v1alpha1.APIKey {
	f.Helper()
	keys := f.labelled()
	if len(keys) != 1 {
		f.Fatalf("%d keys are labelled", len(keys))
	}
	return &keys[0]
}

// onlyUID returns the UID of the APIKey of the key file, if there is one now.
func (f *fixture) onlyUID() types.UID {
	f.Helper()
	for _, key := range f.labelled() {
		return key.UID
	}
	return ""
}

func (f *fixture) labelled() []v1alpha1.APIKey {
	f.Helper()
	var keys v1alpha1.APIKeyList
	framework.Must(f, f.Env.Client.List(f.Context(), &keys, client.InNamespace(f.Namespace), client.MatchingLabels{v1alpha1.LabelBootstrap: "true"}))
	return keys.Items
}

// patch changes an APIKey as its owner would.
func (f *fixture) patch(key *v1alpha1.APIKey, patch string) {
	f.Helper()
	framework.Must(f, f.Env.Client.Patch(f.Context(), key, client.RawPatch("application/merge-patch+json", []byte(patch))))
}

func TestInvariant1_TheKeyIsAcceptedAndOnlyItsHashIsStored(t *testing.T) {
	f, g := newFixture(t), NewWithT(t)
	key := f.key()
	g.Expect(key.Ready()).To(MatchError("the bootstrap key is not accepted: its APIKey has not been created yet"))
	stop, _ := f.start(key)
	f.awaitReady(key)
	stop()
	content := f.content()
	g.Expect(f.reason(content)).To(BeEmpty())

	name := nameOf(content)
	object := f.only()
	want := v1alpha1.APIKeySpec{AppName: name, ReadAccess: true, WriteAccess: true, Active: new(true),
		TokenHash: token.Hash(content), TokenHint: content[:7]}
	g.Expect(object.Name).To(Equal(name))
	g.Expect(object.Labels).To(Equal(map[string]string{"keys.squirrel.dev/bootstrap": "true", "keys.squirrel.dev/manager": "true"}))
	g.Expect(cmp.Diff(want, object.Spec)).To(BeEmpty())
	g.Expect(f.log.String()).To(ContainSubstring(fmt.Sprintf(`msg="API key authentication ready (key file: %s)" apikey=%s`, f.file, name)))
	for where, text := range map[string]string{"the log": f.log.String(), "the key, printed": fmt.Sprintf("%+v", key)} {
		g.Expect(text).NotTo(ContainSubstring(content), "Invariant 1: %s has the token", where)
	}

	again := f.run(f.key())
	g.Expect(again).To(Equal(content), "a restart keeps the key")
	g.Expect(f.only().UID).To(Equal(object.UID))
}

func TestRun_ANewFileDeactivatesTheKeyOfTheFormerOne(t *testing.T) {
	f, g := newFixture(t), NewWithT(t)
	former := f.run(f.key())
	framework.Must(f, f.Env.Client.Create(t.Context(), &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "bootstrap-of-another-owner"},
		Spec:       v1alpha1.APIKeySpec{AppName: "bootstrap", ReadAccess: true, WriteAccess: true, TokenHash: token.Hash("of-another-owner")},
	}))
	framework.Must(f, os.Remove(f.file))
	current := f.run(f.key())

	g.Expect(f.reason(current)).To(BeEmpty())
	g.Eventually(func() authn.Reason { return f.reason(former) }).WithTimeout(framework.Timeout).Should(Equal(authn.ReasonKeyDeactivated))
	g.Eventually(f.log.String).WithTimeout(framework.Timeout).Should(ContainSubstring(fmt.Sprintf(`level=ERROR msg="The bootstrap key is not accepted" `+
		`err="the key of the file %s was deactivated (APIKey \"%s\"), which is final: `, f.file, nameOf(former))), "the other console logs it")
	g.Eventually(func() authn.Reason { return f.reason("of-another-owner") }).WithTimeout(framework.Timeout).Should(BeEmpty(), "which has no label")
	g.Expect(f.labelled()).To(HaveLen(2), "the former one is not deleted")
	g.Expect(f.log.String()).To(ContainSubstring(fmt.Sprintf(`level=WARN `+
		`msg="Deactivated the bootstrap key of another key file, which this one replaces" deactivated=%s apikey=%s keyFile=%s`,
		nameOf(former), nameOf(current), f.file)), "a warning for consoles that use the other file")
}

func nameOf(key string) string {
	return namePrefix + strings.TrimPrefix(token.Hash(key), "sha256:")[:2*nameHashBytes]
}

func TestRun_TheFormerKeyIsAcceptedUntilTheNewOneIs(t *testing.T) {
	f, g := newFixture(t), NewWithT(t)
	former := f.run(f.key())
	f.stopController()
	framework.Must(f, os.Remove(f.file))
	key := f.key()
	f.start(key)

	g.Eventually(f.labelled).WithTimeout(framework.Timeout).Should(HaveLen(2))
	for _, key := range f.labelled() {
		g.Expect(*key.Spec.Active).To(BeTrue(), "APIKey %q is not replaced yet", key.Name)
	}
	g.Expect(f.reason(former)).To(BeEmpty())
	g.Expect(key.Ready()).NotTo(Succeed())

	runcontroller.Start(t, f.Env, f.Namespace)
	f.awaitReady(key)
	g.Expect(f.reason(f.content())).To(BeEmpty())
	g.Eventually(func() authn.Reason { return f.reason(former) }).WithTimeout(framework.Timeout).Should(Equal(authn.ReasonKeyDeactivated))
}

func TestRun_AHashConflictIsFinalAndTheFormerKeyStaysActive(t *testing.T) {
	f, g := newFixture(t), NewWithT(t)
	formerKey := f.key()
	stop, _ := f.start(formerKey)
	f.awaitReady(formerKey)
	former := f.content()
	stop()
	framework.Must(f, os.Remove(f.file))
	key := f.key()
	holder := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "holder"},
		Spec:       v1alpha1.APIKeySpec{AppName: "Holder", ReadAccess: true, TokenHash: token.Hash(f.content())},
	}
	framework.Must(f, f.Env.Client.Create(f.Context(), holder))
	g.Eventually(func() bool {
		framework.Must(f, f.Env.Client.Get(f.Context(), client.ObjectKeyFromObject(holder), holder))
		return apikey.IsIssued(holder)
	}).WithTimeout(framework.Timeout).Should(BeTrue())

	f.run(key) // it is given up, and then ready
	g.Expect(f.log.String()).To(ContainSubstring(fmt.Sprintf(`level=ERROR msg="The bootstrap key is not accepted" `+
		`err="another APIKey has the key of the file %s (APIKey \"holder\" already has this token hash: delete that key, or import `+
		`another token): delete that APIKey, or delete the file to generate a new key, and restart"`, f.file)))
	g.Expect(f.only().Name).To(Equal(nameOf(former)), "nothing is left of the key that is given up")
	g.Expect(*f.only().Spec.Active).To(BeTrue())
	g.Expect(f.reason(former)).To(BeEmpty())
}

func TestRun_AnEndedKeyIsGivenUpUntilItsFileIsDeleted(t *testing.T) {
	t.Parallel()
	for end, patch := range map[string]string{
		"was deactivated": `{"spec": {"active": false}}`,
		"has expired":     `{"spec": {"expiresAt": "2026-01-01T00:00:00Z"}}`,
	} {
		t.Run(end, func(t *testing.T) {
			f, g := newFixture(t), NewWithT(t)
			content := f.run(f.key())
			object := f.only()
			f.patch(object, patch)
			other := &v1alpha1.APIKey{
				ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "of-another-file", Labels: map[string]string{v1alpha1.LabelBootstrap: "true"}},
				Spec:       v1alpha1.APIKeySpec{AppName: "of another file", ReadAccess: true, TokenHash: token.Hash("of-another-file")},
			}
			framework.Must(f, f.Env.Client.Create(t.Context(), other))

			f.run(f.key())
			g.Expect(f.reason(content)).NotTo(BeEmpty())
			g.Expect(f.log.String()).To(ContainSubstring(fmt.Sprintf(`level=ERROR msg="The bootstrap key is not accepted" `+
				`err="the key of the file %s %s (APIKey \"%s\"), which is final: delete the file and restart, so that a new key is generated"`,
				f.file, end, object.Name)))
			framework.Must(f, f.Env.Client.Get(t.Context(), client.ObjectKeyFromObject(other), other))
			g.Expect(*other.Spec.Active).To(BeTrue(), "an ended key replaces no other key")

			framework.Must(f, os.Remove(f.file))
			g.Expect(f.reason(f.run(f.key()))).To(BeEmpty())
		})
	}
}

func TestRun_AnExpiryThatIsNotOnRecordIsNotFinal(t *testing.T) {
	f, g := newFixture(t), NewWithT(t)
	first := f.key()
	stop, _ := f.start(first)
	f.awaitReady(first)
	stop()
	content, object := f.content(), f.only()
	f.stopController() // it would record the expiry
	f.patch(object, `{"spec": {"expiresAt": "2026-01-01T00:00:00Z"}}`)
	key := f.key()
	f.start(key)
	want := fmt.Sprintf("the bootstrap key is not accepted: APIKey %q has expired by the clock of this process, and the controller has "+
		"not recorded that yet", object.Name)
	g.Eventually(key.Ready).WithTimeout(framework.Timeout).Should(MatchError(want))

	f.patch(object, `{"spec": {"expiresAt": null}}`)
	f.awaitReady(key)
	g.Expect(f.reason(content)).To(BeEmpty())
}

func TestRun_CreatesADeletedAPIKeyAgainAtTheNextStart(t *testing.T) {
	f, g := newFixture(t), NewWithT(t)
	first := f.key()
	stop, _ := f.start(first)
	f.awaitReady(first)
	stop()
	content, former := f.content(), f.only()
	framework.Must(f, f.Env.Client.Delete(t.Context(), former))
	g.Eventually(func() authn.Reason { return f.reason(content) }).WithTimeout(framework.Timeout).Should(Equal(authn.ReasonKeyUnknown))
	g.Expect(first.Ready()).To(MatchError(fmt.Sprintf(`the bootstrap key is not accepted: APIKey %q was deleted or has ended`, former.Name)),
		"before Run has seen it")

	g.Expect(f.run(f.key())).To(Equal(content))
	g.Expect(f.reason(content)).To(BeEmpty())
	g.Expect(f.only().UID).NotTo(Equal(former.UID))
}

func TestRun_CreatesADeletedAPIKeyAgain(t *testing.T) {
	f, g := newFixture(t), NewWithT(t)
	keys := []*Key{f.key(), f.key()} // of two processes
	for _, key := range keys {
		f.run(key)
	}
	ready := func() int {
		return strings.Count(f.log.String(), `msg="API key authentication ready (key file: `+f.file)
	}
	content, former := f.content(), f.only()
	for _, want := range []int{4, 6} {
		framework.Must(f, f.Env.Client.Delete(t.Context(), former))
		g.Eventually(func() types.UID { return f.onlyUID() }).WithTimeout(framework.Timeout).ShouldNot(Or(BeEmpty(), Equal(former.UID)))
		// A process that has not seen the deletion is ready, too.
		g.Eventually(ready).WithTimeout(framework.Timeout).Should(Equal(want), "both processes log each time")
		for _, key := range keys {
			f.awaitReady(key)
		}
		g.Expect(f.reason(content)).To(BeEmpty())
		former = f.only()
	}
	name := nameOf(content)
	g.Expect(f.log.String()).To(ContainSubstring(fmt.Sprintf(`level=WARN msg="The bootstrap key is not accepted, retrying" `+
		`err="APIKey \"%s\" was deleted or has ended"`, name)))
	g.Expect(strings.Count(f.log.String(), `msg="Created the APIKey of the bootstrap key" apikey=`+name)).To(Equal(3), "one process each time")
}

func TestRun_ADeletedAPIKeyIsNotCreatedAgainWithoutItsFile(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(f *fixture) error{
		`neither APIKey \"NAME\" nor the key file FILE exists: restart to generate a new key`: func(f *fixture) error {
			return os.Remove(f.file)
		},
		`APIKey \"NAME\" does not exist, and the key file FILE holds another key since this process has started: restart to use that key`: func(f *fixture) error {
			return os.WriteFile(f.file, []byte(newKey()), 0o600)
		},
	} {
		t.Run(want, func(t *testing.T) {
			f, g := newFixture(t), NewWithT(t)
			key := f.key()
			_, ended := f.start(key)
			f.awaitReady(key)
			content := f.content()
			framework.Must(f, change(f))
			g.Consistently(key.Ready).WithTimeout(400*time.Millisecond).Should(Succeed(), "the file is not read while the APIKey exists")
			framework.Must(f, f.Env.Client.Delete(t.Context(), f.only()))

			g.Eventually(ended).WithTimeout(framework.Timeout).Should(Receive(BeNil()))
			g.Expect(key.Ready()).To(Succeed(), "other keys work")
			g.Expect(f.reason(content)).To(Equal(authn.ReasonKeyUnknown))
			g.Expect(f.labelled()).To(BeEmpty())
			g.Expect(f.log.String()).To(ContainSubstring(`level=ERROR msg="The bootstrap key is not accepted" err="` +
				strings.NewReplacer("NAME", nameOf(content), "FILE", f.file).Replace(want) + `"`))
		})
	}
}

func TestRun_GivesUpAKeyThatIsDeactivated(t *testing.T) {
	f, g := newFixture(t), NewWithT(t)
	key := f.key()
	_, ended := f.start(key)
	f.awaitReady(key)
	content, object := f.content(), f.only()
	f.patch(object, `{"spec": {"active": false}}`)

	g.Eventually(ended).WithTimeout(framework.Timeout).Should(Receive(BeNil()))
	g.Expect(key.Ready()).To(Succeed(), "other keys work")
	g.Expect(f.log.String()).To(ContainSubstring(fmt.Sprintf(`level=ERROR msg="The bootstrap key is not accepted" `+
		`err="the key of the file %s was deactivated (APIKey \"%s\"), which is final: delete the file and restart, so that a new key is generated"`,
		f.file, object.Name)))
	framework.Must(f, f.Env.Client.Delete(t.Context(), object))
	g.Eventually(func() authn.Reason { return f.reason(content) }).WithTimeout(framework.Timeout).Should(Equal(authn.ReasonKeyUnknown))
	g.Expect(f.labelled()).To(BeEmpty(), "a key that was deactivated is not created again")
}

func TestRun_GivesUpADeletedKeyWhoseHashAnEndedKeyHas(t *testing.T) {
	f, g := newFixture(t), NewWithT(t)
	key := f.key()
	_, ended := f.start(key)
	f.awaitReady(key)
	former := f.only()
	copied := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "copy"},
		Spec:       v1alpha1.APIKeySpec{AppName: "Copy", ReadAccess: true, Active: new(false), TokenHash: token.Hash(f.content())},
	}
	framework.Must(f, f.Env.Client.Create(t.Context(), copied))
	g.Eventually(time.Now).WithTimeout(framework.Timeout).Should(BeTemporally(">=", copied.CreationTimestamp.Add(time.Second)), "the copy is the older one")
	framework.Must(f, f.Env.Client.Delete(t.Context(), former))

	g.Eventually(ended).WithTimeout(framework.Timeout).Should(Receive(BeNil()))
	g.Expect(key.Ready()).To(Succeed(), "other keys work")
	g.Expect(f.log.String()).To(ContainSubstring(fmt.Sprintf(`level=ERROR msg="The bootstrap key is not accepted" `+
		`err="another APIKey has the key of the file %s (APIKey \"copy\" already has this token hash: delete that key, or import `+
		`another token): delete that APIKey, or delete the file to generate a new key, and restart"`, f.file)))
	g.Expect(f.labelled()).To(BeEmpty())
}

func TestRun_RetriesARefusedCreationWithBackoff(t *testing.T) {
	f, g := newFixture(t), NewWithT(t)
	var refusing atomic.Bool
	var attempts atomic.Int32
	key := f.key(func(config *Config) {
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
	f.run(key)
	refusing.Store(true)
	framework.Must(f, f.Env.Client.Delete(t.Context(), f.only()))
	g.Eventually(attempts.Load).WithTimeout(framework.Timeout).Should(BeNumerically(">=", 3))
	g.Expect(key.Ready()).To(MatchError(And(HavePrefix("the bootstrap key is not accepted: create APIKey"), HaveSuffix("exceeded quota: keys"))))
	g.Expect(strings.Count(f.log.String(), "exceeded quota")).To(Equal(1), "a repeated error is logged once")
	refusing.Store(false)
	f.awaitReady(key)

	delay, former := newBackoff(), time.Duration(0)
	for range 5 {
		next := delay()
		g.Expect(next).To(BeNumerically(">", former))
		former = next
	}
	g.Expect(delay()).To(BeNumerically(">=", 5*time.Second))
}

func TestRun_LabelsAnExistingAPIKeyAsManagerUnlessItHasTheLabel(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ patch, want string }{
		"created by an older console": {`{"metadata": {"labels": {"keys.squirrel.dev/manager": null}}}`, "true"},
		"labelled by its owner":       {`{"metadata": {"labels": {"keys.squirrel.dev/manager": "false"}}}`, "false"},
	} {
		t.Run(name, func(t *testing.T) {
			f, g := newFixture(t), NewWithT(t)
			f.run(f.key())
			object := f.only()
			f.patch(object, test.patch)
			f.run(f.key())
			g.Expect(f.only().Labels).To(HaveKeyWithValue("keys.squirrel.dev/manager", test.want))
			g.Expect(f.only().UID).To(Equal(object.UID))
		})
	}
}

func TestRun_ProcessesWithOneFileShareItsKey(t *testing.T) {
	f, g := newFixture(t), NewWithT(t)
	formerKey := f.key()
	stop, _ := f.start(formerKey)
	f.awaitReady(formerKey)
	stop() // it would log that the key was deactivated
	former := f.content()
	framework.Must(f, os.Remove(f.file))
	keys := make([]*Key, 5)
	for i := range keys {
		keys[i] = f.key()
	}
	for _, key := range keys {
		f.start(key)
	}
	for _, key := range keys {
		f.awaitReady(key)
	}
	g.Expect(f.labelled()).To(HaveLen(2))
	g.Expect(f.reason(f.content())).To(BeEmpty())
	g.Eventually(func() authn.Reason { return f.reason(former) }).WithTimeout(framework.Timeout).Should(Equal(authn.ReasonKeyDeactivated))
	g.Expect(f.log.String()).NotTo(ContainSubstring("not accepted"))
	g.Eventually(func() int { return strings.Count(f.log.String(), "level=WARN") }).WithTimeout(framework.Timeout).
		Should(Equal(1), "one process deactivates the former key")
}

func TestReady_ReturnsTheObstacleUntilItIsGone(t *testing.T) {
	t.Parallel()
	appNameHolder := func(name string) *v1alpha1.APIKey {
		return &v1alpha1.APIKey{
			ObjectMeta: metav1.ObjectMeta{Name: "holder"},
			Spec:       v1alpha1.APIKeySpec{AppName: name, ReadAccess: true, TokenHash: token.Hash("of-the-holder")},
		}
	}
	objectWithoutLabel := func(name string) *v1alpha1.APIKey {
		return &v1alpha1.APIKey{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       v1alpha1.APIKeySpec{AppName: "another", ReadAccess: true},
		}
	}
	objectOfAnotherToken := func(name string) *v1alpha1.APIKey {
		return &v1alpha1.APIKey{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1alpha1.LabelBootstrap: "true"}},
			Spec:       v1alpha1.APIKeySpec{AppName: "another", ReadAccess: true, TokenHash: token.Hash("of-another")},
		}
	}
	const another = `another APIKey "NAME" exists: delete it, or label it keys.squirrel.dev/bootstrap=true if its tokenHash is that of the key file`
	for name, test := range map[string]struct {
		obstacle func(name string) *v1alpha1.APIKey
		want     string
	}{
		"its app name": {appNameHolder,
			`App name "NAME" is held by APIKey "holder": deactivate or delete that key, or create this one with another app name.`},
		"its name":                {objectWithoutLabel, another},
		"its name, and the label": {objectOfAnotherToken, another},
	} {
		t.Run(name, func(t *testing.T) {
			f, g := newFixture(t), NewWithT(t)
			key := f.key()
			obstacle := test.obstacle(key.name())
			obstacle.Namespace = f.Namespace
			framework.Must(f, f.Env.Client.Create(t.Context(), obstacle))
			g.Eventually(func() bool {
				framework.Must(f, f.Env.Client.Get(t.Context(), client.ObjectKeyFromObject(obstacle), obstacle))
				return apikey.IsIssued(obstacle)
			}).WithTimeout(framework.Timeout).Should(BeTrue())
			f.start(key)

			want := "the bootstrap key is not accepted: " + strings.ReplaceAll(test.want, "NAME", key.name())
			g.Eventually(key.Ready).WithTimeout(framework.Timeout).Should(MatchError(want))
			framework.Must(f, f.Env.Client.Delete(t.Context(), obstacle))
			f.awaitReady(key)
			g.Expect(f.reason(f.content())).To(BeEmpty())
		})
	}
}

func TestRun_WaitsForTheKubernetesAPI(t *testing.T) {
	f, g := newFixture(t), NewWithT(t)
	var away atomic.Bool
	away.Store(true)
	config := rest.CopyConfig(f.Env.Config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			if away.Load() {
				return nil, errors.New("the API is away")
			}
			return next.RoundTrip(request)
		})
	})
	unreliable, err := client.NewWithWatch(config, client.Options{Scheme: f.Env.Scheme, Mapper: f.Env.Client.RESTMapper()})
	framework.Must(f, err)
	key := f.key(func(config *Config) { config.Client = unreliable })
	f.start(key)

	g.Eventually(key.Ready).WithTimeout(framework.Timeout).Should(MatchError(
		MatchRegexp("^the bootstrap key is not accepted: list the APIKeys with the label keys.squirrel.dev/bootstrap: .*the API is away$")))
	away.Store(false)
	f.awaitReady(key)
	g.Expect(strings.Count(f.log.String(), "level=WARN")).To(Equal(1), "a repeated error is logged once")
}

// roundTripper is a function as an http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

// console is a process of the built program.
type console struct {
	*operator.Process
	f *fixture
}

// startConsole starts a console, and waits until it serves. The key file exists then.
func (f *fixture) startConsole() console {
	f.Helper()
	c := f.launchConsole()
	c.Address("console")
	return c
}

func (f *fixture) launchConsole() console {
	f.Helper()
	return console{f: f, Process: operator.Start(f, f.Env.Config, "console", "--namespace="+f.Namespace, "--api-key-file="+f.file,
		"--plaintext", "--listen-address="+operator.AnyPort, "--health-probe-bind-address="+operator.AnyPort, "--shutdown-delay=0s")}
}

// status returns the status of a list of keys with a key.
func (c console) status(key string) int {
	c.f.Helper()
	status, _ := c.get("http://"+c.Address("console")+"/api/v1/api-keys", key)
	return status
}

// ready returns the response of the readiness probe.
func (c console) ready() (text string) {
	c.f.Helper()
	_, text = c.get("http://"+c.Address("health")+"/readyz", "")
	return text
}

func (c console) get(url, key string) (status int, body string) {
	c.f.Helper()
	request, err := http.NewRequestWithContext(c.f.Context(), http.MethodGet, url, nil)
	framework.Must(c.f, err)
	request.Header.Set("Authorization", "Bearer "+key)
	response, err := http.DefaultClient.Do(request)
	framework.Must(c.f, err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	framework.Must(c.f, err)
	return response.StatusCode, string(content)
}

// awaitAccepted waits until the console accepts a key. Until then the console must not refuse it as invalid.
func (c console) awaitAccepted(key string) {
	c.f.Helper()
	g := NewWithT(c.f)
	g.Eventually(func() int {
		got := c.status(key)
		g.Expect(got).NotTo(Equal(http.StatusUnauthorized), "Invariant 4: until it is accepted, the console cannot know")
		return got
	}).WithTimeout(framework.Timeout).Should(Equal(http.StatusOK))
}

func TestConsole_CreatesItsKeyAgainWhenTheAPIKeyOrTheCRDIsDeleted(t *testing.T) {
	t.Parallel()
	f, g := newFixtureIn(t, testenv.Start(t)), NewWithT(t)
	console := f.startConsole()
	key := f.content()
	console.awaitAccepted(key)
	first := f.only()

	framework.Must(f, f.Env.Client.Delete(t.Context(), first))
	g.Eventually(f.onlyUID).WithTimeout(framework.Timeout).ShouldNot(Or(BeEmpty(), Equal(first.UID)))
	console.awaitAccepted(key)

	definition := func(command string) {
		_, err := f.Env.Kubectl(t, command, "--kustomize=../../config/crd")
		framework.Must(f, err)
	}
	definition("delete")
	g.Eventually(console.ready).WithTimeout(framework.Timeout).Should(Equal(
		"the bootstrap key is not accepted: list the APIKeys with the label keys.squirrel.dev/bootstrap: " +
			"the server could not find the requested resource (get apikeys.keys.squirrel.dev)\n"))
	g.Expect(console.status(key)).To(Equal(http.StatusServiceUnavailable), "the key is not invalid")
	definition("apply")
	console.awaitAccepted(key)
	g.Eventually(console.ready).WithTimeout(framework.Timeout).Should(Equal("ok\n"))
	g.Eventually(func() string {
		_, count := console.get("http://"+console.Address("console")+"/api/v1/api-keys/count", key)
		return count
	}).WithTimeout(framework.Timeout).Should(Equal(`{"errorCode":0,"errorMessage":null,"payload":1}`), "the keys are listed again")
	g.Expect(strings.Count(console.Output(), "Created the APIKey of the bootstrap key")).To(Equal(3))
}

func TestConsole_RotatesItsKeyWhenTheFileIsDeletedBeforeARestart(t *testing.T) {
	f, g := newFixture(t), NewWithT(t)
	first := f.startConsole()
	former := f.content()
	first.awaitAccepted(former)
	g.Expect(first.Stop()).To(Succeed())

	second := f.startConsole()
	g.Expect(f.content()).To(Equal(former))
	second.awaitAccepted(former)
	g.Expect(second.Stop()).To(Succeed())

	framework.Must(f, os.Remove(f.file))
	third := f.startConsole()
	current := f.content()
	third.awaitAccepted(current)
	g.Eventually(func() int { return third.status(former) }).WithTimeout(framework.Timeout).Should(Equal(http.StatusUnauthorized))
	g.Expect(third.Stop()).To(Succeed())

	framework.Must(f, os.Chmod(f.file, 0o604))
	failing := f.launchConsole()
	g.Expect(failing.Exit()).To(Equal("exit status 1"))
	g.Expect(failing.Output()).To(ContainSubstring("all users may read or write the key file " + f.file + " (mode 0604)"))
	for _, process := range []console{first, second, third, failing} {
		g.Expect(process.Output()).NotTo(Or(ContainSubstring(former), ContainSubstring(current)), "Invariant 1")
	}
}

func TestReady_NeedsThisProcessToAcceptTheKey(t *testing.T) {
	f, g := newFixture(t), NewWithT(t)
	empty := authn.NewAuthenticator(authn.NewKeyring(), 0, time.Now)
	key := f.key(func(config *Config) { config.Authenticator = empty })
	stop, ended := f.start(key)

	g.Eventually(func() authn.Reason { return f.reason(f.content()) }).WithTimeout(framework.Timeout).Should(BeEmpty(), "others accept it")
	g.Expect(key.Ready()).NotTo(Succeed())
	stop()
	g.Expect(ended).To(Receive(BeNil()), "Run returns when its context is done")
	g.Expect(key.Ready()).NotTo(Succeed())
}
