// Drives chromium for a test: one command as a line of JSON on stdin, one answer as a line of JSON on stdout.
// usage: node browser.mjs PATH_TO_CHROMIUM [PATH_TO_PROFILE]
//
// A command is [page, verb, ...arguments]. A page opened under a new name is in a browser context of its own. Every wait has
// a deadline; a failure is answered with {"error": text}.

import { once } from "node:events";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const RESPONSE = "Network.webSocketHandshakeResponseReceived";
const [executablePath, profile] = process.argv.slice(2);
const options = {
  executablePath,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
};
const browser = profile
  ? (await chromium.launchPersistentContext(profile, options)).browser()
  : await chromium.launch(options);
const pages = new Map();

const verbs = {
  async open(page, url, viewport) {
    const context = await browser.newContext({ viewport, locale: "en-GB" });
    context.setDefaultTimeout(20_000);
    page = await context.newPage();
    page.problems = [];
    page.handshakes = []; // the heads of the 101s, as chromium received them
    const inspector = (page.inspector = await context.newCDPSession(page));
    await inspector.send("Network.enable");
    inspector.on(RESPONSE, ({ response }) => page.handshakes.push(response.headers));
    page.on("pageerror", (error) => page.problems.push(String(error)));
    await page.goto(url);
    return page;
  },
  fill: (page, selector, words) => page.fill(selector, words),
  type: (page, selector, words) => page.locator(selector).pressSequentially(words),
  press: (page, selector, key) => page.press(selector, key),
  click: (page, selector) => page.click(selector),
  // Wait until an element has exactly this text, or, without a text, until there is one.
  async see(page, selector, words) {
    const found = page.locator(selector);
    const exactly = words?.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    await (words === undefined ? found : found.filter({ hasText: new RegExp(`^${exactly}$`) })).first().waitFor();
  },
  until: (page, expression) => page.waitForFunction(expression).then(() => null),
  texts: (page, selector) => page.locator(selector).allTextContents(),
  evaluate: (page, expression) => page.evaluate(expression),
  async handshakes(page, count) {
    while (page.handshakes.length < count) await once(page.inspector, RESPONSE);
    return page.handshakes;
  },
  cookies: async (page) => (await page.context().cookies()).map(({ name }) => name),
  forget: (page, name) => page.context().clearCookies({ name }),
  resize: (page, size) => page.setViewportSize(size),
  shoot: (page, path) => page.screenshot({ path }),
  leave: (page) => page.context().close().then(() => page.problems),
};

console.log(JSON.stringify({ ready: browser.version() }));
for await (const line of createInterface({ input: process.stdin })) {
  const [name, verb, ...rest] = JSON.parse(line);
  let answer;
  try {
    const result = await verbs[verb](pages.get(name), ...rest);
    if (verb === "open") pages.set(name, result);
    if (verb === "leave") pages.delete(name);
    answer = { result: verb === "open" ? null : (result ?? null) };
  } catch (error) {
    answer = { error: String(error) };
  }
  console.log(JSON.stringify(answer));
}
await browser.close();
