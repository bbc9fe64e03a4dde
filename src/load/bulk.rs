//! Days that have no partition yet and of which many rows come at once: each is made as a table of its own, filled, given its
//! indexes, and attached when it is complete.
//!
//! # Contract
//! All of it happens in the transaction of the load, with the `load_state` of every micro-batch in it (LOAD-1); what lost among the
//! rows goes to the shadow as in any load (LOAD-2). The rows were ranked in the process, and nobody else has rows of a day
//! without partition, so nothing is compared. Indexes are built once, over all rows, which costs a fraction of
//! keeping them row by row.
//! Whatever is kept about the rows of a fact finds the days that came whole in [`BulkDays`], as it is handed to each table's
//! reconciliation.
//! A day that is over, and of which no more rows are known to wait, gets at once what sealing gives: indexes on the members'
//! keys with the load, checked foreign keys right behind its commit ([`check_foreign_keys`]). Statistics, and whatever that leaves
//! undone, are the next round of sealing's. Any other day becomes a hot partition.
//!
//! # Ordering
//! A row's time is a part of what names it, so nobody else has rows of these keys who does not need the same day: each day is locked,
//! before any shard, and no shard is taken for it. Loads of other days go on beside it, whole or not. Who needs the day
//! waits for this load before it takes any other lock (`days`). A partition that came meanwhile is loaded as any other. Who wants
//! no load of a fact under way locks the shards and, alone, the lock that bulk loads share.
//! The tables are attached after the last of them is complete: that takes a lock on the fact that bulk loads do not share.
//! Where the fact itself declares foreign keys, attaching wants the dimensions for itself: they are locked
//! in that mode from the beginning, because locks that grow meet each other.
//!
//! # Visibility
//! Rows are written frozen: they need no vacuum to be read by the index alone. A reader whose transaction is older than the load and
//! of the level REPEATABLE READ sees them all the same. Source: PostgreSQL 15 documentation, COPY, FREEZE.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Days, NaiveDate, Utc};
use deadpool_postgres::{GenericClient, Object, Transaction};

use super::PreparedPart;
use super::days::{KnownDays, partition_name};
use super::error::LoadError;
use super::locks::{Hold, day_lock, partition_lock, whole_days_lock};
use super::merge_sql::{lock_tables, quoted, table_name};
use super::plan::{TableKind, TablePlan};
use super::seal::{self, SealPlan};
use crate::error::chain;
use crate::telemetry::guarded;

/// So many rows of a day are worth a table of their own.
const ROWS_MIN: usize = 20_000;

/// The days of each fact that are made whole.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct BulkDays(BTreeMap<String, BTreeSet<NaiveDate>>);

impl BulkDays {
    /// Days with many rows and no partition, of facts that one connector fills with rows ranked in the process.
    pub(super) async fn choose(
        client: &impl GenericClient,
        known: &KnownDays,
        parts: &[PreparedPart],
    ) -> Result<Self, LoadError> {
        let mut chosen = Self::default();
        for part in parts {
            let fact = &part.plan.table;
            let Some(rows) = &part.rows.table else { continue };
            if parts.iter().filter(|other| other.plan.table == *fact).count() > 1 {
                continue;
            }
            let many = rows.days.iter().filter(|(_, winners)| winners.len() >= ROWS_MIN).map(|(day, _)| *day).collect();
            let unknown: BTreeSet<NaiveDate> = known.unknown(fact, &many).into_iter().collect();
            if !unknown.is_empty() {
                chosen.0.insert(fact.clone(), without_partition(client, fact, &unknown).await?);
            }
        }
        chosen.0.retain(|_, days| !days.is_empty());
        Ok(chosen)
    }

    /// Whether all of these days are made whole: then no row of them meets another.
    pub(super) fn covers(&self, fact: &str, days: &BTreeSet<NaiveDate>) -> bool {
        self.0.get(fact).is_some_and(|whole| days.is_subset(whole))
    }

    pub(super) fn contains(&self, fact: &str, day: NaiveDate) -> bool {
        self.0.get(fact).is_some_and(|days| days.contains(&day))
    }

    /// The dimensions that their facts declare foreign keys to.
    pub(super) async fn dimensions(&self, transaction: &Transaction<'_>) -> Result<BTreeSet<String>, LoadError> {
        if self.is_empty() {
            return Ok(BTreeSet::new());
        }
        let facts: Vec<String> = self.0.keys().map(|fact| table_name(fact)).collect();
        let rows = transaction
            .query(include_str!("sql/select_declared_dimensions.sql"), &[&facts])
            .await
            .map_err(LoadError::query("read which foreign keys facts declare"))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Shuts out others who make partitions. Returns the days that still have none.
    pub(super) async fn lock(&self, transaction: &Transaction<'_>) -> Result<Self, LoadError> {
        if guarded!("whole_days_lock") {
            let facts = self.0.keys().map(|fact| whole_days_lock(fact)).collect();
            Hold::Shared.all(transaction, &facts, "facts whose days are made whole").await?;
        }
        if guarded!("days_lock") {
            let days = self.0.iter().flat_map(|(fact, days)| days.iter().map(|day| day_lock(fact, *day)));
            Hold::Alone.all(transaction, &days.collect(), "the days of a fact").await?;
        }
        let mut left = Self::default();
        for (fact, days) in &self.0 {
            let days = without_partition(transaction, fact, days).await?;
            if !days.is_empty() {
                left.0.insert(fact.clone(), days);
            }
        }
        Ok(left)
    }
}

async fn without_partition(
    client: &impl GenericClient,
    fact: &str,
    days: &BTreeSet<NaiveDate>,
) -> Result<BTreeSet<NaiveDate>, LoadError> {
    let names: Vec<String> = days.iter().map(|day| table_name(&partition_name(fact, *day))).collect();
    let failed = || LoadError::query(format!("look for partitions of {fact}"));
    let rows =
        client.query(include_str!("sql/select_free_names.sql"), &[&names, &table_name(fact)]).await.map_err(failed())?;
    let free = days.iter().zip(&rows).filter(|(_, row)| row.get(0)).map(|(day, _)| *day);
    Ok(free.collect())
}

/// Which days are sealed on the spot.
#[derive(Debug, Clone)]
pub(super) struct Sealable<'a> {
    pub now: DateTime<Utc>,
    /// First and last day of rows that wait to be loaded; `None`: nobody knows.
    pub awaited: Option<&'a [(NaiveDate, NaiveDate)]>,
    pub seals: &'a BTreeMap<String, SealPlan>,
}

impl Sealable<'_> {
    fn is_complete(&self, seal: &SealPlan, day: NaiveDate) -> bool {
        let follow =
            |awaited: &[(NaiveDate, NaiveDate)]| awaited.iter().any(|(first, last)| (first..=last).contains(&&day));
        let is_awaited = |awaited| guarded!("awaited") && follow(awaited);
        seal.due_at(day) <= self.now && self.awaited.is_some_and(|awaited| !is_awaited(awaited))
    }
}

/// Adds and checks the foreign keys of the days that a load has made whole, in transactions of their own: adding takes the dimensions
/// for a moment, checking keeps nobody from anything. What is in the way is left to sealing.
pub(super) async fn check_foreign_keys(client: &mut Object, bulk: &BulkDays, sealable: &Sealable<'_>) {
    for (fact, days) in &bulk.0 {
        let Some(seal) = sealable.seals.get(fact) else { continue };
        for day in days.iter().filter(|day| sealable.is_complete(seal, **day)) {
            let made = Made { seal, fact, day: *day };
            if let Err(error) = made.check_foreign_keys(client).await {
                let (partition, error) = (made.name(), chain(&error));
                tracing::debug!(component = "load", partition, error, "foreign keys are left to sealing");
            }
        }
    }
}

/// A partition that has its indexes.
struct Made<'a> {
    seal: &'a SealPlan,
    fact: &'a str,
    day: NaiveDate,
}

impl Made<'_> {
    fn name(&self) -> String {
        partition_name(self.fact, self.day)
    }

    async fn check_foreign_keys(&self, client: &mut Object) -> Result<(), LoadError> {
        let name = self.name();
        let keys = self.seal.foreign_keys(&name);
        if !keys.is_empty() {
            let dimensions: BTreeSet<&String> = keys.iter().map(|key| key.dimension).collect();
            let tables = dimensions.into_iter().chain([&name]);
            let add: Vec<String> = keys.iter().map(|key| format!("{} NOT VALID", key.add())).collect();
            let add = format!(
                "SET LOCAL lock_timeout = '{}'; {};\nALTER TABLE {} {}",
                seal::LOCK_TIMEOUT,
                lock_tables(tables, "SHARE ROW EXCLUSIVE").unwrap_or_default(),
                table_name(&name),
                add.join(", "),
            );
            if !self.alone(client, &add).await? {
                return Ok(());
            }
        }
        let check: Vec<String> = keys.iter().map(seal::ForeignKey::validate).collect();
        let check = if check.is_empty() {
            String::new()
        } else {
            format!("ALTER TABLE {} {}", table_name(&name), check.join(", "))
        };
        self.alone(client, &check).await?;
        Ok(())
    }

    /// Unless another process is at it, or has been. A transaction.
    async fn alone(&self, client: &mut Object, sql: &str) -> Result<bool, LoadError> {
        let name = self.name();
        let failed = || LoadError::query(format!("check the foreign keys of partition {name}"));
        let transaction = client.transaction().await.map_err(failed())?;
        let lock = partition_lock(&name);
        let found = transaction
            .query_one(include_str!("sql/try_made_partition.sql"), &[&lock.class, &lock.object, &name])
            .await
            .map_err(failed())?;
        if !found.get::<_, bool>(0) {
            return Ok(false);
        }
        transaction.batch_execute(sql).await.map_err(failed())?;
        transaction.commit().await.map_err(failed())?;
        Ok(true)
    }
}

/// The indexes that a fact declares.
pub(super) struct DeclaredIndexes(Vec<(Option<String>, bool, String)>);

impl DeclaredIndexes {
    pub(super) async fn read(transaction: &Transaction<'_>, fact: &str) -> Result<Self, LoadError> {
        let rows = transaction
            .query(include_str!("sql/select_declared_indexes.sql"), &[&table_name(fact)])
            .await
            .map_err(LoadError::query(format!("read the indexes of {fact}")))?;
        Ok(Self(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()))
    }

    /// The server gives them their names, as it does when it makes them itself.
    fn statements(&self, table: &str) -> impl Iterator<Item = String> {
        let table = table_name(table);
        self.0.iter().map(move |(constraint, is_unique, index)| match constraint {
            Some(constraint) => format!("ALTER TABLE {table} ADD {constraint}"),
            None => format!("CREATE {}INDEX ON {table} {index}", if *is_unique { "UNIQUE " } else { "" }),
        })
    }
}

/// The table of one day, on its way to be a partition.
pub(super) struct DayTable<'a> {
    pub transaction: &'a Transaction<'a>,
    pub plan: &'a TablePlan,
    pub day: NaiveDate,
    pub sealable: &'a Sealable<'a>,
}

impl DayTable<'_> {
    pub(super) fn name(&self) -> String {
        partition_name(&self.plan.table, self.day)
    }

    /// Empty, without an index. Its rows are checked to be the day's as they come, so that nobody needs to look again when it
    /// is attached.
    pub(super) async fn create(&self) -> Result<(), LoadError> {
        let TableKind::Fact { time, .. } = &self.plan.kind else { unreachable!("only facts have days") };
        let (time, (first, next)) = (quoted(time), self.bounds());
        let sql = format!(
            "CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING INDEXES,\n\
             CONSTRAINT one_day CHECK ({time} >= {first} AND {time} < {next}))",
            table_name(&self.name()),
            table_name(&self.plan.table),
        );
        self.execute(&sql).await
    }

    /// COPY of complete rows.
    pub(super) fn copy_in(&self, columns: &[String]) -> String {
        let columns: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
        format!("COPY {} ({}) FROM STDIN (FORMAT binary, FREEZE true)", table_name(&self.name()), columns.join(", "))
    }

    /// Over all its rows, before anybody else waits for it.
    pub(super) async fn index(&self, declared: &DeclaredIndexes) -> Result<(), LoadError> {
        let name = self.name();
        let own = match self.sealable.seals.get(&self.plan.table) {
            None => Vec::new(),
            Some(seal) if self.sealable.is_complete(seal, self.day) => seal.indexes(&name),
            Some(seal) => seal.hot_indexes(&name),
        };
        let statements: Vec<String> = declared.statements(&name).chain(own).collect();
        self.execute(&statements.join(";\n")).await
    }

    /// Makes a partition of it. What the fact declares and it lacks is made by the server.
    pub(super) async fn attach(&self) -> Result<(), LoadError> {
        let (fact, name) = (&self.plan.table, self.name());
        let seal = self.sealable.seals.get(fact);
        let sealed = seal.filter(|seal| self.sealable.is_complete(seal, self.day));
        let (partition, (first, next)) = (table_name(&name), self.bounds());
        let attach = format!(
            "ALTER TABLE {} ATTACH PARTITION {partition} FOR VALUES FROM ({first}) TO ({next});\n\
             ALTER TABLE {partition} DROP CONSTRAINT one_day",
            table_name(fact),
        );
        self.execute(&attach).await?;
        let failed = || LoadError::query(format!("note the state of partition {name}"));
        let (state, reason) = match sealed {
            Some(_) => ("sealing", "its foreign keys are to be checked, its statistics to be gathered"),
            None => ("hot", "its day is not over, or more of its rows wait"),
        };
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 5] = [&name, fact, &self.day, &state, &reason];
        let sql = include_str!("sql/set_partition_state.sql");
        self.transaction.execute(sql, &parameters).await.map_err(failed())?;
        tracing::debug!(component = "load", partition = %name, state, "partition made whole");
        Ok(())
    }

    /// As they are written in SQL.
    fn bounds(&self) -> (String, String) {
        let next = self.day.checked_add_days(Days::new(1)).unwrap_or(NaiveDate::MAX);
        (format!("'{} 00:00:00+00'", self.day), format!("'{next} 00:00:00+00'"))
    }

    async fn execute(&self, sql: &str) -> Result<(), LoadError> {
        let failed = LoadError::query(format!("make partition {}", self.name()));
        self.transaction.batch_execute(sql).await.map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().expect("a date")
    }

    #[test]
    fn a_day_is_complete_when_it_is_over_and_nobody_waits_with_rows_of_it() {
        let seals = BTreeMap::new();
        let seal = SealPlan::of_nobody(6);
        let complete = |now: &str, awaited: Option<&[(NaiveDate, NaiveDate)]>| {
            let now = now.parse().expect("RFC 3339");
            Sealable { now, awaited, seals: &seals }.is_complete(&seal, day("2026-11-23"))
        };
        let (early, late) = ("2026-11-24T05:59:59Z", "2026-11-24T06:00:00Z");
        assert!(complete(late, Some(&[])));
        assert!(!complete(early, Some(&[])), "it is not over for long enough");
        assert!(!complete(late, None), "nobody has said that nothing waits");
        let (before, after) = ((day("2026-11-20"), day("2026-11-22")), (day("2026-11-24"), day("2026-11-24")));
        assert!(complete(late, Some(&[before, after])));
        for touching in [("2026-11-20", "2026-11-23"), ("2026-11-23", "2026-11-25"), ("2026-11-01", "2026-12-01")] {
            let touching = (day(touching.0), day(touching.1));
            assert!(!complete(late, Some(&[before, touching])), "{touching:?}");
        }
    }
}
