// A user's device: the official client with its own defaults, and a record of all that it heard.
import assert from 'node:assert/strict';
import { io } from 'socket.io-client';

/** The three ways in which the official client reaches a node. */
export const WAYS = {
  'websocket only': ['websocket'],
  'polling only': ['polling'],
  'polling, then an upgrade': ['polling', 'websocket'],
};

/** What a client keeps as its `lastSeq`: the highest seq of these. */
const moves = ({ event, payload }) =>
  ['notification:new', 'notification:updated', 'notification:deleted', 'notification:synced'].includes(event) ||
  (event === 'notification:refresh' && ['read-all', 'cleared'].includes(payload.reason));

export class Device {
  /** All that was heard, in order: `{ event, payload }`; also connect, disconnect, connect_error and upgrade. */
  heard = [];
  lastSeq = undefined;
  #taken = new Set();
  #waiting = new Set();

  constructor(url, options) {
    this.transports = options.transports;
    this.socket = io(url, { forceNew: true, ...options });
    this.socket.onAny((event, payload) => this.#hear(event, payload));
    this.socket.on('connect', () => this.#hear('connect', this.socket.id));
    this.socket.on('disconnect', (reason) => this.#hear('disconnect', reason));
    this.socket.on('connect_error', (error) => this.#hear('connect_error', error.message));
    this.socket.io.on('open', () => {
      this.socket.io.engine.once('upgrade', (transport) => this.#hear('upgrade', transport.name));
    });
  }

  /** A device that sends its token only. */
  static stock = (url, transports, token) => new Device(url, { transports, auth: { token } });

  /** A device that sends, at each connect, how far it has been served. */
  static resuming(url, transports, token) {
    const device = new Device(url, { transports, auth: (send) => send({ token, lastSeq: device.lastSeq }) });
    return device;
  }

  #hear(event, payload) {
    const one = { event, payload };
    this.heard.push(one);
    if (moves(one)) this.lastSeq = Math.max(this.lastSeq ?? 0, payload.seq);
    for (const look of this.#waiting) look();
  }

  /** The first such event that no earlier call took. */
  next(event, where = () => true, seconds = 15) {
    return new Promise((resolve, reject) => {
      const end = (settle, value) => {
        clearTimeout(deadline);
        this.#waiting.delete(look);
        settle(value);
      };
      const look = () => {
        const found = this.heard.find((one) => one.event === event && !this.#taken.has(one) && where(one.payload));
        if (!found) return;
        this.#taken.add(found);
        end(resolve, found.payload);
      };
      const late = () => {
        const heard = this.heard.map((one) => `${one.event} ${JSON.stringify(one.payload)}`).slice(-30);
        end(reject, new Error(`waited ${seconds} s for ${event} ${where}; heard:\n  ${heard.join('\n  ')}`));
      };
      const deadline = setTimeout(late, seconds * 1000); // bounded: the deadline of the wait
      this.#waiting.add(look);
      look();
    });
  }

  /** Connected, served what there was, and on the transport that its options end at. */
  async live(seconds = 15) {
    await this.next('connect', undefined, seconds);
    await this.next('notification:synced');
    if (this.transports.length > 1) assert.equal(await this.next('upgrade'), 'websocket');
    assert.equal(this.socket.io.engine.transport.name, this.transports.at(-1));
  }

  /** Everything heard under this name, taken or not, in order. */
  all = (event) => this.heard.filter((one) => one.event === event).map((one) => one.payload);

  titles = () => this.all('notification:new').map((notification) => notification.title);

  /** Sends an event and gives its acknowledgement. */
  act = (event, ...args) => this.socket.timeout(15_000).emitWithAck(event, ...args);

  close = () => this.socket.disconnect();
}
