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
	nameless      = "key" // the slug of an app name without Latin letters and digits
	randomLength  = 8     // of 5 bits each
)

var (
	marks         = regexp.MustCompile(`\pM`)
	notForObjects = regexp.MustCompile(`[^a-z0-9]+`)
)

// newName returns a metadata.name for a key of this app that no other object has: "frontend-app-x7k2mq4a" for "Frontend App".
func newName(appName string) string {
	return slug(appName) + "-" + strings.ToLower(rand.Text()[:randomLength])
}

// slug is what of an app name, written without accents, can be part of an object's name.
func slug(appName string) string {
	plain := strings.ToLower(marks.ReplaceAllString(norm.NFKD.String(appName), ""))
	slug := strings.Trim(notForObjects.ReplaceAllString(plain, "-"), "-")
	slug = strings.TrimRight(slug[:min(len(slug), maxSlugLength)], "-")
	if slug == "" {
		return nameless
	}
	return slug
}
