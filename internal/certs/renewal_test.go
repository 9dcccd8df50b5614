// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/x509"
	"net"
	"testing"
	"time"
)

const day = 24 * time.Hour

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// createdAfter returns an authority with its times after the start. If signsFrom is 0, it is not scheduled.
func createdAfter(id string, created, lifetime, signsFrom time.Duration) authority {
	certificate := &x509.Certificate{NotBefore: start.Add(created - backdating), NotAfter: start.Add(created + lifetime)}
	a := authority{id: id, certificate: certificate}
	if signsFrom != 0 {
		a.signsFrom = start.Add(signsFrom)
	}
	return a
}

// permitting returns the authority with these permitted domains.
func permitting(a authority, domains ...string) authority {
	certificate := *a.certificate
	certificate.PermittedDNSDomains = domains
	a.certificate = &certificate
	return a
}

func TestNeedsSuccessor(t *testing.T) {
	year := createdAfter("year", 0, 360*day, 0)
	for _, test := range []struct {
		rule        string
		authorities []authority
		at          time.Duration
		lifetime    time.Duration
		want        bool
	}{
		{"without any authority", nil, 0, 360 * day, true},
		{"not of a new authority", []authority{year}, 0, 360 * day, false},
		{"not before two thirds have passed", []authority{year}, 240*day - time.Second, 360 * day, false},
		{"when two thirds have passed", []authority{year}, 240 * day, 360 * day, true},
		{"not while the newest authority is young", []authority{year, createdAfter("newer", 240*day, 360*day, 0)}, 241 * day, 360 * day, false},
		{"at once after the configured lifetime was lowered", []authority{year}, 30 * day, 30 * day, true},
		{"not before two thirds of the lowered lifetime have passed", []authority{year}, 19 * day, 30 * day, false},
		{"by the lifetime of the authority after the configured one was raised", []authority{createdAfter("month", 0, 30*day, 0)}, 20 * day, 360 * day, true},
		{"not before two thirds of the authority's lifetime have passed", []authority{createdAfter("month", 0, 30*day, 0)}, 19 * day, 360 * day, false},
		{"at once when a server is added", []authority{permitting(year, "authenticator")}, 0, 360 * day, true},
		{"not after a server was removed", []authority{permitting(year, "authenticator", "console")}, 0, 360 * day, false},
		{"not while an authority is valid in the future, because a clock was ahead", []authority{createdAfter("later", day, 360*day, 0)}, 0, 360 * day, false},
	} {
		t.Run(test.rule, func(t *testing.T) {
			if got := needsSuccessor(test.authorities, start.Add(test.at), test.lifetime, []string{"console"}); got != test.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestSigningDelay(t *testing.T) {
	for _, test := range []struct {
		rule                      string
		predecessor, at, lifetime time.Duration
		want                      time.Duration
	}{
		{"a twelfth of the lifetime", 360 * day, 240 * day, 360 * day, 30 * day},
		{"a twelfth of a lowered lifetime", 360 * day, 8 * day, 12 * day, day},
		{"a twelfth of the predecessor's lifetime after it was raised", 12 * day, 8 * day, 360 * day, day},
		{"a twelfth while the predecessor lives long enough", 360 * day, 315 * day, 360 * day, 30 * day},
		{"two thirds of the predecessor's remaining time", 360 * day, 330 * day, 360 * day, 20 * day},
	} {
		t.Run(test.rule, func(t *testing.T) {
			if got := signingDelay(createdAfter("predecessor", 0, test.predecessor, 0), test.lifetime, start.Add(test.at)); got != test.want {
				t.Errorf("the delay is %s, want %s", got, test.want)
			}
		})
	}
}

func TestSelectSigner(t *testing.T) {
	first, second := createdAfter("first", 0, 360*day, time.Second), createdAfter("second", 240*day, 360*day, 270*day)
	for _, test := range []struct {
		rule        string
		authorities []authority
		at          time.Duration
		want        string
	}{
		{"none of none", nil, 0, ""},
		{"the only one", []authority{first}, day, "first"},
		{"the old one before the scheduled time of the new one", []authority{first, second}, 270*day - time.Second, "first"},
		{"the new one at its scheduled time", []authority{first, second}, 270 * day, "second"},
		{"the only one before its scheduled time", []authority{second}, 250 * day, "second"},
		{"none that is not scheduled", []authority{createdAfter("third", 240*day, 360*day, 0)}, 250 * day, ""},
		{"the first that permits a new server", []authority{
			permitting(first, "authenticator"), permitting(second, "console"), createdAfter("third", 250*day, 360*day, 280*day),
		}, 260 * day, "second"},
		{"none that has expired", []authority{first}, 360 * day, ""},
		{"the old one while the new one is not scheduled", []authority{first, createdAfter("third", 240*day, 360*day, 0)}, 300 * day, "first"},
		{"the middle one before the scheduled time of the newest", []authority{first, second, createdAfter("third", 271*day, 360*day, 300*day)}, 280 * day, "second"},
	} {
		t.Run(test.rule, func(t *testing.T) {
			if got, found := selectSigner(test.authorities, start.Add(test.at), []string{"console"}); got.id != test.want || found != (test.want != "") {
				t.Errorf("the signer is %q (found: %t), want %q", got.id, found, test.want)
			}
		})
	}
}

func create(t *testing.T, now time.Time, lifetime time.Duration) authority {
	t.Helper()
	a, err := newAuthority(now, lifetime, []string{"apikey-system.svc"})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestReissueReason(t *testing.T) {
	ours, another := create(t, start, 360*day), create(t, start, 360*day)
	names := []string{"apikey-authenticator.apikey-system.svc"}
	certificate, key, err := ours.issue(start, 30*day, names)
	if err != nil {
		t.Fatal(err)
	}
	goodCertificate, goodKey, err := encode(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	_, anotherKey, err := another.issue(start, 30*day, names)
	if err != nil {
		t.Fatal(err)
	}
	_, foreignKey, err := encode(certificate, anotherKey)
	if err != nil {
		t.Fatal(err)
	}

	for _, test := range []struct {
		rule             string
		certificate, key []byte
		signer           authority
		names            []string
		at               time.Duration
		want             string
	}{
		{"good", goodCertificate, goodKey, ours, names, 20*day - time.Second, ""},
		{"missing", nil, goodKey, ours, names, 0, "the Secret holds none"},
		{"damaged", []byte("-----BEGIN"), goodKey, ours, names, 0,
			"the certificate and key are unusable: tls: failed to find any PEM data in certificate input"},
		{"without its key", goodCertificate, nil, ours, names, 0, "the certificate and key are unusable: tls: failed to find any PEM data in key input"},
		{"with another key", goodCertificate, foreignKey, ours, names, 0,
			"the certificate and key are unusable: tls: private key does not match public key"},
		{"for other names", goodCertificate, goodKey, ours, append(names, "more"), 0, "the DNS names have changed"},
		{"of another authority", goodCertificate, goodKey, another, names, 0, "another authority signs now"},
		{"not valid yet", goodCertificate, goodKey, ours, names, -backdating - time.Second,
			"the certificate is not valid yet: the clock that dated it was ahead"},
		{"valid for a clock that is slightly behind", goodCertificate, goodKey, ours, names, -backdating, ""},
		{"old", goodCertificate, goodKey, ours, names, 20 * day, "two thirds of the lifetime have passed"},
	} {
		t.Run(test.rule, func(t *testing.T) {
			if got := reissueReason(test.certificate, test.key, test.signer, test.names, start.Add(test.at)); got != test.want {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestIssue_CertificateExpiresWithItsAuthority(t *testing.T) {
	ours := create(t, start, 10*day)
	certificate, _, err := ours.issue(start.Add(9*day), 30*day, []string{"apikey-authenticator.apikey-system.svc"})
	if err != nil {
		t.Fatal(err)
	}
	if want := start.Add(10 * day); !certificate.NotAfter.Equal(want) {
		t.Errorf("the certificate expires at %s, want %s", certificate.NotAfter, want)
	}
}

func TestMinLifetime_LeavesTimeForTheSlowestPod(t *testing.T) {
	const kubelet, reload = 90 * time.Second, 10 * time.Second
	if left := propagation(MinLifetime) / 3; left < interval+kubelet+reload {
		t.Errorf("a certificate is renewed %s before it expires, but served only after %s", left, interval+kubelet+reload)
	}
}

func TestNewAuthority_PermitsOnlyTheNamesOfTheServers(t *testing.T) {
	rotator := &Rotator{Namespace: "dev", WebhookConfiguration: "w", ConsoleNamespaces: []string{"dev", "app"}} // also top-level domains
	ours, err := newAuthority(start, 10*day, rotator.permittedDomains())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ours.certificate)
	type test struct {
		name      string
		addresses []net.IP
		good      bool
	}
	tests := []test{
		{"apikey-authenticator.dev.svc", []net.IP{net.IPv4(192, 0, 2, 1)}, false},
		{"apikey-authenticator.dev.svc", []net.IP{net.ParseIP("2001:db8::1")}, false},
	}
	for _, service := range []string{"apikey-authenticator", "apikey-controller-webhook"} {
		for _, suffix := range []string{"", ".dev", ".dev.svc", ".dev.svc.cluster.local"} {
			tests = append(tests, test{service + suffix, nil, true})
		}
	}
	for _, name := range []string{"apikey-console", "apikey-console.dev.svc", "apikey-console.app.svc.cluster.local", "localhost"} {
		tests = append(tests, test{name, nil, true})
	}
	for _, name := range []string{
		"apikey-console.shop.svc", "apikey-authenticator.app.svc", "app.svc", "bank.example.com", "dev", "bank.dev", "dev.svc", "bank.dev.svc", "dev.svc.cluster.local", "bank.dev.svc.cluster.local",
		"apikey-authenticator.shop.svc", "no-apikey-authenticator.dev", "svc", "cluster.local",
	} {
		tests = append(tests, test{name, nil, false})
	}
	for _, test := range tests {
		key, err := newKey()
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := sign(&x509.Certificate{
			DNSNames: []string{test.name}, IPAddresses: test.addresses, NotAfter: start.Add(day),
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}, start, ours.certificate, key.Public(), ours.key)
		if err != nil {
			t.Fatal(err)
		}
		_, err = certificate.Verify(x509.VerifyOptions{DNSName: test.name, Roots: roots, CurrentTime: start})
		if (err == nil) != test.good {
			t.Errorf("%s %v: %v", test.name, test.addresses, err)
		}
	}
}
