// The smallest balancer: forwards each TCP connection to the first node that takes it, and can be shut for a while.
import { once } from 'node:events';
import { connect, createServer } from 'node:net';

export class Gate {
  /** Answers of a node that said: full, come again later. */
  refusals = 0;
  #open = true;
  #sockets = new Set();
  #server;

  static async before(nodes) {
    const gate = new Gate();
    gate.#server = createServer((client) => gate.#forward(client, nodes));
    gate.#server.listen(0, '127.0.0.1');
    await once(gate.#server, 'listening');
    gate.url = `http://127.0.0.1:${gate.#server.address().port}`;
    return gate;
  }

  /** New connections are refused until it is opened again. */
  shut = () => (this.#open = false);
  open = () => (this.#open = true);

  /** Shut, and what goes through it ends at once: the network is gone. */
  cut() {
    this.shut();
    this.#sockets.forEach((socket) => socket.destroy());
  }

  async close() {
    this.#server.close();
    this.#sockets.forEach((socket) => socket.destroy());
    await once(this.#server, 'close');
  }

  #forward(client, [node, ...others]) {
    this.#keep(client);
    if (!this.#open || !node || client.destroyed) return client.destroy();
    const upstream = this.#keep(connect(node.port, '127.0.0.1'));
    let reached = false;
    upstream.once('connect', () => {
      reached = true;
      client.once('close', () => upstream.destroy());
      upstream.on('data', (chunk) => (this.refusals += chunk.subarray(0, 13).toString() === 'HTTP/1.1 503 '));
      client.pipe(upstream).pipe(client);
    });
    upstream.once('close', () => (reached ? client.destroySoon() : this.#forward(client, others)));
  }

  #keep(socket) {
    if (this.#sockets.has(socket)) return socket;
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.on('error', () => socket.destroy());
    socket.once('close', () => this.#sockets.delete(socket));
    return socket;
  }
}
