//! Indexes, whose members expire.

use std::collections::BTreeMap;

use super::shard::{Access, Value, wrong_type};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::store::Expiry;

type Members = BTreeMap<String, Timestamp>;

pub(super) fn members(access: &mut Access<'_>, key: &str) -> Result<Vec<(String, Timestamp)>> {
    let mut members: Vec<_> = current(access, key)?.into_iter().collect();
    members.sort_by(|(a, a_ends), (b, b_ends)| a_ends.cmp(b_ends).then_with(|| a.cmp(b)));
    Ok(members)
}

pub(super) fn put(access: &mut Access<'_>, key: &str, member: &str, lasts: Expiry) -> Result<()> {
    let mut members = current(access, key)?;
    members.insert(member.to_owned(), access.now.plus(lasts));
    store(access, key, members);
    Ok(())
}

pub(super) fn remove(access: &mut Access<'_>, key: &str, gone: &[String]) -> Result<u64> {
    let mut members = current(access, key)?;
    let removed = gone.iter().filter(|member| members.remove(*member).is_some()).count();
    if removed > 0 {
        store(access, key, members);
    }
    Ok(removed as u64)
}

/// Returns the members that have not ended.
fn current(access: &mut Access<'_>, key: &str) -> Result<Members> {
    let now = access.now;
    match access.get(key).map(|entry| &entry.value) {
        None => Ok(Members::new()),
        Some(Value::Index(members)) => {
            Ok(members.iter().filter(|(_, ends)| **ends > now).map(|(member, ends)| (member.clone(), *ends)).collect())
        }
        Some(_) => Err(wrong_type()),
    }
}

/// Stores the members until the last of them ends.
fn store(access: &mut Access<'_>, key: &str, members: Members) {
    match members.values().max().map(|last| access.now.until(*last)) {
        Some(left) if !left.is_zero() => access.put(key, Value::Index(members), Some(left)),
        _ => drop(access.remove(key)),
    }
}
