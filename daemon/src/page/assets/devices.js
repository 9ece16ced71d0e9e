// The list of devices: state, headline values, and on demand every point. Elements are made once and then only told
// what has changed; the points of a device are made when somebody opens it.

import { causes, w } from "/words.js";
import { clean, duration, fill, make, milliseconds, count, say, show, time, value } from "/format.js";

const TREND_NUMBERS = 120;
const TREND_STEP_S = 5;

/** Unchanged values come at least once a minute; much later than that they are old. */
const OLD_S = 150;

/** A headline number with more characters has a row for itself. */
const LONG = 10;

const list = document.getElementById("device-list");
const filter = document.getElementById("filter");
const devices = new Map();
let order = [];

const SVG = "http://www.w3.org/2000/svg";

/** One more number for the curve: the newest of each step counts, a missing value stays. */
const push = (trend, mono_ms, raw) => {
  const at = Math.floor(mono_ms / 1000);
  const number = typeof raw === "number" ? raw : typeof raw === "boolean" ? Number(raw) : null;
  const last = trend.at(-1);
  if (last && Math.floor(last[0] / TREND_STEP_S) === Math.floor(at / TREND_STEP_S)) {
    if (last[1] !== null) trend[trend.length - 1] = [at, number];
    return;
  }
  trend.push([at, number]);
  if (trend.length > TREND_NUMBERS) trend.shift();
};

/** A curve of one point; a missing value is a hole in it. */
const curve = (point) => {
  const marks = point.trend ?? [];
  const numbers = marks.map(([, n]) => n).filter((n) => n !== null);
  if (numbers.length < 2) return null;
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  const [from, to] = [marks[0][0], marks.at(-1)[0]];
  const span = Math.max(to - from, 1);
  const y = (n) => (high === low ? 12 : 22 - ((n - low) / (high - low)) * 20).toFixed(1);
  let path = "";
  let pen = "M";
  for (const [at, n] of marks) {
    if (n === null) {
      pen = "M";
      continue;
    }
    path += `${pen}${(((at - from) / span) * 96 + 2).toFixed(1)} ${y(n)}`;
    pen = "L";
  }
  const svg = document.createElementNS(SVG, "svg");
  const name = point.label || point.point;
  const shown = (n) => `${value(n, point.decimals)} ${point.unit ?? ""}`.trim();
  const words = { point: name, span: duration(span), low: shown(low), high: shown(high) };
  svg.setAttribute("viewBox", "0 0 100 24");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "curve");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", clean(fill(w.trend_of, words)));
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", path);
  line.setAttribute("vector-effect", "non-scaling-stroke");
  svg.append(line);
  return svg;
};

const redraw = (holder, point) => {
  const last = point.trend?.at(-1);
  const drawn = last ? `${last[0]} ${last[1]} ${point.trend.length}` : "";
  if (point.drawn.get(holder) === drawn) return;
  point.drawn.set(holder, drawn);
  const svg = curve(point);
  holder.replaceChildren(...(svg ? [svg] : []));
};

const reading = (point) => {
  if (point.quality === undefined) return w.never;
  if (point.value === null || point.value === undefined) return w.no_value;
  return value(point.value, point.decimals);
};

const age_s = (point, mono_ms) => (mono_ms - point.mono_ms) / 1000;
const is_old = (point, mono_ms) => age_s(point, mono_ms) > Math.max(OLD_S, (3 * (point.period_ms ?? 0)) / 1000);

/** What is to be said beside a value, if anything. */
const remark = (point, mono_ms) => {
  const why = causes[point.cause] ?? point.cause ?? "";
  if (point.quality === "bad") return why;
  if (point.quality === "uncertain") return `${w.doubtful}: ${why}`;
  return point.quality && is_old(point, mono_ms) ? w.old : "";
};

/** A name that may be broken after its underscores, and only there. */
const breakable = (name) => name.split("_").flatMap((part, i) => (i > 0 ? ["_", make("wbr"), part] : [part]));

class Device {
  constructor(name) {
    this.name = name;
    this.points = new Map();
    this.rows = null;
    this.status = null;
    this.title = make("span", { class: "name" });
    this.known = make("span", { class: "known" });
    this.state = make("span", { class: "said" });
    this.heads = make("span", { class: "heads" });
    const summary = make(
      "summary",
      {},
      make("span", { class: "sign", "aria-hidden": "true" }),
      make("span", { class: "who" }, this.title, " ", this.known),
      " ",
      this.state,
      " ",
      this.heads,
    );
    this.inside = make("div", { class: "inside" });
    this.details = make("details", {}, summary, this.inside);
    this.element = make("li", { class: "device", "data-state": "unknown" }, this.details);
    this.details.addEventListener("toggle", () => this.opened());
  }

  /** A piece of the snapshot. */
  describe(piece) {
    if (piece.first === 0) {
      this.label = piece.label;
      this.bus = piece.bus;
      this.points = new Map();
      this.rows = null;
    }
    for (const point of piece.points) {
      this.points.set(point.point, { ...point, trend: point.trend ?? [], drawn: new WeakMap() });
    }
    if (this.points.size >= piece.of) this.build();
  }

  build() {
    say(this.title, this.label || this.name);
    say(this.known, this.label ? this.name : "");
    const headline = [...this.points.values()].filter((point) => point.headline).slice(0, 3);
    this.headline = headline.map((point) => {
      const number = make("span", { class: "number" });
      const trend = make("span", { class: "trend" });
      const head = make(
        "span",
        { class: "head" },
        make("span", { class: "of" }, clean(point.label || point.point)),
        trend,
        make("span", { class: "amount" }, number, " ", make("span", { class: "unit" }, clean(point.unit ?? ""))),
      );
      return { point, number, trend, head };
    });
    this.heads.replaceChildren(...this.headline.map(({ head }) => head));
    if (this.details.open) this.opened();
  }

  /** A batch of readings. */
  take(batch) {
    for (const [name, raw] of Object.entries(batch.points)) {
      const point = this.points.get(name);
      if (!point || (point.mono_ms ?? 0) > batch.mono_ms) continue;
      point.value = raw;
      point.cause = batch.bad?.[name] ?? batch.uncertain?.[name];
      point.quality = batch.bad?.[name] ? "bad" : batch.uncertain?.[name] ? "uncertain" : "good";
      point.mono_ms = batch.mono_ms;
      push(point.trend, batch.mono_ms, raw);
    }
  }

  /** Curves of points that are no headline come when somebody looks. */
  async opened() {
    if (!this.details.open) return;
    if (!this.rows) this.table();
    draw(this);
    const answer = await fetch(`/api/readings?device=${encodeURIComponent(this.name)}`).catch(() => null);
    if (!answer?.ok) return;
    const [device] = (await answer.json()).devices;
    for (const { point: name, trend } of device?.points ?? []) {
      const point = this.points.get(name);
      if (point && trend && trend.length > point.trend.length) point.trend = trend;
    }
    draw(this);
  }

  table() {
    this.facts = make("dl", { class: "facts" });
    const body = make("tbody");
    this.rows = [...this.points.values()].map((point) => {
      const number = make("span", { class: "number" });
      const said = make("span", { class: "remark" });
      const trend = make("td", { class: "trend" });
      const age = make("td", { class: "age" });
      const unit = make("span", { class: "unit" }, clean(point.unit ?? ""));
      const known = breakable(point.point);
      const label = point.label ? [clean(point.label), " ", make("small", {}, ...known)] : known;
      body.append(
        make("tr", {}, make("th", { scope: "row" }, ...label), make("td", {}, number, " ", unit, " ", said), trend, age),
      );
      return { point, number, unit, said, trend, age, row: body.lastElementChild };
    });
    const head = make(
      "tr",
      {},
      make("th", { scope: "col" }, w.point),
      make("th", { scope: "col" }, w.reading),
      make("th", { scope: "col", class: "trend" }, w.trend),
      make("th", { scope: "col", class: "age" }, w.age),
    );
    this.inside.replaceChildren(this.facts, make("table", {}, make("thead", {}, head), body));
    this.said = "";
  }
}

let mono_ms = 0;

/** Each state of a device: how its card looks, what it says, and what it says if it is known since when. */
const STATES = {
  bus_down: ["down", w.bus_down],
  not_asked: ["unknown", w.not_asked],
  no_answer_yet: ["unknown", w.no_answer_yet],
  silent: ["silent", w.silent, w.silent_since],
  misheard: ["silent", w.misheard, w.misheard_since],
  without: ["lacking", w.without],
  answers: ["well", w.answers],
};

/** Brings one device's elements up to date. */
const draw = (device) => {
  const { status, bus } = device;
  const down = bus_down.has(bus);
  const [state, words, words_since] = STATES[down ? "bus_down" : (status?.state ?? "not_asked")];
  if (device.element.dataset.state !== state) device.element.dataset.state = state;
  const known = status?.since_us && words_since;
  const since = known ? time(status.since_us) : undefined;
  say(device.state, fill(known ? words_since : words, { since, n: count(status?.unusable), all: count(status?.points) }));
  for (const { point, number, trend, head } of device.headline ?? []) {
    say(number, reading(point));
    head.classList.toggle("stale", (state !== "well" && state !== "lacking") || point.quality !== "good" || is_old(point, mono_ms));
    head.classList.toggle("long", number.textContent.length > LONG);
    head.classList.toggle("none", typeof point.value === "undefined" || point.value === null);
    redraw(trend, point);
  }
  if (!device.details.open || !device.rows) return;
  facts(device);
  for (const { point, number, unit, said, trend, age, row } of device.rows) {
    say(number, reading(point));
    number.classList.toggle("whole", typeof point.value === "number");
    say(said, remark(point, mono_ms));
    show(unit, point.value !== null && point.value !== undefined);
    row.className = point.quality ?? "never";
    say(age, point.quality === undefined ? "" : duration(age_s(point, mono_ms)));
    redraw(trend, point);
  }
};

const facts = (device) => {
  const { status } = device;
  const rows = [];
  if (status) {
    rows.push([w.address, fill(w.on_bus, { address: status.address || device.name, bus: device.bus })]);
    if (status.turnaround_us) {
      const [median, slowest] = status.turnaround_us.map(milliseconds);
      rows.push([w.answer_time, fill(w.answer_time_value, { median, slowest })]);
    }
    const polls = { polls: count(status.polls), missed: count(status.missed) };
    rows.push([w.polls, fill(status.missed > 0 ? w.polls_missed : w.polls_value, polls)]);
  }
  const said = JSON.stringify(rows);
  if (said === device.said) return;
  device.said = said;
  device.facts.replaceChildren(
    ...rows.map(([term, text]) => make("div", {}, make("dt", {}, term), make("dd", {}, clean(text)))),
  );
};

const bus_down = new Set();

/** The beginning of a snapshot: devices that do not come again are gone. */
export const begin = () => {
  order = [];
};

/** A piece of it. */
export const piece = (data) => {
  if (!devices.has(data.device)) devices.set(data.device, new Device(data.device));
  if (data.first === 0) order.push(data.device);
  devices.get(data.device).describe(data);
};

/** Its end. */
export const ready = () => {
  for (const name of devices.keys()) if (!order.includes(name)) devices.delete(name);
  const elements = order.map((name) => devices.get(name).element);
  if (elements.some((element, i) => list.children[i] !== element) || list.children.length !== elements.length) {
    list.replaceChildren(...elements);
  }
  show(document.getElementById("devices-none"), order.length === 0);
  show(filter, order.length > 12);
  sift();
};

/** New readings. */
export const take = (batches) => {
  for (const batch of batches) devices.get(batch.device)?.take(batch);
};

/** Who answers. */
export const status = (buses) => {
  bus_down.clear();
  let answering = 0;
  for (const bus of buses) {
    if (!bus.up) bus_down.add(bus.name);
    for (const device of bus.devices) {
      const known = devices.get(device.name);
      if (known) known.status = device;
      if (bus.up && device.answering) answering += 1;
    }
  }
  const all = order.length;
  say(document.getElementById("devices-count"), all > 0 ? fill(w.devices_count, { n: answering, all }) : "");
};

/** Brings everything that can be seen up to date. */
export const refresh = (now_mono_ms) => {
  mono_ms = now_mono_ms;
  for (const name of order) draw(devices.get(name));
};

/** Opens a device and brings it into view. */
export const reveal = (name) => {
  const device = devices.get(name);
  if (!device) return;
  filter.value = "";
  sift();
  device.details.open = true;
  device.element.scrollIntoView({ block: "start" });
  device.details.firstElementChild.focus();
};

const sift = () => {
  const wanted = filter.value.trim().toLowerCase();
  let found = 0;
  for (const name of order) {
    const device = devices.get(name);
    const fits = `${name} ${device.label} ${device.bus}`.toLowerCase().includes(wanted);
    show(device.element, fits);
    found += fits ? 1 : 0;
  }
  show(document.getElementById("filter-none"), order.length > 0 && found === 0);
};

filter.addEventListener("input", sift);
