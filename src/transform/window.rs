//! Which keys have passed: a row that repeats one within a window of event time goes no further.
//!
//! # Contract
//! A [`Window`] is a function of the set of rows that have passed, whatever the order and the steps in which it learnt of
//! them: kept up to date micro-batch by micro-batch it equals one that is rebuilt from the lake. It reaches back from the
//! greatest event time that has passed by the window's length, or less where that were more rows than it may hold; what is
//! older is forgotten, and that limit only ever rises. Both ends of what is counted lie on one grid (1/1024 of the window), by which
//! the window may be shorter: so the limit follows from the set of rows alone. A row is a duplicate where a row that it remembers has the same key
//! and is not older: by `newer_by` of the warehouse; without one every repetition is a duplicate (the time of an object says
//! when it was sent again, and not that its rows are newer). No value in `newer_by` is older than any.
//!
//! Keys are remembered by the first 128 bits of SHA-256 of their values: among ten million of them, that any two are taken
//! for one has odds of one in 10^24. A row with a null in the key equals no other, but its time
//! counts; so it is with rows of files that lack a column of the key or have it of another type.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Decimal128Type, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMillisecondType,
};
use arrow::error::ArrowError;
use sha2::{Digest, Sha256};

use super::TransformError;
use super::dedupe::take_those_that_stay;
use crate::config::{Connector, DedupeWindow};
use crate::types::{Origin, OriginRows};

/// Rows are counted by so many parts of a window, so that it can be cut shorter.
const BUCKETS: i64 = 1024;
/// Fewer keys are not looked through for those that are forgotten.
const ENTRIES_MIN: usize = 1024;

/// What is remembered of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// `None`: it equals no other row.
    key: Option<u128>,
    time_ms: i64,
    /// `i64::MIN`: it says nothing.
    newer_by: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    time_ms: i64,
    newer_by: i64,
}

impl Entry {
    /// Whatever is a duplicate of the other, now or later, is one of this.
    fn covers(self, other: Self) -> bool {
        self.time_ms >= other.time_ms && self.newer_by >= other.newer_by
    }
}

/// Of one key: one entry but where an older event time has the newer version.
#[derive(Debug, Clone)]
struct Entries {
    first: Entry,
    more: Option<Box<Vec<Entry>>>,
}

impl Entries {
    fn iter(&self) -> impl Iterator<Item = Entry> {
        std::iter::once(self.first).chain(self.more.iter().flat_map(|more| more.iter().copied()))
    }

    fn add(&mut self, entry: Entry) {
        if self.iter().any(|known| known.covers(entry)) {
            return;
        }
        let mut left = self.iter().filter(|known| !entry.covers(*known)).collect::<Vec<_>>();
        self.first = entry;
        self.more = (!left.is_empty()).then(|| {
            left.shrink_to_fit();
            Box::new(left)
        });
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Window {
    window_ms: i64,
    rows_max: u64,
    bucket_ms: i64,
    entries: HashMap<u128, Entries>,
    /// Rows that have passed, by their event time in buckets.
    rows: BTreeMap<i64, u64>,
    /// The greatest event time that has passed.
    latest_ms: Option<i64>,
    /// What is older is forgotten.
    floor_ms: i64,
    /// So many entries were left when they were last looked through.
    kept: usize,
}

impl Window {
    pub fn new(window: &DedupeWindow) -> Self {
        Self {
            window_ms: window.window_ms,
            rows_max: window.rows_max,
            bucket_ms: (window.window_ms / BUCKETS).max(1),
            entries: HashMap::new(),
            rows: BTreeMap::new(),
            latest_ms: None,
            floor_ms: i64::MIN,
            kept: 0,
        }
    }

    /// Rows that have passed.
    pub fn extend(&mut self, rows: impl IntoIterator<Item = Seen>) {
        for Seen { key, time_ms, newer_by } in rows {
            self.latest_ms = self.latest_ms.max(Some(time_ms));
            let Some(key) = key.filter(|_| time_ms >= self.floor_ms) else { continue };
            *self.rows.entry(time_ms.div_euclid(self.bucket_ms)).or_default() += 1;
            let entry = Entry { time_ms, newer_by };
            self.entries
                .entry(key)
                .and_modify(|entries| entries.add(entry))
                .or_insert(Entries { first: entry, more: None });
            // a rebuild brings a whole window at once
            if self.is_to_be_pruned() {
                self.forget();
            }
        }
        self.forget();
    }

    /// Keys that it remembers.
    pub fn key_count(&self) -> usize {
        self.entries.len()
    }

    fn holds(&self, row: &Seen) -> bool {
        let is_held = |entry: Entry| entry.time_ms >= self.floor_ms && entry.newer_by >= row.newer_by;
        let entries = row.key.and_then(|key| self.entries.get(&key));
        entries.is_some_and(|entries| entries.iter().any(is_held))
    }

    fn is_to_be_pruned(&self) -> bool {
        self.entries.len() > self.kept + self.kept / 4 + ENTRIES_MIN
    }

    fn forget(&mut self) {
        let Some(latest_ms) = self.latest_ms else { return };
        let begin_ms = latest_ms.saturating_sub(self.window_ms);
        // the bucket in which the window begins is not known whole
        let by_time = begin_ms.div_euclid(self.bucket_ms) + i64::from(begin_ms.rem_euclid(self.bucket_ms) > 0);
        let (mut count, mut first) = (0, by_time);
        for (bucket, rows) in self.rows.iter().rev().take_while(|(bucket, _)| **bucket >= by_time) {
            count += rows;
            if count > self.rows_max {
                first = bucket + 1;
                break;
            }
        }
        let floor_ms = self.floor_ms.max(first.saturating_mul(self.bucket_ms));
        self.floor_ms = floor_ms;
        self.rows = self.rows.split_off(&floor_ms.div_euclid(self.bucket_ms));
        if self.is_to_be_pruned() {
            self.entries.retain(|_, entries| entries.iter().any(|entry| entry.time_ms >= floor_ms));
            self.kept = self.entries.len();
            self.entries.shrink_to(self.kept + self.kept / 4 + ENTRIES_MIN);
        }
    }
}

/// Leaves out rows that the window holds; gives the others back, and how many went. Rows of origins that are `carried` over
/// stand as they stood: nothing could make them again.
pub fn drop_seen(
    connector: &Connector,
    window: &Window,
    mut rows: Vec<OriginRows>,
    carried: impl Fn(&Origin) -> bool,
) -> Result<(Vec<OriginRows>, u64), TransformError> {
    let failed = |source| TransformError::Dedupe { connector: connector.name.clone(), source };
    let mut dropped = 0;
    let mut stays = Vec::new();
    for origin in &rows {
        let all_stay = carried(&origin.origin);
        for batch in &origin.batches {
            let seen = seen_in(connector, batch).map_err(failed)?;
            let batch_stays: Vec<bool> =
                seen.iter().map(|row| all_stay || !row.is_some_and(|row| window.holds(&row))).collect();
            dropped += batch_stays.iter().filter(|stays| !**stays).count() as u64;
            stays.push(batch_stays);
        }
    }
    if dropped > 0 {
        take_those_that_stay(&mut rows, &stays).map_err(failed)?;
    }
    Ok((rows, dropped))
}

/// What is to be remembered of rows that have passed; nothing where the connector has no window.
pub fn seen<'a>(
    connector: &Connector,
    batches: impl Iterator<Item = &'a RecordBatch>,
) -> Result<Vec<Seen>, TransformError> {
    if connector.dedupe_window().is_none() {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for batch in batches {
        let seen = seen_in(connector, batch)
            .map_err(|source| TransformError::Dedupe { connector: connector.name.clone(), source })?;
        all.extend(seen.into_iter().flatten());
    }
    Ok(all)
}

/// Of each row; `None` where it has no event time.
fn seen_in(connector: &Connector, batch: &RecordBatch) -> Result<Vec<Option<Seen>>, ArrowError> {
    let times_of = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<TimestampMillisecondType>();
    let Some(times) = times_of(&connector.staging.time) else { return Ok(vec![None; batch.num_rows()]) };
    let key = connector.dedupe_window().map_or(&[][..], |window| &window.columns);
    let columns: Option<Vec<&ArrayRef>> = key.iter().map(|name| batch.column_by_name(name)).collect();
    let columns = columns.filter(|columns| columns.iter().all(|column| is_hashed(column.data_type())));
    let nulls = columns.iter().flatten().fold(None, |nulls, column| NullBuffer::union(nulls.as_ref(), column.nulls()));
    let newer_by = connector.warehouse.as_ref().and_then(|warehouse| times_of(warehouse.newer_by.as_deref()?));
    (0..batch.num_rows())
        .map(|row| {
            if times.is_null(row) {
                return Ok(None);
            }
            let columns = columns.as_ref().filter(|_| !nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)));
            let key = columns.map(|columns| hash(columns, row)).transpose()?;
            let newer_by = newer_by.filter(|values| values.is_valid(row)).map_or(i64::MIN, |values| values.value(row));
            Ok(Some(Seen { key, time_ms: times.value(row), newer_by }))
        })
        .collect()
}

fn is_hashed(data_type: &DataType) -> bool {
    use DataType::{Boolean, Decimal128, Float64, Int32, Int64, Timestamp, Utf8};
    matches!(data_type, Utf8 | Boolean | Int32 | Int64 | Float64 | Decimal128(..) | Timestamp(TimeUnit::Millisecond, _))
}

/// Whole numbers of any width are alike; each value says where it ends.
fn hash(columns: &[&ArrayRef], row: usize) -> Result<u128, ArrowError> {
    let mut hasher = Sha256::new();
    for column in columns {
        match column.data_type() {
            DataType::Utf8 => {
                let text = column.as_string::<i32>().value(row);
                hasher.update((text.len() as u64).to_le_bytes());
                hasher.update(text);
            }
            DataType::Boolean => hasher.update([u8::from(column.as_boolean().value(row))]),
            DataType::Int32 => hasher.update(i64::from(column.as_primitive::<Int32Type>().value(row)).to_le_bytes()),
            DataType::Int64 => hasher.update(column.as_primitive::<Int64Type>().value(row).to_le_bytes()),
            DataType::Float64 => hasher.update(column.as_primitive::<Float64Type>().value(row).to_le_bytes()),
            DataType::Decimal128(..) => hasher.update(column.as_primitive::<Decimal128Type>().value(row).to_le_bytes()),
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                hasher.update(column.as_primitive::<TimestampMillisecondType>().value(row).to_le_bytes());
            }
            other => return Err(ArrowError::NotYetImplemented(format!("{other} in a key"))),
        }
    }
    let digest = hasher.finalize();
    let half: [u8; 16] = digest[..16].try_into().expect("a digest of 32 bytes has 16");
    Ok(u128::from_le_bytes(half))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(key: u128, time_ms: i64, newer_by: i64) -> Seen {
        Seen { key: Some(key), time_ms, newer_by }
    }

    fn settings(window_ms: i64, rows_max: u64) -> DedupeWindow {
        DedupeWindow { columns: vec!["id".to_owned()], window_ms, rows_max }
    }

    /// By the definition, from all rows that have passed.
    fn is_held(passed: &[Seen], window_ms: i64, row: &Seen) -> bool {
        let Some(latest) = passed.iter().map(|row| row.time_ms).max() else { return false };
        let bucket_ms = (window_ms / BUCKETS).max(1);
        let begin_ms = (latest - window_ms + bucket_ms - 1).div_euclid(bucket_ms) * bucket_ms;
        let alike = |known: &&Seen| known.key.is_some() && known.key == row.key && known.time_ms >= begin_ms;
        passed.iter().filter(alike).any(|known| known.newer_by >= row.newer_by)
    }

    /// With a window that they fit into twice or so, of buckets of 1, 2 and many milliseconds; some have no key.
    fn rows() -> impl Strategy<Value = (Vec<Seen>, i64)> {
        let window_ms = prop_oneof![1_i64..40, 2048_i64..4000, 50_000_i64..100_000];
        window_ms.prop_flat_map(|window_ms| {
            let row = (prop::option::weighted(0.9, 0_u128..6), 0..window_ms * 2, 0_i64..4)
                .prop_map(|(key, time_ms, newer_by)| Seen { key, time_ms, newer_by });
            (prop::collection::vec(row, 0..80), Just(window_ms))
        })
    }

    proptest! {
        #[test]
        fn what_is_held_follows_from_what_has_passed((rows, window_ms) in rows(), cut in 1_usize..9) {
            let (mut window, mut passed) = (Window::new(&settings(window_ms, 1000)), Vec::new());
            for batch in rows.chunks(cut) {
                let stays: Vec<Seen> = batch.iter().filter(|row| !window.holds(row)).copied().collect();
                let expected: Vec<Seen> =
                    batch.iter().filter(|row| !is_held(&passed, window_ms, row)).copied().collect();
                prop_assert_eq!(&stays, &expected);
                window.extend(stays.iter().copied());
                passed.extend(stays);
            }
        }

        #[test]
        fn one_that_is_rebuilt_holds_the_same((rows, window_ms) in rows(), cut in 1_usize..9, rows_max in 1_u64..50) {
            let (mut window, mut passed) = (Window::new(&settings(window_ms, rows_max)), Vec::new());
            for batch in rows.chunks(cut) {
                let latest = passed.iter().map(|row: &Seen| row.time_ms).max().unwrap_or(0);
                let mut rebuilt = Window::new(&settings(window_ms, rows_max));
                // as the lake gives them back: in another order, without what is too old
                rebuilt.extend(passed.iter().rev().filter(|row| row.time_ms >= latest - window_ms).copied());
                for key in 0..6 {
                    for newer_by in 0..5 {
                        let asked = row(key, 0, newer_by);
                        prop_assert_eq!(window.holds(&asked), rebuilt.holds(&asked));
                    }
                }
                let stays: Vec<Seen> = batch.iter().filter(|row| !window.holds(row)).copied().collect();
                window.extend(stays.iter().copied());
                passed.extend(stays);
            }
        }
    }

    #[test]
    fn no_more_rows_are_remembered_than_it_may_hold() {
        let mut window = Window::new(&settings(10_240_000, 100));
        window.extend((0..100_000).map(|n| row(n, n as i64 * 100, i64::MIN)));
        let held = (0..100_000).filter(|n| window.holds(&row(*n, 0, i64::MIN))).count();
        assert_eq!(held, 100, "buckets of 100 rows");
        assert!(window.holds(&row(99_999, 0, i64::MIN)));
        assert!(window.key_count() <= 2 * 100 + 2 * ENTRIES_MIN);
    }
}
