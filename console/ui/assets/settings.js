// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The view where the user enters the API key of the page.

import { Client, ResponseError } from "./api.js";
import { byId, onSubmit, setText, toast } from "./ui.js";

const storageKey = "apikey_operator_api_key";
const hintLength = 7; // like the hints of tokens

let unstored = null; // the API key if the browser does not let the page store it

/** Returns the stored API key, or null. */
export function storedKey() { return unstored ?? fromStorage(); }

function fromStorage() {
  try {
    return localStorage.getItem(storageKey);
  } catch {
    return null;
  }
}

function store(key) {
  try {
    localStorage.setItem(storageKey, key);
    unstored = null;
  } catch {
    unstored = key;
  }
}

function forget() {
  unstored = null;
  if (fromStorage() !== null) localStorage.removeItem(storageKey);
}

/** Reports whether a storage event of another tab changes the API key. */
export function changesKey({ key }) { return key === storageKey || key === null; }

/**
 * Sets up the view, and returns a function that updates it, with the reason if another key is needed. onStored is called when a valid key
 * was stored, onForgotten when the key was deleted, onRetry as a Client does.
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
      await new Client(key, onRetry).check(checking.signal);
    } catch (error) {
      if (checking.signal.aborted) return;
      setText(problem, error instanceof ResponseError ? `The console refused this key: ${error.message}` : error.message);
      return;
    }
    store(key);
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

  return (reason) => {
    const key = storedKey();
    setText(byId("key-problem"), reason);
    byId("stored-key").hidden = !key;
    byId("stored-where").textContent = unstored ? "Stored until you close or reload the page:" : "Stored in this browser:";
    byId("stored-hint").textContent = key ? `${key.slice(0, hintLength)}…` : "";
  };
}
