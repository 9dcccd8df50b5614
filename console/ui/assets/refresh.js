// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The automatic refresh.

const interval = 30_000; // ms
const maxShare = 0.05; // of the time, for a list that takes long to load

/** Calls load each 30 s, and when the page becomes visible again. A hidden page, and a page with an open dialog, are not refreshed. */
export function refreshWhileVisible(load) {
  let timer;
  async function refresh() {
    clearTimeout(timer);
    let took = 0;
    if (!document.hidden && !document.querySelector("dialog[open]")) {
      const begin = performance.now();
      await load();
      took = performance.now() - begin;
    }
    clearTimeout(timer);
    timer = setTimeout(refresh, Math.max(interval, took / maxShare));
  }
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
  timer = setTimeout(refresh, interval);
}
