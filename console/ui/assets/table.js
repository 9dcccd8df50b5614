// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The table of keys, with what chooses its rows.

import { columns, rowsPerPage } from "./keylist.js";
import { byId, copy, copyYourself, say, toast } from "./ui.js";

const minute = 60_000; // ms
const day = 1440 * minute;
const words = { active: "Active", inactive: "Inactive", expired: "Expired" };
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const number = new Intl.NumberFormat("en");

/** Shows a KeyList. onDeactivate is called with the key that is to be deactivated. */
export class Table {
  #list;
  #choice = { search: "", activeOnly: false, sort: "created", descending: true, page: 0 };
  #pages = 1;
  #loading = false;

  constructor(list, onDeactivate) {
    this.#list = list;
    byId("search").addEventListener("input", (event) => this.#choose({ search: event.target.value, page: 0 }));
    byId("active-only").addEventListener("change", (event) => this.#choose({ activeOnly: event.target.checked, page: 0 }));
    document.querySelector("form[role=search]").addEventListener("submit", (event) => event.preventDefault());
    this.#offerOrders();
    for (const button of document.querySelectorAll("[data-page]")) {
      button.addEventListener("click", () => this.#turnTo(button));
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

  /** Shows the list as it is now; loading says that more of it is to come. */
  show(loading = this.#loading) {
    this.#loading = loading;
    const { keys, found, page, pages } = this.#list.view(this.#choice);
    this.#choice.page = page;
    this.#pages = pages;
    replaceRows(keys.map(row));
    byId("table").ariaBusy = loading;
    byId("table").hidden = keys.length === 0;
    this.#showOrder();
    this.#showCounts(found);
  }

  #choose(change) {
    Object.assign(this.#choice, change);
    this.show();
  }

  #turnTo(button) {
    if (button.ariaDisabled) return;
    const { page } = this.#choice;
    this.#choose({ page: { first: 0, previous: page - 1, next: page + 1, last: this.#pages - 1 }[button.dataset.page] });
    byId("table").scrollIntoView({ block: "nearest" });
  }

  #offerOrders() {
    for (const header of document.querySelectorAll("[data-sort]")) {
      const { sort } = header.dataset;
      header.firstElementChild.addEventListener("click", () => this.#choose({
        sort, page: 0,
        descending: sort === this.#choice.sort ? !this.#choice.descending : Boolean(columns[sort].newestFirst),
      }));
    }
    const choice = byId("sort-choice");
    choice.append(...Object.entries(columns).map(([sort, { label }]) => new Option(label, sort)));
    choice.addEventListener("change", () => this.#choose({
      sort: choice.value, page: 0, descending: Boolean(columns[choice.value].newestFirst),
    }));
  }

  #showOrder() {
    const { sort, descending } = this.#choice;
    for (const header of document.querySelectorAll("[data-sort]")) {
      header.ariaSort = header.dataset.sort !== sort ? null : descending ? "descending" : "ascending";
    }
    byId("sort-choice").value = sort;
  }

  #showCounts(found) {
    const { search, activeOnly, page } = this.#choice;
    const { size, active } = this.#list;
    byId("counts").textContent = size || !this.#loading ? `${number.format(active)} active, ${number.format(size)} in all` : "";
    const first = page * rowsPerPage + 1;
    const last = Math.min(found, first + rowsPerPage - 1);
    byId("range").textContent =
      (found ? `${number.format(first)}–${number.format(last)} of ${number.format(found)}` : "") + (this.#loading ? " · loading …" : "");
    for (const button of document.querySelectorAll("[data-page]")) {
      const back = button.dataset.page === "first" || button.dataset.page === "previous";
      button.ariaDisabled = (back ? page === 0 : page === this.#pages - 1) ? "true" : null;
      button.hidden = this.#pages === 1;
    }
    say(byId("empty"), found || this.#loading ? "" : nothing(search.trim(), activeOnly, size));
  }
}

function nothing(search, activeOnly, size) {
  if (size === 0) return "There are no keys yet.";
  return `No ${activeOnly ? "active " : ""}key ${search ? `matches “${search}”` : "is here"}.`;
}

function row(key) {
  const row = byId("row").content.firstElementChild.cloneNode(true);
  const cell = (field) => row.querySelector(`[data-field=${field}]`);
  row.dataset.id = key.id;
  cell("name").firstElementChild.textContent = key.name;
  cell("access").textContent = [key.read && "Read", key.write && "Write"].filter(Boolean).join(" + ");
  const { state } = key;
  cell("state").firstElementChild.dataset.state = state;
  cell("state").querySelector("use").setAttribute("href", `#icon-${state}`);
  cell("state").querySelector("span > span").textContent = words[state];
  cell("created").replaceChildren(time(key.created));
  cell("updated").replaceChildren(time(key.updated));
  cell("expires").replaceChildren(...expiry(key));
  cell("id").querySelector("code").textContent = key.id;
  cell("id").querySelector("button").ariaLabel = `Copy the ID of ${key.name}`;
  const action = cell("action").firstElementChild;
  if (state === "active") action.ariaLabel = `Deactivate ${key.name}`;
  else action.remove();
  return row;
}

/** The day and the hour here; pointing at it shows the instant in UTC. */
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
  const days = Math.round((midnightBefore(expires) - midnightBefore(Date.now())) / day); // one of them can have another hour
  if (state !== "active" || days > 30) return [time(expires)];
  const soon = document.createElement("small");
  soon.textContent = relative.format(days, "day");
  return [time(expires), " ", soon];
}

function midnightBefore(instant) { return new Date(instant).setHours(0, 0, 0, 0); }

async function copyId(row, button) {
  if (!await copy(row.querySelector("[data-field=id] code"))) return toast(copyYourself);
  const icon = button.querySelector("use");
  icon.setAttribute("href", "#icon-done");
  setTimeout(() => icon.setAttribute("href", "#icon-copy"), 2000);
  toast("The ID is copied.");
}

/**
 * Shows rows in the place of those that are there. Those that have not changed stay, so that what the user is about to press does not go
 * away, and the focus stays on the button of the same key.
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
