// The page of the room: one WebSocket, opened again whenever it is lost.
// What people wrote enters the page as textContent, never as HTML.

const $ = (id) => document.getElementById(id);
const [log, outbox, scroller, composer, text] = ["log", "outbox", "scroller", "composer", "text"].map($);

// ---- The connection ------------------------------------------------------------------------------------------------

const SILENCE = 10_000; // ms. The server's clock ticks every second: a line that is silent for so long is dead.

let socket = null;
let failures = 0;
let watchdog, retry;

function connect() {
  retry = null;
  show("connecting", "Connecting…");
  const url = new URL("room", location.href);
  if (last) url.searchParams.set("since", last);
  url.protocol = url.protocol.replace("http", "ws");
  socket = new WebSocket(url);
  socket.onclose = lost;
  socket.onmessage = ({ data }) => {
    watch();
    const event = JSON.parse(data);
    if (Array.isArray(event)) said(...event);
    else receive[event.type]?.(event);
  };
  log.ariaBusy = "true"; // a screen reader need not read the history aloud
  watch();
}

function watch() {
  clearTimeout(watchdog);
  watchdog = setTimeout(abandon, SILENCE);
}

async function lost() {
  clearTimeout(watchdog);
  show("closed", "Reconnecting");
  if (await isLoggedOut()) {
    sessionStorage.draft = [...unconfirmed.values(), text.value].join("\n").trim();
    location.replace(".");
    return;
  }
  const seconds = Math.min(0.5 * 2 ** failures++, 10) * (0.75 + Math.random() / 2);
  waitUntil(Date.now() + seconds * 1000);
}

function waitUntil(due) {
  const left = due - Date.now();
  if (left <= 0) return connect();
  $("countdown").textContent = ` in ${Math.ceil(left / 1000)} s…`;
  retry = setTimeout(waitUntil, Math.min(left, 250), due);
}

function retryNow() {
  if (!retry) return;
  clearTimeout(retry);
  connect();
}

function abandon() {
  socket.onclose = socket.onmessage = null;
  socket.close();
  lost();
}

// A browser does not tell a script why a WebSocket was refused, so the page asks over HTTP.
function isLoggedOut() {
  return fetch("me", { signal: AbortSignal.timeout(5000) }).then((answer) => answer.status === 401, () => false);
}

function show(state, words) {
  $("status").dataset.state = state;
  $("state").textContent = words;
  $("countdown").textContent = "";
  $("send").disabled = state !== "open";
}

// ---- What the server says ------------------------------------------------------------------------------------------

const me = document.body.dataset.name;
const seen = new Set(); // the authors' ids of the messages in the log: what an author sent twice, to be sure, is shown once
const people = new Map(); // name → the pages that person has open

let last = ""; // the id of the last message here, from which on the server tells what was missed

// What was said comes straight from PubSub: ["message", topic, id, message], or ["gap", topic].
function said(kind, topic, id, message) {
  if (kind === "gap") {
    if (last) append(log, element("p", "note problem", "Some messages may be missing here."));
    return;
  }
  last = id;
  if (seen.has(message.id)) return;
  seen.add(message.id);
  if (message.author === me) confirmed(message.id);
  stopTyping(message.author);
  append(log, drawMessage(message));
}

const receive = {
  // Comes behind what was missed: what is unconfirmed still has not been said.
  welcome({ present }) {
    failures = 0;
    show("open", "Connected");
    log.ariaBusy = "false";
    receive.members({ present });
    for (const [id, words] of unconfirmed) post(id, words);
  },
  members({ present }) {
    people.clear();
    for (const [name, pages] of Object.entries(present)) people.set(name, new Set(pages));
    drawMembers();
  },
  joined({ name, page }) {
    const pages = people.get(name) ?? new Set();
    if (!pages.size && name !== me) append(log, element("p", "note", `${name} joined`));
    people.set(name, pages.add(page));
    drawMembers();
  },
  left({ name, page }) {
    const pages = people.get(name);
    if (!pages?.delete(page) || pages.size) return;
    people.delete(name);
    drawMembers();
    stopTyping(name);
    append(log, element("p", "note", `${name} left`));
  },
  typing({ name }) {
    if (name === me) return;
    stopTyping(name);
    typists.set(name, setTimeout(stopTyping, 3000, name));
    drawTyping();
  },
  clock({ at }) {
    $("clock").textContent = new Date(at * 1000).toLocaleTimeString();
  },
  error({ text }) {
    append(log, element("p", "note problem", text));
  },
};

// ---- Drawing -------------------------------------------------------------------------------------------------------

const GROUP = 300; // seconds within which messages of one author stand together
const typists = new Map();

function element(tag, className, content = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = content;
  return made;
}

// Every name has one of twelve hues, the same in every page.
function hued(node, name) {
  const hash = [...name].reduce((sum, character) => Math.imul(sum ^ character.codePointAt(0), 16777619) >>> 0, 2166136261);
  node.style.setProperty("--hue", ((hash >>> 12) % 12) * 30);
  return node;
}

function avatar(name) {
  const circle = hued(element("span", "avatar", [...name][0].toUpperCase()), name);
  circle.ariaHidden = "true";
  return circle;
}

function drawMessage({ author, text, at }) {
  const before = log.lastElementChild?.dataset;
  const item = hued(element("article", "message"), author);
  item.classList.toggle("own", author === me);
  item.classList.toggle("follows", before?.author === author && at - before.at < GROUP);
  Object.assign(item.dataset, { author, at });
  const when = new Date(at * 1000);
  const time = element("time", "", when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  time.dateTime = when.toISOString();
  time.title = when.toLocaleString();
  const bubble = element("div", "bubble");
  bubble.append(element("span", "author", author), element("p", "text", text), time);
  item.append(avatar(author), bubble);
  return item;
}

function drawMembers() {
  const names = [...people.keys()].sort((one, other) => one.localeCompare(other));
  $("count").textContent = names.length;
  $("members").replaceChildren(...names.map((name) => {
    const item = element("li", name === me ? "you" : "");
    item.append(avatar(name), element("span", "name", name));
    return item;
  }));
}

function stopTyping(name) {
  clearTimeout(typists.get(name));
  typists.delete(name);
  drawTyping();
}

function drawTyping() {
  const names = [...typists.keys()];
  const who = names.length > 2 ? "Several people are" : names.length === 2 ? `${names.join(" and ")} are` : `${names} is`;
  $("typing").textContent = names.length ? `${who} typing …` : "";
}

// ---- Scrolling: the page follows the conversation unless somebody scrolled up to read ------------------------------

let following = true;

function append(list, item) {
  list.append(item);
  $("newer").hidden = following;
}

function follow() {
  if (following) scroller.scrollTop = scroller.scrollHeight;
}

scroller.addEventListener("scroll", () => {
  following = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 48;
  if (following) $("newer").hidden = true;
});

$("newer").addEventListener("click", () => {
  scroller.scrollTo({ top: scroller.scrollHeight, behavior: "smooth" });
  text.focus();
});

const resized = new ResizeObserver(follow);
resized.observe(scroller);
resized.observe($("content"));

// ---- Writing: a message stays in the outbox until the server has sent it to everybody ------------------------------

const TYPING = 2000; // ms between two signs of typing
const unconfirmed = new Map();
let typedAt = 0;

function post(id, words) {
  socket.send(JSON.stringify({ type: "message", id, text: words }));
}

function confirmed(id) {
  unconfirmed.delete(id);
  outbox.querySelector(`[data-id="${CSS.escape(id)}"]`)?.remove();
}

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  const words = text.value.trim();
  if (!words || $("send").disabled) return; // what was typed while offline stays in the box
  const id = Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("");
  const item = element("article", "message own");
  const bubble = element("div", "bubble");
  bubble.append(element("p", "text", words));
  item.append(bubble);
  item.dataset.id = id;
  unconfirmed.set(id, words);
  following = true;
  append(outbox, item);
  post(id, words);
  text.value = sessionStorage.draft = "";
  typedAt = 0;
  text.focus();
});

text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  composer.requestSubmit();
});

text.addEventListener("input", () => {
  sessionStorage.draft = text.value;
  if ($("send").disabled || Date.now() - typedAt < TYPING) return;
  typedAt = Date.now();
  socket.send(JSON.stringify({ type: "typing" }));
});

$("logout").addEventListener("submit", () => sessionStorage.clear());
addEventListener("online", retryNow);
addEventListener("visibilitychange", retryNow);

text.value = sessionStorage.draft ?? "";
connect();
