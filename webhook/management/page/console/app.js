// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The page: which view is shown, and what of one part concerns the others.

import { Api } from "./api.js";
import { newKeyDialog, tokenDialog } from "./create.js";
import { deactivateDialog } from "./deactivate.js";
import { KeyList } from "./keylist.js";
import { concernsKey, keptKey, settingsView } from "./settings.js";
import { Table } from "./table.js";
import { byId, say, toast } from "./ui.js";

const views = { keys: "API keys", settings: "Settings" };

const list = new KeyList();
let api = null; // while there is no key to call it with
let refusal = null; // of that key, in the API's words
let loading = new AbortController();
let draft = false; // a new key waits in its dialog for a better API key

const table = new Table(list, deactivateDialog({
  deactivate: (id, force) => unlessRefused(() => api.deactivate(id, force)),
  isOwn: async (key, error) => {
    if (error.status !== 409) return false; // it is inactive already, or the one that asks
    await load();
    return list.get(key.id)?.state === "active";
  },
  onDone: (key) => changed(key, `${key.app_name} is deactivated.`),
}));
const openNewKey = newKeyDialog({
  create: (wanted) => unlessRefused(() => api.create(wanted)),
  onCreated: (key) => changed(key, `${key.app_name} is created.`),
});
const fillSettings = settingsView({ onKept: begin, onForgotten: begin, onWait: showWait });

tokenDialog();
byId("new-key").addEventListener("click", openNewKey);
byId("refresh").addEventListener("click", load);
addEventListener("hashchange", showView);
addEventListener("storage", (event) => { if (concernsKey(event)) begin(); });
begin();

/** Begins anew with the API key that is kept, if there is one. */
function begin() {
  const key = keptKey();
  api = key ? new Api(key, showWait) : null;
  refusal = null;
  clearList();
  show(api ? "keys" : "settings");
}

function show(view) {
  if (location.hash === `#${view}`) showView();
  else location.hash = view;
}

/** Shows the view that the address names. Without an API key there is only one. */
function showView() {
  const view = api && location.hash !== "#settings" ? "keys" : "settings";
  const turned = byId(view).hidden;
  for (const name of Object.keys(views)) {
    byId(name).hidden = name !== view;
    document.querySelector(`nav a[href="#${name}"]`).ariaCurrent = name === view ? "page" : null;
  }
  document.title = `${views[view]} · apikey-operator`;
  fillSettings(refusal);
  byId("where").hidden = Boolean(api && !refusal);
  if (turned) byId(`${view}-title`).focus();
  if (view === "keys") load();
  else stopLoading();
}

function stopLoading() {
  loading.abort();
  showWait();
}

/** Loads the list and shows it as it comes. A list that is there already stays until the new one is whole. */
async function load() {
  stopLoading();
  loading = new AbortController();
  const { signal } = loading;
  const first = list.size === 0;
  const keys = [];
  say(byId("list-error"));
  table.show(true);
  try {
    for await (const some of api.keys(signal)) {
      keys.push(...some);
      if (!first) continue;
      list.put(...some);
      table.show();
    }
    if (!first) {
      list.clear();
      list.put(...keys);
    }
    table.show(false);
    if (draft) openNewKey();
    draft = false;
  } catch (error) {
    if (signal.aborted) return;
    table.show(false);
    if (error.ofKey) refuse(error);
    else say(byId("list-error"), error.message);
  }
}

/** Makes a call that changes keys. It returns nothing when the API key is no longer good: then the user is in the settings. */
async function unlessRefused(call) {
  try {
    return await call();
  } catch (error) {
    if (!error.ofKey) throw error;
    try {
      await api.check();
    } catch (lost) {
      if (!lost.ofKey) throw lost;
      refuse(lost);
      return null;
    }
    throw error; // the API key is good, but not for this
  }
}

function refuse({ message }) {
  refusal = message;
  draft = byId("create").open;
  for (const id of ["create", "deactivate"]) byId(id).close(); // but not a token that is shown, and nowhere else
  clearList();
  show("settings");
}

/** Leaves no key on the page: who has no good API key is to see none. */
function clearList() {
  list.clear();
  table.show(false);
}

function changed(key, text) {
  list.put(key);
  toast(text);
  load();
}

function showWait(error) {
  byId("notice").textContent = !error ? ""
    : error.starting ? `The console is starting. It says: “${error.message}” Trying again …`
    : `${error.message} Trying again …`;
}
