//! Which row goes to which table partition, in one pass over the rows.
//!
//! Each record batch is ordered by partition while it lies in the cache, and then cut: what goes to one partition are
//! whole runs of it. Picking a partition's rows out of all batches, one by one, touches every line of memory once for
//! each partition that it has rows of.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray, TimestampMillisecondArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::TimestampMillisecondType;
use arrow::error::ArrowError;
use chrono::{DateTime, Timelike};

use super::StageError;
use super::gather::Source;
use super::hive::push_level;
use crate::config::{Connector, PartitionBy};
use crate::types::{Origin, TablePartition};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Rows of one table partition, in the order of the sources.
pub(super) struct PartitionRows<'a> {
    pub(super) path: TablePartition,
    pub(super) runs: Vec<Run<'a>>,
}

/// Rows of one source that go to one partition. Not yet a record batch of their own, which takes 200 bytes a column: with
/// a thousand partitions runs are short, and those batches would be more than the rows.
pub(super) struct Run<'a> {
    /// As of [`Source`].
    origin: Option<&'a Origin>,
    batch: Arc<RecordBatch>,
    start: usize,
    pub(super) len: usize,
}

impl<'a> Run<'a> {
    /// So many of its rows.
    pub(super) fn rows(&self, start: usize, len: usize) -> Source<'a> {
        Source { origin: self.origin, rows: self.batch.slice(self.start + start, len) }
    }
}

/// A connector's levels with their columns found.
pub(super) struct Layout<'c> {
    type_name: &'c str,
    levels: Vec<Level<'c>>,
    pub(super) time_column: usize,
    /// Rows of the same bucket have the same date and hour.
    bucket_ms: i64,
}

enum Level<'c> {
    Column(&'c str, usize),
    Date,
    Hour,
}

impl<'c> Layout<'c> {
    pub(super) fn new(connector: &'c Connector) -> Result<Self, StageError> {
        let column = |name: &str| {
            connector
                .fields
                .iter()
                .position(|field| field.name == name)
                .ok_or_else(|| StageError::UnknownColumn { connector: connector.name.clone(), column: name.to_owned() })
        };
        let staging = &connector.staging;
        let mut levels = Vec::with_capacity(staging.by.len());
        for by in &staging.by {
            levels.push(match by {
                PartitionBy::Column(name) => Level::Column(name, column(name)?),
                PartitionBy::Date => Level::Date,
                PartitionBy::Hour => Level::Hour,
            });
        }
        let bucket_ms = if staging.by.contains(&PartitionBy::Hour) {
            HOUR_MS
        } else if staging.by.contains(&PartitionBy::Date) {
            DAY_MS
        } else {
            i64::MAX
        };
        Ok(Self { type_name: &staging.type_name, levels, time_column: column(&staging.time)?, bucket_ms })
    }

    fn path(&self, time_ms: i64, texts: &[&StringArray], row: usize) -> TablePartition {
        let mut path = String::new();
        push_level(&mut path, "type", Some(self.type_name));
        let time = DateTime::from_timestamp_millis(time_ms).unwrap_or_default();
        let mut texts = texts.iter();
        for level in &self.levels {
            match level {
                Level::Column(name, _) => {
                    let value = texts.next().filter(|column| column.is_valid(row)).map(|column| column.value(row));
                    push_level(&mut path, name, value);
                }
                Level::Date => push_level(&mut path, "date", Some(&time.format("%Y-%m-%d").to_string())),
                Level::Hour => push_level(&mut path, "hour", Some(&format!("{:02}", time.hour()))),
            }
        }
        TablePartition(path)
    }
}

/// Table partitions in the order of their paths. `sources`: record batches in the order of offset and record.
pub(super) fn scatter<'a>(
    connector: &Connector,
    layout: &Layout<'_>,
    sources: impl Iterator<Item = Result<Source<'a>, ArrowError>>,
) -> Result<Vec<PartitionRows<'a>>, StageError> {
    let arrange_failed = |source| StageError::Arrange { connector: connector.name.clone(), source };
    let mut scattered = Scattered::default();
    for source in sources {
        let Source { origin, rows: batch } = source.map_err(arrange_failed)?;
        let times: &TimestampMillisecondArray =
            batch.column(layout.time_column).as_primitive::<TimestampMillisecondType>();
        if times.null_count() > 0 {
            let (connector, column) = (connector.name.clone(), connector.staging.time.clone());
            return Err(StageError::NoEventTime { connector, column });
        }
        let texts = text_columns(connector, layout, &batch)?;
        scattered.begin();
        for row in 0..batch.num_rows() {
            let partition = scattered.find(layout, times.value(row), &texts, row);
            scattered.count(partition);
        }
        scattered.cut(origin, batch).map_err(arrange_failed)?;
    }
    let mut partitions = scattered.partitions;
    partitions.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(partitions)
}

fn text_columns<'a>(
    connector: &Connector,
    layout: &Layout<'_>,
    batch: &'a RecordBatch,
) -> Result<Vec<&'a StringArray>, StageError> {
    let mut texts = Vec::new();
    for level in &layout.levels {
        if let Level::Column(name, index) = level {
            let text = batch.column(*index).as_string_opt().ok_or_else(|| StageError::UnknownColumn {
                connector: connector.name.clone(),
                column: (*name).to_owned(),
            })?;
            texts.push(text);
        }
    }
    Ok(texts)
}

#[derive(Default)]
struct Scattered<'a> {
    partitions: Vec<PartitionRows<'a>>,
    by_key: HashMap<Vec<u8>, usize, ahash::RandomState>,
    /// Several keys may be one path: null and the empty text.
    by_path: HashMap<TablePartition, usize>,
    /// Key of the row at hand, and of the row before it: neighbours mostly go to the same place.
    key: Vec<u8>,
    last_key: Vec<u8>,
    last: usize,
    /// Of each row of the batch at hand its partition.
    rows: Vec<u32>,
    /// Of each partition how many of them are its own, then where the next of them belongs.
    counts: Vec<u32>,
    /// Partitions that have any, in the order in which they came.
    met: Vec<u32>,
}

impl<'a> Scattered<'a> {
    /// Forgets the batch before.
    fn begin(&mut self) {
        self.rows.clear();
        for partition in self.met.drain(..) {
            self.counts[partition as usize] = 0;
        }
    }

    fn count(&mut self, partition: usize) {
        let count = &mut self.counts[partition];
        if *count == 0 {
            self.met.push(partition as u32);
        }
        *count += 1;
        self.rows.push(partition as u32);
    }

    /// Gives each partition its rows of the batch, in their order.
    fn cut(&mut self, origin: Option<&'a Origin>, batch: RecordBatch) -> Result<(), ArrowError> {
        if let [only] = self.met[..] {
            let len = batch.num_rows();
            self.partitions[only as usize].runs.push(Run { origin, batch: Arc::new(batch), start: 0, len });
            return Ok(());
        }
        let mut start = 0;
        for partition in &self.met {
            let count = &mut self.counts[*partition as usize];
            (*count, start) = (start, start + *count);
        }
        let mut order = vec![0; self.rows.len()];
        for (row, partition) in self.rows.iter().zip(0_u32..).map(|(partition, row)| (row, *partition)) {
            let next = &mut self.counts[partition as usize];
            order[*next as usize] = row;
            *next += 1;
        }
        let ordered = Arc::new(take_record_batch(&batch, &UInt32Array::from(order))?);
        let mut start = 0;
        for partition in &self.met {
            let end = self.counts[*partition as usize] as usize;
            let run = Run { origin, batch: Arc::clone(&ordered), start, len: end - start };
            self.partitions[*partition as usize].runs.push(run);
            start = end;
        }
        Ok(())
    }

    fn find(&mut self, layout: &Layout<'_>, time_ms: i64, texts: &[&StringArray], row: usize) -> usize {
        self.key.clear();
        self.key.extend_from_slice(&time_ms.div_euclid(layout.bucket_ms).to_le_bytes());
        for text in texts {
            // Lengths keep ("a", "bc") apart from ("ab", "c"); null has one that no text has.
            let value = text.is_valid(row).then(|| text.value(row));
            let length = value.map_or(u32::MAX, |value| value.len() as u32);
            self.key.extend_from_slice(&length.to_le_bytes());
            self.key.extend_from_slice(value.unwrap_or_default().as_bytes());
        }
        if self.key == self.last_key && !self.partitions.is_empty() {
            return self.last;
        }
        let partition = if let Some(partition) = self.by_key.get(&self.key) {
            *partition
        } else {
            let partition = self.partition(layout.path(time_ms, texts, row));
            self.by_key.insert(self.key.clone(), partition);
            partition
        };
        self.last_key.clone_from(&self.key);
        self.last = partition;
        partition
    }

    fn partition(&mut self, path: TablePartition) -> usize {
        if let Some(partition) = self.by_path.get(&path) {
            return *partition;
        }
        let partition = self.partitions.len();
        self.by_path.insert(path.clone(), partition);
        self.partitions.push(PartitionRows { path, runs: Vec::new() });
        self.counts.push(0);
        partition
    }
}
