// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The page: it shows one of the views, and connects them.

import { Client, ProxyError } from "./api.js";
import { createDialog } from "./create.js";
import { deactivateDialog } from "./deactivate.js";
import { Detail } from "./detail.js";
import { editDialog } from "./edit.js";
import { setUpShortcuts } from "./keyboard.js";
import { Key, KeyList } from "./keylist.js";
import { listProblem, manageProblem } from "./ownkey.js";
import { refreshWhileVisible } from "./refresh.js";
import { rotateDialog } from "./rotate.js";
import { parseRoute } from "./route.js";
import { changesKey, migrateKey, replaceKey, settingsView, storedKey } from "./settings.js";
import { Table } from "./table.js";
import { tokenDialog } from "./token.js";
import { byId, setText, showError, toast } from "./ui.js";

const views = {
  keys: { title: "API keys", link: "#keys", problem: "list-error" },
  detail: { title: "API key", link: "#keys", problem: "detail-error" },
  settings: { title: "Settings", link: "#settings", problem: "key-problem" },
};

const isID = /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/;
const checkTimeout = 10_000; // ms, while a dialog waits

const list = new KeyList();
let description = {}; // of the console, as GET / returns it
let apiKey = null; // null without an API key
let client = null; // the client with this API key, or null
let ownKey = null; // the API key of the page, as GET api-keys/self returns it; null until it is known
let keyProblem = ""; // why another API key is needed
let route = parseRoute(location.hash); // what the URL names
let view = ""; // what the page shows; the settings while there is no valid API key
let left = null; // the list that the user left for a key: its fragment and scroll position, and the ID of the key
let loading = new AbortController();
let draft = false; // the create dialog opens again once there is a valid API key
let isCutOff = false; // a proxy answered the last load: each further request could open a sign-in prompt of the browser

const openDeactivateDialog = deactivateDialog({
  deactivate: (id, force) => write((current) => current.deactivate(id, force)),
  isOwnKey: (key) => key.id === ownKey?.id,
  heirOf: (key) => list.heirOf(key) ?? (view === "keys" ? null : undefined), // other views do not refresh the list
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
const openEditDialog = editDialog({
  update: (id, changes, force) => write((current) => current.update(id, changes, force)),
  isOwnKey: (key) => key.id === ownKey?.id,
  onDone: (key) => keyChanged(key, `${key.app_name} was changed.`),
  onStale: load,
});
const openRotateDialog = rotateDialog({
  rotate: (id, overlap, force) => write((current) => current.rotate(id, overlap, force)),
  isOwnKey: (key) => key.id === ownKey?.id,
  serviceURL: () => description.service_url,
  onRotated: useNewToken,
  onDone: (key) => keyChanged(key, `${key.app_name} ${key.rotating ? "will get" : "has"} a new token.`),
  onStale: load,
});
const table = new Table(list, { onRotate: rotateKey, onDeactivate: openDeactivateDialog });
const detail = new Detail({
  onEdit: openEditDialog, onRotate: openRotateDialog, onDeactivate: (key) => openDeactivateDialog(new Key(key)),
});
const updateSettings = settingsView({
  onStored: () => {
    if (route.view === "settings") history.replaceState(null, "", "#keys");
    start();
  },
  onForgotten: () => start(),
  onRetry: showRetry,
});

tokenDialog();
byId("create-key").addEventListener("click", createKey);
byId("refresh").addEventListener("click", () => load());
setUpShortcuts({
  "/": () => view === "keys" && byId("search").focus(),
  n: () => view === "keys" && createKey(),
  ArrowDown: () => view === "keys" && table.moveFocus(1),
  ArrowUp: () => view === "keys" && table.moveFocus(-1),
  Escape: () => view === "detail" && byId("back").click(),
});
refreshWhileVisible(() => isCutOff || load({ quiet: true }));
history.scrollRestoration = "manual"; // the browser restores it before the view is shown
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
  loading.abort();
  clearKeys();
  showView();
}

/** Shows the settings, and why another API key is needed. */
function requireKey(reason) {
  keyProblem = reason;
  showOwnKey(null);
  draft ||= byId("create").open;
  for (const id of ["create", "edit", "rotate", "deactivate"]) byId(id).close(); // but not the token, which is nowhere else
  loading.abort();
  clearKeys();
  showView();
}

/** Removes all keys from the page: without an API key that may list them, the user must not see them. */
function clearKeys() {
  list.clear();
  table.show({ loading: false });
  detail.clear();
}

/** Shows the view that the URL names, or the settings without a valid API key. */
function showView() {
  const former = { view, id: route.id, fragment: table.fragment, scroll: scrollY };
  route = parseRoute(location.hash);
  view = client && !keyProblem ? route.view : "settings";
  const changed = view !== former.view || route.id !== former.id;
  if (view === "detail" && former.view === "keys") left = { ...former, id: route.id };
  for (const name of Object.keys(views)) byId(name).hidden = name !== view;
  for (const link of document.querySelectorAll("nav[aria-label=Views] a")) {
    link.ariaCurrent = link.hash === views[view].link ? "page" : null;
  }
  if (view === "keys") table.select(route.selection);
  if (view === "detail" && changed) openDetail();
  showOwnKey(ownKey);
  showTitle();
  byId("first-key").hidden = Boolean(client && !keyProblem);
  if (changed) moveFocus();
  load({ quiet: !changed });
}

/** Shows what the list knows about a key until the key is loaded. The link back leads to the list as the user left it. */
function openDetail() {
  detail.clear(list.get(route.id)?.appName);
  byId("back").href = history.state?.list ?? left?.fragment ?? "#keys";
  history.replaceState({ list: byId("back").hash }, "");
}

/** Moves the focus to a view that has just appeared. A list to which the user returns is as the user left it. */
function moveFocus() {
  const returns = view === "keys" && left?.fragment === table.fragment;
  scrollTo(0, returns ? left.scroll : 0);
  if (!returns || !table.focusRow(left.id)) byId(`${view}-title`).focus({ preventScroll: true });
}

/** Shows the namespace first, because browsers cut long titles of tabs off. */
function showTitle() {
  const title = view === "detail" ? detail.title : views[view || "keys"].title;
  document.title = [description.namespace, title, "apikey-operator"].filter(Boolean).join(" · ");
}

/** Shows what the API key of the page may do, and offers only that. Without a key, it is not known yet. */
function showOwnKey(key) {
  ownKey = key;
  table.show({ self: key });
  const problem = key ? manageProblem(key) : "";
  byId("create-key").ariaDisabled = problem ? "true" : null;
  setText(byId("permission"), view === "settings" ? "" : problem);
  updateSettings(ownKey, keyProblem);
}

/** Loads what the API key of the page may do, and then the visible view. A quiet load does not show that it is under way. */
async function load({ quiet = false } = {}) {
  loading.abort();
  if (!client || keyProblem) return;
  loading = new AbortController();
  const { signal } = loading;
  const problem = byId(views[view].problem);
  if (!quiet) setText(problem);
  if (view === "keys" && (!quiet || list.size === 0)) table.show({ loading: true });
  try {
    showOwnKey(await client.self(signal));
    migrateKey();
    setText(problem, view === "settings" ? "" : listProblem(ownKey));
    if (!ownKey.may_list) clearKeys();
    else if (view === "keys") await loadList(signal);
    else if (view === "detail") await loadDetail(signal);
    if (draft && view === "keys") openCreateDialog();
    draft &&= view !== "keys";
    isCutOff = false;
  } catch (error) {
    if (signal.aborted) return;
    isCutOff = error instanceof ProxyError;
    if (error.isDenial) return keyRefused();
    showError(problem, error);
  }
  table.show({ loading: false });
}

/** Loads the list. The first list appears as it arrives; later, the old list stays until the new one is complete. */
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

/** Loads the key of the detail view, and the key that created it. */
async function loadDetail(signal) {
  const find = (id) => client.key(id, signal).catch((error) => {
    if (error.status !== 404) throw error;
    return null;
  });
  const key = isID.test(route.id) ? await find(route.id) : null; // other paths of the API are not keys
  if (!key) {
    detail.clear(list.get(route.id)?.appName);
    setText(byId("detail-error"), "No key has this ID. The key may have been deleted.");
    return;
  }
  detail.show(key, key.created_by && await find(key.created_by), ownKey);
  showTitle();
}

function createKey() {
  if (ownKey?.may_manage !== false) openCreateDialog();
}

/** Opens the dialog that rotates the token of a key of the list, once the details of the key are loaded. */
async function rotateKey({ id }) {
  const problem = byId("list-error");
  setText(problem);
  try {
    const key = await write((current) => current.key(id, AbortSignal.timeout(checkTimeout)));
    if (key && view === "keys" && !document.querySelector("dialog[open]")) openRotateDialog(key);
  } catch (error) {
    if (error.status !== 404) return showError(problem, error);
    toast("This key does not exist any more.");
    load();
  }
}

/** Continues with the new token if it is that of the page. */
function useNewToken({ id }, token) {
  if (!token || id !== ownKey?.id) return;
  loading.abort(); // its former token may have ended
  replaceKey(token);
  apiKey = token;
  client = new Client(apiKey, showRetry);
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
  if (view === "keys") list.put([key]);
  load();
}

function showRetry(error) {
  byId("notice").textContent = !error ? ""
    : error.isUnavailable ? `The console is not ready: “${error.message}” Retrying…`
    : `${error.message} Retrying…`;
}
