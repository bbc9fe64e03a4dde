use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::RejectReason;

/// Where rows come from: one record of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub message_offset: i64,
    /// Index of the record within its message, from 0; 0 for direct records.
    pub record: i32,
    /// Last-modified of the object; the message's timestamp for direct records.
    pub time: DateTime<Utc>,
    /// [`super::ObjectVersion::order_hash`]; the offset for direct records.
    pub order_hash: i64,
}

/// Rows of one origin that passed decoding and cleaning. Schema of each batch: the connector's
/// fields in their order (with `_rescued` behind them where the connector rescues), then `_row`
/// (Int64, not null): the row's number within its object, from 0.
#[derive(Debug, Clone)]
pub struct OriginRows {
    pub origin: Origin,
    pub batches: Vec<RecordBatch>,
}

/// A row that does not fit. Costs nothing to its neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowReject {
    /// Number of the row within its object, from 0, rejected rows counted.
    pub row: i64,
    /// Where the row starts in the unpacked object.
    pub byte_offset: u64,
    pub reason: RejectReason,
    /// What was wrong, for a person; names columns, holds no payload.
    pub detail: String,
    /// The row as it stood, without its line end; of CSV with a header, behind the header.
    pub bytes: Bytes,
}
