// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package admission

import "context"

// Send sends one probe, as Start does each minute.
func (p *Probe) Send(ctx context.Context) { p.probe(ctx) }
