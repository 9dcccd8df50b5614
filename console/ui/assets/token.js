// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The dialog that shows the token of a key once.

import { timeElement } from "./time.js";
import { byId, copy, copyManually, resist, setText } from "./ui.js";

/**
 * Shows the token of a key that was created or rotated, until the user closes the dialog. Nothing but the dialog holds the token, and
 * nothing does afterwards.
 */
export function showToken(token, key, serviceURL, onClose) {
  byId("token").querySelector("[data-name]").textContent = key.app_name;
  setText(byId("token-former"), "former_token_expires_at" in key && formerToken(key));
  byId("token-text").textContent = token;
  byId("token-env").textContent = `${variableName(key.app_name)}=${token}`;
  byId("token-use").textContent = curlCommand(key, serviceURL ?? "https://your-service.example/");
  byId("token-file").textContent = headerFile(key.app_name);
  byId("no-service-url").hidden = Boolean(serviceURL);
  byId("token").addEventListener("close", onClose, { once: true });
  byId("token").showModal();
}

/** Returns until when the former token of a key is accepted after a rotation. */
export function formerToken({ former_token_expires_at: end }) {
  if (!end) return "The former token is no longer accepted.";
  return `The former token is accepted until ${timeElement(Date.parse(end)).textContent}.`;
}

const maxNameLength = 60; // of variables and files: file systems limit names, and a line must be readable

/** Returns the name of an environment variable for the token of an app. */
function variableName(appName) {
  const name = asciiWords(appName, "_").toUpperCase().replace(/_?API_?KEY$/, "");
  return name === "" ? "API_KEY" : `${/^\d/.test(name) ? "APP_" : ""}${name}_API_KEY`;
}

function headerFile(appName) {
  return `${asciiWords(appName, "-").toLowerCase() || "api-key"}.header`;
}

function asciiWords(text, separator) {
  const words = text.normalize("NFKD").replace(/\p{Mark}/gu, "").match(/[A-Za-z0-9]+/g) ?? [];
  return words.join(separator).slice(0, maxNameLength).replace(/[^A-Za-z0-9]$/, "");
}

/**
 * Returns a command for bash and zsh that sends a request with the token. It reads the token from the terminal, because the arguments of
 * programs are visible to other users, and the history of the shell keeps them.
 */
function curlCommand({ app_name, read_access }, serviceURL) {
  const file = headerFile(app_name);
  return `(umask 077 && printf 'Token: ' && read -rs token &&
  printf 'X-API-Key: %s\\n' "$token" > ${file}) &&
  curl --header @${file} ${read_access ? "" : "--request POST "}${quoted(serviceURL)}`;
}

/** Returns a text as an argument of a shell. */
function quoted(text) {
  return /^[\w./:%@+,=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
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

  function noteCopy(text) {
    if (!text.includes(byId("token-text").textContent)) return;
    copied = true;
    warn();
  }

  for (const button of dialog.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const source = byId(button.dataset.copy);
      const done = await copy(source);
      if (done) noteCopy(source.textContent);
      status.textContent = done ? "Copied." : copyManually;
    });
  }
  dialog.addEventListener("copy", () => noteCopy(getSelection().toString()));
  resist(dialog, () => !mayClose());
  close.addEventListener("click", () => { if (!warning.hidden || mayClose()) dialog.close(); });
  addEventListener("beforeunload", (event) => { if (dialog.open && !copied) event.preventDefault(); });
  dialog.addEventListener("close", () => {
    copied = false;
    warn();
    for (const id of ["token-text", "token-env", "token-use", "token-status"]) byId(id).textContent = "";
  });
}
