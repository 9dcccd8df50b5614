// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The keyboard shortcuts, and the dialog that lists them.

import { entryName, readEntry, writeEntry } from "./storage.js";
import { byId, closable } from "./ui.js";

const entry = entryName("apikey_operator_shortcuts"); // "off" when the user has turned them off

/** Sets up the shortcuts: a function for each key. It returns false if the key means nothing in the visible view. */
export function setUpShortcuts(actions) {
  const dialog = byId("shortcuts");
  const enabled = byId("shortcuts-enabled");
  closable(dialog);
  enabled.checked = readEntry("localStorage", entry) !== "off";
  enabled.addEventListener("change", () => writeEntry("localStorage", entry, enabled.checked ? null : "off"));
  byId("show-shortcuts").addEventListener("click", () => dialog.showModal());

  const all = { ...actions, "?": () => dialog.showModal() };
  addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (!Object.hasOwn(all, key)) return;
    const isCharacter = key.length === 1; // screen readers and speech input can send characters by mistake
    const elsewhere = event.defaultPrevented || event.isComposing || event.ctrlKey || event.metaKey || event.altKey
      || event.shiftKey && !isCharacter || target.closest("input, select, textarea, [contenteditable]")
      || document.querySelector("dialog[open]");
    if (elsewhere || isCharacter && !enabled.checked) return;
    if (all[key]() !== false) event.preventDefault();
  });
}
