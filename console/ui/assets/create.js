// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The dialogs that create a key and show its token.

import { NoResponseError, urlOf } from "./api.js";
import { byId, closable, copy, copyManually, onSubmit, resist, setText } from "./ui.js";

const day = 86_400_000; // ms

/**
 * Sets up the create dialog, and returns a function that opens it. The input stays until a key is created. create creates a key, or returns
 * nothing when the page needs another API key first. onCreated is called with the key, without its token, when the user closes the token
 * dialog.
 */
export function createDialog({ create, onCreated }) {
  const dialog = byId("create");
  const form = byId("create-form");
  const problem = dialog.querySelector("[role=alert]");
  closable(dialog);

  byId("expiry").addEventListener("change", updateDate);
  form.addEventListener("reset", () => setTimeout(updateDate));
  for (const id of ["read-access", "write-access"]) byId(id).addEventListener("change", validateAccess);

  onSubmit(form, "Creating…", async () => {
    setText(problem);
    try {
      const created = await create({
        app_name: byId("app-name").value,
        read_access: byId("read-access").checked,
        write_access: byId("write-access").checked,
        expires_at: expiresAt(),
      });
      if (!created) return;
      dialog.close();
      form.reset();
      const { token, ...key } = created;
      showToken(token, key, () => onCreated(key));
    } catch (error) {
      setText(problem, error instanceof NoResponseError
        ? `${error.message} The key may have been created, and its token is lost: check the list of keys.`
        : error.message);
    }
  });

  return () => {
    setText(problem);
    byId("expires-at").min = toLocal(new Date());
    validateAccess();
    dialog.showModal();
  };
}

function updateDate() {
  const needed = byId("expiry").value === "date";
  byId("expiry-date").hidden = !needed;
  byId("expires-at").required = needed;
  byId("expires-at").disabled = !needed;
}

function validateAccess() {
  const valid = byId("read-access").checked || byId("write-access").checked;
  byId("read-access").setCustomValidity(valid ? "" : "Select read access, write access, or both.");
}

function expiresAt() {
  const choice = byId("expiry").value;
  if (choice === "") return null;
  const date = choice === "date" ? new Date(byId("expires-at").value) : new Date(Date.now() + choice * day);
  return `${date.toISOString().slice(0, -5)}Z`;
}

/** Returns a date as the value of a datetime-local input. */
function toLocal(date) {
  return new Date(date - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

/** Shows a token until the user closes the dialog. Nothing but the dialog holds the token, and nothing does afterwards. */
function showToken(token, key, onClose) {
  byId("token").querySelector("[data-name]").textContent = key.app_name;
  byId("token-text").textContent = token;
  byId("token-use").textContent = key.read_access
    ? `curl -H 'X-API-Key: ${token}' ${urlOf("api-keys/count")}`
    : `curl -X POST -H 'X-API-Key: ${token}' https://your-service.example/`;
  byId("token").addEventListener("close", onClose, { once: true });
  byId("token").showModal();
}

/** Sets up the token dialog. It closes once the user has copied the token, or confirms that it is not copied. */
export function tokenDialog() {
  const dialog = byId("token");
  const close = byId("token-close");
  const status = byId("token-status");
  const warning = dialog.querySelector("[role=alert]");
  let copied = false;

  function warn(text) {
    setText(warning, text);
    close.textContent = text ? "Close without copying" : "Close";
    close.classList.toggle("primary", !text);
  }

  function mayClose() {
    if (!copied) warn("The token has not been copied and cannot be shown again.");
    return copied;
  }

  function setCopied() {
    copied = true;
    warn();
  }

  for (const [button, source] of [["copy-token", "token-text"], ["copy-use", "token-use"]]) {
    byId(button).addEventListener("click", async () => {
      const done = await copy(byId(source));
      if (done) setCopied();
      status.textContent = done ? "Copied." : copyManually;
    });
  }
  dialog.addEventListener("copy", () => { if (getSelection().toString().includes(byId("token-text").textContent)) setCopied(); });
  resist(dialog, () => !mayClose());
  close.addEventListener("click", () => { if (!warning.hidden || mayClose()) dialog.close(); });
  addEventListener("beforeunload", (event) => { if (dialog.open && !copied) event.preventDefault(); });
  dialog.addEventListener("close", () => {
    copied = false;
    warn();
    for (const id of ["token-text", "token-use", "token-status"]) byId(id).textContent = "";
  });
}
