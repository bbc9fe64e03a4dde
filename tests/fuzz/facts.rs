//! What a decoded object holds, row by row, and that neither its blocks nor its source show in it.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMillisecondType};
use bytes::Bytes;
use sluice::config::{Connector, Field, FieldType, Format, NewField, TimestampFormat};
use sluice::decode::{DecodeLimits, ObjectDecoder};
use sluice::types::Decoded;

pub const RECORD_BYTES_MAX: usize = 400;

pub const LIMITS: DecodeLimits = DecodeLimits {
    record_bytes_max: RECORD_BYTES_MAX as u64,
    json_depth_max: 60,
    object_bytes_max: 1 << 20,
    unpacked_ratio_max: 500,
};

#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Null,
    Text(String),
    Whole(i128),
    Bits(u64),
    Flag(bool),
}

/// A row's values without its number, or why it is none.
pub type Fate = Result<Vec<Cell>, &'static str>;

#[derive(Debug, PartialEq)]
pub struct Row {
    pub fate: Fate,
    pub byte_offset: usize,
    pub bytes: Bytes,
}

pub fn connector(fields: &[(&str, FieldType)], required: usize, format: Format, new_field: NewField) -> Arc<Connector> {
    let field = |(index, (name, data_type)): (usize, &(&str, FieldType))| Field {
        name: (*name).to_owned(),
        data_type: *data_type,
        required: index < required,
        formats: match data_type {
            FieldType::TimestampMs => vec![TimestampFormat::Rfc3339, TimestampFormat::EpochMs],
            _ => Vec::new(),
        },
        header: None,
        path: None,
    };
    let mut connector = Connector::of_objects("things", fields.iter().enumerate().map(field).collect(), "at");
    connector.source.format = format;
    connector.evolution.new_field = new_field;
    Arc::new(connector)
}

/// Every row in its order, the same by any blocks and from memory or a stream; `None`: a fault of the whole object.
pub fn rows(connector: &Arc<Connector>, object: &[u8], block_bytes: usize) -> Option<Vec<Row>> {
    let of_memory = || ObjectDecoder::of_bytes(connector, Bytes::copy_from_slice(object), &LIMITS);
    let whole = of_memory().ok().and_then(joined);
    let in_blocks = of_memory().ok().and_then(|decoder| joined(decoder.with_block_bytes(block_bytes)));
    assert_eq!(in_blocks, whole, "blocks show");
    let stream = Cursor::new(object.to_vec());
    let streamed = ObjectDecoder::of_stream(connector, stream, &LIMITS).ok();
    let streamed = streamed.and_then(|decoder| joined(decoder.with_block_bytes(block_bytes)));
    assert_eq!(streamed, whole, "the source shows");
    whole
}

fn joined(mut decoder: ObjectDecoder<'_>) -> Option<Vec<Row>> {
    let mut decoded = Decoded::default();
    while let Some(block) = decoder.next_block().ok()? {
        decoded.append(block);
    }
    let mut rows = Vec::new();
    for batch in &decoded.batches {
        let header_len = batch.header_line.len();
        let numbers = batch.rows.columns().last().expect("a number").as_primitive::<Int64Type>();
        for (index, span) in batch.spans.iter().enumerate() {
            let bytes = batch.row_bytes(index).slice(header_len..);
            let fate = Ok(cells(&batch.rows, index));
            rows.push((numbers.value(index), Row { fate, byte_offset: span.byte_offset as usize, bytes }));
        }
    }
    for reject in &decoded.rejects {
        let fate = Err(reject.reason.as_str());
        rows.push((reject.row, Row { fate, byte_offset: reject.byte_offset as usize, bytes: reject.bytes.clone() }));
    }
    rows.sort_by_key(|(number, _)| *number);
    assert!(rows.iter().map(|(number, _)| *number).eq(0..decoded.row_count as i64), "each row once");
    Some(rows.into_iter().map(|(_, row)| row).collect())
}

fn cells(rows: &RecordBatch, row: usize) -> Vec<Cell> {
    let columns = &rows.columns()[..rows.num_columns() - 1];
    columns.iter().map(|column| if column.is_null(row) { Cell::Null } else { cell(column, row) }).collect()
}

fn cell(column: &dyn Array, row: usize) -> Cell {
    match column.data_type() {
        DataType::Utf8 => Cell::Text(column.as_string::<i32>().value(row).to_owned()),
        DataType::Int32 => Cell::Whole(i128::from(column.as_primitive::<Int32Type>().value(row))),
        DataType::Int64 => Cell::Whole(i128::from(column.as_primitive::<Int64Type>().value(row))),
        DataType::Float64 => Cell::Bits(column.as_primitive::<Float64Type>().value(row).to_bits()),
        DataType::Boolean => Cell::Flag(column.as_boolean().value(row)),
        DataType::Decimal128(..) => Cell::Whole(column.as_primitive::<Decimal128Type>().value(row)),
        DataType::Timestamp(..) => {
            Cell::Whole(i128::from(column.as_primitive::<TimestampMillisecondType>().value(row)))
        }
        other => unreachable!("no column is {other}"),
    }
}
