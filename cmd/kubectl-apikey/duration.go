// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/prometheus/common/model"
)

// duration is the value of a flag such as 12h, 30d or 1y.
type duration struct{ model.Duration }

// Set parses a duration.
func (d *duration) Set(text string) error {
	if _, err := strconv.Atoi(text); err == nil {
		return fmt.Errorf("a unit is missing, such as in %sh or %sd", text, text)
	}
	if err := d.Duration.Set(text); err != nil {
		return errors.New("it is not a duration such as 12h, 30d or 1y")
	}
	return nil
}
