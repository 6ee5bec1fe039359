// JWTs with HS256, written out here so that no library of the server's judges itself.
import { createHmac } from 'node:crypto';

/** A token as the application would issue it: good for an hour, unless the claims say otherwise. */
export function sign(secret, claims) {
  const now = Math.floor(Date.now() / 1000);
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ iat: now, exp: now + 3600, ...claims })}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}
