//! Rows → better rows: cleaning, expectations, deduplication.
//!
//! # Contract
//! Synchronous CPU work; call it on a blocking thread. Deterministic: the same rows give the same result,
//! whatever the clock says and however they are cut into record batches. Where SQL joins a dimension they are its rows as
//! well: those that were read last when [`apply`] begins.
//!
//! [`apply`] looks at each row alone. Every row of `decoded` comes out once: in a batch (passed), in `rejects`,
//! or in the count `filtered`; so `row_count = passed + filtered + rejected`.
//! [`dedupe`] compares the rows of one connector with each other.
//!
//! # Order
//! Expectations after decoding; the clean steps as the connector lists them; its SQL; expectations after the transform
//! (their usual place); [`dedupe`]; expectations [`before_load`]. At each stage they are asked as the connector lists them. The first
//! expectation with `reject`, `drop` or `fail` that a row fails decides, and nothing behind it sees the row; `warn` only
//! counts. Expectations on all rows together see those that are left at their stage, and are concluded once for a
//! micro-batch ([`conclude`]).

mod clean;
mod dedupe;
mod expectation;
mod query;
mod sieve;
mod tally;
mod window;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;

use crate::config::{CheckStage, Connector, QueryError};
use crate::error::ErrorKind;
use crate::types::{Decoded, Origin, OriginRows, RejectReason, RowReject};

pub use clean::Changes;
pub use dedupe::dedupe;
pub use tally::{CheckOutcome, CheckResult, Measures, Tallies, Tally, conclude};
pub use window::{Seen, Window, drop_seen, seen};

use clean::Cleaning;
use expectation::{Expectations, Fate};
use query::Query;
use sieve::Sieve;

#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    #[error("could not plan expectation `{expectation}` of connector `{connector}`")]
    Plan { connector: String, expectation: String, source: Box<DataFusionError> },
    #[error("could not plan the SQL of connector `{connector}`")]
    Sql { connector: String, source: QueryError },
    /// Whoever transforms rows waits until it is read.
    #[error("table `{table}` of connector `{connector}` was never read")]
    TableUnread { connector: String, table: String },
    #[error("could not read a value for column `{column}` of connector `{connector}`")]
    Value { connector: String, column: String, source: ArrowError },
    #[error("could not read a pattern of connector `{connector}`")]
    Pattern { connector: String, source: Box<regex::Error> },
    #[error("connector `{connector}` hashes by key `{key}`, which the settings lack")]
    NoKey { connector: String, key: String },
    #[error("connector `{connector}` has no column `{column}`")]
    UnknownColumn { connector: String, column: String },
    #[error("could not clean the rows of connector `{connector}`")]
    Clean { connector: String, source: ArrowError },
    #[error("could not take the rows of connector `{connector}` that passed")]
    Filter { connector: String, source: ArrowError },
    #[error("could not check the rows of connector `{connector}` together")]
    Check { connector: String, source: ArrowError },
    #[error("could not dedupe the rows of connector `{connector}`")]
    Dedupe { connector: String, source: ArrowError },
}

impl TransformError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Plan { .. }
            | Self::Sql { .. }
            | Self::Value { .. }
            | Self::Pattern { .. }
            | Self::NoKey { .. }
            | Self::UnknownColumn { .. } => ErrorKind::Invalid,
            Self::TableUnread { .. } => ErrorKind::Transient,
            Self::Clean { .. } | Self::Filter { .. } | Self::Check { .. } | Self::Dedupe { .. } => ErrorKind::Halt,
        }
    }
}

/// What a connector does to each row, planned once.
#[derive(Debug)]
pub struct TransformPlan {
    connector: Arc<Connector>,
    cleaning: Cleaning,
    query: Option<Query>,
    expectations: Expectations,
}

impl TransformPlan {
    /// Plans the expectations: SQL text → logical → physical expression, which then costs nothing per row
    /// but its evaluation.
    pub fn new(connector: &Arc<Connector>) -> Result<Self, TransformError> {
        Ok(Self {
            connector: Arc::clone(connector),
            cleaning: Cleaning::new(connector)?,
            query: connector.transform.as_ref().map(|sql| Query::new(connector, sql)).transpose()?,
            expectations: Expectations::new(connector)?,
        })
    }

    /// What its rows are deduped, staged and loaded by.
    pub fn dataset(&self) -> &Arc<Connector> {
        self.connector.dataset()
    }

    /// Whether [`before_load`] looks into rows.
    pub fn asks_before_load(&self) -> bool {
        self.expectations.has(CheckStage::BeforeLoad)
    }
}

#[derive(Debug, Clone, Default)]
pub struct Transformed {
    /// [`Connector::decoded_schema`] of the dataset; none without rows.
    pub batches: Vec<RecordBatch>,
    /// Of decoding, cleaning and expectations, in the order of their rows.
    pub rejects: Vec<RowReject>,
    pub filtered: u64,
    /// The first expectation with `on_fail: fail` that any row failed; such rows are among the rejects.
    pub failed: Option<String>,
    /// What the expectations have counted, but for those before the load.
    pub tallies: Tallies,
    /// What becomes of rows, should they fail an expectation before the load: only here are their bytes known. They are among
    /// the rows that passed ([`before_load`]).
    pub held: Vec<RowReject>,
    /// Values that clean steps have changed.
    pub changes: Changes,
}

impl Transformed {
    /// Adds the rows behind it, of the same object.
    pub fn append(&mut self, plan: &TransformPlan, next: Self) {
        let place = |name: &str| plan.connector.expectations.iter().position(|found| found.name == name);
        self.batches.extend(next.batches);
        self.rejects.extend(next.rejects);
        self.filtered += next.filtered;
        self.tallies.append(&next.tallies);
        self.held.extend(next.held);
        self.changes.append(&next.changes);
        self.failed = self.failed.take().into_iter().chain(next.failed).min_by_key(|name| place(name));
    }
}

/// Cleans the rows and holds them against the expectations. Tables that the SQL joins were read before.
pub fn apply(plan: &TransformPlan, decoded: Decoded) -> Result<Transformed, TransformError> {
    let connector = &plan.connector;
    let failed = |source| TransformError::Filter { connector: connector.name.clone(), source };
    let unread =
        |table: &str| TransformError::TableUnread { connector: connector.name.clone(), table: table.to_owned() };
    let query = plan.query.as_ref().map(|query| query.joined().map(|joined| (query, joined)));
    let query = query.transpose().map_err(unread)?;
    let mut transformed =
        Transformed { rejects: decoded.rejects, tallies: Tallies::of(connector), ..Transformed::default() };
    for batch in decoded.batches {
        let mut sieve = Sieve::new(&batch);
        plan.check(CheckStage::AfterDecode, &mut sieve, &mut transformed).map_err(failed)?;
        plan.cleaning.apply(connector, &mut sieve, &mut transformed.changes, &mut transformed.rejects)?;
        if let Some((query, joined)) = &query {
            query.apply(joined, &mut sieve, &mut transformed).map_err(failed)?;
        }
        plan.check(CheckStage::AfterTransform, &mut sieve, &mut transformed).map_err(failed)?;
        let rows = sieve.rows().map_err(failed)?;
        if rows.num_rows() > 0 {
            plan.hold(&sieve, &rows, &mut transformed.held);
            transformed.batches.push(rows);
        }
    }
    transformed.rejects.sort_by_key(|reject| reject.row);
    transformed.failed = transformed.tallies.stopped_by(connector).map(str::to_owned);
    Ok(transformed)
}

impl TransformPlan {
    /// Holds rows against the expectations of a stage, and lets go of those that fail.
    fn check(&self, stage: CheckStage, sieve: &mut Sieve<'_>, transformed: &mut Transformed) -> Result<(), ArrowError> {
        if self.connector.expectations.iter().all(|expectation| expectation.stage != stage) {
            return Ok(());
        }
        let rows = sieve.rows()?;
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let fates = self.expectations.judge(stage, &rows, &mut transformed.tallies);
        if fates.iter().any(|fate| *fate != Fate::Passed) {
            for (row, fate) in fates.iter().enumerate() {
                match fate {
                    Fate::Passed => {}
                    Fate::Filtered => transformed.filtered += 1,
                    Fate::Rejected(by) => {
                        let detail = self.expectations.detail(*by);
                        transformed.rejects.push(sieve.reject(row, RejectReason::ExpectationFailed, detail));
                    }
                }
            }
            sieve.keep(&stays(&fates))?;
        }
        transformed.tallies.observe(self.dataset(), stage, &sieve.rows()?);
        Ok(())
    }

    fn hold(&self, sieve: &Sieve<'_>, rows: &RecordBatch, held: &mut Vec<RowReject>) {
        if !self.asks_before_load() {
            return;
        }
        // counted where it is known which rows are left
        let mut uncounted = Tallies::of(&self.connector);
        let fates = self.expectations.judge(CheckStage::BeforeLoad, rows, &mut uncounted);
        for (row, fate) in fates.iter().enumerate() {
            if let Fate::Rejected(by) = fate {
                held.push(sieve.reject(row, RejectReason::ExpectationFailed, self.expectations.detail(*by)));
            }
        }
    }
}

fn stays(fates: &[Fate]) -> BooleanArray {
    fates.iter().map(|fate| Some(*fate == Fate::Passed)).collect()
}

/// What is left of a connector's rows of a micro-batch before the load.
#[derive(Debug)]
pub struct Loadable {
    /// In their order; batches without rows are left out.
    pub rows: Vec<OriginRows>,
    pub filtered: u64,
    /// Origin's offset and record, number of the row; each is held by its [`Transformed`].
    pub rejected: Vec<(i64, i32, i64)>,
}

/// Holds what dedupe has left against the expectations before the load. Rows of origins that are `carried` over were asked
/// when they were read, and stand.
pub fn before_load(
    plan: &TransformPlan,
    rows: Vec<OriginRows>,
    carried: impl Fn(&Origin) -> bool,
    tallies: &mut Tallies,
) -> Result<Loadable, TransformError> {
    let connector = &plan.connector;
    let failed = |source| TransformError::Filter { connector: connector.name.clone(), source };
    let mut loadable = Loadable { rows, filtered: 0, rejected: Vec::new() };
    if plan.asks_before_load() {
        for rows in loadable.rows.iter_mut().filter(|rows| !carried(&rows.origin)) {
            let origin = &rows.origin;
            let mut batches = Vec::with_capacity(rows.batches.len());
            for batch in std::mem::take(&mut rows.batches) {
                let fates = plan.expectations.judge(CheckStage::BeforeLoad, &batch, tallies);
                let numbers = batch.column(batch.num_columns() - 1).as_primitive::<Int64Type>();
                for (row, fate) in fates.iter().enumerate() {
                    match fate {
                        Fate::Passed => {}
                        Fate::Filtered => loadable.filtered += 1,
                        Fate::Rejected(_) => {
                            loadable.rejected.push((origin.message_offset, origin.record, numbers.value(row)));
                        }
                    }
                }
                if fates.iter().all(|fate| *fate == Fate::Passed) {
                    batches.push(batch);
                } else if fates.contains(&Fate::Passed) {
                    batches.push(filter_record_batch(&batch, &stays(&fates)).map_err(failed)?);
                }
            }
            rows.batches = batches;
        }
    }
    tallies.observe_all(plan.dataset(), CheckStage::BeforeLoad, &loadable.rows)?;
    Ok(loadable)
}
