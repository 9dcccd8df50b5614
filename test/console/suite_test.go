// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build console

package console_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// repository is the directory of this repository.
var repository string

// theBrowser is the browser that all tests use, each in a tab of its own.
var theBrowser context.Context

func TestMain(m *testing.M) {
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	testenv.Main(m)
}

func setUp() (err error) {
	if repository, err = controlplane.FindRepository(); err != nil {
		return err
	}
	dir := filepath.Join(repository, "bin", "browser") // where it stays until the next run, because the browser ends with this process
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	theBrowser, err = startBrowser(context.Background(), dir)
	return err
}

// world is a console process for a namespace of its own, and what people do there without the page.
type world struct {
	testing.TB
	env       *testenv.Env
	namespace string
	console   *operator.Process
	// url of the page.
	url string
	// key is the bootstrap key.
	key string
}

// newWorld returns a world whose console is ready. A controller must run.
func newWorld(t testing.TB, env *testenv.Env) *world {
	t.Helper()
	w := &world{TB: t, env: env, namespace: env.Namespace(t)}
	file := filepath.Join(t.TempDir(), ".api_key")
	w.start(env.Config, "--api-key-file="+file)
	w.eventually("the bootstrap key is accepted", func() bool {
		return strings.Contains(w.console.Printed(), "API key authentication ready")
	})
	content, err := os.ReadFile(file)
	w.must(err)
	w.key = strings.TrimSpace(string(content))
	return w
}

// start starts the console process.
func (w *world) start(config *rest.Config, args ...string) {
	w.Helper()
	w.console = operator.Start(w.TB, config, append([]string{
		"console", "--plaintext", "--namespace=" + w.namespace, "--shutdown-delay=0s",
		"--listen-address=" + operator.AnyPort, "--health-probe-bind-address=" + operator.AnyPort,
	}, args...)...)
	w.url = "http://" + w.console.Address("console") + "/"
}

// enter opens the page as somebody does whose browser keeps this key from an earlier time.
func (w *world) enter(key string) *tab {
	w.Helper()
	p := open(w.TB, w.url)
	p.signIn(key)
	return p
}

// signIn gives the page its API key.
func (p *tab) signIn(key string) {
	p.Helper()
	p.fill("textbox", "API key", key)
	p.click("button", "Save")
	p.sees("in all")
}

// issue declares a key with read access by the Kubernetes API, and returns its token when the console accepts it.
func (w *world) issue(appName string, change ...func(*v1alpha1.APIKeySpec)) (issued string) {
	w.Helper()
	issued = token.New()
	w.declare(appName, append(change, func(spec *v1alpha1.APIKeySpec) {
		spec.TokenHash, spec.TokenHint = token.Hash(issued), token.Hint(issued)
	})...)
	w.eventually(appName+" is accepted", func() bool { return w.status("GET", "api-keys/count", issued) == http.StatusOK })
	return issued
}

// declare declares a key with read access and any hash.
func (w *world) declare(appName string, change ...func(*v1alpha1.APIKeySpec)) {
	w.Helper()
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, GenerateName: "test-"},
		Spec:       v1alpha1.APIKeySpec{AppName: appName, ReadAccess: true, TokenHash: token.Hash(token.New())},
	}
	for _, c := range change {
		c(&key.Spec)
	}
	w.must(w.env.Client.Create(w.Context(), key))
}

// awaitActive waits until the console shows this many keys that are active.
func (w *world) awaitActive(count int) {
	w.Helper()
	w.eventually(fmt.Sprintf("%d keys are active", count), func() bool {
		_, body := w.ask("GET", "api-keys/count?active_only=true", w.key)
		return body == fmt.Sprintf(`{"errorCode":0,"errorMessage":null,"payload":%d}`, count)
	})
}

// awaitEnded waits until the end of an app's key is on record.
func (w *world) awaitEnded(appName string) {
	w.Helper()
	w.eventually("the key of "+appName+" has ended", func() bool {
		keys := &v1alpha1.APIKeyList{}
		w.must(w.env.Client.List(w.Context(), keys, client.InNamespace(w.namespace)))
		return slices.ContainsFunc(keys.Items, func(key v1alpha1.APIKey) bool {
			return key.Spec.AppName == appName && apikey.IsRetired(&key)
		})
	})
}

// spec returns what is declared of the key of an app.
func (w *world) spec(appName string) (found v1alpha1.APIKeySpec) {
	w.Helper()
	keys := &v1alpha1.APIKeyList{}
	w.must(w.env.Client.List(w.Context(), keys, client.InNamespace(w.namespace)))
	for i := range keys.Items {
		if keys.Items[i].Spec.AppName == appName {
			return keys.Items[i].Spec
		}
	}
	w.Fatalf("there is no key of %s", appName)
	return found
}

// deactivate ends the key of an app by the Kubernetes API, and waits until the console refuses its token.
func (w *world) deactivate(appName, issued string) {
	w.Helper()
	keys := &v1alpha1.APIKeyList{}
	w.must(w.env.Client.List(w.Context(), keys, client.InNamespace(w.namespace)))
	for i := range keys.Items {
		if key := &keys.Items[i]; key.Spec.AppName == appName {
			before := key.DeepCopy()
			key.Spec.Active = new(false)
			w.must(w.env.Client.Patch(w.Context(), key, client.MergeFrom(before)))
		}
	}
	w.eventually(appName+" is refused", func() bool { return w.status("GET", "api-keys/count", issued) == http.StatusUnauthorized })
}

// status asks the API without the page, and returns the status of the answer.
func (w *world) status(method, path, key string) int {
	w.Helper()
	status, _ := w.ask(method, path, key)
	return status
}

func (w *world) ask(method, path, key string) (status int, body string) {
	w.Helper()
	request, err := http.NewRequestWithContext(w.Context(), method, w.url+"api/v1/"+path, strings.NewReader(`{}`))
	w.must(err)
	request.Header.Set("X-Api-Key", key)
	if method == http.MethodPost {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	w.must(err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	w.must(err)
	return response.StatusCode, string(content)
}

// TestConsole has one controller for all: each of its tests is about a namespace of its own.
func TestConsole(t *testing.T) {
	env := testenv.Shared(t)
	operator.StartController(t, env.Config)
	for name, test := range map[string]func(*world){
		"AKeyIsTriedBeforeItIsKept":                            aKeyIsTriedBeforeItIsKept,
		"AKeyThatIsForgottenWhileAnotherIsTriedStaysForgotten": aKeyThatIsForgottenWhileAnotherIsTriedStaysForgotten,
		"ABrowserThatStoresNothingIsEnough":                    aBrowserThatStoresNothingIsEnough,
		"AKeyThatIsNoLongerGoodLeadsToTheSettings":             aKeyThatIsNoLongerGoodLeadsToTheSettings,
		"ANewKeyOutlivesALostAPIKey":                           aNewKeyOutlivesALostAPIKey,
		"ATokenIsShownOnceAndKeptNowhere":                      aTokenIsShownOnceAndKeptNowhere,
		"AnIDIsCopied":                                         anIDIsCopied,
		"AKeyExpiresWhenItsCreatorSays":                        aKeyExpiresWhenItsCreatorSays,
		"AFailedCreationKeepsItsInput":                         aFailedCreationKeepsItsInput,
		"AReadOnlyKeyIsToldSo":                                 aReadOnlyKeyIsToldSo,
		"AKeyThatDoesNotManageIsToldHowItCould":                aKeyThatDoesNotManageIsToldHowItCould,
		"OnlyTheKeyThatIsNamedIsDeactivated":                   onlyTheKeyThatIsNamedIsDeactivated,
		"TheOwnKeyNeedsAnExtraStep":                            theOwnKeyNeedsAnExtraStep,
		"AllCanBeDoneWithTheKeyboard":                          allCanBeDoneWithTheKeyboard,
		"NamesAreTextInEveryScript":                            namesAreTextInEveryScript,
		"KeysAreSearchedSortedAndPaged":                        keysAreSearchedSortedAndPaged,
		"AnyNumberOfKeysIsShown":                               anyNumberOfKeysIsShown,
		"AConsoleThatIsStartingIsWaitedFor":                    aConsoleThatIsStartingIsWaitedFor,
		"NoDialogWaitsForEver":                                 noDialogWaitsForEver,
		"WhatAnotherTabDoesWithTheAPIKeyIsDoneHere":            whatAnotherTabDoesWithTheAPIKeyIsDoneHere,
		"WhatTheBrowserForbidsDoesNotHappenUnnoticed":          whatTheBrowserForbidsDoesNotHappenUnnoticed,
		"EachViewCanBeUsedByAllInLight":                        eachViewCanBeUsedByAll("light", 1280, 800),
		"EachViewCanBeUsedByAllInDark":                         eachViewCanBeUsedByAll("dark", 1280, 800),
		"EachViewCanBeUsedByAllOnANarrowScreen":                eachViewCanBeUsedByAll("narrow", 390, 844),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(newWorld(t, env))
		})
	}
}

func (w *world) eventually(what string, condition func() bool) {
	w.Helper()
	testenv.Eventually(w.TB, patience, poll, what, condition)
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}
