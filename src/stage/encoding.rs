//! How the columns of a file are encoded: chosen for each by a sample of its first rows, the same for the same rows.
//!
//! | the column | is written |
//! |---|---|
//! | repeats its values | by a dictionary |
//! | the same, of a few values | likewise, not compressed: the numbers of dictionary entries hardly shrink further |
//! | integers or times that rarely repeat | as differences (DELTA_BINARY_PACKED), not compressed: likewise |
//! | anything else | plain |
//!
//! Pages are compressed unless it says otherwise. A dictionary that hardly any value finds itself in costs its table and
//! is thrown away in the end, and each compressed column of each file sets up a compressor (20 µs, as much as
//! encoding 200 values): with hundreds of small files both were a quarter of the CPU time of encoding.

use ahash::RandomState;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Decimal128Type, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMillisecondType,
};
use hashbrown::HashTable;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::WriterPropertiesBuilder;
use parquet::schema::types::ColumnPath;

use crate::config::{OFFSET_COLUMN, ROW_COLUMN};

/// Values looked at: so many of a small file, one in eight of the first rows of a large one.
const SAMPLE_ROWS_MIN: usize = 64;
const SAMPLE_ROWS_MAX: usize = 1024;
/// A dictionary of so many values is small itself, however long they are, and needs five bits for each row.
const FEW: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// As the writer does it unless told otherwise.
    Dictionary,
    SmallDictionary,
    Delta,
    Plain,
}

/// `first`: the rows that the file begins with, as many as are encoded at once.
pub(super) fn by_column(mut properties: WriterPropertiesBuilder, first: &RecordBatch) -> WriterPropertiesBuilder {
    for (field, column) in first.schema().fields().iter().zip(first.columns()) {
        let path = ColumnPath::from(field.name().as_str());
        // What is numbered repeats itself at the end of a small sample at most.
        let is_number = [OFFSET_COLUMN, ROW_COLUMN].contains(&field.name().as_str());
        let plan = if is_number { Plan::Delta } else { plan(column) };
        properties = match plan {
            Plan::Dictionary => properties,
            Plan::SmallDictionary => properties.set_column_compression(path, Compression::UNCOMPRESSED),
            Plan::Delta => properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED)
                .set_column_compression(path, Compression::UNCOMPRESSED),
            Plan::Plain => properties.set_column_dictionary_enabled(path, false),
        };
    }
    properties
}

fn plan(column: &dyn Array) -> Plan {
    let Some(hashes) = sample(column) else { return Plan::Dictionary };
    let looked_at = hashes.len();
    let different = different(&hashes);
    let repeated = looked_at - different;
    if looked_at == 0 {
        return Plan::Dictionary;
    }
    if 2 * repeated >= looked_at {
        return if different <= FEW { Plan::SmallDictionary } else { Plan::Dictionary };
    }
    // Of `d` values, equally frequent, a sample of `n` repeats about `n² / 2d`.
    let distinct = (looked_at * looked_at).checked_div(2 * repeated).unwrap_or(usize::MAX);
    if distinct <= column.len() / 2 {
        return Plan::Dictionary;
    }
    match column.data_type() {
        DataType::Int32 | DataType::Int64 | DataType::Timestamp(..) => Plan::Delta,
        _ => Plan::Plain,
    }
}

/// How many of the hashes are different.
fn different(hashes: &[u64]) -> usize {
    let mut seen: HashTable<u64> = HashTable::with_capacity(hashes.len());
    for hash in hashes {
        seen.entry(*hash, |other| other == hash, |hash| *hash).or_insert(*hash);
    }
    seen.len()
}

/// Hashes of the first values that are not null; `None` for types that are best left to the writer.
fn sample(column: &dyn Array) -> Option<Vec<u64>> {
    let rows = (column.len() / 8).clamp(SAMPLE_ROWS_MIN, SAMPLE_ROWS_MAX).min(column.len());
    let first = column.slice(0, rows);
    // always the same seeds: a file comes out the same however often it is made
    let state = RandomState::with_seeds(1, 2, 3, 4);
    let number = |number: u64| state.hash_one(number);
    Some(match column.data_type() {
        DataType::Utf8 => first.as_string::<i32>().iter().flatten().map(|text| state.hash_one(text)).collect(),
        DataType::Binary => first.as_binary::<i32>().iter().flatten().map(|bytes| state.hash_one(bytes)).collect(),
        DataType::Int32 => {
            first.as_primitive::<Int32Type>().iter().flatten().map(|value| number(value as u64)).collect()
        }
        DataType::Int64 => {
            first.as_primitive::<Int64Type>().iter().flatten().map(|value| number(value as u64)).collect()
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => first
            .as_primitive::<TimestampMillisecondType>()
            .iter()
            .flatten()
            .map(|value| number(value as u64))
            .collect(),
        DataType::Float64 => {
            first.as_primitive::<Float64Type>().iter().flatten().map(|value| number(value.to_bits())).collect()
        }
        DataType::Decimal128(..) => {
            first.as_primitive::<Decimal128Type>().iter().flatten().map(|value| state.hash_one(value)).collect()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn texts(value: impl Fn(usize) -> usize) -> ArrayRef {
        Arc::new((0..8192).map(|row| Some(format!("value {}", value(row)))).collect::<StringArray>())
    }

    fn integers(value: impl Fn(usize) -> usize) -> ArrayRef {
        Arc::new((0..8192).map(|row| Some(value(row) as i64)).collect::<Int64Array>())
    }

    /// Sebastiano Vigna's splitmix64: numbers that look random.
    fn spread(number: usize) -> usize {
        let mut bits = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) as usize
    }

    #[test]
    fn what_repeats_has_a_dictionary_and_what_does_not_has_none() {
        for (distinct, expected) in
            [(1, Plan::SmallDictionary), (12, Plan::SmallDictionary), (1500, Plan::Dictionary), (8192, Plan::Plain)]
        {
            assert_eq!(
                plan(&texts(|row| if distinct < 8192 { spread(row) % distinct } else { row })),
                expected,
                "{distinct}"
            );
        }
        assert_eq!(plan(&integers(|row| row)), Plan::Delta);
        assert_eq!(plan(&integers(|row| row / 1000)), Plan::SmallDictionary);
    }

    #[test]
    fn nulls_say_nothing() {
        let rare = |row: usize| row.is_multiple_of(10).then(|| format!("value {row}"));
        assert_eq!(plan(&(0..8192).map(rare).collect::<StringArray>()), Plan::Plain);
        assert_eq!(plan(&StringArray::new_null(8192)), Plan::Dictionary);
        assert_eq!(plan(&StringArray::new_null(0)), Plan::Dictionary);
    }
}
