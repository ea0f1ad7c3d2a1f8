// Echo and fan-out on Node's ws.
"use strict";

const { WebSocketServer } = require("ws");

const subscribers = new Set();

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.argv[2]),
  backlog: 2048,
  maxPayload: 2 ** 25,
  perMessageDeflate: { threshold: 0 }, // it is off by default; only clients that offer it get it
});

const echo = (socket) => (data, binary) => socket.send(data, { binary });

const blocking = (socket) => (data, binary) => {
  if (data[16] === 0x21) setTimeout(() => socket.send(data, { binary }), 10);
  else socket.send(data, { binary });
};

const publish = () => (data, binary) => {
  for (const subscriber of subscribers) subscriber.send(data, { binary });
};

server.on("connection", (socket, request) => {
  socket.on("error", () => {});
  if (request.url === "/subscribe") {
    subscribers.add(socket);
    socket.send("ready");
    socket.on("close", () => subscribers.delete(socket));
  } else if (request.url === "/publish") {
    socket.on("message", publish());
  } else {
    socket.on("message", (request.url === "/blocking" ? blocking : echo)(socket));
  }
});
