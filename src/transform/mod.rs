//! `RecordBatch` → `RecordBatch`: clean, then check expectations; dedupe over a whole micro-batch.
//!
//! # Contract
//! Row by row, cleaning steps in the connector's order, then expectations in theirs. Each row passes, is filtered
//! (`on_fail: drop`) or rejected with its original bytes: `row_count = passed + filtered + rejected`. A row that
//! several expectations refuse counts with the first. An expectation that gives null has failed.

mod clean;
mod dedupe;
mod expect;

pub use dedupe::dedupe;

use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use thiserror::Error;

use crate::config::Connector;
use crate::error::ErrorKind;
use crate::types::{Decoded, DecodedBatch, RejectReason, RowReject};

use expect::{PlannedExpectation, Verdict};

#[derive(Debug, Error)]
pub enum TransformError {
    #[error("expectation `{expectation}` of connector `{connector}` cannot be planned")]
    Plan { connector: String, expectation: String, source: Box<DataFusionError> },
    #[error("expectation `{expectation}` cannot be evaluated")]
    Evaluate { expectation: String, source: Box<DataFusionError> },
    #[error("could not clean column `{column}`")]
    Clean { column: String, source: ArrowError },
    #[error("could not take the rows that pass")]
    Filter(#[source] ArrowError),
    #[error("could not compare the rows to dedupe")]
    Dedupe(#[source] ArrowError),
    #[error("column `{column}` is not in the batch")]
    ColumnMissing { column: String },
}

impl TransformError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Plan { .. } => ErrorKind::Invalid,
            Self::Evaluate { .. } => ErrorKind::Poison,
            Self::Clean { .. } | Self::Filter(_) | Self::Dedupe(_) | Self::ColumnMissing { .. } => ErrorKind::Halt,
        }
    }
}

/// A connector's cleaning and expectations, planned once.
#[derive(Debug)]
pub struct TransformPlan {
    connector: Arc<Connector>,
    expectations: Vec<PlannedExpectation>,
}

/// What became of the rows of one object or direct record.
#[derive(Debug)]
pub struct Transformed {
    /// [`Connector::decoded_schema`]; only rows that passed.
    pub batches: Vec<RecordBatch>,
    /// Those of decoding first, then those of expectations.
    pub rejects: Vec<RowReject>,
    pub filtered: u64,
    /// Rows that failed each expectation, whatever its `on_fail`.
    pub failures: Vec<(String, u64)>,
}

impl TransformPlan {
    pub fn new(connector: &Arc<Connector>) -> Result<Self, TransformError> {
        Ok(Self { connector: Arc::clone(connector), expectations: expect::plan(connector)? })
    }
}

/// Cleans and checks all rows of one origin. CPU work.
pub fn apply(plan: &TransformPlan, decoded: Decoded) -> Result<Transformed, TransformError> {
    let mut transformed = Transformed {
        batches: Vec::with_capacity(decoded.batches.len()),
        rejects: decoded.rejects,
        filtered: 0,
        failures: plan.expectations.iter().map(|planned| (planned.name.clone(), 0)).collect(),
    };
    for batch in decoded.batches {
        let cleaned = clean::clean(&plan.connector, batch.rows)?;
        let verdicts = expect::judge(&plan.expectations, &cleaned, &mut transformed.failures)?;
        let batch = DecodedBatch { rows: cleaned, ..batch };
        keep(plan, &batch, &verdicts, &mut transformed)?;
    }
    transformed.failures.retain(|(_, count)| *count > 0);
    Ok(transformed)
}

fn keep(
    plan: &TransformPlan,
    batch: &DecodedBatch,
    verdicts: &[Verdict],
    transformed: &mut Transformed,
) -> Result<(), TransformError> {
    if verdicts.iter().all(|verdict| *verdict == Verdict::Pass) {
        transformed.batches.push(batch.rows.clone());
        return Ok(());
    }
    let numbers = expect::row_numbers(&batch.rows)?;
    for (index, verdict) in verdicts.iter().enumerate() {
        match verdict {
            Verdict::Pass => {}
            Verdict::Drop => transformed.filtered += 1,
            Verdict::Reject(expectation) => {
                let planned = &plan.expectations[*expectation];
                transformed.rejects.push(RowReject {
                    row: numbers.value(index),
                    byte_offset: batch.spans[index].byte_offset,
                    reason: RejectReason::ExpectationFailed,
                    detail: format!("expectation `{}` failed: {}", planned.name, planned.sql),
                    bytes: batch.row_bytes(index),
                });
            }
        }
    }
    let passed: BooleanArray = verdicts.iter().map(|verdict| Some(*verdict == Verdict::Pass)).collect();
    let rows = filter_record_batch(&batch.rows, &passed).map_err(TransformError::Filter)?;
    if rows.num_rows() > 0 {
        transformed.batches.push(rows);
    }
    Ok(())
}
