// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Texts about the API key of the page, which GET api-keys/self returns.

import { accessText } from "./keylist.js";
import { timeElement } from "./time.js";

/** Returns the facts about the key for a list of terms. */
export function facts(key) {
  return [
    ["App name", key.app_name],
    ["Name", key.name],
    ["Namespace", key.namespace],
    ["Access", accessText(key.read_access, key.write_access)],
    ["Manages keys", key.may_manage ? "Yes" : `No. ${manageProblem(key)}`],
    ["Expires", key.expires_at ? timeElement(Date.parse(key.expires_at)).textContent : "Never"],
    ["Kind", key.bootstrap ? "Bootstrap key, which the console created at its first start" : ""],
  ];
}

/** Returns why the key may not create and deactivate keys, or an empty text if it may. */
export function manageProblem(key) {
  if (key.may_manage) return "";
  return key.write_access ? key.manage_problem : "This key has no write access, so it cannot create or deactivate keys.";
}

/** Returns why the key may not list keys, or an empty text if it may. */
export function listProblem(key) {
  return key.may_list ? "" : "The API key of this page has no read access, so it cannot list keys.";
}
