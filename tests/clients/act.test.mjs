// What a user does on one device, through the official client's acknowledgements, the other devices see at once, on whatever node they are.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { cluster, noServices } from './cluster.mjs';
import { Device, WAYS } from './device.mjs';

let it;
before(async () => (it = noServices ? null : await cluster(2)));
after(() => it?.stop());

/** Two devices of one user, each on its own node, and three unread notifications. */
async function twoDevices(t, user, transports) {
  const [a, b] = it.nodes;
  const devices = [a, b].map((node) => Device.stock(node.url, transports, it.token(user)));
  t.after(() => devices.forEach((device) => device.close()));
  await Promise.all(devices.map((device) => device.live()));
  const inbox = [];
  for (const title of ['one', 'two', 'three']) inbox.push(await it.publish(a, user, { title }));
  await Promise.all(devices.map((device) => device.next('notification:unread-count', ({ count }) => count === 3)));
  return { devices, inbox };
}

const unread = (devices, wanted) =>
  Promise.all(devices.map((device) => device.next('notification:unread-count', ({ count }) => count === wanted)));

for (const [way, transports] of Object.entries(WAYS)) {
  const user = (what) => `${what}-${transports.join('-')}`;

  test(`reading and unreading (${way})`, { skip: noServices }, async (t) => {
    const { devices, inbox } = await twoDevices(t, user('read'), transports);
    const [phone] = devices;

    assert.equal((await phone.act('notification:read', { id: inbox[1].id })).ok, true);
    for (const device of devices) {
      const updated = await device.next('notification:updated');
      assert.equal(updated.id, inbox[1].id);
      assert.equal(updated.isRead, true);
      assert.ok(updated.readAt && updated.seq > inbox[2].seq);
    }
    await unread(devices, 2);

    assert.equal((await phone.act('notification:unread', { id: inbox[1].id })).ok, true);
    for (const device of devices) assert.equal((await device.next('notification:updated')).isRead, false);
    await unread(devices, 3);
  });

  test(`reading all (${way})`, { skip: noServices }, async (t) => {
    const { devices } = await twoDevices(t, user('read-all'), transports);
    assert.equal((await devices[0].act('notification:read-all')).ok, true);
    for (const device of devices) await device.next('notification:refresh', ({ reason }) => reason === 'read-all');
    await unread(devices, 0);
  });

  test(`deleting (${way})`, { skip: noServices }, async (t) => {
    const { devices, inbox } = await twoDevices(t, user('delete'), transports);
    assert.equal((await devices[0].act('notification:delete', { id: inbox[0].id })).ok, true);
    for (const device of devices) {
      const deleted = await device.next('notification:deleted');
      assert.deepEqual([deleted.id, deleted.reason], [inbox[0].id, 'deleted']);
    }
    await unread(devices, 2);
  });

  test(`what is not known, not well formed or not theirs changes nothing (${way})`, { skip: noServices }, async (t) => {
    const { devices, inbox } = await twoDevices(t, user('bad'), transports);
    const stranger = Device.stock(it.nodes[1].url, transports, it.token(user('stranger')));
    t.after(stranger.close);
    await stranger.live();

    const unknown = await stranger.act('chat:message', { text: 'hello' });
    assert.deepEqual([unknown.ok, unknown.code], [false, 'unknown_event']);
    for (const [event, ...args] of [
      ['notification:read', { id: inbox[0].id }],
      ['notification:delete', { id: inbox[0].id }],
      ['notification:read', { id: 'not-an-id' }],
      ['notification:read', {}],
      ['notification:read'],
    ]) {
      const ack = await stranger.act(event, ...args);
      assert.equal(ack.ok, false, `${event} ${JSON.stringify(args)}`);
      assert.ok(ack.code && ack.message, 'an ack says what was wrong');
    }

    // The owner heard nothing of it: the next that they hear is the marker.
    await it.publish(it.nodes[1], user('bad'), { title: 'marker' });
    await unread(devices, 4);
    for (const device of devices) {
      assert.deepEqual(device.titles(), ['one', 'two', 'three', 'marker']);
      assert.deepEqual([...device.all('notification:updated'), ...device.all('notification:deleted')], []);
    }
  });
}
