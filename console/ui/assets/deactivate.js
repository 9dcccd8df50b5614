// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The dialog that deactivates a key.

import { NoResponseError } from "./api.js";
import { unusedDays } from "./keylist.js";
import { fromNow } from "./time.js";
import { byId, closable, onSubmit, setText, showError, showFacts } from "./ui.js";

const effects = {
  active: "Clients that use this key are refused at once.",
  pending: "This key is not issued yet, and never will be.",
  waiting: "This key waits for its app name. It stops waiting, and is never issued.",
  blocked: "This key is not issued, and never will be.",
};

/**
 * Sets up the dialog, and returns a function that opens it for a key. deactivate deactivates a key, or returns nothing when the page needs
 * another API key first. isOwnKey reports whether a key is that of the page. heirOf returns the key that waits for the app name of a key,
 * null if there is none, and undefined if that is not known. onDone is called with the new state of the key, onStale when its state was
 * another one than the page shows.
 */
export function deactivateDialog({ deactivate, isOwnKey, heirOf, onDone, onStale }) {
  const dialog = byId("deactivate");
  const problem = dialog.querySelector("[role=alert]");
  let key;
  closable(dialog);

  onSubmit(byId("deactivate-form"), "Deactivating…", async () => {
    setText(problem);
    const submitted = key;
    try {
      const deactivated = await deactivate(key.id, byId("force-check").checked);
      if (!deactivated) return;
      dialog.close();
      onDone(deactivated);
    } catch (error) {
      if (submitted === key) showError(problem, error, deactivateProblem(error));
      if (error.status === 404 || error.status === 409) onStale();
    }
  });

  return (chosen) => {
    key = chosen;
    const isOwn = isOwnKey(key);
    dialog.querySelector("[data-name]").textContent = key.appName;
    setText(byId("deactivate-use"), useText(key));
    byId("deactivate-use-note").hidden = key.unusedSince === null;
    byId("deactivate-effect").textContent = effects[key.state] ?? effects.active;
    byId("deactivate-heir").textContent = heirText(key, heirOf(key));
    setText(byId("deactivate-managed"), key.managedBy && `${key.managedBy} manages this key: set active: false in its manifest too. A ` +
      "manifest with active: true is refused then.");
    byId("deactivate-bootstrap").hidden = !key.bootstrap;
    showFacts(byId("deactivate-facts"), [["Name", key.name], ["ID", key.id], ["Token", key.hint && `${key.hint}…`]]);
    setText(problem);
    byId("force").hidden = !isOwn;
    byId("force-check").required = isOwn;
    byId("force-check").checked = false;
    dialog.showModal();
  };
}

function useText(key) {
  const { lastUsed, unusedSince } = key;
  if (unusedSince === null) return "";
  const use = lastUsed ? `Last used ${fromNow(lastUsed)}.` : `No use seen since the token was issued ${fromNow(unusedSince)}.`;
  return key.isUnused ? `Not used in the last ${unusedDays} days. ${use}` : use;
}

/** Only an active key holds its app name. */
function heirText({ state }, heir) {
  if (state !== "active") return "";
  if (heir === undefined) return "If another key waits for the app name, the controller then issues that key.";
  return heir ? `The key ${heir.name}, which waits for the app name, is then issued.` : "Another key can then use the app name.";
}

function deactivateProblem(error) {
  if (error instanceof NoResponseError) return `${error.message} The key may have been deactivated: check the list of keys.`;
  if (error.status === 404) return "This key does not exist any more.";
  if (error.status === 409) return "This key has already ended.";
  return error.message;
}
