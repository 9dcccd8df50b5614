// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	"embed"
	"os"
	"path/filepath"
	"text/template"
)

// templates are the configuration files of the node's programs.
//
//go:embed config
var templates embed.FS

// writeConfiguration writes the configuration of the node's programs.
func (n *node) writeConfiguration(context.Context) error {
	all, err := template.New("").Option("missingkey=error").ParseFS(templates, "config/*")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(n.config(), 0o755); err != nil {
		return err
	}
	values := map[string]any{
		"state":           n.state,
		"config":          n.config(),
		"socket":          containerdSocket,
		"pauseImage":      pauseImage,
		"dnsImage":        dnsImage,
		"dnsAddress":      dnsAddress,
		"podRange":        podRange,
		"cgroup":          cgroupName,
		"authority":       n.config("authority.crt"),
		"kubeProxyHealth": kubeProxyHealth,
	}
	for _, file := range all.Templates() {
		var content bytes.Buffer
		if err := file.Execute(&content, values); err != nil {
			return err
		}
		if err := os.WriteFile(n.config(file.Name()), content.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(n.config("authority.crt"), n.plane.AdminConfig().CAData, 0o644)
}

// config returns the path of a configuration file.
func (n *node) config(name ...string) string {
	return filepath.Join(append([]string{n.state, "config"}, name...)...)
}
