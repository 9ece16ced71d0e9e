// Brings the stream's events to the parts of the page, once a frame, and the clocks on, once a second.

import { w } from "/words.js";
import * as devices from "/devices.js";
import * as facts from "/facts.js";
import { fill, say, seconds, show } from "/format.js";
import { Stream } from "/stream.js";

const by_id = (id) => document.getElementById(id);

// The gateway's clocks against ours: what they showed when ours showed nothing yet.
let mono_offset = 0;
let wall_offset = 0;
let known = null;
let away_since = null;
let heard = Date.now();
let current = Date.now();
let frame = 0;

const mono = () => performance.now() + mono_offset;

const draw = () => {
  frame = 0;
  devices.refresh(mono());
};

const soon = () => {
  if (!frame) frame = requestAnimationFrame(draw);
};

const set_clocks = ({ now, mono_ms }) => {
  mono_offset = mono_ms - performance.now();
  wall_offset = Date.parse(now) - performance.now();
};

const hear = (name, data) => {
  if (data.mono_ms !== undefined && data.now !== undefined) set_clocks(data);
  if (name === "status") {
    known = data.status;
    facts.summary(data.summary, devices.reveal);
    devices.status(known.buses);
    facts.status(known, Date.parse(data.now) * 1000);
  } else if (name === "gap") {
    const between = { from: seconds(current), to: seconds(Date.now()) };
    say(by_id("hole"), fill(w.hole, between));
    show(by_id("hole"), true);
    setTimeout(() => show(by_id("hole"), false), 60_000);
  } else if (name === "snapshot") {
    devices.begin();
  } else if (name === "device") {
    devices.piece(data);
  } else if (name === "ready") {
    devices.ready();
    if (known) devices.status(known.buses);
  } else if (name === "readings") {
    devices.take(data.batches);
  }
  heard = Date.now();
  if (name === "readings" || name === "ready" || name === "beat") current = heard;
  soon();
};

const state = (open) => {
  if (open === (away_since === null)) return;
  away_since = open ? null : heard;
  document.body.classList.toggle("is-away", !open);
  if (!open) say(by_id("away"), fill(w.away, { since: seconds(heard) }));
  show(by_id("away"), !open);
};

setInterval(() => {
  if (document.visibilityState !== "visible" || away_since !== null) return;
  if (known) facts.clock(known, performance.now() + wall_offset);
  soon();
}, 1000);

const dialog = by_id("report-dialog");
const text = by_id("report-text");

const copy = async () => {
  const answer = await fetch("/api/report").catch(() => null);
  if (!answer?.ok) {
    text.value = "";
    say(by_id("report-said"), w.report_failed);
    dialog.showModal();
    return;
  }
  text.value = await answer.text();
  dialog.showModal();
  text.focus();
  text.select();
  text.scrollTop = 0;
  const copied = await navigator.clipboard?.writeText(text.value).then(
    () => true,
    () => false,
  );
  say(by_id("report-said"), copied ? w.report_copied : w.report_select);
};

by_id("report").addEventListener("click", copy);
by_id("report-close").addEventListener("click", () => dialog.close());

new Stream(hear, state);
