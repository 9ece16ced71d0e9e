// What is said about the gateway as a whole: is all well, the buses, the connection, what waits, the clock.

import { w } from "/words.js";
import { bytes, clean, count, duration, fill, hours, make, milliseconds, percent, say, seconds, show, time } from "/format.js";

const by_id = (id) => document.getElementById(id);
const SEVERITY = { fault: w.fault, warning: w.warning, note: w.note };
const shown = new Map();

/** Fills a list only when it differs from what it shows; reading devices are not disturbed for nothing. */
const keep = (element, key, build) => {
  const now = JSON.stringify(key);
  if (shown.get(element) === now) return;
  shown.set(element, now);
  element.replaceChildren(...build());
};

const facts = (id, rows) => {
  const kept = rows.filter(([, text]) => text !== undefined && text !== null && text !== "");
  keep(by_id(id), kept, () =>
    kept.map(([term, text, mood]) =>
      make("div", { "data-mood": mood }, make("dt", {}, term), make("dd", {}, clean(text))),
    ),
  );
};

/** Is all well, and what is wrong. reveal(device) is called when somebody follows a problem to its device. */
export const summary = (data, reveal) => {
  const level = data.severity ?? "well";
  const state = by_id("state");
  if (state.dataset.level !== level) state.dataset.level = level;
  say(by_id("sentence"), data.sentence);
  keep(by_id("problems"), [data.problems, new Date().toDateString()], () =>
    data.problems.map((problem) => {
      const since = problem.since_us ? ` ${fill(w.since, { since: time(problem.since_us) })}` : "";
      const sentence = make("p", { class: "what" }, clean(`${problem.sentence}${since}.`));
      const remedy = problem.remedy ? make("p", { class: "do" }, clean(problem.remedy)) : null;
      const weight = make("span", { class: "weight" }, SEVERITY[problem.severity] ?? "");
      const item = make("li", { "data-severity": problem.severity }, weight, make("div", {}, sentence, remedy));
      if (problem.device) {
        const go = make("button", { type: "button", class: "go" }, clean(fill(w.reveal, { device: problem.device })));
        go.addEventListener("click", () => reveal(problem.device));
        item.append(go);
      }
      return item;
    }),
  );
};

/** How long the devices of a bus take to answer: the middle one of them, and the slowest answers of the slowest. */
const turnaround = ({ devices }) => {
  const times = devices.map((device) => device.turnaround_us).filter(Boolean);
  if (times.length === 0) return null;
  const medians = times.map(([median]) => median).sort((a, b) => a - b);
  const slowest = Math.max(...times.map(([, slow]) => slow));
  return fill(w.answer_time_value, {
    median: milliseconds(medians[Math.floor((medians.length - 1) / 2)]),
    slowest: milliseconds(slowest),
  });
};

const bus = (status) => {
  const answers_in = turnaround(status);
  const c = status.counters;
  const errors = [
    [c.timeouts, w.timeouts],
    [c.crc_errors, w.crc_errors],
    [c.bad_frames, w.bad_frames],
    [c.foreign_frames, w.foreign_frames],
    [c.exceptions, w.exceptions],
  ].filter(([n]) => n > 0);
  const meter = make("meter", { min: 0, max: 1, low: 0.8, high: 0.9, optimum: 0.3, value: status.load, "aria-hidden": "true" });
  const rows = [
    [w.load, fill(w.load_value, { percent: percent(status.load) })],
    [w.bus_answers, c.requests > 0 ? fill(w.answers_of, { n: count(c.answers), all: count(c.requests) }) : count(c.answers)],
    answers_in ? [w.answer_time, answers_in] : null,
    [w.errors, errors.map(([n, what]) => `${count(n)} ${what}`).join(", ") || w.errors_none],
    c.opens > 1 ? [w.opens, fill(w.times, { n: count(c.opens) })] : null,
  ].filter(Boolean);
  return make(
    "li",
    { class: "bus", "data-state": status.up ? "well" : "down" },
    make(
      "p",
      { class: "line" },
      make("span", { class: "sign", "aria-hidden": "true" }),
      make("span", { class: "name" }, clean(status.name)),
      " ",
      make("span", { class: "known" }, clean(`${status.driver} · ${status.place}`)),
      " ",
      make("span", { class: "said" }, status.up ? w.bus_open : w.bus_closed),
    ),
    !status.up && status.error ? make("p", { class: "quiet" }, clean(status.error)) : null,
    meter,
    make("dl", {}, ...rows.map(([term, text]) => make("div", {}, make("dt", {}, term), make("dd", {}, clean(text))))),
  );
};

/** Whole days that are left, in words. */
const days_left = (days) => {
  if (days < 0) return w.certificate_over;
  if (days < 1) return w.days_less;
  return days < 2 ? w.days_one : fill(w.days, { n: count(days) });
};

const server = (uplink, now_us) => {
  if (!uplink.configured) return facts("server", [["", w.server_none]]);
  const since = uplink.since_us ? time(uplink.since_us) : null;
  const connected = since ? fill(w.connected_since, { since }) : w.connected;
  const away = since ? fill(w.disconnected_since, { since }) : w.disconnected;
  const days = uplink.certificate_expires_us ? Math.floor((uplink.certificate_expires_us - now_us) / 86_400e6) : null;
  const certificate = days === null ? null : days_left(days);
  const refused = uplink.connected ? uplink.refused : null;
  const state = refused
    ? [fill(w[`refuses_${refused.what}`], { since: time(refused.since_us) }), refused.what === "all" ? "fault" : "warning"]
    : uplink.connected ? [connected, "well"] : [away, "fault"];
  return facts("server", [
    ["", ...state],
    [w.refuses_why, refused ? refused.why : null],
    [w.broker, uplink.broker],
    [w.why_not, uplink.connected ? null : uplink.error],
    [w.retry, uplink.connected || uplink.retry_in === null ? null : fill(w.retry_in, { n: uplink.retry_in })],
    [w.sent, fill(w.readings, { n: count(uplink.confirmed) })],
    [w.certificate, certificate, days !== null && days < 30 ? "warning" : undefined],
    [w.refused, uplink.dead_letters > 0 ? fill(w.messages, { n: count(uplink.dead_letters) }) : null, "warning"],
  ]);
};

const waiting = (spool, uplink) => {
  const n = (amount) => fill(w.readings, { n: count(amount) });
  const salvaged = spool.salvage;
  const in_memory = spool.state !== "ok" && spool.open > 0;
  // What no disk took waits as well, unless it was sent from memory.
  const none = in_memory && !(uplink.connected && !uplink.refused) ? null : w.waiting_none;
  facts("waiting", [
    ["", spool.waiting > 0 ? n(spool.waiting) : none, "large"],
    [w.in_memory, in_memory ? n(spool.open) : null, "warning"],
    [w.oldest, spool.oldest_unknown ? w.oldest_unknown : spool.waiting > 0 && spool.oldest_us ? time(spool.oldest_us) : null],
    [w.full_in, spool.hours_until_full === null ? null : hours(spool.hours_until_full)],
    [w.size, spool.bytes_max > 0 ? fill(w.size_value, { used: bytes(spool.bytes), max: bytes(spool.bytes_max) }) : null],
    [w.written, spool.bytes_per_reading === null ? null : bytes(spool.bytes_per_reading)],
    [w.per_day, spool.gigabytes_per_day === null ? null : bytes(spool.gigabytes_per_day * 1e9)],
    [w.at_risk, fill(w.seconds, { n: spool.unstored_seconds.toFixed(1) })],
    [w.dropped, spool.evicted > 0 ? n(spool.evicted) : null, "warning"],
    [w.expired, spool.expired > 0 ? n(spool.expired) : null, "warning"],
    [w.damaged, spool.damaged > 0 ? n(spool.damaged) : null, "warning"],
    [w.salvaged, salvaged ? fill(w.salvaged_value, { n: n(salvaged.saved), when: time(salvaged.at_us) }) : null],
  ]);
};

/** The gateway's clock, each second. `now_ms` is its wall clock by our reckoning. */
export const clock = (status, now_ms) => {
  say(by_id("gateway-time"), seconds(now_ms));
  if (!status) return;
  const off = Math.abs(now_ms - Date.now()) / 1000;
  const { synced, corrected_us } = status.clock;
  facts("clock", [
    ["", synced ? w.clock_set : w.clock_unset, synced ? "well" : "warning"],
    [w.clock_now, off > 5 ? fill(w.clock_differs, { n: duration(off) }) : null, "warning"],
    [w.clock_corrected, corrected_us === null ? null : duration(Math.abs(corrected_us) / 1e6)],
  ]);
};

/** Everything of one status event. */
export const status = (data, now_us) => {
  const { gateway, buses, uplink, spool } = data;
  const id = gateway.id || w.title;
  say(by_id("gateway-id"), id);
  const worst = by_id("state").dataset.level;
  document.title = clean(worst === "well" ? id : `! ${id}`);
  show(by_id("buses-none"), buses.length === 0);
  keep(by_id("bus-list"), buses.map(({ devices, ...rest }) => [rest, turnaround({ devices })]), () => buses.map(bus));
  server(uplink, now_us);
  waiting(spool, uplink);
  facts("gateway", [
    [w.version, gateway.version],
    [w.run, gateway.started_us ? time(gateway.started_us) : null],
    [w.run_id, gateway.run],
    [w.config, gateway.config_hash],
  ]);
};
