// Official clients with a browser's cookies all get through the sticky balancer of `make cluster`, and none depends on the node it came to.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Device, WAYS } from './device.mjs';
import { sign } from './token.mjs';

const { BALANCER_URL, NODE_1_URL, JWT_SECRET } = process.env;
const DEVICES = 20;

async function publish(userIds, title) {
  const answer = await fetch(`${NODE_1_URL}/api/notifications`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      authorization: `Bearer ${sign(JWT_SECRET, { sub: 'svc', scope: 'notifications:publish' })}`,
    },
    body: JSON.stringify({ userIds, title }),
    signal: AbortSignal.timeout(15_000),
  });
  assert.equal(answer.status, 201, await answer.text());
}

for (const [way, transports] of Object.entries(WAYS)) {
  test(`${DEVICES} devices get through the balancer (${way})`, async (t) => {
    const users = Array.from({ length: DEVICES }, (_, at) => `balanced-${transports.join('-')}-${at}`);
    const devices = users.map(
      (sub) => new Device(BALANCER_URL, { transports, auth: { token: sign(JWT_SECRET, { sub }) }, withCredentials: true }),
    );
    t.after(() => devices.forEach((device) => device.close()));
    await Promise.all(devices.map((device) => device.live()));
    assert.deepEqual(devices.flatMap((device) => device.all('connect_error')), []);

    await publish(users, 'for each');
    await Promise.all(devices.map((device) => device.next('notification:new')));
    for (const device of devices) assert.deepEqual(device.titles(), ['for each']);
  });
}
