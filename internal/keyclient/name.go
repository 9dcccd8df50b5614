// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package keyclient

import (
	"crypto/rand"
	"regexp"
	"strings"

	"golang.org/x/text/unicode/norm"
)

const (
	maxSlugLength = 40
	defaultSlug   = "key" // for an app name without Latin letters and digits
	randomLength  = 8     // of 5 bits each
)

var (
	marks   = regexp.MustCompile(`\pM`)
	invalid = regexp.MustCompile(`[^a-z0-9]+`)
)

// newName returns a unique metadata.name for a key of an app, such as "frontend-app-x7k2mq4a" for "Frontend App".
func newName(appName string) string {
	return slug(appName) + "-" + strings.ToLower(rand.Text()[:randomLength])
}

// slug returns the characters of an app name, without accents, that the name of an object may contain.
func slug(appName string) string {
	plain := strings.ToLower(marks.ReplaceAllString(norm.NFKD.String(appName), ""))
	slug := strings.Trim(invalid.ReplaceAllString(plain, "-"), "-")
	slug = strings.TrimRight(slug[:min(len(slug), maxSlugLength)], "-")
	if slug == "" {
		return defaultSlug
	}
	return slug
}
