//! Keys that a fact holds with another event time than the row that comes: where nobody says that times change, such a key has two rows.
//!
//! # Contract
//! They are counted, never held back. Each key is looked for in every partition, so a load asks about so many of its keys as make
//! [`LOOKUPS_MAX`] look-ups, and about every key while they are few; what it finds among some counts for all of its keys in proportion.
//! A fact of more than [`PARTITIONS_ASKED_MAX`] partitions is asked on the days around alone, since each partition that is looked into is
//! locked with its indexes, out of a table of `max_locks_per_transaction`. (Rows that are ranked by SQL have met all of them anyway.)
//! A count is written in the transaction of the load, in `warehouse.other_time`: loads of one fact that find any wait for each other there.

use chrono::Days;
use deadpool_postgres::GenericClient;
use tokio_postgres::types::ToSql;

use super::error::LoadError;
use super::merge_sql::table_name;
use super::plan::TablePlan;
use super::reconcile_sql;
use super::steps::{AS_PLANNED, BY_KEY, Steps};
use super::table_rows::TableRows;
use super::transaction::Load;

/// Some milliseconds of the server's time.
pub(super) const LOOKUPS_MAX: u64 = 2_000;
/// A month's days.
const PARTITIONS_ASKED_MAX: u64 = 32;

impl Load<'_> {
    /// Of rows that were ranked by SQL, and inserted.
    pub(super) async fn count_other_times(&self, steps: &Steps<'_>, row_count: u64) -> Result<u64, LoadError> {
        let plan = self.parts.iter().map(|part| &part.plan).find(|plan| plan.table == steps.table.name);
        match plan.and_then(|plan| plan.time()) {
            Some(time) if steps.table.changing_time.is_none() => steps.count_other_times_waiting(time, row_count).await,
            _ => Ok(0),
        }
    }
}

impl Steps<'_> {
    /// Of rows that were ranked in the process. They lie by day: `chance` says where the look begins.
    pub(super) async fn count_other_times(
        &self,
        plan: &TablePlan,
        rows: &TableRows,
        chance: u128,
    ) -> Result<u64, LoadError> {
        let partition_count = self.partition_count().await?;
        let days_around = PARTITIONS_ASKED_MAX / 2;
        let is_bounded = partition_count > PARTITIONS_ASKED_MAX;
        let asked = asked_count(rows.winner_count, if is_bounded { PARTITIONS_ASKED_MAX } else { partition_count });
        if asked == 0 {
            return Ok(0);
        }
        let first = (chance % (rows.winner_count - asked + 1) as u128) as usize;
        let keys = rows.keys(&(first..first + asked));
        let parameters: Vec<&(dyn ToSql + Sync)> = keys.iter().map(|key| &**key as &(dyn ToSql + Sync)).collect();
        let Some(time) = plan.time() else { return Ok(0) };
        let day = rows.days.iter().find(|(_, winners)| winners.contains(&first)).map(|(day, _)| *day);
        let days = day.filter(|_| is_bounded).map(|day| {
            let before = day.checked_sub_days(Days::new(days_around)).unwrap_or(day);
            before..=day.checked_add_days(Days::new(days_around)).unwrap_or(day)
        });
        let sql = reconcile_sql::count_other_times_of(self.table, time, days.as_ref());
        self.note_other_times(&sql, &parameters, asked, rows.winner_count).await
    }

    /// Of rows that wait in the temporary table: the newest of their keys.
    async fn count_other_times_waiting(&self, time: &str, row_count: u64) -> Result<u64, LoadError> {
        let row_count = row_count as usize;
        let asked = asked_count(row_count, self.partition_count().await?);
        let sql = reconcile_sql::count_other_times_waiting(self.table, time, asked);
        self.note_other_times(&sql, &[], asked, row_count).await
    }

    async fn partition_count(&self) -> Result<u64, LoadError> {
        let sql = "SELECT count(*) FROM pg_catalog.pg_inherits WHERE inhparent = $1::text::regclass";
        let failed = LoadError::query(format!("count the partitions of {}", self.table.name));
        let row = self.transaction.query_one(sql, &[&table_name(&self.table.name)]).await.map_err(failed)?;
        Ok(row.get::<_, i64>(0).unsigned_abs())
    }

    async fn note_other_times(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
        asked: usize,
        row_count: usize,
    ) -> Result<u64, LoadError> {
        if asked == 0 {
            return Ok(0);
        }
        let failed = || LoadError::query(format!("look for keys of {} with other times", self.table.name));
        self.batch(BY_KEY).await?;
        let found = self.transaction.query_one(sql, parameters).await.map_err(failed())?.get::<_, i64>(0);
        self.batch(AS_PLANNED).await?;
        let count = in_proportion(found.unsigned_abs(), asked as u64, row_count as u64);
        if count > 0 {
            let counted = count as i64;
            let upsert = include_str!("sql/upsert_other_time.sql");
            self.transaction.execute(upsert, &[&self.table.name, &counted]).await.map_err(failed())?;
        }
        Ok(count)
    }
}

fn asked_count(row_count: usize, partition_count: u64) -> usize {
    row_count.min(LOOKUPS_MAX.div_ceil(partition_count.max(1)) as usize)
}

/// `found` of `asked`, as of `all`; rounded up.
fn in_proportion(found: u64, asked: u64, all: u64) -> u64 {
    (found * all).div_ceil(asked)
}

/// Of a fact: keys that came with another event time than a row that stood there.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct OtherTimes {
    pub fact: String,
    /// Where loads are large, what is likely.
    pub key_count: i64,
    pub last_at: chrono::DateTime<chrono::Utc>,
}

/// Facts that have any, by name.
pub async fn other_times(client: &impl GenericClient) -> Result<Vec<OtherTimes>, LoadError> {
    let sql = "SELECT fact, key_count, last_at FROM warehouse.other_time ORDER BY fact";
    let rows = client.query(sql, &[]).await.map_err(LoadError::query("read which keys have other times"))?;
    let other = |row: &tokio_postgres::Row| OtherTimes { fact: row.get(0), key_count: row.get(1), last_at: row.get(2) };
    Ok(rows.iter().map(other).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_among_some_counts_for_all_and_is_never_lost() {
        assert_eq!(in_proportion(3, 10, 10), 3);
        assert_eq!(in_proportion(1, 10, 25), 3);
        assert_eq!(in_proportion(0, 10, 25), 0);
    }
}
