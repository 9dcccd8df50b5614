// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The dialogs that rotate the token of a key.

import { NoResponseError } from "./api.js";
import { secretOf } from "./keylist.js";
import { formerToken, showToken } from "./token.js";
import { byId, closable, code, onSubmit, setText, showError, showFacts } from "./ui.js";

const none = "0s"; // the overlap that ends the former token at once

/**
 * Sets up the dialog, and returns a function that opens it for a key of the API with its details. rotate rotates the token of a key, or
 * returns nothing when the page needs another API key first. isOwnKey reports whether a key is that of the page. serviceURL returns the URL
 * of the service that the keys are for, if it is known. onRotated is called with the key and its new token, or with an empty token if the
 * controller writes it to a Secret. onDone is called with the key when the user has closed all dialogs, onStale when its state was another
 * one than the page shows.
 */
export function rotateDialog({ rotate, isOwnKey, serviceURL, onRotated, onDone, onStale }) {
  const dialog = byId("rotate");
  const form = byId("rotate-form");
  const problem = dialog.querySelector("[role=alert]");
  const overlap = byId("overlap");
  let key;
  closable(dialog);
  closable(byId("handed-over"));
  overlap.addEventListener("input", describe);

  onSubmit(form, "Rotating…", async () => {
    setText(problem);
    const submitted = key;
    try {
      const rotated = await rotate(key.id, overlap.value, byId("rotate-force-check").checked);
      if (!rotated) return;
      dialog.close();
      const { token = "", ...shown } = rotated;
      onRotated(shown, token);
      if (token) showToken(token, shown, serviceURL(), () => onDone(shown));
      else showHandover(shown, () => onDone(shown));
    } catch (error) {
      if (submitted === key) showError(problem, error, rotateProblem(error));
      if (error.status === 404 || error.status === 409) onStale();
    }
  });

  /** Describes the effect of the chosen overlap. */
  function describe() {
    const ends = overlap.value === none;
    const isOwn = isOwnKey(key);
    byId("overlap-note").textContent = ends ? "Clients that use a former token of this key are refused at once."
      : "Within this time, give the new token to each client that uses the key.";
    setText(byId("rotate-own"), isOwn && ownWarning(key.imported, ends));
    const needsForce = isOwn && ends || !byId("rotate-managed").hidden;
    byId("rotate-force").hidden = !needsForce;
    byId("rotate-force-check").required = needsForce;
    if (!needsForce) byId("rotate-force-check").checked = false;
  }

  return (chosen) => {
    key = chosen;
    form.reset();
    dialog.querySelector("[data-name]").textContent = key.app_name;
    showFacts(byId("rotate-facts"), [["Name", key.name], ["ID", key.id], ["Token", key.hint && `${key.hint}…`]]);
    byId("rotate-meaning").replaceChildren(...meaning(key));
    setText(byId("rotate-managed"), key.hash_declared_by && `${key.hash_declared_by} declares the hash of the token, and would set the ` +
      "former token back: the new one then ends. Replace spec.tokenHash in the manifest of the key instead.");
    setText(problem);
    describe();
    dialog.showModal();
  };
}

/** Returns where the new token will be. */
function meaning(key) {
  const kept = "The ID, the access and the expiry of the key stay the same.";
  if (key.imported) return [`The key gets a new token, which the page shows once. ${kept}`];
  const secret = secretOf(key);
  return ["The controller mints a new token, and writes it to the Secret ", code(secret.name), ", under ", code(secret.key), `. ${kept}`];
}

function ownWarning(imported, ends) {
  if (imported) return ends ? "This page uses this key. If the response is lost, the page needs another key." : "";
  return ends ? "This page uses this key. Enter the new token in the settings afterwards."
    : "This page uses this key. Enter the new token in the settings before the former one ends.";
}

function rotateProblem(error) {
  if (error instanceof NoResponseError) {
    return `${error.message} The key may have a new token, which is lost. Check the key: if it has another token, rotate it again.`;
  }
  return error.status === 404 ? "This key does not exist any more." : error.message;
}

/** Shows in which Secret the new token of a key is, or will be. */
function showHandover(key, onClose) {
  const dialog = byId("handed-over");
  const { secret_name: name, key: entry } = key.handed_to;
  dialog.querySelector("[data-name]").textContent = key.app_name;
  byId("handed-over-where").replaceChildren(key.rotating ? "The controller will write the new token to the Secret "
    : "The controller wrote the new token to the Secret ", code(name), ", under ", code(entry), ".");
  setText(byId("handed-over-former"), key.rotating ? "The former token is accepted until then, and for the time that you chose."
    : formerToken(key));
  dialog.addEventListener("close", onClose, { once: true });
  dialog.showModal();
}
