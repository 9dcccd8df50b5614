// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build release

package release_test

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"

	"squirrel.dev/apikey-operator/test/framework"
)

// platforms are those of the kubectl plugin.
var platforms = []string{"darwin_amd64", "darwin_arm64", "linux_amd64", "linux_arm64", "windows_amd64", "windows_arm64"}

func TestRelease(t *testing.T) {
	first := newClone(t)
	if output, err := first.release(t, version, repository); err != nil {
		t.Fatal(err, output)
	}
	t.Run("another clone builds the same files", first.testReproducible)
	t.Run("the checksums cover all files", first.testChecksums)
	t.Run("the programs name their version and their commit", first.testPrograms)
	t.Run("the SBOMs list the modules of the programs", first.testSBOMs)
	t.Run("krew installs the archives of the plugin", first.testKrew)
	t.Run("the notes are the section of the changelog", first.testNotes)

	registry := first.mirror(t)
	t.Run("the image is that of the Dockerfile", registry.testImage)
	t.Run("the manifests install the image", registry.testManifests)
	t.Run("the chart installs the image", registry.testChart)
}

func (c clone) testReproducible(t *testing.T) {
	g := NewWithT(t)
	other := c.cloneTo(t, filepath.Join(t.TempDir(), "a longer", "path"))
	settings := filepath.Join(t.TempDir(), "env") // as `go env -w` writes them
	framework.Must(t, os.WriteFile(settings, []byte("GOFLAGS=-tags=other\nGOFIPS140=latest\n"), 0o600))
	output, err := other.release(t, version, repository, "TZ=Asia/Tokyo", "LC_ALL=C.UTF-8", "GOENV="+settings, "GOAMD64=v3")
	g.Expect(err).NotTo(HaveOccurred(), output)

	g.Expect(read(t, other.dist("checksums.txt"))).To(Equal(read(t, c.dist("checksums.txt"))))
	g.Expect(read(t, other.dist("../release-notes.md"))).To(Equal(read(t, c.dist("../release-notes.md"))))
	g.Expect(c.shell(t, "git status --porcelain")).To(BeEmpty())
}

func (c clone) testChecksums(t *testing.T) {
	g := NewWithT(t)
	var want []string
	for _, arch := range []string{"amd64", "arm64"} {
		want = append(want, "apikey-operator_v0.98.7_linux_"+arch+".tar.gz", "apikey-operator_v0.98.7_linux_"+arch+".spdx.json")
	}
	for _, platform := range platforms {
		want = append(want, "kubectl-apikey_v0.98.7_"+platform+".tar.gz", "kubectl-apikey_v0.98.7_"+platform+".spdx.json")
	}
	want = append(want, "apikey-operator-0.98.7.tgz", "apikey-operator_v0.98.7_chart.tar", "apikey-operator_v0.98.7_image.tar",
		"apikey.yaml", "crds.yaml", "install.yaml")
	slices.Sort(want)

	verified := strings.Split(shell(t, c.dist(""), "sha256sum --check --strict checksums.txt"), "\n")
	for i, file := range verified {
		verified[i] = strings.TrimSuffix(file, ": OK")
	}
	slices.Sort(verified)
	g.Expect(verified).To(Equal(want))
	g.Expect(files(t, c.dist(""))).To(ConsistOf(append(want, "checksums.txt")))
}

// programs returns the programs in the archives, by the name of the archive without its extension.
func (c clone) programs(t *testing.T) map[string]string {
	t.Helper()
	archives, err := filepath.Glob(c.dist("*.tar.gz"))
	framework.Must(t, err)
	programs := map[string]string{}
	for _, archive := range archives {
		name := strings.TrimSuffix(filepath.Base(archive), ".tar.gz")
		program, platform, _ := strings.Cut(name, "_"+version+"_")
		if strings.HasPrefix(platform, "windows_") {
			program += ".exe"
		}
		programs[name] = filepath.Join(extract(t, archive), program)
	}
	return programs
}

func (c clone) testPrograms(t *testing.T) {
	g := NewWithT(t)
	commit := c.shell(t, "git rev-parse HEAD")
	versions := map[string]struct{ arg, want string }{
		"apikey-operator": {"version", "apikey-operator v0.98.7 " + runtime.Version() + " linux/" + runtime.GOARCH},
		"kubectl-apikey":  {"--version", "kubectl apikey version v0.98.7"},
	}
	for name, program := range c.programs(t) {
		if strings.HasSuffix(name, "_linux_"+runtime.GOARCH) {
			test := versions[filepath.Base(program)]
			g.Expect(shell(t, "/", `"$1" "$2"`, program, test.arg)).To(Equal(test.want))
		}
		info, err := buildinfo.ReadFile(program)
		framework.Must(t, err)
		g.Expect(info.GoVersion).To(Equal(runtime.Version()), name)
		g.Expect(info.Main.Version).To(Equal(version), name)
		settings := map[string]string{}
		for _, setting := range info.Settings {
			settings[setting.Key] = setting.Value
		}
		g.Expect(settings).To(HaveKeyWithValue("vcs.revision", commit), name)
		g.Expect(settings).To(HaveKeyWithValue("vcs.time", commitTime), name)
		g.Expect(settings).To(HaveKeyWithValue("vcs.modified", "false"), name)
		g.Expect(settings).To(HaveKeyWithValue("CGO_ENABLED", "0"), name)
		g.Expect(settings).To(HaveKeyWithValue("-trimpath", "true"), name)
		g.Expect(name).To(HaveSuffix(settings["GOOS"] + "_" + settings["GOARCH"]))
		if strings.HasPrefix(name, "apikey-operator_") {
			g.Expect(settings).To(HaveKeyWithValue("-pgo", "authenticator.pgo"), name)
		}
	}
}

// sbom has the fields of an SPDX document that are tested.
type sbom struct {
	SPDXVersion       string `json:"spdxVersion"`
	Name              string `json:"name"`
	DocumentNamespace string `json:"documentNamespace"`
	CreationInfo      struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	} `json:"creationInfo"`
	Packages []struct {
		Name        string `json:"name"`
		VersionInfo string `json:"versionInfo"`
	} `json:"packages"`
}

func (c clone) testSBOMs(t *testing.T) {
	g := NewWithT(t)
	for name, program := range c.programs(t) {
		var document sbom
		framework.Must(t, json.Unmarshal([]byte(read(t, c.dist(name+".spdx.json"))), &document))
		g.Expect(document.SPDXVersion).To(Equal("SPDX-2.3"))
		g.Expect(document.Name).To(Equal(name))
		g.Expect(document.DocumentNamespace).To(Equal("https://github.com/owner/apikey-operator/releases/download/v0.98.7/" + name + ".spdx.json"))
		g.Expect(document.CreationInfo.Created).To(Equal(commitTime))
		g.Expect(document.CreationInfo.Creators).To(ContainElement(MatchRegexp(`^Tool: syft-v\d+\.\d+\.\d+$`)))

		info, err := buildinfo.ReadFile(program)
		framework.Must(t, err)
		want := []string{name + " " + version, "stdlib " + info.GoVersion, info.Main.Path + " " + version}
		for _, module := range info.Deps {
			want = append(want, modulePath(module))
		}
		var got []string
		for _, p := range document.Packages {
			got = append(got, p.Name+" "+p.VersionInfo)
		}
		g.Expect(got).To(ConsistOf(want), name)
	}
}

func modulePath(module *debug.Module) string {
	if module.Replace != nil {
		module = module.Replace
	}
	return module.Path + " " + module.Version
}

func (c clone) testKrew(t *testing.T) {
	g := NewWithT(t)
	var plugin struct {
		Metadata struct{ Name string }
		Spec     struct {
			Version   string
			Platforms []struct {
				Selector struct {
					MatchLabels struct{ OS, Arch string }
				}
				URI, Sha256, Bin string
			}
		}
	}
	framework.Must(t, yaml.Unmarshal([]byte(read(t, c.dist("apikey.yaml"))), &plugin))
	g.Expect(plugin.Metadata.Name).To(Equal("apikey"))
	g.Expect(plugin.Spec.Version).To(Equal(version))
	var got []string
	for _, platform := range plugin.Spec.Platforms {
		labels := platform.Selector.MatchLabels
		got = append(got, labels.OS+"_"+labels.Arch)
		archive := "kubectl-apikey_v0.98.7_" + labels.OS + "_" + labels.Arch + ".tar.gz"
		g.Expect(platform.URI).To(Equal("https://github.com/owner/apikey-operator/releases/download/v0.98.7/" + archive))
		sum := sha256.Sum256([]byte(read(t, c.dist(archive))))
		g.Expect(platform.Sha256).To(Equal(hex.EncodeToString(sum[:])), archive)
		g.Expect(files(t, extract(t, c.dist(archive)))).To(ConsistOf("LICENSE", "THIRD_PARTY_LICENSES", "kubectl_complete-apikey", platform.Bin), archive)
	}
	g.Expect(got).To(ConsistOf(platforms))
}

func (c clone) testNotes(t *testing.T) {
	g := NewWithT(t)
	notes := read(t, c.dist("../release-notes.md"))
	g.Expect(notes).To(HavePrefix("\nThe first release.\n"))
	g.Expect(notes).To(ContainSubstring("\n## Install\n"))
	g.Expect(strings.Count(notes, "\n## ")).To(Equal(1), "the number of other sections")
	g.Expect(notes).NotTo(MatchRegexp(`\]\((docs|charts)/`), "relative links, which a release page cannot follow")
}

func TestRelease_RefusesWhatOtherClonesCannotBuild(t *testing.T) {
	c := newClone(t)
	for _, test := range []struct{ before, version, repository, want string }{
		{"", "0.98.7", repository, "VERSION='0.98.7' is not the version of a release: give one such as v1.2.3 or v1.2.3-rc.1."},
		{"", "v0.98", repository, "VERSION='v0.98' is not the version of a release: give one such as v1.2.3 or v1.2.3-rc.1."},
		{"", "", repository, "VERSION='' is not the version of a release: give one such as v1.2.3 or v1.2.3-rc.1."},
		{"", version, "Owner/apikey-operator", "REPOSITORY='Owner/apikey-operator' is not OWNER/NAME in lower case."},
		{"", "v0.98.6", repository, "v0.98.6 is not a tag of the current commit: git tag --annotate v0.98.6, or check out that tag."},
		{
			"git tag v0.98.7-rc.1", version, repository,
			"v0.98.7-rc.1 is a tag of the current commit too: release another commit as v0.98.7, or delete that tag.",
		},
		{
			"git tag --delete v0.98.7 v0.98.7-rc.1 && git tag v0.98.8", "v0.98.8", repository,
			"CHANGELOG.md has no section '## 0.98.8': rename '## Unreleased' to '## 0.98.8 - 2026-01-02'.",
		},
		{
			"sed -i 's/^## Unreleased$/&\\n\\n## 0.98.8/' CHANGELOG.md && echo 'No version is released yet.' >>docs/README.md && " +
				"git -c user.name=test -c user.email=test@example.com commit --quiet --all --message=cut && git tag --force v0.98.8 >/dev/null",
			"v0.98.8", repository, `these pages say "No version is released": correct them.` + "\ndocs/README.md",
		},
		{"", "v0.98.8-01", repository, "VERSION='v0.98.8-01' is not the version of a release: give one such as v1.2.3 or v1.2.3-rc.1."},
		{"echo >> README.md", "v0.98.8", repository, "the working tree has changes: commit or remove them.\n M README.md"},
	} {
		c.shell(t, test.before)
		output, err := c.release(t, test.version, test.repository)
		if want := "hack/release: " + test.want + "\n"; err == nil || output != want {
			t.Errorf("release %s: %v\n got: %swant: %s", test.version, err, output, want)
		}
		if names, err := filepath.Glob(string(c) + "/dist/*"); err != nil || len(names) > 0 {
			t.Errorf("release %s: dist has %v", test.version, names)
		}
	}
}
