//! Only the newest row of each key stays: within a micro-batch, or within an object where another version of it may
//! take its place or has it already (`source.overwrite` is `replace` or `reject`). There a row must not win over one of
//! another object: it may be hidden with its object afterwards, and the other would be gone. Beyond that the warehouse
//! decides, by the same order, so that cutting a stream elsewhere changes nothing in the end.
//!
//! An object that is read in chunks (`limits.chunk_bytes`) is deduped chunk by chunk: rows of one
//! key that stand in different chunks all stay, and the warehouse decides between them. Where the chunks are cut
//! depends on the object's bytes alone.
//!
//! # Order
//! `newer_by` of the warehouse (null, or none: the origin's time), the origin's time, its order hash, the
//! row's number; then offset and record, which tell apart what is the same in all of these.
//!
//! As in SQL's UNIQUE, a row with a null in the key equals no other.

use std::hash::{BuildHasher, Hasher};

use ahash::RandomState;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::buffer::NullBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{
    DataType, Decimal128Type, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMillisecondType,
};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::TransformError;
use crate::config::{CleanStep, Connector, DedupeWindow, ROW_COLUMN, SourceKind};
use crate::types::{Origin, OriginRows, Overwrite};

/// Which rows stay. `rows`: all of one connector in one micro-batch. Gives back those that stay, in their
/// order (origins keep their place, batches without rows do not), and the number of those that went.
pub fn dedupe(connector: &Connector, rows: Vec<OriginRows>) -> Result<(Vec<OriginRows>, u64), TransformError> {
    let mut rows = rows;
    let mut dropped = 0;
    for step in &connector.clean {
        if let CleanStep::Dedupe(key) | CleanStep::DedupeWithin(DedupeWindow { columns: key, .. }) = step {
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
    columns: Vec<KeyColumn<'a>>,
    /// Valid are the rows without a null in the key.
    nulls: Option<NullBuffer>,
    numbers: &'a Int64Array,
    newer_by: Option<&'a TimestampMillisecondArray>,
}

impl Keys<'_> {
    fn hash(&self, row: usize, scope: Option<Place>, state: &RandomState) -> u64 {
        let mut hasher = state.build_hasher();
        if let Some((offset, record)) = scope {
            hasher.write_i64(offset);
            hasher.write_i32(record);
        }
        self.columns.iter().for_each(|column| column.hash(row, &mut hasher));
        hasher.finish()
    }

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

/// A column of the key as it lies in memory: rows are hashed and compared where they are. Copying them into one comparable
/// row first (arrow's row format) and hashing that by SipHash took three times as long.
enum KeyColumn<'a> {
    Text(&'a StringArray),
    Boolean(&'a BooleanArray),
    /// Values of that many bytes.
    Fixed(&'a [u8], usize),
}

impl<'a> KeyColumn<'a> {
    fn new(array: &'a ArrayRef) -> Result<Self, ArrowError> {
        Ok(match array.data_type() {
            DataType::Utf8 => Self::Text(array.as_string()),
            DataType::Boolean => Self::Boolean(array.as_boolean()),
            DataType::Int32 => Self::Fixed(array.as_primitive::<Int32Type>().values().inner(), 4),
            DataType::Int64 => Self::Fixed(array.as_primitive::<Int64Type>().values().inner(), 8),
            DataType::Float64 => Self::Fixed(array.as_primitive::<Float64Type>().values().inner(), 8),
            DataType::Decimal128(..) => Self::Fixed(array.as_primitive::<Decimal128Type>().values().inner(), 16),
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                Self::Fixed(array.as_primitive::<TimestampMillisecondType>().values().inner(), 8)
            }
            other => return Err(ArrowError::NotYetImplemented(format!("{other} in a key"))),
        })
    }

    fn hash(&self, row: usize, hasher: &mut impl Hasher) {
        match self {
            Self::Text(texts) => hasher.write(texts.value(row).as_bytes()),
            Self::Boolean(values) => hasher.write_u8(u8::from(values.value(row))),
            Self::Fixed(bytes, width) => hasher.write(&bytes[row * width..(row + 1) * width]),
        }
    }

    fn equals(&self, row: usize, other: &Self, other_row: usize) -> bool {
        match (self, other) {
            (Self::Text(texts), Self::Text(others)) => texts.value(row) == others.value(other_row),
            (Self::Boolean(values), Self::Boolean(others)) => values.value(row) == others.value(other_row),
            (Self::Fixed(bytes, width), Self::Fixed(others, _)) => {
                bytes[row * width..(row + 1) * width] == others[other_row * width..(other_row + 1) * width]
            }
            _ => false,
        }
    }
}

/// The newest row of a key so far.
struct Newest {
    hash: u64,
    /// Index of its record batch.
    batch: u32,
    row: u32,
}

fn dedupe_by(connector: &Connector, key: &[String], origins: &mut [OriginRows]) -> Result<u64, ArrowError> {
    let row_count = origins.iter().flat_map(|origin| &origin.batches).map(RecordBatch::num_rows).sum::<usize>();
    if row_count < 2 {
        return Ok(0);
    }
    let keys = keys(connector, key, origins)?;
    let (stays, dropped) = those_that_stay(&keys, rows_of_an_object_may_be_hidden(connector), row_count);
    drop(keys);
    if dropped > 0 {
        take_those_that_stay(origins, &stays)?;
    }
    Ok(dropped)
}

/// Of each record batch which rows stay, and how many do not.
fn those_that_stay(keys: &[Keys<'_>], within_objects: bool, row_count: usize) -> (Vec<Vec<bool>>, u64) {
    let mut stays: Vec<Vec<bool>> = keys.iter().map(|batch| vec![true; batch.numbers.len()]).collect();
    let scope = |batch: &Keys<'_>| within_objects.then_some((batch.origin.message_offset, batch.origin.record));
    // seeded anew for each process: nobody can prepare keys that collide
    let state = RandomState::new();
    // as large as it can get: growing would move every entry again
    let mut table: HashTable<Newest> = HashTable::with_capacity(row_count);
    let mut dropped = 0;
    for (index, batch) in keys.iter().enumerate() {
        let batch_scope = scope(batch);
        for row in 0..batch.numbers.len() {
            if batch.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                continue;
            }
            let hash = batch.hash(row, batch_scope, &state);
            let is_same = |newest: &Newest| {
                let other = &keys[newest.batch as usize];
                let mut columns = batch.columns.iter().zip(&other.columns);
                newest.hash == hash
                    && scope(other) == batch_scope
                    && columns.all(|(column, other)| column.equals(row, other, newest.row as usize))
            };
            let candidate = Newest { hash, batch: index as u32, row: row as u32 };
            match table.entry(hash, is_same, |newest| newest.hash) {
                Entry::Vacant(entry) => _ = entry.insert(candidate),
                Entry::Occupied(mut entry) => {
                    let newest = entry.get_mut();
                    let is_newer = batch.age(row) > keys[newest.batch as usize].age(newest.row as usize);
                    let loser = if is_newer { std::mem::replace(newest, candidate) } else { candidate };
                    stays[loser.batch as usize][loser.row as usize] = false;
                    dropped += 1;
                }
            }
        }
    }
    (stays, dropped)
}

fn keys<'a>(connector: &Connector, key: &[String], origins: &'a [OriginRows]) -> Result<Vec<Keys<'a>>, ArrowError> {
    let newer_by = connector.warehouse.as_ref().and_then(|warehouse| warehouse.newer_by.as_deref());
    let batches = origins.iter().flat_map(|origin| origin.batches.iter().map(move |batch| (&origin.origin, batch)));
    batches
        .map(|(origin, batch)| {
            let columns = key.iter().map(|name| column(batch, name)).collect::<Result<Vec<_>, _>>()?;
            let nulls = columns.iter().fold(None, |nulls, column| NullBuffer::union(nulls.as_ref(), column.nulls()));
            let newer_by = newer_by.map(|name| column(batch, name)).transpose()?;
            Ok(Keys {
                origin,
                columns: columns.into_iter().map(KeyColumn::new).collect::<Result<_, _>>()?,
                nulls,
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
pub(super) fn take_those_that_stay(origins: &mut [OriginRows], stays: &[Vec<bool>]) -> Result<(), ArrowError> {
    let mut stays = stays.iter();
    for origin in origins {
        let mut batches = Vec::with_capacity(origin.batches.len());
        // each is let go before the next is copied, which takes its memory
        for (batch, stays) in std::mem::take(&mut origin.batches).into_iter().zip(stays.by_ref()) {
            if stays.iter().all(|stays| *stays) {
                batches.push(batch);
            } else if stays.contains(&true) {
                batches.push(filter_record_batch(&batch, &BooleanArray::from(stays.clone()))?);
            }
        }
        origin.batches = batches;
    }
    Ok(())
}
