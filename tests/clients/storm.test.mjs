// Everybody comes at once to a node that takes few handshakes a second: the official client comes back by itself until it is let in, and none stays away.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { alone } from './cluster.mjs';
import { Device, WAYS } from './device.mjs';
import { Gate } from './gate.mjs';

const CLIENTS = 100;
const REFUSED = 'bellhop_connections_rejected_total{reason="rate_limited"}';

describe('a storm', { concurrency: true }, () => {
  for (const [way, transports] of Object.entries(WAYS)) {
    test(`${CLIENTS} clients come back to a node that takes 10 a second (${way})`, async (t) => {
      const it = await alone({ BELLHOP_LIMIT_HANDSHAKES_PER_SECOND: '10' });
      t.after(() => it.stop());
      const [node] = it.nodes;
      const gate = await Gate.before([node]);
      t.after(() => gate.close());
      const devices = Array.from({ length: CLIENTS }, (_, number) => Device.stock(gate.url, transports, it.token(`user-${number}`)));
      t.after(() => devices.forEach((device) => device.close()));

      // Their first connects are a storm too.
      for (const round of [1, 2]) {
        await Promise.all(devices.map((device) => device.live(60)));
        assert.ok((await node.metric(REFUSED)) >= CLIENTS / 2, 'the limit was not reached');
        for (const device of devices) assert.equal(device.all('connect').length, round);
        if (round === 2) break;
        gate.cut();
        await Promise.all(devices.map((device) => device.next('disconnect')));
        gate.open();
      }
      const reasons = new Set(devices.flatMap((device) => device.all('disconnect')));
      assert.deepEqual([...reasons].filter((reason) => reason.startsWith('io ')), []);
      const told = new Set(devices.flatMap((device) => device.all('connect_error')));
      assert.ok([...told].every((message) => ['websocket error', 'xhr poll error'].includes(message)), `${[...told]}`);
    });
  }
});
