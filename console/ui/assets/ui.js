// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// What several parts of the page do alike.

export function byId(id) { return document.getElementById(id); }

/** Shows a text, or hides its element when there is none. */
export function say(element, text) {
  element.textContent = text ?? "";
  element.hidden = !text;
}

let fading;

/** Says that something is done, for some seconds. */
export function toast(text) {
  byId("toast").textContent = text;
  clearTimeout(fading);
  fading = setTimeout(() => { byId("toast").textContent = ""; }, 5000);
}

/** Copies the text of an element. Where the browser does not allow that, it selects the text for the user to copy, and returns false. */
export async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.textContent); // there is no clipboard on a page that came over plain HTTP
    return true;
  } catch {
    getSelection().selectAllChildren(element);
    return false;
  }
}

export const copyYourself = "Selected: press Ctrl+C or ⌘C to copy.";

/** Lets a dialog's buttons close it. */
export function closable(dialog) {
  for (const button of dialog.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => { if (!dialog.querySelector("[aria-busy]")) dialog.close(); });
  }
  resist(dialog, () => dialog.querySelector("[aria-busy]"));
}

/** Keeps a dialog open, against Esc and the like, as long as insist returns true. */
export function resist(dialog, insist) {
  dialog.addEventListener("cancel", (event) => { if (insist()) event.preventDefault(); });
  dialog.addEventListener("keydown", (event) => { if (event.key === "Escape" && insist()) event.preventDefault(); });
}

/** Does the work of a form when it is submitted, once at a time; until it is done, the button has another label. */
export function onSubmit(form, label, work) {
  const button = form.querySelector("[type=submit]");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (form.ariaBusy) return;
    const before = button.textContent;
    form.ariaBusy = button.ariaDisabled = "true";
    button.textContent = label;
    try {
      await work();
    } finally {
      form.ariaBusy = button.ariaDisabled = null;
      button.textContent = before;
    }
  });
}
