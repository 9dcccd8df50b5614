// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The dialogs that create a key and show its token.

import { NoResponseError } from "./api.js";
import { expiryChoice } from "./expiry.js";
import { entryName, readEntry, writeEntry } from "./storage.js";
import { timeElement } from "./time.js";
import { byId, closable, copy, copyManually, messageOf, onSubmit, resist, setText, showError } from "./ui.js";

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

/** Shows a token until the user closes the dialog. Nothing but the dialog holds the token, and nothing does afterwards. */
function showToken(token, key, serviceURL, onClose) {
  byId("token").querySelector("[data-name]").textContent = key.app_name;
  byId("token-text").textContent = token;
  byId("token-env").textContent = `${variableName(key.app_name)}=${token}`;
  byId("token-use").textContent = curlCommand(key, serviceURL ?? "https://your-service.example/");
  byId("token-file").textContent = headerFile(key.app_name);
  byId("no-service-url").hidden = Boolean(serviceURL);
  byId("token").addEventListener("close", onClose, { once: true });
  byId("token").showModal();
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
