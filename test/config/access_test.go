// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
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

// The test reviews every verb on every resource of the API server. It ignores what any ServiceAccount may do, such as discovery. The rest
// must be the permissions in docs/security/permissions.md, no more and no less.
func TestInvariant8_TheProcessesHaveExactlyTheDocumentedPermissions(t *testing.T) {
	env := installed(t)
	elsewhere := env.Namespace(t)
	other := &account{namespace: elsewhere, name: "other"}
	create(t, env.Client, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: elsewhere, Name: other.name}})
	kube := newClientset(t, env)
	all := allAccesses(t, kube)

	for _, account := range readPermissions(t).installed() {
		t.Run(account.name, func(t *testing.T) {
			own := account.namespace
			set := maps.Clone(all)
			set.add(rulesIn(t, env, env.ServiceAccount(t, own, account.name), own)...)
			for _, namespace := range []string{tenantNamespace, elsewhere} {
				set.add(rulesIn(t, env, env.ServiceAccount(t, own, account.name), namespace)...)
			}

			// A permission for all namespaces applies to its own namespace too, and no role is bound elsewhere.
			granted := review(t, kube, account, set.in(own))
			maps.Copy(granted, review(t, kube, account, set.granted(granted).in("", elsewhere)))
			maps.Copy(granted, review(t, kube, account, set.in(tenantNamespace)))
			expectBoundOnlyIn(t, env, account, own, tenantNamespace)

			excess, missing := account.compare(granted)
			grantedToOther := review(t, kube, other, excess)
			excess = slices.DeleteFunc(excess, func(a access) bool { return grantedToOther[a] })
			for _, a := range excess {
				t.Errorf("granted, but not documented: %s", a)
			}
			for _, a := range missing {
				t.Errorf("documented, but not granted: %s", a)
			}
		})
	}
}

func TestTheDocumentedPermissionsCoverAllInstalledObjects(t *testing.T) {
	env := installed(t)
	documented := readPermissions(t)
	var want []string
	for _, account := range documented.installed() {
		want = append(want, "ServiceAccount "+account.user())
	}
	for _, role := range documented.userRoles {
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
		if slices.ContainsFunc(documented.accounts, func(a *account) bool { return strings.HasPrefix(role.Name, a.name) }) {
			continue // the test above reviews the account of this role
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
			isSubject := func(a *account) bool { return subject.Kind == rbacv1.ServiceAccountKind && a.matches(subject) }
			if !slices.ContainsFunc(documented.installed(), isSubject) {
				t.Errorf("%s binds the role %s to %s %s, which is not the ServiceAccount of a process", binding.Name, binding.RoleRef.Name, subject.Kind,
					subject.Name) // the test above ignores what all ServiceAccounts may do
			}
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("installed objects (-documented +installed):\n%s", diff)
	}
}

func TestInvariant8_ChangesOfARoleAreDetected(t *testing.T) {
	keys := rbacv1.PolicyRule{APIGroups: []string{"keys.squirrel.dev"}, Resources: []string{"apikeys"}, Verbs: []string{"list"}}
	lease := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"leases"}, ResourceNames: []string{"leader"}, Verbs: []string{"get"}}
	const own = "own"
	documented := &account{namespace: own, rules: []rule{{PolicyRule: keys}, {PolicyRule: lease, namespace: own}}}
	addRule := func(namespace, group, resource, verb string) func(rules []rule) []rule {
		added := rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: []string{verb}}
		return func(rules []rule) []rule { return append(rules, rule{PolicyRule: added, namespace: namespace}) }
	}
	changeLease := func(change func(lease *rule)) func(rules []rule) []rule {
		return func(rules []rule) []rule {
			change(&rules[1])
			return rules
		}
	}

	for _, test := range []struct {
		name            string
		change          func(rules []rule) []rule
		excess, missing []string
	}{
		{"no change", func(rules []rule) []rule { return rules }, nil, nil},
		{"another verb", changeLease(func(r *rule) { r.Verbs = []string{"get", "update"} }), []string{"update leases leader in own"}, nil},
		{"a wildcard for verbs", addRule(own, "", "secrets", "*"), []string{
			"create secrets in own", "delete secrets in own", "deletecollection secrets in own", "get secrets in own", "list secrets in own",
			"patch secrets in own", "unknown secrets in own", "update secrets in own", "watch secrets in own"}, nil},
		{"another name", changeLease(func(r *rule) { r.ResourceNames = []string{"leader", "other"} }), []string{"get leases other in own"}, nil},
		{"all names", changeLease(func(r *rule) { r.ResourceNames = nil }), []string{"get leases in own", "get leases unknown in own"}, nil},
		{"all namespaces", changeLease(func(r *rule) { r.namespace = "" }), []string{
			"get leases leader in all namespaces", "get leases leader in elsewhere"}, nil},
		{"a subresource", addRule("", "keys.squirrel.dev", "apikeys/status", "patch"), []string{
			"patch keys.squirrel.dev/apikeys/status in all namespaces", "patch keys.squirrel.dev/apikeys/status in elsewhere",
			"patch keys.squirrel.dev/apikeys/status in own"}, nil},
		{"a special verb", addRule("", "", "users", "impersonate"), []string{
			"impersonate users in all namespaces", "impersonate users in elsewhere", "impersonate users in own"}, nil},
		{"an unlisted resource", addRule(own, "example.com", "things", "get"), []string{"get example.com/things in own"}, nil},
		{"one namespace instead of all", func(rules []rule) []rule {
			rules[0].namespace = own
			return rules
		}, nil, []string{"list keys.squirrel.dev/apikeys in all namespaces", "list keys.squirrel.dev/apikeys in elsewhere"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			changed := &account{namespace: own, rules: test.change(slices.Clone(documented.rules))}
			set := accesses{}
			for _, r := range slices.Concat(documented.rules, changed.rules) {
				set.add(r.PolicyRule)
			}
			granted := map[access]bool{}
			for _, a := range set.in("", own, "elsewhere") {
				granted[a] = changed.allows(a)
			}
			excess, missing := documented.compare(granted)
			if diff := cmp.Diff([][]string{test.excess, test.missing}, [][]string{texts(excess), texts(missing)}); diff != "" {
				t.Errorf("permissions that are not documented, and that are not granted (-want +got):\n%s", diff)
			}
		})
	}
}

// access is a verb on a resource or on a path. The namespace of a resource is empty for all namespaces.
type access struct {
	verb, group, resource, name, namespace string
	path                                   string
}

func (a access) String() string {
	if a.path != "" {
		return a.verb + " " + a.path
	}
	where := "in all namespaces"
	if a.namespace != "" {
		where = "in " + a.namespace
	}
	parts := []string{a.verb, strings.TrimPrefix(a.group+"/"+a.resource, "/"), a.name, where}
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" }), " ")
}

func texts(accesses []access) (texts []string) {
	for _, a := range accesses {
		texts = append(texts, a.String())
	}
	return texts
}

// allows reports whether the rules of the account allow an access.
func (a *account) allows(wanted access) bool {
	return slices.ContainsFunc(a.rules, func(r rule) bool {
		return slices.Contains(r.APIGroups, wanted.group) && slices.Contains(r.Resources, wanted.resource) &&
			(slices.Contains(r.Verbs, wanted.verb) || slices.Contains(r.Verbs, rbacv1.VerbAll)) &&
			(len(r.ResourceNames) == 0 || slices.Contains(r.ResourceNames, wanted.name)) &&
			(r.namespace == "" || r.namespace == wanted.namespace)
	})
}

// compare returns the granted accesses that the account's rules do not allow, and the denied ones that they allow.
func (a *account) compare(granted map[access]bool) (excess, missing []access) {
	for each, granted := range granted {
		switch allowed := a.allows(each); {
		case granted && !allowed:
			excess = append(excess, each)
		case allowed && !granted:
			missing = append(missing, each)
		}
	}
	byText := func(a, b access) int { return strings.Compare(a.String(), b.String()) }
	slices.SortFunc(excess, byText)
	slices.SortFunc(missing, byText)
	return excess, missing
}

// unknown is a verb, a resource, a name and a path that no rule names. Only a wildcard allows it.
const unknown = "unknown"

var (
	verbs     = []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", unknown}
	pathVerbs = []string{"get", "post", unknown}

	impersonation = []string{"impersonate", "impersonate:user-info", "impersonate:serviceaccount", "impersonate:arbitrary-node"}

	// unlisted are resources that discovery does not list, and their special verbs. Kubernetes and other projects authorize requests for them.
	unlisted = map[schema.GroupResource][]string{
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
		{Group: "example.com", Resource: unknown}:                                nil,
	}
)

// accesses is a set of accesses without a namespace. An access that maps to false is not an element.
type accesses map[access]bool

// allAccesses returns all verbs on all resources and paths of the API server, and on the unlisted resources.
func allAccesses(t *testing.T, kube kubernetes.Interface) accesses {
	t.Helper()
	all := accesses{}
	for resource := range unlisted {
		all.add(rbacv1.PolicyRule{APIGroups: []string{resource.Group}, Resources: []string{resource.Resource}})
	}
	_, lists, err := kube.Discovery().ServerGroupsAndResources()
	framework.Must(t, err)
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		framework.Must(t, err)
		for _, resource := range list.APIResources {
			all.add(rbacv1.PolicyRule{APIGroups: []string{version.Group}, Resources: []string{resource.Name}})
		}
	}
	var root metav1.RootPaths
	content, err := kube.Discovery().RESTClient().Get().AbsPath("/").Do(t.Context()).Raw()
	framework.Must(t, err)
	framework.Must(t, json.Unmarshal(content, &root))
	all.add(rbacv1.PolicyRule{NonResourceURLs: append(root.Paths, "/"+unknown)})
	return all
}

// add adds all verbs on the resources and paths of the rules. If a rule has names, it adds each of them, an unknown one, and none.
func (set accesses) add(rules ...rbacv1.PolicyRule) {
	for _, r := range rules {
		names := []string{""}
		if len(r.ResourceNames) > 0 {
			names = slices.Concat(names, r.ResourceNames, []string{unknown})
		}
		for _, group := range r.APIGroups {
			for _, resource := range r.Resources {
				for _, verb := range slices.Concat(verbs, r.Verbs, unlisted[schema.GroupResource{Group: group, Resource: resource}]) {
					for _, name := range names {
						set[access{verb: verb, group: group, resource: resource, name: name}] = verb != rbacv1.VerbAll
					}
				}
			}
		}
		for _, path := range r.NonResourceURLs {
			for _, verb := range slices.Concat(pathVerbs, r.Verbs) {
				set[access{verb: verb, path: path}] = verb != rbacv1.VerbAll
			}
		}
	}
}

// granted returns the accesses that are granted in a namespace, without the namespace.
func (set accesses) granted(granted map[access]bool) accesses {
	without := accesses{}
	for a, granted := range granted {
		if granted {
			a.namespace = ""
			without[a] = true
		}
	}
	return without
}

// in returns the accesses in each of these namespaces. The empty namespace stands for all.
func (set accesses) in(namespaces ...string) (all []access) {
	for a, isElement := range set {
		switch {
		case !isElement:
		case a.path != "":
			all = append(all, a)
		default:
			for _, namespace := range namespaces {
				a.namespace = namespace
				all = append(all, a)
			}
		}
	}
	return all
}

// bindings returns all RoleBindings and ClusterRoleBindings. The latter have no namespace.
func bindings(t *testing.T, env *testenv.Env, options ...client.ListOption) []rbacv1.RoleBinding {
	t.Helper()
	var namespaced rbacv1.RoleBindingList
	framework.Must(t, env.Client.List(t.Context(), &namespaced, options...))
	var clusterWide rbacv1.ClusterRoleBindingList
	framework.Must(t, env.Client.List(t.Context(), &clusterWide, options...))
	all := namespaced.Items
	for _, b := range clusterWide.Items {
		all = append(all, rbacv1.RoleBinding{ObjectMeta: b.ObjectMeta, Subjects: b.Subjects, RoleRef: b.RoleRef})
	}
	return all
}

// expectBoundOnlyIn expects that no other namespace binds a role to the account.
func expectBoundOnlyIn(t *testing.T, env *testenv.Env, account *account, namespaces ...string) {
	t.Helper()
	for _, binding := range bindings(t, env) {
		for _, subject := range binding.Subjects {
			if account.matches(subject) && binding.Namespace != "" && !slices.Contains(namespaces, binding.Namespace) {
				t.Errorf("the namespace %s binds the role %s to %s", binding.Namespace, binding.RoleRef.Name, account.name)
			}
		}
	}
}

// newClientset returns a clientset that uses Protobuf, because the reviews are thousands of requests.
func newClientset(t *testing.T, env *testenv.Env) kubernetes.Interface {
	t.Helper()
	config := rest.CopyConfig(env.Config)
	config.ContentType = runtime.ContentTypeProtobuf
	kube, err := kubernetes.NewForConfig(config)
	framework.Must(t, err)
	return kube
}

// review returns which accesses the API server grants to the account.
func review(t *testing.T, kube kubernetes.Interface, account *account, accesses []access) map[access]bool {
	t.Helper()
	var (
		mutex   sync.Mutex
		granted = map[access]bool{}
		reviews errgroup.Group
	)
	reviews.SetLimit(16)
	for _, a := range accesses {
		reviews.Go(func() error {
			review, err := kube.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), newReview(account, a), metav1.CreateOptions{})
			if err != nil {
				return fmt.Errorf("%s: %w", a, err)
			}
			mutex.Lock()
			defer mutex.Unlock()
			granted[a] = review.Status.Allowed
			return nil
		})
	}
	framework.Must(t, reviews.Wait())
	return granted
}

// newReview returns a review of an access by the account.
func newReview(account *account, a access) *authorizationv1.SubjectAccessReview {
	review := &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{User: account.user(), Groups: account.groups()},
	}
	if a.path != "" {
		review.Spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Verb: a.verb, Path: a.path}
		return review
	}
	resource, subresource, _ := strings.Cut(a.resource, "/")
	review.Spec.ResourceAttributes = &authorizationv1.ResourceAttributes{
		Namespace: a.namespace, Verb: a.verb, Group: a.group, Resource: resource, Subresource: subresource, Name: a.name,
	}
	return review
}
