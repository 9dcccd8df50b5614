// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The fragment of the URL. It names the view, and which keys the list shows: #keys?q=shop&state=active&page=2, #keys/ID or #settings.

import { columns, filters } from "./keylist.js";

/** The keys that the list shows at first. */
export const firstSelection = { search: "", state: "", access: "", expiry: "", unused: "", sort: "created", descending: true, page: 0 };

/** Returns what a fragment names. Unknown or invalid parts have no effect. */
export function parseRoute(fragment) {
  const [path, query] = fragment.replace(/^#/, "").split(/\?(.*)/s);
  if (path === "settings") return { view: "settings" };
  const id = /^keys\/(.+)$/.exec(path)?.[1];
  return id ? { view: "detail", id: decoded(id) } : { view: "keys", selection: parseSelection(new URLSearchParams(query ?? "")) };
}

/** Returns the fragment of the view of a key. */
export function keyFragment(id) { return `#keys/${encodeURIComponent(id)}`; }

/** Returns the fragment of the list. */
export function listFragment({ search, sort, descending, page, ...chosen }) {
  const query = new URLSearchParams();
  const set = (name, value, unless = "") => { if (value !== unless) query.set(name, value); };
  set("q", search.trim());
  for (const name of Object.keys(filters)) set(name, chosen[name]);
  set("sort", descending ? `-${sort}` : sort, "-created");
  set("page", page + 1, 1);
  return query.size ? `#keys?${query}` : "#keys";
}

function parseSelection(query) {
  const selection = { ...firstSelection, search: query.get("q") ?? "" };
  for (const [name, { options }] of Object.entries(filters)) {
    const value = query.get(name);
    if (value && Object.hasOwn(options, value)) selection[name] = value;
  }
  const [, minus, sort] = /^(-?)(\w+)$/.exec(query.get("sort")) ?? [];
  if (sort && Object.hasOwn(columns, sort)) Object.assign(selection, { sort, descending: minus === "-" });
  const page = Number(query.get("page"));
  if (Number.isSafeInteger(page) && page > 0) selection.page = page - 1;
  return selection;
}

function decoded(id) {
  try {
    return decodeURIComponent(id);
  } catch {
    return id;
  }
}
