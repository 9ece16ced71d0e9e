// The connection to the gateway: opens the event stream, notices when it falls silent, and goes on where it left off.
//
// A browser reconnects an event stream by itself, but not after an error answer, and it does not notice a gateway
// whose power was cut or a phone that slept. So silence is timed here, and a new stream begins with ?after=.

/** The gateway says something at least every 15 s. */
const SILENCE_MS = 35_000;

/** After waking up, doubt a stream that has been silent for this long. */
const DOUBT_MS = 16_000;

const RETRY_MS = [500, 1000, 2000, 4000, 8000];

export class Stream {
  #events = null;
  #position = "";
  #generation = -1;
  #heard = performance.now();
  #tries = 0;
  #timer = 0;
  #hear;
  #state;

  /** hear(name, data) gets every event; state(open) is told when the gateway is there or away. */
  constructor(hear, state) {
    this.#hear = hear;
    this.#state = state;
    setInterval(() => this.#doubt(SILENCE_MS), 1000);
    const wake = () => document.visibilityState === "visible" && this.#doubt(DOUBT_MS);
    document.addEventListener("visibilitychange", wake);
    addEventListener("pageshow", wake);
    addEventListener("online", () => this.#doubt(0));
    this.#open();
  }

  #open() {
    clearTimeout(this.#timer);
    this.#events?.close();
    this.#heard = performance.now();
    const after = this.#position ? `?after=${encodeURIComponent(this.#position)}` : "";
    const events = new EventSource(`/api/events${after}`);
    this.#events = events;
    for (const name of ["status", "gap", "resumed", "snapshot", "device", "ready", "readings", "beat"]) {
      events.addEventListener(name, (event) => this.#take(name, event));
    }
    events.addEventListener("error", () => {
      if (events !== this.#events) return;
      this.#state(false);
      // While it is connecting the browser tries by itself; after a refusal it has given up.
      if (events.readyState === EventSource.CLOSED) this.#again();
    });
  }

  #take(name, event) {
    const data = JSON.parse(event.data);
    this.#heard = performance.now();
    this.#tries = 0;
    if (event.lastEventId) this.#position = event.lastEventId;
    if (name === "snapshot") this.#generation = data.generation;
    if (name === "resumed" && data.generation !== this.#generation) {
      // The configuration has changed meanwhile: what we know is not all there is.
      this.#position = "";
      this.#open();
      return;
    }
    this.#state(true);
    this.#hear(name, data);
  }

  async #again() {
    const wait = RETRY_MS[Math.min(this.#tries, RETRY_MS.length - 1)];
    this.#tries += 1;
    this.#timer = setTimeout(() => this.#open(), wait * (0.75 + Math.random() / 2));
    // An ended session is not a fault of the network: the page itself says how to get a new invitation.
    const answer = await fetch("/api/status", { method: "GET" }).catch(() => null);
    if (answer?.status === 401) location.reload();
  }

  #doubt(silence) {
    if (performance.now() - this.#heard < silence) return;
    this.#state(false);
    this.#open();
  }
}
