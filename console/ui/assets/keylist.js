// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The keys: which of them the table shows, and in what order.

export const rowsPerPage = 50;

const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

/** The columns that keys can be sorted by. Those with newestFirst are sorted in descending order at first. */
export const columns = {
  name: { label: "App name", compare: (a, b) => collator.compare(a.appName, b.appName) },
  access: { label: "Access", compare: (a, b) => rank(a) - rank(b) },
  state: { label: "State", compare: (a, b) => states.indexOf(a.state) - states.indexOf(b.state) },
  created: { label: "Created", newestFirst: true, compare: (a, b) => a.created - b.created },
  updated: { label: "Updated", newestFirst: true, compare: (a, b) => a.updated - b.updated },
  expires: { label: "Expires", compare: (a, b) => a.expires - b.expires },
};

const states = ["active", "pending", "waiting", "blocked", "expired", "deactivated"];

function rank(key) { return 2 * key.write + key.read; }

/** Returns what the page calls a state of the API. A new key waits for its app name before the controller reports that it is stalled. */
function stateOf(state, reason) {
  if (state !== "pending" && state !== "stalled") return state;
  return reason === "AppNameConflict" ? "waiting" : state === "stalled" ? "blocked" : "pending";
}

/** A key as the page shows it. */
class Key {
  constructor({ id, name, app_name, hint, state, reason, bootstrap, read_access, write_access, created_at, updated_at, expires_at }) {
    this.id = id;
    this.name = name; // of the APIKey object
    this.appName = app_name;
    this.hint = hint;
    this.bootstrap = bootstrap;
    this.read = read_access;
    this.write = write_access;
    this.state = stateOf(state, reason);
    this.created = Date.parse(created_at);
    this.updated = Date.parse(updated_at);
    this.expires = expires_at ? Date.parse(expires_at) : Infinity;
    this.searched = folded(`${app_name}\n${id}`);
  }

  /** The key was deactivated or has expired, which is final. */
  get ended() { return this.state === "expired" || this.state === "deactivated"; }
}

/** Returns a text in the form that a search compares. */
function folded(text) { return text.normalize("NFKC").toLowerCase(); }

export class KeyList {
  #keys = new Map();
  #sorted = []; // in #order
  #order = ""; // empty when the keys have changed

  get size() { return this.#keys.size; }

  get active() { return this.#keys.values().reduce((count, key) => count + (key.state === "active"), 0); }

  get(id) { return this.#keys.get(id); }

  /** Returns the key that gets the app name of a key after it, or nothing. */
  heirOf({ id, appName }) {
    const name = appName.normalize();
    const waiting = [...this.#keys.values()].filter((key) => key.id !== id && key.state === "waiting" && key.appName.normalize() === name);
    return waiting.sort((a, b) => a.created - b.created)[0];
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

  /** Returns the keys of a page, counted from 0, and the number of keys that match. A page after the last one is the last one. */
  view({ search, activeOnly, sort, descending, page }) {
    const text = folded(search.trim());
    const found = this.#sortedBy(sort, descending)
      .filter((key) => key.searched.includes(text) && (!activeOnly || key.state === "active"));
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
