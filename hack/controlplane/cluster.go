// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import "net/netip"

// Cluster is what a control plane needs in addition if nodes join it.
type Cluster struct {
	// Address is the IPv4 address of the API server. Nodes and pods must be able to reach it.
	Address netip.Addr
	// Services is the address range of Services. Its first address is that of the Service of the API server.
	Services netip.Prefix
	// ControllerManager is the path of a kube-controller-manager with the controllers of pods and nodes. That of `make kube` has none.
	ControllerManager string
}

// noNodes is the network of a control plane without nodes.
var noNodes = Cluster{Address: loopback, Services: netip.MustParsePrefix("10.0.0.0/24")}

func (p *ControlPlane) hasNodes() bool { return p.options.Cluster != nil }

func (p *ControlPlane) cluster() Cluster {
	if p.hasNodes() {
		return *p.options.Cluster
	}
	return noNodes
}

// issueServingCertificate issues the certificate of the API server, for its names on this machine and in pods.
func (p *ControlPlane) issueServingCertificate() (pair, error) {
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	cluster := p.cluster()
	return p.authority.issueServing("kube-apiserver", names, cluster.Address, cluster.Services.Masked().Addr().Next())
}

// nodeFlags returns the flags of the API server that depend on whether nodes join.
func (p *ControlPlane) nodeFlags() []string {
	if !p.hasNodes() {
		return []string{
			"--authorization-mode=RBAC",
			"--endpoint-reconciler-type=none", // the endpoint of a Service cannot be a loopback address
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

// controllerManagerProgram returns the path of kube-controller-manager, and the flags that depend on whether nodes join.
func (p *ControlPlane) controllerManagerProgram() (path string, flags []string) {
	if p.hasNodes() {
		return p.options.Cluster.ControllerManager, []string{
			"--controllers=*",
			"--flex-volume-plugin-dir=" + p.file("volume-plugins"), // the default is outside of Dir
		}
	}
	// Without pods, the other controllers only cost time. The program of `make kube` has only these.
	return p.Binary("kube-controller-manager"), []string{
		"--controllers=garbage-collector-controller,namespace-controller,serviceaccount-controller,serviceaccount-token-controller," +
			"root-ca-certificate-publisher-controller,clusterrole-aggregation-controller,validatingadmissionpolicy-status-controller",
	}
}
