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
	"squirrel.dev/apikey-operator/test/framework"
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

// fixture is a namespace with a console process.
type fixture struct {
	*testenv.Fixture
	console *operator.Process
	// url of the page.
	url string
	// key is the bootstrap key.
	key string
}

// newFixture returns a fixture whose console is ready. A controller must run.
func newFixture(t testing.TB, env *testenv.Env) *fixture {
	t.Helper()
	f := &fixture{Fixture: testenv.NewFixture(t, env)}
	file := filepath.Join(t.TempDir(), ".api_key")
	f.start(env.Config, "--api-key-file="+file)
	framework.Eventually(f, "the bootstrap key is accepted", func() bool {
		return strings.Contains(f.console.Output(), "API key authentication ready")
	})
	content, err := os.ReadFile(file)
	framework.Must(f, err)
	f.key = strings.TrimSpace(string(content))
	return f
}

// start starts the console process.
func (f *fixture) start(config *rest.Config, args ...string) {
	f.Helper()
	f.console = operator.Start(f, config, append([]string{
		"console", "--plaintext", "--namespace=" + f.Namespace, "--shutdown-delay=0s",
		"--listen-address=" + operator.AnyPort, "--health-probe-bind-address=" + operator.AnyPort,
	}, args...)...)
	f.url = "http://" + f.console.Address("console") + "/"
}

// enter opens the page as somebody does whose browser keeps this key from an earlier time.
func (f *fixture) enter(key string) *tab {
	f.Helper()
	p := open(f, f.url)
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
func (f *fixture) issue(appName string, change ...func(*v1alpha1.APIKeySpec)) (issued string) {
	f.Helper()
	issued = token.New()
	f.declare(appName, append(change, func(spec *v1alpha1.APIKeySpec) {
		spec.TokenHash, spec.TokenHint = token.Hash(issued), token.Hint(issued)
	})...)
	framework.Eventually(f, appName+" is accepted", func() bool { return f.status("GET", "api-keys/count", issued) == http.StatusOK })
	return issued
}

// declare declares a key with read access and any hash.
func (f *fixture) declare(appName string, change ...func(*v1alpha1.APIKeySpec)) {
	f.Helper()
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, GenerateName: "test-"},
		Spec:       v1alpha1.APIKeySpec{AppName: appName, ReadAccess: true, TokenHash: token.Hash(token.New())},
	}
	for _, c := range change {
		c(&key.Spec)
	}
	framework.Must(f, f.Env.Client.Create(f.Context(), key))
}

// awaitActive waits until the console shows this many keys that are active.
func (f *fixture) awaitActive(count int) {
	f.Helper()
	framework.Eventually(f, fmt.Sprintf("%d keys are active", count), func() bool {
		_, body := f.ask("GET", "api-keys/count?active_only=true", f.key)
		return body == fmt.Sprintf(`{"errorCode":0,"errorMessage":null,"payload":%d}`, count)
	})
}

// awaitEnded waits until the end of an app's key is on record.
func (f *fixture) awaitEnded(appName string) {
	f.Helper()
	framework.Eventually(f, "the key of "+appName+" has ended", func() bool {
		keys := &v1alpha1.APIKeyList{}
		framework.Must(f, f.Env.Client.List(f.Context(), keys, client.InNamespace(f.Namespace)))
		return slices.ContainsFunc(keys.Items, func(key v1alpha1.APIKey) bool {
			return key.Spec.AppName == appName && apikey.IsRetired(&key)
		})
	})
}

// spec returns what is declared of the key of an app.
func (f *fixture) spec(appName string) (found v1alpha1.APIKeySpec) {
	f.Helper()
	keys := &v1alpha1.APIKeyList{}
	framework.Must(f, f.Env.Client.List(f.Context(), keys, client.InNamespace(f.Namespace)))
	for i := range keys.Items {
		if keys.Items[i].Spec.AppName == appName {
			return keys.Items[i].Spec
		}
	}
	f.Fatalf("there is no key of %s", appName)
	return found
}

// deactivate ends the key of an app by the Kubernetes API, and waits until the console refuses its token.
func (f *fixture) deactivate(appName, issued string) {
	f.Helper()
	keys := &v1alpha1.APIKeyList{}
	framework.Must(f, f.Env.Client.List(f.Context(), keys, client.InNamespace(f.Namespace)))
	for i := range keys.Items {
		if key := &keys.Items[i]; key.Spec.AppName == appName {
			before := key.DeepCopy()
			key.Spec.Active = new(false)
			framework.Must(f, f.Env.Client.Patch(f.Context(), key, client.MergeFrom(before)))
		}
	}
	framework.Eventually(f, appName+" is refused", func() bool { return f.status("GET", "api-keys/count", issued) == http.StatusUnauthorized })
}

// status asks the API without the page, and returns the status of the answer.
func (f *fixture) status(method, path, key string) int {
	f.Helper()
	status, _ := f.ask(method, path, key)
	return status
}

func (f *fixture) ask(method, path, key string) (status int, body string) {
	f.Helper()
	request, err := http.NewRequestWithContext(f.Context(), method, f.url+"api/v1/"+path, strings.NewReader(`{}`))
	framework.Must(f, err)
	request.Header.Set("X-Api-Key", key)
	if method == http.MethodPost {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	framework.Must(f, err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	framework.Must(f, err)
	return response.StatusCode, string(content)
}

// TestConsole has one controller for all: each of its tests is about a namespace of its own.
func TestConsole(t *testing.T) {
	env := testenv.Shared(t)
	operator.StartController(t, env.Config)
	for name, test := range map[string]func(*fixture){
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
			test(newFixture(t, env))
		})
	}
}
