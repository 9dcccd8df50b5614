// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	lua "github.com/yuin/gopher-lua"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/test/framework"
)

// kubectl wait and Flux use kstatus.
func TestArgoCDHealthCheck_AgreesWithKstatus(t *testing.T) {
	healthOf := map[status.Status]string{
		status.CurrentStatus:    "Healthy",
		status.InProgressStatus: "Progressing",
		status.FailedStatus:     "Degraded",
	}
	script := argoCDHealthScript(t)
	for name, key := range keysInEveryState() {
		t.Run(name, func(t *testing.T) {
			object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(key)
			framework.Must(t, err)
			want, err := status.Compute(&unstructured.Unstructured{Object: object})
			framework.Must(t, err)
			if got, _ := runHealthScript(t, script, object); got != healthOf[want.Status] {
				t.Errorf("got %s, want %s as in kstatus", got, want.Status)
			}
		})
	}
}

// The controller leaves keys in these states.
func TestArgoCDHealthCheck_DescribesEachState(t *testing.T) {
	script := argoCDHealthScript(t)
	const isTrue, isFalse, unknown = metav1.ConditionTrue, metav1.ConditionFalse, metav1.ConditionUnknown
	for name, test := range map[string]struct {
		ready    metav1.ConditionStatus
		reason   string
		observed int64
		want     string
	}{
		"new":         {unknown, v1alpha1.ReasonPending, 0, "Progressing: Waiting for the controller"},
		"pending":     {unknown, v1alpha1.ReasonPending, 2, "Progressing: A message."},
		"waiting":     {unknown, v1alpha1.ReasonAppNameConflict, 2, "Progressing: A message."},
		"stalled":     {isFalse, v1alpha1.ReasonAppNameConflict, 2, "Degraded: A message."},
		"refused":     {isFalse, v1alpha1.ReasonSecretRefused, 2, "Degraded: A message."},
		"unreadable":  {isFalse, v1alpha1.ReasonUnreadable, 2, "Degraded: A message."},
		"issued":      {isTrue, v1alpha1.ReasonIssued, 2, "Healthy: A message."},
		"rotating":    {isTrue, v1alpha1.ReasonRotating, 2, "Progressing: A message."},
		"changed":     {isTrue, v1alpha1.ReasonIssued, 1, "Progressing: Waiting for the controller"},
		"deactivated": {isTrue, v1alpha1.ReasonDeactivated, 2, "Healthy: A message."},
		"expired":     {isTrue, v1alpha1.ReasonExpired, 2, "Healthy: A message."},
	} {
		t.Run(name, func(t *testing.T) {
			conditions := []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: test.ready, Reason: test.reason, Message: "A message."}}
			if test.ready == isFalse { // a user must act
				conditions = append(conditions, conditions[0])
				conditions[1].Type, conditions[1].Status = v1alpha1.ConditionStalled, isTrue
			}
			if test.reason == v1alpha1.ReasonRotating { // the key stays ready
				conditions = append(conditions, conditions[0])
				conditions[0].Reason, conditions[0].Message = v1alpha1.ReasonIssued, "The token is accepted."
				conditions[1].Type = v1alpha1.ConditionReconciling
			}
			object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&v1alpha1.APIKey{
				ObjectMeta: metav1.ObjectMeta{Generation: 2},
				Status:     v1alpha1.APIKeyStatus{ObservedGeneration: test.observed, Conditions: conditions},
			})
			framework.Must(t, err)
			status, message := runHealthScript(t, script, object)
			if got := status + ": " + message; got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// keysInEveryState returns a key for each combination of the fields that its health depends on.
func keysInEveryState() map[string]*v1alpha1.APIKey {
	keys := map[string]*v1alpha1.APIKey{"untouched": {ObjectMeta: metav1.ObjectMeta{Generation: 1}, Status: v1alpha1.APIKeyStatus{
		Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonPending}},
	}}}
	for _, observed := range []int64{1, 2} {
		for _, ready := range []metav1.ConditionStatus{metav1.ConditionTrue, metav1.ConditionFalse, metav1.ConditionUnknown} {
			for _, stalled := range []metav1.ConditionStatus{"", metav1.ConditionTrue} {
				key := &v1alpha1.APIKey{ObjectMeta: metav1.ObjectMeta{Generation: 2}}
				key.Status.ObservedGeneration = observed
				key.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: ready, Message: "A message."}}
				if stalled != "" {
					key.Status.Conditions = append(key.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionStalled, Status: stalled})
				}
				keys[fmt.Sprintf("observed=%d,ready=%s,stalled=%s", observed, ready, stalled)] = key
				rotating := key.DeepCopy()
				rotating.Status.Conditions = append(rotating.Status.Conditions,
					metav1.Condition{Type: v1alpha1.ConditionReconciling, Status: metav1.ConditionTrue})
				keys[fmt.Sprintf("observed=%d,ready=%s,stalled=%s,reconciling", observed, ready, stalled)] = rotating
			}
		}
	}
	return keys
}

// argoCDHealthScript returns the script from the overlay.
func argoCDHealthScript(t *testing.T) string {
	t.Helper()
	assets, err := controlplane.FindAssets()
	framework.Must(t, err)
	manifest, err := exec.CommandContext(t.Context(), filepath.Join(assets, "kubectl"), "kustomize", configDir+"/overlays/argocd").Output()
	framework.Must(t, err)
	var settings corev1.ConfigMap
	framework.Must(t, yaml.UnmarshalStrict(manifest, &settings))
	if settings.Namespace != "argocd" || settings.Name != "argocd-cm" || settings.Labels["app.kubernetes.io/part-of"] != "argocd" {
		t.Errorf("got the ConfigMap %s/%s with the labels %v, want the one that Argo CD reads", settings.Namespace, settings.Name, settings.Labels)
	}
	return settings.Data["resource.customizations.health."+v1alpha1.GroupVersion.Group+"_APIKey"]
}

// runHealthScript runs a script like Argo CD, and returns the status and the message in its result.
func runHealthScript(t *testing.T, script string, object map[string]any) (status, message string) {
	t.Helper()
	machine := lua.NewState()
	defer machine.Close()
	machine.SetGlobal("obj", luaValue(machine, object))
	framework.Must(t, machine.DoString(script))
	health, isTable := machine.Get(-1).(*lua.LTable)
	if !isTable {
		t.Fatalf("the script returned %s, want a table", machine.Get(-1))
	}
	return health.RawGetString("status").String(), health.RawGetString("message").String()
}

func luaValue(machine *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case map[string]any:
		table := machine.NewTable()
		for name, field := range value {
			table.RawSetString(name, luaValue(machine, field))
		}
		return table
	case []any:
		table := machine.NewTable()
		for _, element := range value {
			table.Append(luaValue(machine, element))
		}
		return table
	case string:
		return lua.LString(value)
	case bool:
		return lua.LBool(value)
	case int64:
		return lua.LNumber(value)
	case nil:
		return lua.LNil
	default:
		panic(fmt.Sprintf("no Lua value for a %T", value))
	}
}
