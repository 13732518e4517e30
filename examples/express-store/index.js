// A session store for express-session on Redis: a drop-in replacement for the RedisStore of
// connect-redis.
//
// Keys, JSON and TTLs are those of connect-redis. The difference is how a session is saved. Each
// session object remembers the bytes that it was read from. A save replaces them only if Redis
// still holds them. If not, the changes of this request are applied, key by key, to what the others
// wrote. So no request undoes the write of another, and none recreates a session that was destroyed
// in the meantime.
"use strict";

const { isDeepStrictEqual } = require("node:util");
const { Session, Store } = require("express-session");

// Compares bytes and never parses JSON: cjson turns [] into {}, and large integers into floats.
// Returns 1 if written, 0 if the session is gone, otherwise what Redis holds instead of the
// expected bytes.
const COMPARE_AND_SET = `
local current = redis.call('GET', KEYS[1])
if not current then return 0 end
if current ~= ARGV[1] then return current end
if ARGV[3] == '' then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
end
return 1`;

// The attempts of one save. Each failed attempt means that another request has saved.
const ATTEMPTS = 256;

class RedisStore extends Store {
  // Per session object, since several requests hold sessions of one id: { key, base, last }. `base`
  // is the text on which Redis and the object last agreed (undefined if nothing is stored yet);
  // `last` is the running save.
  #origins = new WeakMap();

  constructor(options) {
    super();
    if (!options?.client) throw new TypeError("RedisStore needs a connected client: new RedisStore({ client: createClient() })");
    this.client = options.client;
    this.prefix = options.prefix ?? "sess:";
    this.scanCount = options.scanCount || 100;
    this.serializer = options.serializer || JSON;
    this.ttl = options.ttl || 86400;
    this.disableTTL = options.disableTTL || false;
    this.disableTouch = options.disableTouch || false;
  }

  get(sid, callback) {
    return answer(callback, async () => {
      const key = this.prefix + sid;
      const text = await this.client.get(key);
      if (!text) return null;
      const data = await this.serializer.parse(text);
      if (isObject(data)) this.#origins.set(data, { key, base: text });
      return data;
    });
  }

  // Called by express-session with the data that `get` returned: the session object replaces it.
  createSession(req, data) {
    const session = super.createSession(req, data);
    const origin = this.#origins.get(data);
    if (origin) this.#origins.set(session, origin);
    return session;
  }

  set(sid, session, callback) {
    return answer(callback, async () => {
      const key = this.prefix + sid;
      let origin = this.#origins.get(session);
      if (origin?.key !== key) {
        origin = { key };
        this.#origins.set(session, origin);
      }
      // Serialized now: the handler may change the object while an earlier save of it runs.
      const text = this.serializer.stringify(session);
      const ttl = this.#ttlOf(session);
      const save = () => this.#save(origin, text, ttl, session instanceof Session);
      const saved = (origin.last ?? Promise.resolve()).then(save, save);
      origin.last = saved;
      await saved;
    });
  }

  touch(sid, session, callback) {
    return answer(callback, async () => {
      if (this.disableTouch || this.disableTTL) return;
      await this.client.expire(this.prefix + sid, this.#ttlOf(session));
    });
  }

  destroy(sid, callback) {
    return answer(callback, async () => {
      await this.client.del(this.prefix + sid);
    });
  }

  clear(callback) {
    return answer(callback, async () => {
      await Promise.all((await this.#keys()).map((key) => this.client.del(key)));
    });
  }

  length(callback) {
    return answer(callback, async () => (await this.#keys()).length);
  }

  ids(callback) {
    return answer(callback, async () => (await this.#keys()).map((key) => key.slice(this.prefix.length)));
  }

  all(callback) {
    return answer(callback, async () => {
      const ids = await this.ids();
      const sessions = await Promise.all(ids.map((sid) => this.get(sid)));
      sessions.forEach((session, index) => isObject(session) && (session.id = ids[index]));
      return sessions.filter(isObject);
    });
  }

  async #save(origin, text, ttl, isNewSession) {
    if (!(ttl > 0)) return void (await this.client.del(origin.key));
    if (origin.base === undefined) {
      await this.#create(origin.key, text, ttl, isNewSession);
      origin.base = text;
      return;
    }
    let [expected, next] = [origin.base, text];
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const seconds = this.disableTTL ? "" : String(ttl);
      const found = await this.client.eval(COMPARE_AND_SET, { keys: [origin.key], arguments: [expected, next, seconds] });
      // Destroyed or expired in the meantime; it is not recreated.
      if (found === 0) return;
      if (found === 1) {
        // Not `next`: the object in memory does not contain what the others wrote, and must not
        // seem to have removed it.
        origin.base = text;
        return;
      }
      const [base, mine, theirs] = await Promise.all([origin.base, text, found].map((text) => this.serializer.parse(text)));
      if (!isObject(theirs)) throw new Error("what Redis holds under the key of this session is not a session");
      const merged = merge(base, mine, theirs);
      [expected, next, ttl] = [found, this.serializer.stringify(merged), this.#ttlOf(merged)];
    }
    throw new Error(`this session was not saved: others changed it ${ATTEMPTS} times meanwhile`);
  }

  // A generated id must not overwrite another user's session. Callers of `set` with their own data
  // replace what is there, as with connect-redis.
  async #create(key, text, ttl, isNewSession) {
    const options = {};
    if (isNewSession) options.condition = "NX";
    if (!this.disableTTL) options.expiration = { type: "EX", value: ttl };
    if ((await this.client.set(key, text, options)) === null) throw new Error("the id of this new session is taken; see genid");
  }

  #ttlOf(session) {
    if (typeof this.ttl === "function") return this.ttl(session);
    const expires = session?.cookie?.expires;
    return expires ? Math.ceil((Number(new Date(expires)) - Date.now()) / 1000) : this.ttl;
  }

  async #keys() {
    const options = { MATCH: this.prefix.replace(/[\\*?[\]]/g, "\\$&") + "*", COUNT: this.scanCount };
    const isCluster = "masters" in this.client;
    const nodes = isCluster ? await Promise.all(this.client.masters.map((node) => this.client.nodeClient(node))) : [this.client];
    const keys = new Set();
    for (const node of nodes) {
      for await (const page of node.scanIterator(options)) page.forEach((key) => keys.add(key));
    }
    return [...keys];
  }
}

// Applies the difference between `base` and `mine` to `theirs`. Values are not merged inside.
function merge(base, mine, theirs) {
  const merged = { ...theirs };
  for (const key of new Set([...Object.keys(base), ...Object.keys(mine)])) {
    if (key === "cookie" || isDeepStrictEqual(base[key], mine[key])) continue;
    if (Object.hasOwn(mine, key)) merged[key] = mine[key];
    else delete merged[key];
  }
  // Every save changes the expiry, so this is not a conflict: the latest expiry wins, and any
  // expiry wins over none.
  if (expiry(mine.cookie) >= expiry(theirs.cookie)) merged.cookie = mine.cookie;
  return merged;
}

function expiry(cookie) {
  return (cookie?.expires && Date.parse(cookie.expires)) || 0;
}

function isObject(data) {
  return typeof data === "object" && data !== null && !Array.isArray(data);
}

// Answers through a callback or a promise, like connect-redis.
async function answer(callback, work) {
  let result;
  try {
    result = await work();
  } catch (error) {
    if (!callback) throw error;
    return callback(error);
  }
  return callback ? callback(null, result) : result;
}

module.exports = { RedisStore };
