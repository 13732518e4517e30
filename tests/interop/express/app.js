// Express applications for the interoperability tests, one for each set of options, in one process.
//
//   node app.js '{"redis": "redis://127.0.0.1:6379", "apps": [{"resave": false}, ..]}'
//
// It prints {"ports": [..]} when it is ready, and ends when its standard input does. A request
// lists steps for the session: `?steps=["set views 1","save"]`. The response is a JSON array with
// the result of each step. The header `x-sid` has the id.
"use strict";

const { once } = require("node:events");
const express = require("express");
const session = require("express-session");
const { createClient } = require("redis");
const IoRedis = require("ioredis");

const STORES = {
  "connect-redis": require("connect-redis").RedisStore,
  "express-store": require("../../../examples/express-store").RedisStore,
};

const call = (object, method, ...args) =>
  new Promise((resolve, reject) => object[method](...args, (error, result) => (error ? reject(error) : resolve(result ?? null))));

// Each `gate <name>` waits for one /__open/<name>. /__arrival/<name> answers when one more request
// has reached the gate.
const gates = new Map();

function gate(name) {
  if (!gates.has(name)) gates.set(name, { arrivals: channel(), passes: channel() });
  return gates.get(name);
}

// A queue of values and a queue of waiters.
function channel() {
  const [values, waiting] = [[], []];
  return {
    send: (value) => (waiting.length > 0 ? waiting.shift()(value) : values.push(value)),
    next: () => new Promise((resolve) => (values.length > 0 ? resolve(values.shift()) : waiting.push(resolve))),
  };
}

const messages = channel();

// name: (req, res, rest of the step) => result
const STEPS = {
  has: (req) => req.session !== undefined && req.session !== null,
  read: (req, res, key) => req.session[key] ?? null,
  all: (req) => Object.fromEntries(Object.entries(req.session).filter(([key]) => key !== "cookie")),
  set: (req, res, rest) => {
    const [, key, value] = rest.match(/^(\S+) (.*)$/s);
    req.session[key] = JSON.parse(value);
  },
  delete: (req, res, key) => void delete req.session[key],
  count: (req, res, key) => (req.session[key] = (req.session[key] ?? 0) + 1),
  maxage: (req, res, value) => void (req.session.cookie.maxAge = JSON.parse(value)),
  save: (req) => call(req.session, "save"),
  reload: (req) => call(req.session, "reload"),
  touch: (req) => void req.session.touch(),
  regenerate: (req) => call(req.session, "regenerate"),
  destroy: (req) => call(req.session, "destroy"),
  unset: (req) => void delete req.session,
  null: (req) => void (req.session = null),
  status: (req, res, value) => void res.status(Number(value)),
  fail: () => {
    throw new Error("asked to fail");
  },
  gate: async (req, res, name) => {
    gate(name).arrivals.send();
    await gate(name).passes.next();
  },
  // Without a session, as in a program with the `redis` client.
  // `redis hSet ["user:7", {"name": "Ada"}]`
  redis: async (req, res, rest) => {
    const [, method, args] = rest.match(/^(\S+) (.*)$/s);
    return (await req.app.locals.client[method](...JSON.parse(args))) ?? null;
  },
  // The same with ioredis. `ioredis hset ["user:7", "name", "Ada"]`
  ioredis: async (req, res, rest) => {
    const [, method, args] = rest.match(/^(\S+) (.*)$/s);
    return (await req.app.locals.ioredis[method](...JSON.parse(args))) ?? null;
  },
  subscribe: async (req, res, channel) => {
    await req.app.locals.subscriber.subscribe(channel, (message) => messages.send(message));
  },
  "ioredis-subscribe": async (req, res, channel) => {
    const subscriber = req.app.locals.ioredis.duplicate();
    subscriber.on("message", (_channel, message) => messages.send(message));
    await subscriber.subscribe(channel);
  },
  message: () => messages.next(),
};

async function run(req, res) {
  const results = [];
  for (const step of JSON.parse(req.query.steps ?? "[]")) {
    const [name] = step.split(" ", 1);
    if (!(name in STEPS)) throw new Error(`no such step: ${step}`);
    results.push((await STEPS[name](req, res, step.slice(name.length + 1))) ?? null);
  }
  res.set("x-sid", encodeURIComponent(req.sessionID ?? ""));
  res.json(results);
}

async function start({ client, subscriber, ioredis }, { store, storeOptions, trustProxy, sessions, secret, ...options }) {
  const app = express();
  Object.assign(app.locals, { client, subscriber, ioredis });
  if (trustProxy !== undefined) app.set("trust proxy", trustProxy);
  app.get("/__arrival/:gate", async (req, res) => res.json((await gate(req.params.gate).arrivals.next()) ?? null));
  app.get("/__open/:gate", (req, res) => {
    gate(req.params.gate).passes.send();
    res.json(null);
  });
  if (sessions !== false) {
    // The test chooses the `genid`, to see how an id is signed and escaped.
    if (options.genidFromHeader) options.genid = (req) => decodeURIComponent(req.get("x-genid"));
    // Bytes as hexadecimal digits, because a secret need not be text.
    secret = secret?.hex ? Buffer.from(secret.hex, "hex") : (secret ?? "keyboard cat");
    const redisStore = new STORES[store ?? "connect-redis"]({ client, ...storeOptions });
    app.use(session({ store: redisStore, secret, resave: false, saveUninitialized: false, ...options }));
  }
  app.use(run);
  // Four parameters make it an error handler.
  app.use((error, req, res, next) => (res.headersSent ? next(error) : res.status(500).json({ error: error.message })));
  const server = app.listen(0, "127.0.0.1");
  await once(server, "listening");
  return server.address().port;
}

async function main() {
  const { redis, apps } = JSON.parse(process.argv[2]);
  const client = createClient({ url: redis });
  const subscriber = client.duplicate();
  for (const each of [client, subscriber]) {
    each.on("error", () => {});
    await each.connect();
  }
  // Connects on first use.
  const ioredis = new IoRedis(redis, { lazyConnect: true });
  ioredis.on("error", () => {});
  process.stdin.resume().on("end", () => process.exit(0));
  const ports = [];
  for (const options of apps) ports.push(await start({ client, subscriber, ioredis }, options));
  console.log(JSON.stringify({ ports }));
}

main();
