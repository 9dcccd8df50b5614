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

// aged returns an authority that was minted so long after the start, is good for so long, and signs from so long after the start; 0 is
// not scheduled.
func aged(id string, minted, lifetime, signsFrom time.Duration) authority {
	certificate := &x509.Certificate{NotBefore: start.Add(minted - backdating), NotAfter: start.Add(minted + lifetime)}
	a := authority{id: id, certificate: certificate}
	if signsFrom != 0 {
		a.signsFrom = start.Add(signsFrom)
	}
	return a
}

func TestASuccessorIsMintedWhenAThirdOfTheTimeIsLeft(t *testing.T) {
	year := aged("year", 0, 360*day, 0)
	for _, test := range []struct {
		rule        string
		authorities []authority
		at          time.Duration
		lifetime    time.Duration
		want        bool
	}{
		{"the first", nil, 0, 360 * day, true},
		{"of a new one, none", []authority{year}, 0, 360 * day, false},
		{"none before two thirds are over", []authority{year}, 240*day - time.Second, 360 * day, false},
		{"when two thirds are over", []authority{year}, 240 * day, 360 * day, true},
		{"the newest counts", []authority{year, aged("newer", 240*day, 360*day, 0)}, 241 * day, 360 * day, false},
		{"at once when a shorter lifetime is wanted", []authority{year}, 30 * day, 30 * day, true},
		{"not when less than two thirds of the shorter are over", []authority{year}, 19 * day, 30 * day, false},
		{"by its own time when a longer lifetime is wanted", []authority{aged("month", 0, 30*day, 0)}, 20 * day, 360 * day, true},
		{"not before its own time is", []authority{aged("month", 0, 30*day, 0)}, 19 * day, 360 * day, false},
		{"none while a clock that was ahead has minted one for later", []authority{aged("later", day, 360*day, 0)}, 0, 360 * day, false},
	} {
		t.Run(test.rule, func(t *testing.T) {
			if got := needSuccessor(test.authorities, start.Add(test.at), test.lifetime); got != test.want {
				t.Errorf("needed: %t", got)
			}
		})
	}
}

func TestASuccessorWaitsUntilEverybodyHasTheBundle(t *testing.T) {
	for _, test := range []struct {
		rule                      string
		predecessor, at, lifetime time.Duration
		want                      time.Duration
	}{
		{"a twelfth of the lifetime", 360 * day, 240 * day, 360 * day, 30 * day},
		{"of one that was shortened", 360 * day, 8 * day, 12 * day, day},
		{"as the shorter-lived predecessor promised, of one that was raised", 12 * day, 8 * day, 360 * day, day},
		{"as long while that is not more than two thirds of what the predecessor has left", 360 * day, 315 * day, 360 * day, 30 * day},
		{"no longer than that", 360 * day, 330 * day, 360 * day, 20 * day},
	} {
		t.Run(test.rule, func(t *testing.T) {
			if got := waitOf(aged("predecessor", 0, test.predecessor, 0), test.lifetime, start.Add(test.at)); got != test.want {
				t.Errorf("it waits %s, want %s", got, test.want)
			}
		})
	}
}

func TestTheNewestThatMaySigns(t *testing.T) {
	first, second := aged("first", 0, 360*day, time.Second), aged("second", 240*day, 360*day, 270*day)
	for _, test := range []struct {
		rule        string
		authorities []authority
		at          time.Duration
		want        string
	}{
		{"nobody", nil, 0, ""},
		{"the only one", []authority{first}, day, "first"},
		{"the old one while the new one waits", []authority{first, second}, 270*day - time.Second, "first"},
		{"the new one when it has waited", []authority{first, second}, 270 * day, "second"},
		{"none while the only one that is known waits", []authority{second}, 250 * day, ""},
		{"none that has ended", []authority{first}, 360 * day, ""},
		{"the old one while the new one is not scheduled", []authority{first, aged("third", 240*day, 360*day, 0)}, 300 * day, "first"},
		{"one between, while the newest waits", []authority{first, second, aged("third", 271*day, 360*day, 300*day)}, 280 * day, "second"},
	} {
		t.Run(test.rule, func(t *testing.T) {
			if got, found := signerOf(test.authorities, start.Add(test.at)); got.id != test.want || found != (test.want != "") {
				t.Errorf("%q signs: %t", got.id, found)
			}
		})
	}
}

func mint(t *testing.T, now time.Time, lifetime time.Duration) authority {
	t.Helper()
	a, err := mintAuthority(now, lifetime, []string{"apikey-system.svc"})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAServingCertificateIsReplacedForAReason(t *testing.T) {
	ours, another := mint(t, start, 360*day), mint(t, start, 360*day)
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
	_, strangeKey, err := encode(certificate, anotherKey)
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
		{"a good one is kept", goodCertificate, goodKey, ours, names, 20*day - time.Second, ""},
		{"missing", nil, goodKey, ours, names, 0, "there is none"},
		{"damaged", []byte("-----BEGIN"), goodKey, ours, names, 0,
			"what is there cannot be used: tls: failed to find any PEM data in certificate input"},
		{"without its key", goodCertificate, nil, ours, names, 0, "what is there cannot be used: tls: failed to find any PEM data in key input"},
		{"with another key", goodCertificate, strangeKey, ours, names, 0,
			"what is there cannot be used: tls: private key does not match public key"},
		{"for other names", goodCertificate, goodKey, ours, append(names, "more"), 0, "it is for other names"},
		{"of another authority", goodCertificate, goodKey, another, names, 0, "another authority signs"},
		{"not good yet", goodCertificate, goodKey, ours, names, -backdating - time.Second,
			"it is not good yet: it was made by a clock that was ahead"},
		{"as good for a clock that is a little slow", goodCertificate, goodKey, ours, names, -backdating, ""},
		{"worn", goodCertificate, goodKey, ours, names, 20 * day, "two thirds of its time are over"},
	} {
		t.Run(test.rule, func(t *testing.T) {
			if got := whyIssue(test.certificate, test.key, test.signer, test.names, start.Add(test.at)); got != test.want {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestNoServingCertificateOutlivesItsAuthority(t *testing.T) {
	ours := mint(t, start, 10*day)
	certificate, _, err := ours.issue(start.Add(9*day), 30*day, []string{"apikey-authenticator.apikey-system.svc"})
	if err != nil {
		t.Fatal(err)
	}
	if want := start.Add(10 * day); !certificate.NotAfter.Equal(want) {
		t.Errorf("it ends at %s, want %s", certificate.NotAfter, want)
	}
}

// The shortest lifetime leaves time enough for the slowest pod.
func TestARenewedCertificateReachesPodsInTime(t *testing.T) {
	const kubelet, reading = 90 * time.Second, 10 * time.Second
	if left := propagation(MinLifetime) / 3; left < interval+kubelet+reading {
		t.Errorf("a certificate is renewed %s before it ends, and served %s later", left, interval+kubelet+reading)
	}
}

func TestAnAuthoritySignsForTheNamesThatAreServedAlone(t *testing.T) {
	keeper := &Rotator{Namespace: "dev"} // a top-level domain, too
	ours, err := mintAuthority(start, 10*day, keeper.domains())
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
	for _, name := range []string{
		"bank.example.com", "dev", "bank.dev", "dev.svc", "bank.dev.svc", "dev.svc.cluster.local", "bank.dev.svc.cluster.local",
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
