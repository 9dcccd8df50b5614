// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// Token hashes that are well-formed.
var (
	hashA = "sha256:" + strings.Repeat("0a", 32)
	hashB = "sha256:" + strings.Repeat("0b", 32)
)

// Causes of refusals that several tests expect.
const (
	secretPresenceImmutable = "spec: Invalid value: spec.secret cannot be added or removed after creation: " +
		"create a new APIKey, and deactivate this one"
	secretNameImmutable = "spec.secret: Invalid value: spec.secret.name is immutable, and cannot be added or removed: " +
		"create a new APIKey, and deactivate this one"
	tokenHashPresenceImmutable = "spec: Invalid value: spec.tokenHash cannot be added or removed after creation: " +
		"create a new APIKey, and deactivate this one"
	deactivationIsFinal = "spec.active: Invalid value: true: a deactivated key stays deactivated: create a new APIKey instead"
	noAccess            = "spec: Invalid value: a key needs at least one of readAccess and writeAccess"

	// rulesNotChecked is the cause that the API server adds if it does not run the rules because of an invalid field.
	rulesNotChecked = "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; " +
		"correct the existing errors to complete validation"
)

// step is a write of a whole spec, in YAML, and the causes of its refusal. Without causes, the API server accepts it.
type step struct {
	spec string
	want []string
}

// history is the writes of one object: the first step creates it, the later ones update it.
type history struct {
	rule  string
	steps []step
}

func accepted(spec string) step                  { return step{spec: spec} }
func refused(spec string, causes ...string) step { return step{spec: spec, want: causes} }

func onCreate(rule string, only step) history { return history{rule, []step{only}} }
func onUpdate(rule string, create step, rest ...step) history {
	return history{rule, append([]step{create}, rest...)}
}

// check writes the objects of the histories, and compares the API server's responses. Accepted objects must be readable by Go programs: one
// unreadable object would make every list fail.
func check(t *testing.T, histories ...history) {
	t.Helper()
	env := testenv.Shared(t)
	namespace := env.Namespace(t)
	for i, history := range histories {
		t.Run(history.rule, func(t *testing.T) {
			key := newObject(namespace, fmt.Sprintf("key-%d", i))
			write := func() error { return env.Client.Create(t.Context(), key) }
			for _, step := range history.steps {
				before := key.DeepCopy()
				key.Object["spec"] = parse(t, step.spec)
				err := write()
				if got, want := messageOf(err), invalid(key.GetName(), step.want); !sameMessage(t, env, got, want) {
					t.Fatalf("the API server's response to %s:\n got: %s\nwant: %s", step.spec, got, want)
				}
				if err != nil {
					key = before
					continue
				}
				if err := env.Client.Get(t.Context(), client.ObjectKeyFromObject(key), &v1alpha1.APIKey{}); err != nil {
					t.Fatalf("%s was accepted, but cannot be read: %v", step.spec, err)
				}
				write = func() error { return env.Client.Update(t.Context(), key) }
			}
		})
	}
}

// sameMessage compares messages of the API server. An older one names invalid values and limits differently.
func sameMessage(t *testing.T, env *testenv.Env, got, want string) bool {
	t.Helper()
	if got == want {
		return true
	}
	server, err := kubernetes.NewForConfigOrDie(env.Config).Discovery().ServerVersion()
	framework.Must(t, err)
	if version.MustParseGeneric(server.GitVersion).AtLeast(version.MustParseGeneric("1.34")) {
		return false
	}
	for _, difference := range []struct {
		pattern *regexp.Regexp
		common  string
	}{
		{regexp.MustCompile(`Invalid value: (?:"(?:[^"\\]|\\.)*"|null|true|false): `), "Invalid value: "},
		{regexp.MustCompile(`may not be longer than (\d+)`), "may not be more than $1 bytes"},
	} {
		got, want = difference.pattern.ReplaceAllString(got, difference.common), difference.pattern.ReplaceAllString(want, difference.common)
	}
	return got == want
}

func newObject(namespace, name string) *unstructured.Unstructured {
	key := &unstructured.Unstructured{}
	key.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("APIKey"))
	key.SetNamespace(namespace)
	key.SetName(name)
	return key
}

func parse(t *testing.T, document string) map[string]any {
	t.Helper()
	var object map[string]any
	if err := yaml.Unmarshal([]byte(document), &object); err != nil {
		t.Fatalf("%s: %v", document, err)
	}
	return object
}

// invalid returns the message with which the API server refuses an object for these causes.
func invalid(name string, causes []string) string {
	switch len(causes) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("APIKey.keys.squirrel.dev %q is invalid: %s", name, causes[0])
	default:
		return fmt.Sprintf("APIKey.keys.squirrel.dev %q is invalid: [%s]", name, strings.Join(causes, ", "))
	}
}

func messageOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestSchema_AppNameIsRequiredAndBounded(t *testing.T) {
	named := func(name string) string { return fmt.Sprintf("{appName: %q, readAccess: true}", name) }
	tooLong := []string{"spec.appName: Too long: may not be more than 255 bytes", rulesNotChecked}
	check(t,
		onCreate("missing", refused("{readAccess: true}", "spec.appName: Required value", rulesNotChecked)),
		onCreate("null", refused("{appName: null, readAccess: true}", "spec.appName: Required value", rulesNotChecked)),
		onCreate("not a string", refused("{appName: 1, readAccess: true}",
			`spec.appName: Invalid value: "integer": spec.appName in body must be of type string: "integer"`, rulesNotChecked)),
		onCreate("empty", refused(named(""),
			`spec.appName: Invalid value: "": spec.appName in body should be at least 1 chars long`,
			`spec.appName: Invalid value: appName must consist of printable characters, without leading or trailing space`)),
		onCreate("1 character", accepted(named("a"))),
		onCreate("255 characters", accepted(named(strings.Repeat("a", 255)))),
		onCreate("255 characters of 4 bytes", accepted(named(strings.Repeat("🐿", 255)))),
		onCreate("256 characters", refused(named(strings.Repeat("a", 256)), tooLong...)),
		onCreate("500 characters", refused(named(strings.Repeat("a", 500)), tooLong...)),
	)
}

func TestSchema_AppNameIsPrintableInAnyLanguage(t *testing.T) {
	var histories []history
	spec := func(name string) string { return fmt.Sprintf("{appName: %+q, readAccess: true}", name) }
	for rule, name := range map[string]string{
		"words":                          "Frontend App",
		"spaces in a row inside":         "Frontend  App",
		"punctuation":                    `~!@#$%^&*()_+{}|:"<>?,./;'[]\-=` + "`",
		"a single quote":                 "'",
		"Arabic, right to left":          "تطبيق الواجهة",
		"Hebrew, right to left":          "יישום חזית",
		"Hindi, with combining marks":    "फ़्रंटएंड ऐप",
		"Chinese":                        "前端应用",
		"an emoji":                       "🐿",
		"an emoji of several":            "👩\u200D👩\u200D👧\u200D👦 family",
		"a flag and a keycap":            "🇨🇭 1️⃣",
		"Persian, with U+200C inside":    "می\u200Cخواهم",
		"a combining accent (U+0301)":    "Cafe\u0301",
		"a left-over of invalid UTF-8":   "a\uFFFDb",
		"something that looks like YAML": "{a: b} # c",
	} {
		histories = append(histories, onCreate(rule, accepted(spec(name))))
	}
	for rule, name := range map[string]string{
		"only spaces":                      "   ",
		"a leading space":                  " a",
		"a trailing space":                 "a ",
		"a newline inside":                 "a\nb",
		"a newline at the end":             "a\n",
		"a carriage return":                "a\rb",
		"a tab":                            "a\tb",
		"a NUL":                            "a\x00b",
		"an escape":                        "a\x1b[31mb",
		"a DEL":                            "a\x7fb",
		"a C1 control (U+0085)":            "a\u0085b",
		"a line separator (U+2028)":        "a\u2028b",
		"a no-break space (U+00A0)":        "a\u00A0b",
		"an ideographic space (U+3000)":    "a\u3000b",
		"a zero-width space (U+200B)":      "a\u200Bb",
		"a byte order mark (U+FEFF)":       "\uFEFFa",
		"a bidi override (U+202E)":         "a\u202Eb",
		"a bidi isolate (U+2066)":          "a\u2066b",
		"a soft hyphen (U+00AD)":           "a\u00ADb",
		"only a Hangul filler (U+3164)":    "\u3164",
		"a blank Braille cell (U+2800)":    "a\u2800b",
		"a private character (U+E000)":     "a\uE000b",
		"U+200C at the start":              "\u200Ca",
		"U+200D at the end":                "a\u200D",
		"only U+200D":                      "\u200D",
		"an unassigned character (U+0378)": "a\u0378b",
	} {
		histories = append(histories, onCreate(rule, refused(spec(name),
			"spec.appName: Invalid value: appName must consist of printable characters, without leading or trailing space")))
	}
	check(t, histories...)
}

func TestSchema_AppNameIsImmutable(t *testing.T) {
	const immutable = "spec.appName: Invalid value: appName is immutable: create a new APIKey, and deactivate this one"
	check(t,
		onUpdate("changed", accepted("{appName: a, readAccess: true}"),
			refused("{appName: b, readAccess: true}", immutable)),
		onUpdate("changed in case only", accepted("{appName: a, readAccess: true}"),
			refused("{appName: A, readAccess: true}", immutable)),
		onUpdate("changed when deactivated", accepted("{appName: a, readAccess: true, active: false}"),
			refused("{appName: b, readAccess: true, active: false}", immutable)),
		onUpdate("removed", accepted("{appName: a, readAccess: true}"),
			refused("{readAccess: true}", "spec.appName: Required value", rulesNotChecked)),
	)
}

func TestSchema_AtLeastOneAccessIsTrue(t *testing.T) {
	check(t,
		onCreate("neither", refused("{appName: a}", noAccess)),
		onCreate("both false", refused("{appName: a, readAccess: false, writeAccess: false}", noAccess)),
		onCreate("both null", refused("{appName: a, readAccess: null, writeAccess: null}", noAccess)),
		onCreate("only read", accepted("{appName: a, readAccess: true}")),
		onCreate("only write", accepted("{appName: a, writeAccess: true}")),
		onCreate("not a boolean", refused("{appName: a, readAccess: 'yes'}",
			`spec.readAccess: Invalid value: "string": spec.readAccess in body must be of type boolean: "string"`, rulesNotChecked)),
		onUpdate("changed", accepted("{appName: a, readAccess: true}"),
			accepted("{appName: a, readAccess: true, writeAccess: true}"),
			accepted("{appName: a, writeAccess: true}"),
			refused("{appName: a}", noAccess),
			accepted("{appName: a, readAccess: true}")),
	)
}

func TestSchema_DeactivationIsFinal(t *testing.T) {
	check(t,
		onCreate("not a boolean", refused("{appName: a, readAccess: true, active: 'no'}",
			`spec.active: Invalid value: "string": spec.active in body must be of type boolean: "string"`, rulesNotChecked)),
		onCreate("deactivated from the start", accepted("{appName: a, readAccess: true, active: false}")),
		onUpdate("set back to true", accepted("{appName: a, readAccess: true}"),
			accepted("{appName: a, readAccess: true, active: false}"),
			refused("{appName: a, readAccess: true, active: true}", deactivationIsFinal)),
		onUpdate("removed", accepted("{appName: a, readAccess: true, active: false}"),
			refused("{appName: a, readAccess: true}", deactivationIsFinal)),
		onUpdate("set to null", accepted("{appName: a, readAccess: true, active: false}"),
			refused("{appName: a, readAccess: true, active: null}", deactivationIsFinal)),
		onUpdate("left out and written out mean the same", accepted("{appName: a, readAccess: true}"),
			accepted("{appName: a, readAccess: true, active: true}"),
			accepted("{appName: a, readAccess: true}")),
		onUpdate("all else of a deactivated key still changes", accepted("{appName: a, readAccess: true, active: false}"),
			accepted("{appName: a, writeAccess: true, active: false, expiresAt: '2027-06-01T00:00:00Z'}")),
	)
}

func TestSchema_ExpiresAtIsADateAndTime(t *testing.T) {
	const rule = "expiresAt must be a date and time in the years 1970 to 9999, such as 2027-06-01T00:00:00Z"
	at := func(instant string) string {
		return fmt.Sprintf("{appName: a, readAccess: true, expiresAt: %q}", instant)
	}
	format := func(instant string) []string {
		cause := fmt.Sprintf("spec.expiresAt: Invalid value: %q: spec.expiresAt in body must be of type date-time: %[1]q", instant)
		return []string{cause, rulesNotChecked}
	}
	outside := func(instant string) string {
		return fmt.Sprintf("spec.expiresAt: Invalid value: %q: %s", instant, rule)
	}
	check(t,
		onCreate("in the future", accepted(at("2999-06-01T00:00:00Z"))),
		onCreate("in the past", accepted(at("2001-06-01T00:00:00Z"))),
		onCreate("in 1970", accepted(at("1970-01-01T00:00:00Z"))),
		onCreate("in 9999", accepted(at("9999-12-30T23:59:59Z"))),
		onCreate("with a fraction and a zone", accepted(at("2027-06-01T00:00:00.123456789+02:00"))),
		onCreate("before 1970", refused(at("1969-12-31T23:59:59Z"), outside("1969-12-31T23:59:59Z"))),
		onCreate("the zero of Go", refused(at("0001-01-01T00:00:00Z"), outside("0001-01-01T00:00:00Z"))),
		onCreate("in 10000, by its zone", refused(at("9999-12-31T23:59:59-12:00"), outside("9999-12-31T23:59:59-12:00"))),
		onCreate("empty", refused(at(""), format("")...)),
		onCreate("a word", refused(at("tomorrow"), format("tomorrow")...)),
		onCreate("a date", refused(at("2027-06-01"), format("2027-06-01")...)),
		onCreate("without a zone", refused(at("2027-06-01T00:00:00"), format("2027-06-01T00:00:00")...)),
		onCreate("on 30 February", refused(at("2027-02-30T00:00:00Z"), format("2027-02-30T00:00:00Z")...)),
		onCreate("at 25 o'clock", refused(at("2027-06-01T25:00:00Z"), format("2027-06-01T25:00:00Z")...)),
		onCreate("a number", refused("{appName: a, readAccess: true, expiresAt: 1811808000}", format("int64")...)),
		// The following have the format date-time, but Go programs cannot decode them.
		onCreate("in lower case", refused(at("2027-06-01t00:00:00z"),
			`spec.expiresAt: Invalid value: "string": Invalid date-time formatted string 2027-06-01t00:00:00z: `+
				`parsing time "2027-06-01t00:00:00z" as "2006-01-02T15:04:05": cannot parse "t00:00:00z" as "T" evaluating rule: `+rule)),
		onCreate("with something behind it", refused(at("2027-06-01T00:00:00ZTea"),
			`spec.expiresAt: Invalid value: "string": Invalid date-time formatted string 2027-06-01T00:00:00ZTea: `+
				`parsing time "2027-06-01T00:00:00ZTea": extra text: "ZTea" evaluating rule: `+rule)),
		onCreate("with an impossible zone", refused(at("2027-06-01T00:00:00+99:99"),
			`spec.expiresAt: Invalid value: "string": Invalid date-time formatted string 2027-06-01T00:00:00+99:99: `+
				`parsing time "2027-06-01T00:00:00+99:99": extra text: "+99:99" evaluating rule: `+rule)),
		onUpdate("added, moved and removed", accepted("{appName: a, readAccess: true}"),
			accepted(at("2999-06-01T00:00:00Z")),
			accepted(at("2001-06-01T00:00:00Z")),
			refused(at("1969-12-31T23:59:59Z"), outside("1969-12-31T23:59:59Z")),
			accepted("{appName: a, readAccess: true, expiresAt: null}"),
			accepted("{appName: a, readAccess: true}")),
	)
}

// The end of a key is recorded in its status, which only the status subresource writes.
func TestSchema_ExpiresAtOfAnEndedKeyDoesNotBecomeLater(t *testing.T) {
	const (
		expiry = "expiresAt: '2026-06-01T00:00:00Z'"
		later  = "spec.expiresAt: Invalid value: a key that has ended stays ended, so expiresAt cannot become later or be removed: " +
			"create a new APIKey instead"
	)
	env := testenv.Shared(t)
	namespace := env.Namespace(t)
	for i, test := range []struct {
		change, before, after string
		want                  []string
	}{
		{"unchanged", expiry, expiry, nil},
		{"the same instant in another zone", expiry, "expiresAt: '2026-06-01T02:00:00+02:00'", nil},
		{"earlier", expiry, "expiresAt: '2026-05-31T23:59:59Z'", nil},
		{"a second later", expiry, "expiresAt: '2026-06-01T00:00:01Z'", []string{later}},
		{"in the future", expiry, "expiresAt: '2999-06-01T00:00:00Z'", []string{later}},
		{"removed", expiry, "", []string{later}},
		{"set to null", expiry, "expiresAt: null", []string{later}},
		{"later, and deactivated", expiry, "active: false, expiresAt: '2999-06-01T00:00:00Z'", []string{later}},
		{"later, and the access", expiry, "writeAccess: true, expiresAt: '2999-06-01T00:00:00Z'", []string{later}},
		{"only the access", expiry, "writeAccess: true, " + expiry, nil},
		{"only deactivated", expiry, "active: false, " + expiry, nil},
		{"added to a key without expiry", "active: false", "active: false, expiresAt: '2999-06-01T00:00:00Z'", nil},
		{"absent before and after", "active: false", "active: false", nil},
		{"later, of a deactivated key", "active: false, " + expiry, "active: false, expiresAt: '2999-06-01T00:00:00Z'", []string{later}},
	} {
		for _, isEnded := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, ended: %t", test.change, isEnded), func(t *testing.T) {
				key := newObject(namespace, fmt.Sprintf("key-%d-%t", i, isEnded))
				spec := func(fields string) map[string]any { return parse(t, "{appName: a, readAccess: true, "+fields+"}") }
				key.Object["spec"] = spec(test.before)
				want := ""
				if err := env.Client.Create(t.Context(), key); err != nil {
					t.Fatal(err)
				}
				if isEnded {
					want = invalid(key.GetName(), test.want)
					key.Object["status"] = parse(t, "{deactivatedAt: '2026-06-01T00:00:00Z'}")
					if err := env.Client.Status().Update(t.Context(), key); err != nil {
						t.Fatal(err)
					}
				}
				key.Object["spec"] = spec(test.after)
				if got := messageOf(env.Client.Update(t.Context(), key)); !sameMessage(t, env, got, want) {
					t.Errorf("the API server's response:\n got: %s\nwant: %s", got, want)
				}
			})
		}
	}
}

// The rule reads the status, but must refuse no status, even of an object that is older than the schema.
func TestSchema_ExpiresAtOfAnEndedKeyRefusesNoStatus(t *testing.T) {
	env := testenv.Shared(t)
	namespace := env.Namespace(t)
	for i, expiry := range []any{
		nil, "2026-06-01T00:00:00Z", "2026-06-01T00:00:00.123456789+02:00", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00Z",
		"9999-12-31T23:59:59-12:00",
	} {
		t.Run(fmt.Sprint(expiry), func(t *testing.T) {
			key := newObject(namespace, fmt.Sprintf("key-%d", i))
			key.Object["spec"] = parse(t, "{appName: a, readAccess: true}")
			if err := env.Client.Create(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			env.UpdateInEtcd(t, namespace, key.GetName(), func(object map[string]any) { object["spec"].(map[string]any)["expiresAt"] = expiry })
			for _, status := range []string{
				"{deactivatedAt: '2026-06-01T00:00:00Z'}", "{deactivatedAt: '2026-06-01T00:00:00Z', observedGeneration: 2}", "{observedGeneration: 3}",
			} {
				if err := env.Client.Get(t.Context(), client.ObjectKeyFromObject(key), key); err != nil {
					t.Fatal(err)
				}
				key.Object["status"] = parse(t, status)
				if err := env.Client.Status().Update(t.Context(), key); err != nil {
					t.Errorf("the status %s: %v", status, err)
				}
			}
		})
	}
}

func TestSchema_SecretIsNeitherAddedNorRemoved(t *testing.T) {
	const without, with = "{appName: a, readAccess: true}", "{appName: a, readAccess: true, secret: {}}"
	check(t,
		onCreate("not an object", refused("{appName: a, readAccess: true, secret: token}",
			`spec.secret: Invalid value: "string": spec.secret in body must be of type object: "string"`, rulesNotChecked)),
		onUpdate("added", accepted(without), refused(with, secretPresenceImmutable)),
		onUpdate("removed", accepted(with), refused(without, secretPresenceImmutable)),
		onUpdate("set to null", accepted(with), refused("{appName: a, readAccess: true, secret: null}", secretPresenceImmutable)),
		onUpdate("removed, then another added", accepted("{appName: a, readAccess: true, secret: {name: one}}"),
			refused(without, secretPresenceImmutable),
			refused("{appName: a, readAccess: true, secret: {name: other}}", secretNameImmutable)),
		onUpdate("null is the same as left out", accepted(without), accepted("{appName: a, readAccess: true, secret: null}")),
	)
}

func TestSchema_SecretNameIsValidAndImmutable(t *testing.T) {
	named := func(name string) string {
		return fmt.Sprintf("{appName: a, readAccess: true, secret: {name: %q}}", name)
	}
	const malformed = "spec.secret.name: Invalid value: secret.name must be a valid Secret name: " +
		"lower-case letters, digits, '-' and '.', starting and ending with a letter or digit"
	check(t,
		onCreate("usual", accepted(named("frontend-token"))),
		onCreate("with dots", accepted(named("a.b-c.1"))),
		onCreate("253 characters", accepted(named(strings.Repeat("a", 253)))),
		onCreate("254 characters", refused(named(strings.Repeat("a", 254)),
			"spec.secret.name: Too long: may not be more than 253 bytes", rulesNotChecked)),
		onCreate("empty", refused(named(""), malformed)),
		onCreate("upper case", refused(named("Token"), malformed)),
		onCreate("underscore", refused(named("a_b"), malformed)),
		onCreate("slash", refused(named("other/token"), malformed)),
		onCreate("leading dash", refused(named("-a"), malformed)),
		onCreate("trailing dot", refused(named("a."), malformed)),
		onCreate("two dots", refused(named("a..b"), malformed)),
		onCreate("newline at the end", refused(named("a\n"), malformed)),
		onUpdate("changed", accepted(named("one")), refused(named("other"), secretNameImmutable)),
		onUpdate("added", accepted("{appName: a, readAccess: true, secret: {}}"), refused(named("one"), secretNameImmutable)),
		onUpdate("removed", accepted(named("one")), refused("{appName: a, readAccess: true, secret: {}}", secretNameImmutable)),
		onUpdate("set to null", accepted(named("one")),
			refused("{appName: a, readAccess: true, secret: {name: null}}", secretNameImmutable)),
		onUpdate("removed, then another added", accepted(named("one")),
			refused("{appName: a, readAccess: true, secret: {}}", secretNameImmutable),
			refused(named("other"), secretNameImmutable),
			accepted(named("one"))),
	)
}

func TestSchema_SecretKeyIsValidAndImmutable(t *testing.T) {
	keyed := func(key string) string { return fmt.Sprintf("{appName: a, readAccess: true, secret: {key: %q}}", key) }
	const malformed = "spec.secret.key: Invalid value: secret.key must consist of letters, digits, '-', '_' and '.', " +
		"and not start with '..' or be '.'"
	const immutable = "spec.secret.key: Invalid value: spec.secret.key is immutable: create a new APIKey, and deactivate this one"
	const defaulted = "{appName: a, readAccess: true, secret: {}}"
	check(t,
		onCreate("usual", accepted(keyed("API_KEY"))),
		onCreate("a file name", accepted(keyed(".api-key.txt"))),
		onCreate("253 characters", accepted(keyed(strings.Repeat("a", 253)))),
		onCreate("254 characters", refused(keyed(strings.Repeat("a", 254)),
			"spec.secret.key: Too long: may not be more than 253 bytes", rulesNotChecked)),
		onCreate("empty", refused(keyed(""), malformed)),
		onCreate("a dot", refused(keyed("."), malformed)),
		onCreate("two dots", refused(keyed(".."), malformed)),
		onCreate("starting with two dots", refused(keyed("..data"), malformed)),
		onCreate("slash", refused(keyed("a/b"), malformed)),
		onCreate("space", refused(keyed("a b"), malformed)),
		onCreate("not ASCII", refused(keyed("ключ"), malformed)),
		onCreate("newline at the end", refused(keyed("a\n"), malformed)),
		onUpdate("changed", accepted(keyed("x")), refused(keyed("y"), immutable)),
		onUpdate("added", accepted(defaulted), refused(keyed("x"), immutable)),
		onUpdate("removed", accepted(keyed("x")), refused(defaulted, immutable)),
		onUpdate("set to null", accepted(keyed("x")),
			refused("{appName: a, readAccess: true, secret: {key: null}}", immutable)),
		onUpdate("removed, then another added", accepted(keyed("x")),
			refused(defaulted, immutable),
			refused(keyed("y"), immutable),
			accepted(keyed("x"))),
		onUpdate("the default written out is the same", accepted(defaulted), accepted(keyed("token")), accepted(defaulted)),
	)
}

func TestSchema_SecretTTLIsAtLeastAMinuteAndMutable(t *testing.T) {
	lasting := func(ttl string) string { return fmt.Sprintf("{appName: a, readAccess: true, secret: {ttl: %q}}", ttl) }
	const malformed = "spec.secret.ttl: Invalid value: secret.ttl must be a duration of at least 1m, such as 90s, 30m or 24h"
	var histories []history
	for _, ttl := range []string{"1m", "60s", "0h1m", "90s", "30m", "24h", "1h30m", "1h0m0s", "1m0.5s", "60.000000001s", "525600m",
		"999999h999999m99999999s"} {
		histories = append(histories, onCreate(ttl, accepted(lasting(ttl))))
	}
	for _, ttl := range []string{"", "30s", "59.999999999s", "0s", "-1h", "+1h", "abc", "1", "60", "1d", "1H", "1 h", " 1h", "1h\n",
		"30m1h", "1.5h", "60000ms", "PT1H", "1000000h", "9999999999999999999h", "∞"} {
		histories = append(histories, onCreate("not "+ttl, refused(lasting(ttl), malformed)))
	}
	check(t, append(histories,
		onCreate("a number", refused("{appName: a, readAccess: true, secret: {ttl: 60}}",
			`spec.secret.ttl: Invalid value: "integer": spec.secret.ttl in body must be of type string: "integer"`, rulesNotChecked)),
		onCreate("33 characters", refused(lasting(strings.Repeat("0", 32)+"h"),
			"spec.secret.ttl: Too long: may not be more than 32 bytes", rulesNotChecked)),
		onUpdate("added, changed, removed and added again", accepted("{appName: a, readAccess: true, secret: {}}"),
			accepted(lasting("1h")),
			accepted(lasting("2h")),
			refused(lasting("2s"), malformed),
			accepted("{appName: a, readAccess: true, secret: {ttl: null}}"),
			accepted("{appName: a, readAccess: true, secret: {}}"),
			accepted(lasting("1m"))),
	)...)
}

func TestSchema_SecretLabelsAndAnnotationsAreValidAndMutable(t *testing.T) {
	labelled := func(labels string) string {
		return fmt.Sprintf("{appName: a, readAccess: true, secret: {labels: {%s}}}", labels)
	}
	annotated := func(annotations string) string {
		return fmt.Sprintf("{appName: a, readAccess: true, secret: {annotations: {%s}}}", annotations)
	}
	badKey := func(field string) string {
		return fmt.Sprintf("spec.secret.%s: Invalid value: a key of secret.%[1]s must be a name of at most 63 letters, digits, '-', '_' and '.', "+
			"starting and ending with a letter or digit, after an optional lower-case domain and '/'", field)
	}
	const (
		badValue = "spec.secret.labels: Invalid value: a value of secret.labels must be empty, or consist of letters, digits, " +
			"'-', '_' and '.', starting and ending with a letter or digit"
		reservedLabel = "spec.secret.labels: Invalid value: secret.labels must not contain app.kubernetes.io/managed-by or keys of the domain " +
			"keys.squirrel.dev, which the controller sets"
		reservedAnnotation = "spec.secret.annotations: Invalid value: secret.annotations must not contain keys of the domain " +
			"keys.squirrel.dev, which the controller sets"
	)
	many := func(count int) string {
		var entries []string
		for i := range count {
			entries = append(entries, fmt.Sprintf("k%d: v", i))
		}
		return strings.Join(entries, ", ")
	}
	domain := strings.Repeat(strings.Repeat("d", 49)+".", 5) + "dev" // 253 characters
	histories := []history{
		onCreate("usual", accepted("{appName: a, readAccess: true, secret: {labels: {team: shop}, "+
			"annotations: {reloader.stakater.com/match: 'true', replicator.v1.mittwald.de/replicate-to: 'shop-1,shop-[a-z]*'}}}")),
		onCreate("empty values", accepted(labelled("a: ''"))),
		onCreate("a value of 63 characters", accepted(labelled("a: "+strings.Repeat("x", 63)))),
		onCreate("a value of 64 characters", refused(labelled("a: "+strings.Repeat("x", 64)),
			"spec.secret.labels.a: Too long: may not be more than 63 bytes", rulesNotChecked)),
		onCreate("an annotation of 4000 characters", accepted(annotated("a: '"+strings.Repeat("é", 4000)+"'"))),
		onCreate("an annotation of 4001 characters", refused(annotated("a: "+strings.Repeat("x", 4001)),
			"spec.secret.annotations.a: Too long: may not be more than 4000 bytes", rulesNotChecked)),
		onCreate("an annotation of several lines", accepted(annotated(`a: "{\"b\":\n1}\n"`))),
		onCreate("labels of the controller", refused(labelled("keys.squirrel.dev/apikey: a"), reservedLabel)),
		onCreate("the label managed-by", refused(labelled("app.kubernetes.io/managed-by: me"), reservedLabel)),
		onCreate("the annotation managed-by", accepted(annotated("app.kubernetes.io/managed-by: me"))),
		onCreate("annotations of the controller", refused(annotated("keys.squirrel.dev/token-hash: a"), reservedAnnotation)),
		onCreate("another domain", accepted(labelled("team.keys.squirrel.dev/apikey: a"))),
		onUpdate("changed, removed and added", accepted("{appName: a, readAccess: true, secret: {}}"),
			accepted(labelled("a: b")),
			accepted(annotated("a: b")),
			refused(labelled("keys.squirrel.dev/apikey: b"), reservedLabel),
			accepted("{appName: a, readAccess: true, secret: {labels: null, annotations: null}}"),
			accepted("{appName: a, readAccess: true, secret: {}}")),
	}
	for _, value := range []string{"-a", "a-", "a b", "é", "a/b", "a\n"} {
		histories = append(histories, onCreate("the value "+value, refused(labelled(fmt.Sprintf("a: %q", value)), badValue)))
	}
	for field, with := range map[string]func(string) string{"labels": labelled, "annotations": annotated} {
		for _, key := range []string{"a", "A.b_c-9", strings.Repeat("k", 63), "example.com/a", domain + "/" + strings.Repeat("k", 63)} {
			histories = append(histories, onCreate(field+" with the key "+key, accepted(with(fmt.Sprintf("%q: b", key)))))
		}
		for _, key := range []string{"", "-a", "a-", "a b", "é", "/a", "a/", "a/b/c", "Example.com/a", "a..b/c", "a\n",
			strings.Repeat("k", 64), domain + "d/a"} {
			histories = append(histories, onCreate(field+" with the key "+key, refused(with(fmt.Sprintf("%q: b", key)), badKey(field))))
		}
		histories = append(histories,
			onCreate("16 "+field, accepted(with(many(16)))),
			onCreate("17 "+field, refused(with(many(17)),
				fmt.Sprintf("spec.secret.%s: Too many: 17: must have at most 16 items", field), rulesNotChecked)),
			onCreate(field+" with a number", refused(with("a: 1"), fmt.Sprintf(
				`spec.secret.%s.a: Invalid value: "integer": spec.secret.%[1]s.a in body must be of type string: "integer"`, field), rulesNotChecked)))
	}
	check(t, histories...)
}

func TestSchema_TokenHashIsValidAndReplaceable(t *testing.T) {
	imported := func(hash string) string { return fmt.Sprintf("{appName: a, readAccess: true, tokenHash: %q}", hash) }
	const malformed = `spec.tokenHash: Invalid value: tokenHash must be "sha256:" followed by 64 lower-case hexadecimal digits, ` +
		`never the token itself: compute the digits with: printf %s "$TOKEN" | sha256sum`
	const minted = "{appName: a, readAccess: true}"
	digits := strings.TrimPrefix(hashA, "sha256:")
	check(t,
		onCreate("well-formed", accepted(imported(hashA))),
		onCreate("empty", refused(imported(""), malformed)),
		onCreate("a token", refused(imported("sq_KnIrtn1btDx"), malformed)),
		onCreate("without prefix", refused(imported(digits), malformed)),
		onCreate("another algorithm", refused(imported("sha512:"+digits), malformed)),
		onCreate("63 digits", refused(imported(hashA[:70]), malformed)),
		onCreate("65 digits", refused(imported(hashA+"0"), malformed)),
		onCreate("upper-case digits", refused(imported("sha256:"+strings.ToUpper(digits)), malformed)),
		onCreate("another letter", refused(imported("sha256:"+digits[:63]+"g"), malformed)),
		onCreate("newline at the end", refused(imported(hashA[:70]+"\n"), malformed)),
		onCreate("4096 characters", refused(imported(strings.Repeat("a", 4096)), malformed)),
		onCreate("4097 characters", refused(imported(strings.Repeat("a", 4097)),
			"spec.tokenHash: Too long: may not be more than 4096 bytes", rulesNotChecked)),
		onUpdate("replaced", accepted(imported(hashA)), accepted(imported(hashB)), accepted(imported(hashA))),
		onUpdate("replaced by a token", accepted(imported(hashA)), refused(imported("sq_KnIrtn1btDx"), malformed)),
		onUpdate("added", accepted(minted), refused(imported(hashA), tokenHashPresenceImmutable)),
		onUpdate("removed", accepted(imported(hashA)), refused(minted, tokenHashPresenceImmutable)),
		onUpdate("set to null", accepted(imported(hashA)), refused("{appName: a, readAccess: true, tokenHash: null}", tokenHashPresenceImmutable)),
		onUpdate("removed, then another added", accepted(imported(hashA)),
			refused(minted, tokenHashPresenceImmutable),
			accepted(imported(hashB))),
	)
}

func TestSchema_Rotation(t *testing.T) {
	spec := func(rotation string) string {
		return fmt.Sprintf("{appName: a, readAccess: true, rotation: {%s}}", rotation)
	}
	const (
		overlap = "spec.rotation.overlap: Invalid value: rotation.overlap must be a duration, such as 0s, 90m or 24h"
		once    = "spec.rotation.request.overlap: Invalid value: rotation.request.overlap must be a duration, such as 0s, 90m or 24h"
		short   = "spec.rotation.interval: Invalid value: rotation.interval must be a duration of at least 1h, such as 168h or 2160h"
		within  = "spec.rotation.interval: Invalid value: rotation.interval must be longer than rotation.overlap, which is 24h by default"
		years   = "rotation.request.at must be a date and time in the years 1970 to 9999, such as 2027-06-01T00:00:00Z"
		minted  = "spec: Invalid value: spec.rotation.interval and spec.rotation.request rotate minted tokens: " +
			"to rotate an imported token, replace spec.tokenHash"
	)
	request := func(fields string) string { return spec("request: {" + fields + "}") }
	imported := func(rotation string) string {
		return fmt.Sprintf("{appName: a, readAccess: true, tokenHash: %q, rotation: {%s}}", hashA, rotation)
	}
	histories := []history{
		onCreate("empty", accepted(spec(""))),
		onCreate("all fields", accepted(spec("overlap: 24h, interval: 2160h, request: {at: '2026-12-01T08:00:00Z', overlap: 0s}"))),
		onCreate("an overlap that is a number", refused(spec("overlap: 1"),
			`spec.rotation.overlap: Invalid value: "integer": spec.rotation.overlap in body must be of type string: "integer"`, rulesNotChecked)),
		onCreate("an overlap that is too long", refused(spec("overlap: "+strings.Repeat("1", 32)+"s"),
			"spec.rotation.overlap: Too long: may not be more than 32 bytes", rulesNotChecked)),
		onCreate("an interval that is too long", refused(spec("interval: "+strings.Repeat("1", 32)+"s"),
			"spec.rotation.interval: Too long: may not be more than 32 bytes", rulesNotChecked)),
		onCreate("an interval of 1h", accepted(spec("overlap: 59m59s, interval: 1h"))),
		onCreate("an interval below 1h", refused(spec("overlap: 0s, interval: 59m59s"), short)),
		onCreate("an interval below 1h, and within the overlap", refused(spec("interval: 59m59s"), short, within)),
		onCreate("an interval of the default overlap", refused(spec("interval: 24h"), within)),
		onCreate("an interval above the default overlap", accepted(spec("interval: 24h1s"))),
		onCreate("an interval of the overlap", refused(spec("overlap: 48h, interval: 2880m"), within)),
		onCreate("an interval above the overlap", accepted(spec("overlap: 48h, interval: 49h"))),
		onCreate("an interval that is not a duration", refused(spec("interval: 90d"), short)),
		onCreate("an empty interval", refused(spec("interval: ''"), short)),
		onCreate("an interval with an overlap that is not a duration", refused(spec("overlap: 1d, interval: 90h"), overlap)),
		onCreate("a request without at", refused(request("overlap: 0s"), "spec.rotation.request.at: Required value", rulesNotChecked)),
		onCreate("a request in the past", accepted(request("at: '1970-01-01T00:00:00Z'"))),
		onCreate("a request with a fraction and a zone", accepted(request("at: '2026-12-01T08:00:00.5+01:00'"))),
		onCreate("a request that is not a date", refused(request("at: tomorrow"), `spec.rotation.request.at: Invalid value: "tomorrow": `+
			`spec.rotation.request.at in body must be of type date-time: "tomorrow"`, rulesNotChecked)),
		onCreate("a request before 1970", refused(request("at: '1969-12-31T23:59:59Z'"),
			`spec.rotation.request.at: Invalid value: "1969-12-31T23:59:59Z": `+years)),
		onCreate("a request at the end of 9999", refused(request("at: '9999-12-31T00:00:00Z'"),
			`spec.rotation.request.at: Invalid value: "9999-12-31T00:00:00Z": `+years)),
		onCreate("an imported token with an overlap", accepted(imported("overlap: 1h"))),
		onCreate("an imported token with an interval", refused(imported("interval: 48h"), minted)),
		onCreate("an imported token with a request", refused(imported("request: {at: '2026-12-01T08:00:00Z'}"), minted)),
		onUpdate("added, changed and removed", accepted("{appName: a, readAccess: true}"),
			accepted(spec("interval: 48h")),
			accepted(spec("interval: 96h, overlap: 48h, request: {at: '2026-12-01T08:00:00Z'}")),
			accepted(request("at: '2026-11-01T08:00:00Z'")),
			accepted("{appName: a, readAccess: true}")),
	}
	for _, valid := range []string{"0s", "0m", "1s", "0.5s", "90m", "1h30m", "24h", "999999h"} {
		histories = append(histories,
			onCreate("the overlap "+valid, accepted(spec(fmt.Sprintf("overlap: %q", valid)))),
			onCreate("the overlap "+valid+" of a request", accepted(request(fmt.Sprintf("at: '2026-12-01T08:00:00Z', overlap: %q", valid)))))
	}
	for _, invalid := range []string{"", "1", "-1h", "1d", "1h ", "h", "1h\n"} {
		histories = append(histories,
			onCreate("the overlap "+invalid, refused(spec(fmt.Sprintf(`overlap: "%s"`, invalid)), overlap)),
			onCreate("the overlap "+invalid+" of a request", refused(request(fmt.Sprintf(`at: '2026-12-01T08:00:00Z', overlap: "%s"`, invalid)), once)))
	}
	check(t, histories...)
}

// A user may paste a token where its hash, its hint or a name is expected. No error may repeat it, because the logs of pipelines keep errors.
func TestSchema_ErrorsDoNotRepeatAToken(t *testing.T) {
	env := testenv.Shared(t)
	namespace := env.Namespace(t)
	imported := fmt.Sprintf("appName: a, readAccess: true, tokenHash: %q", hashA)
	const minted = "appName: a, readAccess: true, secret: {}"
	for i, token := range []string{
		"sq_KnIrtn1btDxhAnWJ4i3WyrE3mLPpFwwZb2aGVYGBLN4", "ghp+short/token==", "eyJ" + strings.Repeat("hbGciOiJ", 40), "0123456789",
	} {
		for j, fields := range []struct{ stored, pasted string }{
			{imported, fmt.Sprintf("appName: a, readAccess: true, tokenHash: %q", token)},
			{imported, fmt.Sprintf("%s, tokenHint: %q", imported, token)},
			{minted, fmt.Sprintf("appName: a, readAccess: true, secret: {name: %q}", token+"_")},
			{minted, fmt.Sprintf("appName: a, readAccess: true, secret: {key: %q}", token+"/")},
			{minted, fmt.Sprintf("appName: a, readAccess: true, secret: {ttl: %q}", token)},
			{minted, fmt.Sprintf("appName: a, readAccess: true, secret: {}, rotation: {overlap: %q}", token)},
			{minted, fmt.Sprintf("appName: a, readAccess: true, secret: {}, rotation: {interval: %q}", token)},
			{minted, fmt.Sprintf("appName: a, readAccess: true, secret: {}, rotation: {request: {at: '2026-12-01T08:00:00Z', overlap: %q}}", token)},
			{minted, fmt.Sprintf("appName: %q, readAccess: true, secret: {}", token+"\n")},
			{minted, fmt.Sprintf("appName: a, readAccess: true, secret: {labels: {a: %q}}", token+"=")},
			{minted, fmt.Sprintf("appName: a, readAccess: true, secret: {labels: {%q: a}}", token+"=")},
			{minted, fmt.Sprintf("appName: a, readAccess: true, secret: {annotations: {%q: a}}", token+"=")},
			{minted, fmt.Sprintf("appName: a, readAccess: true, secret: {annotations: {keys.squirrel.dev/token: %q}}", token)},
		} {
			stored := newObject(namespace, fmt.Sprintf("stored-%d-%d", i, j))
			stored.Object["spec"] = parse(t, "{"+fields.stored+"}")
			if err := env.Client.Create(t.Context(), stored); err != nil {
				t.Fatal(err)
			}
			pasted := func(name string) *unstructured.Unstructured {
				key := newObject(namespace, name)
				key.Object["spec"] = parse(t, "{"+fields.pasted+"}")
				return key
			}
			update := pasted(stored.GetName())
			update.SetResourceVersion(stored.GetResourceVersion())
			for write, err := range map[string]error{
				"create":            env.Client.Create(t.Context(), pasted("created")),
				"create, dry run":   env.Client.Create(t.Context(), pasted("created"), client.DryRunAll),
				"apply, new":        apply(t, env, pasted("applied")),
				"apply, stored":     apply(t, env, pasted(stored.GetName())),
				"apply, dry run":    apply(t, env, pasted(stored.GetName()), client.DryRunAll),
				"update":            env.Client.Update(t.Context(), update),
				"patch":             env.Client.Patch(t.Context(), pasted(stored.GetName()), client.MergeFrom(stored)),
				"update as kubectl": kubectlApply(t, env, pasted(stored.GetName())),
			} {
				if !apierrors.IsInvalid(err) && (err == nil || !strings.Contains(err.Error(), "is invalid: ")) {
					t.Errorf("the response to %s of {%s} is %v", write, fields.pasted, err)
				} else if strings.Contains(err.Error(), token) {
					t.Errorf("the response to %s of {%s} repeats the token: %v", write, fields.pasted, err)
				}
			}
		}
	}
}

func apply(t *testing.T, env *testenv.Env, key *unstructured.Unstructured, options ...client.ApplyOption) error {
	t.Helper()
	options = append(options, client.ForceOwnership, client.FieldOwner("test"))
	return env.Client.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(key), options...)
}

func kubectlApply(t *testing.T, env *testenv.Env, key *unstructured.Unstructured) error {
	t.Helper()
	manifest, err := key.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	_, err = env.ControlPlane.Kubectl(t.Context(), string(manifest), "apply", "--filename=-")
	return err
}

func TestSchema_TokenHintNeedsATokenHash(t *testing.T) {
	const withoutHash = "spec: Invalid value: spec.tokenHint describes an imported token: set it only together with spec.tokenHash"
	hinted := func(hint string) string {
		return fmt.Sprintf("{appName: a, readAccess: true, tokenHash: %q, tokenHint: %q}", hashA, hint)
	}
	malformed := func(hint string) string {
		return fmt.Sprintf("spec.tokenHint: Invalid value: %q: "+
			"tokenHint must be 1 to 7 visible ASCII characters: the first ones of the token", hint)
	}
	unhinted := fmt.Sprintf("{appName: a, readAccess: true, tokenHash: %q}", hashA)
	check(t,
		onCreate("1 character", accepted(hinted("s"))),
		onCreate("7 characters", accepted(hinted("sq_KnIr"))),
		onCreate("8 characters", refused(hinted("sq_KnIrt"), "spec.tokenHint: Too long: may not be more than 7 bytes", rulesNotChecked)),
		onCreate("empty", refused(hinted(""), malformed(""))),
		onCreate("a space", refused(hinted("a b"), malformed("a b"))),
		onCreate("a newline at the end", refused(hinted("a\n"), malformed("a\n"))),
		onCreate("not ASCII", refused(hinted("clé"), malformed("clé"))),
		onCreate("without a hash", refused("{appName: a, readAccess: true, tokenHint: sq_KnIr}", withoutHash)),
		onUpdate("added without a hash", accepted("{appName: a, readAccess: true}"),
			refused("{appName: a, readAccess: true, tokenHint: sq_KnIr}", withoutHash)),
		onUpdate("not removed with its hash", accepted(hinted("sq_KnIr")),
			refused("{appName: a, readAccess: true, tokenHint: sq_KnIr}", tokenHashPresenceImmutable, withoutHash)),
		onUpdate("added, changed, removed and added again", accepted(unhinted),
			accepted(hinted("sq_KnIr")),
			accepted(hinted("other")),
			accepted(unhinted),
			accepted(hinted("sq_KnIr"))),
	)
}

func TestSchema_SecretAndTokenHashAreMutuallyExclusive(t *testing.T) {
	const both = "spec: Invalid value: spec.secret and spec.tokenHash are mutually exclusive: " +
		"set spec.secret for a minted token, or spec.tokenHash for an imported one"
	const onlySecret = "{appName: a, readAccess: true, secret: {}}"
	withBoth := fmt.Sprintf("{appName: a, readAccess: true, tokenHash: %q, secret: {}}", hashA)
	onlyHash := fmt.Sprintf("{appName: a, readAccess: true, tokenHash: %q}", hashA)
	check(t,
		onCreate("both", refused(withBoth, both)),
		onUpdate("a secret added to the hash", accepted(onlyHash), refused(withBoth, secretPresenceImmutable, both)),
		onUpdate("a hash added to the secret", accepted(onlySecret), refused(withBoth, tokenHashPresenceImmutable, both)),
		onUpdate("the hash in place of the secret", accepted(onlySecret), refused(onlyHash, secretPresenceImmutable, tokenHashPresenceImmutable)),
	)
}

func TestSchema_SpecIsRequired(t *testing.T) {
	env := testenv.Shared(t)
	key := newObject(env.Namespace(t), "key")
	want := invalid("key", []string{"spec: Required value", rulesNotChecked})
	if got := messageOf(env.Client.Create(t.Context(), key)); !sameMessage(t, env, got, want) {
		t.Errorf("created without a spec:\n got: %s\nwant: %s", got, want)
	}
	key.Object["spec"] = parse(t, "{appName: a, readAccess: true}")
	if err := env.Client.Create(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	delete(key.Object, "spec")
	if got := messageOf(env.Client.Update(t.Context(), key)); !sameMessage(t, env, got, want) {
		t.Errorf("spec removed:\n got: %s\nwant: %s", got, want)
	}
}

func TestSchema_ObjectNameLeavesRoomForTheDefaultSecretName(t *testing.T) {
	const tooLong = "<nil>: Invalid value: metadata.name is longer than 247 characters, which leaves no room for the Secret's default name " +
		"(<metadata.name>-token): shorten it or set spec.secret.name"
	const usual = "{appName: a, readAccess: true}"
	const unnamed = "{appName: a, readAccess: true, secret: {ttl: 1h}}"
	const named = "{appName: a, readAccess: true, secret: {name: short}}"
	imported := fmt.Sprintf("{appName: a, readAccess: true, tokenHash: %q}", hashA)
	const length254 = `metadata.name: Invalid value: %q: must be no more than 253 characters`
	for _, test := range []struct {
		length int
		spec   string
		want   []string
	}{
		{1, usual, nil},
		{247, usual, nil},
		{247, unnamed, nil},
		{248, usual, []string{tooLong}},
		{248, unnamed, []string{tooLong}},
		{248, named, nil},
		{248, imported, nil},
		{253, usual, []string{tooLong}},
		{253, unnamed, []string{tooLong}},
		{253, named, nil},
		{253, imported, nil},
		{254, named, []string{fmt.Sprintf(length254, strings.Repeat("n", 254))}},
	} {
		t.Run(fmt.Sprintf("%d characters with %s", test.length, test.spec), func(t *testing.T) {
			env := testenv.Shared(t)
			key := newObject(env.Namespace(t), strings.Repeat("n", test.length))
			key.Object["spec"] = parse(t, test.spec)
			if got, want := messageOf(env.Client.Create(t.Context(), key)), invalid(key.GetName(), test.want); !sameMessage(t, env, got, want) {
				t.Errorf("the API server's response:\n got: %s\nwant: %s", got, want)
			}
		})
	}
}

func TestSchema_AcceptsAGeneratedName(t *testing.T) {
	env := testenv.Shared(t)
	key := newObject(env.Namespace(t), "")
	key.SetGenerateName("frontend-")
	key.Object["spec"] = parse(t, "{appName: a, readAccess: true}")
	if err := env.Client.Create(t.Context(), key); err != nil {
		t.Error(err)
	}
}

func TestSchema_StoresDefaults(t *testing.T) {
	env := testenv.Shared(t)
	namespace := env.Namespace(t)
	for i, test := range []struct{ rule, spec, want string }{
		{"least", "{appName: a, readAccess: true}",
			"{appName: a, readAccess: true, writeAccess: false, active: true}"},
		{"a secret", "{appName: a, writeAccess: true, secret: {ttl: 1h}}",
			"{appName: a, readAccess: false, writeAccess: true, active: true, secret: {key: token, ttl: 1h}}"},
		{"nulls", "{appName: a, readAccess: true, writeAccess: null, active: null, expiresAt: null, secret: {key: null}, " +
			"tokenHash: null, tokenHint: null}",
			"{appName: a, readAccess: true, writeAccess: false, active: true, secret: {key: token}}"},
		{"deactivated", "{appName: a, readAccess: true, active: false}",
			"{appName: a, readAccess: true, writeAccess: false, active: false}"},
	} {
		t.Run(test.rule, func(t *testing.T) {
			key := newObject(namespace, fmt.Sprintf("key-%d", i))
			key.Object["spec"] = parse(t, test.spec)
			if err := env.Client.Create(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(parse(t, test.want), key.Object["spec"]); diff != "" {
				t.Errorf("the spec that was stored (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSchema_StrictValidationNamesUnknownFields(t *testing.T) {
	env := testenv.Shared(t)
	key := newObject(env.Namespace(t), "key")
	key.Object["spec"] = parse(t, "{appName: a, readAccess: true, expires: soon, secret: {namespace: other}}")
	const want = `APIKey in version "v1alpha1" cannot be handled as a APIKey: strict decoding error: ` +
		`unknown field "spec.expires", unknown field "spec.secret.namespace"`
	err := env.Client.Create(t.Context(), key.DeepCopy(), client.FieldValidation(metav1.FieldValidationStrict))
	if got := messageOf(err); !apierrors.IsBadRequest(err) || got != want {
		t.Errorf("with strict validation, which kubectl requests:\n got: %s\nwant: %s", got, want)
	}
	if err := env.Client.Create(t.Context(), key, client.FieldValidation(metav1.FieldValidationIgnore)); err != nil {
		t.Fatal(err)
	}
	known := parse(t, "{appName: a, readAccess: true, writeAccess: false, active: true, secret: {key: token}}")
	if diff := cmp.Diff(known, key.Object["spec"]); diff != "" {
		t.Errorf("unknown fields must be dropped (-want +got):\n%s", diff)
	}
}

// Owners usually remove a field by deleting it from a manifest in Git.
func TestSchema_FieldsRemovedFromAnAppliedManifest(t *testing.T) {
	env := testenv.Shared(t)
	namespace := env.Namespace(t)
	for i, test := range []struct {
		rule, before, after string
		want                []string
	}{
		{"active of a deactivated key", "{appName: a, readAccess: true, active: false}", "{appName: a, readAccess: true}",
			[]string{deactivationIsFinal}},
		{"active of an active key", "{appName: a, readAccess: true, active: true}", "{appName: a, readAccess: true}", nil},
		{"secret", "{appName: a, readAccess: true, secret: {name: one}}", "{appName: a, readAccess: true}",
			[]string{secretPresenceImmutable}},
		{"secret.name", "{appName: a, readAccess: true, secret: {name: one, ttl: 1h}}", "{appName: a, readAccess: true, secret: {ttl: 1h}}",
			[]string{secretNameImmutable}},
		{"secret.ttl", "{appName: a, readAccess: true, secret: {ttl: 1h}}", "{appName: a, readAccess: true, secret: {}}", nil},
		{"tokenHash", "{appName: a, readAccess: true, tokenHash: '" + hashA + "'}", "{appName: a, readAccess: true}",
			[]string{tokenHashPresenceImmutable}},
		{"expiresAt", "{appName: a, readAccess: true, expiresAt: '2999-01-01T00:00:00Z'}", "{appName: a, readAccess: true}", nil},
		{"the only right", "{appName: a, readAccess: true}", "{appName: a}",
			[]string{noAccess}},
	} {
		t.Run(test.rule, func(t *testing.T) {
			apply := func(spec string) error {
				key := newObject(namespace, fmt.Sprintf("key-%d", i))
				key.Object["spec"] = parse(t, spec)
				return env.Client.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(key), client.FieldOwner("git"))
			}
			if err := apply(test.before); err != nil {
				t.Fatal(err)
			}
			if got, want := messageOf(apply(test.after)), invalid(fmt.Sprintf("key-%d", i), test.want); !sameMessage(t, env, got, want) {
				t.Errorf("the API server's response to %s:\n got: %s\nwant: %s", test.after, got, want)
			}
		})
	}
}

func TestSchema_StatusOfANewKeyIsPending(t *testing.T) {
	env := testenv.Shared(t)
	key := newObject(env.Namespace(t), "frontend")
	key.Object["spec"] = parse(t, "{appName: Frontend App, readAccess: true}")
	key.Object["status"] = parse(t, "{secretName: planted, conditions: []}") // the API server ignores it: only the status subresource has a status
	if err := env.Client.Create(t.Context(), key); err != nil {
		t.Fatal(err)
	}

	want := parse(t, `{conditions: [{type: Ready, status: Unknown, reason: Pending, message: Waiting for the controller.,
		lastTransitionTime: "1970-01-01T00:00:00Z"}]}`)
	if diff := cmp.Diff(want, key.Object["status"]); diff != "" {
		t.Errorf("the status that the creation returned (-want +got):\n%s", diff)
	}
	if err := env.Client.Get(t.Context(), client.ObjectKeyFromObject(key), key); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, key.Object["status"]); diff != "" {
		t.Errorf("the status that is read (-want +got):\n%s", diff)
	}
	result, err := status.Compute(key)
	if err != nil {
		t.Fatal(err)
	}
	if result.Status != status.InProgressStatus || result.Message != "Waiting for the controller." {
		t.Errorf("kstatus computes %s: %q", result.Status, result.Message)
	}
}

func TestPrinterColumns(t *testing.T) {
	env := testenv.Shared(t)
	namespace := env.Namespace(t)
	for name, object := range map[string]struct{ spec, reason, active, status string }{
		"untouched": {spec: "appName: untouched, writeAccess: true"},
		"issued": {"appName: issued, readAccess: true, expiresAt: '2999-06-01T00:00:00Z'", "Issued", "True",
			"secretName: issued-token, tokens: [{hash: '" + hashA + "', hint: sq_KnIr, lastUsedAt: '2026-01-01T00:00:00Z'}]"},
		"ended":   {"appName: ended, readAccess: true, active: false", "Deactivated", "False", "tokens: [{hash: '" + hashB + "', hint: sq_Xp3q}]"},
		"stalled": {"appName: issued, readAccess: true", "AppNameConflict", "False", ""},
	} {
		key := newObject(namespace, name)
		key.Object["spec"] = parse(t, "{"+object.spec+"}")
		if err := env.Client.Create(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if object.reason == "" {
			continue
		}
		key.Object["status"] = parse(t, fmt.Sprintf(`{conditions: [
			{type: Ready, status: Unknown, reason: %s, message: "", lastTransitionTime: "2026-01-01T00:00:00Z"},
			{type: Active, status: %q, reason: %[1]s, message: "", lastTransitionTime: "2026-01-01T00:00:00Z"}], %[3]s}`,
			object.reason, object.active, object.status))
		if err := env.Client.Status().Update(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}

	const age = "AGE" // replaces every age
	for _, test := range []struct {
		args []string
		want [][]string
	}{
		{nil, [][]string{
			{"NAME", "APP", "READ", "WRITE", "ACTIVE", "REASON", "HINT", "EXPIRES", "AGE"},
			{"ended", "ended", "true", "false", "False", "Deactivated", "sq_Xp3q", "", age},
			{"issued", "issued", "true", "false", "True", "Issued", "sq_KnIr", "2999-06-01T00:00:00Z", age},
			{"stalled", "issued", "true", "false", "False", "AppNameConflict", "", "", age},
			{"untouched", "untouched", "false", "true", "", "Pending", "", "", age},
		}},
		{[]string{"--output=wide"}, [][]string{
			{"NAME", "APP", "READ", "WRITE", "ACTIVE", "REASON", "HINT", "EXPIRES", "AGE", "LAST USED", "SECRET"},
			{"ended", "ended", "true", "false", "False", "Deactivated", "sq_Xp3q", "", age, "", ""},
			{"issued", "issued", "true", "false", "True", "Issued", "sq_KnIr", "2999-06-01T00:00:00Z", age, age, "issued-token"},
			{"stalled", "issued", "true", "false", "False", "AppNameConflict", "", "", age, "", ""},
			{"untouched", "untouched", "false", "true", "", "Pending", "", "", age, "", ""},
		}},
	} {
		output, err := env.Kubectl(t, append([]string{"get", "ak", "--namespace", namespace}, test.args...)...)
		if err != nil {
			t.Fatal(err)
		}
		table := readTable(output)
		for _, row := range table[1:] {
			row[8] = age
			if len(row) > 9 && row[9] != "" {
				row[9] = age
			}
		}
		if diff := cmp.Diff(test.want, table); diff != "" {
			t.Errorf("kubectl get ak %v (-want +got):\n%s\n%s", test.args, diff, output)
		}
	}
}

// headerCell matches the title of a column, which may have several parts.
var headerCell = regexp.MustCompile(`\S+( \S+)*`)

// readTable splits kubectl's output into cells at the columns of its header.
func readTable(output string) [][]string {
	lines := strings.Split(strings.TrimRight(output, "\n"), "\n")
	var starts []int
	for _, cell := range headerCell.FindAllStringIndex(lines[0], -1) {
		starts = append(starts, cell[0])
	}
	table := make([][]string, len(lines))
	for i, line := range lines {
		for j, start := range starts {
			end := len(line)
			if j+1 < len(starts) {
				end = min(end, starts[j+1])
			}
			table[i] = append(table[i], strings.TrimSpace(line[min(start, len(line)):end]))
		}
	}
	return table
}

func TestFieldSelectors(t *testing.T) {
	env := testenv.Shared(t)
	namespace := env.Namespace(t)
	for name, spec := range map[string]string{
		"active": "{appName: Frontend, readAccess: true}", "ended": "{appName: Frontend, readAccess: true, active: false}",
		"other": "{appName: 'Shop, Backend=1', readAccess: true}",
	} {
		key := newObject(namespace, name)
		key.Object["spec"] = parse(t, spec)
		if err := env.Client.Create(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	for selector, want := range map[string]string{
		"spec.active=false":                       "apikey.keys.squirrel.dev/ended\n",
		"spec.active!=false":                      "apikey.keys.squirrel.dev/active\napikey.keys.squirrel.dev/other\n",
		"spec.appName=Frontend,spec.active=true":  "apikey.keys.squirrel.dev/active\n",
		`spec.appName=Shop\, Backend\=1`:          "apikey.keys.squirrel.dev/other\n",
		"spec.appName=frontend,spec.active=false": "",
	} {
		got, err := env.Kubectl(t, "get", "apikeys", "--namespace="+namespace, "--field-selector="+selector, "--output=name")
		if err != nil || got != want {
			t.Errorf("%s selects %q (%v), want %q", selector, got, err, want)
		}
	}
}
