//! Rows of offsets that nobody has loaded, ranked and resolved in the process, on their way into a fact.
//!
//! # Contract
//! With the shards, or a day that is made whole, locked nobody else writes rows of these keys. So the keys that the table holds are asked for once; rows of other
//! keys are new and are copied straight into it, and only those of held keys are compared by SQL (`reconcile_sql`), as
//! all rows of other ways are. What lost within the micro-batch is copied into the shadow.
//! Rows of days that are made whole (`bulk`) go into their own tables, unasked.
//! Where the load before met no held key, as in a backfill, none is expected and nothing is asked: should the unique key
//! refuse a row, the copy is rolled back to where it began, and the keys are asked for after all.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use chrono::NaiveDate;
use deadpool_postgres::Transaction;
use futures::SinkExt;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::bulk::{BulkDays, DayTable, DeclaredIndexes, Sealable};
use super::days::partition_name;
use super::error::LoadError;
use super::members::{KnownMembers, look_up};
use super::merge_sql::table_name;
use super::plan::{LoadTable, TablePlan};
use super::reconcile_sql::{self, rows_name};
use super::steps::AS_PLANNED;
use super::table_rows::TableRows;
use crate::telemetry::guarded;

/// Indexes of a load's few rows are built in memory: to share that out costs more than it saves, and other loads go on beside it.
const ALONE: &str = "SET LOCAL max_parallel_maintenance_workers = 0";
/// Keys of more days than that are looked for in the whole table.
const DAYS_ASKED_MAX: usize = 8;

/// A day and the places of its winners.
type Day = (NaiveDate, Range<usize>);

/// What became of the rows.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Appended {
    pub new_count: u64,
    /// Rows of keys that the table holds: they wait in the temporary table.
    pub held_count: usize,
}

pub(super) struct Append<'a> {
    pub(super) transaction: &'a Transaction<'a>,
    pub(super) table: &'a LoadTable,
    pub(super) plan: &'a TablePlan,
    pub(super) rows: &'a TableRows,
    pub(super) expected: &'a Expected,
    pub(super) members: &'a KnownMembers,
    pub(super) bulk: &'a BulkDays,
    pub(super) sealable: &'a Sealable<'a>,
}

/// The facts whose last load met no key that was there.
#[derive(Debug, Default)]
pub(super) struct Expected(Mutex<HashSet<String>>);

impl Expected {
    fn is_all_new(&self, fact: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(fact)
    }

    fn note(&self, fact: &str, all_new: bool) {
        let mut facts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all_new {
            facts.insert(fact.to_owned());
        } else {
            facts.remove(fact);
        }
    }
}

impl Append<'_> {
    pub(super) async fn run(&self) -> Result<Appended, LoadError> {
        let keys = self.keys_of_new_members().await?;
        let tuples = self.rows.filled(&keys)?;
        let shadow = table_name(&self.table.shadow());
        if self.rows.winner_count < self.rows.row_count() && guarded!("shadow") {
            self.copy(&shadow, &tuples, std::slice::from_ref(&(self.rows.winner_count..self.rows.row_count()))).await?;
        }
        let (whole, days): (Vec<&Day>, Vec<&Day>) =
            self.rows.days.iter().partition(|(day, _)| self.bulk.contains(&self.table.name, *day));
        let mut appended = if days.is_empty() { Appended::default() } else { self.append(&tuples, &days).await? };
        if !whole.is_empty() {
            appended.new_count += self.make_whole(&tuples, &whole).await?;
        }
        Ok(appended)
    }

    /// Attached when all of them are complete: that takes a lock which other loads of whole days wait for.
    async fn make_whole(&self, tuples: &Bytes, days: &[&Day]) -> Result<u64, LoadError> {
        // where the fact declares foreign keys, each is checked over all rows at once
        self.transaction.batch_execute(AS_PLANNED).await.map_err(LoadError::query("plan as usual"))?;
        self.transaction.batch_execute(ALONE).await.map_err(LoadError::query("plan as usual"))?;
        let declared = DeclaredIndexes::read(self.transaction, &self.table.name).await?;
        let mut count = 0;
        for (day, winners) in days {
            let table = self.day_table(*day);
            table.create().await?;
            let sql = table.copy_in(&self.rows.columns);
            count += self.copy_by(&sql, tuples, std::slice::from_ref(winners)).await?;
            table.index(&declared).await?;
        }
        for (day, _) in days {
            self.day_table(*day).attach().await?;
        }
        Ok(count)
    }

    fn day_table(&self, day: NaiveDate) -> DayTable<'_> {
        DayTable { transaction: self.transaction, plan: self.plan, day, sealable: self.sealable }
    }

    /// Winners of days that have partitions.
    async fn append(&self, tuples: &Bytes, days: &[&Day]) -> Result<Appended, LoadError> {
        if self.expected.is_all_new(&self.table.name)
            && let Some(new_count) = self.copy_unless_held(tuples, days).await?
        {
            return Ok(Appended { new_count, held_count: 0 });
        }
        let held = self.held(days).await?;
        self.expected.note(&self.table.name, held.is_empty());
        let (new, old) = parted(days.iter().map(|(_, winners)| winners), &held);
        let new_count = self.copy_new(tuples, days, &new).await?;
        if !old.is_empty() {
            self.copy(&rows_name(self.table), tuples, &old).await?;
        }
        Ok(Appended { new_count, held_count: held.len() })
    }

    /// All winners at once; `None`, and nothing written, where the fact holds a key of them.
    async fn copy_unless_held(&self, tuples: &Bytes, days: &[&Day]) -> Result<Option<u64>, LoadError> {
        let failed = || LoadError::query(format!("copy rows for {}", self.table.name));
        self.transaction.batch_execute("SAVEPOINT all_new").await.map_err(failed())?;
        let (all, _) = parted(days.iter().map(|(_, winners)| winners), &BTreeSet::new());
        match self.copy_new(tuples, days, &all).await {
            Ok(count) => {
                self.transaction.batch_execute("RELEASE SAVEPOINT all_new").await.map_err(failed())?;
                Ok(Some(count))
            }
            Err(LoadError::Query { source, .. })
                if source.code() == Some(&SqlState::UNIQUE_VIOLATION) && guarded!("held_after_all") =>
            {
                self.transaction.batch_execute("ROLLBACK TO SAVEPOINT all_new").await.map_err(failed())?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Into the one day's partition, or into the table, where the server finds the partition of each row.
    async fn copy_new(&self, tuples: &Bytes, days: &[&Day], rows: &[Range<usize>]) -> Result<u64, LoadError> {
        if rows.is_empty() {
            return Ok(0);
        }
        let [(day, _)] = days else { return self.copy(&table_name(&self.table.name), tuples, rows).await };
        let partition = table_name(&partition_name(&self.table.name, *day));
        // a COPY that is refused before its first row leaves the connection out of step: let nothing refuse it
        let failed = gone_or(format!("copy rows for {}", self.table.name));
        let lock = format!("LOCK TABLE {partition} IN ROW EXCLUSIVE MODE");
        self.transaction.batch_execute(&lock).await.map_err(failed)?;
        self.copy(&partition, tuples, rows).await
    }

    /// All rows into the temporary table.
    pub(super) async fn copy_all(&self) -> Result<(), LoadError> {
        let keys = self.keys_of_new_members().await?;
        let tuples = self.rows.filled(&keys)?;
        let all = 0..self.rows.row_count();
        self.copy(&rows_name(self.table), &tuples, std::slice::from_ref(&all)).await?;
        Ok(())
    }

    /// Of members that this transaction made, or that came since the rows were prepared.
    pub(super) async fn keys_of_new_members(&self) -> Result<Vec<HashMap<String, i64>>, LoadError> {
        let mut keys = Vec::with_capacity(self.rows.unresolved.len());
        for (link, names) in self.plan.links().iter().zip(&self.rows.unresolved) {
            if guarded!("members_stand") && !self.members.still_stand(self.transaction, link).await? {
                return Err(LoadError::MembersChanged { table: link.table.clone() });
            }
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let found = if names.is_empty() { HashMap::new() } else { look_up(self.transaction, link, &names).await? };
            keys.push(found);
        }
        Ok(keys)
    }

    /// Places of winners whose keys the table holds.
    async fn held(&self, days: &[&Day]) -> Result<BTreeSet<usize>, LoadError> {
        let mut held = BTreeSet::new();
        if days.len() > DAYS_ASKED_MAX {
            let (all, _) = parted(days.iter().map(|(_, winners)| winners), &held);
            for winners in all {
                self.ask(&table_name(&self.table.name), &winners, &mut held).await?;
            }
            return Ok(held);
        }
        for (day, winners) in days {
            let partition = table_name(&partition_name(&self.table.name, *day));
            self.ask(&partition, winners, &mut held).await?;
        }
        Ok(held)
    }

    async fn ask(&self, partition: &str, winners: &Range<usize>, held: &mut BTreeSet<usize>) -> Result<(), LoadError> {
        let sql = reconcile_sql::find_held(self.table, partition);
        let keys = self.rows.keys(winners);
        let parameters: Vec<&(dyn ToSql + Sync)> = keys.iter().map(|key| &**key as &(dyn ToSql + Sync)).collect();
        let failed = gone_or(format!("look for keys in {}", self.table.name));
        let found = self.transaction.query(&sql, &parameters).await.map_err(failed)?;
        held.extend(found.iter().map(|row| winners.start + row.get::<_, i64>(0).unsigned_abs() as usize - 1));
        Ok(())
    }

    async fn copy(&self, into: &str, tuples: &Bytes, ranges: &[Range<usize>]) -> Result<u64, LoadError> {
        self.copy_by(&reconcile_sql::copy_in(into, &self.rows.columns), tuples, ranges).await
    }

    async fn copy_by(&self, sql: &str, tuples: &Bytes, ranges: &[Range<usize>]) -> Result<u64, LoadError> {
        let failed = || LoadError::query(format!("copy rows for {}", self.table.name));
        let sink = self.transaction.copy_in(sql).await.map_err(failed())?;
        let mut sink = std::pin::pin!(sink);
        for chunk in self.rows.stream(tuples, ranges) {
            sink.feed(chunk).await.map_err(failed())?;
        }
        sink.finish().await.map_err(failed())
    }
}

/// Of a statement that names a partition.
fn gone_or(operation: String) -> impl FnOnce(tokio_postgres::Error) -> LoadError {
    |source| match source.code() {
        Some(&SqlState::UNDEFINED_TABLE) => LoadError::PartitionGone(source),
        _ => LoadError::query(operation)(source),
    }
}

/// The places of ascending ranges that are not held, and those that are, as ranges.
fn parted<'r>(
    ranges: impl Iterator<Item = &'r Range<usize>>,
    held: &BTreeSet<usize>,
) -> (Vec<Range<usize>>, Vec<Range<usize>>) {
    let (mut new, mut old): (Vec<Range<usize>>, Vec<Range<usize>>) = (Vec::new(), Vec::new());
    let mut push_new = |range: Range<usize>| match new.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ if range.is_empty() => {}
        _ => new.push(range),
    };
    for range in ranges {
        let mut at = range.start;
        for place in held.range(range.clone()) {
            push_new(at..*place);
            old.push(*place..place + 1);
            at = place + 1;
        }
        push_new(at..range.end);
    }
    (new, old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_new_or_held() {
        let parted = |held: &[usize]| parted([0..3, 3..5].iter(), &held.iter().copied().collect());
        let only = |range: Range<usize>| Vec::from([range]);
        assert_eq!(parted(&[]), (only(0..5), vec![]));
        assert_eq!(parted(&[0, 1, 4]), (only(2..4), vec![0..1, 1..2, 4..5]));
        assert_eq!(parted(&[0, 1, 2, 3, 4]).0, Vec::<Range<usize>>::new());
        assert_eq!(parted(&[3]), (vec![0..3, 4..5], only(3..4)));
        assert_eq!(super::parted([0..2, 4..6].iter(), &BTreeSet::from([5])), (vec![0..2, 4..5], only(5..6)));
    }
}
