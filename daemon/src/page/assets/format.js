// Numbers, times and text as a person reads them, and the one way by which elements are made.

import { w } from "/words.js";

/** Puts values into a text: fill("silent since {since}", { since: "14:02" }). */
export const fill = (text, values) => text.replace(/\{(\w+)\}/g, (whole, key) => values[key] ?? whole);

/** Characters that would reorder or break a line of text. The gateway replaces them already. */
const ODD = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/** Text from outside, safe to show. */
export const clean = (text) => String(text).replace(ODD, "\ufffd");

/** An element with attributes and children. Text becomes text, never markup. */
export const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== undefined && child !== null));
  return element;
};

/** Sets a text only where it differs, so that nothing is read out or painted twice. */
export const say = (element, text) => {
  const shown = clean(text);
  if (element.textContent !== shown) element.textContent = shown;
};

/** Shows or hides. */
export const show = (element, shown) => {
  if (element.hidden === shown) element.hidden = !shown;
};

const grouped = (digits) => digits.replace(/\B(?=(\d{3})+$)/g, "\u202f");

/** 1234567 → 1 234 567, with narrow spaces that do not break. */
export const count = (n) => grouped(String(Math.round(n ?? 0)));

/** From here on a number has more digits than are exact, and than a phone is wide: nearly always a wrong word order. */
const HUGE = 1e15;

/** A reading's value in its point's decimals. */
export const value = (raw, decimals) => {
  if (typeof raw === "boolean") return raw ? w.yes : w.no;
  if (typeof raw !== "number") return clean(raw);
  if (Math.abs(raw) >= HUGE) return raw.toExponential(6).replace("-", "\u2212");
  const plain = decimals === undefined ? String(Number(raw.toPrecision(7))) : raw.toFixed(decimals);
  const [, sign, whole, rest] = /^(-?)(\d+)(.*)$/.exec(plain) ?? [];
  if (whole === undefined) return plain;
  return (sign ? "\u2212" : "") + (whole.length > 4 ? grouped(whole) : whole) + rest;
};

/** Seconds in the largest unit that says enough. */
export const duration = (seconds) => {
  const s = Math.max(0, seconds);
  if (s < 1) return w.just_now;
  if (s < 100) return fill(w.s, { n: Math.floor(s) });
  if (s < 6000) return fill(w.min, { n: Math.floor(s / 60) });
  if (s < 72 * 3600) return fill(w.h, { n: Math.floor(s / 3600) });
  return fill(w.d, { n: Math.floor(s / 86400) });
};

/** Hours until something, roughly. */
export const hours = (h) => (h > 24 * 365 ? w.full_never : duration(h * 3600));

/** Microseconds of an answer time. */
export const milliseconds = (us) => fill(w.ms, { n: us < 10_000 ? (us / 1000).toFixed(1) : Math.round(us / 1000) });

/** Below this a clock has never been set: 2024-01-01. */
const PLAUSIBLE_MS = 1_704_067_200_000;

/** A wall clock in µs as the reader's own time: 14:02, with the day if it is another one. */
export const time = (us) => {
  const ms = us / 1000;
  if (ms < PLAUSIBLE_MS) return w.before_clock;
  const at = new Date(ms);
  const clock = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const today = new Date().toDateString() === at.toDateString();
  return at.toLocaleString("en-GB", today ? clock : { day: "numeric", month: "short", ...clock });
};

/** With seconds, for the clock itself. */
export const seconds = (ms) => new Date(ms).toLocaleTimeString("en-GB", { hourCycle: "h23" });

/** Bytes with three digits. */
export const bytes = (n) => {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (n >= size) return `${(n / size).toPrecision(3).replace(/\.0+$/, "")}\u00a0${unit}`;
  }
  return `${Math.round(n)}\u00a0B`;
};

/** A share as percent; what is not nothing is not shown as nothing. */
export const percent = (share) => {
  const p = share * 100;
  return `${p > 0 && p < 1 ? "< 1" : Math.round(p)} %`;
};
