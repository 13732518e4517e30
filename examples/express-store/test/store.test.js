// The behaviour of connect-redis that applications rely on.
"use strict";

const assert = require("node:assert/strict");
const { test } = require("node:test");
const { RedisStore } = require("..");
const { startRedis, call } = require("./support");

const within = (ms) => new Date(Date.now() + ms).toISOString();

test("defaults", async (context) => {
  const client = await startRedis(context);
  const store = new RedisStore({ client });
  const expected = { prefix: "sess:", ttl: 86400, scanCount: 100, serializer: JSON, disableTouch: false, disableTTL: false };
  for (const [name, value] of Object.entries(expected)) assert.equal(store[name], value, name);
  assert.equal(new RedisStore({ client, ttl: 0, prefix: "" }).ttl, 86400);
  assert.throws(() => new RedisStore({}), /connected client/);
});

for (const style of ["callbacks", "promises"]) {
  test(`the life of sessions, with ${style}`, async (context) => {
    const client = await startRedis(context);
    const store = new RedisStore({ client });
    const $ = (method, ...args) => (style === "promises" ? store[method](...args) : call(store, method, ...args));
    await $("clear");
    assert.equal(await $("get", "123"), null);
    await $("set", "123", { foo: "bar" });
    assert.deepEqual(await $("get", "123"), { foo: "bar" });
    assert.ok((await client.ttl("sess:123")) >= 86399);
    await $("set", "456", { cookie: { expires: within(60_000) } });
    assert.ok((await client.ttl("sess:456")) <= 60);
    await $("touch", "456", { cookie: { expires: within(90_000) } });
    assert.ok((await client.ttl("sess:456")) > 60);
    assert.equal(await $("length"), 2);
    assert.deepEqual((await $("ids")).sort(), ["123", "456"]);
    assert.deepEqual((await $("all")).map((session) => session.id).sort(), ["123", "456"]);
    await $("destroy", "456");
    assert.equal(await $("length"), 1);
    await $("clear");
    assert.equal(await $("length"), 0);

    await Promise.all(Array.from({ length: 1000 }, (_, index) => $("set", `s${index}`, { index })));
    assert.equal(await $("length"), 1000);
    assert.equal((await $("all")).length, 1000);
    await $("clear");
    assert.equal(await client.dbSize(), 0);

    await $("set", "789", { cookie: { expires: within(60_000) } });
    await $("set", "789", { cookie: { expires: within(-1) } });
    assert.equal(await client.exists("sess:789"), 0);
  });
}

test("data of the caller's own replace what is there, and data that were read do not", async (context) => {
  const client = await startRedis(context);
  const store = new RedisStore({ client });
  await store.set("123", { first: 1 });
  await store.set("123", { second: 2 });
  assert.deepEqual(await store.get("123"), { second: 2 });
  const read = await store.get("123");
  await store.set("123", { third: 3 });
  await store.set("123", Object.assign(read, { fourth: 4 }));
  assert.deepEqual(await store.get("123"), { third: 3, fourth: 4 });
});

test("a session can be saved under another id", async (context) => {
  const store = new RedisStore({ client: await startRedis(context) });
  await store.set("123", { first: 1 });
  const session = await store.get("123");
  await store.set("456", session);
  assert.deepEqual(await store.get("456"), { first: 1 });
});

test("an unused prefix with characters of patterns touches nothing else", async (context) => {
  const client = await startRedis(context);
  await client.set("sess:1", "{}");
  const store = new RedisStore({ client, prefix: "s*[e]?:" });
  await store.set("1", { a: 1 });
  assert.deepEqual(await store.ids(), ["1"]);
  await store.clear();
  assert.deepEqual(await client.keys("*"), ["sess:1"]);
});

test("ttl as a function, without ttl and without touch", async (context) => {
  const client = await startRedis(context);
  const byUser = new RedisStore({ client, prefix: "a:", ttl: (session) => (session.user ? 1000 : 10) });
  await byUser.set("1", {});
  assert.equal(await client.ttl("a:1"), 10);
  await byUser.set("1", { user: "ada" });
  assert.equal(await client.ttl("a:1"), 1000);
  const without = new RedisStore({ client, prefix: "b:", disableTTL: true });
  for (const data of [{ cookie: { expires: within(60_000) } }, { a: 1 }]) {
    await without.set("1", Object.assign((await without.get("1")) ?? {}, data));
    await without.touch("1", { cookie: { expires: within(60_000) } });
    assert.equal(await client.ttl("b:1"), -1);
  }
  const untouched = new RedisStore({ client, prefix: "c:", ttl: 100, disableTouch: true });
  await untouched.set("1", {});
  await untouched.touch("1", { cookie: { expires: within(1_000_000) } });
  assert.equal(await client.ttl("c:1"), 100);
});

test("another serializer, also one that reads asynchronously", async (context) => {
  const client = await startRedis(context);
  const serializer = { stringify: (data) => "v1" + JSON.stringify(data), parse: async (text) => JSON.parse(text.slice(2)) };
  const store = new RedisStore({ client, serializer });
  await store.set("1", { a: 1 });
  assert.equal(await client.get("sess:1"), 'v1{"a":1}');
  const [one, two] = [await store.get("1"), await store.get("1")];
  await store.set("1", Object.assign(one, { b: new Date(0) }));
  await store.set("1", Object.assign(two, { c: 3 }));
  assert.equal(await client.get("sess:1"), 'v1{"a":1,"b":"1970-01-01T00:00:00.000Z","c":3}');
  assert.deepEqual((await store.all()).map((session) => session.id), ["1"]);
});

test("a value of another kind is an error, as a promise and in the callback", async (context) => {
  const client = await startRedis(context);
  const store = new RedisStore({ client });
  await client.hSet("sess:1", "a", "1");
  await client.set("sess:2", "{");
  for (const sid of ["1", "2"]) {
    await assert.rejects(store.get(sid));
    await assert.rejects(call(store, "get", sid));
  }
});
