//! The cells of rollups and the members that a load touches, and their recomputation at its end.
//!
//! # Contract
//! Touched are the cells of rows that come into a fact and of those that leave it, with the values that they leave with. A load touches
//! them as it goes; [`Touched::recompute`], after its last row, locks them and brings them to what the fact's rows make of
//! them. Cells that are touched for nothing stay as they are. What is touched of dimensions goes to `touched_members`, which computes first.
//!
//! # Ordering
//! Rollups by name, cells by time and group: loads that wait for each other wait in one order, and hold all other locks before.
//! What is computed is computed by a later statement than the one that locks: it sees the rows of those who held the cell.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMillisecondType};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use chrono::{DateTime, TimeDelta, Utc};
use deadpool_postgres::Transaction;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::append::Append;
use super::error::LoadError;
use super::plan::LoadTable;
use super::reconcile_sql;
use super::rollup_sql::{self, GROUP_CHARS_MAX};
use super::rollups::{self, Rollup};
use super::table_rows::TableRows;
use super::touched_members::TouchedMembers;
use crate::config::RollupGrain;
use crate::telemetry::guarded;

/// Cells are joined by hash: there are no statistics of those just written.
const BY_HASH: &str = "SET LOCAL enable_nestloop = off";
const AS_PLANNED: &str = "SET LOCAL enable_nestloop = on";

/// The rollups of the facts that a load writes, with the cells touched so far.
pub(super) struct Touched<'a> {
    pub(super) transaction: &'a Transaction<'a>,
    rollups: Vec<Rollup>,
    pub(super) members: TouchedMembers<'a>,
}

impl<'a> Touched<'a> {
    /// With shards, or the days that are made whole, locked: no rollup and no history is made meanwhile.
    pub(super) async fn of_tables(
        transaction: &'a Transaction<'a>,
        facts: &[&str],
        dimensions: &[&str],
    ) -> Result<Self, LoadError> {
        let rollups = if facts.is_empty() { Vec::new() } else { rollups::kept(transaction, Some(facts)).await? };
        for (number, rollup) in rollups.iter().enumerate() {
            let sql = rollup_sql::create_cells(rollup, number);
            transaction.batch_execute(&sql).await.map_err(failed(rollup))?;
        }
        let members = TouchedMembers::of_dimensions(transaction, dimensions).await?;
        Ok(Self { transaction, rollups, members })
    }

    fn of<'t>(&'t self, table: &'t LoadTable) -> impl Iterator<Item = (usize, &'t Rollup)> {
        self.rollups.iter().enumerate().filter(|(_, rollup)| rollup.fact == table.name)
    }

    async fn touch(&self, table: &LoadTable, from: &str) -> Result<(), LoadError> {
        for (number, rollup) in self.of(table) {
            let sql = rollup_sql::touch_rows(rollup, number, from);
            self.transaction.execute(&sql, &[]).await.map_err(failed(rollup))?;
        }
        Ok(())
    }

    /// The rows that wait in the temporary table.
    pub(super) async fn waiting(&self, table: &LoadTable) -> Result<(), LoadError> {
        self.touch(table, &format!("{} f", reconcile_sql::rows_name(table))).await
    }

    /// The rows that the table holds of their keys.
    pub(super) async fn held(&self, table: &LoadTable) -> Result<(), LoadError> {
        self.touch(table, &reconcile_sql::held_rows(table)).await
    }

    /// The rows that were taken away.
    pub(super) async fn gone(&self, table: &LoadTable) -> Result<(), LoadError> {
        self.touch(table, &format!("{} f", reconcile_sql::gone_name(table))).await
    }

    /// The rows that stand in their place now.
    pub(super) async fn promoted(&self, table: &LoadTable) -> Result<(), LoadError> {
        self.touch(table, &reconcile_sql::promoted_rows(table)).await
    }

    /// The rows that were ranked in the process, whether they were copied straight into the table or wait.
    pub(super) async fn appended(&self, append: &Append<'_>) -> Result<(), LoadError> {
        let (table, rows) = (append.table, append.rows);
        if self.of(table).next().is_none() {
            return Ok(());
        }
        let keys = append.keys_of_new_members().await?;
        for (number, rollup) in self.of(table) {
            let Some(cells) = cells_of(rollup, rows, &keys)? else {
                // a rollup that this process did not know of when it prepared the rows
                let sql = rollup_sql::touch_rows(rollup, number, &reconcile_sql::rows_of_keys(table));
                let keys = rows.keys(&(0..rows.winner_count));
                let parameters: Vec<&(dyn ToSql + Sync)> =
                    keys.iter().map(|key| &**key as &(dyn ToSql + Sync)).collect();
                self.transaction.execute(&sql, &parameters).await.map_err(failed(rollup))?;
                continue;
            };
            let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&cells.times];
            parameters.extend(cells.groups.iter().map(|group| group as &(dyn ToSql + Sync)));
            let sql = rollup_sql::touch_values(rollup, number);
            self.transaction.execute(&sql, &parameters).await.map_err(failed(rollup))?;
        }
        Ok(())
    }

    /// After the last row of the load.
    pub(super) async fn recompute(&self) -> Result<(), LoadError> {
        self.members.recompute().await?;
        for (number, rollup) in self.rollups.iter().enumerate() {
            let rows = self
                .transaction
                .query(&rollup_sql::touched_times(rollup, number), &[])
                .await
                .map_err(failed(rollup))?;
            if rows.is_empty() {
                continue;
            }
            let lock = if guarded!("rollup_lock") {
                rollup_sql::lock_cells(rollup, number)
            } else {
                rollup_sql::make_cells(rollup, number)
            };
            self.transaction.execute(&lock, &[]).await.map_err(failed(rollup))?;
            let times: Vec<DateTime<Utc>> = rows.iter().map(|row| row.get(0)).collect();
            self.transaction.batch_execute(BY_HASH).await.map_err(failed(rollup))?;
            let recompute = rollup_sql::recompute(rollup, number);
            for (start, end) in runs(&times, rollup.grain) {
                self.transaction.execute(&recompute, &[&start, &end]).await.map_err(failed(rollup))?;
            }
            self.transaction.batch_execute(AS_PLANNED).await.map_err(failed(rollup))?;
        }
        Ok(())
    }
}

fn failed(rollup: &Rollup) -> impl FnOnce(tokio_postgres::Error) -> LoadError {
    LoadError::query(format!("keep {}", rollup.name))
}

/// Neighbouring hours or days of one day as one range each: a range reads one partition of the fact.
fn runs(times: &[DateTime<Utc>], grain: RollupGrain) -> Vec<(DateTime<Utc>, DateTime<Utc>)> {
    let mut runs: Vec<(DateTime<Utc>, DateTime<Utc>)> = Vec::new();
    for time in times {
        let end = *time + TimeDelta::milliseconds(grain.millis());
        match runs.last_mut() {
            Some(last) if last.1 == *time && last.0.date_naive() == time.date_naive() => last.1 = end,
            _ => runs.push((*time, end)),
        }
    }
    runs
}

/// Cells, each once.
#[derive(Debug, PartialEq)]
struct Cells {
    times: Vec<DateTime<Utc>>,
    /// For each column of the group, its texts.
    groups: Vec<Vec<Option<String>>>,
}

/// Of the winners. `None`: the rows do not carry a column that the rollup groups by.
fn cells_of(rollup: &Rollup, rows: &TableRows, keys: &[HashMap<String, i64>]) -> Result<Option<Cells>, LoadError> {
    let cut = &rows.grouped;
    let Some(times) = cut.column_by_name(&rollup.time) else { return Ok(None) };
    let grain = rollup.grain.millis();
    let times = times.as_primitive::<TimestampMillisecondType>().values().iter();
    let times: ArrayRef = Arc::new(times.map(|time| time.div_euclid(grain) * grain).collect::<Int64Array>());
    let mut columns = vec![Arc::clone(&times)];
    for column in &rollup.group {
        let Some(values) = cut.column_by_name(&column.name) else { return Ok(None) };
        columns.push(rows.with_keys(&column.name, values, keys)?);
    }
    let distinct = distinct_rows(&columns, 0..rows.winner_count).map_err(LoadError::Cells)?;
    let times = times.as_primitive::<Int64Type>().values();
    let time = |row: &usize| DateTime::from_timestamp_millis(times[*row]).unwrap_or_default();
    let texts = |column: &ArrayRef| distinct.iter().map(|row| group_text(column, *row)).collect();
    Ok(Some(Cells { times: distinct.iter().map(time).collect(), groups: columns[1..].iter().map(texts).collect() }))
}

/// Of the rows at `places`, the first of each kind.
fn distinct_rows(columns: &[ArrayRef], places: Range<usize>) -> Result<Vec<usize>, ArrowError> {
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let converted = RowConverter::new(fields)?.convert_columns(columns)?;
    let mut seen = HashSet::with_hasher(ahash::RandomState::new());
    Ok(places.filter(|row| seen.insert(converted.row(*row))).collect())
}

/// As the server reads it.
fn group_text(column: &ArrayRef, row: usize) -> Option<String> {
    if column.is_null(row) {
        return None;
    }
    Some(match column.data_type() {
        DataType::FixedSizeBinary(_) => {
            Uuid::from_slice(column.as_fixed_size_binary().value(row)).unwrap_or_default().to_string()
        }
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        _ => column.as_string::<i32>().value(row).chars().take(GROUP_CHARS_MAX).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_a_day_are_read_together() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().expect("RFC 3339");
        let hours = ["2026-11-22T22:00:00Z", "2026-11-22T23:00:00Z", "2026-11-23T00:00:00Z", "2026-11-23T02:00:00Z"];
        let expected = [
            (at("2026-11-22T22:00:00Z"), at("2026-11-23T00:00:00Z")),
            (at("2026-11-23T00:00:00Z"), at("2026-11-23T01:00:00Z")),
            (at("2026-11-23T02:00:00Z"), at("2026-11-23T03:00:00Z")),
        ];
        assert_eq!(runs(&hours.map(at), RollupGrain::Hour), expected);
        let days = ["2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z"].map(at);
        assert_eq!(runs(&days, RollupGrain::Day), [(days[0], days[1]), (days[1], at("2026-11-24T00:00:00Z"))]);
        assert_eq!(runs(&[], RollupGrain::Day), []);
    }

    #[test]
    fn cells_are_told_apart_by_every_column_and_by_null() {
        let times: ArrayRef = Arc::new(Int64Array::from(vec![0, 0, 0, 3_600_000, 0]));
        let texts: ArrayRef =
            Arc::new(arrow::array::StringArray::from(vec![Some("a"), None, Some("a"), Some("a"), Some("")]));
        let columns = [times, texts];
        assert_eq!(distinct_rows(&columns, 0..5).expect("plain types"), [0, 1, 3, 4]);
        assert_eq!(distinct_rows(&columns, 2..4).expect("plain types"), [2, 3]);
        assert_eq!(group_text(&columns[1], 1), None);
        assert_eq!(group_text(&columns[0], 3).as_deref(), Some("3600000"));
    }
}
