//! Which row goes to which table partition, in one pass over the rows.

use std::collections::HashMap;

use arrow::array::{Array, AsArray, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::TimestampMillisecondType;
use chrono::{DateTime, Timelike};

use super::StageError;
use super::hive::push_level;
use crate::config::{Connector, PartitionBy};
use crate::types::{Origin, TablePartition};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A record batch with the origin of its rows.
pub(super) struct Source<'a> {
    pub(super) origin: &'a Origin,
    pub(super) batch: &'a RecordBatch,
}

/// Rows of one table partition, in the order of the sources.
pub(super) struct PartitionRows {
    pub(super) path: TablePartition,
    /// Indices of the sources that have rows here, ascending.
    pub(super) sources: Vec<u32>,
    /// Index into `sources`, row within its batch.
    pub(super) rows: Vec<(u32, u32)>,
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

/// Table partitions in the order of their paths.
pub(super) fn scatter(
    connector: &Connector,
    layout: &Layout<'_>,
    sources: &[Source<'_>],
) -> Result<Vec<PartitionRows>, StageError> {
    let mut scattered = Scattered::default();
    for (source, Source { batch, .. }) in sources.iter().enumerate() {
        let times: &TimestampMillisecondArray =
            batch.column(layout.time_column).as_primitive::<TimestampMillisecondType>();
        if times.null_count() > 0 {
            let (connector, column) = (connector.name.clone(), connector.staging.time.clone());
            return Err(StageError::NoEventTime { connector, column });
        }
        let texts = text_columns(connector, layout, batch)?;
        for row in 0..batch.num_rows() {
            let time_ms = times.value(row);
            let partition = scattered.find(layout, time_ms, &texts, row);
            scattered.push(partition, source as u32, row as u32);
        }
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
struct Scattered {
    partitions: Vec<PartitionRows>,
    by_key: HashMap<Vec<u8>, usize>,
    /// Several keys may be one path: null and the empty text.
    by_path: HashMap<TablePartition, usize>,
    /// Key of the row at hand, and of the row before it: neighbours mostly go to the same place.
    key: Vec<u8>,
    last_key: Vec<u8>,
    last: usize,
}

impl Scattered {
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
        self.partitions.push(PartitionRows { path, sources: Vec::new(), rows: Vec::new() });
        partition
    }

    fn push(&mut self, partition: usize, source: u32, row: u32) {
        let partition = &mut self.partitions[partition];
        if partition.sources.last() != Some(&source) {
            partition.sources.push(source);
        }
        partition.rows.push((partition.sources.len() as u32 - 1, row));
    }
}
