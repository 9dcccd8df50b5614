// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// The API server is asked about every verb on every resource that it knows. What it grants to any ServiceAccount, such as to ask for the
// versions of the API, is left aside; for the rest its answers are those of docs/security/permissions.md, no more and no less.
func TestInvariant8_NoProcessMayDoMoreThanIsDocumented(t *testing.T) {
	env := installed(t)
	elsewhere := env.Namespace(t)
	anybody := &account{namespace: elsewhere, name: "anybody"}
	create(t, env.Client, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: elsewhere, Name: anybody.name}})
	kube := newClientset(t, env)
	everything := everythingIn(t, kube)

	for _, account := range readPermissions(t).installed() {
		t.Run(account.name, func(t *testing.T) {
			home := account.namespace
			inquiry := maps.Clone(everything)
			inquiry.add(rulesIn(t, env, env.ServiceAccount(t, home, account.name), home)...)
			inquiry.add(rulesIn(t, env, env.ServiceAccount(t, home, account.name), elsewhere)...)

			// What is granted in all namespaces at once is granted at home too, and no role is bound in others.
			granted := ask(t, kube, account, inquiry.questions(home))
			maps.Copy(granted, ask(t, kube, account, inquiry.granted(granted).questions("", elsewhere)))
			expectBoundAtHome(t, env, account)

			beyond, missing := account.compare(granted)
			toAnybody := ask(t, kube, anybody, beyond)
			beyond = slices.DeleteFunc(beyond, func(q question) bool { return toAnybody[q] })
			for _, q := range beyond {
				t.Errorf("it may, and is not to: %s", q)
			}
			for _, q := range missing {
				t.Errorf("it is to, and may not: %s", q)
			}
		})
	}
}

func TestTheDocumentedPermissionsAreOfAllThatIsInstalled(t *testing.T) {
	env := installed(t)
	documented := readPermissions(t)
	var want []string
	for _, account := range documented.installed() {
		want = append(want, "ServiceAccount "+account.user())
	}
	for _, role := range documented.people {
		want = append(want, "ClusterRole "+role.Name)
	}
	for _, policy := range documented.policies {
		want = append(want, "ValidatingAdmissionPolicy "+policy.Name)
	}

	var got []string
	ours := client.MatchingLabels{"app.kubernetes.io/name": "apikey-operator"}
	var accounts corev1.ServiceAccountList
	framework.Must(t, env.Client.List(t.Context(), &accounts, ours))
	for _, account := range accounts.Items {
		got = append(got, "ServiceAccount system:serviceaccount:"+account.Namespace+":"+account.Name)
	}
	var roles rbacv1.ClusterRoleList
	framework.Must(t, env.Client.List(t.Context(), &roles, ours))
	for _, role := range roles.Items {
		if slices.ContainsFunc(documented.accounts, func(a *account) bool { return a.name == role.Name }) {
			continue // whoever it is bound to is asked about
		}
		got = append(got, "ClusterRole "+role.Name)
	}
	var policies admissionregistrationv1.ValidatingAdmissionPolicyList
	framework.Must(t, env.Client.List(t.Context(), &policies, ours))
	for _, policy := range policies.Items {
		got = append(got, "ValidatingAdmissionPolicy "+policy.Name)
	}
	for _, binding := range bindings(t, env, ours) {
		for _, subject := range binding.Subjects {
			isSubject := func(a *account) bool { return subject.Kind == rbacv1.ServiceAccountKind && a.is(subject) }
			if !slices.ContainsFunc(documented.installed(), isSubject) {
				t.Errorf("%s binds the role %s to %s %s: what anybody may is left aside, so nobody else would notice",
					binding.Name, binding.RoleRef.Name, subject.Kind, subject.Name)
			}
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what is installed (-documented +installed):\n%s", diff)
	}
}

func TestInvariant8_WhatIsAddedToARoleIsFound(t *testing.T) {
	keys := rbacv1.PolicyRule{APIGroups: []string{"keys.squirrel.dev"}, Resources: []string{"apikeys"}, Verbs: []string{"list"}}
	lease := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"leases"}, ResourceNames: []string{"leader"}, Verbs: []string{"get"}}
	const home = "home"
	documented := &account{namespace: home, rules: []rule{{PolicyRule: keys}, {PolicyRule: lease, namespace: home}}}
	anotherRule := func(namespace, group, resource, verb string) func(rules []rule) []rule {
		added := rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: []string{verb}}
		return func(rules []rule) []rule { return append(rules, rule{PolicyRule: added, namespace: namespace}) }
	}
	ofLease := func(change func(lease *rule)) func(rules []rule) []rule {
		return func(rules []rule) []rule {
			change(&rules[1])
			return rules
		}
	}

	for _, test := range []struct {
		change          string
		tamper          func(rules []rule) []rule
		beyond, missing []string
	}{
		{"nothing", func(rules []rule) []rule { return rules }, nil, nil},
		{"a verb", ofLease(func(r *rule) { r.Verbs = []string{"get", "update"} }), []string{"update leases leader in home"}, nil},
		{"a wildcard of verbs", anotherRule(home, "", "secrets", "*"), []string{
			"create secrets in home", "delete secrets in home", "deletecollection secrets in home", "get secrets in home", "list secrets in home",
			"patch secrets in home", "unheard-of secrets in home", "update secrets in home", "watch secrets in home"}, nil},
		{"another name", ofLease(func(r *rule) { r.ResourceNames = []string{"leader", "other"} }), []string{"get leases other in home"}, nil},
		{"every name", ofLease(func(r *rule) { r.ResourceNames = nil }), []string{"get leases in home", "get leases unheard-of in home"}, nil},
		{"every namespace", ofLease(func(r *rule) { r.namespace = "" }), []string{
			"get leases leader everywhere", "get leases leader in elsewhere"}, nil},
		{"a subresource", anotherRule("", "keys.squirrel.dev", "apikeys/status", "patch"), []string{
			"patch keys.squirrel.dev/apikeys/status everywhere", "patch keys.squirrel.dev/apikeys/status in elsewhere",
			"patch keys.squirrel.dev/apikeys/status in home"}, nil},
		{"a verb of few resources", anotherRule("", "", "users", "impersonate"), []string{
			"impersonate users everywhere", "impersonate users in elsewhere", "impersonate users in home"}, nil},
		{"an unknown resource", anotherRule(home, "example.com", "things", "get"), []string{"get example.com/things in home"}, nil},
		{"a namespace less", func(rules []rule) []rule {
			rules[0].namespace = home
			return rules
		}, nil, []string{"list keys.squirrel.dev/apikeys everywhere", "list keys.squirrel.dev/apikeys in elsewhere"}},
	} {
		t.Run(test.change, func(t *testing.T) {
			server := &account{namespace: home, rules: test.tamper(slices.Clone(documented.rules))}
			inquiry := inquiry{}
			for _, r := range slices.Concat(documented.rules, server.rules) {
				inquiry.add(r.PolicyRule)
			}
			granted := map[question]bool{}
			for _, q := range inquiry.questions("", home, "elsewhere") {
				granted[q] = server.allows(q)
			}
			beyond, missing := documented.compare(granted)
			if diff := cmp.Diff([][]string{test.beyond, test.missing}, [][]string{texts(beyond), texts(missing)}); diff != "" {
				t.Errorf("what is found to be granted and not documented, and the other way round (-want +got):\n%s", diff)
			}
		})
	}
}

// question is whether this may be done: with a resource, of a namespace or, where that is empty, of all; or with a path.
type question struct {
	verb, group, resource, name, namespace string
	path                                   string
}

func (q question) String() string {
	if q.path != "" {
		return q.verb + " " + q.path
	}
	where := "everywhere"
	if q.namespace != "" {
		where = "in " + q.namespace
	}
	words := []string{q.verb, strings.TrimPrefix(q.group+"/"+q.resource, "/"), q.name, where}
	return strings.Join(slices.DeleteFunc(words, func(word string) bool { return word == "" }), " ")
}

func texts(questions []question) (texts []string) {
	for _, q := range questions {
		texts = append(texts, q.String())
	}
	return texts
}

// allows says whether the rules of the account allow this.
func (a *account) allows(q question) bool {
	return slices.ContainsFunc(a.rules, func(r rule) bool {
		return slices.Contains(r.APIGroups, q.group) && slices.Contains(r.Resources, q.resource) &&
			(slices.Contains(r.Verbs, q.verb) || slices.Contains(r.Verbs, rbacv1.VerbAll)) &&
			(len(r.ResourceNames) == 0 || slices.Contains(r.ResourceNames, q.name)) &&
			(r.namespace == "" || r.namespace == q.namespace)
	})
}

// compare returns what was granted and the rules of the account do not allow, and what they allow and was not granted.
func (a *account) compare(granted map[question]bool) (beyond, missing []question) {
	for q, granted := range granted {
		switch allowed := a.allows(q); {
		case granted && !allowed:
			beyond = append(beyond, q)
		case allowed && !granted:
			missing = append(missing, q)
		}
	}
	byText := func(a, b question) int { return strings.Compare(a.String(), b.String()) }
	slices.SortFunc(beyond, byText)
	slices.SortFunc(missing, byText)
	return beyond, missing
}

// moved returns the account as it is when it is installed in another namespace.
func (a *account) moved(namespace string) *account {
	moved := &account{namespace: namespace, name: a.name, rules: slices.Clone(a.rules)}
	for i, r := range moved.rules {
		if r.namespace == a.namespace {
			moved.rules[i].namespace = namespace
		}
	}
	return moved
}

// unheardOf is a verb, a resource, a name and a path that nobody gives in a rule: whoever may do that has a wildcard.
const unheardOf = "unheard-of"

var (
	verbs     = []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", unheardOf}
	pathVerbs = []string{"get", "post", unheardOf}

	impersonation = []string{"impersonate", "impersonate:user-info", "impersonate:serviceaccount", "impersonate:arbitrary-node"}

	// hidden are resources that are in no list of the API, and verbs beside those above, that Kubernetes and others ask about.
	hidden = map[schema.GroupResource][]string{
		{Group: rbacv1.GroupName, Resource: "clusterroles"}:                      {"bind", "escalate"},
		{Group: rbacv1.GroupName, Resource: "roles"}:                             {"bind", "escalate"},
		{Resource: "users"}:                                                      impersonation,
		{Resource: "groups"}:                                                     impersonation,
		{Resource: "serviceaccounts"}:                                            impersonation,
		{Group: "authentication.k8s.io", Resource: "uids"}:                       impersonation,
		{Group: "authentication.k8s.io", Resource: "users"}:                      impersonation,
		{Group: "authentication.k8s.io", Resource: "groups"}:                     impersonation,
		{Group: "authentication.k8s.io", Resource: "serviceaccounts"}:            impersonation,
		{Group: "authentication.k8s.io", Resource: "nodes"}:                      impersonation,
		{Group: "authentication.k8s.io", Resource: "userextras/scopes"}:          impersonation,
		{Group: "certificates.k8s.io", Resource: "signers"}:                      {"approve", "attest", "sign"},
		{Resource: "nodes/checkpoint"}:                                           nil,
		{Resource: "nodes/configz"}:                                              nil,
		{Resource: "nodes/healthz"}:                                              nil,
		{Resource: "nodes/log"}:                                                  nil,
		{Resource: "nodes/metrics"}:                                              nil,
		{Resource: "nodes/pods"}:                                                 nil,
		{Resource: "nodes/spec"}:                                                 nil,
		{Resource: "nodes/stats"}:                                                nil,
		{Group: "metrics.k8s.io", Resource: "pods"}:                              nil,
		{Group: "security.openshift.io", Resource: "securitycontextconstraints"}: {"use"},
		{Group: "example.com", Resource: unheardOf}:                              nil,
	}
)

// inquiry is what to ask about, without saying where.
type inquiry map[question]bool

// everythingIn returns all that the API server knows of, and what is hidden.
func everythingIn(t *testing.T, kube kubernetes.Interface) inquiry {
	t.Helper()
	everything := inquiry{}
	for resource := range hidden {
		everything.add(rbacv1.PolicyRule{APIGroups: []string{resource.Group}, Resources: []string{resource.Resource}})
	}
	_, lists, err := kube.Discovery().ServerGroupsAndResources()
	framework.Must(t, err)
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		framework.Must(t, err)
		for _, resource := range list.APIResources {
			everything.add(rbacv1.PolicyRule{APIGroups: []string{version.Group}, Resources: []string{resource.Name}})
		}
	}
	var root metav1.RootPaths
	content, err := kube.Discovery().RESTClient().Get().AbsPath("/").Do(t.Context()).Raw()
	framework.Must(t, err)
	framework.Must(t, json.Unmarshal(content, &root))
	everything.add(rbacv1.PolicyRule{NonResourceURLs: append(root.Paths, "/"+unheardOf)})
	return everything
}

// add adds all verbs on what the rules are about, by the names that they give and by another.
func (i inquiry) add(rules ...rbacv1.PolicyRule) {
	for _, r := range rules {
		names := []string{""}
		if len(r.ResourceNames) > 0 {
			names = slices.Concat(names, r.ResourceNames, []string{unheardOf})
		}
		for _, group := range r.APIGroups {
			for _, resource := range r.Resources {
				for _, verb := range slices.Concat(verbs, r.Verbs, hidden[schema.GroupResource{Group: group, Resource: resource}]) {
					for _, name := range names {
						i[question{verb: verb, group: group, resource: resource, name: name}] = verb != rbacv1.VerbAll
					}
				}
			}
		}
		for _, path := range r.NonResourceURLs {
			for _, verb := range slices.Concat(pathVerbs, r.Verbs) {
				i[question{verb: verb, path: path}] = verb != rbacv1.VerbAll
			}
		}
	}
}

// granted returns what is granted somewhere.
func (i inquiry) granted(granted map[question]bool) inquiry {
	somewhere := inquiry{}
	for q, granted := range granted {
		if granted {
			q.namespace = ""
			somewhere[q] = true
		}
	}
	return somewhere
}

// questions returns what to ask, in each of these namespaces, of which an empty one is all.
func (i inquiry) questions(namespaces ...string) (questions []question) {
	for q, wanted := range i {
		switch {
		case !wanted:
		case q.path != "":
			questions = append(questions, q)
		default:
			for _, namespace := range namespaces {
				q.namespace = namespace
				questions = append(questions, q)
			}
		}
	}
	return questions
}

// bindings returns all bindings, of which those that are cluster-wide have no namespace.
func bindings(t *testing.T, env *testenv.Env, options ...client.ListOption) []rbacv1.RoleBinding {
	t.Helper()
	var inNamespaces rbacv1.RoleBindingList
	framework.Must(t, env.Client.List(t.Context(), &inNamespaces, options...))
	var everywhere rbacv1.ClusterRoleBindingList
	framework.Must(t, env.Client.List(t.Context(), &everywhere, options...))
	all := inNamespaces.Items
	for _, b := range everywhere.Items {
		all = append(all, rbacv1.RoleBinding{ObjectMeta: b.ObjectMeta, Subjects: b.Subjects, RoleRef: b.RoleRef})
	}
	return all
}

// expectBoundAtHome expects that no namespace but its own has a role that is bound to the account.
func expectBoundAtHome(t *testing.T, env *testenv.Env, account *account) {
	t.Helper()
	for _, binding := range bindings(t, env) {
		for _, subject := range binding.Subjects {
			if account.is(subject) && binding.Namespace != "" && binding.Namespace != account.namespace {
				t.Errorf("the role %s is bound to it in the namespace %s", binding.RoleRef.Name, binding.Namespace)
			}
		}
	}
}

// newClientset returns one that costs both ends as little as can be, for thousands of calls.
func newClientset(t *testing.T, env *testenv.Env) kubernetes.Interface {
	t.Helper()
	config := rest.CopyConfig(env.Config)
	config.ContentType = runtime.ContentTypeProtobuf
	kube, err := kubernetes.NewForConfig(config)
	framework.Must(t, err)
	return kube
}

// ask asks the API server what the account may do.
func ask(t *testing.T, kube kubernetes.Interface, account *account, questions []question) map[question]bool {
	t.Helper()
	var (
		mutex   sync.Mutex
		granted = map[question]bool{}
		next    = make(chan question)
		workers sync.WaitGroup
	)
	for range 16 {
		workers.Go(func() {
			for q := range next {
				review, err := kube.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), reviewOf(account, q), metav1.CreateOptions{})
				if err != nil {
					t.Errorf("%s: %v", q, err)
					continue
				}
				mutex.Lock()
				granted[q] = review.Status.Allowed
				mutex.Unlock()
			}
		})
	}
	for _, q := range questions {
		next <- q
	}
	close(next)
	workers.Wait()
	return granted
}

// reviewOf returns the question as it is asked about the user and the groups that a ServiceAccount is.
func reviewOf(account *account, q question) *authorizationv1.SubjectAccessReview {
	review := &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{User: account.user(), Groups: account.groups()},
	}
	if q.path != "" {
		review.Spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Verb: q.verb, Path: q.path}
		return review
	}
	resource, subresource, _ := strings.Cut(q.resource, "/")
	review.Spec.ResourceAttributes = &authorizationv1.ResourceAttributes{
		Namespace: q.namespace, Verb: q.verb, Group: q.group, Resource: resource, Subresource: subresource, Name: q.name,
	}
	return review
}
