// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build upgrade

package upgrade_test

import (
	"fmt"
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

// TestUpgrade_EachWayOfInstallation upgrades an installation under load, and returns to the previous release. No valid request is refused,
// and no key changes.
func TestUpgrade_EachWayOfInstallation(t *testing.T) {
	t.Parallel()
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			previous, this := previousRelease(t), thisRelease(t)
			i := install(t, way, previous)
			load := i.startLoad(i.issueKeys())

			i.change(previous, this, way.upgrade, nil)
			i.change(this, previous, way.goBack, way.remains)
			load.stop()
			t.Logf("%d requests", load.sent.Load())
		})
	}
}

// installation is an installed release, whose processes run.
type installation struct {
	*fixture
	processes
	way way
}

// install installs a release and starts its processes.
func install(t *testing.T, way way, r release) *installation {
	t.Helper()
	f := newFixture(t)
	way.upgrade(f, r, way.render(f, r))
	system, flags := systemNamespace, []string(nil)
	if way.oneNamespace {
		system, flags = f.Namespace, []string{"--namespaces=" + f.Namespace}
	}
	i := &installation{fixture: f, way: way, processes: f.newProcesses(system, func() []string {
		return append(way.controllerFlags(f), "--leader-elect", "--system-namespace="+system)
	}, flags...)}
	i.start(versions{controller: r, authenticator: r, console: r}, 2)
	return i
}

// startLoad sends all tokens without a pause, when each authenticator accepts those that it must accept.
func (i *installation) startLoad(keys tokens) *load {
	i.Helper()
	for _, accepted := range keys.accepted {
		i.awaitStatus(i.authenticators.addresses(), accepted, http.StatusOK)
	}
	load := i.newLoad()
	load.send(keys.accepted, http.StatusOK, i.authenticators.check)
	load.send(keys.refused, http.StatusUnauthorized, i.authenticators.check)
	load.send(map[string]string{"bootstrap": i.tokenInFile()}, http.StatusOK, i.consoles.list)
	return load
}

// change changes the installation to another release and replaces all processes. All keys stay the same, and new ones are issued. Of the
// objects that the other release does not have, only these remain.
func (i *installation) change(from, to release, change func(f *fixture, r release, manifests string), remains []string) {
	i.Helper()
	before := i.stateOf()
	manifests := i.way.render(i.fixture, to)
	change(i.fixture, to, manifests)
	i.roll(to)
	i.touch()
	if diff := cmp.Diff(before, i.stateOf()); diff != "" {
		i.Errorf("keys or Secrets have changed with %s (-before +after):\n%s", to.name, diff)
	}
	if diff := cmp.Diff(remains, i.remaining(i.way.render(i.fixture, from), manifests)); diff != "" {
		i.Errorf("objects that %s does not have (-want +got):\n%s", to.name, diff)
	}
	created := i.CreateKey(fmt.Sprintf("key-%d", len(before))).Name
	i.WaitForReady(created, v1alpha1.ReasonIssued)
	i.awaitStatus(i.authenticators.addresses(), i.tokenOf(created), http.StatusOK)
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
	framework.Must(f, os.Symlink(filepath.Join(r.source, "Makefile"), filepath.Join(dir, "Makefile")))
	_, err := process.Output(f.Context(), exec.CommandContext(f.Context(), "make", "--directory="+dir, "build-installer",
		"KUBECTL="+f.Env.Binary("kubectl"), "IMAGE=registry.example.com/apikey-operator:v1.0.0"))
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

// applyManifests applies manifests as the documentation describes it.
func applyManifests(f *fixture, _ release, manifests string) {
	f.Helper()
	f.Env.Apply(f, manifests, "--filename=-")
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
