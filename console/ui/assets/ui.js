// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Helpers for all views.

import { ProxyError } from "./api.js";

export function byId(id) { return document.getElementById(id); }

/** Returns a code element with a text. */
export function code(text) {
  const element = document.createElement("code");
  element.textContent = text;
  return element;
}

/** Sets the text of an element. Without a text, it hides the element. */
export function setText(element, text) {
  element.textContent = text || "";
  element.hidden = !text;
}

/** Shows an error in an element. If a proxy wants the user to sign in, the element gets a button that reloads the page. */
export function showError(element, error, text = error.message) {
  setText(element, text);
  if (!(error instanceof ProxyError)) return;
  const reload = document.createElement("button");
  reload.type = "button";
  reload.textContent = "Reload the page";
  reload.addEventListener("click", () => location.reload());
  element.append(" ", reload);
}

const labels = { app_name: "The app name", expires_at: "The expiry" }; // of fields that messages of the API name

/** Returns the message of an error for a form: refusals name the fields as the form does. */
export function messageOf({ status, message }) {
  return status === 422 ? message.replace(/\b(app_name|expires_at)\b/g, (field) => labels[field]) : message;
}

/** Shows pairs of a term and a text in a description list. Pairs without a text are left out, and an empty list is hidden. */
export function showFacts(list, facts) {
  const shown = facts.filter(([, text]) => text);
  list.replaceChildren(...shown.flatMap(([term, text]) => {
    const name = document.createElement("dt");
    const value = document.createElement("dd");
    name.textContent = term;
    value.textContent = text;
    value.dir = "auto";
    return [name, value];
  }));
  list.hidden = shown.length === 0;
}

let toastTimer;

/** Shows a message for a few seconds. */
export function toast(text) {
  byId("toast").textContent = text;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { byId("toast").textContent = ""; }, 5000);
}

/** Copies the text of an element. If the browser does not allow that, it selects the text for the user to copy, and returns false. */
export async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.textContent); // undefined on a page from plain HTTP
    return true;
  } catch {
    getSelection().selectAllChildren(element);
    return false;
  }
}

export const copyManually = "Selected: press Ctrl+C or ⌘C to copy.";

/** Makes an element equal to another one. The parts that are equal already stay, with the focus and the selection in them. */
export function morph(element, wanted) {
  if (element.isEqualNode(wanted)) return;
  const similar = element.nodeType === Node.ELEMENT_NODE && element.nodeName === wanted.nodeName
    && element.childNodes.length === wanted.childNodes.length && wanted.hasChildNodes();
  if (!similar) {
    element.replaceWith(wanted);
    return;
  }
  for (const { name } of [...element.attributes]) if (!wanted.hasAttribute(name)) element.removeAttribute(name);
  for (const { name, value } of wanted.attributes) if (element.getAttribute(name) !== value) element.setAttribute(name, value);
  const children = [...wanted.childNodes];
  [...element.childNodes].forEach((child, i) => morph(child, children[i]));
}

/** Lets the Cancel button and Esc close a dialog, unless its form is being submitted. */
export function closable(dialog) {
  for (const button of dialog.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => { if (!dialog.querySelector("[aria-busy]")) dialog.close(); });
  }
  resist(dialog, () => dialog.querySelector("[aria-busy]"));
}

/** Keeps a dialog open when the user presses Esc, as long as stayOpen returns true. */
export function resist(dialog, stayOpen) {
  dialog.addEventListener("cancel", (event) => { if (stayOpen()) event.preventDefault(); });
  dialog.addEventListener("keydown", (event) => { if (event.key === "Escape" && stayOpen()) event.preventDefault(); });
}

/** Runs submit when a form is submitted, once at a time. Meanwhile, the button has another label. */
export function onSubmit(form, label, submit) {
  const button = form.querySelector("[type=submit]");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (form.ariaBusy) return;
    const before = button.textContent;
    form.ariaBusy = button.ariaDisabled = "true";
    button.textContent = label;
    try {
      await submit();
    } finally {
      form.ariaBusy = button.ariaDisabled = null;
      button.textContent = before;
    }
  });
}
