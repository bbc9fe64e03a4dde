//! Bytes → `RecordBatch`, and a reject for every row that does not fit.
//!
//! # Contract
//! An object's bytes, compressed or not, become rows of the connector's decoded schema. A row that fails is a
//! [`RowReject`] with its reason and its original bytes, and costs nothing to its neighbours:
//! `row_count = rows in batches + rejects`, always. Only what concerns the object as a whole (a broken
//! compressed stream, a size beyond the limits) is an [`ObjectFault`]; then no row of it counts.
//! # Rows
//! One JSON object a line. Lines of white space alone are no rows. A byte order mark at the very start is passed
//! over. Rows are numbered from 0, rejected ones included.

mod json;
mod number;
mod row;
mod unpack;
mod value;

use bytes::Bytes;
use thiserror::Error;

use crate::config::{Connector, Format};
use crate::types::{Decoded, RejectReason, RowReject};

/// What a decoder accepts.
#[derive(Debug, Clone, Copy)]
pub struct DecodeLimits {
    /// One line or direct record, without its line end.
    pub record_bytes_max: u64,
    /// `{"a": [1]}` has depth 2.
    pub json_depth_max: usize,
    /// Unpacked size of an object.
    pub object_bytes_max: u64,
}

/// Why an object as a whole cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ObjectFault {
    #[error("the {format} stream is broken: {detail}")]
    CorruptCompression { format: &'static str, detail: String },
    #[error("the object unpacks to more than {object_bytes_max} bytes (limits.object_bytes_max)")]
    TooLarge { object_bytes_max: u64 },
}

impl ObjectFault {
    pub fn reason(&self) -> RejectReason {
        match self {
            Self::CorruptCompression { .. } => RejectReason::CorruptCompression,
            Self::TooLarge { .. } => RejectReason::ObjectTooLarge,
        }
    }
}

/// Decodes a whole object.
pub fn decode_object(connector: &Connector, bytes: Bytes, limits: &DecodeLimits) -> Result<Decoded, ObjectFault> {
    let unpacked = unpack::unpack(bytes, limits.object_bytes_max)?;
    match connector.source.format {
        Format::Json => Ok(json::decode_lines(connector, unpacked, limits)),
    }
}

/// Decodes one direct record: row 0. Line ends within it are white space. An empty value is malformed.
pub fn decode_record(connector: &Connector, value: Bytes, limits: &DecodeLimits) -> Decoded {
    match connector.source.format {
        Format::Json => json::decode_one(connector, value, limits),
    }
}

/// A reject before it knows which row it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reject {
    reason: RejectReason,
    detail: String,
}

impl Reject {
    fn new(reason: RejectReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    fn at(self, row: i64, byte_offset: u64, bytes: Bytes) -> RowReject {
        RowReject { row, byte_offset, reason: self.reason, detail: self.detail, bytes }
    }
}
