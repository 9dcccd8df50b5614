// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gitops

package gitops_test

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
)

var fluxCases = map[string]func(*fluxFixture){
	"a Kustomization is ready when its key is issued":            (*fluxFixture).testCreate,
	"a renamed key is issued when the old object is pruned":      (*fluxFixture).testRename,
	"a renamed key may keep the name of the Secret":              (*fluxFixture).testRenameWithSecretName,
	"a renamed imported key keeps its token":                     (*fluxFixture).testRenameImported,
	"a key is issued when another is deactivated":                (*fluxFixture).testReplace,
	"a key and its Secret are pruned, and others stay":           (*fluxFixture).testPrune,
	"a key with pruning disabled stays":                          (*fluxFixture).testPruneDisabled,
	"fields of Git are taken back from kubectl":                  (*fluxFixture).testDrift,
	"fields of other managers stay":                              (*fluxFixture).testOtherManagers,
	"writes of the controller do not count as drift":             (*fluxFixture).testOwnWrites,
	"a stalled key is unhealthy until its conflict is resolved":  (*fluxFixture).testStalled,
	"ended keys in Git are healthy":                              (*fluxFixture).testEnded,
	"an imported key in Git is healthy":                          (*fluxFixture).testImported,
	"a suspended Kustomization changes and prunes nothing":       (*fluxFixture).testSuspend,
	"deleting a Kustomization prunes its keys":                   (*fluxFixture).testDelete,
	"a key deactivated by the CLI stays so, and is healthy":      (*fluxFixture).testDeactivatedByCLI,
	"a key deactivated by kubectl stays so, and Git must follow": (*fluxFixture).testDeactivatedByKubectl,
	"a rotation requested in Git happens once":                   (*fluxFixture).testRotatedByGit,
	"a rotation by the CLI follows one that Git requested":       (*fluxFixture).testRotatedByCLIAndGit,
	"a rotation at the interval of Git changes no field":         (*fluxFixture).testRotatedByInterval,
	"a rotation by the CLI stays":                                (*fluxFixture).testRotatedByCLI,
	"a forced rotation of an imported key is taken back":         (*fluxFixture).testRotatedByForce,
	"a Kustomization with force recreates a refused key":         (*fluxFixture).testForce,
	"an immutable field of Git is refused by name":               (*fluxFixture).testImmutable,
}

func (f *fluxFixture) testCreate() {
	f.mustSync(map[string]string{"frontend.yaml": f.snippet("frontend.yaml", "shop")})
	f.expectIssued("frontend")
}

func (f *fluxFixture) testRename() {
	f.mustSync(map[string]string{"key.yaml": f.manifest("old", app)})
	former := f.expectIssued("old")

	f.mustSync(map[string]string{"key.yaml": f.manifest("new", app)})
	f.expectGone("old")
	if secret := f.expectIssued("new"); string(secret.Data["token"]) == string(former.Data["token"]) {
		f.Error("the renamed key has the token of the old one")
	}
}

func (f *fluxFixture) testRenameWithSecretName() {
	f.mustSync(map[string]string{"key.yaml": f.manifest("old", app, "secret: {name: shared}")})
	former := f.expectIssued("old")

	f.mustSync(map[string]string{"key.yaml": f.manifest("new", app, "secret: {name: shared}")})
	f.expectGone("old")
	if secret := f.expectIssued("new"); secret.UID == former.UID {
		f.Error("the Secret of the old key is that of the renamed one")
	}
}

func (f *fluxFixture) testRenameImported() {
	f.mustSync(map[string]string{"key.yaml": f.manifest("old", app, "tokenHash: "+importedHash)})
	f.expectReady("old", metav1.ConditionTrue, v1alpha1.ReasonIssued)

	f.mustSync(map[string]string{"key.yaml": f.manifest("new", app, "tokenHash: "+importedHash)})
	f.expectGone("old")
	f.expectReady("new", metav1.ConditionTrue, v1alpha1.ReasonIssued)
}

func (f *fluxFixture) testReplace() {
	f.mustSync(map[string]string{"a.yaml": f.manifest("a", app)})
	f.mustSync(map[string]string{"a.yaml": f.manifest("a", app, "active: false"), "b.yaml": f.manifest("b", app)})
	f.expectReady("a", metav1.ConditionTrue, v1alpha1.ReasonDeactivated)
	f.expectIssued("b")
}

func (f *fluxFixture) testPrune() {
	files := map[string]string{"frontend.yaml": f.manifest("frontend", app), "backend.yaml": f.manifest("backend", "Backend App")}
	f.mustSync(files)
	before := f.expectIssued("backend")

	delete(files, "frontend.yaml")
	f.mustSync(files)
	f.expectGone("frontend")
	after := f.expectIssued("backend")
	if after.UID != before.UID || after.ResourceVersion != before.ResourceVersion {
		f.Errorf("Flux wrote a one-time Secret\nbefore: %+v\n after: %+v", before.ObjectMeta, after.ObjectMeta)
	}
	f.expectInventory(f.Namespace + "_backend_keys.squirrel.dev_APIKey")
}

func (f *fluxFixture) expectInventory(want ...string) {
	f.Helper()
	var got []string
	for _, entry := range f.status().Inventory.Entries {
		got = append(got, entry.ID)
	}
	if !slices.Equal(got, want) {
		f.Errorf("Flux manages %v, want %v", got, want)
	}
}

func (f *fluxFixture) testPruneDisabled() {
	protected := strings.Replace(f.manifest("frontend", app), "annotations: {", "annotations: {kustomize.toolkit.fluxcd.io/prune: disabled, ", 1)
	f.mustSync(map[string]string{"frontend.yaml": protected, "backend.yaml": f.manifest("backend", "Backend App")})
	f.mustSync(map[string]string{"backend.yaml": f.manifest("backend", "Backend App")})
	f.expectIssued("frontend")
	f.expectInventory(f.Namespace + "_backend_keys.squirrel.dev_APIKey")
}

func (f *fluxFixture) testDrift() {
	f.mustSync(map[string]string{"frontend.yaml": f.manifest("frontend", app, "expiresAt: 2090-01-01T00:00:00Z")})
	token := f.expectIssued("frontend").Data["token"]
	declared := f.GetKey("frontend")

	f.kubectl("patch", "apikeys/frontend", "--type=merge", "--patch",
		`{"spec": {"readAccess": false, "writeAccess": true, "expiresAt": "2091-01-01T00:00:00Z"}}`)
	f.kubectl("annotate", "--overwrite", "apikeys/frontend", "owner=bob", "note=extra")
	f.kubectl("label", "--overwrite", "apikeys/frontend", "team=other")
	f.mustReconcile()
	key := f.GetKey("frontend")
	if key.Spec.ReadAccess != true || key.Spec.WriteAccess != false || !key.Spec.ExpiresAt.Equal(declared.Spec.ExpiresAt) {
		f.Errorf("the spec is %+v, want that of Git: %+v", key.Spec, declared.Spec)
	}
	if !maps.Equal(key.Labels, declared.Labels) || !maps.Equal(key.Annotations, declared.Annotations) {
		f.Errorf("got the labels %v and annotations %v, want those of Git: %v, %v", key.Labels, key.Annotations, declared.Labels, declared.Annotations)
	}
	if secret := f.expectIssued("frontend"); string(secret.Data["token"]) != string(token) {
		f.Error("the token has changed")
	}
	f.expectStill("frontend")
}

func (f *fluxFixture) testOtherManagers() {
	f.mustSync(map[string]string{"frontend.yaml": f.manifest("frontend", app)})
	expiry := metav1.NewTime(time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC))
	key := f.GetKey("frontend")
	before := client.MergeFrom(key.DeepCopy())
	key.Labels["cost-center"], key.Annotations["audited"] = "42", "yes"
	key.Spec.ExpiresAt = &expiry
	framework.Must(f, f.Env.Client.Patch(f.Context(), key, before, client.FieldOwner("auditor")))
	f.WaitForReady("frontend", v1alpha1.ReasonIssued)

	f.expectStill("frontend")
	key = f.GetKey("frontend")
	if key.Labels["cost-center"] != "42" || key.Annotations["audited"] != "yes" || !key.Spec.ExpiresAt.Equal(&expiry) {
		f.Errorf("Flux removed fields of another manager: the labels are %v, the annotations %v, the spec %+v", key.Labels, key.Annotations, key.Spec)
	}
}

func (f *fluxFixture) testOwnWrites() {
	f.mustSync(map[string]string{"frontend.yaml": f.manifest("frontend", app)})
	f.expectIssued("frontend")
	f.expectStill("frontend")

	f.mustSync(map[string]string{"frontend.yaml": f.manifest("frontend", app, "active: false")})
	f.expectReady("frontend", metav1.ConditionTrue, v1alpha1.ReasonDeactivated)
	f.expectStill("frontend")
}

func (f *fluxFixture) testStalled() {
	f.CreateKey("holder", func(key *v1alpha1.APIKey) { key.Spec.AppName = app })
	f.WaitForReady("holder", v1alpha1.ReasonIssued)
	f.expectEqual("the result of the sync", f.sync(map[string]string{"frontend.yaml": f.manifest("frontend", app)}),
		"False: health check failed after DURATION: failed early due to stalled resources: [APIKey/"+f.Namespace+"/frontend status: 'Failed']")
	f.expectReady("frontend", metav1.ConditionFalse, v1alpha1.ReasonAppNameConflict)

	framework.Must(f, f.Env.Client.Delete(f.Context(), f.GetKey("holder")))
	f.WaitForReady("frontend", v1alpha1.ReasonIssued)
	f.mustReconcile()
	f.expectIssued("frontend")
}

func (f *fluxFixture) testEnded() {
	f.mustSync(map[string]string{
		"deactivated.yaml": f.manifest("deactivated", "Deactivated App", "active: false"),
		"expired.yaml":     f.manifest("expired", "Expired App", "expiresAt: 2020-01-01T00:00:00Z"),
		"current.yaml":     f.manifest("current", app),
	})
	f.expectReady("deactivated", metav1.ConditionTrue, v1alpha1.ReasonDeactivated)
	f.expectReady("expired", metav1.ConditionTrue, v1alpha1.ReasonExpired)
	f.expectIssued("current")
	for _, name := range []string{"deactivated", "expired", "current"} {
		f.expectStill(name)
	}
}

func (f *fluxFixture) testImported() {
	f.mustSync(map[string]string{"imported.yaml": f.manifest("imported", app, "tokenHash: "+importedHash, "tokenHint: legacy-")})
	key := f.expectReady("imported", metav1.ConditionTrue, v1alpha1.ReasonIssued)
	if record := key.Status.Tokens[0]; record.Hash != importedHash || record.Hint != "legacy-" || key.Status.SecretName != "" {
		f.Errorf("the key has the token %+v and the Secret %q, want the hash of Git and no Secret", record, key.Status.SecretName)
	}
	f.expectStill("imported")
}

func (f *fluxFixture) testSuspend() {
	f.mustSync(map[string]string{"frontend.yaml": f.manifest("frontend", app)})
	f.configure(`{"suspend": true}`)
	f.kubectl("patch", "apikeys/frontend", "--type=merge", "--patch", `{"spec": {"writeAccess": true}}`)
	f.mustReconcile()
	if !f.GetKey("frontend").Spec.WriteAccess {
		f.Error("a suspended Kustomization has taken a field back")
	}
	f.configure(`{"suspend": false}`)
	f.mustReconcile()
	if f.GetKey("frontend").Spec.WriteAccess {
		f.Error("a resumed Kustomization has not taken a field back")
	}

	f.configure(`{"suspend": true}`)
	f.deleteKustomization()
	f.expectIssued("frontend")
}

// configure changes the spec of the Kustomization.
func (f *fluxFixture) configure(spec string) {
	f.Helper()
	f.kubectl("patch", "kustomizations/keys", "--type=merge", "--patch", `{"spec": `+spec+`}`)
}

func (f *fluxFixture) deleteKustomization() {
	f.Helper()
	f.kubectl("delete", "kustomizations/keys") // waits for the finalizer of Flux
}

func (f *fluxFixture) testDelete() {
	f.mustSync(map[string]string{"frontend.yaml": f.manifest("frontend", app)})
	f.deleteKustomization()
	f.expectGone("frontend")
}

func (f *fluxFixture) testDeactivatedByCLI() {
	f.mustSync(map[string]string{"frontend.yaml": f.manifest("frontend", app)})
	f.kubectlAPIKey("deactivate", "frontend")
	f.WaitForReady("frontend", v1alpha1.ReasonDeactivated)
	f.expectStill("frontend")
	f.expectReady("frontend", metav1.ConditionTrue, v1alpha1.ReasonDeactivated)
}

func (f *fluxFixture) testDeactivatedByKubectl() {
	f.mustSync(map[string]string{"frontend.yaml": f.manifest("frontend", app)})
	f.kubectl("patch", "apikeys/frontend", "--type=merge", "--patch", `{"spec": {"active": false}}`)
	f.WaitForReady("frontend", v1alpha1.ReasonDeactivated)
	const refused = `APIKey.keys.squirrel.dev "frontend" is invalid: spec.active: Invalid value: true: ` +
		"a deactivated key stays deactivated: create a new APIKey instead"
	f.expectEqual("the first reconciliation", f.reconcile(), "False: APIKey/"+f.Namespace+"/frontend apply failed: "+refused)
	f.expectEqual("the second reconciliation", f.reconcile(), "False: APIKey/"+f.Namespace+"/frontend dry-run failed (Invalid): "+refused)
	f.expectReady("frontend", metav1.ConditionTrue, v1alpha1.ReasonDeactivated)

	f.mustSync(map[string]string{"frontend.yaml": f.manifest("frontend", app, "active: false")})
	f.expectStill("frontend")
}

// rotationOfGit is a line of a spec that requests a rotation now.
func rotationOfGit() string {
	return "rotation: {request: {at: " + time.Now().UTC().Format(time.RFC3339) + "}}"
}

func (f *fluxFixture) testRotatedByGit() {
	f.mustSync(map[string]string{"frontend.yaml": f.manifest("frontend", app)})
	f.expectIssued("frontend")
	rotated := map[string]string{"frontend.yaml": f.manifest("frontend", app, rotationOfGit())}
	f.mustSync(rotated)
	f.expectTokens("frontend", 2)
	f.expectStill("frontend")

	withoutRequest := map[string]string{"frontend.yaml": f.manifest("frontend", app)}
	for _, reverted := range []map[string]string{withoutRequest, rotated} { // Flux counts their attempts with those of the earlier commits
		f.expectEqual("the result of the sync", f.sync(reverted), f.applied())
	}
	f.expectTokens("frontend", 2)
	f.expectStill("frontend")
}

// Flux sets the time of the request back to that of Git, which the controller has handled.
func (f *fluxFixture) testRotatedByCLIAndGit() {
	f.mustSync(map[string]string{"frontend.yaml": f.manifest("frontend", app)})
	f.mustSync(map[string]string{"frontend.yaml": f.manifest("frontend", app, rotationOfGit())})
	ofGit := f.GetKey("frontend").Spec.Rotation.Request.At
	f.kubectlAPIKey("rotate", "frontend")
	f.expectTokens("frontend", 3)
	f.mustReconcile()
	if at := f.GetKey("frontend").Spec.Rotation.Request.At; !at.Equal(&ofGit) {
		f.Errorf("the request has the time %s, want that of Git: %s", at, ofGit)
	}
	f.expectTokens("frontend", 3)
	f.expectStill("frontend")
}

func (f *fluxFixture) testRotatedByInterval() {
	f.mustSync(map[string]string{"frontend.yaml": f.manifest("frontend", app, "rotation: {interval: 1h, overlap: 10m}")})
	f.expectIssued("frontend")
	before := f.GetKey("frontend").Spec
	f.Env.UpdateInEtcd(f, f.Namespace, "frontend", func(object map[string]any) { // the interval is longer than a test
		issued := object["status"].(map[string]any)["tokens"].([]any)[0].(map[string]any)
		issued["notBefore"] = time.Now().UTC().Add(-time.Hour).Format(time.RFC3339)
	})
	framework.Eventually(f, "the key is rotated", func() bool {
		key := f.GetKey("frontend")
		return len(key.Status.Tokens) == 2 && key.Status.Tokens[1].NotAfter != nil
	})
	f.expectTokens("frontend", 2)
	f.expectStill("frontend")
	if diff := cmp.Diff(before, f.GetKey("frontend").Spec); diff != "" {
		f.Errorf("the rotation changed the spec (-before +after):\n%s", diff)
	}
}

// expectTokens expects that the key has this many tokens, that all but the first one are superseded, and that the Secret holds the first one.
func (f *fluxFixture) expectTokens(name string, count int) {
	f.Helper()
	secret, tokens := f.expectIssued(name), f.GetKey(name).Status.Tokens
	if len(tokens) != count {
		f.Fatalf("%s has the tokens %+v, want %d", name, tokens, count)
	}
	for i, record := range tokens {
		if isNewest := i == 0; (record.NotAfter == nil) != isNewest || (token.Hash(string(secret.Data["token"])) == record.Hash) != isNewest {
			f.Errorf("token %d of %s is %+v, want the newest one first, which the Secret holds", i, name, record)
		}
	}
}

func (f *fluxFixture) testRotatedByCLI() {
	f.mustSync(map[string]string{"frontend.yaml": f.manifest("frontend", app, "rotation: {interval: 2160h}")})
	f.expectIssued("frontend")
	f.kubectlAPIKey("rotate", "frontend")
	rotated := f.GetKey("frontend")
	f.expectStill("frontend")
	rotation := f.GetKey("frontend").Spec.Rotation
	if rotation.Request == nil || rotation.Interval.Duration != 2160*time.Hour || len(rotated.Status.Tokens) != 2 {
		f.Errorf("Flux changed spec.rotation to %+v, or the key was not rotated: %+v", rotation, rotated.Status)
	}
}

// The new token ends after the overlap. Therefore the CLI wants --force, and asks for a change of the manifest.
func (f *fluxFixture) testRotatedByForce() {
	f.mustSync(map[string]string{"imported.yaml": f.manifest("imported", app, "tokenHash: "+importedHash, "tokenHint: legacy-")})
	f.kubectlAPIKey("rotate", "imported", "--force")
	rotated := f.GetKey("imported")
	f.mustReconcile()
	framework.Eventually(f, "the token of Git is the newest one again", func() bool {
		tokens := f.GetKey("imported").Status.Tokens
		return len(tokens) == 2 && tokens[0].Hash == importedHash && tokens[0].NotAfter == nil &&
			tokens[1].Hash == rotated.Status.Tokens[0].Hash && tokens[1].NotAfter != nil
	})
	f.expectReady("imported", metav1.ConditionTrue, v1alpha1.ReasonIssued)
}

// A recreated key with tokenHash is valid again, although it was revoked. Therefore the documentation advises against force.
func (f *fluxFixture) testForce() {
	f.configure(`{"force": true}`)
	f.mustSync(map[string]string{"frontend.yaml": f.manifest("frontend", app, "tokenHash: "+importedHash)})
	revoked := f.GetKey("frontend")
	f.kubectl("patch", "apikeys/frontend", "--type=merge", "--patch", `{"spec": {"active": false}}`)
	f.WaitForReady("frontend", v1alpha1.ReasonDeactivated)

	f.reconcile() // takes over the field of kubectl
	f.mustReconcile()
	f.expectReady("frontend", metav1.ConditionTrue, v1alpha1.ReasonIssued)
	if f.GetKey("frontend").UID == revoked.UID {
		f.Error("the key was not recreated")
	}
}

func (f *fluxFixture) testImmutable() {
	f.mustSync(map[string]string{"frontend.yaml": f.manifest("frontend", app)})
	uid := f.GetKey("frontend").UID
	files := map[string]string{"frontend.yaml": f.manifest("frontend", "Other App")}
	f.expectEqual("the result of the sync", f.sync(files), "False: APIKey/"+f.Namespace+`/frontend dry-run failed (Invalid): `+
		`APIKey.keys.squirrel.dev "frontend" is invalid: spec.appName: Invalid value: `+
		"appName is immutable: create a new APIKey, and deactivate this one")
	f.expectIssued("frontend")
	if f.GetKey("frontend").UID != uid {
		f.Error("the key was recreated")
	}
}
