// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// The keys of an authority in the Secret: <id>.crt and <id>.key in the data, signs-from.keys.squirrel.dev/<id> in the annotations.
const (
	certificateSuffix = ".crt"
	keySuffix         = ".key"
	signsFromPrefix   = "signs-from.keys.squirrel.dev/"
)

// backdating is how far the notBefore of a certificate is in the past, for clients with slow clocks.
const backdating = 5 * time.Minute

// allAddresses covers IPv4 and IPv6.
var allAddresses = []*net.IPNet{
	{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
	{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
}

// authority is a certificate authority and its private key.
type authority struct {
	id          string // the serial number in hexadecimal, if this package created the authority
	certificate *x509.Certificate
	key         crypto.Signer
	signsFrom   time.Time // zero until the authority is published
}

func (a authority) isScheduled() bool { return !a.signsFrom.IsZero() }

func (a authority) maySign(now time.Time) bool { return a.isScheduled() && !now.Before(a.signsFrom) }

// permits reports whether the authority may sign for all these names.
func (a authority) permits(names []string) bool {
	permitted := a.certificate.PermittedDNSDomains
	return len(permitted) == 0 || !slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(permitted, name) })
}

// issuedAt returns when this package issued a certificate.
func issuedAt(certificate *x509.Certificate) time.Time { return certificate.NotBefore.Add(backdating) }

// validity returns the lifetime of a certificate from its issue on.
func validity(certificate *x509.Certificate) time.Duration {
	return certificate.NotAfter.Sub(issuedAt(certificate))
}

// parseAuthorities returns the intact authorities of the Secret, sorted, the oldest first, and an error if others are damaged.
func parseAuthorities(secret *corev1.Secret) (authorities []authority, damage error) {
	for _, name := range slices.Sorted(maps.Keys(secret.Data)) {
		id, isCertificate := strings.CutSuffix(name, certificateSuffix)
		if !isCertificate {
			continue
		}
		a, err := parseAuthority(secret, id)
		if err != nil {
			damage = errors.Join(damage, err)
			continue
		}
		authorities = append(authorities, a)
	}
	slices.SortFunc(authorities, func(a, b authority) int {
		return cmp.Or(a.certificate.NotBefore.Compare(b.certificate.NotBefore), cmp.Compare(a.id, b.id))
	})
	return authorities, damage
}

func parseAuthority(secret *corev1.Secret, id string) (authority, error) {
	pair, err := tls.X509KeyPair(secret.Data[id+certificateSuffix], secret.Data[id+keySuffix])
	if err != nil {
		return authority{}, fmt.Errorf("%s and %s: %w", id+certificateSuffix, id+keySuffix, err)
	}
	key, canSign := pair.PrivateKey.(crypto.Signer)
	if !canSign || !pair.Leaf.IsCA {
		return authority{}, fmt.Errorf("%s is not the certificate of an authority", id+certificateSuffix)
	}
	signsFrom, err := time.Parse(time.RFC3339, secret.Annotations[signsFromPrefix+id])
	if err != nil {
		signsFrom = time.Time{} // scheduleAuthorities schedules it again
	}
	return authority{id: id, certificate: pair.Leaf, key: key, signsFrom: signsFrom}, nil
}

// newAuthority creates an authority whose certificates are valid for names in these domains alone, and not for IP addresses. Its private
// key is useless for any other name.
func newAuthority(now time.Time, lifetime time.Duration, domains []string) (authority, error) {
	key, err := newKey()
	if err != nil {
		return authority{}, err
	}
	certificate, err := sign(&x509.Certificate{
		Subject:                     pkix.Name{CommonName: "apikey-operator " + now.UTC().Format(time.RFC3339)},
		NotAfter:                    now.Add(lifetime),
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid:       true,
		IsCA:                        true,
		MaxPathLenZero:              true,
		PermittedDNSDomains:         domains,
		ExcludedIPRanges:            allAddresses, // permitted domains do not restrict addresses
		PermittedDNSDomainsCritical: true,
	}, now, nil, key.Public(), key)
	if err != nil {
		return authority{}, err
	}
	return authority{id: fmt.Sprintf("%x", certificate.SerialNumber), certificate: certificate, key: key}, nil
}

// addTo adds the authority to the Secret of the authorities.
func (a authority) addTo(secret *corev1.Secret) error {
	certificatePEM, keyPEM, err := encode(a.certificate, a.key)
	if err != nil {
		return err
	}
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	secret.Data[a.id+certificateSuffix], secret.Data[a.id+keySuffix] = certificatePEM, keyPEM
	return nil
}

func (a authority) removeFrom(secret *corev1.Secret) {
	delete(secret.Data, a.id+certificateSuffix)
	delete(secret.Data, a.id+keySuffix)
	delete(secret.Annotations, signsFromPrefix+a.id)
}

// scheduleIn writes signsFrom to the annotation of the authority.
func (a authority) scheduleIn(secret *corev1.Secret) {
	if secret.Annotations == nil {
		secret.Annotations = map[string]string{}
	}
	secret.Annotations[signsFromPrefix+a.id] = a.signsFrom.Format(time.RFC3339)
}

// issue returns a new serving certificate for these names, and its private key. The certificate expires no later than the authority.
func (a authority) issue(now time.Time, lifetime time.Duration, names []string) (*x509.Certificate, crypto.Signer, error) {
	key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	notAfter := now.Add(lifetime)
	if a.certificate.NotAfter.Before(notAfter) {
		notAfter = a.certificate.NotAfter
	}
	certificate, err := sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: names[0]},
		DNSNames:    names,
		NotAfter:    notAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, now, a.certificate, key.Public(), a.key)
	return certificate, key, err
}

// sign returns the certificate of a template. Without an issuer, the certificate is self-signed.
func sign(
	template *x509.Certificate, now time.Time, issuer *x509.Certificate, key crypto.PublicKey, signer crypto.Signer,
) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial.Add(serial, big.NewInt(1)) // must not be 0
	template.NotBefore = now.Add(-backdating)
	if issuer == nil {
		issuer = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key, signer)
	if err != nil {
		return nil, fmt.Errorf("create a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

func newKey() (*ecdsa.PrivateKey, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

func encode(certificate *x509.Certificate, key crypto.Signer) (certificatePEM, keyPEM []byte, err error) {
	keyPEM, err = keyutil.MarshalPrivateKeyToPEM(key)
	return encodeCertificates(certificate), keyPEM, err
}

func encodeCertificates(certificates ...*x509.Certificate) []byte {
	var encoded bytes.Buffer
	for _, certificate := range certificates {
		encoded.Write(pem.EncodeToMemory(&pem.Block{Type: cert.CertificateBlockType, Bytes: certificate.Raw}))
	}
	return encoded.Bytes()
}
