//! What the expectations of a connector come to: counted object by object, concluded for a micro-batch.
//!
//! # Contract
//! Tallies add up: however rows are cut into record batches and objects, the same rows give the same sums. A conclusion
//! asks no clock; a row count is measured by results of earlier micro-batches, which the caller knows.
//! Rows that are carried over are not asked again on their own, but count among those that are loaded.

use std::collections::HashSet;

use super::TransformError;
use crate::config::{Check, CheckStage, Connector, Expectation, OnFail};
use crate::types::OriginRows;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::max;
use arrow::datatypes::TimestampMillisecondType;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};

/// Of one expectation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tally {
    /// Rows that it was asked of.
    pub checked: u64,
    /// Rows that fail it; nulls of `null_share`, rows too many of `unique`.
    pub failed: u64,
    /// For `freshness`, milliseconds since 1970.
    pub newest_ms: Option<i64>,
}

/// One for each expectation of a connector, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tallies(Vec<Tally>);

impl Tallies {
    pub fn of(connector: &Connector) -> Self {
        Self(vec![Tally::default(); connector.expectations.len()])
    }

    /// Adds what was counted elsewhere for the same connector.
    pub fn append(&mut self, next: &Self) {
        if self.0.len() < next.0.len() {
            self.0.resize(next.0.len(), Tally::default());
        }
        for (tally, next) in self.0.iter_mut().zip(&next.0) {
            tally.checked += next.checked;
            tally.failed += next.failed;
            tally.newest_ms = tally.newest_ms.max(next.newest_ms);
        }
    }

    pub(super) fn count(&mut self, expectation: usize, checked: usize, failed: usize) {
        self.0[expectation].checked += checked as u64;
        self.0[expectation].failed += failed as u64;
    }

    /// The first expectation on rows that stops the connector and that a row failed.
    pub(super) fn stopped_by<'a>(&self, connector: &'a Connector) -> Option<&'a str> {
        let mut counted = connector.expectations.iter().zip(&self.0);
        let stops = |expectation: &Expectation| {
            expectation.on_fail == OnFail::Fail && matches!(expectation.check, Check::Row(_))
        };
        let found = counted.find(|(expectation, tally)| stops(expectation) && tally.failed > 0);
        found.map(|(expectation, _)| expectation.name.as_str())
    }

    /// Counts what expectations on the rows together want to know of some of them. Not `unique`: [`Tallies::observe_all`].
    pub(super) fn observe(&mut self, connector: &Connector, stage: CheckStage, rows: &RecordBatch) {
        for (index, expectation) in connector.expectations.iter().enumerate().filter(|(_, e)| e.stage == stage) {
            let tally = &mut self.0[index];
            match &expectation.check {
                Check::Row(_) | Check::Unique(_) => continue,
                Check::RowCount { .. } => {}
                Check::NullShare { column, .. } => {
                    tally.failed += rows.column_by_name(column).map_or(0, Array::null_count) as u64;
                }
                Check::Freshness { .. } => {
                    let times = rows.column_by_name(&connector.staging.time);
                    let newest = times.and_then(|times| max(times.as_primitive::<TimestampMillisecondType>()));
                    tally.newest_ms = tally.newest_ms.max(newest);
                }
            }
            tally.checked += rows.num_rows() as u64;
        }
    }

    /// The same of all rows of the connector in a micro-batch; before the load everything, earlier only what needs to see
    /// them all.
    pub fn observe_all(
        &mut self,
        connector: &Connector,
        stage: CheckStage,
        rows: &[OriginRows],
    ) -> Result<(), TransformError> {
        if stage == CheckStage::BeforeLoad {
            rows.iter().flat_map(|rows| &rows.batches).for_each(|batch| self.observe(connector, stage, batch));
        }
        for (index, expectation) in connector.expectations.iter().enumerate() {
            if let (Check::Unique(columns), true) = (&expectation.check, expectation.stage == stage) {
                let (checked, failed) = repeated(columns, rows)
                    .map_err(|source| TransformError::Check { connector: connector.name.clone(), source })?;
                self.count(index, checked, failed);
            }
        }
        Ok(())
    }
}

/// Rows, and how many of them have the key of another before them.
fn repeated(columns: &[String], rows: &[OriginRows]) -> Result<(usize, usize), ArrowError> {
    let mut keys = HashSet::new();
    let (mut checked, mut failed) = (0, 0);
    let mut converter: Option<RowConverter> = None;
    for batch in rows.iter().flat_map(|rows| &rows.batches) {
        let find = |name: &String| {
            let column = batch.column_by_name(name);
            column.cloned().ok_or_else(|| ArrowError::SchemaError(format!("no column `{name}`")))
        };
        let columns = columns.iter().map(find).collect::<Result<Vec<ArrayRef>, _>>()?;
        let converter = match &mut converter {
            Some(converter) => converter,
            none => {
                let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
                none.insert(RowConverter::new(fields)?)
            }
        };
        checked += batch.num_rows();
        for (row, key) in converter.convert_columns(&columns)?.iter().enumerate() {
            if columns.iter().all(|column| column.is_valid(row)) && !keys.insert(key.owned()) {
                failed += 1;
            }
        }
    }
    Ok((checked, failed))
}

/// What became of one expectation in one micro-batch.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckResult {
    pub name: String,
    pub stage: CheckStage,
    pub rows_checked: u64,
    pub rows_failed: u64,
    /// Share of nulls; rows as a share of the mean; seconds behind the announcement. None of rows and of `unique`, and
    /// where there is nothing to measure by.
    pub value: Option<f64>,
    pub outcome: CheckOutcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckOutcome {
    Passed,
    Warned,
    Dropped,
    Rejected,
    /// The connector is to be parked, so this is never committed.
    Failed,
}

impl CheckOutcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Warned => "warned",
            Self::Dropped => "dropped",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
        }
    }
}

/// What a conclusion measures by.
#[derive(Clone, Copy)]
pub struct Measures<'a> {
    /// When the newest of the rows was announced, milliseconds since 1970.
    pub announced_ms: i64,
    /// Expectation → rows that it was asked of in earlier micro-batches, as many as it wants to know of where there are.
    pub history: &'a dyn Fn(&str) -> Vec<i64>,
}

/// What the expectations come to; of one that was asked of no row, nothing.
pub fn conclude(connector: &Connector, tallies: &Tallies, measures: Measures<'_>) -> Vec<CheckResult> {
    let asked = connector.expectations.iter().zip(&tallies.0).filter(|(_, tally)| tally.checked > 0);
    let result = |(expectation, tally): (&Expectation, &Tally)| {
        let (value, fits) = judge(&expectation.name, &expectation.check, *tally, measures);
        let outcome = match expectation.on_fail {
            _ if fits => CheckOutcome::Passed,
            OnFail::Warn => CheckOutcome::Warned,
            OnFail::Drop => CheckOutcome::Dropped,
            OnFail::Reject => CheckOutcome::Rejected,
            OnFail::Fail => CheckOutcome::Failed,
        };
        CheckResult {
            name: expectation.name.clone(),
            stage: expectation.stage,
            rows_checked: tally.checked,
            rows_failed: tally.failed,
            value,
            outcome,
        }
    };
    asked.map(result).collect()
}

fn judge(name: &str, check: &Check, tally: Tally, measures: Measures<'_>) -> (Option<f64>, bool) {
    match check {
        Check::Row(_) | Check::Unique(_) => (None, tally.failed == 0),
        Check::NullShare { max, .. } => {
            let share = tally.failed as f64 / tally.checked as f64;
            (Some(share), share <= *max)
        }
        Check::RowCount { last, min, max } => {
            let history = (measures.history)(name);
            let sum: i64 = history.iter().sum();
            if history.len() < *last as usize || sum == 0 {
                return (None, true);
            }
            let share = tally.checked as f64 * history.len() as f64 / sum as f64;
            (Some(share), min.is_none_or(|min| share >= min) && max.is_none_or(|max| share <= max))
        }
        Check::Freshness { max_ms } => match tally.newest_ms {
            None => (None, false),
            Some(newest) => {
                let behind_ms = measures.announced_ms.saturating_sub(newest);
                (Some(behind_ms as f64 / 1e3), behind_ms <= *max_ms)
            }
        },
    }
}

impl CheckResult {
    /// Why the connector is parked.
    pub fn reason(&self) -> String {
        let measured = match self.value {
            Some(value) => format!(", measured {value:.3} of {} rows", self.rows_checked),
            None if self.rows_failed > 0 => format!(" in {} of {} rows", self.rows_failed, self.rows_checked),
            None => String::new(),
        };
        format!("expectation `{}` failed{measured}", self.name)
    }
}

#[cfg(test)]
#[path = "tally_tests.rs"]
mod tests;
