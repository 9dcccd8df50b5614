// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The choice of an expiry in a form.

import { serverNow } from "./api.js";
import { day } from "./time.js";

/**
 * Sets up a list of expiries, with a field for a date. An option is "date", a number of days, or empty for a key that never expires.
 * Returns a function that returns the chosen expiry as the API expects it, or null for never.
 */
export function expiryChoice(list, dateField) {
  const input = dateField.querySelector("input");
  function update() {
    const needed = list.value === "date";
    dateField.hidden = !needed;
    input.required = needed;
    input.disabled = !needed;
    input.min = toLocal(new Date(serverNow()));
  }
  list.addEventListener("input", update); // before listeners of the form read the choice
  list.form.addEventListener("reset", () => setTimeout(update));

  return () => {
    if (list.value === "") return null;
    const date = list.value === "date" ? new Date(input.value) : new Date(serverNow() + list.value * day);
    return `${date.toISOString().slice(0, -5)}Z`;
  };
}

/** Returns a date as the value of a datetime-local input. */
function toLocal(date) {
  return new Date(date - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}
