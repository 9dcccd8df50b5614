// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build bench

package scale_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const namespaces = 100

// key is an APIKey, and its token if it is issued.
type key struct{ namespace, name, appName, uid, token string }

func (k *key) object() *v1alpha1.APIKey {
	return &v1alpha1.APIKey{ObjectMeta: metav1.ObjectMeta{Namespace: k.namespace, Name: k.name}}
}

// population is a Kubernetes API with many APIKeys.
//
// Creating all of them at the API server would take many minutes. So the test creates two, the controller issues one of them, and the test
// stores copies of what the API server has stored, with different names, hashes and UIDs.
type population struct {
	*testenv.Env
	t      *testing.T
	issued []key

	// identity is that of the controller, which policies require. Its group has all rights.
	identity *rest.Config
	// writer makes the writes of the floor.
	writer client.Client

	issuedForm, appliedForm form
	minted                  int
}

// form is an APIKey as the API server stores it.
type form struct {
	key
	content string
}

// in returns the population for a subtest.
func (p *population) in(t *testing.T) *population {
	t.Helper()
	copied := *p
	copied.t = t
	return &copied
}

// newPopulation starts a Kubernetes API without issued keys.
func newPopulation(t *testing.T) *population {
	t.Helper()
	p := &population{Env: testenv.Start(t, "--request-timeout=10m"), t: t} // a busy machine needs longer than a minute to list them
	p.identity = p.User(t, "system:serviceaccount:apikey-system:apikey-controller", "system:masters")
	var err error
	p.writer, err = client.New(p.identity, client.Options{Scheme: p.Scheme})
	framework.Must(t, err)
	for i := range namespaces {
		framework.Must(t, p.Client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespaceName(i)}}))
	}
	p.appliedForm = p.formOf(p.apply(p.mint()))
	issued := p.apply(p.mint())
	controller := p.startController()
	framework.EventuallyWithin(t, time.Minute, 50*time.Millisecond, "the key is issued", func() bool {
		object := issued.object()
		framework.Must(t, p.Client.Get(t.Context(), client.ObjectKeyFromObject(object), object))
		return apikey.IsIssued(object)
	})
	controller.Kill()
	p.issuedForm = p.formOf(issued)
	return p
}

// fill stores issued keys until there are this many.
func (p *population) fill(count int) {
	p.t.Helper()
	p.issued = append(p.issued, p.store(&p.issuedForm, count-len(p.issued))...)
	p.checkStored(&p.issued[count-1])
}

func namespaceName(i int) string { return fmt.Sprintf("namespace-%02d", i%namespaces) }

// mint returns a new key, with a form of the same length as all others.
func (p *population) mint() key {
	defer func() { p.minted++ }()
	return key{
		namespace: namespaceName(p.minted),
		name:      fmt.Sprintf("backend-%07d", p.minted),
		appName:   fmt.Sprintf("Backend App %08d", p.minted),
		uid:       string(uuid.NewUUID()),
		token:     token.New(),
	}
}

// apply creates a key with kubectl.
func (p *population) apply(k key) key {
	p.t.Helper()
	_, err := p.ControlPlane.Kubectl(p.t.Context(), fmt.Sprintf(
		"{apiVersion: keys.squirrel.dev/v1alpha1, kind: APIKey, metadata: {namespace: %s, name: %s}, spec: {appName: %s, readAccess: true}}",
		k.namespace, k.name, k.appName), "apply", "--filename=-")
	framework.Must(p.t, err)
	return k
}

// formOf reads a key as the API server has stored it.
func (p *population) formOf(k key) form {
	p.t.Helper()
	f := form{key: k, content: p.ReadEtcd(p.t, testenv.EtcdKey(k.namespace, k.name))}
	f.uid = string(f.decode(p.t).UID)
	return f
}

func (f *form) decode(t *testing.T) *v1alpha1.APIKey {
	t.Helper()
	var object v1alpha1.APIKey
	framework.Must(t, json.Unmarshal([]byte(f.content), &object))
	return &object
}

// store stores this many keys of a form, each with a different resource version, as the API server does.
func (p *population) store(f *form, count int) []key {
	p.t.Helper()
	stored := make([]key, count)
	object := f.decode(p.t)
	p.WriteEtcd(p.t, func(yield func(key, value string) bool) {
		for i := range stored {
			stored[i] = p.mint()
			if !yield(testenv.EtcdKey(stored[i].namespace, stored[i].name), f.of(object, &stored[i])) {
				return
			}
		}
	})
	return stored
}

// of returns the content of a key. The object is the decoded form.
func (f *form) of(object *v1alpha1.APIKey, k *key) string {
	replacements := []string{f.namespace, k.namespace, f.name, k.name, f.appName, k.appName, f.uid, k.uid}
	for _, recorded := range object.Status.Tokens {
		replacements = append(replacements, recorded.Hash, token.Hash(k.token), recorded.Hint, token.Hint(k.token))
	}
	return strings.NewReplacer(replacements...).Replace(f.content)
}

// checkStored checks that the API server would store the same form: a patch without changes rewrites an object that is stored in another
// form.
func (p *population) checkStored(k *key) {
	p.t.Helper()
	object := k.object()
	framework.EventuallyWithin(p.t, time.Minute, 50*time.Millisecond, "the API server has seen the last key", func() bool {
		return p.Client.Get(p.t.Context(), client.ObjectKeyFromObject(object), object) == nil
	})
	before := object.ResourceVersion
	framework.Must(p.t, p.Client.Patch(p.t.Context(), object, client.RawPatch(types.MergePatchType, []byte(`{}`))))
	if object.ResourceVersion != before {
		p.t.Errorf("the API server stores another form of %s than was stored for it", k.name)
	}
	if object.Status.Tokens[0].Hash != token.Hash(k.token) || object.Spec.AppName != k.appName || string(object.UID) != k.uid {
		p.t.Errorf("the API server has %v instead of %v", object, k)
	}
}
