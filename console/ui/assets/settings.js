// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The view where the user gives the page its API key.

import { Api, Refusal } from "./api.js";
import { byId, onSubmit, say, toast } from "./ui.js";

const storageKey = "apikey_operator_api_key";
const hintLength = 7; // as the hints of tokens elsewhere

let unstored = null; // the API key, where the browser does not let the page store it

/** The API key that is kept, or null. */
export function keptKey() { return unstored ?? stored(); }

function stored() {
  try {
    return localStorage.getItem(storageKey);
  } catch {
    return null;
  }
}

function keep(key) {
  try {
    localStorage.setItem(storageKey, key);
    unstored = null;
  } catch {
    unstored = key;
  }
}

function forget() {
  unstored = null;
  if (stored() !== null) localStorage.removeItem(storageKey);
}

/** Says whether a change of the storage, by another tab, is one of the API key. */
export function concernsKey({ key }) { return key === storageKey || key === null; }

/**
 * Makes the view work, and returns what fills it: with why another key is needed, if one is. onKept is called when a good key was
 * entered, onForgotten when none is kept any more, onWait as an Api calls it.
 */
export function settingsView({ onKept, onForgotten, onWait }) {
  const input = byId("key");
  const problem = byId("key-problem");
  let checking = new AbortController();

  onSubmit(byId("key-form"), "Checking …", async () => {
    say(problem);
    const key = input.value.trim();
    if (!/^[!-~]+$/.test(key)) {
      say(problem, "This is no API key: it has characters that no key has.");
      return;
    }
    checking = new AbortController();
    try {
      await new Api(key, onWait).check(checking.signal);
    } catch (error) {
      if (checking.signal.aborted) return;
      say(problem, error instanceof Refusal ? `This key was refused: ${error.message}` : error.message);
      return;
    }
    keep(key);
    if (unstored) toast("This browser stores nothing for the page: it needs the key again once it is closed or reloaded.");
    input.value = "";
    hide();
    onKept();
  });

  input.addEventListener("input", () => { // another key: the answer about the one before no longer counts
    checking.abort();
    say(problem);
  });
  byId("show-key").addEventListener("click", () => {
    if (input.type === "text") hide();
    else show("text", "true");
  });
  byId("forget").addEventListener("click", () => {
    checking.abort(); // or the key that is checked would be kept
    forget();
    onForgotten();
    input.focus();
  });

  function hide() { show("password", "false"); }

  function show(type, pressed) {
    input.type = type;
    byId("show-key").ariaPressed = pressed;
  }

  return (why) => {
    const kept = keptKey();
    say(byId("key-needed"), why);
    byId("key-kept").hidden = !kept;
    byId("key-where").textContent = unstored ? "Kept until the page is closed or reloaded:" : "Kept in this browser:";
    byId("key-hint").textContent = kept ? `${kept.slice(0, hintLength)}…` : "";
  };
}
