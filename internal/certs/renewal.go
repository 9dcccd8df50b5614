// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

const (
	// DefaultLifetime is the default lifetime of an authority.
	DefaultLifetime = 365 * 24 * time.Hour
	// MinLifetime leaves 200 seconds between the renewal of a serving certificate and its expiry. A pod serves the renewed one after at most
	// 110 seconds: 10 until the controller renews it, 90 until the kubelet updates the volume, 10 until the process reads the file.
	MinLifetime = 2 * time.Hour
)

// propagation is how long a published authority waits before it signs, so that all clients have read the CA bundle by then. It is also the
// lifetime of serving certificates.
func propagation(lifetime time.Duration) time.Duration { return lifetime / 12 }

// needsRenewal reports whether two thirds of a certificate's lifetime have passed. The last third is left for the renewal.
func needsRenewal(certificate *x509.Certificate, lifetime time.Duration, now time.Time) bool {
	return now.Sub(issuedAt(certificate)) >= lifetime*2/3
}

func isExpired(certificate *x509.Certificate, now time.Time) bool {
	return !now.Before(certificate.NotAfter)
}

// needsSuccessor reports whether a further authority is due, also because the newest one may not sign for all names. The authorities are
// sorted, the oldest first.
func needsSuccessor(authorities []authority, now time.Time, lifetime time.Duration, names []string) bool {
	if len(authorities) == 0 {
		return true
	}
	newest := authorities[len(authorities)-1]
	return !newest.permits(names) || needsRenewal(newest.certificate, min(lifetime, validity(newest.certificate)), now)
}

// signingDelay returns how long a successor waits between its publication and its first signature. If the predecessor has a shorter
// lifetime, its shorter delay applies. A raised lifetime therefore never lets an older authority sign again.
//
// If the predecessor expires too soon, because no controller ran for months, the successor waits for two thirds of the remaining time.
// Clients that read the CA bundle later than that fail until they read it, as they would at the expiry of the predecessor. The last third
// is left for the pods, which would otherwise serve an expired certificate to clients that have the bundle.
func signingDelay(predecessor authority, lifetime time.Duration, now time.Time) time.Duration {
	left := predecessor.certificate.NotAfter.Sub(now)
	return min(propagation(min(lifetime, validity(predecessor.certificate))), left*2/3)
}

// selectSigner returns the newest authority that may sign for these names. The authorities are sorted, the oldest first.
//
// If none may, because a server was added after their creation, it is the published authority that will be the first. No client has
// connected to that server before, so each one reads the CA bundle that contains this authority.
func selectSigner(authorities []authority, now time.Time, names []string) (signer authority, found bool) {
	for _, a := range slices.Backward(authorities) {
		if a.maySign(now) && a.permits(names) && !isExpired(a.certificate, now) {
			return a, true
		}
	}
	for _, a := range authorities {
		if a.isScheduled() && a.permits(names) && !isExpired(a.certificate, now) {
			return a, true
		}
	}
	return authority{}, false
}

// reissueReason returns why a serving certificate must be replaced by one of this signer for these names, or "" if it is good.
func reissueReason(certificatePEM, keyPEM []byte, signer authority, names []string, now time.Time) string {
	if len(certificatePEM) == 0 {
		return "the Secret holds none"
	}
	pair, err := tls.X509KeyPair(certificatePEM, keyPEM)
	switch {
	case err != nil:
		return fmt.Sprintf("the certificate and key are unusable: %v", err)
	case !slices.Equal(pair.Leaf.DNSNames, names):
		return "the DNS names have changed"
	case pair.Leaf.CheckSignatureFrom(signer.certificate) != nil:
		return "another authority signs now"
	case now.Before(pair.Leaf.NotBefore):
		return "the certificate is not valid yet: the clock that dated it was ahead"
	case needsRenewal(pair.Leaf, validity(pair.Leaf), now):
		return "two thirds of the lifetime have passed"
	default:
		return ""
	}
}
