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
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

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

// repository is the root directory of the repository.
var repository string

// sharedBrowser is the browser of all tests. Each test has its own tab.
var sharedBrowser context.Context

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
	dir := filepath.Join(repository, "bin", "browser") // the next run removes it, because the browser ends with this process
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	sharedBrowser, err = startBrowser(context.Background(), dir)
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

// enter opens the page and enters an API key.
func (f *fixture) enter(key string) *tab {
	f.Helper()
	p := open(f, f.url)
	p.signIn(key)
	return p
}

// signIn enters the API key of the page.
func (p *tab) signIn(key string) {
	p.Helper()
	p.fill("textbox", "API key", key)
	p.click("button", "Save")
	p.sees("total")
}

// issue creates a key with read access through the Kubernetes API, and returns its token once the console accepts it.
func (f *fixture) issue(appName string, change ...func(*v1alpha1.APIKeySpec)) (issued string) {
	f.Helper()
	issued = token.New()
	f.createKey(appName, append(change, func(spec *v1alpha1.APIKeySpec) {
		spec.TokenHash, spec.TokenHint = token.Hash(issued), token.Hint(issued)
	})...)
	framework.Eventually(f, appName+" is accepted", func() bool { return f.status("GET", "api-keys/self", issued) == http.StatusOK })
	return issued
}

// notInName matches what the name of an object cannot contain.
var notInName = regexp.MustCompile(`[^a-z0-9]+`)

// createKey creates an APIKey with read access, and with the hash and the hint of a random token.
func (f *fixture) createKey(appName string, change ...func(*v1alpha1.APIKeySpec)) {
	f.Helper()
	imported := token.New()
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: f.Namespace, GenerateName: strings.Trim(notInName.ReplaceAllString(strings.ToLower("test "+appName), "-"), "-") + "-",
		},
		Spec: v1alpha1.APIKeySpec{AppName: appName, ReadAccess: true, TokenHash: token.Hash(imported), TokenHint: token.Hint(imported)},
	}
	for _, c := range change {
		c(&key.Spec)
	}
	framework.Must(f, f.Env.Client.Create(f.Context(), key))
}

// awaitActive waits until the console counts this many active keys.
func (f *fixture) awaitActive(count int) {
	f.Helper()
	framework.Eventually(f, fmt.Sprintf("%d keys are active", count), func() bool {
		_, body := f.request("GET", "api-keys/count?active_only=true", f.key)
		return body == fmt.Sprintf(`{"errorCode":0,"errorMessage":null,"payload":%d}`, count)
	})
}

// awaitEnded waits until the end of the key of an app is on record.
func (f *fixture) awaitEnded(appName string) {
	f.Helper()
	framework.Eventually(f, "the end of the key of "+appName+" is on record", func() bool {
		keys := &v1alpha1.APIKeyList{}
		framework.Must(f, f.Env.Client.List(f.Context(), keys, client.InNamespace(f.Namespace)))
		return slices.ContainsFunc(keys.Items, func(key v1alpha1.APIKey) bool {
			return key.Spec.AppName == appName && apikey.IsRetired(&key)
		})
	})
}

// spec returns the spec of the key of an app.
func (f *fixture) spec(appName string) (found v1alpha1.APIKeySpec) {
	f.Helper()
	keys := &v1alpha1.APIKeyList{}
	framework.Must(f, f.Env.Client.List(f.Context(), keys, client.InNamespace(f.Namespace)))
	for i := range keys.Items {
		if keys.Items[i].Spec.AppName == appName {
			return keys.Items[i].Spec
		}
	}
	f.Fatalf("no key has the app name %s", appName)
	return found
}

// patch changes the key of an app through the Kubernetes API.
func (f *fixture) patch(appName string, change func(*v1alpha1.APIKey)) {
	f.Helper()
	keys := &v1alpha1.APIKeyList{}
	framework.Must(f, f.Env.Client.List(f.Context(), keys, client.InNamespace(f.Namespace)))
	for i := range keys.Items {
		if key := &keys.Items[i]; key.Spec.AppName == appName {
			before := key.DeepCopy()
			change(key)
			framework.Must(f, f.Env.Client.Patch(f.Context(), key, client.MergeFrom(before)))
		}
	}
}

// record changes what the status records about the tokens of the key of an app, once it is issued.
func (f *fixture) record(appName string, change func(tokens []v1alpha1.TokenRecord)) {
	f.Helper()
	framework.Eventually(f, "the tokens of "+appName+" are recorded", func() bool {
		keys := &v1alpha1.APIKeyList{}
		framework.Must(f, f.Env.Client.List(f.Context(), keys, client.InNamespace(f.Namespace)))
		for i := range keys.Items {
			if key := &keys.Items[i]; key.Spec.AppName == appName && apikey.IsIssued(key) {
				change(key.Status.Tokens)
				return f.Env.Client.Status().Update(f.Context(), key) == nil // unless the controller writes it meanwhile
			}
		}
		return false
	})
}

// used returns a change of tokens: the newest one was issued and last used this long ago. A last use of 0 is never.
func used(issued, lastUse time.Duration) func([]v1alpha1.TokenRecord) {
	return func(tokens []v1alpha1.TokenRecord) {
		tokens[0].NotBefore, tokens[0].LastUsedAt = ago(issued), nil
		if lastUse != 0 {
			tokens[0].LastUsedAt = ago(lastUse)
		}
	}
}

// ago returns a time as the status records it.
func ago(d time.Duration) *metav1.Time {
	return new(metav1.NewTime(time.Now().Add(-d).Truncate(time.Second)))
}

// awaitUsed waits until the console lists this many keys with a last use.
func (f *fixture) awaitUsed(count int) {
	f.Helper()
	framework.Eventually(f, fmt.Sprintf("%d keys have a last use", count), func() bool {
		_, body := f.request("GET", "api-keys", f.key)
		return strings.Count(body, `"last_used_at":"`) == count
	})
}

// deactivate deactivates the key of an app through the Kubernetes API, and waits until the console refuses its token.
func (f *fixture) deactivate(appName, issued string) {
	f.Helper()
	f.patch(appName, func(key *v1alpha1.APIKey) { key.Spec.Active = new(false) })
	framework.Eventually(f, appName+" is refused", func() bool { return f.status("GET", "api-keys/count", issued) == http.StatusUnauthorized })
}

// setManager allows the key of an app to manage keys or not, and waits until the console has seen that.
func (f *fixture) setManager(appName, issued string, may bool) {
	f.Helper()
	f.patch(appName, func(key *v1alpha1.APIKey) {
		key.Labels = map[string]string{v1alpha1.LabelManager: strconv.FormatBool(may)}
	})
	framework.Eventually(f, "the console has seen the label", func() bool {
		_, body := f.request("GET", "api-keys/self", issued)
		return strings.Contains(body, fmt.Sprintf(`"may_manage":%t`, may))
	})
}

// status returns the status of a request to the API.
func (f *fixture) status(method, path, key string) int {
	f.Helper()
	status, _ := f.request(method, path, key)
	return status
}

func (f *fixture) request(method, path, key string) (status int, body string) {
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

// TestConsole has one controller for all tests. Each test has its own namespace.
func TestConsole(t *testing.T) {
	env := testenv.Shared(t)
	operator.StartController(t, env.Config)
	for name, test := range map[string]func(*fixture){
		"Settings_CheckAKeyBeforeTheyStoreIt":        settingsCheckAKeyBeforeTheyStoreIt,
		"Settings_ForgetAKeyWhileAnotherIsChecked":   settingsForgetAKeyWhileAnotherIsChecked,
		"Settings_WorkWithoutStorage":                settingsWorkWithoutStorage,
		"Settings_KeepAKeyForTheSession":             settingsKeepAKeyForTheSession,
		"Settings_ShowTheKeyOfThePage":               settingsShowTheKeyOfThePage,
		"Settings_OpenWhenTheKeyIsRefused":           settingsOpenWhenTheKeyIsRefused,
		"Create_KeepsItsInputWhenTheAPIKeyIsRefused": createKeepsItsInputWhenTheAPIKeyIsRefused,
		"Token_IsShownOnceAndStoredNowhere":          tokenIsShownOnceAndStoredNowhere,
		"Create_SetsTheExpiry":                       createSetsTheExpiry,
		"Create_KeepsItsInputAfterAnError":           createKeepsItsInputAfterAnError,
		"Page_OffersOnlyWhatItsKeyMayDo":             pageOffersOnlyWhatItsKeyMayDo,
		"Page_AddsTheSlashToItsPath":                 pageAddsTheSlashToItsPath,
		"Page_KeepsTheClockOfTheServer":              pageKeepsTheClockOfTheServer,
		"Proxy_AsksToSignInAgain":                    proxyAsksToSignInAgain,
		"Proxy_FailureIsRetried":                     proxyFailureIsRetried,
		"Proxy_WithBasicCredentials":                 proxyWithBasicCredentials,
		"Consoles_OfAHostKeepTheirKeys":              consolesOfAHostKeepTheirKeys,
		"Token_DialogNamesTheApp":                    tokenDialogNamesTheApp,
		"Create_KeepsTheChoiceOfExpiry":              createKeepsTheChoiceOfExpiry,
		"Dialogs_NameAnOutage":                       dialogsNameAnOutage,
		"Deactivate_OnlyTheChosenKey":                deactivateOnlyTheChosenKey,
		"Deactivate_KeysThatWereNeverIssued":         deactivateKeysThatWereNeverIssued,
		"Deactivate_TheKeyOfThePageNeedsForce":       deactivateTheKeyOfThePageNeedsForce,
		"Deactivate_NamesTheLastUse":                 deactivateNamesTheLastUse,
		"Keyboard_ReachesAllControls":                keyboardReachesAllControls,
		"Table_ShowsNamesAsText":                     tableShowsNamesAsText,
		"Table_SearchesSortsAndPages":                tableSearchesSortsAndPages,
		"Table_ShowsManyKeys":                        tableShowsManyKeys,
		"Table_ShowsStatesAndTheirReasons":           tableShowsStatesAndTheirReasons,
		"Table_ShowsATokenConflictAtOnce":            tableShowsATokenConflictAtOnce,
		"Table_MarksKeys":                            tableMarksKeys,
		"Table_Filters":                              tableFilters,
		"Table_ShowsTheLastUse":                      tableShowsTheLastUse,
		"Table_MarksKeysThatExpireSoon":              tableMarksKeysThatExpireSoon,
		"Table_FindsTheKeyOfAToken":                  tableFindsTheKeyOfAToken,
		"Table_KeepsItsSelectionInTheURL":            tableKeepsItsSelectionInTheURL,
		"Table_IsLeftAndFoundAgain":                  tableIsLeftAndFoundAgain,
		"Table_ReversesItsOrderOnANarrowScreen":      tableReversesItsOrderOnANarrowScreen,
		"Table_RefreshesItself":                      tableRefreshesItself,
		"Table_IgnoresTheClockOfTheBrowser":          tableIgnoresTheClockOfTheBrowser,
		"Keyboard_Shortcuts":                         keyboardShortcuts,
		"Detail_ShowsAKey":                           detailShowsAKey,
		"Detail_ShowsTheHandover":                    detailShowsTheHandover,
		"Detail_ShowsTheLastUseOfEachToken":          detailShowsTheLastUseOfEachToken,
		"Detail_NamesAnUnknownKey":                   detailNamesAnUnknownKey,
		"Detail_NamesTheDeploymentTool":              detailNamesTheDeploymentTool,
		"Detail_DeactivatesAKey":                     detailDeactivatesAKey,
		"Edit_ChangesAccessAndExpiry":                editChangesAccessAndExpiry,
		"Edit_TheKeyOfThePageNeedsForce":             editTheKeyOfThePageNeedsForce,
		"Rotate_ShowsTheNewTokenOnce":                rotateShowsTheNewTokenOnce,
		"Rotate_EndsATokenThatHasLeaked":             rotateEndsATokenThatHasLeaked,
		"Rotate_NamesTheSecretOfAMintedToken":        rotateNamesTheSecretOfAMintedToken,
		"Rotate_TheKeyOfThePage":                     rotateTheKeyOfThePage,
		"Rotate_NamesProblems":                       rotateNamesProblems,
		"Rotate_NamesAKeyThatIsDeleted":              rotateNamesAKeyThatIsDeleted,
		"Page_WaitsForAConsoleThatIsStarting":        pageWaitsForAConsoleThatIsStarting,
		"Dialogs_DoNotWaitForever":                   dialogsDoNotWaitForever,
		"Tabs_ShareTheAPIKey":                        tabsShareTheAPIKey,
		"ContentSecurityPolicy_IsEnforced":           contentSecurityPolicyIsEnforced,
		"Views_AreAccessibleInLight":                 viewsAreAccessible("light", 1280, 800),
		"Views_AreAccessibleInDark":                  viewsAreAccessible("dark", 1280, 800),
		"Views_AreAccessibleOnANarrowScreen":         viewsAreAccessible("narrow", 390, 844),
		"Views_AreAccessibleOnTheNarrowestScreen":    viewsAreAccessible("narrowest", 320, 640),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(newFixture(t, env))
		})
	}
}
