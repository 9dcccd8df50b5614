// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Times as the page shows them.

import { serverNow } from "./api.js";

const minute = 60_000; // ms
const hour = 60 * minute;
export const day = 24 * hour;

const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

/** Returns an element with the local date and time. Its tooltip is the time in UTC. */
export function timeElement(instant) {
  const date = new Date(instant);
  const two = (value) => String(value).padStart(2, "0");
  const element = document.createElement("time");
  const clock = document.createElement("span");
  clock.textContent = `${two(date.getHours())}:${two(date.getMinutes())}`;
  element.append(`${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} `, clock);
  element.dateTime = element.title = date.toISOString().replace(".000", "");
  return element;
}

/** Returns an element with the distance of an instant from now. Its tooltip is the time in UTC. */
export function relativeTimeElement(instant) {
  const element = timeElement(instant);
  element.textContent = fromNow(instant);
  return element;
}

/** Returns the distance of an instant from now in words, such as "in 3 days" or "2 hours ago". */
export function fromNow(instant) {
  const now = serverNow();
  const distance = instant - now;
  const length = Math.abs(distance);
  if (length < minute) return distance < 0 ? "just now" : "in less than a minute";
  if (length < hour) return relative.format(Math.trunc(distance / minute), "minute");
  if (length < day) return relative.format(Math.trunc(distance / hour), "hour");
  const days = Math.round((midnightBefore(instant) - midnightBefore(now)) / day); // a day may have 23 or 25 hours
  if (Math.abs(days) < 60) return relative.format(days, "day");
  return Math.abs(days) < 730 ? relative.format(Math.round(days / 30.44), "month") : relative.format(Math.round(days / 365.25), "year");
}

function midnightBefore(instant) { return new Date(instant).setHours(0, 0, 0, 0); }
