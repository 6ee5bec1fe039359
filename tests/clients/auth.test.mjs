// Who may connect: the official client gets in with a good token, and is told why with a bad one.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { cluster, noServices } from './cluster.mjs';
import { Device, WAYS } from './device.mjs';
import { sign } from './token.mjs';

let it;
before(async () => (it = noServices ? null : await cluster(1)));
after(() => it?.stop());

const anHourAgo = () => Math.floor(Date.now() / 1000) - 3600;
const refusals = {
  token_missing: () => ({}),
  token_invalid: () => ({ token: sign('another secret, of at least 32 bytes', { sub: '42' }) }),
  token_expired: () => ({ token: it.token('42', { iat: anHourAgo() - 60, exp: anHourAgo() }) }),
};

for (const [way, transports] of Object.entries(WAYS)) {
  test(`a good token gets in (${way})`, { skip: noServices }, async (t) => {
    const device = Device.stock(it.nodes[0].url, transports, it.token('42'));
    t.after(device.close);
    await device.live();
    assert.deepEqual(device.all('connect_error'), []);
  });

  for (const [reason, auth] of Object.entries(refusals)) {
    test(`the client is told ${reason}, and takes it as final (${way})`, { skip: noServices }, async (t) => {
      const device = new Device(it.nodes[0].url, { transports, auth: auth() });
      t.after(device.close);
      assert.equal(await device.next('connect_error'), reason);
      assert.equal(device.socket.active, false);
      assert.deepEqual(device.all('connect'), []);
    });
  }

  test(`a token in the Authorization header does as well (${way})`, { skip: noServices }, async (t) => {
    const device = new Device(it.nodes[0].url, { transports, extraHeaders: { authorization: `Bearer ${it.token('42')}` } });
    t.after(device.close);
    await device.live();
  });
}
