// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The table of keys, with its search, filters, order and pages.

import { serverNow } from "./api.js";
import { columns, filters, hintLength, rowsPerPage, stateNames } from "./keylist.js";
import { firstSelection, keyFragment, listFragment } from "./route.js";
import { day, fromNow, relativeTimeElement, timeElement } from "./time.js";
import { byId, morph, setText, toast } from "./ui.js";

const typingPause = 300; // ms, after which the URL follows the search

// The times before the expiry of an active key at which the page shows how long it still is, at first without a mark.
const expiryNotice = 30 * day;
const expiryWarning = 7 * day;
const expiryAlarm = day;

const number = new Intl.NumberFormat("en");

/** A token as the controller or a console generates it. */
const token = /sq_[\w-]{43}|\b[0-9a-f]{64}\b/g;

/** Shows a KeyList. onRotate and onDeactivate are called with a key when the user clicks its buttons. */
export class Table {
  #list;
  #self = null; // the key of the page, once it is known
  #selection = firstSelection;
  #page = 0; // that is shown: the last one, if the selected one does not exist
  #pages = 1;
  #loading = false;
  #typing; // timer

  constructor(list, { onRotate, onDeactivate }) {
    this.#list = list;
    this.#setUpSearch();
    this.#setUpFilters();
    this.#setUpOrders();
    for (const button of document.querySelectorAll("[data-page]")) {
      button.addEventListener("click", () => this.#goTo(button));
    }
    const actions = { rotate: onRotate, deactivate: onDeactivate };
    byId("rows").addEventListener("click", ({ target }) => {
      const button = target.closest("button");
      if (button) actions[button.dataset.action](list.get(button.closest("tr").dataset.id));
    });
  }

  /** The fragment of the URL for what the table shows. */
  get fragment() { return listFragment(this.#selection); }

  /** Shows the keys that the URL selects. */
  select(selection) {
    this.#selection = selection;
    if (byId("search").value.trim() !== selection.search) byId("search").value = selection.search;
    this.show();
  }

  /** Shows the current list. loading is true while more keys arrive. self is the key of the page. */
  show({ loading = this.#loading, self = this.#self } = {}) {
    this.#loading = loading;
    this.#self = self;
    const { keys, found, page, pages } = this.#list.view(this.#selection);
    this.#page = page;
    this.#pages = pages;
    showRows(keys.map((key) => row(key, self)));
    byId("table").ariaBusy = loading;
    byId("table").hidden = keys.length === 0;
    this.#showControls();
    this.#showCounts(found);
  }

  /** Moves the focus to the next or previous row, by 1 or -1. Returns false if there is none. */
  moveFocus(by) {
    const links = [...byId("rows").querySelectorAll("[data-action=open]")];
    const current = links.indexOf(document.activeElement.closest("tr")?.querySelector("[data-action=open]"));
    const next = links[current < 0 ? 0 : current + by];
    next?.focus({ preventScroll: true });
    next?.closest("tr").scrollIntoView({ block: "nearest" });
    return Boolean(next);
  }

  /** Moves the focus to the row of a key, and returns false if the table does not show it. */
  focusRow(id) {
    const link = linkOf(id);
    link?.focus({ preventScroll: true });
    return Boolean(link);
  }

  /** Selects other keys, and adds them to the history of the browser. */
  #change(change) {
    this.#selection = { ...this.#selection, page: 0, ...change };
    this.show();
    clearTimeout(this.#typing);
    if (location.hash !== this.fragment) history.pushState(null, "", this.fragment);
  }

  #setUpSearch() {
    const input = byId("search");
    const follow = () => {
      clearTimeout(this.#typing);
      if (!byId("keys").hidden) history.replaceState(history.state, "", this.fragment); // browsers allow this only so often
    };
    input.addEventListener("input", () => {
      const search = input.value.replace(token, (found) => found.slice(0, hintLength));
      if (search !== input.value) {
        input.value = search;
        toast("The search uses the start of the token only.");
      }
      this.#selection = { ...this.#selection, search: search.trim(), page: 0 };
      this.show();
      clearTimeout(this.#typing);
      this.#typing = setTimeout(follow, typingPause);
    });
    input.addEventListener("change", follow);
    document.querySelector("form[role=search]").addEventListener("submit", (event) => event.preventDefault());
    for (const button of document.querySelectorAll("[data-clear]")) {
      button.addEventListener("click", () => {
        input.value = "";
        const { sort, descending } = this.#selection;
        this.#change({ ...firstSelection, sort, descending });
        input.focus();
      });
    }
  }

  #setUpFilters() {
    for (const [name, { options }] of Object.entries(filters)) {
      const choice = byId(`${name}-filter`);
      choice.append(...Object.entries(options).map(([value, { label }]) => new Option(label, value)));
      choice.addEventListener("change", () => this.#change({ [name]: choice.value }));
    }
  }

  #setUpOrders() {
    const sortBy = (sort) => this.#change({
      sort, descending: sort === this.#selection.sort ? !this.#selection.descending : Boolean(columns[sort].newestFirst),
    });
    for (const header of document.querySelectorAll("[data-sort]")) {
      header.firstElementChild.addEventListener("click", () => sortBy(header.dataset.sort));
    }
    const choice = byId("sort-choice");
    choice.append(...Object.entries(columns).map(([sort, { label }]) => new Option(label, sort)));
    choice.addEventListener("change", () => sortBy(choice.value));
    byId("reverse").addEventListener("click", () => sortBy(this.#selection.sort));
  }

  #goTo(button) {
    if (button.ariaDisabled) return;
    const page = this.#page;
    this.#change({ page: { first: 0, previous: page - 1, next: page + 1, last: this.#pages - 1 }[button.dataset.page] });
    byId("keys").scrollIntoView({ block: "start" });
  }

  #showControls() {
    const { sort, descending, search } = this.#selection;
    for (const header of document.querySelectorAll("[data-sort]")) {
      header.ariaSort = header.dataset.sort !== sort ? null : descending ? "descending" : "ascending";
    }
    byId("sort-choice").value = sort;
    byId("reverse").dataset.descending = descending;
    byId("reverse").querySelector("span").textContent = descending ? "Descending: reverse the order" : "Ascending: reverse the order";
    for (const name of Object.keys(filters)) {
      byId(`${name}-filter`).value = this.#selection[name];
      byId(`${name}-filter`).toggleAttribute("data-chosen", this.#selection[name] !== "");
    }
    byId("clear").hidden = !search && !this.#isFiltered;
  }

  get #isFiltered() { return Object.keys(filters).some((name) => this.#selection[name] !== ""); }

  #showCounts(found) {
    const page = this.#page;
    const { size } = this.#list;
    const stalled = this.#list.count("stalled");
    const counts = [`${number.format(this.#list.count("active"))} active`, stalled && `${number.format(stalled)} waiting or blocked`,
      `${number.format(size)} total`];
    const known = this.#self?.may_list && !this.#loading;
    byId("counts").textContent = size || known ? counts.filter(Boolean).join(", ") : "";
    const first = page * rowsPerPage + 1;
    const last = Math.min(found, first + rowsPerPage - 1);
    const range = found ? `${number.format(first)}–${number.format(last)} of ${number.format(found)}` : "";
    const text = range + (this.#loading ? " · loading…" : "");
    if (byId("range").textContent !== text) byId("range").textContent = text; // screen readers announce it
    for (const button of document.querySelectorAll("[data-page]")) {
      const back = button.dataset.page === "first" || button.dataset.page === "previous";
      button.ariaDisabled = (back ? page === 0 : page === this.#pages - 1) ? "true" : null;
      button.hidden = this.#pages === 1;
    }
    const nothing = found === 0 && known;
    byId("empty").hidden = !nothing;
    byId("empty-text").textContent = nothing ? this.#emptyText(size) : "";
    byId("empty").querySelector("button").hidden = size === 0;
  }

  #emptyText(size) {
    if (size === 0) return "There are no keys yet.";
    const { search } = this.#selection;
    return `No keys match ${[search && `“${search}”`, this.#isFiltered && "the filters"].filter(Boolean).join(" and ")}.`;
  }
}

function row(key, self) {
  const row = byId("row").content.firstElementChild.cloneNode(true);
  const part = (name) => row.querySelector(`[data-field=${name}]`);
  row.dataset.id = key.id;
  const link = row.querySelector("[data-action=open]");
  link.href = keyFragment(key.id);
  link.firstElementChild.textContent = key.appName;
  row.querySelector(".marks").append(...marks(key, self));
  row.querySelector(".object").textContent = key.name;
  setText(row.querySelector(".problem"), key.problem);
  part("hint").querySelector("code").textContent = key.hint ? `${key.hint}…` : "";
  part("access").textContent = key.access;
  showState(part("state").firstElementChild, key.state);
  part("created").replaceChildren(timeElement(key.created));
  part("updated").replaceChildren(timeElement(key.updated));
  part("used").firstElementChild.append(lastUse(key));
  part("expires").firstElementChild.append(...expiry(key));
  const offer = (action, label, isOffered) => {
    const button = part("action").querySelector(`[data-action=${action}]`);
    if (self?.may_manage && isOffered) button.ariaLabel = label;
    else button.remove();
  };
  offer("rotate", `Rotate the token of ${key.appName}`, key.canRotate);
  offer("deactivate", `Deactivate ${key.appName}`, !key.ended);
  return row;
}

/** Shows a state in an element with the class state. */
export function showState(element, state) {
  element.dataset.state = state;
  element.querySelector("use").setAttribute("href", `#icon-${state}`);
  element.querySelector("span").textContent = stateNames[state];
}

/** Returns elements with what distinguishes a key. */
export function marks(key, self) {
  return [
    key.id === self?.id && ["own", "This page’s key"],
    key.bootstrap && ["bootstrap", "Bootstrap key"],
    key.manager && !key.bootstrap && ["manager", "Manager"],
    expiresWithin(key, expiryWarning) && [expiresWithin(key, expiryAlarm) ? "alarm" : "warning", `Expires ${fromNow(key.expires)}`],
  ].filter(Boolean).map(([kind, text]) => {
    const mark = document.createElement("span");
    mark.className = "mark";
    mark.dataset.mark = kind;
    mark.textContent = text;
    return mark;
  });
}

function expiresWithin({ state, expires }, time) {
  const left = expires - serverNow();
  return state === "active" && left > 0 && left <= time;
}

function lastUse({ lastUsed, unusedSince }) {
  if (unusedSince === null) return "–";
  return lastUsed ? relativeTimeElement(lastUsed) : "No use seen";
}

function expiry(key) {
  if (key.expires === Infinity) return ["Never"];
  const time = timeElement(key.expires);
  if (!expiresWithin(key, expiryNotice) || expiresWithin(key, expiryWarning)) return [time]; // a mark has the distance
  const distance = document.createElement("small");
  distance.textContent = fromNow(key.expires);
  return [time, " ", distance];
}

/** Shows these rows. Rows and cells that have not changed stay, with the focus and the selection in them. */
function showRows(rows) {
  const body = byId("rows");
  const focused = body.contains(document.activeElement) ? document.activeElement : null;
  const focusedId = focused?.closest("tr").dataset.id;
  const before = new Map([...body.children].map((row) => [row.dataset.id, row]));
  const after = rows.map((row) => {
    const current = before.get(row.dataset.id);
    if (current) morph(current, row);
    return current ?? row;
  });
  const shown = new Set(after);
  for (const row of before.values()) if (!shown.has(row)) row.remove();
  after.forEach((row, i) => { if (body.children[i] !== row) body.insertBefore(row, body.children[i] ?? null); });
  if (!focused || document.activeElement === focused) return;
  const target = focused.isConnected ? focused : linkOf(focusedId) ?? byId("keys-title"); // a row that moves loses the focus
  target.focus({ preventScroll: true });
}

/** Returns the link to a key that the table shows. */
function linkOf(id) { return byId("rows").querySelector(`[data-id="${CSS.escape(id)}"] [data-action=open]`); }
