//! The scripts: each compares before it changes something, in one atomic step.
//!
//! A hit never runs one (a script costs the server ten times a GET). Invariant: a script touches keys of one slot only,
//! `KEYS[1]` = the value key, `KEYS[2]` = its lease key, and reads of a large value only what it compares.
//! `pcall` where the value key may hold another type: that is an answer, not a fault.

pub(super) mod fences;

use std::sync::LazyLock;

use futures::future::join_all;
use redis::Script;
use redis::aio::MultiplexedConnection;

use crate::store::FILL_ID_AT;

/// Gives all scripts to the server, so that the first use of each is one trip and not three. Without the right to do so, or after
/// SCRIPT FLUSH, a script is given again when it is missed.
pub(super) async fn load_all(connection: &MultiplexedConnection) {
    let all = [
        &ACQUIRE_REFRESH,
        &ACQUIRE_IN_PLACE,
        &ACQUIRE_OVER_MARK,
        &FILL,
        &FILL_REFRESH,
        &FILL_PLAIN,
        &REWRITE_HEAD,
        &RENEW,
        &RENEW_REFRESH,
        &RELEASE,
        &THROTTLE,
        &DISCARD,
        &DISCARD_WRONG_TYPE,
        &REMOVE_HEAD,
        &SWAP,
        &PERSIST,
        &REGISTER_BUILD,
        #[cfg(feature = "sessions")]
        &REPLACE,
        #[cfg(feature = "sessions")]
        &ENTER,
        &fences::RAISE,
        &fences::LIFT,
        &fences::WITHDRAW,
        &fences::FENCE_VERSION,
        &fences::LIFT_VERSION,
        &fences::WITHDRAW_VERSION,
    ];
    let loads = all.map(|script| {
        let mut connection = connection.clone();
        // Not `Script::load_async`: in a debug build it panics if a proxy answers anything but the
        // hash.
        async move { redis::pipe().load_script(script).query_async::<redis::Value>(&mut connection).await }
    });
    // A fault of the connection shows at its next use; anything else is no fault.
    drop(join_all(loads).await);
}

/// The first lines of the scripts that compare.
///
/// `keep`: the record under `KEYS[1]` is kept for at least as long as a lease beside it (R28). Twice as long, so that only every other
/// renewal changes it: each change is told to whoever has the record in L1. `touch`: wakes those who wait for a change of the key.
fn script(body: &str) -> Script {
    // GETRANGE counts its last byte in.
    let (from, to) = (FILL_ID_AT.start, FILL_ID_AT.end.saturating_sub(1));
    let prelude = format!(
        "local function stands(mark) return redis.pcall('GETRANGE', KEYS[1], 0, 33) == mark end \
         local function filled_by(id) return redis.pcall('GETRANGE', KEYS[1], {from}, {to}) == id end \
         local function keep(lease) \
           local left = redis.call('PTTL', KEYS[1]) \
           if left > 0 and left < tonumber(lease) then redis.call('PEXPIRE', KEYS[1], 2 * lease) end \
         end \
         local function touch(key) \
           local left = redis.call('PTTL', key) \
           if left > 0 then redis.call('PEXPIRE', key, left) end \
         end \
         local function now() local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000) end "
    );
    Script::new(&(prelude + body))
}

/// `KEYS`: value, lease. `ARGV`: fill id, token, ms. Returns `{1}` ours; `{0, bytes or false}` other record;
/// `{2, ms left}` somebody else's lease; `{3}` another type; `{4, ms left}` the last refresh failed; `{5}` ours, over the mark of a run that
/// stored nothing, so nobody waits for it; `{6, ms left}` somebody else's of that kind.
pub(super) static ACQUIRE_REFRESH: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if not filled_by(ARGV[1]) then \
           local found = redis.pcall('GET', KEYS[1]) \
           if type(found) == 'table' then return {3} end \
           return {0, found} \
         end \
         local ours = 1 \
         if not redis.call('SET', KEYS[2], ARGV[2], 'NX', 'PX', ARGV[3]) then \
           local found = redis.call('GET', KEYS[2]) \
           local first = #found == 33 and string.sub(found, 1, 1) \
           if first ~= 'N' then \
             local whose = found == 'F' and 4 or first == 'U' and 6 or 2 \
             return {whose, redis.call('PTTL', KEYS[2])} \
           end \
           redis.call('SET', KEYS[2], 'U' .. ARGV[2], 'PX', ARGV[3]) \
           ours = 5 \
         end \
         keep(ARGV[3]) \
         return {ours}",
    )
});

/// `KEYS`: value. `ARGV`: fill id, mark, ms. Returns `{1}` ours; `{0, bytes or false}` another record; `{3}` another type.
pub(super) static ACQUIRE_IN_PLACE: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if not filled_by(ARGV[1]) then \
           local found = redis.pcall('GET', KEYS[1]) \
           if type(found) == 'table' then return {3} end \
           return {0, found} \
         end \
         redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) \
         return {1}",
    )
});

/// `KEYS`: value. `ARGV`: the mark of a run that stored nothing, lease, ms. Returns `{1}` ours; `{0, bytes or false}` something else;
/// `{3}` another type.
pub(super) static ACQUIRE_OVER_MARK: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if not stands(ARGV[1]) then \
           local found = redis.pcall('GET', KEYS[1]) \
           if type(found) == 'table' then return {3} end \
           return {0, found} \
         end \
         redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) \
         return {1}",
    )
});

/// `KEYS`: value. `ARGV`: mark, record, ms.
pub(super) static FILL: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if not stands(ARGV[1]) then return 0 end \
         redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) \
         return 1",
    )
});

/// `KEYS`: lease, plain key. `ARGV`: the two forms of the lease, value, ms, and what stood under the key when the run
/// began, if anything did.
pub(super) static FILL_PLAIN: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if not stands(ARGV[1]) and not stands(ARGV[2]) then return 0 end \
         redis.call('DEL', KEYS[1]) \
         if redis.pcall('GET', KEYS[2]) ~= (ARGV[5] or false) then return 0 end \
         redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4]) \
         return 1",
    )
});

/// `KEYS`: value, lease. `ARGV`: token, record, ms, fill id of the record to replace.
pub(super) static FILL_REFRESH: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then return 0 end \
         redis.call('DEL', KEYS[2]) \
         if not filled_by(ARGV[4]) then return 0 end \
         redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) \
         return 1",
    )
});

/// `KEYS`: value, lease. `ARGV`: token, new first bytes, ms, fill id of the record they belong to.
pub(super) static REWRITE_HEAD: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then return 0 end \
         redis.call('DEL', KEYS[2]) \
         if not filled_by(ARGV[4]) then return 0 end \
         redis.call('SETRANGE', KEYS[1], 0, ARGV[2]) \
         redis.call('PEXPIRE', KEYS[1], ARGV[3]) \
         return 1",
    )
});

/// `KEYS`: the key with the lease. `ARGV`: what must stand there, ms.
pub(super) static RENEW: LazyLock<Script> =
    LazyLock::new(|| script("if not stands(ARGV[1]) then return 0 end return redis.call('PEXPIRE', KEYS[1], ARGV[2])"));

/// `KEYS`: value, lease. `ARGV`: token, ms, fill id of the record.
pub(super) static RENEW_REFRESH: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then return 0 end \
         if filled_by(ARGV[3]) then keep(ARGV[2]) end \
         return redis.call('PEXPIRE', KEYS[2], ARGV[2])",
    )
});

/// `KEYS`: the key with the lease, the record beside it if there is one. `ARGV`: the two forms of the lease; the mark of a run that
/// stored nothing and its ms, or nothing. Where there is no memory for a mark, the lease goes without one.
pub(super) static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    script(
        "local found = redis.pcall('GETRANGE', KEYS[1], 0, 33) \
         if found ~= ARGV[1] and found ~= ARGV[2] then return 0 end \
         if not (ARGV[3] and redis.pcall('SET', KEYS[1], ARGV[3], 'PX', ARGV[4]).ok) then redis.call('DEL', KEYS[1]) end \
         if KEYS[2] then touch(KEYS[2]) end \
         return 1",
    )
});

/// `KEYS`: value, lease. `ARGV`: token, ms. The expiry is set to what it is: that wakes those who wait for the record.
pub(super) static THROTTLE: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then return 0 end \
         redis.call('SET', KEYS[2], 'F', 'PX', ARGV[2]) \
         touch(KEYS[1]) \
         return 1",
    )
});

/// `KEYS`: value. `ARGV`: the bytes that must stand there.
pub(super) static DISCARD: LazyLock<Script> = LazyLock::new(|| {
    script("if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('UNLINK', KEYS[1])")
});

/// `KEYS`: value. `ARGV`: the first bytes of what must stand there.
pub(super) static REMOVE_HEAD: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if redis.pcall('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) ~= ARGV[1] then return 0 end \
         return redis.call('UNLINK', KEYS[1])",
    )
});

/// `KEYS`: value. Removes a value that is no string.
pub(super) static DISCARD_WRONG_TYPE: LazyLock<Script> = LazyLock::new(|| {
    script(
        "local kind = redis.call('TYPE', KEYS[1])['ok'] \
         if kind == 'string' or kind == 'none' then return 0 end \
         return redis.call('UNLINK', KEYS[1])",
    )
});

/// `KEYS`: value. `ARGV`: expected, new, ms or empty for the time that is left. Returns 1 done, -1 gone, else what stands there.
pub(super) static SWAP: LazyLock<Script> = LazyLock::new(|| {
    script(
        "local found = redis.call('GET', KEYS[1]) \
         if not found then return -1 end \
         if found ~= ARGV[1] then return found end \
         if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL') \
         else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end \
         return 1",
    )
});

/// `KEYS`: old, new, mark. `ARGV`: expected, new, ms or empty for no expiry, the mark's ms or empty for none. Returns 1 done, 0 conflict,
/// -1 gone, -2 taken.
pub(super) static REPLACE: LazyLock<Script> = LazyLock::new(|| {
    script(
        "local found = redis.call('GET', KEYS[1]) \
         if not found then return -1 end \
         if found ~= ARGV[1] then return 0 end \
         if redis.call('EXISTS', KEYS[2]) == 1 then return -2 end \
         if ARGV[3] == '' then redis.call('SET', KEYS[2], ARGV[2]) \
         else redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3]) end \
         redis.call('DEL', KEYS[1]) \
         if ARGV[4] ~= '' then redis.call('SET', KEYS[3], '1', 'PX', ARGV[4]) end \
         return 1",
    )
});

/// `KEYS`: index, new, what it is made from, an index that a member leaves, mark, and all that is deleted along with it.
/// `ARGV`: ms of the entry, member, bytes, ms or empty for no expiry, how (`create`, `swap`,
/// `replace`), expected, the member that leaves,
/// the prefix of members' keys, how many there may be or empty, `refuse` or empty for ending the first, the mark's ms or empty for none.
/// Returns the members that were ended; what stands there instead of the expected; -1 gone, -2 taken, -3 one too many.
///
/// A first write that Redis refuses, out of memory, has changed nothing; after it, none is refused. So the value comes first. Keys of members are
/// not known before: a server that wants all of a script's keys declared, as a Cluster, cannot run
/// it. The time is the server's: by a node's clock that is ahead, all entries would be over (R14).
pub(super) static ENTER: LazyLock<Script> = LazyLock::new(|| {
    script(
        "local how, leaves, most, ended, now = ARGV[5], ARGV[7], tonumber(ARGV[9]), {}, now() \
         if how ~= 'create' then \
           local found = redis.call('GET', KEYS[3]) \
           if not found then return -1 end \
           if found ~= ARGV[6] then return found end \
         end \
         if how ~= 'swap' and redis.call('EXISTS', KEYS[2]) == 1 then return -2 end \
         redis.call('ZCARD', KEYS[4]) \
         if most then \
           local others = {} \
           for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do \
             local left = member == ARGV[2] or (member == leaves and KEYS[4] == KEYS[1]) \
             if not left and redis.call('EXISTS', ARGV[8] .. member) == 1 then others[#others + 1] = member end \
           end \
           local surplus = #others + 1 - most \
           if surplus > 0 and ARGV[10] == 'refuse' then return -3 end \
           for i = 1, surplus do ended[i] = others[i] end \
         else redis.call('ZCARD', KEYS[1]) end \
         if ARGV[4] == '' then redis.call('SET', KEYS[2], ARGV[3]) \
         else redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4]) end \
         if how == 'replace' then redis.call('DEL', KEYS[3]) end \
         for i = 6, #KEYS do redis.call('DEL', KEYS[i]) end \
         if ARGV[11] ~= '' then redis.call('SET', KEYS[5], '1', 'PX', ARGV[11]) end \
         for _, member in ipairs(ended) do \
           redis.call('DEL', ARGV[8] .. member) \
           redis.call('ZREM', KEYS[1], member) \
         end \
         if leaves ~= '' then redis.call('ZREM', KEYS[4], leaves) end \
         redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now) \
         redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[2]) \
         redis.call('PEXPIREAT', KEYS[1], redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]) \
         return ended",
    )
});

/// `KEYS`: index. Returns members and when they end, in turn, as text.
pub(super) static INDEX_MEMBERS: LazyLock<Script> = LazyLock::new(|| {
    script(
        "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now()) \
         return redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')",
    )
});

/// `KEYS`: index. `ARGV`: ms of the entry, member.
pub(super) static INDEX_PUT: LazyLock<Script> = LazyLock::new(|| {
    script(
        "local now = now() \
         redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now) \
         redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[2]) \
         return redis.call('PEXPIREAT', KEYS[1], redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2])",
    )
});

/// `KEYS`: registry, the function's version. `ARGV`: fingerprint, ms, a new version, its ms. Returns the version that stands then.
pub(super) static REGISTER_BUILD: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if redis.call('EXISTS', KEYS[1]) == 0 and redis.call('EXISTS', KEYS[2]) == 1 then \
           redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4]) \
         end \
         redis.call('SADD', KEYS[1], ARGV[1]) \
         redis.call('PEXPIRE', KEYS[1], ARGV[2]) \
         return redis.call('GET', KEYS[2])",
    )
});

/// `KEYS`: value. Takes the expiry away. Returns 0 if nothing stands there.
pub(super) static PERSIST: LazyLock<Script> =
    LazyLock::new(|| script("redis.call('PERSIST', KEYS[1]) return redis.call('EXISTS', KEYS[1])"));
