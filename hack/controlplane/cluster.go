// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import "net/netip"

// Cluster says how the nodes of a cluster and their pods reach its control plane.
type Cluster struct {
	// Address is the IPv4 address of this machine that the API server listens on, and that nodes and pods can reach.
	Address netip.Addr
	// Services is the range that Services get their addresses from. Its first address is the API server's own Service.
	Services netip.Prefix
}

// noNodes is what a control plane without nodes has in place of a Cluster.
var noNodes = Cluster{Address: loopback, Services: netip.MustParsePrefix("10.0.0.0/24")}

func (p *ControlPlane) hasNodes() bool { return p.options.Cluster != nil }

func (p *ControlPlane) cluster() Cluster {
	if p.hasNodes() {
		return *p.options.Cluster
	}
	return noNodes
}

// issueIdentity issues the certificate of the API server: for what this machine calls it, and for what pods call it.
func (p *ControlPlane) issueIdentity() (pair, error) {
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	cluster := p.cluster()
	return p.authority.issueServing("kube-apiserver", names, cluster.Address, cluster.Services.Masked().Addr().Next())
}

// nodeFlags are the flags of the API server that say whether there are nodes.
func (p *ControlPlane) nodeFlags() []string {
	if !p.hasNodes() {
		return []string{
			"--authorization-mode=RBAC",
			"--endpoint-reconciler-type=none", // a Service cannot lead to a loopback address
		}
	}
	return []string{
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--kubelet-client-certificate=" + p.file("pki", "kubelet-client.crt"),
		"--kubelet-client-key=" + p.file("pki", "kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
	}
}

// controllers are those that kube-controller-manager runs. Where no pod runs, most would only take time.
func (p *ControlPlane) controllers() string {
	if p.hasNodes() {
		return "*"
	}
	return "garbage-collector-controller,namespace-controller,serviceaccount-controller,serviceaccount-token-controller," +
		"root-ca-certificate-publisher-controller,clusterrole-aggregation-controller,validatingadmissionpolicy-status-controller"
}
