// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The page: it shows one of the views, and connects them.

import { Client } from "./api.js";
import { createDialog, tokenDialog } from "./create.js";
import { deactivateDialog } from "./deactivate.js";
import { KeyList } from "./keylist.js";
import { listProblem, manageProblem } from "./ownkey.js";
import { changesKey, migrateKey, settingsView, storedKey } from "./settings.js";
import { Table } from "./table.js";
import { byId, setText, showError, toast } from "./ui.js";

const views = { keys: "API keys", settings: "Settings" };

const checkTimeout = 10_000; // ms, while a dialog waits

const list = new KeyList();
let description = {}; // of the console, as GET / returns it
let apiKey = null; // null without an API key
let client = null; // the client with this API key, or null
let ownKey = null; // the API key of the page, as GET api-keys/self returns it; null until it is known
let keyProblem = ""; // why another API key is needed
let loading = new AbortController();
let draft = false; // the create dialog opens again once there is a valid API key

const openDeactivateDialog = deactivateDialog({
  deactivate: (id, force) => write((current) => current.deactivate(id, force)),
  isOwnKey: (key) => key.id === ownKey?.id,
  heirOf: (key) => list.heirOf(key),
  onDone: ({ handed_to: heir, ...key }) => {
    keyChanged(key, `${key.app_name} was deactivated.${heir ? ` The key ${heir.name} gets the app name.` : ""}`);
  },
  onStale: load,
});
const openCreateDialog = createDialog({
  create: (key) => write((current) => current.create(key)),
  onCreated: (key) => {
    draft = false;
    keyChanged(key, `${key.app_name} was created.`);
  },
  serviceURL: () => description.service_url,
});
const table = new Table(list, openDeactivateDialog);
const updateSettings = settingsView({
  onStored: () => {
    history.replaceState(null, "", "#keys");
    start();
  },
  onForgotten: () => start(),
  onRetry: showRetry,
});

tokenDialog();
byId("create-key").addEventListener("click", () => { if (ownKey?.may_manage !== false) openCreateDialog(); });
byId("refresh").addEventListener("click", load);
addEventListener("hashchange", showView);
addEventListener("storage", (event) => {
  if (changesKey(event) && storedKey() !== apiKey) start("The API key was forgotten in another tab.");
});
describe();
start();

/** Shows which namespace the console manages. */
async function describe() {
  try {
    description = await new Client().describe();
  } catch {
    return; // the next request reports the same problem
  }
  setText(byId("namespace"), description.namespace);
  showTitle();
}

/** Starts with the stored API key. Without one, it shows the settings, and the reason if there is one. */
function start(reason = "") {
  apiKey = storedKey();
  client = apiKey ? new Client(apiKey, showRetry) : null;
  showOwnKey(null);
  if (!client) return requireKey(reason);
  keyProblem = "";
  clearList();
  showView();
}

/** Shows the settings, and why another API key is needed. */
function requireKey(reason) {
  keyProblem = reason;
  showOwnKey(null);
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
  showTitle();
  showOwnKey(ownKey);
  byId("first-key").hidden = Boolean(client && !keyProblem);
  if (changed) byId(`${view}-title`).focus();
  load();
}

/** Shows the namespace first, because browsers cut long titles of tabs off. */
function showTitle() {
  const view = byId("keys").hidden ? views.settings : views.keys;
  document.title = [description.namespace, view, "apikey-operator"].filter(Boolean).join(" · ");
}

/** Shows what the API key of the page may do, and offers only that. Without a key, it is not known yet. */
function showOwnKey(key) {
  ownKey = key;
  const problem = key ? manageProblem(key) : "";
  byId("create-key").ariaDisabled = problem ? "true" : null;
  setText(byId("permission"), byId("keys").hidden ? "" : problem);
  updateSettings(ownKey, keyProblem);
}

/**
 * Loads what the API key of the page may do, and the list if it is visible. The first list appears as it arrives; later, the old list stays
 * until the new one is complete.
 */
async function load() {
  loading.abort();
  if (!client || keyProblem) return;
  loading = new AbortController();
  const { signal } = loading;
  const listed = !byId("keys").hidden;
  const problem = byId(listed ? "list-error" : "key-problem");
  setText(problem);
  if (listed) table.show(true);
  try {
    showOwnKey(await client.self(signal));
    migrateKey();
    if (listed && ownKey.may_list) await loadList(signal);
    else if (listed) setText(problem, listProblem(ownKey));
    if (listed && draft) openCreateDialog();
    draft &&= !listed;
  } catch (error) {
    if (signal.aborted) return;
    if (error.isDenial) return keyRefused();
    showError(problem, error);
  }
  table.show(false);
}

async function loadList(signal) {
  const first = list.size === 0;
  const pages = [];
  for await (const keys of client.keys(signal)) {
    pages.push(keys);
    if (!first) continue;
    list.put(keys);
    table.show();
  }
  if (first) return;
  list.clear();
  for (const keys of pages) list.put(keys);
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
    let key;
    try {
      key = await current.self(AbortSignal.timeout(checkTimeout));
    } catch (denial) {
      if (!denial.isDenial || current !== client) throw error;
      keyRefused();
      return null;
    }
    if (current === client) showOwnKey(key);
    throw key.may_manage ? error : new Error(manageProblem(key));
  }
}

function keyRefused() {
  requireKey("The console does not accept the API key of this page: it is not an active key of this namespace. Enter another key.");
}

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
