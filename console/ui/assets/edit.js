// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The dialog that changes the access and the expiry of a key.

import { NoResponseError } from "./api.js";
import { expiryChoice } from "./expiry.js";
import { timeElement } from "./time.js";
import { byId, closable, messageOf, onSubmit, setText, showError } from "./ui.js";

const unchanged = "unchanged"; // option of the expiry

/**
 * Sets up the dialog, and returns a function that opens it for a key of the API. update changes a key, or returns nothing when the page
 * needs another API key first. isOwnKey reports whether a key is that of the page. onDone is called with the new state of the key, onStale
 * when its state was another one than the page shows.
 */
export function editDialog({ update, isOwnKey, onDone, onStale }) {
  const dialog = byId("edit");
  const form = byId("edit-form");
  const problem = dialog.querySelector("[role=alert]");
  const expiry = byId("edit-expiry");
  const chosenExpiry = expiryChoice(expiry, byId("edit-expiry-date"));
  let key;
  closable(dialog);

  form.addEventListener("input", () => {
    const hasAccess = byId("edit-read").checked || byId("edit-write").checked;
    byId("edit-read").setCustomValidity(hasAccess ? "" : "Select read access, write access, or both.");
    requireForce(isOwnKey(key) && isLess(changes()));
  });

  onSubmit(form, "Saving…", async () => {
    setText(problem);
    const changed = changes();
    if (Object.keys(changed).length === 0) {
      dialog.close();
      return;
    }
    try {
      const updated = await update(key.id, changed, byId("edit-force-check").checked);
      if (!updated) return;
      dialog.close();
      onDone(updated);
    } catch (error) {
      showError(problem, error, editProblem(error));
      if (error.status === 404 || error.status === 409) onStale();
    }
  });

  function changes() {
    const changed = {};
    if (byId("edit-read").checked !== key.read_access) changed.read_access = byId("edit-read").checked;
    if (byId("edit-write").checked !== key.write_access) changed.write_access = byId("edit-write").checked;
    if (expiry.value !== unchanged && byId("edit-expires-at").validity.valid) changed.expires_at = chosenExpiry();
    return changed;
  }

  /** Reports whether changes take access or time from the key. */
  function isLess({ read_access, write_access, expires_at }) {
    const sooner = expires_at && !(Date.parse(expires_at) >= (key.expires_at ? Date.parse(key.expires_at) : Infinity));
    return read_access === false || write_access === false || Boolean(sooner);
  }

  function requireForce(required) {
    byId("edit-force").hidden = !required;
    byId("edit-force-check").required = required;
    if (!required) byId("edit-force-check").checked = false;
  }

  return (chosen) => {
    key = chosen;
    form.reset();
    dialog.querySelector("[data-name]").textContent = key.app_name;
    byId("edit-read").checked = key.read_access;
    byId("edit-write").checked = key.write_access;
    byId("edit-read").setCustomValidity("");
    const now = key.expires_at ? timeElement(Date.parse(key.expires_at)).textContent : "never";
    setText(byId("edit-managed"),
      key.managed_by && `${key.managed_by} manages this key, and may revert the change: change its manifest too.`);
    expiry.options[0].text = `No change (${now})`;
    setText(problem);
    requireForce(false);
    dialog.showModal();
  };
}

function editProblem(error) {
  if (error instanceof NoResponseError) return `${error.message} The key may have been changed: check it.`;
  if (error.status === 404) return "This key does not exist any more.";
  if (error.status === 409) return "This key has ended, so it cannot be changed.";
  return messageOf(error);
}
