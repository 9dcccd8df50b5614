// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package certificates

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
	// MinLifetime leaves 100 seconds between the renewal of a serving certificate and its end. A pod may need most of them to see the
	// renewed one in a volume.
	MinLifetime = time.Hour
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

// schedule says from when on each of the authorities, the oldest first, may sign: as it was said when it was published, or, if it is
// only now that it is, when everybody who verifies can be expected to have it. That is as soon as its predecessor promised, if that was
// shorter-lived: so no raised lifetime makes an older authority sign again.
func schedule(authorities []authority, published map[string]time.Time, now time.Time, lifetime time.Duration) map[string]time.Time {
	signsFrom := make(map[string]time.Time, len(authorities))
	for i, a := range authorities {
		from, isPublished := published[a.id]
		switch {
		case isPublished:
		case i == 0: // nobody can have been told to expect another one
			from = now
		default:
			from = now.Add(propagation(min(lifetime, validity(authorities[i-1].certificate))))
		}
		signsFrom[a.id] = from
	}
	return signsFrom
}

// signerOf returns the newest of the authorities that may sign, or else the oldest.
func signerOf(authorities []authority, signsFrom map[string]time.Time, now time.Time) authority {
	for _, a := range slices.Backward(authorities) {
		if !now.Before(signsFrom[a.id]) {
			return a
		}
	}
	return authorities[0]
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
	case isWorn(pair.Leaf, validity(pair.Leaf), now):
		return "two thirds of its time are over"
	default:
		return ""
	}
}
