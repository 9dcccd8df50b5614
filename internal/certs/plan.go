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
	// DefaultLifetime is how long an authority is good for.
	DefaultLifetime = 365 * 24 * time.Hour
	// MinLifetime leaves 200 seconds from when a serving certificate has to be renewed until it ends. The renewed one is served after 110
	// at most: 10 until the controller looks, 90 until the kubelet has it in a pod's volume, 10 until the process reads it there.
	MinLifetime = 2 * time.Hour
)

// propagation is how long a published authority waits before it signs, so that the bundle reaches all who verify. It is also how long
// serving certificates are good for.
func propagation(lifetime time.Duration) time.Duration { return lifetime / 12 }

// isWorn says whether a certificate has to be replaced that is good for so long. The last third is left for that.
func isWorn(certificate *x509.Certificate, lifetime time.Duration, now time.Time) bool {
	return now.Sub(issuedAt(certificate)) >= lifetime*2/3
}

func isExpired(certificate *x509.Certificate, now time.Time) bool {
	return !now.Before(certificate.NotAfter)
}

// needSuccessor says whether an authority is to be minted beside these, the oldest first.
func needSuccessor(authorities []authority, now time.Time, lifetime time.Duration) bool {
	if len(authorities) == 0 {
		return true
	}
	newest := authorities[len(authorities)-1].certificate
	return isWorn(newest, min(lifetime, validity(newest)), now)
}

// waitOf returns how long a successor waits from its publication on, before it signs. That is no longer than its predecessor promised, if
// that is shorter-lived: so no raised lifetime makes an older authority sign again.
//
// When the predecessor ends too soon for that, because nobody has looked for months, the successor waits for two thirds of what is left:
// those who read the bundle later than that are cut off until they do, which the end of the predecessor would do to them in any case.
// The last third is for the pods, which would otherwise serve what has ended to those who do have the bundle.
func waitOf(predecessor authority, lifetime time.Duration, now time.Time) time.Duration {
	left := predecessor.certificate.NotAfter.Sub(now)
	return min(propagation(min(lifetime, validity(predecessor.certificate))), left*2/3)
}

// signerOf returns the newest of the authorities, the oldest first, that may sign, if one of them may.
func signerOf(authorities []authority, now time.Time) (signer authority, found bool) {
	for _, a := range slices.Backward(authorities) {
		if a.maySign(now) && !isExpired(a.certificate, now) {
			return a, true
		}
	}
	return authority{}, false
}

// whyIssue says why a serving certificate has to be replaced by one of this authority for these names; "" is that it is good.
func whyIssue(certificatePEM, keyPEM []byte, signer authority, names []string, now time.Time) string {
	if len(certificatePEM) == 0 {
		return "there is none"
	}
	pair, err := tls.X509KeyPair(certificatePEM, keyPEM)
	switch {
	case err != nil:
		return fmt.Sprintf("what is there cannot be used: %v", err)
	case !slices.Equal(pair.Leaf.DNSNames, names):
		return "it is for other names"
	case pair.Leaf.CheckSignatureFrom(signer.certificate) != nil:
		return "another authority signs"
	case now.Before(pair.Leaf.NotBefore):
		return "it is not good yet: it was made by a clock that was ahead"
	case isWorn(pair.Leaf, validity(pair.Leaf), now):
		return "two thirds of its time are over"
	default:
		return ""
	}
}
