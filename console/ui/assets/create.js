// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The dialogs that create a key and show its token.

import { address, Unanswered } from "./api.js";
import { byId, closable, copy, copyYourself, onSubmit, resist, say } from "./ui.js";

const day = 86_400_000; // ms

/**
 * Makes the dialog for a new key work, and returns what opens it. What was entered stays until a key was created of it. create creates a
 * key; it returns nothing when the user is needed elsewhere first. onCreated is called with the key, without its token, when the token has
 * been seen.
 */
export function newKeyDialog({ create, onCreated }) {
  const dialog = byId("create");
  const form = byId("create-form");
  const problem = dialog.querySelector("[role=alert]");
  closable(dialog);

  byId("expiry").addEventListener("change", showDate);
  form.addEventListener("reset", () => setTimeout(showDate));
  for (const id of ["read-access", "write-access"]) byId(id).addEventListener("change", requireAccess);

  onSubmit(form, "Creating …", async () => {
    say(problem);
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
      say(problem, error instanceof Unanswered
        ? `${error.message} The key may have been created all the same, without anybody knowing its token: look for it in the list.`
        : error.message);
    }
  });

  return () => {
    say(problem);
    byId("expires-at").min = local(new Date());
    requireAccess();
    dialog.showModal();
  };
}

function showDate() {
  const wanted = byId("expiry").value === "date";
  byId("expiry-date").hidden = !wanted;
  byId("expires-at").required = wanted;
  byId("expires-at").disabled = !wanted;
}

function requireAccess() {
  const some = byId("read-access").checked || byId("write-access").checked;
  byId("read-access").setCustomValidity(some ? "" : "Choose read access, write access, or both.");
}

function expiresAt() {
  const choice = byId("expiry").value;
  if (choice === "") return null;
  const instant = choice === "date" ? new Date(byId("expires-at").value) : new Date(Date.now() + choice * day);
  return `${instant.toISOString().slice(0, -5)}Z`;
}

/** An instant as a datetime-local input has it. */
function local(date) {
  return new Date(date - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

/** Shows a token until the user is done with it. Nothing but the dialog holds the token meanwhile, and nothing does afterwards. */
function showToken(token, key, onDone) {
  byId("token").querySelector("[data-name]").textContent = key.app_name;
  byId("token-text").textContent = token;
  byId("token-use").textContent = key.read_access
    ? `curl -H 'X-API-Key: ${token}' ${address("api-keys/count")}`
    : `curl -X POST -H 'X-API-Key: ${token}' https://your-service.example/`;
  byId("token").addEventListener("close", onDone, { once: true });
  byId("token").showModal();
}

/** Makes the dialog with the token work: it goes away once the token was copied, or the user insists. */
export function tokenDialog() {
  const dialog = byId("token");
  const done = byId("token-done");
  const status = byId("token-status");
  const warning = dialog.querySelector("[role=alert]");
  let copied = false;

  function warn(text) {
    say(warning, text);
    done.textContent = text ? "Close without copying" : "Done";
    done.classList.toggle("primary", !text);
    return true;
  }

  function insist() { return copied || warn("The token has not been copied, and cannot be shown again."); }

  function taken() {
    copied = true;
    warn();
  }

  for (const [button, source] of [["copy-token", "token-text"], ["copy-use", "token-use"]]) {
    byId(button).addEventListener("click", async () => {
      const allowed = await copy(byId(source));
      if (allowed) taken();
      status.textContent = allowed ? "Copied." : copyYourself;
    });
  }
  dialog.addEventListener("copy", () => { if (getSelection().toString().includes(byId("token-text").textContent)) taken(); });
  resist(dialog, insist);
  done.addEventListener("click", () => {
    if (copied || !warning.hidden) dialog.close();
    else insist();
  });
  addEventListener("beforeunload", (event) => { if (dialog.open && !copied) event.preventDefault(); });
  dialog.addEventListener("close", () => {
    copied = false;
    warn();
    for (const id of ["token-text", "token-use", "token-status"]) byId(id).textContent = "";
  });
}
