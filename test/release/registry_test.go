// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build release

package release_test

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// mirror is a registry with the image and the chart of a release, as docs/operations/verify.md mirrors them.
type mirror struct {
	clone

	host   string
	digest string // of the index of the image
}

func (c clone) mirror(t *testing.T) mirror {
	t.Helper()
	m := mirror{clone: c, host: binaries.FreeAddress(t)}
	binaries.Start(t, process.Command{
		Path:  binaries.Path(t, "tools", "crane"),
		Args:  []string{"registry", "serve", "--address=" + m.host},
		Log:   filepath.Join(t.TempDir(), "registry.log"),
		Ready: process.HTTPReady("http://" + m.host + "/v2/"),
	})
	for layout, name := range map[string]string{"image": "apikey-operator:" + version, "chart": "charts/apikey-operator:" + chartVersion} {
		m.crane(t, "push", extract(t, c.dist("apikey-operator_"+version+"_"+layout+".tar")), m.host+"/"+name)
	}
	m.digest = m.crane(t, "digest", m.image())
	return m
}

// image returns the name of the image in the mirror.
func (m mirror) image() string { return m.host + "/apikey-operator:" + version }

// crane runs crane and returns its standard output.
func (m mirror) crane(t *testing.T, args ...string) string {
	t.Helper()
	return run(t, "crane", args...)
}

// run runs one of bin/tools and returns its standard output.
func run(t *testing.T, tool string, args ...string) string {
	t.Helper()
	output, err := binaries.Tool(t, tool, args...)
	if err != nil {
		t.Fatalf("%s %s: %v", tool, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(output)
}

// imageConfig has the fields of the configuration of an image that are tested.
type imageConfig struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Created      string `json:"created"`
	Config       struct {
		User       string
		Entrypoint []string
		Labels     map[string]string
	} `json:"config"`
}

func (m mirror) testImage(t *testing.T) {
	g := NewWithT(t)
	m.crane(t, "validate", "--remote="+m.image())
	var index struct {
		Manifests []struct {
			Digest   string
			Platform struct{ OS, Architecture string }
		}
		Annotations map[string]string
	}
	framework.Must(t, json.Unmarshal([]byte(m.crane(t, "manifest", m.image())), &index))
	g.Expect(index.Annotations).To(HaveKeyWithValue("org.opencontainers.image.source", "https://github.com/owner/apikey-operator"))
	g.Expect(index.Annotations).To(HaveKeyWithValue("org.opencontainers.image.revision", m.shell(t, "git rev-parse HEAD")))
	g.Expect(index.Annotations).To(HaveKeyWithValue("org.opencontainers.image.created", commitTime))

	var platforms []string
	for _, manifest := range index.Manifests {
		platforms = append(platforms, manifest.Platform.OS+"/"+manifest.Platform.Architecture)
		var config imageConfig
		framework.Must(t, json.Unmarshal([]byte(m.crane(t, "config", m.host+"/apikey-operator@"+manifest.Digest)), &config))
		g.Expect(config.OS + "/" + config.Architecture).To(Equal(manifest.Platform.OS + "/" + manifest.Platform.Architecture))
		g.Expect(config.Created).To(Equal(commitTime))
		user, entrypoint, labels := m.dockerfile(t)
		g.Expect(config.Config.User).To(Equal(user))
		g.Expect(config.Config.Entrypoint).To(Equal(entrypoint))
		g.Expect(config.Config.Labels).To(Equal(labels))

		archive := filepath.Join(t.TempDir(), "files.tar")
		m.crane(t, "export", m.host+"/apikey-operator@"+manifest.Digest, archive)
		g.Expect(shell(t, "/", `tar --list --verbose --numeric-owner --file="$1" | awk '{ print $1, $2, $4, $6 }'`, archive)).To(
			Equal("-rw-r--r-- 0/0 2026-01-02 LICENSE\n-rw-r--r-- 0/0 2026-01-02 THIRD_PARTY_LICENSES\n-rwxr-xr-x 0/0 2026-01-02 apikey-operator"))
		program := filepath.Join(extract(t, archive), "apikey-operator")
		g.Expect(read(t, program) == read(t, m.programs(t)["apikey-operator_v0.98.7_linux_"+config.Architecture])).To(
			BeTrue(), "the image and the archive have the same program")
		if config.Architecture == runtime.GOARCH {
			g.Expect(shell(t, "/", `"$1" version`, program)).To(
				Equal("apikey-operator v0.98.7 " + runtime.Version() + " linux/" + runtime.GOARCH))
		}
	}
	g.Expect(platforms).To(Equal([]string{"linux/amd64", "linux/arm64"}))
}

// dockerfile returns what the Dockerfile declares for its last stage.
func (c clone) dockerfile(t *testing.T) (user string, entrypoint []string, labels map[string]string) {
	t.Helper()
	_, stage, _ := strings.Cut(read(t, filepath.Join(string(c), "Dockerfile")), "\nFROM scratch\n")
	stage = strings.ReplaceAll(stage, "${VERSION}", version)
	user = regexp.MustCompile(`(?m)^USER (.+)$`).FindStringSubmatch(stage)[1]
	framework.Must(t, json.Unmarshal([]byte(regexp.MustCompile(`(?m)^ENTRYPOINT (.+)$`).FindStringSubmatch(stage)[1]), &entrypoint))
	labels = map[string]string{}
	for _, label := range regexp.MustCompile(`(org\.opencontainers\.image\.[a-z]+)=(".+?")`).FindAllStringSubmatch(stage, -1) {
		value, err := strconv.Unquote(label[2])
		framework.Must(t, err)
		labels[label[1]] = value
	}
	return user, entrypoint, labels
}

func (m mirror) testManifests(t *testing.T) {
	env := testenv.StartEmpty(t)
	_, err := env.Kubectl(t, "apply", "--server-side", "--filename="+m.dist("install.yaml"))
	framework.Must(t, err)
	m.expectInstalled(t, env)
	_, err = env.Kubectl(t, "diff", "--server-side", "--filename="+m.dist("crds.yaml"))
	framework.Must(t, err)
}

func (m mirror) testChart(t *testing.T) {
	g := NewWithT(t)
	env := testenv.StartEmpty(t)
	chart := "oci://" + m.host + "/charts/apikey-operator"
	g.Expect(run(t, "helm", "show", "chart", chart, "--version="+chartVersion, "--plain-http")).To(
		And(ContainSubstring("\nappVersion: v0.98.7\n"), ContainSubstring("\nversion: 0.98.7"),
			ContainSubstring("\nsources:\n- https://github.com/owner/apikey-operator\n")))
	run(t, "helm", "install", "apikey-operator", chart, "--version="+chartVersion, "--plain-http",
		"--namespace=apikey-system", "--create-namespace", "--kubeconfig="+env.Kubeconfig(t, env.Config))
	m.expectInstalled(t, env)

	pulled := t.TempDir()
	run(t, "helm", "pull", chart, "--version="+chartVersion, "--plain-http", "--destination="+pulled)
	archive := "apikey-operator-0.98.7.tgz"
	g.Expect(read(t, filepath.Join(pulled, archive)) == read(t, m.dist(archive))).To(BeTrue(), "the registry has the same chart archive")
}

// expectInstalled expects Deployments of the image, and that the API server accepts keys.
func (m mirror) expectInstalled(t *testing.T, env *testenv.Env) {
	t.Helper()
	g := NewWithT(t)
	var deployments appsv1.DeploymentList
	g.Expect(env.Client.List(t.Context(), &deployments, client.InNamespace("apikey-system"))).To(Succeed())
	images := map[string]string{}
	for i := range deployments.Items {
		images[deployments.Items[i].Name] = deployments.Items[i].Spec.Template.Spec.Containers[0].Image
	}
	want := image + ":" + version + "@" + m.digest
	g.Expect(images).To(Equal(map[string]string{"apikey-controller": want, "apikey-authenticator": want}))

	key := testenv.NewKey("default", "frontend")
	framework.Eventually(t, "the API server accepts a key", func() bool { return env.Client.Create(t.Context(), key) == nil })
}
