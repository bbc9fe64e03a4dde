//! The first rows of an object on their way through a connector, stage by stage. Nothing is written.
//!
//! # Contract
//! The object is read whole, by the same decoding, cleaning and expectations as in the pipeline; the first rows
//! are kept of what each stage makes of them. Blocking, CPU work.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;

use crate::config::{Connector, Limits};
use crate::decode::{self, DecodeLimits, ObjectFault};
use crate::error::ErrorKind;
use crate::transform::{self, TransformError, TransformPlan};
use crate::types::{Decoded, RowReject};

#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    #[error("the object cannot be read: {}: {source}", source.reason().as_str())]
    Object { source: ObjectFault },
    #[error("could not clean or check its rows")]
    Transform(#[from] TransformError),
    #[error("could not take its first rows")]
    Take(#[from] ArrowError),
}

impl PreviewError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Object { .. } => ErrorKind::Invalid,
            Self::Transform(source) => source.kind(),
            Self::Take(_) => ErrorKind::Halt,
        }
    }
}

/// What a stage left of the rows that were looked at; [`Connector::decoded_schema`], after expectations of the dataset.
#[derive(Debug, Clone)]
pub struct PreviewStage {
    pub name: &'static str,
    pub rows: RecordBatch,
}

#[derive(Debug, Clone)]
pub struct PreviewReject {
    pub reject: RowReject,
    /// The byte of the row, from 0, where its fault is; `None` where it has no place.
    pub fault_at: Option<usize>,
}

#[derive(Debug, Clone)]
pub struct Preview {
    /// Decoded, cleaned, after expectations.
    pub stages: Vec<PreviewStage>,
    /// Among the rows that were looked at.
    pub rejects: Vec<PreviewReject>,
    /// Let go by expectations, among them as well.
    pub filtered: u64,
    /// Rows that were looked at: the first of the object.
    pub row_count: u64,
    /// Rows of the object.
    pub row_count_all: u64,
    /// With what the object's data made of the schema.
    pub connector: Arc<Connector>,
}

/// Takes the first `row_count_max` rows of an object through the connector.
pub fn preview(
    connector: &Arc<Connector>,
    limits: &Limits,
    bytes: &Bytes,
    row_count_max: u64,
) -> Result<Preview, PreviewError> {
    let limits = DecodeLimits::new(limits);
    let (decoded, connector) =
        decode::decode_object(connector, bytes, &limits).map_err(|source| PreviewError::Object { source })?;
    let row_count_all = decoded.row_count;
    let decoded = first_rows(decoded, row_count_max.cast_signed())?;
    let without_expectations =
        Arc::new(Connector { expectations: Vec::new(), transform: None, ..Connector::clone(&connector) });
    let cleaned = transform::apply(&TransformPlan::new(&without_expectations)?, decoded.clone())?;
    let in_batches: Vec<RecordBatch> = decoded.batches.iter().map(|batch| batch.rows.clone()).collect();
    let checked = transform::apply(&TransformPlan::new(&connector)?, decoded)?;
    let schema = connector.decoded_schema();
    let made = connector.dataset().decoded_schema();
    let stage = |name, schema, batches: &[RecordBatch]| {
        Ok::<_, ArrowError>(PreviewStage { name, rows: concat_batches(schema, batches)? })
    };
    let stages = vec![
        stage("decoded", &schema, &in_batches)?,
        stage("cleaned", &schema, &cleaned.batches)?,
        stage("after expectations", &made, &checked.batches)?,
    ];
    let rejects = checked.rejects.into_iter().map(|reject| {
        let fault_at = decode::place_of_fault(&connector, &reject, &limits);
        PreviewReject { reject, fault_at }
    });
    Ok(Preview {
        stages,
        rejects: rejects.collect(),
        filtered: checked.filtered,
        row_count: row_count_all.min(row_count_max),
        row_count_all,
        connector,
    })
}

/// Rows numbered below `next`, rejected ones included.
fn first_rows(mut decoded: Decoded, next: i64) -> Result<Decoded, ArrowError> {
    decoded.rejects.retain(|reject| reject.row < next);
    let mut batches = Vec::new();
    for mut batch in decoded.batches {
        let numbers = batch.rows.column(batch.rows.num_columns() - 1).as_primitive::<Int64Type>();
        let wanted: BooleanArray = numbers.values().iter().map(|row| Some(*row < next)).collect();
        let count = wanted.true_count();
        if count > 0 {
            batch.rows = filter_record_batch(&batch.rows, &wanted)?;
            // numbers ascend: the first rows are the ones
            batch.spans.truncate(count);
            batches.push(batch);
        }
    }
    Ok(Decoded { batches, ..decoded })
}
