// Tests 1 to 6 of the system that Bellhop replaces, with its client options, its handlers and its curl call, from a front end on another origin.
import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { after, before, test } from 'node:test';
import { io } from 'socket.io-client';
import { embedded, freePort, run } from './cluster.mjs';

const ORIGIN = 'http://localhost:4200'; // where the front end is served; the node is on another port

let home, node, token, url;
before(async () => {
  home = await embedded();
  node = await home.start(await freePort());
  url = node.url;
  token = await home.token('123');
});
after(async () => {
  await node?.stop();
  await home?.remove();
});

/** Its WebSocket service: connects with the token of the signed-in user. */
function connect() {
  return io(url, {
    auth: { token },
    transports: ['websocket', 'polling'],
    reconnection: true,
    // What a browser adds by itself.
    extraHeaders: { origin: ORIGIN },
    forceNew: true,
  });
}

/** A request as a page of the front end makes it. */
const rest = (method, path, headers = {}) =>
  fetch(`${url}${path}`, {
    method,
    headers: { origin: ORIGIN, authorization: `Bearer ${token}`, ...headers },
    signal: AbortSignal.timeout(15_000),
  });

/** Its notification service: the list and the badge, kept by handlers. */
class NotificationService extends EventEmitter {
  notifications = [];
  unreadCount = 0;
  console = [];

  constructor(socket) {
    super();
    this.socket = socket;
    const log = (line) => {
      this.console.push(line);
      this.emit('change');
    };
    socket.on('connect', () => log('connected'));
    socket.on('disconnect', () => log('disconnected'));

    socket.on('notification:new', (notification) => {
      this.notifications = [notification, ...this.notifications];
      log('new');
    });
    socket.on('notification:unread-count', (data) => {
      this.unreadCount = data.count;
      log('count');
    });
    socket.on('notification:refresh', async () => {
      const answer = await rest('GET', '/api/notifications');
      this.notifications = (await answer.json()).items;
      log('refreshed');
    });
    socket.on('notification:updated', (updated) => {
      const index = this.notifications.findIndex((n) => n.id === updated.id);
      if (index !== -1) this.notifications[index] = updated;
      log('updated');
    });
    socket.on('notification:deleted', ({ id }) => {
      this.notifications = this.notifications.filter((n) => n.id !== id);
      log('deleted');
    });
  }

  /** Waits until the page shows this. */
  shows(what, check, seconds = 15) {
    return new Promise((resolve, reject) => {
      const end = (settle, value) => {
        clearTimeout(deadline);
        this.off('change', look);
        settle(value);
      };
      const look = () => check() && end(resolve);
      const late = () => end(reject, new Error(`waited ${seconds} s for ${what}; the console: ${this.console}`));
      const deadline = setTimeout(late, seconds * 1000); // bounded: the deadline of the wait
      this.on('change', look);
      look();
    });
  }

  badge = (count) => this.shows(`a badge of ${count}`, () => this.unreadCount === count);
  said = (line, times = 1) => this.shows(`${times} × ${line}`, () => this.console.filter((one) => one === line).length >= times);
}

/** Signed in, connected, and the list fetched once. */
async function signIn(t) {
  const service = new NotificationService(connect());
  t.after(() => service.socket.disconnect());
  await service.said('connected');
  await service.said('refreshed');
  await service.said('count');
  return service;
}

/** "Terminal 1: Create notification". */
async function createByCurl() {
  const printed = await run('curl', [
    '-X', 'POST', `http://localhost:${node.port}/api/notifications/test`,
    '-H', 'Content-Type: application/json',
    '-H', `Authorization: Bearer ${token}`,
    '-d', `{
    "title": "WebSocket Test",
    "message": "Testing real-time delivery",
    "type": "GENERAL",
    "priority": "HIGH"
  }`,
  ]);
  return JSON.parse(printed);
}

async function emptyInbox() {
  const answer = await rest('DELETE', '/api/notifications');
  assert.equal(answer.status, 200, await answer.text());
}

test('1: WebSocket connection', async (t) => {
  const { socket } = await signIn(t);
  assert.ok(socket.id);
  assert.equal(socket.io.engine.transport.name, 'websocket');
});

test('2: real-time notification delivery', async (t) => {
  await emptyInbox();
  const service = await signIn(t);
  const created = await createByCurl();
  await service.said('new');
  await service.badge(1);

  const [shown] = service.notifications;
  assert.equal(shown.id, created.id);
  assert.equal(shown.title, 'WebSocket Test');
  assert.equal(shown.message, 'Testing real-time delivery');
  assert.equal(shown.type, 'GENERAL');
  assert.equal(shown.priority, 'HIGH');
  assert.equal(shown.userId, '123');
  assert.equal(shown.isRead, false);
});

test('3: mark as read', async (t) => {
  await emptyInbox();
  const service = await signIn(t);
  const { id } = await createByCurl();
  await service.badge(1);

  assert.equal((await rest('PATCH', `/api/notifications/${id}/read`)).status, 200);
  await service.said('updated');
  await service.badge(0);
  assert.equal(service.notifications.find((one) => one.id === id).isRead, true);
});

test('4: delete', async (t) => {
  await emptyInbox();
  const service = await signIn(t);
  const created = [await createByCurl(), await createByCurl(), await createByCurl()];
  await service.badge(3);

  assert.equal((await rest('DELETE', `/api/notifications/${created[1].id}`)).status, 204);
  await service.said('deleted');
  await service.badge(2);
  assert.deepEqual(service.notifications.map(({ id }) => id), [created[2].id, created[0].id]);
});

test('5: multi-device sync', async (t) => {
  await emptyInbox();
  const devices = [await signIn(t), await signIn(t)];
  const { id } = await createByCurl();
  for (const device of devices) {
    await device.said('new');
    await device.badge(1);
    assert.deepEqual(device.notifications.map((one) => one.id), [id]);
  }
});

test('6: reconnection after disconnect', async (t) => {
  await emptyInbox();
  const service = await signIn(t);
  const before = await createByCurl();
  await service.badge(1);

  await node.stop();
  await service.said('disconnected');
  node = await home.start(node.port);
  await service.said('connected', 2);
  await service.said('refreshed', 2);
  assert.deepEqual(service.notifications.map(({ id }) => id), [before.id], 'nothing is gone');

  const next = await createByCurl();
  await service.badge(2);
  assert.deepEqual(service.notifications.map(({ id }) => id), [next.id, before.id]);
});

test('the front end, on another origin, may read every answer', async () => {
  const allowed = (answer) => answer.headers.get('access-control-allow-origin');
  const polling = '/socket.io/?EIO=4&transport=polling';

  for (const [method, path] of [['POST', '/api/notifications/test'], ['PATCH', '/api/notifications/1/read'], ['DELETE', '/api/notifications/1']]) {
    const preflight = await rest('OPTIONS', path, {
      'access-control-request-method': method,
      'access-control-request-headers': 'authorization,content-type',
    });
    assert.ok(preflight.ok, `${method} ${path}: ${preflight.status}`);
    assert.equal(allowed(preflight), ORIGIN);
    assert.match(preflight.headers.get('access-control-allow-methods'), new RegExp(`${method}|\\*`));
    const headers = preflight.headers.get('access-control-allow-headers').toLowerCase();
    assert.ok(headers.includes('authorization') && headers.includes('content-type'), headers);
  }
  // Answers that refuse must be readable too.
  for (const [method, path] of [['GET', '/api/notifications'], ['POST', '/api/notifications/test'], ['GET', '/api/notifications/not-an-id'], ['GET', polling]]) {
    assert.equal(allowed(await rest(method, path)), ORIGIN, `${method} ${path}`);
  }
  assert.equal(allowed(await rest('GET', '/api/notifications', { authorization: '' })), ORIGIN, 'without a token');
  for (const path of ['/api/notifications', polling]) {
    assert.equal(allowed(await rest('GET', path, { origin: 'https://elsewhere.example' })), null, `${path} from elsewhere`);
  }
});
