// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build monitoring

// Package monitoring_test tries what config/overlays/prometheus installs with a real Prometheus: `make test-monitoring` gets it.
package monitoring_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	prometheusv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	// job is what Prometheus calls the processes.
	job = "apikey-operator"

	timeout = 2 * time.Minute
	poll    = 200 * time.Millisecond
)

func TestMain(m *testing.M) { testenv.Main(m) }

// Each alert fires for what it is for, after as long as it says, and for nothing else.
func TestAlerts(t *testing.T) {
	dir := t.TempDir()
	writeRules(t, filepath.Join(dir, "rules.yaml"))
	cases, err := os.ReadFile("testdata/alerts.yaml")
	framework.Must(t, err)
	framework.Must(t, os.WriteFile(filepath.Join(dir, "alerts.yaml"), cases, 0o600))
	output, err := exec.CommandContext(t.Context(), binaries.Path(t, "debian", "usr", "bin", "promtool"), "test", "rules", filepath.Join(dir, "alerts.yaml")).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, output)
	}
	for _, group := range newOverlay(t).rules.Spec.Groups {
		for _, rule := range group.Rules {
			if !strings.Contains(string(cases), "alertname: "+rule.Alert+"\n    exp_alerts:\n") {
				t.Errorf("nothing in testdata/alerts.yaml makes %s fire", rule.Alert)
			}
		}
	}
}

// What the rules and the dashboard ask for is what the processes tell.
func TestRulesAndDashboardShowWhatTheProcessesTell(t *testing.T) {
	prometheus := startPrometheus(t, startProcesses(t))
	overlay := newOverlay(t)
	for _, panel := range overlay.panels(t).Panels {
		for _, target := range panel.Targets {
			t.Run(panel.Title, func(t *testing.T) {
				prometheus.expectAnswer(t, strings.ReplaceAll(target.Expr, "$__rate_interval", "10s"))
			})
		}
	}
	comparison := regexp.MustCompile(` (==|>|<) [0-9.]+$`)
	for _, group := range overlay.rules.Spec.Groups {
		for _, rule := range group.Rules {
			t.Run(rule.Alert, func(t *testing.T) {
				value := comparison.ReplaceAllString(rule.Expr.String(), "")
				if value == rule.Expr.String() {
					t.Fatalf("%s does not end in a comparison", value)
				}
				prometheus.expectAnswer(t, strings.NewReplacer("[5m]", "[10s]", "or vector(0)", "").Replace(value))
			})
		}
	}
}

// startProcesses runs all processes, gives them something to count, and returns where their metrics are.
func startProcesses(t *testing.T) map[string]string {
	t.Helper()
	env := testenv.Shared(t)
	namespace := env.Namespace(t)
	controllerMetrics := binaries.FreeAddress(t)
	operator.StartController(t, env.Config, "--metrics-bind-address="+controllerMetrics, "--leader-elect=true",
		"--system-namespace="+namespace, "--mint-certificates")
	authenticator := operator.StartAuthenticator(t, env.Config, "--plaintext")
	console := operator.Start(t, env.Config, "console", "--namespace="+namespace, "--api-key-file=", "--plaintext",
		"--listen-address="+operator.AnyPort, "--health-probe-bind-address="+operator.AnyPort, "--metrics-bind-address="+operator.AnyPort)

	token := issueKey(t, env, namespace)
	ask(t, "http://"+authenticator.Address("authenticator")+"/auth/envoy/"+namespace+"/", token)
	ask(t, "http://"+console.Address("console")+"/api/v1/api-keys", token)
	return map[string]string{
		"controller":    controllerMetrics,
		"authenticator": authenticator.Address("metrics"),
		"console":       console.Address("metrics"),
	}
}

// issueKey returns the token of a new key.
func issueKey(t *testing.T, env *testenv.Env, namespace string) string {
	t.Helper()
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "frontend"},
		Spec:       v1alpha1.APIKeySpec{AppName: "Frontend App", ReadAccess: true},
	}
	framework.Must(t, env.Client.Create(t.Context(), key))
	var secret corev1.Secret
	framework.EventuallyWithin(t, timeout, poll, "the key is issued", func() bool {
		return env.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "frontend-token"}, &secret) == nil
	})
	return string(secret.Data["token"])
}

// ask makes a call until it is granted.
func ask(t *testing.T, url, token string) {
	t.Helper()
	framework.EventuallyWithin(t, timeout, poll, url+" answers", func() bool {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		framework.Must(t, err)
		request.Header.Set("X-API-Key", token)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

// prometheus is a running Prometheus.
type prometheus struct{ prometheusv1.API }

// startPrometheus runs one that scrapes these addresses every second, each with the name of its component, and has the rules.
func startPrometheus(t *testing.T, addresses map[string]string) *prometheus {
	t.Helper()
	dir, address := t.TempDir(), binaries.FreeAddress(t)
	writeRules(t, filepath.Join(dir, "rules.yaml"))
	configuration := "global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [rules.yaml]\n" +
		"scrape_configs:\n- job_name: " + job + "\n  static_configs:\n"
	for component, address := range addresses {
		configuration += fmt.Sprintf("  - {targets: [%q], labels: {component: %s, pod: %s-0}}\n", address, component, component)
	}
	framework.Must(t, os.WriteFile(filepath.Join(dir, "prometheus.yaml"), []byte(configuration), 0o600))
	connection, err := api.NewClient(api.Config{Address: "http://" + address})
	framework.Must(t, err)
	p := &prometheus{prometheusv1.NewAPI(connection)}
	binaries.Start(t, process.Command{
		Path: binaries.Path(t, "debian", "usr", "bin", "prometheus"),
		Args: []string{"--config.file=" + filepath.Join(dir, "prometheus.yaml"), "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + address},
		Log:  filepath.Join(dir, "log"),
		Ready: func(ctx context.Context) error {
			_, err := p.Buildinfo(ctx)
			return err
		},
	})
	return p
}

// expectAnswer expects that a query has an answer, once enough was scraped, in which every number is one.
func (p *prometheus) expectAnswer(t *testing.T, query string) {
	t.Helper()
	var answer model.Value
	framework.EventuallyWithin(t, timeout, poll, query+" has an answer", func() bool {
		var err error
		answer, _, _, err = p.Query(t.Context(), query, time.Now())
		framework.Must(t, err)
		return len(answer.(model.Vector)) > 0
	})
}

// writeRules writes the overlay's rules as Prometheus reads them.
func writeRules(t *testing.T, file string) {
	t.Helper()
	content, err := yaml.Marshal(newOverlay(t).rules.Spec)
	framework.Must(t, err)
	framework.Must(t, os.WriteFile(file, content, 0o600))
}
