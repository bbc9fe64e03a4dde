//! Bytes → rows: unpacks an object, cuts it into lines, reads each line as the connector's schema says.
//!
//! # Contract
//! Synchronous CPU work; call it on a blocking thread. Deterministic: the same bytes give the same rows,
//! rejects and numbers, so that a replay makes them again.
//!
//! Rows are the lines that hold more than blanks, tabs and carriage returns, numbered from 0; a byte order
//! mark at the very start is skipped. Every row is either in exactly one batch or in exactly one reject:
//! `row_count` is their sum. A reject costs nothing to its neighbours.
//!
//! # Which reason a row gets
//! The first of these that holds:
//!
//! | reason | the row |
//! |---|---|
//! | `record_too_long` | has more bytes than `record_bytes_max` |
//! | `invalid_utf8` | is not UTF-8 |
//! | `malformed_json`, `too_deep` | breaks RFC 8259, or opens one bracket too many, whichever comes first |
//! | `not_an_object` | is JSON, but no object |
//! | `duplicate_field`, `unknown_field`, `wrong_type`, `invalid_value` | the first field, in the row's order, with such a fault |
//! | `missing_required` | lacks a required field, or has null there |
//!
//! # Types
//! | column | takes | `invalid_value` |
//! |---|---|---|
//! | utf8 | strings | – |
//! | int32, int64 | numbers without point and exponent | out of range |
//! | float64 | numbers | beyond the range of a double |
//! | boolean | `true`, `false` | – |
//! | decimal | numbers, and strings that hold one | more digits behind the point (as written, exponent applied) or before it |
//! | timestamp_ms | by its formats: RFC 3339 strings, integers of milliseconds | unparsable, or outside 1970 to 2199 (UTC) |
//! | uuid | strings | anything but 8-4-4-4-12 hexadecimal digits |
//! | json | anything | – |
//!
//! Anything else is `wrong_type`; null is as good as missing everywhere.
//!
//! # Evolution
//! `wrong_type` and `invalid_value` are what `type_change: reject` makes of a value that does not fit; by
//! `ignore` the column is null, by `rescue` the value is kept in `_rescued` besides; a required column still rejects.
//! `evolve` widens ([`decode_object_evolving`]): utf8 columns then take the text of any value, numbers
//! spelled without exponent and without zeros behind their last digit.

mod column;
mod evolve;
mod infer;
mod json;
mod lines;
mod number;
mod profile;
mod scan;
mod timestamp;
mod unpack;

#[cfg(test)]
mod tests;

use bytes::Bytes;

use crate::config::{Connector, Format, Limits};
use crate::types::{Decoded, DecodedBatch, Span};
use crate::types::{RejectReason, RowReject, kept_bytes};

pub use evolve::{decode_object_evolving, decode_record_evolving, place_of_fault};
pub use profile::{FieldProfile, Profile};

use json::RowDecoder;
use lines::Lines;

/// Rows of one record batch at most; few enough to stay in a core's cache, enough to pay for the batch.
const BATCH_ROWS_MAX: usize = 8192;
/// A record batch is closed when its rows came from that many bytes.
const BATCH_BYTES_MAX: usize = 64 << 20;
/// Text columns have 32-bit offsets: a batch and one more record must stay below 2 GiB.
const RECORD_BYTES_MAX: u64 = 1 << 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// One line or direct record.
    pub record_bytes_max: u64,
    /// Brackets that may be open at once, the record's own included.
    pub json_depth_max: usize,
    /// Unpacked size of an object.
    pub object_bytes_max: u64,
}

impl DecodeLimits {
    pub fn new(limits: &Limits) -> Self {
        Self {
            record_bytes_max: limits.record_bytes_max,
            json_depth_max: limits.json_depth_max,
            object_bytes_max: limits.object_bytes_max,
        }
    }
}

/// Why a whole object cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectFault {
    #[error("{detail}")]
    CorruptCompression { detail: String },
    #[error("{detail}")]
    TooLarge { detail: String },
}

impl ObjectFault {
    pub fn reason(&self) -> RejectReason {
        match self {
            Self::CorruptCompression { .. } => RejectReason::CorruptCompression,
            Self::TooLarge { .. } => RejectReason::ObjectTooLarge,
        }
    }
}

/// Decodes an object. Compression is told by its content, never by its name.
pub fn decode_object(connector: &Connector, bytes: Bytes, limits: &DecodeLimits) -> Result<Decoded, ObjectFault> {
    let unpacked = unpack::unpack(bytes, limits.object_bytes_max)?;
    let mut decoder = Decoder::new(connector, unpacked.clone(), limits);
    match connector.source.format {
        Format::Json => Lines::new(&unpacked).for_each(|(start, line)| decoder.record(start, line)),
    }
    Ok(decoder.finish())
}

/// Decodes the value of one message: exactly one row, number 0, newlines inside it are white space.
/// A value without content is a `malformed_json` reject.
pub fn decode_record(connector: &Connector, value: Bytes, limits: &DecodeLimits) -> Decoded {
    let mut decoder = Decoder::new(connector, value, limits);
    let value = decoder.unpacked.clone();
    let start = lines::byte_order_mark(&value);
    match connector.source.format {
        Format::Json => decoder.record(start, &value[start..]),
    }
    decoder.finish()
}

/// Gathers the rows of one object.
struct Decoder<'c> {
    rows: RowDecoder<'c>,
    limits: DecodeLimits,
    unpacked: Bytes,
    /// Lines of text that is UTF-8 as a whole need not be looked at one by one.
    is_utf8: bool,
    decoded: Decoded,
    /// Of the open batch.
    spans: Vec<Span>,
    batch_bytes: usize,
}

impl<'c> Decoder<'c> {
    fn new(connector: &'c Connector, unpacked: Bytes, limits: &DecodeLimits) -> Self {
        let is_utf8 = simdutf8::basic::from_utf8(&unpacked).is_ok();
        let decoded =
            Decoded { batches: Vec::new(), rejects: Vec::new(), row_count: 0, unpacked_bytes: unpacked.len() as u64 };
        Self {
            rows: RowDecoder::new(connector, limits.json_depth_max),
            limits: DecodeLimits { record_bytes_max: limits.record_bytes_max.min(RECORD_BYTES_MAX), ..*limits },
            unpacked,
            is_utf8,
            decoded,
            spans: Vec::new(),
            batch_bytes: 0,
        }
    }

    fn record(&mut self, start: usize, record: &[u8]) {
        let row = self.decoded.row_count as i64;
        self.decoded.row_count += 1;
        if let Err((reason, detail)) = self.read(row, record) {
            let bytes = kept_bytes(&self.unpacked, start..start + record.len());
            self.decoded.rejects.push(RowReject { row, byte_offset: start as u64, reason, detail, bytes });
            return;
        }
        self.spans.push(Span { byte_offset: start as u64, len: record.len() as u32 });
        self.batch_bytes += record.len();
        if self.spans.len() >= BATCH_ROWS_MAX || self.batch_bytes >= BATCH_BYTES_MAX {
            self.close_batch();
        }
    }

    fn read(&mut self, row: i64, record: &[u8]) -> Result<(), (RejectReason, String)> {
        if record.len() as u64 > self.limits.record_bytes_max {
            let (len, max) = (record.len(), self.limits.record_bytes_max);
            return Err((RejectReason::RecordTooLong, format!("{len} bytes, limits.record_bytes_max allows {max}")));
        }
        if !self.is_utf8
            && let Err(error) = simdutf8::compat::from_utf8(record)
        {
            return Err((RejectReason::InvalidUtf8, format!("no UTF-8 at byte {}", error.valid_up_to())));
        }
        self.rows.row(row, record).map_err(|fault| (fault.reason(), fault.detail()))
    }

    fn close_batch(&mut self) {
        self.batch_bytes = 0;
        self.decoded.batches.push(DecodedBatch {
            rows: self.rows.finish(),
            spans: std::mem::take(&mut self.spans),
            unpacked: self.unpacked.clone(),
        });
    }

    fn finish(mut self) -> Decoded {
        if !self.spans.is_empty() {
            self.close_batch();
        }
        self.decoded
    }
}
