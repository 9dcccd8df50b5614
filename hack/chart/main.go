// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Command chart makes the Helm chart out of what kustomize makes of config/, so that both install the same. It fails when config/ holds
// something that it was not told how to template.
//
//	chart KUBECTL VERSION IMAGE DIRECTORY
package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
	"time"

	"sigs.k8s.io/yaml"
)

// files are those of the chart that are not made of config/. What is in [[ ]] is filled in here, what is in {{ }} by Helm.
//
//go:embed all:files
var files embed.FS

// packagedAt is the time of all files, so that the same chart is the same archive.
var packagedAt = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 4 {
		return errors.New("usage: chart KUBECTL VERSION IMAGE DIRECTORY; an IMAGE of \"\" is that of config/default")
	}
	kubectl, version, image, dir := args[0], args[1], args[2], args[3]
	// As Helm has it: https://semver.org, without the v that tags of Git begin with.
	if !regexp.MustCompile(`^v?\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`).MatchString(version) {
		return fmt.Errorf("VERSION=%s is no version: give one such as v1.2.3", version)
	}
	c, err := newChart(func(dir string) ([]object, error) { return kustomize(kubectl, dir) })
	if err != nil {
		return err
	}
	if image == "" {
		image = c.image
	}
	c.defaults["version"], c.defaults["appVersion"] = strings.TrimPrefix(version, "v"), version
	if c.defaults["image"], err = parseImage(image); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return errors.Join(c.writeFiles(dir), c.writeTemplates(filepath.Join(dir, "templates")))
}

// kustomize returns what a directory holds.
func kustomize(kubectl, dir string) ([]object, error) {
	output, err := buildKustomization(kubectl, dir)
	if err != nil {
		return nil, err
	}
	objects, err := parseObjects(output)
	if err != nil {
		return nil, fmt.Errorf("kubectl kustomize %s: %w", dir, err)
	}
	return objects, nil
}

func buildKustomization(kubectl, dir string) (string, error) {
	output, err := exec.Command(kubectl, "kustomize", dir).Output()
	if err != nil {
		return "", fmt.Errorf("kubectl kustomize %s: %w", dir, withStderr(err))
	}
	return string(output), nil
}

// parseObjects reads the documents of a YAML stream.
func parseObjects(stream string) (objects []object, err error) {
	for document := range strings.SplitSeq(stream, "\n---\n") {
		o := object{}
		if err := yaml.Unmarshal([]byte(document), &o); err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	return objects, nil
}

func withStderr(err error) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return fmt.Errorf("%w\n%s", err, exit.Stderr)
	}
	return err
}

// parseImage splits NAME:TAG or NAME@DIGEST.
func parseImage(image string) (map[string]string, error) {
	parts := regexp.MustCompile(`^(.+?)(?::([^/:@]+))?(?:@(sha256:.+))?$`).FindStringSubmatch(image)
	if parts == nil || parts[2]+parts[3] == "" {
		return nil, fmt.Errorf("IMAGE=%s does not say which version of the image: give NAME:TAG or NAME@sha256:DIGEST", image)
	}
	return map[string]string{"repository": parts[1], "tag": parts[2], "digest": parts[3]}, nil
}

// writeFiles writes the files that are not made of config/.
func (c *chart) writeFiles(dir string) error {
	source, err := fs.Sub(files, "files")
	if err != nil {
		return err
	}
	return fs.WalkDir(source, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(source, path)
		if err != nil {
			return err
		}
		functions := template.FuncMap{"toYaml": toYAML}
		parsed, err := template.New(path).Delims("[[", "]]").Option("missingkey=error").Funcs(functions).Parse(string(text))
		if err != nil {
			return err
		}
		var filled bytes.Buffer
		if err := parsed.Execute(&filled, c.defaults); err != nil {
			return err
		}
		return write(filepath.Join(dir, path), filled.String())
	})
}

// toYAML writes a value so that it fits below a key at this indentation.
func toYAML(indentation int, value any) (string, error) {
	text, err := yaml.Marshal(value)
	return indent(strings.Repeat(" ", indentation), strings.TrimSuffix(string(text), "\n")), err
}

func (c *chart) writeTemplates(dir string) error {
	for name, text := range c.templates {
		if err := write(filepath.Join(dir, name+".yaml"), text); err != nil {
			return err
		}
	}
	return nil
}

func write(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Chtimes(path, packagedAt, packagedAt)
}
