//! Only the newest row of each key stays: within a micro-batch, or within an object where another version of it may
//! take its place or has it already (`source.overwrite` is `replace` or `reject`). There a row must not win over one of
//! another object: it may be hidden with its object afterwards, and the other would be gone. Beyond that the warehouse
//! decides, by the same order, so that cutting a stream elsewhere changes nothing in the end.
//!
//! An object that is read in chunks (`sluice stage`: about 64 MiB unpacked each) is deduped chunk by chunk: rows of one
//! key that stand in different chunks all stay, and the warehouse decides between them. Where the chunks are cut
//! depends on the object's bytes alone.
//!
//! # Order
//! `newer_by` of the warehouse (null, or none: the origin's time), the origin's time, its order hash, the
//! row's number; then offset and record, which tell apart what is the same in all of these.
//!
//! As in SQL's UNIQUE, a row with a null in the key equals no other.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, TimestampMillisecondArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int64Type, TimestampMillisecondType};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::row::{Row, RowConverter, Rows, SortField};

use super::TransformError;
use crate::config::{CleanStep, Connector, ROW_COLUMN, SourceKind, arrow_type};
use crate::types::{Origin, OriginRows, Overwrite};

/// Which rows stay. `rows`: all of one connector in one micro-batch. Gives back those that stay, in their
/// order (origins keep their place, batches without rows do not), and the number of those that went.
pub fn dedupe(connector: &Connector, rows: Vec<OriginRows>) -> Result<(Vec<OriginRows>, u64), TransformError> {
    let mut rows = rows;
    let mut dropped = 0;
    for step in &connector.clean {
        if let CleanStep::Dedupe(key) = step {
            dropped += dedupe_by(connector, key, &mut rows)
                .map_err(|source| TransformError::Dedupe { connector: connector.name.clone(), source })?;
        }
    }
    Ok((rows, dropped))
}

/// The greatest is the newest.
type Age = (i64, i64, i64, i64, i64, i32);

/// Offset and record of an object.
type Place = (i64, i32);

fn rows_of_an_object_may_be_hidden(connector: &Connector) -> bool {
    match connector.source.kind {
        SourceKind::Objects { overwrite, .. } => overwrite != Overwrite::Append,
        SourceKind::Records => false,
    }
}

/// Of one record batch.
struct Keys<'a> {
    origin: &'a Origin,
    rows: Rows,
    /// Rows without a null in the key.
    is_key: Vec<bool>,
    numbers: &'a Int64Array,
    newer_by: Option<&'a TimestampMillisecondArray>,
}

impl Keys<'_> {
    fn age(&self, row: usize) -> Age {
        let origin = self.origin;
        let newer_by = self.newer_by.filter(|times| times.is_valid(row)).map(|times| times.value(row));
        (
            newer_by.unwrap_or_else(|| origin.time.timestamp_millis()),
            // beyond the year 2262 there are no nanoseconds
            origin.time.timestamp_nanos_opt().unwrap_or(i64::MAX),
            origin.order_hash,
            self.numbers.value(row),
            origin.message_offset,
            origin.record,
        )
    }
}

fn dedupe_by(connector: &Connector, key: &[String], origins: &mut [OriginRows]) -> Result<u64, ArrowError> {
    if origins.iter().flat_map(|origin| &origin.batches).map(RecordBatch::num_rows).sum::<usize>() < 2 {
        return Ok(0);
    }
    let keys = keys(connector, key, origins)?;
    let mut stays: Vec<Vec<bool>> = keys.iter().map(|batch| vec![true; batch.is_key.len()]).collect();
    let mut newest: HashMap<(Option<Place>, Row<'_>), (Age, usize, usize)> = HashMap::new();
    let within_objects = rows_of_an_object_may_be_hidden(connector);
    let mut dropped = 0;
    for (index, batch) in keys.iter().enumerate() {
        for row in (0..batch.is_key.len()).filter(|row| batch.is_key[*row]) {
            let candidate = (batch.age(row), index, row);
            let scope = within_objects.then_some((batch.origin.message_offset, batch.origin.record));
            match newest.entry((scope, batch.rows.row(row))) {
                Entry::Vacant(entry) => _ = entry.insert(candidate),
                Entry::Occupied(mut entry) => {
                    let (_, loser, loser_row) =
                        if candidate.0 > entry.get().0 { entry.insert(candidate) } else { candidate };
                    stays[loser][loser_row] = false;
                    dropped += 1;
                }
            }
        }
    }
    drop(newest);
    drop(keys);
    if dropped > 0 {
        take_those_that_stay(origins, &stays)?;
    }
    Ok(dropped)
}

fn keys<'a>(connector: &Connector, key: &[String], origins: &'a [OriginRows]) -> Result<Vec<Keys<'a>>, ArrowError> {
    let sort_fields = key.iter().map(|name| {
        let field = connector.field(name).ok_or_else(|| ArrowError::SchemaError(format!("no column `{name}`")))?;
        Ok(SortField::new(arrow_type(field.data_type)))
    });
    let converter = RowConverter::new(sort_fields.collect::<Result<_, ArrowError>>()?)?;
    let newer_by = connector.warehouse.as_ref().and_then(|warehouse| warehouse.newer_by.as_deref());
    let batches = origins.iter().flat_map(|origin| origin.batches.iter().map(move |batch| (&origin.origin, batch)));
    batches
        .map(|(origin, batch)| {
            let columns = key.iter().map(|name| column(batch, name).cloned()).collect::<Result<Vec<_>, _>>()?;
            let is_key = (0..batch.num_rows()).map(|row| columns.iter().all(|column| column.is_valid(row))).collect();
            let newer_by = newer_by.map(|name| column(batch, name)).transpose()?;
            Ok(Keys {
                origin,
                rows: converter.convert_columns(&columns)?,
                is_key,
                numbers: column(batch, ROW_COLUMN)?.as_primitive::<Int64Type>(),
                newer_by: newer_by.map(AsArray::as_primitive::<TimestampMillisecondType>),
            })
        })
        .collect()
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, ArrowError> {
    batch.column_by_name(name).ok_or_else(|| ArrowError::SchemaError(format!("no column `{name}`")))
}

/// `stays`: of each record batch, in their order.
fn take_those_that_stay(origins: &mut [OriginRows], stays: &[Vec<bool>]) -> Result<(), ArrowError> {
    let mut stays = stays.iter();
    for origin in origins {
        let mut batches = Vec::with_capacity(origin.batches.len());
        for (batch, stays) in origin.batches.iter().zip(stays.by_ref()) {
            if stays.iter().all(|stays| *stays) {
                batches.push(batch.clone());
            } else if stays.contains(&true) {
                batches.push(filter_record_batch(batch, &BooleanArray::from(stays.clone()))?);
            }
        }
        origin.batches = batches;
    }
    Ok(())
}
