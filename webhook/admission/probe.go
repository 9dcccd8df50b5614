// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

const (
	probeInterval = time.Minute
	probeTimeout  = 10 * time.Second

	// failuresBeforeWarning leaves time for the first certificate, and for the endpoints of a restarted controller.
	failuresBeforeWarning = 3

	// probeName is the name of the APIKey of a probe. It is never stored.
	probeName = "apikey-operator-webhook-probe"
)

// Probe finds out whether the API server calls the admission webhook. The webhook's failure policy is Ignore, so nothing else shows that
// the API server cannot connect to it, except that each write of an APIKey takes as long as the webhook's timeout.
//
// A probe is a dry run that creates an APIKey for which the webhook returns a warning. It stores nothing. Without that warning in the
// response, the API server did not call the webhook of any controller.
type Probe struct {
	client    client.Client
	warnings  *warnings
	namespace string
	log       *slog.Logger
	called    prometheus.Gauge
	failures  int // without a success in between
}

// NewProbe returns a Probe that creates its APIKeys in a namespace, and registers its metric.
func NewProbe(
	config *rest.Config, scheme *runtime.Scheme, namespace string, log *slog.Logger, registry prometheus.Registerer,
) (*Probe, error) {
	p := &Probe{
		warnings:  &warnings{},
		namespace: namespace,
		log:       log,
		called: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "apikey_admission_webhook_called",
			Help: "1 if the API server called the admission webhook for the last probe of the leading controller, 0 if it did not; NaN if unknown.",
		}),
	}
	p.called.Set(math.NaN())
	config = rest.CopyConfig(config)
	config.WarningHandler = p.warnings
	var err error
	if p.client, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return nil, fmt.Errorf("create a client for probes of the webhook: %w", err)
	}
	registry.MustRegister(p.called)
	return p, nil
}

// NeedLeaderElection makes the manager start the Probe in the leader alone.
func (*Probe) NeedLeaderElection() bool { return true }

// Start sends a probe each minute until the context is done.
func (p *Probe) Start(ctx context.Context) error {
	ticker := time.NewTicker(probeInterval)
	defer ticker.Stop()
	for {
		p.probe(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// probe sends a probe, and logs a change of its result.
func (p *Probe) probe(ctx context.Context) {
	called, took, err := p.send(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil: // such as a quota, or an outage of the API: it is not known whether the webhook was called
		p.called.Set(math.NaN())
		p.log.Debug("Cannot probe the admission webhook", "reason", err.Error())
	case called:
		if p.failures >= failuresBeforeWarning {
			p.log.Info("The API server calls the admission webhook again")
		}
		p.failures = 0
		p.called.Set(1)
	default:
		p.failures++
		p.called.Set(0)
		if p.failures == failuresBeforeWarning {
			p.log.Warn("The API server cannot call the admission webhook, so each creation and change of an APIKey takes longer, and warnings are "+
				"missing: allow connections from the API server to the port of --webhook-listen-address, or install without the webhook",
				"creationTook", took.Round(time.Millisecond).String())
		}
	}
}

// send creates an APIKey that has expired, as a dry run, and reports whether the webhook warned of that.
func (p *Probe) send(ctx context.Context) (called bool, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: probeName},
		Spec:       v1alpha1.APIKeySpec{AppName: probeName, ReadAccess: true, ExpiresAt: &metav1.Time{Time: time.Unix(0, 0)}},
	}
	p.warnings.reset()
	start := time.Now()
	err = p.client.Create(ctx, key, client.DryRunAll)
	return p.warnings.contain(warningExpired), time.Since(start), err
}

// warnings are those of the last response.
type warnings struct {
	mutex sync.Mutex
	texts []string
}

// HandleWarningHeader implements rest.WarningHandler.
func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.texts = append(w.texts, text)
}

func (w *warnings) reset() {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.texts = nil
}

func (w *warnings) contain(text string) bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return slices.Contains(w.texts, text)
}
