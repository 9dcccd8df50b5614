// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The page: it shows one of the views, and connects them.

import { Client } from "./api.js";
import { createDialog, tokenDialog } from "./create.js";
import { deactivateDialog } from "./deactivate.js";
import { KeyList } from "./keylist.js";
import { changesKey, settingsView, storedKey } from "./settings.js";
import { Table } from "./table.js";
import { byId, setText, toast } from "./ui.js";

const views = { keys: "API keys", settings: "Settings" };

const checkTimeout = 10_000; // ms, while a dialog waits

const list = new KeyList();
let client = null; // null without an API key
let keyProblem = ""; // why another API key is needed
let loading = new AbortController();
let draft = false; // the create dialog opens again once there is a valid API key

const table = new Table(list, deactivateDialog({
  deactivate: (id, force) => write((current) => current.deactivate(id, force)),
  isOwnKey: async (key, error) => {
    if (error.status !== 409) return false; // else the key is inactive, or that of this page
    await load();
    return list.get(key.id)?.state === "active";
  },
  onDone: (key) => keyChanged(key, `${key.app_name} was deactivated.`),
}));
const openCreateDialog = createDialog({
  create: (key) => write((current) => current.create(key)),
  onCreated: (key) => {
    draft = false;
    keyChanged(key, `${key.app_name} was created.`);
  },
});
const updateSettings = settingsView({
  onStored: () => {
    history.replaceState(null, "", "#keys");
    start();
  },
  onForgotten: () => start(),
  onRetry: showRetry,
});

tokenDialog();
byId("create-key").addEventListener("click", openCreateDialog);
byId("refresh").addEventListener("click", load);
addEventListener("hashchange", showView);
addEventListener("storage", (event) => { if (changesKey(event)) start("The API key was forgotten in another tab."); });
start();

/** Starts with the stored API key. Without one, it shows the settings, and the reason if there is one. */
function start(reason = "") {
  const key = storedKey();
  client = key ? new Client(key, showRetry) : null;
  if (!client) return requireKey(reason);
  keyProblem = "";
  clearList();
  showView();
}

/** Shows the settings, and why another API key is needed. */
function requireKey(reason) {
  keyProblem = reason;
  draft ||= byId("create").open;
  for (const id of ["create", "deactivate"]) byId(id).close(); // but not the token, which is nowhere else
  clearList();
  showView();
}

/** Removes all keys from the page: without a valid API key, the user must not see them. */
function clearList() {
  loading.abort();
  list.clear();
  table.show(false);
}

/** Shows the view that the URL names, or the settings without a valid API key. */
function showView() {
  const view = client && !keyProblem && location.hash !== "#settings" ? "keys" : "settings";
  const changed = byId(view).hidden;
  for (const name of Object.keys(views)) {
    byId(name).hidden = name !== view;
    document.querySelector(`nav a[href="#${name}"]`).ariaCurrent = name === view ? "page" : null;
  }
  document.title = `${views[view]} · apikey-operator`;
  updateSettings(keyProblem);
  byId("first-key").hidden = Boolean(client && !keyProblem);
  if (changed) byId(`${view}-title`).focus();
  load();
}

/** Loads the list if it is visible. The first list appears as it arrives; later, the old list stays until the new one is complete. */
async function load() {
  loading.abort();
  if (byId("keys").hidden) return;
  loading = new AbortController();
  const { signal } = loading;
  const first = list.size === 0;
  const pages = [];
  setText(byId("list-error"));
  table.show(true);
  try {
    for await (const keys of client.keys(signal)) {
      pages.push(keys);
      if (!first) continue;
      list.put(keys);
      table.show();
    }
    if (!first) {
      list.clear();
      for (const keys of pages) list.put(keys);
    }
    table.show(false);
    if (draft) openCreateDialog();
    draft = false;
  } catch (error) {
    if (signal.aborted) return;
    table.show(false);
    if (error.isDenial) keyRefused(error);
    else setText(byId("list-error"), error.message);
  }
}

/**
 * Sends a request that changes keys. When the API key is no longer valid, it shows the settings and returns nothing. The client is the
 * current one, because another tab may change the API key meanwhile.
 */
async function write(send) {
  const current = client;
  try {
    return await send(current);
  } catch (error) {
    if (!error.isDenial) throw error;
    try {
      await current.check(AbortSignal.timeout(checkTimeout));
    } catch (denial) {
      if (denial.isDenial && current === client) {
        keyRefused(denial);
        return null;
      }
    }
    throw error; // the API key is valid, but not for this request, or the check failed
  }
}

function keyRefused({ message }) { requireKey(`The console refused the API key of this page: ${message}`); }

/** Shows the new state of a key. A hidden list is loaded when it becomes visible. */
function keyChanged(key, text) {
  toast(text);
  if (byId("keys").hidden) return;
  list.put([key]);
  load();
}

function showRetry(error) {
  byId("notice").textContent = !error ? ""
    : error.isUnavailable ? `The console is not ready: “${error.message}” Retrying…`
    : `${error.message} Retrying…`;
}
