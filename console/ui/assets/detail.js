// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The view of one key.

import { Key, secretOf } from "./keylist.js";
import { keyFragment } from "./route.js";
import { marks, showState } from "./table.js";
import { fromNow, timeElement } from "./time.js";
import { byId, code, copy, copyManually, morph, setText, toast } from "./ui.js";

const managerLabel = "keys.squirrel.dev/manager";

/** The meanings of the states, and what a user can do. A blocked key has a text for each reason. */
const meanings = {
  active: ["Authenticators accept this key."],
  pending: ["The controller has not issued this key yet, and authenticators refuse it.",
    "This takes about a second. If it takes longer, check that the controller runs."],
  waiting: ["Another key has this app name, and authenticators refuse this key.",
    "Deactivate the other key: the controller then issues this one. Or deactivate this key, and create one with another app name."],
  deactivated: ["This key was deactivated, and authenticators refuse it. This is final.",
    "If the app still needs access, create another key."],
  expired: ["This key has expired, and authenticators refuse it. This is final.", "If the app still needs access, create another key."],
  TokenHashConflict: ["Another key has the same token, and authenticators refuse this key.",
    "Deactivate this key, and create one with another token."],
  SecretConflict: ["The Secret for the token exists already and does not belong to this key, so the controller cannot hand the token over.",
    "Delete or rename that Secret: the controller then continues. Or deactivate this key."],
  SecretRefused: ["The Kubernetes API refuses the Secret for the token.",
    "Remove the cause, such as a quota or a policy: the controller then continues. Or deactivate this key."],
  Unreadable: ["A field of this key has a value that the controller cannot read.",
    "Correct the field with kubectl, or deactivate this key."],
  blocked: ["The controller cannot issue this key until a user acts."],
};

/** The meanings of the conditions. */
const conditionMeanings = {
  Ready: {
    True: "The key is in the state that its owner declared.",
    False: "The controller waits until a user acts.",
    Unknown: "The controller is working on the key.",
  },
  Active: { True: "Authenticators accept the token.", False: "Authenticators refuse the token." },
  Reconciling: { True: "The token is being rotated." },
  Stalled: { True: "The controller waits until a user acts.", False: "No user needs to act." },
};

/** The buttons of the view, and the keys for which it has them. */
const buttons = { "edit-key": (key) => !key.ended, "rotate-key": (key) => key.canRotate, "deactivate-key": (key) => !key.ended };

/** The view of one key. The functions are called with the key, as the API returned it, when the user clicks their buttons. */
export class Detail {
  #key = null; // of the API

  constructor({ onEdit, onRotate, onDeactivate }) {
    byId("edit-key").addEventListener("click", () => onEdit(this.#key));
    byId("rotate-key").addEventListener("click", () => onRotate(this.#key));
    byId("deactivate-key").addEventListener("click", () => onDeactivate(this.#key));
    byId("detail").addEventListener("click", ({ target }) => {
      const button = target.closest("[data-action=copy]");
      if (button) copyFrom(button.closest(".copyable").querySelector("code"));
    });
  }

  /** The title of the view. */
  get title() { return byId("detail-name").textContent; }

  /** Shows nothing of the former key while the next one is loaded. appName is empty if it is not known yet. */
  clear(appName = "") {
    const focused = this.#focused;
    this.#key = null;
    byId("detail-name").textContent = appName || "API key";
    byId("detail-content").hidden = true;
    for (const id of ["detail-state", ...Object.keys(buttons)]) byId(id).hidden = true;
    byId("detail-marks").replaceChildren();
    keepFocus(focused);
  }

  get #focused() { return byId("detail").contains(document.activeElement) ? document.activeElement : null; }

  /** Shows a key of the API. creator is the key that created it, if it still exists. self is the key of the page. */
  show(key, creator, self) {
    this.#key = key;
    const shown = new Key(key);
    const focused = this.#focused;
    byId("detail-name").textContent = shown.appName;
    byId("detail-state").hidden = false;
    showState(byId("detail-state"), shown.state);
    byId("detail-marks").replaceChildren(...marks(shown, self));
    for (const [id, isOffered] of Object.entries(buttons)) byId(id).hidden = !isOffered(shown) || !self.may_manage;
    morph(byId("detail-content"), content(key, shown, creator, self));
    keepFocus(focused);
  }
}

/** Moves the focus to the title if the view does not show the element that had it any more, such as a button for an active key. */
function keepFocus(focused) {
  if (focused && !focused.checkVisibility()) byId("detail-title").focus({ preventScroll: true });
}

function content(key, shown, creator, { namespace }) {
  const content = byId("detail-template").content.firstElementChild.cloneNode(true);
  const set = (name, ...nodes) => content.querySelector(`[data-field=${name}]`).append(...nodes);
  content.querySelector(".meaning").dataset.state = shown.state;
  const [meaning, advice] = meanings[shown.state === "blocked" && shown.reason in meanings ? shown.reason : shown.state];
  set("meaning", meaning);
  setText(content.querySelector("[data-field=problem]"), shown.problem);
  setText(content.querySelector("[data-field=advice]"), advice);
  setText(content.querySelector("[data-field=managed]"), !shown.ended && key.managed_by
    && `${key.managed_by} manages this key, and may revert a change that you make here: change its manifest too.`);

  set("name", key.name);
  set("id", key.id);
  set("hint", key.hint ? code(`${key.hint}…`) : key.imported || shown.ended ? "The start of the token is not recorded" : "Not minted yet");
  const [newest, ...formerTokens] = key.tokens;
  if (formerTokens.length > 0) set("hint", " ", small(tokenUse(newest)));
  content.querySelector("[data-row=former]").hidden = formerTokens.length === 0;
  content.querySelector("[data-field=former]").append(...formerTokens.map((token, i) => formerTokenRow(token, key.tokens[i])));
  content.querySelector("[data-row=rotation]").hidden = !key.rotating && !key.next_rotation_at;
  set("rotation", ...key.rotating ? ["Under way"] : key.next_rotation_at ? instant(key.next_rotation_at) : []);
  set("used", ...shown.lastUsed ? instant(key.last_used_at)
    : [shown.unusedSince === null ? "–" : "No use seen since the token was issued"]);
  set("access", shown.access);
  set("expires", ...key.expires_at ? instant(key.expires_at) : ["Never"]);
  set("created", ...instant(key.created_at));
  set("creator", ...creatorOf(key, creator));
  set("updated", ...instant(key.updated_at));
  content.querySelector("[data-row=ended]").hidden = !key.deactivated_at;
  if (key.deactivated_at) set("ended", ...instant(key.deactivated_at));
  set("manager", key.manager ? "Yes" : "No");

  set("handover", ...handover(key, shown));
  content.querySelector("[data-field=conditions]").append(...key.conditions.map((condition) => conditionRow(condition, key.message)));
  content.querySelector("[data-field=commands]").append(...commands(key, shown, namespace).flatMap(commandRow));
  set("manifest", key.manifest);
  return content;
}

function instant(text) {
  const time = Date.parse(text);
  return [timeElement(time), " ", small(fromNow(time))];
}

function small(text) {
  const element = document.createElement("small");
  element.textContent = text;
  return element;
}

/** Returns the row of a token, which its successor superseded. */
function formerTokenRow(token, successor) {
  const { hint, expires_at: end, last_used_at: used } = token;
  const row = document.createElement("li");
  const isInUse = used && Date.parse(used) > Date.parse(successor.issued_at);
  const use = document.createElement("p");
  use.className = isInUse ? "in-use" : "note";
  use.textContent = `${tokenUse(token)}${isInUse ? ": its clients must switch to the new token" : ""}.`;
  row.append(hint ? code(`${hint}…`) : "Unknown start", " accepted until ", ...instant(end), use);
  return row;
}

function tokenUse({ last_used_at: used }) { return used ? `Last used ${fromNow(Date.parse(used))}` : "No use seen"; }

function creatorOf({ created_by: id, bootstrap }, creator) {
  if (!id) return [bootstrap ? "The console, from its key file" : "kubectl, a manifest or another tool"];
  const link = document.createElement("a");
  link.href = keyFragment(id);
  link.textContent = creator?.app_name ?? id;
  return creator ? [link] : [link, " (deleted)"];
}

/** Returns where the token of a key is. */
function handover(key, { ended }) {
  if (key.bootstrap) {
    return ["The token is in the key file of the console. The cluster holds only its hash, and there is no Secret. To rotate the token, " +
      "delete the file and restart the console."];
  }
  if (key.imported) {
    return ["The client that created the key, or rotated it last, received the token. The cluster holds only its hash, and there is no " +
      "Secret."];
  }
  const { name, key: entry, ttl } = secretOf(key);
  const secret = code(name);
  if (key.secret_name) {
    const ends = ttl ? `, the key ends, or ${ttl.replace(/(?<=[hm])0[ms]/g, "")} have passed` : " or the key ends";
    return ["The controller wrote the token to the Secret ", secret, ", under ", code(entry),
      `. The Secret exists until a user reveals the token${ends}.`];
  }
  if (ended) return ["There is no Secret: the controller deletes it when a key ends."];
  if (key.state === "active") {
    return ["The Secret ", secret, " is deleted: a user revealed the token, or the ttl of the Secret has passed. The token cannot be " +
      "shown again. A rotation writes a new token to a new Secret of this name."];
  }
  return ["The controller will write the token to the Secret ", secret, ", under ", code(entry), "."];
}

function conditionRow({ type, status, reason, message, last_transition_time: since }, known) {
  const row = byId("condition").content.firstElementChild.cloneNode(true);
  const set = (name, ...nodes) => row.querySelector(`[data-field=${name}]`).append(...nodes);
  set("type", type);
  set("status", status);
  set("condition", conditionMeanings[type]?.[status] ?? "");
  set("reason", code(reason));
  const time = Date.parse(since); // 1970, until the controller has set the condition
  set("since", ...time ? [" since ", timeElement(time)] : []);
  setText(row.querySelector("[data-field=message]"), message === known ? "" : message);
  return row;
}

/** Returns the commands that are useful for a key, with what they do. */
function commands(key, { ended, canRotate }, namespace) {
  const on = `${key.name} --namespace=${namespace}`;
  const all = [["Show the object and its events", `kubectl describe apikey ${on}`]];
  if (ended) return all;
  if (key.secret_name) all.push(["Print the token once, and delete its Secret", `kubectl apikey reveal ${on}`]);
  if (canRotate) all.push(["Rotate the token", `kubectl apikey rotate ${on}`]);
  if (key.manager) all.push(["Remove the label of a manager", `kubectl label apikey ${on} ${managerLabel}-`]);
  else if (key.write_access) all.push(["Add the label of a manager", `kubectl label apikey ${on} ${managerLabel}=true --overwrite`]);
  all.push(["Deactivate the key for good", `kubectl apikey deactivate ${on}`]);
  return all;
}

function commandRow([purpose, command]) {
  const row = byId("command").content.firstElementChild.cloneNode(true);
  row.querySelector("h3").textContent = purpose;
  row.querySelector("code").textContent = command;
  row.querySelector("button .visually-hidden").textContent = `Copy the command: ${purpose}`;
  return row;
}

async function copyFrom(element) { toast(await copy(element) ? "Copied." : copyManually); }
