// What the pictures of one explorer share: all heads, which one is looked at, from where, and which stand beside it.
// They may be mounted anywhere on the page, in any order; they meet here by the explorer's name.
//   watch(view) · a view has changed(what), what being "heads" | "head" | "look" | "pin" | "zoom" | "beside"
// Everything is drawn at once. Python hears of it when the hand has rested.

import { Heads } from "./heads.js";

const REST = 300; // ms
const PATIENCE = 3000; // ms after which an answer is no longer waited for
export const MOST = 4; // heads beside each other

const stores = new Map();

export class Store {
  static of(name) {
    if (!stores.has(name)) stores.set(name, new Store());
    return stores.get(name);
  }

  static forget(name) {
    stores.delete(name);
  }

  constructor() {
    this.views = new Set();
    this.heads = null; // Heads, where they have travelled
    this.chosen = null; // [row, head]
    this.beside = []; // of these, pinned
    this.pinned = null; // a token {axis, index}, in positions of the full sequence
    this.key = null; // of the cell by which it was pinned
    this.look = null; // the token under the hand, likewise
    this.zoom = null; // [q0, q1, k0, k1]
    this.pointer = null; // whose hand that is
    this.matrix = null; // Matrix of the chosen head, the whole of it where all heads are here
    this.turn = 0; // counts what is chosen here
    this.said = {}; // what Python said last
    this.news = {}; // what it has not heard yet
  }

  watch(view) {
    this.views.add(view);
  }

  leave(view) {
    this.views.delete(view);
  }

  tell(what) {
    for (const view of this.views) view.changed(what);
  }

  /** Python's word counts when it changes. But the answer to an early act must not undo what a later one chose. */
  take({ chosen, selected, zoom, beside, turn, heads }) {
    this.wanted = heads; // which ones this is about; null where they are too large to travel
    this.waiting &&= turn !== this.turn && performance.now() - this.asked < PATIENCE;
    const news = { head: chosen, pin: selected, zoom, beside: beside ?? [] };
    for (const [what, value] of Object.entries(news)) {
      const text = JSON.stringify(value ?? null);
      if (text === this.said[what]) continue;
      this.said[what] = text;
      if (this.waiting || text === JSON.stringify(this.now(what))) continue;
      if (what === "head") this.chosen = value;
      else if (what === "pin") [this.pinned, this.key] = [value ?? null, null];
      else if (what === "zoom") this.zoom = value ?? null;
      else this.beside = value;
      this.tell(what);
    }
  }

  now(what) {
    return { head: this.chosen, pin: this.pinned, zoom: this.zoom, beside: this.beside }[what];
  }

  choose([layer, head], wait = 0) {
    if (this.chosen?.[0] === layer && this.chosen[1] === head) return;
    this.chosen = [layer, head];
    this.say({ layer, head }, wait);
    this.tell("head");
  }

  /** Pin a head beside the others, or let it go. The first two are the one that was looked at, and this one. */
  toggle(head) {
    const same = (other) => other.join() === head.join();
    const before = this.beside.length || !this.chosen || same(this.chosen) ? this.beside : [this.chosen];
    this.beside = before.some(same) ? before.filter((other) => !same(other)) : [...before, head].slice(-MOST);
    this.say({ beside: this.beside });
    this.tell("beside");
  }

  /** Are all heads here that Python speaks of? */
  get whole() {
    return Boolean(this.heads) && this.heads.id === this.wanted;
  }

  /** The heads to be drawn. */
  get shown() {
    const { chosen, beside } = this;
    if (!chosen) return [];
    return beside.some((head) => head.join() === chosen.join()) || beside.length >= MOST ? beside : [...beside, chosen];
  }

  pin(token, key = null) {
    [this.pinned, this.key] = [token, key];
    this.say(key === null ? { token } : { token, key });
    this.tell("pin");
  }

  enlarge(zoom) {
    this.zoom = zoom;
    this.say({ zoom });
    this.tell("zoom");
  }

  point(token, by) {
    if (JSON.stringify(token) === JSON.stringify(this.look)) return;
    [this.look, this.pointer] = [token, by];
    this.tell("look");
  }

  /** Tell Python, when nothing more has been done for a while; all of it at once. Where a head is Python's to send, it
   * should not wait. */
  say(news, wait = 0) {
    if ("token" in news) delete this.news.key;
    Object.assign(this.news, news);
    this.turn++;
    this.waiting = true;
    this.asked = performance.now();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.speak(), this.whole ? REST : wait);
  }

  speak() {
    if (!this.send) return;
    const event = { ...this.news, turn: this.turn };
    this.news = {};
    this.send(event);
  }
}

/** The mount by which all heads come. It shows nothing. */
export class Arrival {
  update(message) {
    if (message === this.message) return;
    this.message = message;
    const store = Store.of(message.explorer);
    store.heads = new Heads(message);
    store.tell("heads");
  }

  unmount() {}
}
