// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The table of keys, with its search, order and pages.

import { columns, rowsPerPage } from "./keylist.js";
import { byId, copy, copyManually, setText, toast } from "./ui.js";

const minute = 60_000; // ms
const day = 1440 * minute;
const stateNames = {
  active: "Active", pending: "Pending", waiting: "Waiting", blocked: "Blocked", expired: "Expired", deactivated: "Inactive",
};
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const number = new Intl.NumberFormat("en");

/** Shows a KeyList. onDeactivate is called with a key when the user clicks its Deactivate button. */
export class Table {
  #list;
  #selection = { search: "", activeOnly: false, sort: "created", descending: true, page: 0 };
  #pages = 1;
  #loading = false;

  constructor(list, onDeactivate) {
    this.#list = list;
    byId("search").addEventListener("input", (event) => this.#select({ search: event.target.value, page: 0 }));
    byId("active-only").addEventListener("change", (event) => this.#select({ activeOnly: event.target.checked, page: 0 }));
    document.querySelector("form[role=search]").addEventListener("submit", (event) => event.preventDefault());
    this.#setUpOrders();
    for (const button of document.querySelectorAll("[data-page]")) {
      button.addEventListener("click", () => this.#goTo(button));
    }
    byId("rows").addEventListener("click", ({ target }) => {
      const button = target.closest("button");
      if (!button) return;
      const row = button.closest("tr");
      if (button.dataset.action === "deactivate") onDeactivate(list.get(row.dataset.id));
      else copyId(row, button);
    });
    setInterval(() => this.show(), minute); // keys expire
  }

  /** Shows the current list. loading is true while more keys arrive. */
  show(loading = this.#loading) {
    this.#loading = loading;
    const { keys, found, page, pages } = this.#list.view(this.#selection);
    this.#selection.page = page;
    this.#pages = pages;
    replaceRows(keys.map(row));
    byId("table").ariaBusy = loading;
    byId("table").hidden = keys.length === 0;
    this.#showOrder();
    this.#showCounts(found);
  }

  #select(change) {
    Object.assign(this.#selection, change);
    this.show();
  }

  #goTo(button) {
    if (button.ariaDisabled) return;
    const { page } = this.#selection;
    this.#select({ page: { first: 0, previous: page - 1, next: page + 1, last: this.#pages - 1 }[button.dataset.page] });
    byId("table").scrollIntoView({ block: "nearest" });
  }

  #setUpOrders() {
    for (const header of document.querySelectorAll("[data-sort]")) {
      const { sort } = header.dataset;
      header.firstElementChild.addEventListener("click", () => this.#select({
        sort, page: 0,
        descending: sort === this.#selection.sort ? !this.#selection.descending : Boolean(columns[sort].newestFirst),
      }));
    }
    const choice = byId("sort-choice");
    choice.append(...Object.entries(columns).map(([sort, { label }]) => new Option(label, sort)));
    choice.addEventListener("change", () => this.#select({
      sort: choice.value, page: 0, descending: Boolean(columns[choice.value].newestFirst),
    }));
  }

  #showOrder() {
    const { sort, descending } = this.#selection;
    for (const header of document.querySelectorAll("[data-sort]")) {
      header.ariaSort = header.dataset.sort !== sort ? null : descending ? "descending" : "ascending";
    }
    byId("sort-choice").value = sort;
  }

  #showCounts(found) {
    const { search, activeOnly, page } = this.#selection;
    const { size, active } = this.#list;
    byId("counts").textContent = size || !this.#loading ? `${number.format(active)} active, ${number.format(size)} total` : "";
    const first = page * rowsPerPage + 1;
    const last = Math.min(found, first + rowsPerPage - 1);
    byId("range").textContent =
      (found ? `${number.format(first)}–${number.format(last)} of ${number.format(found)}` : "") + (this.#loading ? " · loading…" : "");
    for (const button of document.querySelectorAll("[data-page]")) {
      const back = button.dataset.page === "first" || button.dataset.page === "previous";
      button.ariaDisabled = (back ? page === 0 : page === this.#pages - 1) ? "true" : null;
      button.hidden = this.#pages === 1;
    }
    setText(byId("empty"), found || this.#loading ? "" : emptyText(search.trim(), activeOnly, size));
  }
}

function emptyText(search, activeOnly, size) {
  if (size === 0) return "There are no keys yet.";
  return `No ${activeOnly ? "active " : ""}keys${search ? ` match “${search}”` : ""}.`;
}

function row(key) {
  const row = byId("row").content.firstElementChild.cloneNode(true);
  const cell = (field) => row.querySelector(`[data-field=${field}]`);
  row.dataset.id = key.id;
  cell("name").firstElementChild.textContent = key.appName;
  cell("access").textContent = [key.read && "Read", key.write && "Write"].filter(Boolean).join(" + ");
  const { state } = key;
  cell("state").firstElementChild.dataset.state = state;
  cell("state").querySelector("use").setAttribute("href", `#icon-${state}`);
  cell("state").querySelector("span > span").textContent = stateNames[state];
  cell("created").replaceChildren(time(key.created));
  cell("updated").replaceChildren(time(key.updated));
  cell("expires").replaceChildren(...expiry(key));
  cell("id").querySelector("code").textContent = key.id;
  cell("id").querySelector("button").ariaLabel = `Copy the ID of ${key.appName}`;
  const action = cell("action").firstElementChild;
  if (!key.ended) action.ariaLabel = `Deactivate ${key.appName}`;
  else action.remove();
  return row;
}

/** Returns an element with the local date and time. Its tooltip is the time in UTC. */
function time(instant) {
  const date = new Date(instant);
  const two = (value) => String(value).padStart(2, "0");
  const element = document.createElement("time");
  const hour = document.createElement("span");
  hour.textContent = `${two(date.getHours())}:${two(date.getMinutes())}`;
  element.append(`${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} `, hour);
  element.dateTime = element.title = date.toISOString().replace(".000", "");
  return element;
}

function expiry({ expires, state }) {
  if (expires === Infinity) return ["Never"];
  const days = Math.round((midnightBefore(expires) - midnightBefore(Date.now())) / day); // a day may have 23 or 25 hours
  if (state !== "active" || days > 30) return [time(expires)];
  const soon = document.createElement("small");
  soon.textContent = relative.format(days, "day");
  return [time(expires), " ", soon];
}

function midnightBefore(instant) { return new Date(instant).setHours(0, 0, 0, 0); }

async function copyId(row, button) {
  if (!await copy(row.querySelector("[data-field=id] code"))) return toast(copyManually);
  const icon = button.querySelector("use");
  icon.setAttribute("href", "#icon-done");
  setTimeout(() => icon.setAttribute("href", "#icon-copy"), 2000);
  toast("ID copied.");
}

/**
 * Replaces the rows of the table. Rows that have not changed stay, so that a button does not disappear while the user clicks it. The focus
 * stays on the button of the same key.
 */
function replaceRows(rows) {
  const body = byId("rows");
  const before = new Map([...body.children].map((row) => [row.dataset.id, row]));
  const after = rows.map((row) => before.get(row.dataset.id)?.isEqualNode(row) ? before.get(row.dataset.id) : row);
  if (after.length === body.children.length && after.every((row, i) => row === body.children[i])) return;

  const focused = body.contains(document.activeElement) ? document.activeElement : null;
  const { id } = focused?.closest("tr").dataset ?? {};
  body.replaceChildren(...after);
  if (!focused) return;
  const same = body.querySelector(`[data-id="${id}"] [data-action=${focused.dataset.action}]`);
  (same ?? byId("keys-title")).focus({ preventScroll: true });
}
