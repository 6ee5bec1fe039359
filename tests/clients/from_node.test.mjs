// Runs the lines that the README's "Coming from Node" has come, as they stand there: a back end that publishes, a front end that shows.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { io } from 'socket.io-client';
import { embedded, freePort } from './cluster.mjs';
import { sign } from './token.mjs';

const AsyncFunction = (async () => {}).constructor;
const key = `bh_${randomBytes(32).toString('base64url')}`;
const secret = randomBytes(32).toString('hex');

let home, node, section, code;
before(async () => {
  const sha256 = createHash('sha256').update(key).digest('hex');
  home = await embedded({ JWT_SECRET: secret, BELLHOP_API_KEYS: `shop:${sha256}` });
  node = await home.start(await freePort());
  const readme = await readFile(new URL('../../README.md', import.meta.url), 'utf8');
  [, section] = /\n## Coming from Node\n([\s\S]*?)\n### /.exec(readme);
  code = [...section.matchAll(/```ts\n([\s\S]*?)```/g)].map(([, lines]) => lines);
});
after(async () => {
  await node?.stop();
  await home?.remove();
});

/** The back end's service: publishes, and gives the notification. */
const publish = (draft) => {
  const names = ['userId', 'title', 'message', 'type', 'priority', 'data', 'actionUrl', 'key'];
  const service = new AsyncFunction('process', ...names, `${code[0]} return notification;`);
  const process = { env: { BELLHOP_URL: node.url, BELLHOP_API_KEY: key } };
  return service(process, ...names.map((name) => draft[name]));
};

/** The front end's two services in one; `storage` is the browser's, `refresh` puts a new token there. */
class FrontEnd {
  list = [];

  constructor(storage, refresh) {
    this.auth = { refresh };
    this.notificationsSubject = { next: (list) => (this.list = list) };
    const [, auth, , onError, upsert, fetched] = code; // the third is the constructor's argument: this.auth
    const start = new Function('io', 'url', 'localStorage', `this.socket = io(url, { forceNew: true, ${auth} }); ${onError}`);
    start.call(this, io, node.url, { getItem: (name) => storage[name] });
    this.refreshed = new Promise((done) => {
      this.socket.on('notification:refresh', async () => {
        const headers = { authorization: `Bearer ${storage.access_token}` };
        const answer = await fetch(`${node.url}/api/notifications`, { headers, signal: AbortSignal.timeout(15_000) });
        new Function('page', fetched).call(this, await answer.json());
        done();
      });
    });
    this.socket.on('notification:new', (notification) =>
      new Function('notification', 'current', upsert).call(this, notification, this.list),
    );
  }

  /** The next event of this name. */
  next = (event) =>
    new Promise((heard, late) => {
      const deadline = setTimeout(() => late(new Error(`waited for ${event}`)), 15_000); // bounded: the deadline of the wait
      this.socket.once(event, (data) => {
        clearTimeout(deadline);
        heard(data);
      });
    });
}

test('what the back end publishes is shown, once', async (t) => {
  const page = new FrontEnd({ access_token: sign(secret, { sub: '42' }) }, () => assert.fail('the token is good'));
  t.after(() => page.socket.disconnect());
  await page.refreshed;

  const draft = { userId: 42, title: 'Shipped', message: 'On its way', type: 'ORDER_SHIPPED', priority: 'HIGH', data: { orderId: 7 } };
  const shown = page.next('notification:new');
  const created = await publish({ ...draft, actionUrl: '/orders/7', key: 'order-7-shipped' });
  await shown;
  assert.deepEqual(page.list.map(({ id, data }) => [id, data]), [[created.id, { orderId: 7 }]]);

  const again = await publish({ ...draft, actionUrl: '/orders/7', key: 'order-7-shipped' });
  assert.equal(again.id, created.id, 'a repeat sends nothing twice');
  await assert.rejects(publish({ ...draft, title: '', key: 'other' }), /not published: 422/);
});

test('a page whose token has ended gets another and comes back', async (t) => {
  const storage = { access_token: sign(secret, { sub: '43', exp: 1_500_000_000 }) };
  const page = new FrontEnd(storage, async () => {
    storage.access_token = sign(secret, { sub: '43' });
  });
  t.after(() => page.socket.disconnect());
  await page.refreshed;
  assert.ok(page.socket.connected);
});

test('the lines are as many as it says', () => {
  const [, all, go, come] = /change (\d+) lines in all: (\d+) go, (\d+) come/.exec(section).map(Number);
  const rows = section.split('\n').filter((line) => /^\| (?!file|---)/.test(line)).map((row) => row.split('|').slice(2, 4));
  const sum = (column) => rows.reduce((total, cells) => total + (Number.parseInt(cells[column], 10) || 0), 0);
  assert.deepEqual([sum(0), sum(1), go + come], [go, come, all]);
  assert.ok(all <= 40);
  // The balancer's and the environment's are not code.
  const lines = code.flatMap((block) => block.trimEnd().split('\n'));
  assert.equal(lines.length, come - 3);
});
