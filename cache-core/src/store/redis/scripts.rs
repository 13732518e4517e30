//! The Lua scripts: each compares before it changes something, in one atomic step.
//!
//! A hit never runs one (a script costs the server ten times a GET). Invariant: a script touches
//! keys of one slot only, `KEYS[1]` = the value key, `KEYS[2]` = its lease key, and reads of a
//! large value only what it compares. `pcall` is used where the value key may hold another type:
//! that is an answer, not a failure.

pub(super) mod fences;

use std::sync::LazyLock;

use futures::future::join_all;
use redis::Script;
use redis::aio::MultiplexedConnection;

use crate::store::FILL_ID_AT;

/// Loads all scripts into the server, so that the first use of each takes one round trip instead of
/// three. Without the right to do so, or after SCRIPT FLUSH, a script is sent again when the server
/// reports it missing.
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
    // A failure of the connection shows at its next use; other errors are not failures.
    drop(join_all(loads).await);
}

/// Makes a script that starts with the helpers for comparing.
///
/// `keep`: extends the record under `KEYS[1]` to at least the life of a lease next to it (R28). It
/// sets twice that time, so that only every other renewal changes the record: each change is
/// notified to all processes with the record in L1. `touch`: wakes callers that wait for a change
/// of the key.
fn script(body: &str) -> Script {
    // The range of GETRANGE includes its last byte.
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

/// `KEYS`: value, lease. `ARGV`: fill id, token, ms. Returns `{1}` ours; `{0, bytes or false}`
/// other record; `{2, ms left}` another caller's lease; `{3}` another type; `{4, ms left}` the last
/// refresh failed; `{5}` ours, over the mark of a compute that stored nothing, so other callers do
/// not wait for it; `{6, ms left}` another caller's lease of that kind.
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

/// `KEYS`: value. `ARGV`: fill id, mark, ms. Returns `{1}` ours; `{0, bytes or false}` another
/// record; `{3}` another type.
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

/// `KEYS`: value. `ARGV`: the mark of a compute that stored nothing, lease, ms. Returns `{1}` ours;
/// `{0, bytes or false}` something else; `{3}` another type.
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

/// `KEYS`: lease, plain key. `ARGV`: the two forms of the lease, value, ms, and the content of the
/// key when the compute began, if there was any.
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

/// `KEYS`: the key with the lease. `ARGV`: the content it must have, ms.
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

/// `KEYS`: the key with the lease, the record next to it if there is one. `ARGV`: the two forms of
/// the lease; the mark of a compute that stored nothing and its ms, or nothing. If there is no
/// memory for a mark, the lease is released without one.
pub(super) static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    script(
        "local found = redis.pcall('GETRANGE', KEYS[1], 0, 33) \
         if found ~= ARGV[1] and found ~= ARGV[2] then return 0 end \
         if not (ARGV[3] and redis.pcall('SET', KEYS[1], ARGV[3], 'PX', ARGV[4]).ok) then redis.call('DEL', KEYS[1]) end \
         if KEYS[2] then touch(KEYS[2]) end \
         return 1",
    )
});

/// `KEYS`: value, lease. `ARGV`: token, ms. Sets the record's expiry to its current value, which
/// wakes callers that wait for the record.
pub(super) static THROTTLE: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then return 0 end \
         redis.call('SET', KEYS[2], 'F', 'PX', ARGV[2]) \
         touch(KEYS[1]) \
         return 1",
    )
});

/// `KEYS`: value. `ARGV`: the bytes it must have.
pub(super) static DISCARD: LazyLock<Script> = LazyLock::new(|| {
    script("if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('UNLINK', KEYS[1])")
});

/// `KEYS`: value. `ARGV`: the first bytes it must have.
pub(super) static REMOVE_HEAD: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if redis.pcall('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) ~= ARGV[1] then return 0 end \
         return redis.call('UNLINK', KEYS[1])",
    )
});

/// `KEYS`: value. Removes a value that is not a string.
pub(super) static DISCARD_WRONG_TYPE: LazyLock<Script> = LazyLock::new(|| {
    script(
        "local kind = redis.call('TYPE', KEYS[1])['ok'] \
         if kind == 'string' or kind == 'none' then return 0 end \
         return redis.call('UNLINK', KEYS[1])",
    )
});

/// `KEYS`: value. `ARGV`: expected, new, ms or empty to keep the time to live. Returns 1 done, -1
/// gone, else the bytes found.
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

/// `KEYS`: old, new, mark. `ARGV`: expected, new, ms or empty for no expiry, the mark's ms or empty
/// for none. Returns 1 done, 0 conflict, -1 gone, -2 taken.
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

/// `KEYS`: index, new, the key it is made from, an index that a member leaves, mark, and all keys
/// to delete. `ARGV`: ms of the entry, member, bytes, ms or empty for no expiry, how (`create`,
/// `swap`, `replace`), expected, the member that leaves, the prefix of members' keys, the limit of
/// members or empty, `refuse` or empty for ending the first, the mark's ms or empty for none.
/// Returns the members that were ended; the bytes found instead of the expected; -1 gone, -2 taken,
/// -3 over the limit.
///
/// If Redis refuses the first write because it is out of memory, nothing has changed; after the
/// first write none is refused. So the value is written first. Keys of members are not known
/// before: a server that requires all of a script's keys to be declared, such as a Cluster, cannot
/// run it. The time is the server's: by the clock of a process that is ahead, all entries would
/// have ended (R14).
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

/// `KEYS`: index. Returns members and when they end, alternating, as text.
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

/// `KEYS`: registry, the function's version. `ARGV`: fingerprint, ms, a new version, its ms.
/// Returns the version afterwards.
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

/// `KEYS`: value. Removes the expiry. Returns 0 if the key is absent.
pub(super) static PERSIST: LazyLock<Script> =
    LazyLock::new(|| script("redis.call('PERSIST', KEYS[1]) return redis.call('EXISTS', KEYS[1])"));
