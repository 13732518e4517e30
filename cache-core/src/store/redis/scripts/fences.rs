//! The scripts of write fences: the same as [`Fences`](crate::store::fences::Fences), executed in
//! the server.
//!
//! All times are the server's. In each script the first command that may be refused for lack of
//! memory comes after another write, and a script is not interrupted after a write: so no record is
//! put aside without its fence.

use std::sync::LazyLock;

use redis::Script;

use crate::store::fences::FENCES_MAX;

/// Makes a script with the common first lines. `before` is the content of `KEYS[1]` before its
/// fences, `nil` if there are none; `standing` are the fences that have not expired.
fn script(body: &str) -> Script {
    let prelude = format!(
        "local none = string.rep('0', 32) \
         local time = redis.call('TIME') \
         local now = time[1] * 1000 + math.floor(time[2] / 1000) \
         local before, standing = nil, {{}} \
         local found = redis.pcall('GETRANGE', KEYS[1], 0, 832) \
         local size = type(found) == 'string' and #found or 0 \
         if size > 33 and size < 833 and (size - 33) % 47 == 0 and string.find(found, '^F%x+$') then \
           before = string.sub(found, 2, 33) \
           for at = 34, size, 47 do \
             local ends = tonumber(string.sub(found, at + 32, at + 46)) \
             if ends > now then standing[#standing + 1] = {{string.sub(found, at, at + 31), ends}} else before = none end \
           end \
         end \
         local function remove(token) \
           for at = #standing, 1, -1 do if standing[at][1] == token then table.remove(standing, at) end end \
         end \
         local function add(token, ends) \
           remove(token) \
           local named, last = 0, ends \
           for _, fence in ipairs(standing) do \
             if fence[1] ~= none then named = named + 1 end \
             last = math.max(last, fence[2]) \
           end \
           if named < {FENCES_MAX} then standing[#standing + 1] = {{token, ends}} return 0 end \
           remove(none) \
           standing[#standing + 1] = {{none, last}} \
           return 1 \
         end \
         local function stand() \
           local text, last = 'F' .. before, 0 \
           for _, fence in ipairs(standing) do \
             text = text .. fence[1] .. string.format('%015.0f', fence[2]) \
             last = math.max(last, fence[2]) \
           end \
           redis.call('SET', KEYS[1], text, 'PX', string.format('%.0f', last - now)) \
         end "
    );
    Script::new(&(prelude + body))
}

/// `KEYS`: value, lease, aside. `ARGV`: token, ms. Returns 1 if there are too many fences to track
/// this one.
///
/// A record has an expiry; a value without one was written by another program, and is dropped as by
/// an invalidation.
pub(in super::super) static RAISE: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if before then \
           redis.call('UNLINK', KEYS[2]) \
           if before == none then redis.call('UNLINK', KEYS[3]) end \
         else \
           redis.call('UNLINK', KEYS[2], KEYS[3]) \
           before = none \
           local ends = 0 \
           if size > 0 and not (size == 33 and string.find(found, '^[LNU]')) then ends = redis.call('PEXPIRETIME', KEYS[1]) end \
           if ends > 0 then \
             redis.call('RENAME', KEYS[1], KEYS[3]) \
             before = string.format('%032.0f', ends) \
           end \
         end \
         if before ~= none and redis.call('PTTL', KEYS[3]) > tonumber(ARGV[2]) then \
           redis.call('PEXPIRE', KEYS[3], ARGV[2]) \
         end \
         local crowded = add(ARGV[1], now + tonumber(ARGV[2])) \
         stand() \
         return crowded",
    )
});

/// `KEYS`: value, lease, aside. `ARGV`: token.
pub(in super::super) static LIFT: LazyLock<Script> = LazyLock::new(|| {
    script(
        "redis.call('UNLINK', KEYS[2], KEYS[3]) \
         remove(ARGV[1]) \
         if #standing == 0 then return redis.call('UNLINK', KEYS[1]) end \
         before = none \
         stand() \
         return 0",
    )
});

/// `KEYS`: value, aside. `ARGV`: token.
pub(in super::super) static WITHDRAW: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if not before then return 0 end \
         remove(ARGV[1]) \
         if #standing > 0 then stand() return 0 end \
         if before ~= none and redis.call('EXISTS', KEYS[2]) == 1 then \
           redis.call('RENAME', KEYS[2], KEYS[1]) \
           return redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', tonumber(before))) \
         end \
         return redis.call('UNLINK', KEYS[1], KEYS[2])",
    )
});

/// `KEYS`: version. `ARGV`: token, ms. Returns 1 if there are too many fences to track this one.
pub(in super::super) static FENCE_VERSION: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if not before then before = size == 32 and string.find(found, '^%x+$') and found or none end \
         local crowded = add(ARGV[1], now + tonumber(ARGV[2])) \
         stand() \
         return crowded",
    )
});

/// `KEYS`: version. `ARGV`: token, version, ms.
pub(in super::super) static LIFT_VERSION: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if not before then \
           redis.call('SET', KEYS[1], ARGV[2], 'XX', 'PX', ARGV[3]) \
           return 0 \
         end \
         remove(ARGV[1]) \
         if #standing == 0 then return redis.call('UNLINK', KEYS[1]) end \
         before = none \
         stand() \
         return 0",
    )
});

/// `KEYS`: version. `ARGV`: token, ms.
pub(in super::super) static WITHDRAW_VERSION: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if not before then return 0 end \
         remove(ARGV[1]) \
         if #standing > 0 then stand() return 0 end \
         if before == none then return redis.call('UNLINK', KEYS[1]) end \
         redis.call('SET', KEYS[1], before, 'PX', ARGV[2]) \
         return 0",
    )
});
