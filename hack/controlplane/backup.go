// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"fmt"
	"os"
	"syscall"
)

// BackUpEtcd copies what etcd holds now to a directory that it makes. The control plane pauses meanwhile.
func (p *ControlPlane) BackUpEtcd(dir string) error {
	// etcd recovers from what its files are while it stands still as it does from a kill.
	p.etcd.Signal(syscall.SIGSTOP)
	defer p.etcd.Signal(syscall.SIGCONT)
	if err := os.CopyFS(dir, os.DirFS(p.file("etcd"))); err != nil {
		return fmt.Errorf("cannot back up etcd: %w", err)
	}
	return nil
}

// RestoreEtcd makes etcd hold what it held at a backup, its older revision too. As on any cluster, no API server may run meanwhile:
// stop it before.
func (p *ControlPlane) RestoreEtcd(ctx context.Context, dir string) error {
	if err := p.etcd.Stop(); err != nil {
		return err
	}
	if err := os.RemoveAll(p.file("etcd")); err != nil {
		return err
	}
	if err := os.CopyFS(p.file("etcd"), os.DirFS(dir)); err != nil {
		return fmt.Errorf("cannot restore etcd: %w", err)
	}
	return p.startEtcd(ctx)
}

// RenewServingCertificate replaces the certificate that the API server serves with, which sees that by itself within a minute, by another
// one of the same authority.
func (p *ControlPlane) RenewServingCertificate() error {
	serving, err := p.issueIdentity()
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
