// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// report has the measurements of the tests, in Markdown.
type report struct {
	mu       sync.Mutex
	sections []string
}

// add adds a section.
func (r *report) add(title string, paragraphs ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sections = append(r.sections, "## "+title+"\n\n"+strings.Join(paragraphs, "\n\n")+"\n")
}

// write writes the report to a file and to the standard output.
func (r *report) write(file string) error {
	content := "# Measurements of `make e2e`\n\n" + strings.Join(r.sections, "\n")
	fmt.Printf("\n%s\n", content)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(content), 0o644)
}

// table returns a table in Markdown.
func table(header []string, rows [][]string) string {
	rule := make([]string, len(header))
	for i := range rule {
		rule[i] = "---"
	}
	var text strings.Builder
	for _, row := range append([][]string{header, rule}, rows...) {
		text.WriteString("| " + strings.Join(row, " | ") + " |\n")
	}
	return strings.TrimSpace(text.String())
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()*1000) }
