// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The dialog that creates a key.

import { NoResponseError } from "./api.js";
import { expiryChoice } from "./expiry.js";
import { entryName, readEntry, writeEntry } from "./storage.js";
import { timeElement } from "./time.js";
import { showToken } from "./token.js";
import { byId, closable, messageOf, onSubmit, setText, showError } from "./ui.js";

const expiryEntry = entryName("apikey_operator_expiry"); // the choice of the last key

/**
 * Sets up the create dialog, and returns a function that opens it. The input stays until a key is created. create creates a key, or returns
 * nothing when the page needs another API key first. onCreated is called with the key, without its token, when the user closes the token
 * dialog. serviceURL returns the URL of the service that the keys are for, if it is known.
 */
export function createDialog({ create, onCreated, serviceURL }) {
  const dialog = byId("create");
  const form = byId("create-form");
  const problem = dialog.querySelector("[role=alert]");
  const chosenExpiry = expiryChoice(byId("expiry"), byId("expiry-date"));
  closable(dialog);

  byId("expiry").addEventListener("change", describeExpiry);
  for (const id of ["read-access", "write-access"]) byId(id).addEventListener("change", validateAccess);
  proposeExpiry();

  onSubmit(form, "Creating…", async () => {
    setText(problem);
    keepExpiry();
    try {
      const created = await create({
        app_name: byId("app-name").value.trim(),
        read_access: byId("read-access").checked,
        write_access: byId("write-access").checked,
        expires_at: chosenExpiry(),
      });
      if (!created) return;
      dialog.close();
      form.reset();
      proposeExpiry();
      const { token, ...key } = created;
      showToken(token, key, serviceURL(), () => onCreated(key));
    } catch (error) {
      showError(problem, error, createProblem(error));
    }
  });

  function describeExpiry() {
    const choice = byId("expiry").value;
    const expiry = choice === "date" ? null : chosenExpiry();
    byId("expiry-note").textContent = choice === "date" ? ""
      : expiry ? `The key is valid until ${timeElement(Date.parse(expiry)).textContent}, in your time zone.`
      : "The key is valid until it is deactivated.";
  }

  return () => {
    setText(problem);
    describeExpiry();
    validateAccess();
    dialog.showModal();
  };
}

function createProblem(error) {
  if (error instanceof NoResponseError) {
    return `${error.message} The key may have been created, and its token is lost: check the list of keys.`;
  }
  return messageOf(error);
}

/** Selects the choice of the last key. A date is not proposed again. */
function proposeExpiry() {
  const kept = readEntry("localStorage", expiryEntry);
  if ([...byId("expiry").options].some(({ value }) => value === kept)) byId("expiry").value = kept;
}

function keepExpiry() {
  const choice = byId("expiry").value;
  if (choice !== "date") writeEntry("localStorage", expiryEntry, choice);
}

function validateAccess() {
  const valid = byId("read-access").checked || byId("write-access").checked;
  byId("read-access").setCustomValidity(valid ? "" : "Select read access, write access, or both.");
}
