// Shared by the tests: a Redis server, an Express application on it, a browser with one cookie, and
// gates.
"use strict";

const { spawn } = require("node:child_process");
const { once } = require("node:events");
const { mkdtemp, rm } = require("node:fs/promises");
const { tmpdir } = require("node:os");
const { join } = require("node:path");
const { setTimeout: sleep } = require("node:timers/promises");
const express = require("express");
const session = require("express-session");
const { createClient } = require("redis");

// Starts a server without a port, on a socket in its own folder, and a client. Both end with the
// test.
async function startRedis(context) {
  const folder = await mkdtemp(join(tmpdir(), "express-store-"));
  const path = join(folder, "redis.sock");
  const server = spawn(process.env.REDIS_SERVER || "redis-server", ["--port", "0", "--unixsocket", path, "--save", "", "--dir", folder], { stdio: "ignore" });
  const started = once(server, "spawn");
  const ended = once(server, "exit").catch(() => {});
  await started;
  const client = createClient({ socket: { path, reconnectStrategy: () => 20 } });
  client.on("error", () => {});
  context.after(async () => {
    client.destroy();
    server.kill("SIGKILL");
    await ended;
    await rm(folder, { recursive: true });
  });
  await Promise.race([client.connect(), sleep(20_000, undefined, { ref: false }).then(() => Promise.reject(new Error("no redis-server")))]);
  return client;
}

// Starts an application with these routes: { path: async (req) => body }.
async function startApp(context, store, options, routes) {
  const app = express();
  app.use(session({ store, secret: "keyboard cat", resave: false, saveUninitialized: false, ...options }));
  for (const [path, handler] of Object.entries(routes)) {
    app.get(path, async (req, res) => res.json((await handler(req)) ?? null));
  }
  // Express recognizes an error handler by its four parameters.
  app.use((error, req, res, next) => res.status(500).json({ error: error.message }));
  const server = app.listen(0, "127.0.0.1");
  await once(server, "listening");
  context.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://127.0.0.1:${server.address().port}`;
}

// Keeps one cookie, like a browser. `with` makes a browser with another or an older cookie.
class Browser {
  constructor(origin, cookie) {
    Object.assign(this, { origin, cookie });
  }

  with(cookie) {
    return new Browser(this.origin, cookie);
  }

  // Resolves after the session is saved: express-session holds back the last byte of the body until
  // then.
  async visit(path) {
    const response = await fetch(this.origin + path, { headers: this.cookie ? { cookie: this.cookie } : {} });
    const body = await response.json();
    const [cookie] = response.headers.getSetCookie();
    if (cookie) this.cookie = cookie.split(";")[0];
    return { status: response.status, body };
  }
}

// A handler that calls `pass` waits until the test calls `open`; the test can wait until the
// handler has arrived.
function gate() {
  let arrive, open;
  const arrived = new Promise((resolve) => (arrive = resolve));
  const opened = new Promise((resolve) => (open = resolve));
  const pass = () => (arrive(), opened);
  return { pass, arrived, open };
}

// Turns a method with a callback into a promise.
function call(object, method, ...args) {
  return new Promise((resolve, reject) => object[method](...args, (error, result) => (error ? reject(error) : resolve(result))));
}

module.exports = { startRedis, startApp, Browser, gate, call };
