//! What became of rows, as loads tell it to their callers and to the metrics.

use std::collections::BTreeMap;

use super::BatchToLoad;
use crate::telemetry::metrics;

/// What became of the rows of one load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadCounts {
    /// By table, without its schema: `fact_events`.
    pub tables: BTreeMap<String, TableCounts>,
    /// Values that had to be mended for PostgreSQL.
    pub repaired_value_count: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableCounts {
    pub inserted: u64,
    pub updated: u64,
    /// The table had the row or a newer one, or another row of the micro-batch won. Inserted, updated
    /// and these are all rows given.
    pub unchanged_or_older: u64,
    /// Members made because a fact named them; no rows were given for them.
    pub inferred: u64,
    /// Rows of replaced micro-batches taken away.
    pub retracted: u64,
    /// Rows of the shadow that took the place of retracted ones.
    pub promoted: u64,
    /// Keys that the fact holds with another event time too.
    pub other_time: u64,
}

impl TableCounts {
    pub(super) fn add(&mut self, other: Self) {
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.unchanged_or_older += other.unchanged_or_older;
        self.inferred += other.inferred;
        self.retracted += other.retracted;
        self.promoted += other.promoted;
        self.other_time += other.other_time;
    }
}

pub(super) fn record(batches: &[BatchToLoad], counts: &LoadCounts) {
    for (table, counts) in &counts.tables {
        let results = [
            ("inserted", counts.inserted),
            ("updated", counts.updated),
            ("unchanged_or_older", counts.unchanged_or_older),
            ("inferred", counts.inferred),
            ("retracted", counts.retracted),
            ("promoted", counts.promoted),
            ("other_time", counts.other_time),
        ];
        for (result, count) in results {
            metrics().rows_loaded.with_label_values(&[table.as_str(), result]).inc_by(count);
        }
    }
    metrics().values_repaired.with_label_values::<&str>(&[]).inc_by(counts.repaired_value_count);
    if counts.repaired_value_count > 0 {
        tracing::warn!(
            component = "load",
            micro_batch = %batches[0].micro_batch_id,
            micro_batch_count = batches.len(),
            value_count = counts.repaired_value_count,
            "values mended for the warehouse; the lake keeps the originals"
        );
    }
}
