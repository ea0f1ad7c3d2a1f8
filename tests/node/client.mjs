// One scenario with one of Node's WebSocket clients. Prints what the client saw as one line of JSON.
// usage: node client.mjs ws|builtin SCENARIO URL

const [kind, scenario, url] = process.argv.slice(2);
const Socket = kind === "ws" ? (await import("ws")).WebSocket : globalThis.WebSocket;

function open(protocols = []) {
  const socket = new Socket(url, protocols);
  socket.binaryType = "arraybuffer";
  return new Promise((done, failed) => {
    socket.addEventListener("open", () => done(socket));
    socket.addEventListener("error", (event) => failed(event.error ?? new Error(event.message)));
  });
}

const next = (socket, type) => new Promise((done) => socket.addEventListener(type, done, { once: true }));

async function closed(socket) {
  const { code, reason, wasClean } = await next(socket, "close");
  return { code, text: reason, clean: wasClean };
}

async function echoed(socket, message) {
  socket.send(message);
  const { data } = await next(socket, "message");
  return typeof message === "string" ? data === message : Buffer.compare(Buffer.from(data), Buffer.from(message)) === 0;
}

const scenarios = {
  async subprotocol() {
    const socket = await open(["v0", "v1"]);
    const { protocol } = socket;
    socket.close();
    await closed(socket);
    return { protocol };
  },

  async ping() {
    const socket = await open();
    socket.ping("abc");
    const payload = await new Promise((done) => socket.once("pong", done));
    socket.terminate();
    return { pong: payload.toString() };
  },

  async "server pings"() {
    const socket = await open();
    socket.send("ping abc");
    const { data } = await next(socket, "message");
    socket.close();
    await closed(socket);
    return { handled: data };
  },

  async "client closes"() {
    const socket = await open();
    socket.close(4001, "bye");
    return closed(socket);
  },

  async "server closes"() {
    const socket = await open();
    socket.send("close 4002 later");
    return closed(socket);
  },

  async "large messages"() {
    const socket = await open();
    const bytes = new Uint8Array(8 << 20).map((_, i) => i % 251);
    const words = "grüße, 世界 🎈 ".repeat((8 << 20) / 25);
    const result = { text: await echoed(socket, words), binary: await echoed(socket, bytes) };
    socket.close();
    await closed(socket);
    return result;
  },

  async compressed() {
    const socket = await open();
    const words = "grüße, 世界 🎈 ".repeat(2000);
    const result = { extensions: socket.extensions, echoed: [] };
    for (const message of ["short", words, words, new Uint8Array(100000), "", words]) {
      result.echoed.push(await echoed(socket, message));
    }
    socket.close();
    await closed(socket);
    return result;
  },

  async "too large"() {
    const socket = await open();
    socket.send("x".repeat(2000));
    return closed(socket);
  },

  async "server closes during an upload"() {
    const socket = await open();
    socket.send("close 4002 later");
    for (let i = 0; i < 3; i++) socket.send(new Uint8Array(1 << 20));
    return closed(socket);
  },
};

console.log(JSON.stringify(await scenarios[scenario]()));
