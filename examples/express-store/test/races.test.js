// Overlapping requests of one session. Each test is an order of events in which connect-redis loses
// data.
"use strict";

const assert = require("node:assert/strict");
const { test } = require("node:test");
const { RedisStore } = require("..");
const { startRedis, startApp, Browser, gate, call } = require("./support");

const sidOf = (browser) => decodeURIComponent(browser.cookie).match(/s:(.*)\./)[1];

async function start(context, options) {
  const client = await startRedis(context);
  const slow = gate();
  const routes = {
    "/": (req) => req.session,
    "/set/:key/:value": (req) => void (req.session[req.params.key] = req.params.value),
    "/delete/:key": (req) => void delete req.session[req.params.key],
    "/logout": (req) => call(req.session, "destroy"),
    "/login": async (req) => {
      await call(req.session, "regenerate");
      req.session.user = "ada";
    },
    "/remember": (req) => void ((req.session.remembered = true), (req.session.cookie.maxAge = 86_400_000)),
    "/slow": slow.pass,
    "/slow/remember": async (req) => {
      await slow.pass();
      Object.assign(req.session, { remembered: true }).cookie.maxAge = 86_400_000;
    },
    "/slow/set/:key/:value": async (req) => {
      await slow.pass();
      req.session[req.params.key] = req.params.value;
    },
    "/slow/delete/:key": async (req) => {
      await slow.pass();
      delete req.session[req.params.key];
    },
    "/slow/save-twice": async (req) => {
      req.session.one = true;
      await slow.pass();
      await call(req.session, "save");
      req.session.two = true;
      await call(req.session, "save");
      delete req.session.one;
    },
    "/slow/reload": async (req) => {
      await slow.pass();
      await call(req.session, "reload");
      req.session.reloaded = true;
    },
    "/saves-at-once": (req) => {
      req.session.one = 1;
      req.session.save();
      req.session.two = 2;
      req.session.save();
      req.session.three = 3;
    },
  };
  const browser = new Browser(await startApp(context, new RedisStore({ client }), options, routes));
  await browser.visit("/set/first/visit");
  const key = () => "sess:" + sidOf(browser);
  // One request waits in its handler while `meanwhile` runs.
  const overlap = async (path, meanwhile) => {
    const slowly = browser.with(browser.cookie);
    const response = slowly.visit(path);
    await slow.arrived;
    await meanwhile();
    slow.open();
    assert.equal((await response).status, 200);
    return slowly;
  };
  const stored = async () => {
    const { cookie, ...rest } = JSON.parse(await client.get(key()));
    return rest;
  };
  return { client, browser, overlap, key, stored };
}

for (const resave of [false, true]) {
  const tests = (name, body, options) =>
    test(`${name} (resave ${resave})`, async (context) => body(await start(context, { resave, ...options })));

  tests("writers of different keys are both kept", async ({ browser, overlap, stored }) => {
    await overlap("/slow/set/a/1", () => browser.visit("/set/b/2"));
    assert.deepEqual(await stored(), { first: "visit", a: "1", b: "2" });
  });

  tests("of two writers of one key the last wins", async ({ browser, overlap, stored }) => {
    await overlap("/slow/set/a/1", () => browser.visit("/set/a/2"));
    assert.deepEqual(await stored(), { first: "visit", a: "1" });
  });

  tests("a removed key stays removed beside another writer", async ({ browser, overlap, stored }) => {
    await overlap("/slow/set/a/1", () => browser.visit("/delete/first"));
    assert.deepEqual(await stored(), { a: "1" });
  });

  tests("a removal does not undo what others wrote", async ({ browser, overlap, stored }) => {
    await overlap("/slow/delete/first", () => browser.visit("/set/b/2"));
    assert.deepEqual(await stored(), { b: "2" });
  });

  tests("a login overlapped by a request that does nothing is kept", async ({ browser, overlap, stored }) => {
    await overlap("/slow", () => browser.visit("/set/user/ada"));
    assert.deepEqual(await stored(), { first: "visit", user: "ada" });
  });

  tests("a destroyed session is not resurrected by a writer", async ({ client, browser, overlap }) => {
    await overlap("/slow/set/a/1", () => browser.visit("/logout"));
    assert.equal(await client.dbSize(), 0);
  });

  tests("a destroyed session is not resurrected by a request that does nothing", async ({ client, browser, overlap }) => {
    await overlap("/slow", () => browser.visit("/logout"));
    assert.equal(await client.dbSize(), 0);
  });

  tests("after regenerate the old id is dead", async ({ client, browser, overlap, key, stored }) => {
    const old = key();
    await overlap("/slow/set/a/1", () => browser.visit("/login"));
    assert.notEqual(key(), old);
    assert.deepEqual(await client.keys("*"), [key()]);
    assert.deepEqual(await stored(), { user: "ada" });
  });

  tests("what another program writes during a handler is kept", async ({ client, overlap, key, stored }) => {
    await overlap("/slow/set/a/1", async () => {
      const session = JSON.parse(await client.get(key()));
      await client.set(key(), JSON.stringify({ ...session, foreign: [] }), { expiration: "KEEPTTL" });
    });
    assert.deepEqual(await stored(), { first: "visit", foreign: [], a: "1" });
  });

  tests("a second save of one request removes nothing of the others", async ({ browser, overlap, stored }) => {
    await overlap("/slow/save-twice", () => browser.visit("/set/b/2"));
    assert.deepEqual(await stored(), { first: "visit", b: "2", two: true });
  });

  tests("saves of one new session that nobody waits for", async ({ browser, client }) => {
    const other = browser.with(undefined);
    assert.equal((await other.visit("/saves-at-once")).status, 200);
    const { cookie, ...rest } = JSON.parse(await client.get("sess:" + sidOf(other)));
    assert.deepEqual(rest, { one: 1, two: 2, three: 3 });
  });

  tests("reload takes over what the others wrote", async ({ browser, overlap, stored }) => {
    await overlap("/slow/reload", () => browser.visit("/set/b/2"));
    assert.deepEqual(await stored(), { first: "visit", b: "2", reloaded: true });
  });

  for (const [slow, meanwhile] of [["/slow/set/a/1", "/remember"], ["/slow/remember", "/set/a/1"]]) {
    const body = async ({ client, browser, overlap, key }) => {
      await overlap(slow, () => browser.visit(meanwhile));
      const { cookie, ...rest } = JSON.parse(await client.get(key()));
      assert.deepEqual(rest, { first: "visit", a: "1", remembered: true });
      // express-session takes the clock twice: a millisecond may pass in between.
      assert.ok(cookie.originalMaxAge > 86_399_000 && cookie.originalMaxAge <= 86_400_000, cookie.originalMaxAge);
      assert.ok((await client.ttl(key())) > 80_000);
    };
    tests(`the latest expiry stands: ${meanwhile} during ${slow}`, body, { cookie: { maxAge: 60_000 } });
    tests(`an expiry stands before none: ${meanwhile} during ${slow}`, body);
  }

  tests("50 requests at once each write a key of their own", async ({ browser, stored }) => {
    const keys = Array.from({ length: 50 }, (_, index) => `key${index}`);
    const responses = await Promise.all(keys.map((key) => browser.with(browser.cookie).visit(`/set/${key}/x`)));
    assert.ok(responses.every((response) => response.status === 200));
    assert.deepEqual(Object.keys(await stored()).sort(), ["first", ...keys].sort());
  });

  tests("what is no session any more is an error and stays as it is", async ({ client, browser, key }) => {
    for (const text of ["7", "null", "[1]", "[1", '"text"']) {
      const store = new RedisStore({ client });
      const session = await store.get(sidOf(browser));
      const before = await client.getSet(key(), text);
      await assert.rejects(store.set(sidOf(browser), Object.assign(session, { a: 1 })), undefined, text);
      assert.equal(await client.get(key()), text);
      await client.set(key(), before);
    }
  });
}

test("a new session never falls on one that is there", async (context) => {
  const client = await startRedis(context);
  const routes = { "/set/:key/:value": (req) => void (req.session[req.params.key] = req.params.value) };
  const origin = await startApp(context, new RedisStore({ client }), { genid: () => "the-same" }, routes);
  assert.equal((await new Browser(origin).visit("/set/user/ada")).status, 200);
  const mallory = new Browser(origin);
  await mallory.visit("/set/user/mallory");
  assert.equal(JSON.parse(await client.get("sess:the-same")).user, "ada");
});
