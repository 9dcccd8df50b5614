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

const patience = 10_000; // ms, for an answer that a dialog waits for

const list = new KeyList();
let api = null; // while there is no key to call it with
let problem = ""; // with that key, or why there is none
let loading = new AbortController();
let draft = false; // a new key waits in its dialog for a better API key

const table = new Table(list, deactivateDialog({
  deactivate: (id, force) => unlessRefused((asked) => asked.deactivate(id, force)),
  isOwn: async (key, error) => {
    if (error.status !== 409) return false; // it is inactive already, or the one that asks
    await load();
    return list.get(key.id)?.state === "active";
  },
  onDone: (key) => changed(key, `${key.app_name} is deactivated.`),
}));
const openNewKey = newKeyDialog({
  create: (wanted) => unlessRefused((asked) => asked.create(wanted)),
  onCreated: (key) => {
    draft = false;
    changed(key, `${key.app_name} is created.`);
  },
});
const fillSettings = settingsView({
  onKept: () => {
    history.replaceState(null, "", "#keys");
    begin();
  },
  onForgotten: () => begin(),
  onWait: showWait,
});

tokenDialog();
byId("new-key").addEventListener("click", openNewKey);
byId("refresh").addEventListener("click", load);
addEventListener("hashchange", showView);
addEventListener("storage", (event) => { if (concernsKey(event)) begin("The API key was forgotten in another tab."); });
begin();

/** Begins anew with the API key that is kept. If there is none, the user is told why, where that is known. */
function begin(whyNone = "") {
  const key = keptKey();
  api = key ? new Api(key, showWait) : null;
  if (!api) return demandKey(whyNone);
  problem = "";
  clearList();
  showView();
}

/** Leads the user to the settings for another API key, and says why. */
function demandKey(why) {
  problem = why;
  draft ||= byId("create").open;
  for (const id of ["create", "deactivate"]) byId(id).close(); // but not a token that is shown, and nowhere else
  clearList();
  showView();
}

/** Leaves no key on the page: who has no good API key is to see none. */
function clearList() {
  loading.abort();
  list.clear();
  table.show(false);
}

/** Shows the view that the address names. Without a good API key there is only one. */
function showView() {
  const view = api && !problem && location.hash !== "#settings" ? "keys" : "settings";
  const turned = byId(view).hidden;
  for (const name of Object.keys(views)) {
    byId(name).hidden = name !== view;
    document.querySelector(`nav a[href="#${name}"]`).ariaCurrent = name === view ? "page" : null;
  }
  document.title = `${views[view]} · apikey-operator`;
  fillSettings(problem);
  byId("where").hidden = Boolean(api && !problem);
  if (turned) byId(`${view}-title`).focus();
  load();
}

/** Loads the list, if it is in view, and shows it as it comes. A list that is there already stays until the new one is whole. */
async function load() {
  loading.abort();
  if (byId("keys").hidden) return;
  loading = new AbortController();
  const { signal } = loading;
  const first = list.size === 0;
  const pages = [];
  say(byId("list-error"));
  table.show(true);
  try {
    for await (const keys of api.keys(signal)) {
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
    if (draft) openNewKey();
    draft = false;
  } catch (error) {
    if (signal.aborted) return;
    table.show(false);
    if (error.ofKey) refuse(error);
    else say(byId("list-error"), error.message);
  }
}

/**
 * Makes a call that changes keys, with the API key of this moment: another tab may change it meanwhile. It returns nothing when that key is
 * no longer good: then the user is in the settings.
 */
async function unlessRefused(call) {
  const asked = api;
  try {
    return await call(asked);
  } catch (error) {
    if (!error.ofKey) throw error;
    try {
      await asked.check(AbortSignal.timeout(patience));
    } catch (lost) {
      if (lost.ofKey && asked === api) {
        refuse(lost);
        return null;
      }
    }
    throw error; // the API key is good, but not for this, or nobody can say so now
  }
}

function refuse({ message }) { demandKey(`The key of this page was refused: ${message}`); }

/** Shows what became of a key. A list that is out of view is loaded when it comes into view. */
function changed(key, text) {
  toast(text);
  if (byId("keys").hidden) return;
  list.put([key]);
  load();
}

function showWait(error) {
  byId("notice").textContent = !error ? ""
    : error.starting ? `The console is starting. It says: “${error.message}” Trying again …`
    : `${error.message} Trying again …`;
}
