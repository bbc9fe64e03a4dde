//! What a row becomes: by table, by hostile input, and against serde_json on arbitrary documents.

mod blocks;
mod csv;
mod hostile;
mod hostile_objects;
mod hostile_table;
mod json_values;
mod objects;
mod paths;
mod parquet_objects;
mod oracle;
mod rfc8259;
mod values;

use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::*;
use crate::config::{Evolution, Field, FieldType, Format, NewField, TimestampFormat};
use crate::types::{RowReject, Span};

pub(super) const LIMITS: DecodeLimits =
    DecodeLimits { record_bytes_max: 10_000, json_depth_max: 8, object_bytes_max: 10_000_000, unpacked_ratio_max: 500 };

pub(super) fn field(name: &str, data_type: FieldType, required: bool) -> Field {
    let formats = match data_type {
        FieldType::TimestampMs => vec![TimestampFormat::Rfc3339, TimestampFormat::EpochMs],
        _ => Vec::new(),
    };
    Field { name: name.to_owned(), data_type, required, formats, header: None, path: None }
}

pub(super) fn connector(fields: Vec<Field>, new_field: NewField) -> Arc<Connector> {
    let evolution = Evolution { new_field, ..Evolution::default() };
    Arc::new(Connector { evolution, ..Connector::of_objects("things", fields, "at") })
}

/// A connector of one optional column `v`.
pub(super) fn one(data_type: FieldType) -> Arc<Connector> {
    connector(vec![field("v", data_type, false)], NewField::Ignore)
}

/// By a connector that its data does not change.
pub(super) fn decode_object(
    connector: &Arc<Connector>,
    bytes: Bytes,
    limits: &DecodeLimits,
) -> Result<Decoded, ObjectFault> {
    let (decoded, grown) = super::decode_object(connector, &bytes, limits)?;
    assert!(Arc::ptr_eq(connector, &grown));
    Ok(decoded)
}

pub(super) fn decode_record(connector: &Arc<Connector>, value: Bytes, limits: &DecodeLimits) -> Decoded {
    let (decoded, grown) = super::decode_record(connector, &value, limits);
    assert!(Arc::ptr_eq(connector, &grown));
    decoded
}

pub(super) fn decode(connector: &Arc<Connector>, object: impl AsRef<[u8]>) -> Decoded {
    let decoded = decode_object(connector, Bytes::copy_from_slice(object.as_ref()), &LIMITS).unwrap();
    check(connector, object.as_ref(), &decoded);
    decoded
}

/// What holds whatever the input.
fn check(connector: &Connector, object: &[u8], decoded: &Decoded) {
    let mut numbers: Vec<i64> = decoded.rejects.iter().map(|reject| reject.row).collect();
    for batch in &decoded.batches {
        assert_eq!(batch.rows.schema(), connector.decoded_schema());
        assert_eq!(batch.rows.num_rows(), batch.spans.len());
        assert!(!batch.spans.is_empty());
        let rows = batch.rows.columns().last().unwrap().as_any();
        numbers.extend(rows.downcast_ref::<arrow::array::Int64Array>().unwrap().values());
        for (index, span) in batch.spans.iter().enumerate() {
            let start = span.byte_offset as usize;
            assert_eq!(batch.row_bytes(index), &object[start..start + span.len as usize]);
        }
    }
    for reject in &decoded.rejects {
        let start = reject.byte_offset as usize;
        assert_eq!(reject.bytes, &object[start..start + reject.bytes.len()]);
    }
    assert!(decoded.rejects.is_sorted_by_key(|reject| reject.row));
    numbers.sort_unstable();
    assert_eq!(numbers, (0..decoded.row_count as i64).collect::<Vec<_>>());
    assert_eq!(decoded.unpacked_bytes, object.len() as u64);
}

/// Each row as `value|value|…|_row`, `∅` for null.
pub(super) fn rows(decoded: &Decoded) -> Vec<String> {
    let options = FormatOptions::new().with_null("∅");
    let mut rows = Vec::new();
    for batch in &decoded.batches {
        let columns: Vec<_> =
            batch.rows.columns().iter().map(|array| ArrayFormatter::try_new(array, &options).unwrap()).collect();
        for row in 0..batch.rows.num_rows() {
            let values: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            rows.push(values.join("|"));
        }
    }
    rows
}

/// What becomes of one record: its values, or the reason why it is rejected.
pub(super) fn fate(connector: &Arc<Connector>, record: impl AsRef<[u8]>) -> String {
    let value = Bytes::copy_from_slice(record.as_ref());
    let decoded = decode_record(connector, value, &LIMITS);
    check(connector, record.as_ref(), &decoded);
    assert_eq!(decoded.row_count, 1);
    match decoded.rejects.first() {
        Some(reject) => reject.reason.as_str().to_owned(),
        None => rows(&decoded)[0].strip_suffix("|0").unwrap().to_owned(),
    }
}
