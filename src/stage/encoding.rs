//! How the columns of a file are encoded: chosen for each by a sample of its first rows, the same for the same rows.
//!
//! | the column | is written |
//! |---|---|
//! | integers, decimals, times that lie close together, or rarely repeat | as differences (DELTA_BINARY_PACKED), not compressed: they hardly shrink further |
//! | repeats its values | by a dictionary |
//! | the same, of few or short values | likewise, not compressed: neither do the numbers of dictionary entries |
//! | anything else | plain |
//!
//! Texts that are long on average (documents rather than names) have no statistics: nobody asks for a range of them, and
//! comparing each with the least and the greatest so far is not free.
//!
//! Pages are compressed unless it says otherwise. Each dictionary has a hash table of 72 KiB, however few its values are, and
//! each compressed column of each file sets up a compressor (20 µs, as much as encoding 200 values): with hundreds of small
//! files both were a quarter of the CPU time of encoding. Differences cost neither, and no hashing of values.

use ahash::RandomState;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{max, min};
use arrow::datatypes::{
    DataType, Decimal128Type, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMillisecondType,
};
use hashbrown::HashTable;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{EnabledStatistics, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use super::sorted::text_bytes;
use crate::config::{OFFSET_COLUMN, ROW_COLUMN};

/// Values looked at: so many of a small file, one in eight of the first rows of a large one.
const SAMPLE_ROWS_MIN: usize = 64;
const SAMPLE_ROWS_MAX: usize = 1024;
/// A dictionary of so many values is small itself, however long they are, and needs five bits for each row.
const FEW: usize = 32;
/// Statistics are cut to as many bytes by the writer.
pub(super) const LONG_TEXT_BYTES: usize = 64;
/// A dictionary of such texts is hardly larger than the numbers of its entries.
const SHORT_TEXT_BYTES: usize = 16;
/// Differences of such values need no more bits than numbers of dictionary entries do.
const CLOSE: u64 = 1 << 10;
/// Source: Apache Parquet, LogicalTypes.md, DECIMAL (INT64 for a precision of up to 18), read 2026-11.
const INTEGER_DIGITS_MAX: u8 = 18;

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
        if is_long(column) {
            properties = properties.set_column_statistics_enabled(path.clone(), EnabledStatistics::None);
        }
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

/// Of texts.
fn mean_bytes(column: &dyn Array) -> Option<usize> {
    if let Some(views) = column.as_string_view_opt() {
        return views.lengths().map(|bytes| bytes as usize).sum::<usize>().checked_div(views.len());
    }
    column.as_string_opt::<i32>().and_then(|texts| text_bytes(texts).checked_div(texts.len()))
}

fn is_long(column: &dyn Array) -> bool {
    mean_bytes(column).is_some_and(|bytes| bytes > LONG_TEXT_BYTES)
}

fn is_short(column: &dyn Array) -> bool {
    mean_bytes(column).is_some_and(|bytes| bytes <= SHORT_TEXT_BYTES)
}

fn plan(column: &dyn Array) -> Plan {
    let Some(hashes) = sample(column) else { return Plan::Dictionary };
    let looked_at = hashes.len();
    let different = different(&hashes);
    let repeated = looked_at - different;
    if looked_at == 0 {
        return Plan::Dictionary;
    }
    if spread(column).is_some_and(|spread| spread <= CLOSE) {
        return Plan::Delta;
    }
    let dictionary = if is_short(column) { Plan::SmallDictionary } else { Plan::Dictionary };
    if 2 * repeated >= looked_at {
        return if different <= FEW { Plan::SmallDictionary } else { dictionary };
    }
    // Of `d` values, equally frequent, a sample of `n` repeats about `n² / 2d`.
    let distinct = (looked_at * looked_at).checked_div(2 * repeated).unwrap_or(usize::MAX);
    if distinct <= column.len() / 2 {
        return dictionary;
    }
    match column.data_type() {
        DataType::Int32 | DataType::Int64 | DataType::Timestamp(..) => Plan::Delta,
        // written as an integer
        DataType::Decimal128(precision, _) if *precision <= INTEGER_DIGITS_MAX => Plan::Delta,
        _ => Plan::Plain,
    }
}

/// How far the values of integers and times lie apart; `None` for other types, and where all are null.
fn spread(column: &dyn Array) -> Option<u64> {
    let (min, max) = match column.data_type() {
        DataType::Int32 => {
            let values = column.as_primitive::<Int32Type>();
            (i64::from(min(values)?), i64::from(max(values)?))
        }
        DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>();
            (min(values)?, max(values)?)
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            let values = column.as_primitive::<TimestampMillisecondType>();
            (min(values)?, max(values)?)
        }
        _ => return None,
    };
    Some(max.abs_diff(min))
}

/// How many of the hashes are different.
fn different(hashes: &[u64]) -> usize {
    let mut seen: HashTable<u64> = HashTable::with_capacity(hashes.len());
    for hash in hashes {
        seen.entry(*hash, |other| other == hash, |hash| *hash).or_insert(*hash);
    }
    seen.len()
}

/// What tells long texts apart without reading them whole: their length, begin and end.
fn ends(text: &[u8]) -> (usize, &[u8], &[u8]) {
    const END_BYTES: usize = 32;
    let (begin, rest) = text.split_at(text.len().min(END_BYTES));
    (text.len(), begin, &rest[rest.len().saturating_sub(END_BYTES)..])
}

/// Hashes of the first values that are not null; `None` for types that are best left to the writer.
fn sample(column: &dyn Array) -> Option<Vec<u64>> {
    let rows = (column.len() / 8).clamp(SAMPLE_ROWS_MIN, SAMPLE_ROWS_MAX).min(column.len());
    let first = column.slice(0, rows);
    // always the same seeds: a file comes out the same however often it is made
    let state = RandomState::with_seeds(1, 2, 3, 4);
    let number = |number: u64| state.hash_one(number);
    let text = |text: &str| state.hash_one(ends(text.as_bytes()));
    Some(match column.data_type() {
        DataType::Utf8View => first.as_string_view().iter().flatten().map(text).collect(),
        DataType::Utf8 => first.as_string::<i32>().iter().flatten().map(text).collect(),
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

    use arrow::array::{ArrayRef, Decimal128Array, Int64Array, StringArray};

    use super::*;

    fn texts(value: impl Fn(usize) -> usize) -> ArrayRef {
        Arc::new((0..8192).map(|row| Some(format!("value {}", value(row)))).collect::<StringArray>())
    }

    fn integers(value: impl Fn(usize) -> usize) -> ArrayRef {
        Arc::new((0..8192).map(|row| Some(value(row) as i64)).collect::<Int64Array>())
    }

    /// Sebastiano Vigna's splitmix64: numbers that look random.
    fn mixed(number: usize) -> usize {
        let mut bits = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) as usize
    }

    #[test]
    fn what_repeats_has_a_dictionary_and_what_does_not_has_none() {
        for (distinct, expected) in
            [(1, Plan::SmallDictionary), (12, Plan::SmallDictionary), (400, Plan::SmallDictionary), (8192, Plan::Plain)]
        {
            let number = |row| if distinct < 8192 { mixed(row) % distinct } else { row };
            assert_eq!(plan(&texts(number)), expected, "{distinct}");
        }
        let longer = |distinct: usize| -> StringArray {
            (0..8192).map(|row| Some(format!("a value of {:032}", mixed(row) % distinct))).collect()
        };
        assert_eq!(plan(&longer(12)), Plan::SmallDictionary);
        assert_eq!(plan(&longer(400)), Plan::Dictionary);
        assert_eq!(plan(&longer(1500)), Plan::Dictionary);
        assert_eq!(plan(&texts(|row| mixed(row) % 1500)), Plan::SmallDictionary);
        assert_eq!(plan(&integers(|row| row)), Plan::Delta);
        assert_eq!(plan(&integers(|row| row / 1000)), Plan::Delta);
        assert_eq!(plan(&integers(|row| mixed(row) % 12 * 1_000_000)), Plan::SmallDictionary);
        let amounts = Decimal128Array::from_iter_values((0..8192).map(|row| mixed(row) as i128 % 1_000_000_000));
        assert_eq!(plan(&amounts.clone().with_precision_and_scale(18, 2).unwrap()), Plan::Delta);
        assert_eq!(plan(&amounts.with_precision_and_scale(19, 2).unwrap()), Plan::Plain);
    }

    #[test]
    fn long_texts_are_those_that_are_long_on_average() {
        let of = |lengths: &[usize]| lengths.iter().map(|length| Some("x".repeat(*length))).collect::<StringArray>();
        assert!(is_long(&of(&[1, 129])));
        assert!(!is_long(&of(&[1, 127])));
        assert!(is_long(&of(&[1, 1, 129]).slice(1, 2)));
        assert!(!is_long(&of(&[])));
        assert!(!is_long(&integers(|row| row)));
    }

    #[test]
    fn nulls_say_nothing() {
        let rare = |row: usize| row.is_multiple_of(10).then(|| format!("value {row}"));
        assert_eq!(plan(&(0..8192).map(rare).collect::<StringArray>()), Plan::Plain);
        assert_eq!(plan(&StringArray::new_null(8192)), Plan::Dictionary);
        assert_eq!(plan(&StringArray::new_null(0)), Plan::Dictionary);
    }
}
