// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/runcontroller"
)

// tokenIn returns the token in the output of a command.
func tokenIn(output string) string {
	start := strings.Index(output, "sq_")
	if start < 0 {
		return ""
	}
	plaintext, _, _ := strings.Cut(output[start:], "\n")
	return plaintext
}

// imported sets the hash of a token that was created elsewhere.
func imported(key *v1alpha1.APIKey) {
	plaintext := token.New()
	key.Spec.TokenHash, key.Spec.TokenHint = token.Hash(plaintext), token.Hint(plaintext)
}

func TestRotate_PrintsTheNewTokenOfAnImportedKeyOnce(t *testing.T) {
	terminal := newTerminalWithController(t)
	former := tokenIn(terminal.run("create", "Frontend App", "-r").stdout)
	rotated := terminal.types("rotate", "Frontend App")
	key := terminal.key("Frontend App")
	terminal.assertTokenOf(key, tokenIn(rotated.stdout))
	if tokens := key.Status.Tokens; len(tokens) != 2 || tokens[1].Hash != token.Hash(former) {
		t.Errorf("the tokens are %+v", tokens)
	}
	printed := terminal.types("rotate", key.Name, "--overlap=0s", "-o", "jsonpath={.kind} {.token}")
	terminal.assertTokenOf(terminal.key("Frontend App"), tokenIn(printed.stdout))
	terminal.types("rotate", string(key.UID), "--overlap=7d")
	terminal.types("rotate", "unknown")
	terminal.assertGolden()
}

func TestRotate_WritesTheNewTokenOfAMintedKeyToItsSecret(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.apply("partner")
	terminal.awaitReason("partner", v1alpha1.ReasonIssued)
	former := terminal.secret("partner-token")
	terminal.types("rotate", "partner", "--overlap=1h")
	secret := terminal.secret("partner-token")
	terminal.assertTokenOf(terminal.key("App partner"), string(secret.Data["token"]))
	if secret.UID != former.UID {
		t.Error("another Secret replaced the one that pods mount")
	}
	terminal.types("rotate", "partner", "--overlap=0s", "-o", "name")
	revealed := terminal.types("reveal", "partner")
	terminal.assertTokenOf(terminal.key("App partner"), tokenIn(revealed.stdout))
	terminal.types("rotate", "partner") // its Secret is gone
	revealed = terminal.run("reveal", "partner")
	terminal.assertTokenOf(terminal.key("App partner"), tokenIn(revealed.stdout))
	terminal.assertGolden()
}

// A request is the only field that the command owns: Git tools leave it alone, and their fields too.
func TestRotate_OwnsNothingButTheRequest(t *testing.T) {
	terminal := newTerminalWithController(t)
	manifest := func() *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": v1alpha1.GroupVersion.String(), "kind": "APIKey",
			"metadata": map[string]any{
				"name": "partner", "namespace": terminal.namespace, "labels": map[string]any{"kustomize.toolkit.fluxcd.io/name": "keys"},
			},
			"spec": map[string]any{"appName": "Partner", "readAccess": true, "rotation": map[string]any{"interval": "2160h"}},
		}}
	}
	apply := func() {
		framework.Must(t, terminal.env.Client.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(manifest()),
			client.FieldOwner("kustomize-controller"), client.ForceOwnership))
	}
	apply()
	terminal.awaitReason("partner", v1alpha1.ReasonIssued)
	if got := terminal.run("rotate", "partner"); got.code != 0 {
		t.Fatalf("rotate: %+v", got)
	}
	rotated := terminal.key("Partner")
	for _, entry := range rotated.ManagedFields {
		if entry.Manager == "apikey-cli" {
			fields := entry.FieldsV1.GetRawString()
			if want := `{"f:spec":{"f:rotation":{"f:request":{".":{},"f:at":{}}}}}`; fields != want {
				t.Errorf("the command owns %s, want %s", fields, want)
			}
		}
	}
	apply()
	applied := terminal.key("Partner")
	if rotation := applied.Spec.Rotation; rotation.Request == nil || rotation.Interval == nil || applied.Generation != rotated.Generation {
		t.Errorf("applying the manifest again changes spec.rotation: %+v", rotation)
	}
}

func TestRotate_PrintsTheFieldsForAManifestInGit(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.apply("partner", imported, func(key *v1alpha1.APIKey) {
		key.Labels = map[string]string{"kustomize.toolkit.fluxcd.io/name": "keys"}
	})
	terminal.awaitReason("partner", v1alpha1.ReasonIssued)
	before := terminal.key("App partner")
	terminal.types("rotate", "partner", "-o", "json")
	printed := terminal.types("rotate", "partner", "--overlap=1h")
	if key := terminal.key("App partner"); key.ResourceVersion != before.ResourceVersion {
		t.Error("the key is changed")
	}
	_, rest, _ := strings.Cut(printed.stdout, ":\n\n")
	fields, rest, _ := strings.Cut(rest, "\n\n")
	framework.Must(t, terminal.env.Client.Patch(t.Context(), before, client.RawPatch("application/merge-patch+json", toJSON(t, fields))))
	framework.Eventually(t, "the printed token is accepted", func() bool {
		newest := apikey.NewestToken(terminal.key("App partner"))
		return newest.Hash == token.Hash(tokenIn(rest))
	})

	forced := terminal.types("rotate", "partner", "--force")
	terminal.assertTokenOf(terminal.key("App partner"), tokenIn(forced.stdout))
	terminal.assertGolden()
}

func toJSON(t *testing.T, text string) []byte {
	t.Helper()
	content, err := yaml.YAMLToJSON([]byte(text))
	framework.Must(t, err)
	return content
}

func TestRotate_PrintsTheFieldsForAManifestOfKubectlApply(t *testing.T) {
	terminal := newTerminalWithController(t)
	for name, args := range map[string][]string{"client": {"apply"}, "server": {"apply", "--server-side"}} {
		manifest := fmt.Sprintf("{apiVersion: %s, kind: APIKey, metadata: {name: %s, namespace: %s}, spec: {appName: %s, readAccess: true, tokenHash: %q}}",
			v1alpha1.GroupVersion, name, terminal.namespace, name, token.Hash(token.New()))
		file := t.TempDir() + "/key.yaml"
		framework.Must(t, os.WriteFile(file, []byte(manifest), 0o600))
		_, err := terminal.env.Kubectl(t, append(args, "-f", file)...)
		framework.Must(t, err)
		terminal.awaitReason(name, v1alpha1.ReasonIssued)
		got := terminal.run("rotate", name)
		want := fmt.Sprintf("Error: APIKey %q is not rotated, because kubectl apply would set the former token back: "+
			"save the token, and change the manifest as printed above, or use --force\n", name)
		if got.code != exitFailure || got.stderr != want {
			t.Errorf("rotate: %+v, want %s", got, want)
		}
	}
}

func TestRotate_RefusesKeysThatCannotBeRotated(t *testing.T) {
	terminal := newTerminal(t)
	stop := runcontroller.Start(t, terminal.env, terminal.namespace)
	terminal.apply("ended", imported)
	terminal.apply("minted")
	terminal.apply("imported", imported)
	terminal.apply("bootstrap", imported, func(key *v1alpha1.APIKey) { key.Labels = map[string]string{v1alpha1.LabelBootstrap: "true"} })
	for _, name := range []string{"ended", "minted", "imported", "bootstrap"} {
		terminal.awaitReason(name, v1alpha1.ReasonIssued)
	}
	terminal.run("deactivate", "ended")
	stop()
	terminal.apply("waiting")
	terminal.types("rotate", "ended")
	terminal.types("rotate", "waiting")
	terminal.types("rotate", "bootstrap")
	terminal.types("rotate", "minted", "--overlap=500ms")
	terminal.types("rotate", "imported", "--overlap=500ms")
	terminal.types("rotate", "imported", "-o", "name")
	terminal.types("rotate", "imported", "--timeout=2s")
	terminal.types("rotate", "minted", "--timeout=2s")
	terminal.types("rotate", "minted") // the request is not handled
	terminal.types("reveal", "minted", "--timeout=2s")
	terminal.assertGolden()
}

func TestRotate_OneOfTwoUsersRotates(t *testing.T) {
	for name, kind := range map[string]func(*v1alpha1.APIKey){"imported": imported, "minted": func(*v1alpha1.APIKey) {}} {
		t.Run(name, func(t *testing.T) {
			terminal := newTerminalWithController(t)
			terminal.apply("partner", kind)
			terminal.awaitReason("partner", v1alpha1.ReasonIssued)
			var rotating sync.WaitGroup
			found := make(chan struct{}, 2)
			bothFound := sync.OnceFunc(func() { <-found; <-found })
			terminal.throughProxy(func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodPatch { // both have seen the same token
						bothFound()
					} else if r.URL.Query().Get("limit") != "" {
						defer func() { found <- struct{}{} }()
					}
					next.ServeHTTP(w, r)
				})
			})
			results := make([]result, 2)
			for i := range results {
				rotating.Go(func() { results[i] = terminal.run("rotate", "partner") })
			}
			rotating.Wait()
			if results[0].code != 0 {
				results[0], results[1] = results[1], results[0]
			}
			if results[0].code != 0 || results[1].code != exitFailure || results[1].stdout != "" ||
				!strings.HasPrefix(results[1].stderr, `Error: rotate APIKey "partner": `) {
				t.Errorf("the results are %+v", results)
			}
			key := terminal.key("App partner")
			if len(key.Status.Tokens) != 2 {
				t.Errorf("the tokens are %+v", key.Status.Tokens)
			}
			if name == "imported" {
				terminal.assertTokenOf(key, tokenIn(results[0].stdout))
			}
		})
	}
}

// The API server's time counts, not that of the laptop.
func TestRotate_DoesNotTrustTheLocalClock(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.apply("partner")
	terminal.awaitReason("partner", v1alpha1.ReasonIssued)
	before := terminal.key("App partner")
	framework.Eventually(t, "the token is older than the clocks differ", func() bool {
		return time.Since(apikey.NewestToken(before).NotBefore.Time) > 3*time.Second
	})
	terminal.withServerTime(-time.Hour)
	if got := terminal.run("rotate", "partner"); got.code != 0 {
		t.Fatalf("rotate: %+v", got)
	}
	key := terminal.key("App partner")
	if at, want := key.Spec.Rotation.Request.At, apikey.NewestToken(before).NotBefore.Add(time.Second); !at.Time.Equal(want) {
		t.Errorf("the request is of %s, want %s: the first time that is later than the token", at, want)
	}
}

func TestRotate_UndoesARotationThatCannotBePrinted(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.apply("partner", imported)
	terminal.awaitReason("partner", v1alpha1.ReasonIssued)
	before := terminal.key("App partner")
	for want, stdout := range map[string]*os.File{"no space left on device": openFull(terminal), "broken pipe": newClosedPipe(terminal)} {
		var stderr strings.Builder
		command := terminal.command("rotate", "partner", "--overlap=0s")
		command.Stdout, command.Stderr = stdout, &stderr
		_ = command.Run() // it fails with an exit code
		want = "Error: APIKey \"partner\" is not rotated: printing its new token failed: write /dev/stdout: " + want + "\n"
		if code := command.ProcessState.ExitCode(); code != exitFailure || stderr.String() != want {
			t.Errorf("exit code %d, %s", code, &stderr)
		}
		framework.Eventually(t, "the former token is accepted again", func() bool {
			key := terminal.key("App partner")
			newest := apikey.NewestToken(key)
			return newest.Hash == before.Spec.TokenHash && newest.NotAfter == nil && key.Spec.TokenHint == before.Spec.TokenHint && key.Spec.Rotation == nil
		})
	}
	if got := terminal.runClosed("rotate", "partner"); got.code != exitFailure || got.stderr != "Error: rotate APIKey \"partner\": "+outputClosed+"\n" {
		t.Errorf("with a closed output: %+v", got)
	}
}

func TestRotate_NamesTheMissingRole(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.apply("partner")
	terminal.awaitReason("partner", v1alpha1.ReasonIssued)
	terminal.logIn(terminal.env.User(t, "joe"))
	terminal.allow("joe", "get", "list")
	terminal.types("rotate", "partner")
	terminal.assertGolden()
}

func TestReveal_PrintsTheNewTokenOfARotation(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.apply("partner")
	terminal.awaitReason("partner", v1alpha1.ReasonIssued)
	former := terminal.secret("partner-token")
	key := terminal.key("App partner")
	before := client.MergeFrom(key.DeepCopy())
	key.Spec.Rotation = &v1alpha1.Rotation{Request: &v1alpha1.RotationRequest{At: metav1.NewTime(apikey.NewestToken(key).NotBefore.Add(time.Second))}}
	framework.Must(t, terminal.env.Client.Patch(t.Context(), key, before))
	framework.Eventually(t, "the request is due", func() bool { return time.Now().After(key.Spec.Rotation.Request.At.Time) })
	revealed := terminal.run("reveal", "partner")
	if revealed.stdout == string(former.Data["token"])+"\n" {
		t.Error("the former token is printed")
	}
	terminal.assertTokenOf(terminal.key("App partner"), tokenIn(revealed.stdout))

	// A user restores the Secret from a backup.
	former.ResourceVersion, former.UID = "", ""
	framework.Must(t, terminal.env.Client.Create(t.Context(), former))
	want := "Error: the Secret \"partner-token\" contains a superseded token of APIKey \"partner\": another party has changed it; rotate the key\n"
	if got := terminal.run("reveal", "partner"); got.code != exitFailure || got.stderr != want {
		t.Errorf("reveal: %+v, want %s", got, want)
	}
}

func TestExport_NamesTheTokensThatAreLeftOut(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.apply("partner", imported, func(key *v1alpha1.APIKey) {
		key.Spec.Rotation = &v1alpha1.Rotation{Overlap: &metav1.Duration{Duration: time.Hour}}
	})
	terminal.awaitReason("partner", v1alpha1.ReasonIssued)
	rotated := terminal.run("rotate", "partner")
	exported := terminal.types("export", "partner")
	if want := "tokenHash: " + token.Hash(tokenIn(rotated.stdout)); !strings.Contains(exported.stdout, want) {
		t.Errorf("the newest token is not exported: %s", exported.stdout)
	}
	terminal.assertGolden()
}

func TestList_PrintsTheNextRotation(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.apply("partner", func(key *v1alpha1.APIKey) {
		key.Spec.Rotation = &v1alpha1.Rotation{Interval: &metav1.Duration{Duration: 720 * time.Hour}}
	})
	terminal.awaitReason("partner", v1alpha1.ReasonIssued)
	next := apikey.NewestToken(terminal.key("App partner")).NotBefore.Add(720 * time.Hour)
	if got := terminal.run("list", "-o", "wide"); !strings.Contains(got.stdout, timestamp(next)) || !strings.Contains(got.stdout, "NEXT ROTATION") {
		t.Errorf("list: %+v", got)
	}
}
