// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/internal/logging"
	"squirrel.dev/apikey-operator/internal/usage"
)

const (
	// collectionInterval is the time between two collections, and so how much an authenticator that is lost loses at most, with the minute
	// of its report.
	collectionInterval = time.Minute

	// collectionTimeout is the timeout of the report of one authenticator.
	collectionTimeout = 30 * time.Second

	// connectTimeout and headerTimeout are shorter, so that authenticators that do not respond delay the others less. An authenticator may
	// wait some seconds for the review of the token.
	connectTimeout = 3 * time.Second
	headerTimeout  = 10 * time.Second

	// parallelCollections is the number of authenticators from which reports are read at the same time.
	parallelCollections = 4

	// maxRefusal is how much of a refusal is logged, in bytes.
	maxRefusal = 512
)

// UsageOptions are the options of a UsageCollector.
type UsageOptions struct {
	// Endpoints are the authenticators, such as https://apikey-authenticator-usage:8444. Each address of a host is an authenticator.
	Endpoints []*url.URL
	// CAFile has the CA bundle, in PEM, that verifies the authenticators. If it is empty, the CAs of the system do.
	CAFile string
	// ServerName is the name in the serving certificates of the authenticators.
	ServerName string
	// TokenFile has the ServiceAccount token of the audience usage.Audience.
	TokenFile string
}

// UsageCollector collects the last uses of tokens from all authenticators, each minute. It runs in the leader.
type UsageCollector struct {
	UsageOptions
	reconciler *APIKeyReconciler
	log        *slog.Logger

	mu   sync.Mutex
	last map[string]time.Time // the start of the last collection that succeeded, by authenticator
}

// NewUsageCollector returns a collector for the reconciler.
func NewUsageCollector(reconciler *APIKeyReconciler, options UsageOptions, log *slog.Logger) *UsageCollector {
	return &UsageCollector{
		UsageOptions: options, reconciler: reconciler, log: logging.Limit(log, 3), last: map[string]time.Time{},
	}
}

// Start collects until the context is done.
func (c *UsageCollector) Start(ctx context.Context) error {
	ticker := time.NewTicker(collectionInterval)
	defer ticker.Stop()
	for {
		c.Collect(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Collect collects from each authenticator once. It logs and counts failures.
func (c *UsageCollector) Collect(ctx context.Context) {
	if err := c.reconciler.CheckClock(ctx); err != nil {
		c.fail("Cannot date the last uses of tokens; retrying", err)
		return
	}
	httpClient, err := c.newHTTPClient()
	if err != nil {
		c.fail("Cannot connect to authenticators for the last uses of tokens; retrying", err)
		return
	}
	defer httpClient.CloseIdleConnections()
	collecting := errgroup.Group{}
	collecting.SetLimit(parallelCollections)
	for _, authenticator := range c.authenticators(ctx) {
		collecting.Go(func() error {
			if err := c.collectFrom(ctx, httpClient, authenticator); err != nil && ctx.Err() == nil {
				c.fail("Cannot collect the last uses of tokens from an authenticator; retrying", err, "authenticator", authenticator.Host)
			}
			return nil
		})
	}
	_ = collecting.Wait()
}

func (c *UsageCollector) fail(message string, err error, args ...any) {
	usageCollectionsTotal.WithLabelValues(collectionFailed).Inc()
	c.log.Warn(message, append(args, "err", err)...)
}

// newHTTPClient returns a client with the current CA bundle. The file may be replaced at any time.
func (c *UsageCollector) newHTTPClient() (*http.Client, error) {
	verification := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CAFile != "" {
		bundle, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the CA bundle: %w", err)
		}
		verification.RootCAs = x509.NewCertPool()
		if !verification.RootCAs.AppendCertsFromPEM(bundle) {
			return nil, fmt.Errorf("the CA bundle %s has no certificate", c.CAFile)
		}
	}
	return &http.Client{
		Transport: &http.Transport{ // without a proxy: the token is for the authenticators alone
			TLSClientConfig:       verification,
			DialContext:           (&net.Dialer{Timeout: connectTimeout}).DialContext,
			TLSHandshakeTimeout:   connectTimeout,
			ResponseHeaderTimeout: headerTimeout,
		},
		Timeout: collectionTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("the authenticator redirected the request")
		},
	}, nil
}

// authenticators returns the URL of each authenticator.
func (c *UsageCollector) authenticators(ctx context.Context) (authenticators []url.URL) {
	ctx, cancel := context.WithTimeout(ctx, collectionTimeout)
	defer cancel()
	for _, endpoint := range c.Endpoints {
		addresses, err := net.DefaultResolver.LookupHost(ctx, endpoint.Hostname())
		if err != nil && ctx.Err() == nil {
			c.fail("Cannot find authenticators for the last uses of tokens; retrying", err)
		}
		for _, address := range addresses {
			authenticator := *endpoint
			authenticator.Host = net.JoinHostPort(address, endpoint.Port())
			authenticators = append(authenticators, authenticator)
		}
	}
	return authenticators
}

// collectFrom notes the uses that an authenticator has seen since the last collection.
func (c *UsageCollector) collectFrom(ctx context.Context, httpClient *http.Client, authenticator url.URL) error {
	begun := c.reconciler.Now()
	request, err := c.newRequest(ctx, authenticator, begun)
	if err != nil {
		return err
	}
	response, err := httpClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		refusal, _ := io.ReadAll(io.LimitReader(response.Body, maxRefusal))
		return fmt.Errorf("the authenticator responded %s: %s", response.Status, refusal)
	}
	for use, err := range usage.Read(response.Body) {
		if err != nil {
			return err
		}
		name := client.ObjectKey{Namespace: use.Namespace, Name: use.Name}
		if err := c.reconciler.NoteUse(ctx, name, use.Hash, begun.Add(-use.Age())); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last[authenticator.Host] = begun
	usageCollectionsTotal.WithLabelValues(collectionSucceeded).Inc()
	return nil
}

// newRequest returns the request for the uses since the last collection, with a minute more for each rounding.
func (c *UsageCollector) newRequest(ctx context.Context, authenticator url.URL, now time.Time) (*http.Request, error) {
	token, err := os.ReadFile(c.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("read the ServiceAccount token: %w", err)
	}
	authenticator.Path = usage.Path
	c.mu.Lock()
	last, found := c.last[authenticator.Host]
	c.mu.Unlock()
	if since := now.Sub(last); found && since >= 0 {
		within := uint64(math.Ceil(since.Minutes())) + 1
		authenticator.RawQuery = url.Values{usage.WithinParameter: {strconv.FormatUint(within, 10)}}.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, authenticator.String(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	return request, nil
}
