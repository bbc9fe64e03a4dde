//! Seeded files on local disk, and exactly what must become of them: for measuring.
//!
//! # Contract
//! The same plan makes the same bytes, on any number of threads: every file has a seed of its own. The same
//! seed makes the same rows in every format and compression, and without its dirty rows the same good ones in
//! the same files. `expected.json` is written last; where it stands, the files beside it are complete.
//!
//! Duplicates are of rows of the same file, exact or newer by `updated_at`; the newest of a key stays. In CSV
//! and Parquet dirt is what the format can hold of it: a row that is cut short, a null in a required column.

mod encode;
mod expected;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};

use crate::formats::FileFormat;
use crate::generate::{BulkGenerator, Compression, Dataset, Mix};

pub use expected::{Expected, Totals};

use encode::Encoder;
use expected::Tally;

/// Midnight that follows the last row: 2026-03-02T00:00:00Z.
const BASE_TIME_MS: i64 = 1_772_409_600_000;

#[derive(Debug, Clone)]
pub struct BulkPlan {
    pub dataset: Dataset,
    pub format: FileFormat,
    pub compression: Compression,
    pub seed: u64,
    /// As JSON lines and before compression, dirty rows counted, whatever is written.
    pub size_bytes: u64,
    pub object_bytes: u64,
    /// Mean length of a JSON line with its newline.
    pub row_bytes: usize,
    pub dirty_share: f64,
    pub duplicate_share: f64,
    pub hours: u32,
    /// Leaves dirty rows out, for engines that cannot keep them.
    pub is_clean: bool,
}

/// Writes the files and `expected.json` into a folder that is empty or holds an earlier attempt at the same.
pub fn generate_files(plan: &BulkPlan, folder: &Path) -> Result<Expected> {
    ensure!(
        plan.dataset == Dataset::Transactions,
        "files of a given size hold transactions: they have amounts to add up"
    );
    ensure!(plan.size_bytes > 0 && plan.object_bytes > 0, "bytes and object bytes must be at least 1");
    ensure!(plan.row_bytes >= 448, "rows of transactions have 448 bytes or more");
    encode::supported(plan.format, plan.compression)?;
    fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
    let count = usize::try_from(plan.size_bytes.div_ceil(plan.object_bytes)).context("too many files")?;
    let (next, tallies) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(count)));
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(count);
        let work = || -> Result<()> {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return Ok(());
                }
                let tally = write_file(plan, folder, index)?;
                tallies.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(tally);
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker returns its errors"))
    })?;
    let tallies = tallies.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let expected = Expected::new(plan, tallies);
    let path = folder.join("expected.json");
    let unfinished = folder.join(".expected.unfinished");
    fs::write(&unfinished, serde_json::to_vec_pretty(&expected)?)
        .and_then(|()| fs::rename(&unfinished, &path))
        .with_context(|| format!("could not write {}", path.display()))?;
    Ok(expected)
}

fn path(plan: &BulkPlan, folder: &Path, index: usize) -> PathBuf {
    let extension = plan.format.extension();
    let suffix = if plan.format == FileFormat::Parquet { "" } else { plan.compression.suffix() };
    folder.join(format!("{}-{index:05}.{extension}{suffix}", plan.dataset))
}

fn write_file(plan: &BulkPlan, folder: &Path, index: usize) -> Result<Tally> {
    let mix = Mix {
        dirty_share: plan.dirty_share,
        duplicate_share: plan.duplicate_share,
        late_share: 0.0,
        // the last millisecond of the day, so that the rows lie in just as many hours as asked for
        base_time_ms: BASE_TIME_MS - 1,
        hours: plan.hours,
    };
    let seed = plan.seed.wrapping_mul(1_000_003).wrapping_add(index as u64);
    let mut generator = BulkGenerator::new(seed, mix, plan.row_bytes);
    let path = path(plan, folder, index);
    let failed = || format!("could not write {}", path.display());
    let mut encoder = Encoder::create(&path, plan.format, plan.compression).with_context(failed)?;
    let mut left = plan.object_bytes.min(plan.size_bytes - plan.object_bytes * index as u64);
    let mut tally = Tally::default();
    while left > 0 {
        let row = generator.row();
        let line = row.line();
        left = left.saturating_sub(line.len() as u64 + 1);
        if plan.is_clean && row.dirt.is_some() {
            continue;
        }
        encoder.write(&row, &line).with_context(failed)?;
        tally.add(&row);
    }
    tally.unpacked_bytes = encoder.finish().with_context(failed)?;
    tally.stored_bytes = fs::metadata(&path).with_context(failed)?.len();
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> BulkPlan {
        BulkPlan {
            dataset: Dataset::Transactions,
            format: FileFormat::Json,
            compression: Compression::None,
            seed: 5,
            size_bytes: 700_000,
            object_bytes: 300_000,
            row_bytes: 513,
            dirty_share: 0.05,
            duplicate_share: 0.05,
            hours: 24,
            is_clean: false,
        }
    }

    fn generated(plan: &BulkPlan) -> (Expected, Vec<Vec<u8>>) {
        let folder = std::env::temp_dir().join(format!("sluice-bulk-{}", uuid::Uuid::new_v4()));
        let expected = generate_files(plan, &folder).expect("the folder is ours");
        let files = (0..expected.files).map(|index| fs::read(path(plan, &folder, index)).expect("it was written"));
        let files = files.collect();
        fs::remove_dir_all(&folder).expect("the folder is ours");
        (expected, files)
    }

    /// What a reader of the files finds by itself: rejects, duplicates, and cents of the rows that stay.
    fn found(files: &[Vec<u8>]) -> (u64, u64, i64) {
        let (mut rows, mut good, mut stay, mut cents) = (0, 0, 0, 0);
        for file in files {
            let mut newest = std::collections::HashMap::new();
            for line in file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                rows += 1;
                let Ok(value) = serde_json::from_slice::<serde_json::Value>(line) else { continue };
                let time =
                    value["occurred_at"].as_str().and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok());
                let (Some(id), Some(time), Some(amount)) =
                    (value["transaction_id"].as_str(), time, value["amount"].as_f64())
                else {
                    continue;
                };
                if amount <= 0.0 || value["user_id"].is_null() || !value["quantity"].is_i64() {
                    continue;
                }
                good += 1;
                let updated = value["updated_at"].as_str().expect("good rows have it").to_owned();
                let entry = newest.entry((id.to_owned(), time)).or_insert((updated.clone(), 0));
                if updated >= entry.0 {
                    *entry = (updated, (amount * 100.0).round() as i64);
                }
            }
            cents += newest.values().map(|(_, amount)| amount).sum::<i64>();
            stay += newest.len() as u64;
        }
        (rows - good, good - stay, cents)
    }

    #[test]
    fn a_reader_of_the_files_finds_what_is_expected() {
        let (expected, files) = generated(&plan());
        assert_eq!(files.len(), 3);
        let (rejected, duplicates, cents) = found(&files);
        assert!(rejected > 30 && duplicates > 30, "{rejected} {duplicates}");
        assert_eq!((expected.rejected, expected.duplicates), (rejected, duplicates));
        assert_eq!(expected.deduped.amount_sum, crate::canonical::cents(cents));
        assert_eq!(expected.rows, expected.rejected + expected.duplicates + expected.deduped.rows);
        assert_eq!(expected.bytes, files.iter().map(|file| file.len() as u64).sum::<u64>());
    }

    #[test]
    fn the_same_plan_makes_the_same_bytes() {
        assert_eq!(generated(&plan()), generated(&plan()));
        assert_ne!(generated(&plan()).1, generated(&BulkPlan { seed: 6, ..plan() }).1);
    }

    #[test]
    fn without_dirty_rows_the_good_ones_are_the_same() {
        let (dirty, _) = generated(&plan());
        let (clean, files) = generated(&BulkPlan { is_clean: true, ..plan() });
        assert_eq!((clean.rejected, clean.duplicates), (0, dirty.duplicates));
        assert_eq!(clean.deduped, dirty.deduped);
        assert_eq!(found(&files).0, 0);
    }

    #[test]
    fn every_format_and_compression_holds_the_same_rows() {
        let (json, _) = generated(&plan());
        for format in [FileFormat::Json, FileFormat::Csv, FileFormat::Parquet] {
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                if encode::supported(format, compression).is_err() {
                    continue;
                }
                let (expected, _) = generated(&BulkPlan { format, compression, ..plan() });
                assert_eq!((expected.rows, &expected.deduped), (json.rows, &json.deduped));
                assert!(compression == Compression::None || expected.bytes < expected.unpacked_bytes);
            }
        }
    }
}
