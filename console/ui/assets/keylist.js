// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The keys: which of them the table shows, and in what order.

import { serverNow } from "./api.js";
import { day } from "./time.js";

export const rowsPerPage = 100;

const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

/** The names of the states of a key on the page. The controller waits for a user to act on keys that are waiting or blocked. */
export const stateNames = {
  blocked: "Blocked", waiting: "Waiting", pending: "Pending", active: "Active", expired: "Expired", deactivated: "Deactivated",
};
const states = Object.keys(stateNames); // in order

/** The columns that keys can be sorted by. Those with newestFirst are sorted in descending order at first. */
export const columns = {
  name: { label: "App name", compare: (a, b) => collator.compare(a.appName, b.appName) },
  access: { label: "Access", compare: (a, b) => rank(a) - rank(b) },
  state: { label: "State", compare: (a, b) => states.indexOf(a.state) - states.indexOf(b.state) },
  created: { label: "Created", newestFirst: true, compare: (a, b) => a.created - b.created },
  updated: { label: "Updated", newestFirst: true, compare: (a, b) => a.updated - b.updated },
  used: { label: "Last used", newestFirst: true, compare: (a, b) => a.lastUsed - b.lastUsed },
  expires: { label: "Expires", compare: (a, b) => a.expires === b.expires ? 0 : a.expires - b.expires },
};

function rank(key) { return 2 * key.write + key.read; }

/** Returns what the page calls a state of the API. A new key may have a conflict before the controller reports that it is stalled. */
function stateOf(state, reason) {
  if (state !== "pending" && state !== "stalled") return state;
  if (reason === "AppNameConflict") return "waiting";
  return state === "stalled" || reason === "TokenHashConflict" ? "blocked" : "pending";
}

// As the API selects keys with expires_within and unused_for.
function expiresWithin(days) { return (key, now) => key.state === "active" && key.expires - now <= days * day; }
function unusedFor(days) { return (key, now) => key.state === "active" && now - key.unusedSince >= days * day; }

/** The days without a use after which the page calls a key unused. */
export const unusedDays = 90;

/** The filters, and the keys that each option selects. */
export const filters = {
  state: {
    label: "State",
    options: {
      "": { label: "Any state" },
      active: { label: "Active", selects: (key) => key.state === "active" },
      pending: { label: "Pending", selects: (key) => key.state === "pending" },
      stalled: { label: "Waiting or blocked", selects: (key) => key.state === "waiting" || key.state === "blocked" },
      expired: { label: "Expired", selects: (key) => key.state === "expired" },
      deactivated: { label: "Deactivated", selects: (key) => key.state === "deactivated" },
    },
  },
  access: {
    label: "Access",
    options: {
      "": { label: "Any access" },
      read: { label: "Can read", selects: (key) => key.read },
      write: { label: "Can write", selects: (key) => key.write },
      "read-only": { label: "Read only", selects: (key) => !key.write },
      "write-only": { label: "Write only", selects: (key) => !key.read },
    },
  },
  expiry: {
    label: "Expiry",
    options: {
      "": { label: "Any expiry" },
      "7d": { label: "Within 7 days", selects: expiresWithin(7) },
      "30d": { label: "Within 30 days", selects: expiresWithin(30) },
      never: { label: "Never", selects: (key) => key.expires === Infinity },
      expired: { label: "Expired", selects: (key) => key.state === "expired" },
    },
  },
  unused: {
    label: "Last use",
    options: {
      "": { label: "Any last use" },
      [`${unusedDays}d`]: { label: `Unused for ${unusedDays} days`, selects: unusedFor(unusedDays) },
    },
  },
};

/** The number of characters of a hint, as the API returns it. */
export const hintLength = 7;

/** Returns the access of a key in words. */
export function accessText(read, write) { return [read && "Read", write && "Write"].filter(Boolean).join(" + "); }

/** Returns the Secret that hands over the token of a key with its details: its name, the key of the token in it, and its ttl. */
export function secretOf({ name, secret, secret_name }) {
  return { name: secret_name ?? secret?.name ?? `${name}-token`, key: secret?.key ?? "token", ttl: secret?.ttl };
}

/** A key as the page shows it. */
export class Key {
  constructor(key) {
    this.id = key.id;
    this.name = key.name; // of the APIKey object
    this.appName = key.app_name;
    this.hint = key.hint;
    this.read = key.read_access;
    this.write = key.write_access;
    this.state = stateOf(key.state, key.reason);
    this.reason = key.reason;
    this.message = key.message;
    this.manager = key.manager;
    this.bootstrap = key.bootstrap;
    this.managedBy = key.managed_by; // a deployment tool; lists do not contain it
    this.created = Date.parse(key.created_at);
    this.updated = Date.parse(key.updated_at);
    this.expires = key.expires_at ? Date.parse(key.expires_at) : Infinity;
    this.lastUsed = key.last_used_at ? Date.parse(key.last_used_at) : 0; // 0 if no use is on record
    this.unusedSince = key.unused_since ? Date.parse(key.unused_since) : null; // null if the key is not issued
    this.searched = folded([key.app_name, key.name, key.hint, key.reason].join("\n"));
  }

  /** Reports whether the key has a folded word. An ID matches from its start only, because its digits contain many short words. */
  matches(word) { return this.searched.includes(word) || this.id.startsWith(word); }

  get access() { return accessText(this.read, this.write); }

  /** The key was deactivated or has expired, which is final. */
  get ended() { return this.state === "expired" || this.state === "deactivated"; }

  /** The token of the key can be rotated. A bootstrap key gets another token from its key file. */
  get canRotate() { return this.state === "active" && !this.bootstrap; }

  get isUnused() { return unusedFor(unusedDays)(this, serverNow()); }

  /** The reason why the key is not issued, or why a user must act. */
  get problem() {
    const fine = this.ended || this.state === "active" && this.reason === "Issued";
    return fine ? null : this.message;
  }
}

/** Returns a text in the form that a search compares. */
function folded(text) { return text.normalize("NFKC").toLowerCase(); }

export class KeyList {
  #keys = new Map();
  #sorted = []; // in #order
  #order = ""; // empty when the keys have changed

  get size() { return this.#keys.size; }

  /** Returns the number of keys that an option of the state filter selects. */
  count(state) { return this.#keys.values().reduce((count, key) => count + filters.state.options[state].selects(key), 0); }

  get(id) { return this.#keys.get(id); }

  /** Returns the key that gets the app name of a key after it, or null. The order is that of the controller. */
  heirOf({ id, appName }) {
    const name = appName.normalize();
    const waiting = [...this.#keys.values()].filter((key) => key.id !== id && key.state === "waiting" && key.appName.normalize() === name);
    return waiting.sort((a, b) => a.created - b.created || (a.id < b.id ? -1 : 1))[0] ?? null;
  }

  /** Adds or updates keys of the API. */
  put(keys) {
    for (const key of keys) this.#keys.set(key.id, new Key(key));
    this.#order = "";
  }

  clear() {
    this.#keys.clear();
    this.#order = "";
  }

  /**
   * Returns the keys of a page, counted from 0, and the number of keys that match. A key matches if it contains all words of the search. A
   * page after the last one is the last one.
   */
  view({ search, sort, descending, page, ...chosen }) {
    const words = folded(search).split(/\s+/).filter(Boolean);
    const selecting = Object.entries(filters).map(([name, { options }]) => options[chosen[name]].selects).filter(Boolean);
    const now = serverNow();
    const found = this.#sortedBy(sort, descending).filter((key) =>
      selecting.every((selects) => selects(key, now)) && words.every((word) => key.matches(word)));
    const pages = Math.max(1, Math.ceil(found.length / rowsPerPage));
    const shown = Math.min(page, pages - 1);
    return { keys: found.slice(shown * rowsPerPage, (shown + 1) * rowsPerPage), found: found.length, page: shown, pages };
  }

  #sortedBy(sort, descending) {
    const order = `${sort} ${descending}`;
    if (order !== this.#order) {
      const { compare } = columns[sort];
      const direction = descending ? -1 : 1;
      this.#sorted = [...this.#keys.values()].sort((a, b) => direction * compare(a, b) || b.created - a.created || (a.id < b.id ? -1 : 1));
      this.#order = order;
    }
    return this.#sorted;
  }
}
