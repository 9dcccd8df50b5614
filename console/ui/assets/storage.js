// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The entries of the page in the storage of the browser. All consoles of a host share the storage, so each entry is that of a path.

import { basePath } from "./api.js";

/** Returns the name of an entry of this console. */
export function entryName(name) { return `${name}:${basePath}`; }

/** Returns the value of an entry of localStorage or sessionStorage, or null if there is none or the browser does not allow access. */
export function readEntry(storage, name) {
  try {
    return globalThis[storage].getItem(name);
  } catch {
    return null;
  }
}

/** Sets the value of an entry, or deletes it for null. Returns false if the browser does not allow that. */
export function writeEntry(storage, name, value) {
  try {
    if (value === null) globalThis[storage].removeItem(name);
    else globalThis[storage].setItem(name, value);
    return true;
  } catch {
    return false;
  }
}
