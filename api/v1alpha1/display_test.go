// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"strings"
	"testing"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/test/framework/testenv"
)

func TestAnUntouchedKeyIsNotYetCurrent(t *testing.T) {
	env := testenv.Shared(t)
	key := newObject(env.Namespace(t), "frontend")
	key.Object["spec"] = parse(t, "{appName: Frontend App, readAccess: true}")
	key.Object["status"] = parse(t, "{secretName: planted, conditions: []}") // only the status subresource takes a status
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

func TestColumnsOfKubectlGet(t *testing.T) {
	env := testenv.Shared(t)
	namespace := env.Namespace(t)
	untouched := newObject(namespace, "untouched")
	untouched.Object["spec"] = parse(t, "{appName: untouched, writeAccess: true}")
	issued := newObject(namespace, "issued")
	issued.Object["spec"] = parse(t, "{appName: issued, readAccess: true, expiresAt: '2999-06-01T00:00:00Z'}")
	for _, key := range []client.Object{untouched, issued} {
		if err := env.Client.Create(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	issued.Object["status"] = parse(t, `{secretName: issued-token, tokens: [{hash: "`+hashA+`", hint: sq_KnIr}], conditions: [
		{type: Ready, status: "True", reason: Issued, message: "", lastTransitionTime: "2026-01-01T00:00:00Z"},
		{type: Active, status: "True", reason: Issued, message: "", lastTransitionTime: "2026-01-01T00:00:00Z"}]}`)
	if err := env.Client.Status().Update(t.Context(), issued); err != nil {
		t.Fatal(err)
	}

	const age = "AGE" // whatever it is
	for _, test := range []struct {
		args []string
		want [][]string
	}{
		{nil, [][]string{
			{"NAME", "APP", "READ", "WRITE", "ACTIVE", "HINT", "AGE"},
			{"issued", "issued", "true", "false", "True", "sq_KnIr", age},
			{"untouched", "untouched", "false", "true", "", "", age},
		}},
		{[]string{"--output=wide"}, [][]string{
			{"NAME", "APP", "READ", "WRITE", "ACTIVE", "HINT", "AGE", "REASON", "SECRET", "EXPIRES"},
			{"issued", "issued", "true", "false", "True", "sq_KnIr", age, "Issued", "issued-token", "2999-06-01T00:00:00Z"},
			{"untouched", "untouched", "false", "true", "", "", age, "Pending", "", ""},
		}},
	} {
		output, err := env.Kubectl(t, append([]string{"get", "ak", "--namespace", namespace}, test.args...)...)
		if err != nil {
			t.Fatal(err)
		}
		table := readTable(output)
		for _, row := range table[1:] {
			row[6] = age
		}
		if diff := cmp.Diff(test.want, table); diff != "" {
			t.Errorf("kubectl get ak %v (-want +got):\n%s\n%s", test.args, diff, output)
		}
	}
}

// readTable cuts what kubectl prints into cells, at the columns where the words of its header start.
func readTable(output string) [][]string {
	lines := strings.Split(strings.TrimRight(output, "\n"), "\n")
	var starts []int
	for word := range strings.FieldsSeq(lines[0]) {
		starts = append(starts, strings.Index(lines[0], word))
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
