// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The dialog that deactivates a key.

import { byId, closable, onSubmit, setText } from "./ui.js";

/**
 * Sets up the dialog, and returns a function that opens it for a key. deactivate deactivates a key, or returns nothing when the page needs
 * another API key first. isOwnKey reports whether the error means that the key is that of this page. onDone is called with the new state of
 * the key.
 */
export function deactivateDialog({ deactivate, isOwnKey, onDone }) {
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
      setText(problem, error.message);
      isOwnKey(submitted, error).then((own) => { if (own && submitted === key) requireForce(true); }); // not after another key was chosen
    }
  });

  function requireForce(required) {
    byId("force").hidden = !required;
    byId("force-check").required = required;
    if (required) byId("force-check").focus();
    else byId("force-check").checked = false;
  }

  return (chosen) => {
    key = chosen;
    dialog.querySelector("[data-name]").textContent = key.name;
    setText(problem);
    requireForce(false);
    dialog.showModal();
  };
}
