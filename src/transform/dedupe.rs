//! Within a micro-batch, of rows with equal keys only the newest stays.
//!
//! The order is total and comes from the data: `newer_by` (the origin's time where it is null or not given),
//! origin time, order hash, message offset, record, row.

use std::collections::HashMap;

use arrow::array::Array;
use arrow::array::{AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMillisecondType;
use arrow::record_batch::RecordBatch;
use arrow::row::{OwnedRow, RowConverter, SortField};

use super::TransformError;
use super::expect::row_numbers;
use crate::config::{CleanStep, Connector};
use crate::types::{Origin, OriginRows};

/// `(newer_by, origin time, order hash, offset, record, row)`, times in milliseconds.
type Order = (i64, i64, i64, i64, i32, i64);
/// Where a row stands: origin, batch, row.
type Place = (usize, usize, usize);

/// Returns the rows that stay, and how many went. Without a dedupe step everything stays.
pub fn dedupe(connector: &Connector, mut rows: Vec<OriginRows>) -> Result<(Vec<OriginRows>, u64), TransformError> {
    let mut dropped = 0;
    for step in &connector.clean {
        if let CleanStep::Dedupe(key) = step {
            let (kept, count) = dedupe_by(connector, key, rows)?;
            rows = kept;
            dropped += count;
        }
    }
    Ok((rows, dropped))
}

fn dedupe_by(
    connector: &Connector,
    key: &[String],
    mut rows: Vec<OriginRows>,
) -> Result<(Vec<OriginRows>, u64), TransformError> {
    let schema = connector.decoded_schema();
    let fields = key
        .iter()
        .map(|name| {
            let field = schema.column_with_name(name).map(|(_, field)| field);
            field
                .map(|field| SortField::new(field.data_type().clone()))
                .ok_or_else(|| TransformError::ColumnMissing { column: name.clone() })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let converter = RowConverter::new(fields).map_err(TransformError::Dedupe)?;
    let mut winners: HashMap<OwnedRow, (Order, Place)> = HashMap::new();
    let mut losers: HashMap<(usize, usize), Vec<usize>> = HashMap::new();
    let mut dropped = 0;
    for (origin_index, origin_rows) in rows.iter().enumerate() {
        for (batch_index, batch) in origin_rows.batches.iter().enumerate() {
            let keys = key_rows(&converter, key, batch)?;
            let orders = orders(connector, &origin_rows.origin, batch)?;
            for (row, order) in orders.into_iter().enumerate() {
                let place = (origin_index, batch_index, row);
                let Some(loser) = contend(&mut winners, keys.row(row).owned(), order, place) else { continue };
                losers.entry((loser.0, loser.1)).or_default().push(loser.2);
                dropped += 1;
            }
        }
    }
    for ((origin, batch), gone) in losers {
        let rows = &mut rows[origin].batches[batch];
        let mut stays = vec![true; rows.num_rows()];
        for row in gone {
            stays[row] = false;
        }
        *rows = filter_record_batch(rows, &BooleanArray::from(stays)).map_err(TransformError::Filter)?;
    }
    Ok((rows, dropped))
}

/// Enters a row; returns the one that loses, if there are two.
fn contend(
    winners: &mut HashMap<OwnedRow, (Order, Place)>,
    key: OwnedRow,
    order: Order,
    place: Place,
) -> Option<Place> {
    match winners.entry(key) {
        std::collections::hash_map::Entry::Vacant(free) => {
            free.insert((order, place));
            None
        }
        std::collections::hash_map::Entry::Occupied(mut taken) if order > taken.get().0 => {
            Some(taken.insert((order, place)).1)
        }
        std::collections::hash_map::Entry::Occupied(_) => Some(place),
    }
}

fn key_rows(converter: &RowConverter, key: &[String], batch: &RecordBatch) -> Result<arrow::row::Rows, TransformError> {
    let columns = key
        .iter()
        .map(|name| {
            batch.column_by_name(name).cloned().ok_or_else(|| TransformError::ColumnMissing { column: name.clone() })
        })
        .collect::<Result<Vec<_>, _>>()?;
    converter.convert_columns(&columns).map_err(TransformError::Dedupe)
}

fn orders(connector: &Connector, origin: &Origin, batch: &RecordBatch) -> Result<Vec<Order>, TransformError> {
    let numbers = row_numbers(batch)?;
    let newer_by = connector.warehouse.as_ref().and_then(|warehouse| warehouse.newer_by.as_deref());
    let times = newer_by
        .and_then(|name| batch.column_by_name(name))
        .and_then(|column| column.as_primitive_opt::<TimestampMillisecondType>());
    let origin_time = origin.time.timestamp_millis();
    let newer = |row: usize| match times {
        Some(times) if times.is_valid(row) => times.value(row),
        _ => origin_time,
    };
    Ok((0..batch.num_rows())
        .map(|row| {
            (newer(row), origin_time, origin.order_hash, origin.message_offset, origin.record, numbers.value(row))
        })
        .collect())
}
