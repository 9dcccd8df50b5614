// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The dialog that deactivates a key.

import { byId, closable, onSubmit, say } from "./ui.js";

/**
 * Makes the dialog work, and returns what opens it for a key. deactivate deactivates a key, with force or without; it returns nothing when
 * the user is needed elsewhere first. isOwn says whether a refusal is because the key is the one that this page uses. onDone is called with
 * the key as it has become.
 */
export function deactivateDialog({ deactivate, isOwn, onDone }) {
  const dialog = byId("deactivate");
  const problem = dialog.querySelector("[role=alert]");
  let key;
  closable(dialog);

  onSubmit(byId("deactivate-form"), "Deactivating …", async () => {
    say(problem);
    const asked = key;
    try {
      const deactivated = await deactivate(key.id, byId("own-key-too").checked);
      if (!deactivated) return;
      dialog.close();
      onDone(deactivated);
    } catch (error) {
      say(problem, error.message);
      isOwn(asked, error).then((own) => { if (own && asked === key) demandForce(true); }); // the dialog can be left meanwhile
    }
  });

  function demandForce(demanded) {
    byId("own-key").hidden = !demanded;
    byId("own-key-too").required = demanded;
    if (demanded) byId("own-key-too").focus();
    else byId("own-key-too").checked = false;
  }

  return (chosen) => {
    key = chosen;
    dialog.querySelector("[data-name]").textContent = key.name;
    say(problem);
    demandForce(false);
    dialog.showModal();
  };
}
