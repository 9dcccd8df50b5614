// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"fmt"
	"os"
	"syscall"
)

// BackUpEtcd copies the data of etcd to a new directory. It pauses etcd meanwhile.
func (p *ControlPlane) BackUpEtcd(dir string) error {
	// The files of a paused etcd are as consistent as those of a killed one, and etcd recovers from both.
	p.etcd.Signal(syscall.SIGSTOP)
	defer p.etcd.Signal(syscall.SIGCONT)
	if err := os.CopyFS(dir, os.DirFS(p.file("etcd"))); err != nil {
		return fmt.Errorf("back up etcd: %w", err)
	}
	return nil
}

// RestoreEtcd restores the data of a backup, with its older revision. As on any cluster, the caller must stop the API server before.
func (p *ControlPlane) RestoreEtcd(ctx context.Context, dir string) error {
	if err := p.etcd.Stop(); err != nil {
		return err
	}
	if err := os.RemoveAll(p.file("etcd")); err != nil {
		return err
	}
	if err := os.CopyFS(p.file("etcd"), os.DirFS(dir)); err != nil {
		return fmt.Errorf("restore etcd: %w", err)
	}
	return p.startEtcd(ctx)
}

// RenewServingCertificate replaces the serving certificate of the API server, which reloads it within a minute.
func (p *ControlPlane) RenewServingCertificate() error {
	serving, err := p.issueServingCertificate()
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"apiserver.crt": serving.certificate, "apiserver.key": serving.key} {
		if err := os.WriteFile(p.file("pki", name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}
