// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"embed"
	"os"
	"path/filepath"
	"text/template"
)

// The configuration files of the node's programs, as templates.
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
		"cniPlugins":      filepath.Join(n.debian, "usr", "lib", "cni"),
		"socket":          containerdSocket,
		"pauseImage":      pauseImage,
		"dnsImage":        dnsImage,
		"dnsAddress":      dnsAddress,
		"podRange":        podRange,
		"cgroup":          cgroupName,
		"authority":       filepath.Join(n.state, "controlplane", "pki", "ca.crt"),
		"kubeProxyHealth": kubeProxyHealth,
	}
	for _, one := range all.Templates() {
		if err := writeTemplate(n.config(one.Name()), one, values); err != nil {
			return err
		}
	}
	return nil
}

func writeTemplate(path string, template *template.Template, values map[string]any) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return template.Execute(file, values)
}

// config is the path of a configuration file.
func (n *node) config(name ...string) string {
	return filepath.Join(append([]string{n.state, "config"}, name...)...)
}

// startDNS installs the cluster's DNS, and returns when it answers.
func (n *node) startDNS(ctx context.Context) error {
	if _, err := n.plane.Kubectl(ctx, "", "apply", "--server-side", "--filename", n.config("dns.yaml")); err != nil {
		return err
	}
	_, err := n.plane.Kubectl(ctx, "", "rollout", "status", "deployment/coredns", "--namespace=kube-system", "--timeout=60s")
	return err
}
