// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The view where the user enters the API key of the page.

import { Client } from "./api.js";
import { hintLength } from "./keylist.js";
import { facts } from "./ownkey.js";
import { entryName, readEntry, writeEntry } from "./storage.js";
import { byId, onSubmit, setText, showError, showFacts, toast } from "./ui.js";

const entry = entryName("apikey_operator_api_key");
const formerEntry = "apikey_operator_api_key"; // of former versions of the page: one entry for all consoles of a host

const places = {
  session: { storage: "sessionStorage", name: entry, text: "Stored until you close this tab:" },
  browser: { storage: "localStorage", name: entry, text: "Stored in this browser:" },
  former: { storage: "localStorage", name: formerEntry, text: "Stored in this browser:" },
};

let unstored = null; // the API key if the browser does not let the page store it

/** Returns the API key of the page, or null. */
export function storedKey() {
  return unstored ?? read(placeOfKey());
}

function placeOfKey() {
  return Object.values(places).find((place) => read(place));
}

function read(place) { return place ? readEntry(place.storage, place.name) : null; }

function write(place, key) { return writeEntry(place.storage, place.name, key); }

function store(key, sessionOnly) {
  const former = placeOfKey() === places.former;
  const [place, other] = sessionOnly ? [places.session, places.browser] : [places.browser, places.session];
  unstored = write(place, key) ? null : key;
  write(other, null);
  if (former) write(places.former, null);
}

/** Replaces the API key by its new token, after a rotation. */
export function replaceKey(token) { store(token, placeOfKey() === places.session); }

/** Moves the API key, which this console has accepted, from the entry of a former version to that of this console. */
export function migrateKey() {
  if (!unstored && placeOfKey() === places.former) store(read(places.former), false);
}

function forget() {
  unstored = null;
  if (placeOfKey() === places.former) write(places.former, null);
  write(places.browser, ""); // so that other tabs receive an event in any case
  write(places.browser, null);
  write(places.session, null);
}

/** Reports whether a storage event means that another tab has changed or forgotten the API key. If forgotten, this tab forgets it too. */
export function changesKey({ key, newValue }) {
  if (key !== entry && key !== null) return false;
  if (!newValue) write(places.session, null);
  return true;
}

/**
 * Sets up the view, and returns a function that updates it: with the key of the page as the API returns it, if it is known, and with the
 * reason if another key is needed. onStored is called when a valid key was stored, onForgotten when the key was deleted, onRetry as by a
 * Client.
 */
export function settingsView({ onStored, onForgotten, onRetry }) {
  const input = byId("key");
  const problem = byId("entry-problem");
  let checking = new AbortController();

  onSubmit(byId("key-form"), "Checking…", async () => {
    setText(problem);
    const key = input.value.trim();
    if (!/^[!-~]+$/.test(key)) {
      setText(problem, "This is not an API key: it contains characters that API keys do not have.");
      return;
    }
    checking = new AbortController();
    try {
      await new Client(key, onRetry).self(checking.signal);
    } catch (error) {
      if (checking.signal.aborted) return;
      if (error.isDenial) setText(problem, "The console does not accept this key: it is not an active key of this namespace.");
      else showError(problem, error);
      return;
    }
    store(key, byId("session-only").checked);
    if (unstored) toast("This browser does not store data for this page: enter the key again after you close or reload the page.");
    input.value = "";
    hide();
    onStored();
  });

  input.addEventListener("input", () => { // the result for the former key does not matter any more
    checking.abort();
    setText(problem);
  });
  byId("show-key").addEventListener("click", () => {
    if (input.type === "text") hide();
    else show("text", "true");
  });
  byId("forget").addEventListener("click", () => {
    checking.abort(); // the key that is being checked must not be stored
    forget();
    onForgotten();
    input.focus();
  });

  function hide() { show("password", "false"); }

  function show(type, pressed) {
    input.type = type;
    byId("show-key").ariaPressed = pressed;
  }

  return (ownKey, reason) => {
    const key = storedKey();
    setText(byId("key-problem"), reason);
    byId("stored-key").hidden = !key;
    byId("stored-where").textContent = unstored ? "Stored until you close or reload the page:" : placeOfKey()?.text;
    byId("stored-hint").textContent = key ? `${key.slice(0, hintLength)}…` : "";
    showFacts(byId("own-key"), ownKey ? facts(ownKey) : []);
  };
}
