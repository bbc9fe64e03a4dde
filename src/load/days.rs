//! One partition a day for each fact, made before the load that needs it.
//!
//! # Contract
//! After [`KnownDays::ensure`] rows of those days can be inserted. A partition is born hot: it takes what the fact declares
//! (its unique key, the lineage's BRIN) when it is attached, and indexes on members' keys only where a connector asks for them; the
//! rest comes when it is sealed (`seal`). Only the owner of a fact may attach to it,
//! so the loader's user owns the facts, or is a member of the role that does.
//! # Ordering
//! Each run is a transaction of its own under advisory locks of the days that are missing, ascending, so that a day is made
//! once; who needs a day that a load is making whole (`bulk`) waits until that load is done. Attaching takes SHARE ROW EXCLUSIVE on the
//! dimensions where the fact declares foreign keys: they are locked by name first, as loads do, so that the two never wait
//! for each other in a circle.
//! # Retries
//! Idempotent. A dimension that stays locked longer than [`LOCK_TIMEOUT`] is a transient error, so that
//! no queue of loaders builds up behind it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use chrono::{Days, NaiveDate};
use deadpool_postgres::{Object, Transaction};

use super::error::LoadError;
use super::locks::{Hold, day_lock};
use super::merge_sql::{lock_tables, quoted, table_name};
use super::seal::SealPlan;

const LOCK_TIMEOUT: &str = "10s";

/// Each partition locks itself and its indexes, out of a table of `max_locks_per_transaction`.
const DAYS_PER_TRANSACTION_MAX: usize = 16;

/// Which partitions this process has seen. Others may make more, and retention may take some away.
#[derive(Debug, Default)]
pub(super) struct KnownDays(Mutex<HashMap<String, HashSet<NaiveDate>>>);

impl KnownDays {
    /// Makes the partitions of `fact` for `days` that are not there yet. `dimensions`: the tables its
    /// foreign keys point at.
    pub(super) async fn ensure(
        &self,
        client: &mut Object,
        fact: &str,
        dimensions: &BTreeSet<String>,
        seal: Option<&SealPlan>,
        days: &BTreeSet<NaiveDate>,
    ) -> Result<(), LoadError> {
        let unknown = self.unknown(fact, days);
        for days in unknown.chunks(DAYS_PER_TRANSACTION_MAX) {
            let transaction = client.transaction().await.map_err(LoadError::query("begin"))?;
            create_days(&transaction, fact, dimensions, seal, days).await?;
            let failed = LoadError::query(format!("commit the partitions of {fact}"));
            transaction.commit().await.map_err(failed)?;
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.entry(fact.to_owned()).or_default().extend(days);
        }
        Ok(())
    }

    /// Look again next time: a partition may have gone.
    pub(super) fn forget(&self, fact: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(fact);
    }

    pub(super) fn unknown(&self, fact: &str, days: &BTreeSet<NaiveDate>) -> Vec<NaiveDate> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = known.get(fact);
        days.iter().filter(|day| !seen.is_some_and(|seen| seen.contains(day))).copied().collect()
    }
}

async fn create_days(
    transaction: &Transaction<'_>,
    fact: &str,
    dimensions: &BTreeSet<String>,
    seal: Option<&SealPlan>,
    days: &[NaiveDate],
) -> Result<(), LoadError> {
    let locks = missing(transaction, fact, days).await?.into_iter().map(|day| day_lock(fact, day)).collect();
    Hold::Alone.all(transaction, &locks, "the days of a fact").await?;
    // others may have made some while we waited
    let missing = missing(transaction, fact, days).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let timeout = format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'");
    transaction.batch_execute(&timeout).await.map_err(LoadError::query("lock the dimensions"))?;
    if let Some(lock) = lock_tables(dimensions.iter(), "SHARE ROW EXCLUSIVE") {
        transaction.batch_execute(&lock).await.map_err(LoadError::query("lock the dimensions"))?;
    }
    for day in missing {
        let failed = || LoadError::query(format!("create the partition of {fact} for {day}"));
        let name = partition_name(fact, day);
        transaction.batch_execute(&create_day(fact, day)).await.map_err(failed())?;
        for index in seal.iter().flat_map(|seal| seal.hot_indexes(&name)) {
            transaction.batch_execute(&index).await.map_err(failed())?;
        }
        transaction.execute(include_str!("sql/insert_partition.sql"), &[&name, &fact, &day]).await.map_err(failed())?;
    }
    Ok(())
}

/// Days without partition, in their order.
async fn missing(transaction: &Transaction<'_>, fact: &str, days: &[NaiveDate]) -> Result<Vec<NaiveDate>, LoadError> {
    let failed = LoadError::query(format!("list the partitions of {fact}"));
    let sql = include_str!("sql/select_partitions.sql");
    let rows = transaction.query(sql, &[&table_name(fact)]).await.map_err(failed)?;
    let there: HashSet<String> = rows.iter().map(|row| row.get(0)).collect();
    Ok(days.iter().filter(|day| !there.contains(&partition_name(fact, **day))).copied().collect())
}

/// `fact_events_p20261123`
pub(super) fn partition_name(fact: &str, day: NaiveDate) -> String {
    format!("{fact}_p{}", day.format("%Y%m%d"))
}

/// Made whole first and then attached: that takes a weaker lock on the fact than PARTITION OF does.
fn create_day(fact: &str, day: NaiveDate) -> String {
    let next = day.checked_add_days(Days::new(1)).unwrap_or(NaiveDate::MAX);
    let partition = format!("warehouse.{}", quoted(&partition_name(fact, day)));
    let fact = table_name(fact);
    format!(
        "CREATE TABLE IF NOT EXISTS {partition} (LIKE {fact} INCLUDING ALL);\n\
         ALTER TABLE {fact} ATTACH PARTITION {partition} FOR VALUES FROM ('{day} 00:00:00+00') TO ('{next} 00:00:00+00')"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_runs_from_midnight_to_midnight_in_utc() {
        let day = NaiveDate::from_ymd_opt(2026, 12, 31).expect("a date");
        assert_eq!(
            create_day("fact_events", day),
            "CREATE TABLE IF NOT EXISTS warehouse.\"fact_events_p20261231\" (LIKE warehouse.\"fact_events\" INCLUDING ALL);\n\
             ALTER TABLE warehouse.\"fact_events\" ATTACH PARTITION warehouse.\"fact_events_p20261231\" \
             FOR VALUES FROM ('2026-12-31 00:00:00+00') TO ('2027-01-01 00:00:00+00')"
        );
    }

    #[test]
    fn days_are_unknown_until_made_and_after_being_forgotten() {
        let day = NaiveDate::from_ymd_opt(2026, 1, 1).expect("a date");
        let known = KnownDays::default();
        known.0.lock().expect("not poisoned").entry("f".to_owned()).or_default().insert(day);
        assert!(known.unknown("f", &BTreeSet::from([day])).is_empty());
        known.forget("f");
        assert_eq!(known.unknown("f", &BTreeSet::from([day])), [day]);
    }
}
