// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build upgrade

package upgrade_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// way is a way to install a release, with a console for the namespace of the keys.
type way struct {
	// render returns the manifests of a release.
	render func(f *fixture, r release) string
	// upgrade installs the manifests, or changes the installation to them, and goBack returns from an upgrade.
	upgrade, goBack func(f *fixture, r release, manifests string)
	// oneNamespace reports whether the processes run in the namespace of the keys and serve it alone.
	oneNamespace bool
	// controllerFlags choose where certificates come from.
	controllerFlags func(f *fixture) []string
	// remains are the objects that only the newer release has, and that exist when the installation has gone back.
	remains []string
}

var (
	// lastUse are the objects that this version has and the previous release does not have. docs/operations/upgrade.md lists them.
	lastUse = []string{
		"clusterrole.rbac.authorization.k8s.io/apikey-authenticator-usage",
		"clusterrolebinding.rbac.authorization.k8s.io/apikey-authenticator-usage",
		"service/apikey-authenticator-usage",
	}
	ways = map[string]way{
		"install.yaml": {
			render: renderInstaller, upgrade: applyManifests, goBack: applyManifests, controllerFlags: mintCertificates, remains: lastUse,
		},
		"kustomize with cert-manager": {
			render: kustomizationOf("CONFIG/overlays/cert-manager", "namespace: NAMESPACE\nresources: [CONFIG/overlays/console-cert-manager]\n"+
				"transformers: [CONFIG/overlays/console-cert-manager/namespace]\n"),
			upgrade: applyManifests, goBack: applyManifests, controllerFlags: useCertManager, remains: lastUse,
		},
		"kustomize for one namespace": {
			render: kustomizationOf("CONFIG/overlays/cluster",
				"namespace: NAMESPACE\nresources: [CONFIG/overlays/namespaced, CONFIG/overlays/console]\n"),
			upgrade: applyManifests, goBack: applyManifests, controllerFlags: mintCertificatesWithoutWebhook, oneNamespace: true,
		},
		"Helm": {render: renderChart, upgrade: upgradeChart, goBack: rollBackChart, controllerFlags: mintCertificates},
	}
)

// TestUpgrade_EachWayOfInstallation upgrades an installation under load, and returns to the previous release. No valid request is refused, and no key changes.
func TestUpgrade_EachWayOfInstallation(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			previous, this := previousRelease(t), thisRelease(t)
			f := newFixture(t)
			manifests := map[string]string{previous.name: way.render(f, previous), this.name: way.render(f, this)}
			way.upgrade(f, previous, manifests[previous.name])
			system, flags := systemNamespace, []string(nil)
			if way.oneNamespace {
				system, flags = f.Namespace, []string{"--namespaces=" + f.Namespace}
			}
			processes := f.newProcesses(system, func() []string {
				return append(way.controllerFlags(f), "--leader-elect", "--system-namespace="+system)
			}, flags...)
			processes.start(versions{previous, previous, previous}, 2)
			keys := f.issueKeys()
			bootstrap := f.tokenInFile()
			for _, accepted := range keys.accepted {
				f.awaitStatus(processes.authenticators.addresses(), accepted, http.StatusOK)
			}
			load := f.newLoad()
			load.send(keys.accepted, http.StatusOK, processes.authenticators.check)
			load.send(keys.refused, http.StatusUnauthorized, processes.authenticators.check)
			load.send(map[string]string{"bootstrap": bootstrap}, http.StatusOK, processes.consoles.list)
			before := f.stateOf()

			for _, step := range []struct {
				name    string
				change  func(f *fixture, r release, manifests string)
				to      release
				from    release
				remains []string
			}{
				{name: "upgrade", change: way.upgrade, from: previous, to: this},
				{name: "return", change: way.goBack, from: this, to: previous, remains: way.remains},
			} {
				step.change(f, step.to, manifests[step.to.name])
				processes.roll(step.to)
				f.touch()
				if diff := cmp.Diff(before, f.stateOf()); diff != "" {
					t.Errorf("%s: keys or Secrets have changed (-before +after):\n%s", step.name, diff)
				}
				f.CreateKey(step.name)
				f.WaitForReady(step.name, v1alpha1.ReasonIssued)
				f.awaitStatus(processes.authenticators.addresses(), f.tokenOf(step.name), http.StatusOK)
				before = f.stateOf()
				if diff := cmp.Diff(step.remains, f.remaining(manifests[step.from.name], manifests[step.to.name])); diff != "" {
					t.Errorf("%s: objects that %s does not have (-want +got):\n%s", step.name, step.to.name, diff)
				}
			}
			load.stop()
			t.Logf("%d requests", load.sent.Load())
		})
	}
}

// processes are the processes of an installation.
type processes struct{ controllers, authenticators, consoles *service }

// versions are the releases of the processes of an installation.
type versions struct{ controller, authenticator, console release }

// newProcesses returns services without processes, whose processes will have the rights that are installed. The flags are of the controller
// and of the authenticator. The console serves the namespace of the keys.
func (f *fixture) newProcesses(system string, controllerFlags func() []string, commonFlags ...string) processes {
	newService := func(server, namespace, account string, flags func() []string) *service {
		return &service{fixture: f, server: server, start: func(r release) *operator.Process {
			return operator.StartProgram(f, r.program, f.Env.ServiceAccount(f, namespace, account),
				append(flags(), "--health-probe-bind-address="+operator.AnyPort, "--metrics-bind-address="+operator.AnyPort)...)
		}}
	}
	return processes{
		controllers: newService("health", system, "apikey-controller", func() []string {
			return slices.Concat([]string{"controller"}, controllerFlags(), commonFlags)
		}),
		authenticators: newService("authenticator", system, "apikey-authenticator", func() []string {
			return append([]string{
				"authenticator", "--plaintext", "--listen-address=" + operator.AnyPort, "--grpc-listen-address=" + operator.AnyPort,
			}, commonFlags...)
		}),
		consoles: newService("console", f.Namespace, "apikey-console", func() []string {
			return []string{
				"console", "--plaintext", "--listen-address=" + operator.AnyPort, "--namespace=" + f.Namespace,
				"--managers=labelled", "--api-key-file=" + f.keyFile,
			}
		}),
	}
}

// start starts one controller, one console, and some authenticators.
func (p processes) start(v versions, authenticators int) {
	p.controllers.scale(v.controller, 1)
	p.authenticators.scale(v.authenticator, authenticators)
	p.consoles.scale(v.console, 1)
}

func (p processes) roll(r release) {
	for _, service := range []*service{p.controllers, p.authenticators, p.consoles} {
		service.Helper()
		service.roll(r)
	}
}

// tokenInFile returns the token of the bootstrap key.
func (f *fixture) tokenInFile() string {
	f.Helper()
	content, err := os.ReadFile(f.keyFile)
	framework.Must(f, err)
	return strings.TrimSpace(string(content))
}

// mintCertificates lets the controller issue certificates and inject its CA bundle in the webhook configuration.
func mintCertificates(f *fixture) []string {
	port, err := controlplane.FreePort(0)
	framework.Must(f, err)
	return []string{"--mint-certificates", "--webhook-listen-address=127.0.0.1:" + strconv.Itoa(port)}
}

func mintCertificatesWithoutWebhook(*fixture) []string {
	return []string{"--mint-certificates", "--webhook=false"}
}

// useCertManager lets the controller issue no certificates. Without cert-manager, the webhook has none.
func useCertManager(*fixture) []string { return []string{"--webhook=false"} }

// renderInstaller returns what `make build-installer` writes, and the overlay of the console.
func renderInstaller(f *fixture, r release) string {
	f.Helper()
	dir := f.TempDir()
	for _, source := range []string{"config", "hack"} {
		framework.Must(f, os.CopyFS(filepath.Join(dir, source), os.DirFS(filepath.Join(r.source, source))))
	}
	_, err := process.Output(f.Context(), exec.CommandContext(f.Context(), filepath.Join(dir, "hack", "installer"), f.Env.Binary("kubectl"),
		"config/default", "registry.example.com/apikey-operator:v1.0.0"))
	framework.Must(f, err)
	manifests, err := os.ReadFile(filepath.Join(dir, "dist", "install.yaml"))
	framework.Must(f, err)
	return string(manifests) + "\n---\n" + kustomizationOf("namespace: NAMESPACE\nresources: [CONFIG/overlays/console]\n")(f, r)
}

// kustomizationOf returns a function that renders kustomizations, which are directories or the content of a kustomization.yaml.
func kustomizationOf(kustomizations ...string) func(f *fixture, r release) string {
	return func(f *fixture, r release) string {
		f.Helper()
		var rendered []string
		for _, kustomization := range kustomizations {
			if !strings.Contains(kustomization, "\n") {
				kustomization = "resources: [" + kustomization + "]\n"
			}
			dir := testenv.Kustomization(f, r.config(), strings.ReplaceAll(kustomization, "NAMESPACE", f.Namespace))
			output, err := f.Env.Kubectl(f, "kustomize", dir)
			framework.Must(f, err)
			rendered = append(rendered, output)
		}
		return strings.Join(rendered, "\n---\n")
	}
}

// applyManifests applies manifests as the documentation describes it. A conflict of field managers ends the test.
func applyManifests(f *fixture, _ release, manifests string) {
	f.Helper()
	output, err := f.Env.ControlPlane.Kubectl(f.Context(), manifests, "apply", "--server-side", "--filename=-")
	framework.Must(f, err)
	for line := range strings.Lines(output) {
		if !strings.HasSuffix(line, " serverside-applied\n") {
			f.Errorf("kubectl apply printed: %s", line)
		}
	}
}

func (f *fixture) chartFlags() []string {
	return []string{"--namespace=" + systemNamespace, "--set=console.enabled=true,console.namespace=" + f.Namespace}
}

func renderChart(f *fixture, r release) string {
	f.Helper()
	output, err := binaries.Helm(f, append([]string{"template", "keys", filepath.Join(r.source, "charts/apikey-operator")}, f.chartFlags()...)...)
	framework.Must(f, err)
	return output
}

func upgradeChart(f *fixture, r release, _ string) {
	f.Helper()
	_, err := binaries.Helm(f, append([]string{"upgrade", "--install", "keys", filepath.Join(r.source, "charts/apikey-operator"),
		"--create-namespace", "--kubeconfig=" + f.Env.Kubeconfig(f, f.Env.Config)}, f.chartFlags()...)...)
	framework.Must(f, err)
}

func rollBackChart(f *fixture, _ release, _ string) {
	f.Helper()
	_, err := binaries.Helm(f, "rollback", "keys", "1", "--namespace="+systemNamespace, "--kubeconfig="+f.Env.Kubeconfig(f, f.Env.Config))
	framework.Must(f, err)
}

// remaining returns the objects of manifests that exist, and that other manifests do not have.
func (f *fixture) remaining(manifests, others string) (objects []string) {
	f.Helper()
	existing := func(manifests string) []string {
		names, err := f.Env.ControlPlane.Kubectl(f.Context(), manifests, "get", "--filename=-", "--ignore-not-found", "--output=name")
		framework.Must(f, err)
		return strings.Fields(names)
	}
	expected := existing(others)
	for _, object := range existing(manifests) {
		if !slices.Contains(expected, object) {
			objects = append(objects, object)
		}
	}
	slices.Sort(objects)
	return objects
}
