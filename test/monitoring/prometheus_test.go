// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build monitoring

// Package monitoring_test runs config/overlays/prometheus with a real Prometheus, which `make test-monitoring` downloads.
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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	// job is the job label of the processes.
	job = "apikey-operator"

	timeout      = 2 * time.Minute
	pollInterval = 200 * time.Millisecond
)

func TestMain(m *testing.M) { testenv.Main(m) }

// TestAlerts runs promtool with the cases in testdata. At least one case must fire each alert.
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
				t.Errorf("testdata/alerts.yaml has no case in which %s fires", rule.Alert)
			}
		}
	}
}

// Each query of the rules and of the dashboard must match metrics of the processes.
func TestRulesAndDashboard_QueryExistingMetrics(t *testing.T) {
	prometheus := startPrometheus(t, startProcesses(t))
	overlay := newOverlay(t)
	for _, panel := range overlay.panels(t).Panels {
		for _, target := range panel.Targets {
			t.Run(panel.Title, func(t *testing.T) {
				prometheus.expectResult(t, strings.ReplaceAll(target.Expr, "$__rate_interval", "10s"))
			})
		}
	}
	t.Run("the key that expires in an hour", func(t *testing.T) {
		prometheus.expectResult(t, `apikey_expiring_keys{within="1d"} == 1 and on() apikey_expiring_keys{within="30d"} == 1`)
	})
	comparison := regexp.MustCompile(` (==|>|<) [0-9.]+$`)
	for _, group := range overlay.rules.Spec.Groups {
		for _, rule := range group.Rules {
			t.Run(rule.Alert, func(t *testing.T) {
				value := comparison.ReplaceAllString(rule.Expr.String(), "")
				if value == rule.Expr.String() {
					t.Fatalf("got %s, want a query that ends with a comparison", value)
				}
				prometheus.expectResult(t, strings.NewReplacer("[5m]", "[10s]", "or vector(0)", "").Replace(value))
			})
		}
	}
}

// startProcesses runs all processes, sends each a request, and returns the addresses of their metrics.
func startProcesses(t *testing.T) map[string]string {
	t.Helper()
	f := testenv.NewFixture(t, testenv.Shared(t))
	controllerMetrics := binaries.FreeAddress(t)
	operator.StartController(t, f.Env.Config, "--metrics-bind-address="+controllerMetrics, "--leader-elect=true",
		"--system-namespace="+f.Namespace, "--mint-certificates", "--webhook=true", "--webhook-listen-address="+binaries.FreeAddress(t))
	authenticator := operator.StartAuthenticator(t, f.Env.Config, "--plaintext")
	console := operator.StartConsole(t, f.Env.Config, f.Namespace)

	f.CreateKey("frontend", func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = new(metav1.NewTime(time.Now().Add(time.Hour))) })
	framework.EventuallyWithin(t, timeout, pollInterval, "the key is issued", func() bool { return f.Secret("frontend-token") != nil })
	token := string(f.Secret("frontend-token").Data["token"])
	awaitOK(t, "http://"+authenticator.Address("authenticator")+"/auth/envoy/"+f.Namespace+"/", token)
	awaitOK(t, "http://"+console.Address("console")+"/api/v1/api-keys", token)
	return map[string]string{
		"controller":    controllerMetrics,
		"authenticator": authenticator.Address("metrics"),
		"console":       console.Address("metrics"),
	}
}

// awaitOK sends requests until one gets the status 200.
func awaitOK(t *testing.T, url, token string) {
	t.Helper()
	framework.EventuallyWithin(t, timeout, pollInterval, url+" responds 200", func() bool {
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

// startPrometheus runs a Prometheus with the rules, which scrapes these addresses by component every second.
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

// expectResult waits until a query has a result, which needs several scrapes.
func (p *prometheus) expectResult(t *testing.T, query string) {
	t.Helper()
	framework.EventuallyWithin(t, timeout, pollInterval, query+" has a result", func() bool {
		result, _, _, err := p.Query(t.Context(), query, time.Now())
		framework.Must(t, err)
		return len(result.(model.Vector)) > 0
	})
}

// writeRules writes the rules of the overlay in the format of Prometheus.
func writeRules(t *testing.T, file string) {
	t.Helper()
	content, err := yaml.Marshal(newOverlay(t).rules.Spec)
	framework.Must(t, err)
	framework.Must(t, os.WriteFile(file, content, 0o600))
}
