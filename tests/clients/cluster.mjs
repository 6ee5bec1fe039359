// Starts real nodes as an operator would: processes of the binary, on free ports, on a fresh database and key prefix, or alone on SQLite.
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { randomBytes, randomInt } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import { sign } from './token.mjs';

const BINARY = resolve(process.env.BELLHOP_BIN ?? join(import.meta.dirname ?? '.', '../../target/debug/bellhop'));
const { TEST_POSTGRES_URL, TEST_REDIS_URL } = process.env;

/** Why tests on a cluster are skipped here: false where the services are. In CI a missing one is an error. */
export const noServices = TEST_POSTGRES_URL && TEST_REDIS_URL ? false : 'TEST_POSTGRES_URL and TEST_REDIS_URL are not set';
if (process.env.CI && noServices) throw new Error(noServices);

/** Runs a program to its end and gives what it printed. */
export const run = async (program, args, options = {}) =>
  (await promisify(execFile)(program, args, { timeout: 15_000, ...options })).stdout;

/** Polls until the check gives something; how readiness is waited for where no event tells of it. */
export async function until(what, check, seconds = 30) {
  const deadline = Date.now() + seconds * 1000;
  while (Date.now() < deadline) {
    const value = await check();
    if (value) return value;
    await pause(50);
  }
  throw new Error(`waited ${seconds} s for ${what}`);
}

/** A port nobody listens on, below the range that outgoing connections take. */
export async function freePort() {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const port = randomInt(20_000, 30_000);
    const server = createServer();
    const free = await new Promise((answer) => {
      server.once('error', () => answer(false)).listen(port, '127.0.0.1', () => answer(true));
    });
    if (!free) continue;
    server.close();
    await once(server, 'close');
    return port;
  }
  throw new Error('no free port in 100 attempts');
}

const running = new Set();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));

/** One process of the binary. */
class Node {
  #child;
  #exit;
  log = '';

  constructor(port, adminPort, env, folder) {
    this.port = port;
    this.url = `http://localhost:${port}`;
    this.adminUrl = `http://127.0.0.1:${adminPort}`;
    this.#child = spawn(BINARY, ['serve'], {
      cwd: folder, // no .env of this folder is read
      env: {
        PATH: process.env.PATH,
        RUST_LOG: 'info',
        BELLHOP_DRAIN_SECONDS: '0',
        BELLHOP_LOG_FORMAT: 'text',
        ...env,
        BELLHOP_LISTEN: `127.0.0.1:${port}`,
        BELLHOP_ADMIN_LISTEN: `127.0.0.1:${adminPort}`,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    running.add(this.#child);
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => (this.log = (this.log + text).slice(-20_000)));
    }
    this.#exit = new Promise((ended) => {
      this.#child.once('error', (error) => ended({ error }));
      this.#child.once('exit', (code, signal) => ended({ code, signal }));
    }).finally(() => running.delete(this.#child));
  }

  get ended() {
    return this.#child.exitCode !== null || this.#child.signalCode !== null || this.#child.pid === undefined;
  }

  async isReady() {
    const answer = await fetch(`${this.adminUrl}/readyz`, { signal: AbortSignal.timeout(2000) }).catch(() => null);
    return answer?.ok;
  }

  /** The value of one series of its metrics. */
  async metric(series) {
    const text = await (await fetch(`${this.adminUrl}/metrics`)).text();
    return Number(text.split('\n').find((line) => line.startsWith(`${series} `))?.slice(series.length));
  }

  /** SIGKILL: what a node is not asked about. */
  async kill() {
    this.#child.kill('SIGKILL');
    return this.#exit;
  }

  /** SIGTERM, and how the process ended; after 30 s it is killed. */
  async stop() {
    this.#child.kill('SIGTERM');
    const patience = setTimeout(() => this.#child.kill('SIGKILL'), 30_000); // bounded: the deadline of the stop
    return this.#exit.finally(() => clearTimeout(patience));
  }
}

async function startNode(env, folder, port) {
  for (let attempt = 1; ; attempt += 1) {
    const node = new Node(port ?? (await freePort()), await freePort(), env, folder);
    await until('the node to be ready', async () => node.ended || (await node.isReady())).catch(async (error) => {
      await node.kill();
      throw new Error(`${error.message}; its log:\n${node.log}`);
    });
    if (!node.ended) return node;
    // A port may have been taken in between; anything else fails again.
    if (attempt === 3) throw new Error(`${BINARY} ended at start; its log:\n${node.log}`);
  }
}

const json = async (answer, status) => {
  const text = await answer.text();
  assert.equal(answer.status, status, text);
  return text ? JSON.parse(text) : null;
};

/** Nodes that share a database, a bus and a secret. */
class Cluster {
  secret = randomBytes(32).toString('hex');

  constructor(folder, env) {
    this.folder = folder;
    this.env = { ...env, JWT_SECRET: this.secret };
    this.nodes = [];
  }

  /** Starts nodes together, as a deployment does. */
  async start(count) {
    const started = await Promise.allSettled(Array.from({ length: count }, () => startNode(this.env, this.folder)));
    this.nodes = started.filter((one) => one.status === 'fulfilled').map((one) => one.value);
    const failed = started.find((one) => one.status === 'rejected');
    if (!failed) return this;
    await this.stop();
    throw failed.reason;
  }

  /** A token as the application would issue it. */
  token(user, claims = {}) {
    return sign(this.secret, { sub: user, ...claims });
  }

  /** Publishes one notification on this node. */
  async publish(node, userId, draft) {
    const answer = await fetch(`${node.url}/api/notifications`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        authorization: `Bearer ${this.token('svc', { scope: 'notifications:publish' })}`,
      },
      body: JSON.stringify({ userId, ...draft }),
      signal: AbortSignal.timeout(15_000),
    });
    return json(answer, 201);
  }

  /** Ends a node, at once or as a deployment does, and gives the one that takes its place, at the same address. */
  async restart(node, end = 'kill') {
    await node[end]();
    return startNode(this.env, this.folder, node.port);
  }

  async stop() {
    await Promise.all(this.nodes.map((node) => node.stop()));
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** `count` nodes on a fresh database and key prefix, with these settings. */
export async function cluster(count, settings = {}) {
  const name = `clients_${randomBytes(6).toString('hex')}`;
  await run('psql', ['-X', '-q', '-c', `CREATE DATABASE ${name}`, TEST_POSTGRES_URL]);
  const database = new URL(TEST_POSTGRES_URL);
  database.pathname = name;

  const env = { DATABASE_URL: database.href, REDIS_URL: TEST_REDIS_URL, BELLHOP_BUS_PREFIX: `${name}:`, ...settings };
  return new Cluster(await mkdtemp(join(tmpdir(), 'bellhop-clients-')), env).start(count);
}

/** One node on SQLite, whose tokens are ours to issue, with these settings. */
export async function alone(settings = {}) {
  return new Cluster(await mkdtemp(join(tmpdir(), 'bellhop-alone-')), settings).start(1);
}

/** A folder for the embedded default: SQLite and a kept secret, nothing set but where to listen, and these settings. */
export async function embedded(settings = {}) {
  const folder = await mkdtemp(join(tmpdir(), 'bellhop-embedded-'));
  const env = { HOME: folder, ...settings };
  const command = (args) => run(BINARY, args, { cwd: folder, env: { PATH: process.env.PATH, ...env } });
  return {
    start: (port) => startNode(env, folder, port),
    token: async (user, ...further) => (await command(['token', '--user', user, ...further])).trim(),
    command,
    remove: () => rm(folder, { recursive: true, force: true }),
  };
}
