// Lets the official client of each language play scenario.json against real nodes; what the words of that file mean is in README.md.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, test } from 'node:test';
import { io } from 'socket.io-client';
import { alone, cluster, noServices, until } from './cluster.mjs';
import { Gate } from './gate.mjs';
import { sign } from './token.mjs';

const here = (...path) => join(import.meta.dirname ?? '.', ...path);
const installed = (...path) => resolve(here('../../target/clients', ...path));
const python = [installed('venv/bin/python'), '-u', here('play.py')];
const java = ['java', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-cp', installed('java/*'), here('Play.java')];

/** Each client, and what it plays against: half of them two nodes on PostgreSQL and Redis, half one node on SQLite. */
const clients = {
  JavaScript: { command: [process.execPath, here('play.mjs')], nodes: 2 },
  'Python, asyncio': { command: [...python, 'asyncio'], nodes: 2 },
  'Python, threads': { command: [...python, 'threads'], nodes: 1 },
  Java: { command: java, nodes: 1 },
};
/** Places that a crowd of ours can take. */
const settings = { BELLHOP_LIMIT_CONNECTIONS: '20' };
const start = (nodes) => (nodes > 1 && !noServices ? cluster(nodes, settings) : alone(settings));

const wanted = new RegExp(process.env.SCENARIOS ?? '');
const scenarios = JSON.parse(await readFile(here('scenario.json'), 'utf8')).filter(({ name }) => wanted.test(name));
const plays = scenarios.flatMap(({ over = ['websocket'] }) => over).length;

/** An object whose compact JSON is 8 KiB to the byte, with characters of one to four bytes. */
function large() {
  const value = { text: '', list: [0, -1.5, 0.125, 9007199254740991, true, null, { deep: 'ß東🚀\u0000' }], '': 'empty key' };
  const room = 8192 - Buffer.byteLength(JSON.stringify(value));
  value.text = 'é東🚀~'.repeat(Math.floor(room / 10)) + 'x'.repeat(room % 10);
  return value;
}

/** What players ask of the world around them, over HTTP: users, tokens, times, a network to lose, a node to restart. */
class Driver {
  #gates = {};
  #crowd = [];
  #users = 0;
  #server = createServer((request, response) => this.#serve(request, response));

  constructor(nodes) {
    this.nodes = nodes;
  }

  async open() {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return `http://127.0.0.1:${this.#server.address().port}`;
  }

  async close() {
    this.#disperse();
    await this.#closeGates();
    this.#server.closeAllConnections();
    this.#server.close();
  }

  async #serve(request, response) {
    const chunks = await request.toArray();
    const { driver, ...step } = JSON.parse(Buffer.concat(chunks).toString());
    const answer = await this[driver](step).catch((error) => ({ error: String(error) }));
    response.writeHead(answer?.error ? 500 : 200, { 'content-type': 'application/json' }).end(JSON.stringify(answer ?? {}));
  }

  async #closeGates() {
    await Promise.all(Object.values(this.#gates).map((gate) => gate.close()));
    this.#gates = {};
  }

  async scenarios() {
    return scenarios;
  }

  /** The variables of a scenario: two users that nobody has had before. */
  async begin() {
    await this.#closeGates();
    const user = `user-${(this.#users += 1)}`;
    const other = `${user}.other`;
    return {
      api: this.nodes.nodes[0].url,
      user,
      other,
      token: this.nodes.token(user),
      otherToken: this.nodes.token(other),
      publisher: this.nodes.token('svc', { scope: 'notifications:publish' }),
      forged: sign('another secret, of at least 32 bytes', { sub: user }),
      large: large(),
    };
  }

  /** The network of a device: the first leads to the last node, so that what is published on the first one crosses over. */
  async gate({ device }) {
    const { nodes } = this.nodes;
    const node = nodes[nodes.length - 1 - (Object.keys(this.#gates).length % nodes.length)];
    this.#gates[device] = await Gate.before([node]);
    return { url: this.#gates[device].url };
  }

  async lose({ device }) {
    this.#gates[device].cut();
  }

  async regain({ device }) {
    this.#gates[device].open();
  }

  async restart({ end }) {
    const { nodes } = this.nodes;
    nodes[nodes.length - 1] = await this.nodes.restart(nodes[nodes.length - 1], end);
  }

  /** Strangers take all the places that the last node has left. */
  async crowd() {
    const { url } = this.nodes.nodes.at(-1);
    for (let full = false; !full; ) {
      const auth = { token: this.nodes.token(`stranger-${this.#crowd.length}`) };
      const stranger = io(url, { auth, transports: ['websocket'], forceNew: true, reconnection: false });
      this.#crowd.push(stranger);
      full = await new Promise((answer) => {
        stranger.once('connect', () => answer(false));
        stranger.once('connect_error', () => answer(true));
      });
    }
  }

  /** The device has been refused; the strangers go. */
  async refused({ device }) {
    await until(`${device} to be refused`, () => this.#gates[device].refusals > 0, 10).finally(() => this.#disperse());
  }

  #disperse() {
    this.#crowd.splice(0).forEach((stranger) => stranger.disconnect());
  }

  /** Claims `iat` and `exp` are seconds from now. */
  async token({ claims: { sub, iat = 0, exp = 3600 } }) {
    const now = Math.floor(Date.now() / 1000);
    return { token: this.nodes.token(sub, { iat: now + iat, exp: now + exp }) };
  }

  async time({ seconds }) {
    return { time: new Date(Date.now() + seconds * 1000).toISOString() };
  }
}

/** Runs a player to its end: its results as `{ ok, name, why }`, and how it ended. */
async function play([program, ...args], control) {
  const player = spawn(program, args, { env: { ...process.env, CONTROL: control }, stdio: ['ignore', 'pipe', 'pipe'] });
  const patience = setTimeout(() => player.kill('SIGKILL'), 170_000); // bounded: the deadline of a player
  const results = [];
  let errors = '';
  player.stderr.setEncoding('utf8').on('data', (text) => (errors = (errors + text).slice(-5000)));
  createInterface(player.stdout).on('line', (line) => {
    const [, not, name] = /^(not )?ok (.*)/.exec(line) ?? [];
    if (name) results.push({ ok: !not, name, why: [] });
    else results.at(-1)?.why.push(line);
  });
  const [code, signal] = await once(player, 'close').finally(() => clearTimeout(patience));
  return { results, end: signal ?? code, errors };
}

describe('the scenarios', { concurrency: true }, () => {
  for (const [client, { command, nodes: count }] of Object.entries(clients)) {
    test(client, async (t) => {
      const nodes = await start(count);
      t.after(() => nodes.stop());
      const driver = new Driver(nodes);
      const control = await driver.open();
      t.after(() => driver.close());

      const began = Date.now();
      const { results, end, errors } = await play(command, control);
      const failed = results.filter(({ ok }) => !ok).length;
      const seconds = ((Date.now() - began) / 1000).toFixed(1);
      console.log(`scenarios, ${client}: ${results.length - failed} of ${plays} in ${seconds} s`);

      for (const { ok, name, why } of results) {
        await t.test(name, () => assert.ok(ok, why.join('\n')));
      }
      assert.equal(results.length, plays, `the player ended with ${end} before it had played all; it said:\n${errors}`);
      assert.equal(end, failed ? 1 : 0, errors);
    });
  }
});
