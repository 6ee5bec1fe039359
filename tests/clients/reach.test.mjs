// The mission: what is published for a user on any node reaches that user's official clients on every node, in order, and nobody else's.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { cluster, noServices } from './cluster.mjs';
import { Device, WAYS } from './device.mjs';

let it;
before(async () => (it = noServices ? null : await cluster(3)));
after(() => it?.stop());

const rises = (numbers) => numbers.every((number, at) => at === 0 || number > numbers[at - 1]);

for (const [way, transports] of Object.entries(WAYS)) {
  test(`fifty in a row reach the user's devices on the other nodes (${way})`, { skip: noServices }, async (t) => {
    const [a, b, c] = it.nodes;
    const user = `reach-${transports.join('-')}`;
    const phone = Device.stock(b.url, transports, it.token(user));
    const tablet = Device.stock(c.url, transports, it.token(user));
    const stranger = Device.stock(c.url, transports, it.token(`${user}-not`));
    t.after(() => [phone, tablet, stranger].forEach((device) => device.close()));
    await Promise.all([phone.live(), tablet.live(), stranger.live()]);

    const titles = Array.from({ length: 50 }, (_, at) => `number ${at + 1}`);
    for (const title of titles) await it.publish(a, user, { title });

    for (const device of [phone, tablet]) {
      await device.next('notification:unread-count', ({ count }) => count === 50);
      assert.deepEqual(device.titles(), titles);
      assert.ok(rises(device.all('notification:new').map(({ seq }) => seq)), 'seq rises');
      assert.ok(rises(device.all('notification:unread-count').map(({ count }) => count)), 'the count rises');
    }

    // Nothing of this came to another user: the next that they hear is their own.
    await it.publish(a, `${user}-not`, { title: 'yours' });
    await stranger.next('notification:unread-count', ({ count }) => count === 1);
    assert.deepEqual(stranger.titles(), ['yours']);
    assert.deepEqual(stranger.all('notification:unread-count').map(({ count }) => count), [0, 1]);
  });
}

test('nothing is lost while a connection upgrades', { skip: noServices }, async (t) => {
  const [a, b] = it.nodes;
  const user = 'upgrading';
  const device = Device.stock(b.url, ['polling', 'websocket'], it.token(user));
  t.after(device.close);
  await device.next('notification:synced');

  // Published as soon as the first, polling, connection serves: the upgrade happens among these.
  const titles = Array.from({ length: 20 }, (_, at) => `number ${at + 1}`);
  for (const title of titles) await it.publish(a, user, { title });

  assert.equal(await device.next('upgrade'), 'websocket');
  await device.next('notification:unread-count', ({ count }) => count === 20);
  assert.deepEqual(device.titles(), titles);
});
