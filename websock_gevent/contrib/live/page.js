// Shows what comes over the WebSocket. Whatever comes is text, and becomes text: nothing is ever read as HTML.
"use strict";

const one = (selector) => document.querySelector(selector);
const number = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

function scaled(value, units, step) {
  let unit = 0;
  while (value >= step && unit < units.length - 1) { value /= step; unit += 1; }
  return `${number.format(value)} ${units[unit]}`;
}
const bytes = (value) => scaled(value, ["B", "kB", "MB", "GB"], 1000);
const rate = (messages, size) => `${number.format(messages)}/s, ${bytes(size)}/s`;
function seconds(value) {
  if (value < 1) return `${number.format(value * 1000)} ms`;
  if (value < 60) return `${number.format(value)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
}

// Title, what it is sorted by, what is shown, and whether it is marked. The numbers are those of watching.py.
const columns = [
  ["path", (row) => row.path],
  ["handler", (row) => row.handler],
  ["peer", (row) => row.peer],
  ["worker", (row) => row.pid],
  ["age", (row) => row.numbers[0], (row) => seconds(row.numbers[0])],
  ["mailbox", (row) => row.numbers[1], (row) => `${number.format(row.numbers[1])} of ${number.format(row.limit)}`,
    (row) => row.filling],
  ["unsent", (row) => row.numbers[2], (row) => bytes(row.numbers[2]), (row) => row.numbers[2] > 0],
  ["slowest callback", (row) => row.numbers[3],
    (row) => row.callback ? `${seconds(row.numbers[3])} ${row.callback}${row.running ? ", still running" : ""}` : "–",
    (row) => row.slow],
  ["messages in", (row) => row.numbers[4], (row) => `${number.format(row.numbers[4])}/s`],
  ["bytes in", (row) => row.numbers[5], (row) => `${bytes(row.numbers[5])}/s`],
  ["messages out", (row) => row.numbers[6], (row) => `${number.format(row.numbers[6])}/s`],
  ["bytes out", (row) => row.numbers[7], (row) => `${bytes(row.numbers[7])}/s`],
];
let order = { column: 4, down: true };
let last = null;

function element(name, text, title, marked) {
  const made = document.createElement(name);
  made.textContent = text;
  if (title) made.dataset.title = title;
  if (marked) made.className = "bad";
  return made;
}
function tableRow(id, cells) {
  const made = document.createElement("tr");
  made.dataset.id = id;
  made.append(...cells);
  return made;
}

function workerRow(worker, index) {
  const state = worker.drain ? `draining: ${worker.drain[0]} left, ${seconds(worker.drain[1])}` : "serving";
  const [inMessages, inBytes, outMessages, outBytes] = worker.rates;
  const cells = [
    ["worker", `${worker.host} ${worker.pid}${index === 0 ? " (answers here)" : ""}`],
    ["connections", number.format(worker.connections)], ["opened", number.format(worker.opened)],
    ["in", rate(inMessages, inBytes)], ["out", rate(outMessages, outBytes)],
    ["mailboxes filling", worker.filling, worker.filling > 0], ["slow callbacks", worker.slow, worker.slow > 0],
    ["state", state, Boolean(worker.drain)],
  ];
  return tableRow(worker.process, cells.map(([title, text, marked]) => element("td", text, title, marked)));
}

function connectionRow(row) {
  return tableRow(row.id, columns.map(([title, key, text, marked]) =>
    element("td", (text ?? key)(row), title, marked?.(row))));
}

function compare(first, second) {
  const [a, b] = [first, second].map(columns[order.column][1]);
  const found = typeof a === "number" ? a - b : a.localeCompare(b);
  return order.down ? -found : found;
}

function sortBy(column) {
  const down = order.column === column ? !order.down : column > 3;
  order = { column, down };
  draw();
}

function draw() {
  document.querySelectorAll("#connections th").forEach((head, column) => {
    if (column !== order.column) head.removeAttribute("aria-sort");
    else head.setAttribute("aria-sort", order.down ? "descending" : "ascending");
  });
  if (last === null) return;
  const total = last.workers.reduce((sum, worker) => sum + worker.connections, 0);
  one("#workers tbody").replaceChildren(...last.workers.map(workerRow));
  one("#connections tbody").replaceChildren(...last.rows.sort(compare).map(connectionRow));
  one("#shown").textContent = `${number.format(last.rows.length)} of ${number.format(total)} connections`;
  one("#trouble").hidden = last.trouble === "";
  one("#trouble").textContent = `Other workers are not reached: ${last.trouble}`;
}

function say(state, text) {
  document.body.dataset.state = state;
  one("#status").textContent = text;
}

let socket = null;
let pause = 1000;
function connect() {
  if (socket !== null || document.hidden) return;
  socket = new WebSocket(new URL("socket", location.href.replace(/^http/, "ws")));
  socket.onmessage = ({ data }) => {
    pause = 1000;
    last = JSON.parse(data);
    say("open", `live, ${new Date().toLocaleTimeString()}`);
    draw();
  };
  socket.onclose = () => {
    socket = null;
    say("closed", document.hidden ? "paused" : "not connected, or not allowed; trying again …");
    setTimeout(connect, pause * (1 + Math.random()));
    pause = Math.min(pause * 2, 15000);
  };
}

columns.forEach(([title], column) => {
  const button = element("button", title);
  button.onclick = () => sortBy(column);
  const head = document.createElement("th");
  head.append(button);
  one("#connections thead tr").append(head);
});
// Nobody looks at a page in the background, and to be looked at costs something.
document.addEventListener("visibilitychange", () => (document.hidden ? socket?.close() : connect()));
draw();
connect();
