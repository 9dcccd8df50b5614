// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"squirrel.dev/apikey-operator/test/framework"
)

// permissions are what the manifests say of who may do what.
type permissions struct {
	accounts []*account
	people   []*role // those that whoever installs binds to people
	policies []policy
}

// account is a ServiceAccount, with the rules of all roles that are bound to it.
type account struct {
	namespace, name string
	rules           []rule
}

// user and groups are who the account is to the API server.
func (a *account) user() string { return "system:serviceaccount:" + a.namespace + ":" + a.name }

func (a *account) groups() []string {
	return []string{"system:authenticated", "system:serviceaccounts", "system:serviceaccounts:" + a.namespace}
}

// is says whether the subject of a binding means the account, alone or among others.
func (a *account) is(subject rbacv1.Subject) bool {
	switch subject.Kind {
	case rbacv1.ServiceAccountKind:
		return subject.Namespace == a.namespace && subject.Name == a.name
	case rbacv1.GroupKind:
		return slices.Contains(a.groups(), subject.Name)
	default:
		return subject.Name == a.user()
	}
}

// rule allows something, in one namespace or, where that is empty, everywhere.
type rule struct {
	rbacv1.PolicyRule
	namespace string
	reason    string
}

// role is a Role or, without a namespace, a ClusterRole, with the reasons for each of its rules.
type role struct {
	rbacv1.ClusterRole
	reasons []string
	bound   bool
}

// policy narrows what rules allow.
type policy struct {
	admissionregistrationv1.ValidatingAdmissionPolicy
	reason string
}

// readPermissions reads the manifests. Whatever in them it does not understand fails the test: nothing is left out of the table.
func readPermissions(t *testing.T) *permissions {
	t.Helper()
	p := &permissions{}
	roles := map[rbacv1.RoleRef]*role{}
	var bindings []*rbacv1.RoleBinding // cluster-wide ones are without a namespace
	for _, m := range manifests(t, "rbac", "policies", "overlays/console") {
		switch m.kind {
		case "ServiceAccount":
			object := decode[corev1.ServiceAccount](t, m)
			p.accounts = append(p.accounts, &account{namespace: object.Namespace, name: object.Name})
		case "Role", "ClusterRole":
			r := &role{ClusterRole: *decode[rbacv1.ClusterRole](t, m), reasons: m.reasonsOfRules()}
			roles[rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: m.kind, Name: r.Name}] = r
		case "RoleBinding", "ClusterRoleBinding":
			bindings = append(bindings, decode[rbacv1.RoleBinding](t, m))
		case "ValidatingAdmissionPolicy":
			p.policies = append(p.policies, policy{*decode[admissionregistrationv1.ValidatingAdmissionPolicy](t, m), m.comment})
		}
	}
	for _, binding := range bindings {
		p.bind(t, binding, roles[binding.RoleRef])
	}
	for _, r := range roles {
		if !r.bound {
			p.people = append(p.people, r)
		}
	}
	slices.SortFunc(p.people, func(a, b *role) int { return strings.Compare(a.Name, b.Name) })
	p.check(t)
	return p
}

// bind gives the rules of a role to the accounts of a binding.
func (p *permissions) bind(t *testing.T, binding *rbacv1.RoleBinding, bound *role) {
	t.Helper()
	if bound == nil {
		t.Fatalf("the binding %s is of no role here", binding.Name)
	}
	bound.bound = true
	for _, subject := range binding.Subjects {
		account := p.account(t, subject)
		for i, r := range bound.Rules {
			account.rules = append(account.rules, rule{r, binding.Namespace, bound.reasons[i]})
		}
	}
}

func (p *permissions) account(t *testing.T, subject rbacv1.Subject) *account {
	t.Helper()
	for _, a := range p.accounts {
		if subject.Kind == rbacv1.ServiceAccountKind && a.is(subject) {
			return a
		}
	}
	t.Fatalf("a role is bound to %+v, who is no ServiceAccount here", subject)
	return nil
}

// installed returns the accounts as they are in the control plane.
func (p *permissions) installed() (accounts []*account) {
	for _, a := range p.accounts {
		if a.namespace != systemNamespace {
			a = a.moved(tenantNamespace)
		}
		accounts = append(accounts, a)
	}
	return accounts
}

// check expects that every rule names what it allows, and says why.
func (p *permissions) check(t *testing.T) {
	t.Helper()
	expect := func(who string, r rbacv1.PolicyRule, reason string) {
		t.Helper()
		if slices.Contains(slices.Concat(r.APIGroups, r.Resources, r.Verbs), "*") || len(r.NonResourceURLs) > 0 || reason == "" {
			t.Fatalf("a rule of %s has a wildcard, is not about resources, or has no comment above it that says why: %+v", who, r)
		}
	}
	for _, account := range p.accounts {
		for _, r := range account.rules {
			expect(account.name, r.PolicyRule, r.reason)
		}
	}
	for _, role := range p.people {
		if role.Namespace != "" {
			t.Fatalf("the Role %s is bound to nobody", role.Name)
		}
		for i, r := range role.Rules {
			expect(role.Name, r, role.reasons[i])
		}
	}
}

// policiesOn returns the names of the policies that look at what the rule lets this account do.
func (p *permissions) policiesOn(a *account, r rule) (names []string) {
	operations := map[string]string{"create": "CREATE", "update": "UPDATE", "patch": "UPDATE", "delete": "DELETE", "deletecollection": "DELETE"}
	for _, policy := range p.policies {
		concerned := func(condition admissionregistrationv1.MatchCondition) bool {
			return strings.Contains(condition.Expression, "'"+a.user()+"'")
		}
		looksAt := func(match admissionregistrationv1.NamedRuleWithOperations) bool {
			return slices.ContainsFunc(match.Resources, func(resource string) bool { return slices.Contains(r.Resources, resource) }) &&
				slices.ContainsFunc(match.APIGroups, func(group string) bool { return slices.Contains(r.APIGroups, group) }) &&
				slices.ContainsFunc(r.Verbs, func(verb string) bool {
					return slices.Contains(match.Operations, admissionregistrationv1.OperationType(operations[verb]))
				})
		}
		if (len(policy.Spec.MatchConditions) == 0 || slices.ContainsFunc(policy.Spec.MatchConditions, concerned)) &&
			slices.ContainsFunc(policy.Spec.MatchConstraints.ResourceRules, looksAt) {
			names = append(names, policy.Name)
		}
	}
	return names
}

// manifest is one document of a YAML file, with the comment above it.
type manifest struct {
	kind, comment string
	content       *yaml.Node
}

// manifests returns all documents in these directories of config.
func manifests(t *testing.T, dirs ...string) (manifests []manifest) {
	t.Helper()
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(configDir, dir, "*.yaml"))
		framework.Must(t, err)
		for _, file := range files {
			content, err := os.ReadFile(file)
			framework.Must(t, err)
			decoder := yaml.NewDecoder(bytes.NewReader(content))
			for {
				var document yaml.Node
				err := decoder.Decode(&document)
				if errors.Is(err, io.EOF) {
					break
				}
				framework.Must(t, err)
				var object struct{ Kind string }
				framework.Must(t, document.Decode(&object))
				manifests = append(manifests, manifest{kind: object.Kind, comment: comment(&document), content: document.Content[0]})
			}
		}
	}
	return manifests
}

// reasonsOfRules returns the comment above each of the rules of a role.
func (m manifest) reasonsOfRules() (reasons []string) {
	for i, key := range m.content.Content {
		if key.Value != "rules" {
			continue
		}
		for _, rule := range m.content.Content[i+1].Content {
			reasons = append(reasons, comment(rule))
		}
	}
	return reasons
}

// comment returns the text of the comment above a node as one line.
func comment(node *yaml.Node) string {
	for node.HeadComment == "" && len(node.Content) > 0 {
		node = node.Content[0]
	}
	lines := strings.Split(node.HeadComment, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(strings.TrimPrefix(line, "#"))
	}
	return strings.Join(lines, " ")
}

func decode[T any](t *testing.T, m manifest) *T {
	t.Helper()
	var value any
	framework.Must(t, m.content.Decode(&value))
	encoded, err := json.Marshal(value)
	framework.Must(t, err)
	object := new(T)
	framework.Must(t, json.Unmarshal(encoded, object))
	return object
}
