// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/util/cert"
)

var expiration = prometheus.NewGaugeVec(prometheus.GaugeOpts{
	Name: "apikey_certificate_expiration_timestamp_seconds",
	Help: "When the newest certificate authority and the serving certificates expire, in seconds since the epoch.",
}, []string{"certificate"})

// RegisterMetrics registers the metrics of this package.
func RegisterMetrics(registry prometheus.Registerer) {
	registry.MustRegister(expiration)
}

func recordExpiration(name string, certificatePEM []byte) {
	certificates, err := cert.ParseCertsPEM(certificatePEM)
	if err != nil {
		expiration.DeleteLabelValues(name)
		return
	}
	expiration.WithLabelValues(name).Set(float64(certificates[0].NotAfter.Unix()))
}
