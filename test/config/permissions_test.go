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

// permissions are those in the manifests.
type permissions struct {
	accounts  []*account
	userRoles []*role // not bound in the manifests: users bind them
	policies  []policy
}

// account is a ServiceAccount with the rules of all roles that are bound to it.
type account struct {
	namespace, name string
	rules           []rule
}

// user returns the user name of the account.
func (a *account) user() string { return "system:serviceaccount:" + a.namespace + ":" + a.name }

// groups returns the groups of the account.
func (a *account) groups() []string {
	return []string{"system:authenticated", "system:serviceaccounts", "system:serviceaccounts:" + a.namespace}
}

// matches reports whether the subject of a binding is the account or a group of it.
func (a *account) matches(subject rbacv1.Subject) bool {
	switch subject.Kind {
	case rbacv1.ServiceAccountKind:
		return subject.Namespace == a.namespace && subject.Name == a.name
	case rbacv1.GroupKind:
		return slices.Contains(a.groups(), subject.Name)
	default:
		return subject.Name == a.user()
	}
}

// rule is a rule of a role that is bound in a namespace or, if that is empty, in all namespaces.
type rule struct {
	rbacv1.PolicyRule
	namespace string
	reason    string
}

// role is a Role or, without a namespace, a ClusterRole, with the comments above its rules, which explain them.
type role struct {
	rbacv1.ClusterRole
	reasons []string
	bound   bool
}

// policy is a ValidatingAdmissionPolicy with the comment above it.
type policy struct {
	admissionregistrationv1.ValidatingAdmissionPolicy
	reason string
}

// readPermissions reads the manifests. An object that it cannot interpret ends the test, so that the documentation is complete.
func readPermissions(t *testing.T) *permissions {
	t.Helper()
	p := &permissions{}
	roles := map[rbacv1.RoleRef]*role{}
	var bindings []*rbacv1.RoleBinding // ClusterRoleBindings have no namespace
	for _, m := range manifests(t, "rbac", "components/last-use", "users", "policies", "overlays/console") {
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
			p.userRoles = append(p.userRoles, r)
		}
	}
	slices.SortFunc(p.userRoles, func(a, b *role) int { return strings.Compare(a.Name, b.Name) })
	p.check(t)
	return p
}

// bind adds the rules of a role to the accounts of a binding.
func (p *permissions) bind(t *testing.T, binding *rbacv1.RoleBinding, bound *role) {
	t.Helper()
	if bound == nil {
		t.Fatalf("the binding %s refers to a role that is not in the manifests", binding.Name)
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
		if subject.Kind == rbacv1.ServiceAccountKind && a.matches(subject) {
			return a
		}
	}
	t.Fatalf("a role is bound to %+v, which is not a ServiceAccount in the manifests", subject)
	return nil
}

// installed returns the accounts in the namespaces of the installation, where the console is that of the tenant.
func (p *permissions) installed() (accounts []*account) {
	for _, a := range p.accounts {
		moved := &account{namespace: inInstallation(a.namespace), name: a.name, rules: slices.Clone(a.rules)}
		for i, r := range moved.rules {
			moved.rules[i].namespace = inInstallation(r.namespace)
		}
		accounts = append(accounts, moved)
	}
	return accounts
}

// inInstallation returns the namespace of the installation for one of the manifests.
func inInstallation(namespace string) string {
	if namespace == consoleNamespace {
		return tenantNamespace
	}
	return namespace
}

// check expects that every rule lists its resources and verbs, and has a comment.
func (p *permissions) check(t *testing.T) {
	t.Helper()
	expect := func(name string, r rbacv1.PolicyRule, reason string) {
		t.Helper()
		if slices.Contains(slices.Concat(r.APIGroups, r.Resources, r.Verbs), "*") || len(r.NonResourceURLs) > 0 || reason == "" {
			t.Fatalf("a rule of %s has a wildcard, a non-resource URL or no comment above it that gives the reason: %+v", name, r)
		}
	}
	for _, account := range p.accounts {
		for _, r := range account.rules {
			expect(account.name, r.PolicyRule, r.reason)
		}
	}
	for _, role := range p.userRoles {
		if role.Namespace != "" {
			t.Fatalf("the Role %s is not bound", role.Name)
		}
		for i, r := range role.Rules {
			expect(role.Name, r, role.reasons[i])
		}
	}
}

// policiesOn returns the names of the policies that restrict a rule of an account.
func (p *permissions) policiesOn(a *account, r rule) (names []string) {
	operations := map[string]string{"create": "CREATE", "update": "UPDATE", "patch": "UPDATE", "delete": "DELETE", "deletecollection": "DELETE"}
	for _, policy := range p.policies {
		matchesAccount := func(condition admissionregistrationv1.MatchCondition) bool {
			return strings.Contains(condition.Expression, "'"+a.user()+"'")
		}
		matchesRule := func(match admissionregistrationv1.NamedRuleWithOperations) bool {
			return slices.ContainsFunc(match.Resources, func(resource string) bool { return slices.Contains(r.Resources, resource) }) &&
				slices.ContainsFunc(match.APIGroups, func(group string) bool { return slices.Contains(r.APIGroups, group) }) &&
				slices.ContainsFunc(r.Verbs, func(verb string) bool {
					return slices.Contains(match.Operations, admissionregistrationv1.OperationType(operations[verb]))
				})
		}
		if (len(policy.Spec.MatchConditions) == 0 || slices.ContainsFunc(policy.Spec.MatchConditions, matchesAccount)) &&
			slices.ContainsFunc(policy.Spec.MatchConstraints.ResourceRules, matchesRule) {
			names = append(names, policy.Name)
		}
	}
	return names
}

// manifest is a document of a YAML file, with the comment above it.
type manifest struct {
	kind, comment string
	content       *yaml.Node
}

// manifests returns all documents in these directories of config/.
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

// reasonsOfRules returns the comments above the rules of a role.
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
