// A device loses its node: the official client comes back by itself through another one, and with `lastSeq` it misses nothing and hears nothing twice.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { cluster, noServices } from './cluster.mjs';
import { Device, WAYS } from './device.mjs';
import { Gate } from './gate.mjs';

const USER = '42';

/** What is published now, both devices hear, and then the count. */
async function bothHear(it, node, devices, title) {
  const { seq } = await it.publish(node, USER, { title });
  await Promise.all(devices.map((device) => device.next('notification:unread-count', (count) => count.seq === seq)));
  for (const device of devices) assert.equal(device.titles().at(-1), title);
}

/** Two nodes behind a gate that prefers the first, and two devices that came through it: one sends `lastSeq`, one does not. */
async function behindAGate(t, transports, settings) {
  const it = await cluster(2, settings);
  t.after(() => it.stop());
  const gate = await Gate.before(it.nodes);
  t.after(() => gate.close());
  const devices = [Device.resuming, Device.stock].map((device) => device(gate.url, transports, it.token(USER)));
  t.after(() => devices.forEach((device) => device.close()));
  await Promise.all(devices.map((device) => device.live()));
  await bothHear(it, it.nodes[1], devices, 'before');
  return { it, gate, devices };
}

describe('a device loses its node', { concurrency: true }, () => {
  for (const [way, transports] of Object.entries(WAYS)) {
    test(`its node is killed (${way})`, { skip: noServices }, async (t) => {
      const { it, gate, devices } = await behindAGate(t, transports);
      const [resuming, stock] = devices;
      const [a, b] = it.nodes;

      gate.shut();
      await a.kill();
      await Promise.all(devices.map((device) => device.next('disconnect')));
      const missed = ['missed 1', 'missed 2', 'missed 3'];
      for (const title of missed) await it.publish(b, USER, { title });
      gate.open();
      await Promise.all(devices.map((device) => device.live()));
      await bothHear(it, b, devices, 'after');

      // What was missed came as ordinary events, each once, in order, before `synced`.
      assert.deepEqual(resuming.titles(), ['before', ...missed, 'after']);
      const events = resuming.heard.map(({ event, payload }) => payload?.title ?? event);
      assert.ok(events.lastIndexOf('missed 3') < events.lastIndexOf('notification:synced'), `${events}`);
      assert.equal(resuming.all('notification:synced').at(-1).replayed, 3);
      assert.deepEqual(resuming.all('notification:refresh').map(({ reason }) => reason), ['connect']);

      // Without `lastSeq` a client is told to fetch the list, and hears what comes from then on.
      assert.deepEqual(stock.titles(), ['before', 'after']);
      assert.deepEqual(stock.all('notification:refresh').map(({ reason }) => reason), ['connect', 'connect']);
      assert.equal(stock.all('notification:unread-count').at(-1).count, 5);
    });

    test(`its node is told to stop (${way})`, { skip: noServices }, async (t) => {
      const { it, gate, devices } = await behindAGate(t, transports, { BELLHOP_DRAIN_SECONDS: '3' });
      const [a, b] = it.nodes;
      const more = Array.from({ length: 10 }, () => Device.resuming(gate.url, transports, it.token(USER)));
      t.after(() => more.forEach((device) => device.close()));
      await Promise.all(more.map((device) => device.live()));
      const all = [...devices, ...more];

      const stopped = a.stop();
      const begun = Date.now();
      const told = await Promise.all(all.map((device) => device.next('server:drain')));
      // Spread, and nobody is closed before its time.
      const delays = new Set(told.map(({ retryAfterMs }) => retryAfterMs));
      assert.ok(delays.size > 6 && Math.max(...delays) === 3000, `${[...delays]}`);
      // Those who are still there are served; those who are on their way get it when they arrive.
      const { seq } = await it.publish(b, USER, { title: 'meanwhile' });
      // Not 'io server disconnect', which the client takes as final. A poll that comes just after the session ended is a transport error.
      const reasons = ['transport close', ...(transports.includes('websocket') ? [] : ['transport error'])];
      await Promise.all(all.map(async (device, index) => {
        const reason = await device.next('disconnect', undefined, 30);
        assert.ok(reasons.includes(reason), reason);
        assert.ok(Date.now() - begun >= told[index].retryAfterMs - 50, `${Date.now() - begun} ms, ${told[index].retryAfterMs}`);
      }));
      await Promise.all(all.map((device) => device.live(30)));
      assert.deepEqual(await stopped, { code: 0, signal: null });
      await Promise.all(more.map((device) => device.next('notification:unread-count', (count) => count.seq === seq)));
      await bothHear(it, b, devices, 'after');
      for (const device of all) assert.equal(device.all('disconnect').length, 1);
      assert.deepEqual(devices[0].titles(), ['before', 'meanwhile', 'after']);
      for (const device of more) assert.deepEqual(device.titles().filter((title) => title !== 'after'), ['meanwhile']);
    });
  }
});
