//! Rows → better rows: cleaning, expectations, deduplication.
//!
//! # Contract
//! Synchronous CPU work; call it on a blocking thread. Deterministic: the same rows give the same result,
//! whatever the clock says and however they are cut into record batches.
//!
//! [`apply`] looks at each row alone. Every row of `decoded` comes out once: in a batch (passed), in `rejects`,
//! or in the count `filtered`; so `row_count = passed + filtered + rejected`.
//! [`dedupe`] compares the rows of one connector with each other.
//!
//! # Order
//! The clean steps as the connector lists them (a row that one rejects is seen by nothing behind it), then its expectations as it lists them. The first
//! expectation with `reject`, `drop` or `fail` that a row fails decides, and the later ones do not see the row;
//! `warn` only counts.

mod clean;
mod dedupe;
mod expectation;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;

use crate::config::Connector;
use crate::error::ErrorKind;
use crate::types::{Decoded, RowReject};

pub use clean::Changes;
pub use dedupe::dedupe;

use clean::Cleaning;
use expectation::{Expectations, Fate};

#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    #[error("could not plan expectation `{expectation}` of connector `{connector}`")]
    Plan { connector: String, expectation: String, source: Box<DataFusionError> },
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
    #[error("could not dedupe the rows of connector `{connector}`")]
    Dedupe { connector: String, source: ArrowError },
}

impl TransformError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Plan { .. }
            | Self::Value { .. }
            | Self::Pattern { .. }
            | Self::NoKey { .. }
            | Self::UnknownColumn { .. } => ErrorKind::Invalid,
            Self::Clean { .. } | Self::Filter { .. } | Self::Dedupe { .. } => ErrorKind::Halt,
        }
    }
}

/// What a connector does to each row, planned once.
#[derive(Debug)]
pub struct TransformPlan {
    connector: Arc<Connector>,
    cleaning: Cleaning,
    expectations: Expectations,
}

impl TransformPlan {
    /// Plans the expectations: SQL text → logical → physical expression, which then costs nothing per row
    /// but its evaluation.
    pub fn new(connector: &Arc<Connector>) -> Result<Self, TransformError> {
        Ok(Self {
            connector: Arc::clone(connector),
            cleaning: Cleaning::new(connector)?,
            expectations: Expectations::new(connector)?,
        })
    }
}

#[derive(Debug, Clone)]
pub struct Transformed {
    /// [`Connector::decoded_schema`]; none without rows.
    pub batches: Vec<RecordBatch>,
    /// Of decoding, cleaning and expectations, in the order of their rows.
    pub rejects: Vec<RowReject>,
    pub filtered: u64,
    /// Rows that failed each expectation, for those that any row failed, in the connector's order.
    pub failures: Vec<(String, u64)>,
    /// The first expectation with `on_fail: fail` that any row failed; such rows are among the rejects.
    pub failed: Option<String>,
    /// Values that clean steps have changed.
    pub changes: Changes,
}

/// Cleans the rows and holds them against the expectations.
pub fn apply(plan: &TransformPlan, decoded: Decoded) -> Result<Transformed, TransformError> {
    let failed = |source| TransformError::Filter { connector: plan.connector.name.clone(), source };
    let mut transformed = Transformed {
        batches: Vec::new(),
        rejects: decoded.rejects,
        filtered: 0,
        failures: Vec::new(),
        failed: None,
        changes: Changes::default(),
    };
    let mut failure_counts = vec![0; plan.expectations.len()];
    for batch in decoded.batches {
        let mut cleaned = plan.cleaning.apply(&plan.connector, &batch, &mut transformed.changes)?;
        transformed.rejects.append(&mut cleaned.rejects);
        let rows = &cleaned.rows;
        if rows.num_rows() == 0 {
            continue;
        }
        let fates = plan.expectations.judge(rows, &mut failure_counts);
        if fates.iter().all(|fate| *fate == Fate::Passed) {
            transformed.batches.push(cleaned.rows);
            continue;
        }
        for (index, fate) in fates.iter().enumerate() {
            match fate {
                Fate::Passed => {}
                Fate::Filtered => transformed.filtered += 1,
                Fate::Rejected(expectation) => {
                    transformed.rejects.push(plan.expectations.reject(*expectation, &batch, cleaned.place(index)));
                }
            }
        }
        let passed: BooleanArray = fates.iter().map(|fate| Some(*fate == Fate::Passed)).collect();
        if passed.true_count() > 0 {
            transformed.batches.push(filter_record_batch(rows, &passed).map_err(failed)?);
        }
    }
    transformed.rejects.sort_by_key(|reject| reject.row);
    transformed.failures = plan.expectations.named(&failure_counts);
    transformed.failed = plan.expectations.failed(&failure_counts);
    Ok(transformed)
}
