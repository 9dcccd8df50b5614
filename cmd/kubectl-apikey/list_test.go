// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
)

func TestList_PrintsTheFormatsOfKubectl(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.types("list", "-o", "json")
	terminal.run("create", "Frontend App", "-r")
	terminal.types("list", "-o", "json")
	terminal.types("list", "-o", "yaml")
	terminal.types("list", "-o", "name")
	terminal.types("list", "-o", "jsonpath={.items[*].spec.appName}")
	terminal.types("list", "-o", "custom-columns=NAME:.metadata.name")
	terminal.types("deactivate", terminal.key("Frontend App").Name, "-o", "name")
	terminal.assertGolden()
}

func TestList_AllNamespacesShowsTheNamespace(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.run("create", "Frontend App", "-r")
	key := terminal.key("Frontend App")
	got := terminal.run("list", "-A")
	if !strings.HasPrefix(got.stdout, "NAMESPACE ") || !strings.Contains(got.stdout, "\n"+terminal.namespace+"   "+string(key.UID)) {
		t.Errorf("the list is:\n%s", got.stdout)
	}
}

func TestList_SelectsAndSortsAsKubectlDoes(t *testing.T) {
	terminal := newTerminal(t)
	for name, team := range map[string]string{"a": "red", "b": "blue", "c": "red"} {
		terminal.apply(name, func(key *v1alpha1.APIKey) { key.Labels = map[string]string{"team": team} })
	}
	custom := "custom-columns=NAME:.metadata.name,APP:.spec.appName,HOLDER:.status.secretName"
	terminal.types("list", "-l", "team=red", "--sort-by=.metadata.name", "-o", "name")
	terminal.types("list", "-l", "team in (red),team!=blue", "--sort-by={.spec.appName}", "-o", custom)
	terminal.types("list", "--field-selector=metadata.name=b", "-o", custom, "--no-headers")
	terminal.types("list", "--field-selector=spec.readAccess=true")
	terminal.types("list", "--sort-by=metadata.name", "--show-labels")
	terminal.types("list", "--sort-by=.metadata.name", "-L", "team", "-o", "wide", "--chunk-size=1")
	terminal.types("list", "--sort-by=.spec.nothing")
	terminal.types("list", "--sort-by=.metadata.name", "--template={{range .items}}{{.metadata.name}} {{end}}")
	terminal.types("count", "-l", "team=red", "--chunk-size=0")
	terminal.assertGolden()
	for _, flags := range [][]string{
		{"-l", "team=red", "--sort-by=.metadata.name", "-o", "name"},
		{"-l", "team=red", "--sort-by=.metadata.name", "-o", custom},
		{"--field-selector=metadata.name=b", "-o", custom, "--no-headers"},
		{"-l", "team=blue", "-o", "jsonpath={.items[*].metadata.name}"},
		{"-l", "team=blue", "-o", "yaml"},
		{"-l", "team=blue", "-o", "json"},
	} {
		want, err := terminal.env.Kubectl(t, append([]string{"get", "apikeys", "-n", terminal.namespace}, flags...)...)
		framework.Must(t, err)
		got := terminal.run(append([]string{"list"}, flags...)...)
		if diff := cmp.Diff(want, got.stdout); diff != "" {
			t.Errorf("list %v (-kubectl +got):\n%s", flags, diff)
		}
	}
}

const day = 24 * time.Hour

// ago returns a time as the status records it.
func ago(d time.Duration) *metav1.Time {
	return new(metav1.NewTime(time.Now().Add(-d).Truncate(time.Second)))
}

// record returns the record of a token that was issued and last used this long ago; 0 for never.
func record(issued, used time.Duration) v1alpha1.TokenRecord {
	r := v1alpha1.TokenRecord{Hash: token.Hash(token.New()), Hint: "sq_abcd"}
	if issued != 0 {
		r.NotBefore = ago(issued)
	}
	if used != 0 {
		r.LastUsedAt = ago(used)
	}
	return r
}

// issue records tokens of a key, as the controller does.
func (t *terminal) issue(name string, tokens ...v1alpha1.TokenRecord) {
	t.Helper()
	t.setStatus(name, func(status *v1alpha1.APIKeyStatus) { status.Tokens = tokens })
}

func (t *terminal) setStatus(name string, change func(*v1alpha1.APIKeyStatus)) {
	t.Helper()
	key := &v1alpha1.APIKey{}
	framework.Must(t, t.env.Client.Get(t.Context(), client.ObjectKey{Namespace: t.namespace, Name: name}, key))
	change(&key.Status)
	framework.Must(t, t.env.Client.Status().Update(t.Context(), key))
}

func inactive(key *v1alpha1.APIKey) { key.Spec.Active = new(false) }

func expiresIn(d time.Duration) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = ago(-d) }
}

func TestList_SelectsUnusedAndExpiringKeys(t *testing.T) {
	terminal := newTerminal(t)
	for _, test := range []struct {
		name         string
		issued, used time.Duration
		change       []func(*v1alpha1.APIKey)
	}{
		{"used", 200 * day, 3 * time.Hour, nil},
		{"unused", 200 * day, 100 * day, nil},
		{"unused-ended", 200 * day, 100 * day, []func(*v1alpha1.APIKey){inactive}},
		{"never-used", 100 * day, 0, nil},
		{"never-used-new", 10 * day, 0, nil},
		{"used-expiring", 200 * day, 1 * day, []func(*v1alpha1.APIKey){expiresIn(10 * day)}},
		{"unused-expiring", 200 * day, 100 * day, []func(*v1alpha1.APIKey){expiresIn(10 * day)}},
		{"expiring-later", 200 * day, 1 * day, []func(*v1alpha1.APIKey){expiresIn(40 * day)}},
		{"expired", 200 * day, 100 * day, []func(*v1alpha1.APIKey){expiresIn(-1 * day)}},
		{"expiring-ended", 200 * day, 1 * day, []func(*v1alpha1.APIKey){expiresIn(10 * day), inactive}},
	} {
		terminal.apply(test.name, test.change...)
		terminal.issue(test.name, record(test.issued, test.used))
	}
	terminal.apply("not-issued")
	byName := "--sort-by=.metadata.name"
	terminal.types("list", byName, "-o", "wide")
	terminal.types("list", "--unused=90d", byName)
	terminal.types("list", "--unused=90d", byName, "-o", "name")
	terminal.types("list", "--expiring=30d", byName, "-o", "name")
	terminal.types("list", "--expiring=30d", "--unused=90d", "-a", byName, "-o", "custom-columns=NAME:.metadata.name")
	terminal.types("list", "--unused=150d")
	terminal.types("count", "--unused=90d")
	terminal.types("count", "--expiring=45d", "--field-selector=spec.active=true")
	terminal.assertGolden()
}

// An installation may have no authenticators that report uses, or may have been upgraded only now.
func TestList_WarnsWhenNoUseIsOnRecord(t *testing.T) {
	terminal := newTerminal(t)
	terminal.apply("partner")
	terminal.issue("partner", record(100*day, 0))
	terminal.types("list", "--unused=90d", "-o", "name")
	terminal.types("count", "--unused=90d")
	terminal.types("list", "--unused=200d", "-o", "name")
	terminal.types("list", "-o", "name")
	terminal.assertGolden()
}

func TestStateOptions_CompareTimes(t *testing.T) {
	now := time.Now()
	at := func(d time.Duration) *metav1.Time { return new(metav1.NewTime(now.Add(d))) }
	for name, test := range map[string]struct {
		flags  []string
		expiry *metav1.Time
		tokens []v1alpha1.TokenRecord
		want   bool
	}{
		"last used exactly then":             {[]string{"--unused=90d"}, nil, []v1alpha1.TokenRecord{{NotBefore: at(-100 * day), LastUsedAt: at(-90 * day)}}, true},
		"last used a second later":           {[]string{"--unused=90d"}, nil, []v1alpha1.TokenRecord{{NotBefore: at(-100 * day), LastUsedAt: at(-90*day + time.Second)}}, false},
		"never used, issued exactly then":    {[]string{"--unused=90d"}, nil, []v1alpha1.TokenRecord{{NotBefore: at(-90 * day)}}, true},
		"never used, issued a second later":  {[]string{"--unused=90d"}, nil, []v1alpha1.TokenRecord{{NotBefore: at(-90*day + time.Second)}}, false},
		"used by the clock of the recorder":  {[]string{"--unused=1d"}, nil, []v1alpha1.TokenRecord{{NotBefore: at(-90 * day), LastUsedAt: at(time.Minute)}}, false},
		"only the superseded token is used":  {[]string{"--unused=90d"}, nil, []v1alpha1.TokenRecord{{NotBefore: at(-100 * day)}, {NotBefore: at(-200 * day), NotAfter: at(day), LastUsedAt: at(-day)}}, false},
		"rotated since":                      {[]string{"--unused=90d"}, nil, []v1alpha1.TokenRecord{{NotBefore: at(-10 * day)}, {NotBefore: at(-200 * day), NotAfter: at(day), LastUsedAt: at(-100 * day)}}, false},
		"no expiry":                          {[]string{"--expiring=30d"}, nil, []v1alpha1.TokenRecord{{NotBefore: at(-day)}}, false},
		"expires exactly then":               {[]string{"--expiring=30d"}, at(30 * day), []v1alpha1.TokenRecord{{NotBefore: at(-day)}}, true},
		"expires a second later":             {[]string{"--expiring=30d"}, at(30*day + time.Second), []v1alpha1.TokenRecord{{NotBefore: at(-day)}}, false},
		"expires now":                        {[]string{"--expiring=30d"}, at(0), []v1alpha1.TokenRecord{{NotBefore: at(-day)}}, false},
		"expires, but is not issued":         {[]string{"--expiring=30d"}, at(day), nil, false},
		"expires, and was used":              {[]string{"--expiring=30d", "--unused=1d"}, at(day), []v1alpha1.TokenRecord{{NotBefore: at(-day * 9), LastUsedAt: at(-time.Hour)}}, false},
		"expires, and was not used":          {[]string{"--expiring=30d", "--unused=1d"}, at(day), []v1alpha1.TokenRecord{{NotBefore: at(-day * 9)}}, true},
		"without flags, all keys":            {nil, at(-day), nil, true},
		"with --active-only, no expired key": {[]string{"-a"}, at(-day), []v1alpha1.TokenRecord{{NotBefore: at(-day)}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var o stateOptions
			flags := pflag.NewFlagSet("list", pflag.ContinueOnError)
			o.register(flags)
			framework.Must(t, flags.Parse(test.flags))
			framework.Must(t, o.validate())
			key := &v1alpha1.APIKey{Spec: v1alpha1.APIKeySpec{ExpiresAt: test.expiry}, Status: v1alpha1.APIKeyStatus{Tokens: test.tokens}}
			if got := o.selects(key, now); got != test.want {
				t.Errorf("selected: %t", got)
			}
		})
	}
}

// The clock of the laptop is a year ahead, as the program sees it.
func TestList_DoesNotTrustTheLocalClock(t *testing.T) {
	terminal := newTerminal(t)
	terminal.apply("partner", expiresIn(10*day))
	terminal.issue("partner", record(10*day, 0))
	terminal.withServerTime(-365 * day)
	for _, flag := range []string{"--unused=5d", "--expiring=30d"} {
		if got := terminal.run("list", flag, "-o", "name"); got != (result{}) {
			t.Errorf("list %s: %+v", flag, got)
		}
	}
	if got := terminal.run("list", "--expiring=400d", "-o", "name"); got.stdout != "apikey.keys.squirrel.dev/partner\n" {
		t.Errorf("list: %+v", got)
	}
}

// withServerTime makes the following commands see an API server whose clock differs.
func (t *terminal) withServerTime(ahead time.Duration) {
	t.Helper()
	t.throughProxy(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat)) // the proxy adds the other one behind it
			next.ServeHTTP(w, r)
		})
	})
}
