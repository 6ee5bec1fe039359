// Runs the client that the README shows, as it stands there, through what makes clients lose things: races, lost nodes, replaced histories.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { io } from 'socket.io-client';
import { embedded, freePort, until } from './cluster.mjs';

let home, node, port, token, inbox;
before(async () => {
  home = await embedded();
  port = await freePort();
  node = await home.start(port);
  token = await home.token('42');
  const readme = await readFile(new URL('../../README.md', import.meta.url), 'utf8');
  const [code] = /function inbox\([\s\S]*?\n}\n/.exec(readme);
  inbox = new Function('fetch', `${code} return inbox`);
});
after(async () => {
  await node?.stop();
  await home?.remove();
});

const request = async (method, path, body) => {
  const answer = await fetch(`${node.url}/api/notifications${path}`, {
    method,
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(15_000),
  });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
  return answer.status === 204 ? null : answer.json();
};
const publish = (title) => request('POST', '/test', { title });

/** A client of the README; `onFetch` runs when its list has been answered and before it gets it. */
function start({ onFetch = async () => {}, resume = {} } = {}) {
  const view = { items: [], count: undefined };
  const fetchList = async (...args) => {
    const answer = await fetch(...args);
    const page = await answer.json();
    await onFetch(page);
    return { ok: answer.ok, json: async () => page };
  };
  // A client that was here before brings its position along with its first CONNECT.
  const official = (url, options) => {
    const { auth } = options;
    let first = true;
    return io(url, {
      ...options,
      forceNew: true,
      auth: (send) => auth((own) => send(first ? ((first = false), { ...own, ...resume }) : own)),
    });
  };
  const socket = inbox(fetchList)(official, node.url, async () => token, (items, count) => {
    Object.assign(view, { items, count });
  });
  return { view, socket };
}

/** Waits until the client shows what the server has, and nothing else. */
async function agrees(view) {
  const shown = () => JSON.stringify(view.items.map(({ id, isRead }) => [id, isRead]).sort());
  let wanted;
  const same = async () => {
    const { items, unreadCount } = await request('GET', '?limit=200');
    wanted = JSON.stringify(items.map(({ id, isRead }) => [id, isRead]).sort());
    return shown() === wanted && view.count === unreadCount;
  };
  await until('the client to show what the server has', same, 10).catch((error) => {
    throw new Error(`${error.message}: it shows ${shown()} ${view.count}, the server has ${wanted}`);
  });
}

test('what is published while the list is on its way is shown', async () => {
  await publish('one');
  let raced = false;
  const { view, socket } = start({
    onFetch: async () => {
      if (raced) return;
      raced = true;
      await publish('two');
      await publish('three');
    },
  });
  await agrees(view);
  await publish('four');
  await agrees(view);
  socket.disconnect();
});

test('all that a user does is shown, and survives the loss of the node', async () => {
  const { view, socket } = start();
  await agrees(view);
  const [first, second] = view.items;
  await request('PATCH', `/${first.id}/read`);
  await request('DELETE', `/${second.id}`);
  await agrees(view);

  await node.kill();
  node = await home.start(port);
  await publish('while it was away');
  await agrees(view);
  await request('POST', '/read-all');
  await publish('after read-all');
  await agrees(view);
  await request('DELETE', '');
  await publish('after clear');
  await agrees(view);
  socket.disconnect();
});

test('a client from another history starts over', async () => {
  const { view, socket } = start({ resume: { lastSeq: 999_999, epoch: 'another' } });
  await agrees(view);
  await publish('in this history');
  await agrees(view);
  socket.disconnect();
});
