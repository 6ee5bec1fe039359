// Plays scenario.json with the official JavaScript client; what the words of that file mean is in README.md.
import { io } from 'socket.io-client';
import { isDeepStrictEqual } from 'node:util';

const DEADLINE = 10_000;
const WAYS = { websocket: ['websocket'], polling: ['polling'], upgrade: ['polling', 'websocket'] };
const show = (value) => JSON.stringify(value) ?? 'anything';
const brief = (value) => show(value).slice(0, 400);

/** Asks the driver of the tests. */
async function ask(question) {
  const answer = await fetch(process.env.CONTROL, { method: 'POST', body: show(question), signal: AbortSignal.timeout(30_000) });
  if (answer.ok) return answer.json();
  throw new Error(`the driver could not ${show(question)}: ${await answer.text()}`);
}

/** What a scenario has learnt, by name. `$name` is its value where it is known, and takes what is there where it is not. */
class Names {
  constructor(known) {
    this.known = known;
  }

  fill(value) {
    if (typeof value === 'string') {
      if (/^\$\w+$/.test(value)) return this.#get(value.slice(1));
      return value.replace(/\$(\w+)/g, (_, name) => this.#get(name));
    }
    if (Array.isArray(value)) return value.map((one) => this.fill(one));
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, this.fill(one)]));
  }

  /** Whether a value is as wanted: of an object what is named, anything else whole. */
  fits(wanted, value) {
    if (typeof wanted === 'string' && /^\$\w+$/.test(wanted)) {
      const name = wanted.slice(1);
      if (!(name in this.known)) this.known[name] = value;
      return value !== undefined && isDeepStrictEqual(this.known[name], value);
    }
    if (wanted === null || typeof wanted !== 'object') return wanted === value;
    if (value === null || typeof value !== 'object' || Array.isArray(wanted) !== Array.isArray(value)) return false;
    if (Array.isArray(wanted) && wanted.length !== value.length) return false;
    return Object.entries(wanted).every(([key, one]) => this.fits(one, value[key]));
  }

  #get(name) {
    if (name in this.known) return this.known[name];
    throw new Error(`the scenario does not know $${name}`);
  }
}

/** One official client, and what it has heard and no step has taken yet: in order, for each first word of a name. */
class Device {
  #heard = {};
  #look = () => {};
  #position = {};
  #count = undefined;

  constructor(name, url, transports, auth, resume) {
    this.name = name;
    this.transports = transports;
    const credentials = (send) => send(resume ? { ...auth, ...this.#position } : auth);
    this.socket = io(url, { transports, auth: credentials, forceNew: true, reconnectionDelay: 100, reconnectionDelayMax: 500 });
    this.socket.onAny((event, payload) => this.#hear(event, payload));
    this.socket.on('disconnect', (reason) => this.#hear('disconnect', reason));
    // A transport that fails is tried again; a refusal is for the scenario to hear.
    this.socket.on('connect_error', (error) => error.type ?? this.#hear('connect_error', { message: error.message }));
  }

  #hear(event, payload) {
    // A count that says what the one before it did may come, and need not.
    if (event === 'notification:unread-count' && this.#count === payload.count) return;
    if (event === 'notification:unread-count') this.#count = payload.count;
    if (event === 'disconnect') this.#count = undefined;
    const again = this.#keep(event, payload) ? ' again' : '';
    (this.#heard[event.split(':')[0]] ??= []).push([event + again, payload]);
    this.#look();
  }

  /** Moves the position of a client that misses nothing; tells whether this is a change that it had. */
  #keep(event, payload) {
    const { seq, epoch, reason } = payload ?? {};
    const { lastSeq = -1 } = this.#position;
    const change = /^notification:(new|updated|deleted)$/.test(event) || ['read-all', 'cleared'].includes(reason);
    if (reason === 'reset') this.#position.lastSeq = seq;
    else if (change || event === 'notification:synced') this.#position.lastSeq = Math.max(lastSeq, seq);
    if (epoch) this.#position.epoch = epoch;
    return change && seq <= lastSeq;
  }

  async hears(names, event, wanted) {
    const queue = (this.#heard[event.split(':')[0]] ??= []);
    if (!queue.length) await this.#until(() => queue.length, `${event} ${brief(wanted)}`);
    const [heard, payload] = queue.shift();
    if (heard === event && (wanted === undefined || names.fits(wanted, payload))) return;
    throw new Error(`${this.name} heard ${heard} ${brief(payload)}, and ${event} ${brief(wanted)} was wanted`);
  }

  #until(there, what) {
    return new Promise((resolve, reject) => {
      const late = () => reject(new Error(`${this.name} waited ${DEADLINE / 1000} s for ${what}`));
      const deadline = setTimeout(late, DEADLINE); // bounded: the deadline of the wait
      this.#look = () => {
        if (!there()) return;
        clearTimeout(deadline);
        this.#look = () => {};
        resolve();
      };
      this.#look();
    });
  }

  /** Has its connection come to the transport that its options end at? */
  async reached() {
    const { engine } = this.socket.io;
    engine.once('upgrade', () => this.#look());
    await this.#until(() => engine.transport.name === this.transports.at(-1), `transport ${this.transports.at(-1)}`);
  }

  close = () => this.socket.disconnect();
}

/** One word of the scenarios each. */
const words = {
  async connect({ connect: name, auth = { token: '$token' }, resume }, { names, devices, way }) {
    const { url } = await ask({ driver: 'gate', device: name });
    devices[name] = new Device(name, url, WAYS[way], names.fill(auth), resume);
  },
  async hear({ hear, events }, { names, devices }) {
    for (const name of hear.split(' ')) for (const [event, wanted] of events) await devices[name].hears(names, event, wanted);
  },
  async send({ send, event, data, ack }, { names, devices }) {
    const args = data ? [event, names.fill(data)] : [event];
    if (!ack) return devices[send].socket.emit(...args);
    const answer = await devices[send].socket.timeout(DEADLINE).emitWithAck(...args);
    if (!names.fits(ack, answer)) throw new Error(`${event} was acknowledged with ${brief(answer)}, and ${brief(ack)} was wanted`);
  },
  async request({ request, as, body, status, answer: wanted }, { names }) {
    const [method, path] = names.fill(request).split(' ');
    const headers = { authorization: `Bearer ${names.fill(as)}`, 'content-type': 'application/json' };
    const options = { method, headers, body: body && show(names.fill(body)), signal: AbortSignal.timeout(DEADLINE) };
    const answer = await fetch(names.known.api + path, options);
    const text = await answer.text();
    const fits = answer.status === status && (!wanted || names.fits(wanted, JSON.parse(text)));
    if (!fits) throw new Error(`${method} ${path} was answered ${answer.status} ${text.slice(0, 400)}, and ${status} ${brief(wanted)} was wanted`);
  },
  async driver({ answer: wanted, ...step }, { names }) {
    const answer = await ask(names.fill(step));
    if (wanted && !names.fits(wanted, answer)) throw new Error(`the driver answered ${brief(answer)}`);
  },
  reached: ({ reached }, { devices }) => devices[reached].reached(),
};

async function play(scenario, way) {
  const scene = { way, devices: {}, names: new Names(await ask({ driver: 'begin' })) };
  let at = 0;
  try {
    for (const step of scenario.steps) {
      at += 1;
      await words[Object.keys(step)[0]](step, scene);
    }
    console.log(`ok ${scenario.name} (${way})`);
  } catch (error) {
    process.exitCode = 1;
    console.log(`not ok ${scenario.name} (${way})\n  step ${at}: ${error.message}`);
  } finally {
    Object.values(scene.devices).forEach((device) => device.close());
  }
}

for (const scenario of await ask({ driver: 'scenarios' })) {
  for (const way of scenario.over ?? ['websocket']) await play(scenario, way);
}
process.exit();
