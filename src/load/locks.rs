//! Which advisory locks a load takes: one a dimension, eight a fact (by hash of the natural key), and one for each day that it
//! makes whole.
//!
//! # Ordering
//! The source first; then, where days are made whole, their facts, shared, and the days, ascending; then ascending by (table, shard).
//! Every process computes the same numbers, whatever its version, so the hash is spelled out here and must not change.

use std::collections::BTreeSet;

use chrono::{Datelike, NaiveDate};
use deadpool_postgres::Transaction;
use sha2::{Digest, Sha256};

use super::error::LoadError;

/// Shards of one fact. More let more loaders in at once; each costs a round trip.
pub(super) const SHARD_COUNT: u64 = 8;

/// The pair of integers that names a `pg_advisory_xact_lock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AdvisoryLock {
    pub class: i32,
    pub object: i32,
}

/// Sorted: the order in which they are to be taken.
pub(super) type LockSet = BTreeSet<AdvisoryLock>;

/// To the end of the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    Alone,
    Shared,
}

impl Hold {
    /// One after the other: in one statement their order would be the planner's.
    pub(super) async fn all(self, transaction: &Transaction<'_>, locks: &LockSet, what: &str) -> Result<(), LoadError> {
        let failed = || LoadError::query(format!("lock {what}"));
        let sql = match self {
            Self::Alone => "SELECT pg_advisory_xact_lock($1, $2)",
            Self::Shared => "SELECT pg_advisory_xact_lock_shared($1, $2)",
        };
        let statement = transaction.prepare_cached(sql).await.map_err(failed())?;
        for lock in locks {
            transaction.query_one(&statement, &[&lock.class, &lock.object]).await.map_err(failed())?;
        }
        Ok(())
    }
}

/// A shard of a fact, or all of a dimension (shard 0).
pub(super) fn shard_lock(table: &str, shard: u8) -> AdvisoryLock {
    AdvisoryLock { class: lock_class("shard", table), object: i32::from(shard) }
}

/// Loads of a source topic partition: shared by those whose offsets nobody has loaded before, alone for those that
/// retract. Taken before the shards.
pub(super) fn source_lock(source_partition_id: i64) -> AdvisoryLock {
    let digest = Sha256::digest(source_partition_id.to_be_bytes());
    AdvisoryLock {
        class: lock_class("source", ""),
        object: i32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]),
    }
}

/// Making the partition of a day: held until it is there for all to see.
pub(super) fn day_lock(table: &str, day: NaiveDate) -> AdvisoryLock {
    AdvisoryLock { class: lock_class("day", table), object: day.num_days_from_ce() }
}

/// Loads that make days of a fact whole hold no shards for them, but this, shared; alone for who wants no load of it under way.
pub(super) fn whole_days_lock(table: &str) -> AdvisoryLock {
    AdvisoryLock { class: lock_class("whole days", table), object: 0 }
}

/// Sealing a partition.
pub(super) fn partition_lock(partition: &str) -> AdvisoryLock {
    AdvisoryLock { class: lock_class("seal", partition), object: 0 }
}

/// The shard of a natural key.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyHash(u64);

impl KeyHash {
    /// FNV-1a, 64 bits. Source: offset basis and prime of Fowler, Noll and Vo.
    pub(super) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds a column's value; its length goes along, so that ("a", "bc") and ("ab", "c") differ.
    pub(super) fn add(&mut self, value: &[u8]) {
        for byte in value.iter().chain(&(value.len() as u64).to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(super) fn shard(self) -> u8 {
        // the upper bits are the better mixed ones
        u8::try_from((self.0 >> 32) % SHARD_COUNT).expect("less than SHARD_COUNT")
    }
}

fn lock_class(purpose: &str, table: &str) -> i32 {
    let digest = Sha256::digest(format!("sluice/{purpose}/{table}"));
    i32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_never_change() {
        let shard = |key: &str| {
            let mut hash = KeyHash::new();
            hash.add(key.as_bytes());
            hash.shard()
        };
        let shards: Vec<u8> = ["", "a", "u-1", "u-2", "8f14e45f-ceea-467f-9575-1d1d0a5ee2c2"].map(shard).to_vec();
        assert_eq!(shards, [2, 0, 4, 4, 4]);
        assert_eq!(shard_lock("fact_events", 3), AdvisoryLock { class: 1_497_195_048, object: 3 });
    }

    #[test]
    fn every_shard_is_used() {
        let mut seen = BTreeSet::new();
        for number in 0..200_u32 {
            let mut hash = KeyHash::new();
            hash.add(&number.to_le_bytes());
            seen.insert(hash.shard());
        }
        assert_eq!(seen.len() as u64, SHARD_COUNT);
    }

    #[test]
    fn columns_do_not_run_together() {
        let hash = |parts: [&str; 2]| {
            let mut hash = KeyHash::new();
            parts.iter().for_each(|part| hash.add(part.as_bytes()));
            hash.0
        };
        assert_ne!(hash(["a", "bc"]), hash(["ab", "c"]));
    }
}
