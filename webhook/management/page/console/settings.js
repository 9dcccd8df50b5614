// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The view where the user gives the page its API key.

import { Api, Refusal } from "./api.js";
import { byId, onSubmit, say } from "./ui.js";

const storageKey = "apikey_operator_api_key";
const hintLength = 7; // as the hints of tokens elsewhere

/** The API key that this browser keeps, or null. */
export function keptKey() { return localStorage.getItem(storageKey); }

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
    localStorage.setItem(storageKey, key);
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
    localStorage.removeItem(storageKey);
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
    byId("key-hint").textContent = kept ? `${kept.slice(0, hintLength)}…` : "";
  };
}
