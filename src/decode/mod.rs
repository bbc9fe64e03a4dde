//! Bytes → rows: unpacks an object, cuts it into lines, reads each line as the connector's schema says.
//!
//! # Contract
//! Synchronous CPU work; call it on a blocking thread. Deterministic: the same bytes give the same rows,
//! rejects and numbers, so that a replay makes them again.
//!
//! ```text
//!  stored bytes ─unpack─▶ unpacked bytes ─blocks, framing─▶ records ─json─▶ rows
//! ```
//! [`ObjectDecoder`] gives an object block by block, each a few MiB of whole records, so that its size does not matter
//! for memory; where the blocks are cut is a constant of the code and shows in no row, reject or number.
//! [`decode_object`] joins them. Between two blocks another process can go on ([`ResumePoint`]).
//!
//! Rows are the lines that hold more than blanks, tabs and carriage returns, numbered from 0; a byte order
//! mark at the very start is skipped. (Of `json_values` they are the values, of CSV the records: see `json_values`,
//! `csv_records`.) Every row is either in exactly one batch or in exactly one reject:
//! `row_count` is their sum. A reject costs nothing to its neighbours.
//!
//! # Which reason a row gets
//! The first of these that holds:
//!
//! | reason | the row |
//! |---|---|
//! | `record_too_long` | has more bytes than `record_bytes_max`; of an object's, the first MiB is kept |
//! | `invalid_utf8` | is not UTF-8 |
//! | `malformed_json`, `too_deep` | breaks RFC 8259, or opens one bracket too many, whichever comes first |
//! | `not_an_object` | is JSON, but no object |
//! | `malformed_csv`, `ragged_row` | breaks the quoting of CSV; has more or fewer fields than there are columns |
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
//! Anything else is `wrong_type`; null is as good as missing everywhere. CSV has but text: it takes the same spellings
//! without the quotes (and `1`, `0`, `True`, `FALSE` for booleans), and what does not fit is `invalid_value`. See `csv`.
//! A row of Parquet is decoded as the JSON object that spells it, so that whole numbers of any width fit where their value
//! does, decimals where they are exact, and times of any unit; that text is the row's bytes. See `parquet`.
//!
//! # Evolution
//! `wrong_type` and `invalid_value` are what `type_change: reject` makes of a value that does not fit; by
//! `ignore` the column is null, by `rescue` the value is kept in `_rescued` besides; a required column still rejects.
//! `evolve` widens: utf8 columns then take the text of any JSON value, numbers spelled without exponent and
//! without zeros behind their last digit. Fields that are new to CSV become utf8 columns. What comes out of a block is what
//! decoding by the grown schema gives in the first place, so that a replay, which knows it already, makes the same rows.

mod blocks;
mod column;
mod csv;
mod csv_records;
mod csv_value;
mod framing;
mod infer;
mod json;
mod json_values;
mod lines;
mod nested;
mod number;
mod object;
mod open_batch;
mod parquet;
mod parquet_bounds;
mod parquet_text;
mod profile;
mod scan;
mod sniff;
mod timestamp;
mod unpack;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;

use crate::config::{Connector, Format, Limits, RECORD_BYTES_MAX};
use crate::types::{Decoded, RejectReason, RowReject};

pub(crate) use number::plain as plain_number;
pub use object::{ObjectDecoder, ResumePoint};
pub use profile::{FieldProfile, Profile};
pub use sniff::sniff;
pub use unpack::{Compression, StoredPoint};

use json::RowDecoder;
use object::BlockDecoder;
use unpack::UnpackLimits;

/// What a dead letter keeps of an object's record that is too long: all of it may be more than memory holds.
const LONG_RECORD_KEPT_BYTES: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// One line or direct record.
    pub record_bytes_max: u64,
    /// Brackets that may be open at once, the record's own included.
    pub json_depth_max: usize,
    /// Unpacked size of an object.
    pub object_bytes_max: u64,
    /// Unpacked bytes for each stored one, in a large object.
    pub unpacked_ratio_max: u64,
}

impl DecodeLimits {
    pub fn new(limits: &Limits) -> Self {
        Self {
            record_bytes_max: limits.record_bytes_max,
            json_depth_max: limits.json_depth_max,
            object_bytes_max: limits.object_bytes_max,
            unpacked_ratio_max: limits.unpacked_ratio_max,
        }
    }

    fn unpacking(&self) -> UnpackLimits {
        UnpackLimits { bytes_max: self.object_bytes_max, ratio_max: self.unpacked_ratio_max }
    }
}

/// Whether objects of the format are held in memory whole: they cannot be read in chunks.
pub fn is_read_whole(format: &Format) -> bool {
    match format {
        Format::Json => false,
        // a quote, or a bracket, is told from a mistake by what stands far behind it
        Format::Csv(_) | Format::JsonValues => true,
        // its table of contents stands at the end
        Format::Parquet => true,
    }
}

/// Why a whole object cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectFault {
    #[error("{detail}")]
    CorruptCompression { detail: String },
    #[error("{detail}")]
    TooLarge { detail: String },
    #[error("broken CSV header: {detail}")]
    MalformedHeader { detail: String },
    #[error("broken Parquet: {detail}")]
    MalformedParquet { detail: String },
}

impl ObjectFault {
    pub fn reason(&self) -> RejectReason {
        match self {
            Self::CorruptCompression { .. } => RejectReason::CorruptCompression,
            Self::TooLarge { .. } => RejectReason::ObjectTooLarge,
            Self::MalformedHeader { .. } => RejectReason::MalformedHeader,
            Self::MalformedParquet { .. } => RejectReason::MalformedParquet,
        }
    }
}

/// Why an object cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// As a whole, today as tomorrow.
    #[error(transparent)]
    Fault(#[from] ObjectFault),
    /// Its stored bytes do not come.
    #[error("could not read the stored bytes")]
    Read(#[source] std::io::Error),
}

/// Decodes an object; the connector is the given one, or what the object made of it. Compression is told by its content,
/// never by its name. For objects that are looked at: all of it is held, and read again where its schema grew.
pub fn decode_object(
    connector: &Arc<Connector>,
    bytes: &Bytes,
    limits: &DecodeLimits,
) -> Result<(Decoded, Arc<Connector>), ObjectFault> {
    let mut connector = Arc::clone(connector);
    loop {
        let mut decoder = ObjectDecoder::of_bytes(&connector, bytes.clone(), limits).map_err(of_memory)?;
        let mut decoded = Decoded::default();
        while let Some(block) = decoder.next_block().map_err(of_memory)? {
            decoded.append(block);
        }
        if Arc::ptr_eq(decoder.connector(), &connector) {
            return Ok((decoded, connector));
        }
        connector = Arc::clone(decoder.connector());
    }
}

/// Decodes the value of one message: exactly one row, number 0, newlines inside it are white space; the connector is the
/// given one, or what the record made of it. A value without content is a `malformed_json` reject. Of CSV with a header,
/// the header stands before the row.
pub fn decode_record(connector: &Arc<Connector>, value: &Bytes, limits: &DecodeLimits) -> (Decoded, Arc<Connector>) {
    let (start, end) = (blocks::byte_order_mark(value), value.len());
    let header_len = match &connector.source.format {
        Format::Csv(dialect) if dialect.has_header => csv_records::first_len(&value[start..], dialect),
        _ => 0,
    };
    let mut connector = Arc::clone(connector);
    loop {
        let mut decoder = BlockDecoder::new(&connector, limits).keeping_long_records();
        decoder.begin(value.clone(), 0);
        decoder.one_record(start, header_len, end);
        let decoded = decoder.finish(end as u64);
        if !decoder.grow() {
            return (decoded, connector);
        }
        connector = Arc::clone(decoder.connector());
    }
}

/// What is wrong with an object whose bytes lie in memory.
fn of_memory(error: DecodeError) -> ObjectFault {
    match error {
        DecodeError::Fault(fault) => fault,
        DecodeError::Read(error) => unreachable!("bytes in memory can be read: {error}"),
    }
}

/// Where in a rejected row its fault is: the byte, from 0, at which a field begins or the syntax breaks.
/// `None` where it has no place: a field is missing, an expectation failed, a CSV field does not fit.
pub fn place_of_fault(connector: &Arc<Connector>, reject: &RowReject, limits: &DecodeLimits) -> Option<usize> {
    match reject.reason {
        RejectReason::RecordTooLong => usize::try_from(limits.record_bytes_max).ok(),
        RejectReason::InvalidUtf8 => simdutf8::compat::from_utf8(&reject.bytes).err().map(|error| error.valid_up_to()),
        RejectReason::MissingRequired | RejectReason::ExpectationFailed | RejectReason::SqlFailed => None,
        _ if matches!(connector.source.format, Format::Json | Format::JsonValues | Format::Parquet) => {
            let mut rows = RowDecoder::new(connector, limits.json_depth_max);
            rows.row(reject.row, &reject.bytes).err()?;
            rows.fault_at()
        }
        _ => None,
    }
}
