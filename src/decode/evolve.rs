//! Decoding by a schema that the data may change.
//!
//! # Contract
//! An object is decoded by the schema at hand. Rows that would fit a grown schema tell the types they need; the
//! schema grows by all of them, and the object is decoded again. What comes out is what decoding by the grown
//! schema gives in the first place, so that a replay, which knows it already, makes the same rows.

use std::sync::Arc;

use bytes::Bytes;

use super::json::{RowDecoder, RowFault};
use super::{DecodeLimits, ObjectFault, decode_object, decode_record};
use crate::config::{Connector, Format, SeenTypes, see};
use crate::types::{Decoded, RejectReason, RowReject};

/// One growth takes every type of the object: more are needed only where a grown column shows another misfit.
const GROWTHS_MAX: usize = 8;

/// As [`decode_object`]; the connector is the given one, or what the object made of it.
pub fn decode_object_evolving(
    connector: &Arc<Connector>,
    bytes: &Bytes,
    limits: &DecodeLimits,
) -> Result<(Decoded, Arc<Connector>), ObjectFault> {
    growing(connector, limits, |connector| decode_object(connector, bytes.clone(), limits))
}

/// As [`decode_record`], likewise.
pub fn decode_record_evolving(
    connector: &Arc<Connector>,
    value: &Bytes,
    limits: &DecodeLimits,
) -> (Decoded, Arc<Connector>) {
    let decoded = growing(connector, limits, |connector| {
        Ok::<_, std::convert::Infallible>(decode_record(connector, value.clone(), limits))
    });
    decoded.unwrap_or_else(|never| match never {})
}

fn growing<E>(
    connector: &Arc<Connector>,
    limits: &DecodeLimits,
    decode: impl Fn(&Connector) -> Result<Decoded, E>,
) -> Result<(Decoded, Arc<Connector>), E> {
    let mut connector = Arc::clone(connector);
    let mut decoded = decode(&connector)?;
    for _ in 0..GROWTHS_MAX {
        if !connector.evolves() {
            break;
        }
        let seen = seen_types(&connector, &decoded.rejects, limits);
        if seen.is_empty() {
            break;
        }
        connector = Arc::new(connector.evolved(&seen));
        decoded = decode(&connector)?;
    }
    Ok((decoded, connector))
}

/// What rows that only a narrow schema keeps out would need.
fn seen_types(connector: &Connector, rejects: &[RowReject], limits: &DecodeLimits) -> SeenTypes {
    let mut seen = SeenTypes::new();
    let Format::Json = connector.source.format;
    let mut rows = RowDecoder::new(connector, limits.json_depth_max);
    for reject in rejects.iter().filter(|reject| reject.reason == RejectReason::UnknownField) {
        if let Err(RowFault::Widens { .. }) = rows.row(reject.row, &reject.bytes) {
            for (name, data_type) in rows.row_seen() {
                see(&mut seen, name, *data_type);
            }
        }
    }
    seen
}

/// Where in a rejected row its fault is: the byte, from 0, at which a field begins or the syntax breaks.
/// `None` where it has no place: a field is missing, an expectation failed.
pub fn place_of_fault(connector: &Connector, reject: &RowReject, limits: &DecodeLimits) -> Option<usize> {
    match reject.reason {
        RejectReason::RecordTooLong => usize::try_from(limits.record_bytes_max).ok(),
        RejectReason::InvalidUtf8 => simdutf8::compat::from_utf8(&reject.bytes).err().map(|error| error.valid_up_to()),
        RejectReason::MissingRequired | RejectReason::ExpectationFailed => None,
        _ => {
            let Format::Json = connector.source.format;
            let mut rows = RowDecoder::new(connector, limits.json_depth_max);
            rows.row(reject.row, &reject.bytes).err()?;
            rows.fault_at()
        }
    }
}
