//! Files of rows, and what the commit must know of the rows besides: kept where the rows themselves are gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::checks::Counted;
use crate::catalog::{DeadLetterSample, FileRecord, SAMPLES_MAX};
use crate::commit::{Ledgers, Totals};
use crate::config::Connector;
use crate::stage;
use crate::types::{DeadLetter, MicroBatchId, StagedFile};

const SAMPLE_BYTES_MAX: usize = 4096;

/// A file to be put into the lake.
pub struct Upload {
    pub key: String,
    pub bytes: Bytes,
    pub sha256: [u8; 32],
}

/// Of a micro-batch, or of a part of it.
#[derive(Debug, Clone, Default)]
pub struct RowBooks {
    pub(super) ledgers: Ledgers,
    pub(super) totals: Totals,
    /// For the expectations.
    pub(super) counted: Counted,
    /// That rows were written with, each once.
    pub(super) schemas: Vec<Arc<Connector>>,
    pub(super) letters: Letters,
    /// Overrides that did not help, each with the reason.
    pub(super) failed_overrides: Vec<(i64, String)>,
    pub(super) files: Vec<FileRecord>,
}

/// What the catalog keeps of dead letters.
#[derive(Debug, Clone, Default)]
pub struct Letters {
    /// By connector and reason.
    pub(super) counts: BTreeMap<(String, &'static str), u64>,
    /// The first few of each.
    pub(super) samples: Vec<DeadLetterSample>,
}

impl RowBooks {
    /// Adds those of the rows behind them.
    pub(super) fn append(&mut self, next: Self) {
        self.ledgers.append(&next.ledgers);
        self.totals.objects += next.totals.objects;
        self.totals.rows_in += next.totals.rows_in;
        self.totals.rows_out += next.totals.rows_out;
        self.totals.dead_letters += next.totals.dead_letters;
        for (connector, (tallies, announced_at)) in next.counted {
            let (counted, newest) =
                self.counted.entry(connector).or_insert_with(|| (crate::transform::Tallies::default(), announced_at));
            counted.append(&tallies);
            *newest = announced_at.max(*newest);
        }
        for schema in next.schemas {
            self.schema(schema);
        }
        self.letters.append(next.letters);
        self.failed_overrides.extend(next.failed_overrides);
        self.files.extend(next.files);
    }

    pub(super) fn schema(&mut self, connector: Arc<Connector>) {
        let is_same =
            |known: &Arc<Connector>| known.name == connector.name && known.schema_revision == connector.schema_revision;
        if !self.schemas.iter().any(is_same) {
            self.schemas.push(connector);
        }
    }

    /// Takes note of a file, and gives back what is to be put into the lake.
    pub(super) fn file(&mut self, id: MicroBatchId, file: StagedFile) -> Upload {
        let sha256: [u8; 32] = Sha256::digest(&file.bytes).into();
        let key = stage::pending_key(id, file.file_id);
        self.files.push(FileRecord {
            file_id: file.file_id,
            kind: file.kind.as_str(),
            published_key: stage::published_key(id, &file),
            pending_key: key.clone(),
            connector: file.connector,
            connector_revision: file.connector_revision,
            schema_revision: file.schema_revision,
            table_partition: file.table_partition.0,
            row_count: file.row_count as i64,
            size_bytes: file.bytes.len() as i64,
            sha256: sha256.to_vec(),
            event_time_min: file.event_time_min,
            event_time_max: file.event_time_max,
            dataset: file.dataset,
        });
        Upload { key, bytes: file.bytes, sha256 }
    }
}

impl Letters {
    pub(super) fn push(&mut self, letter: &DeadLetter) {
        let count = self.counts.entry((letter.connector.clone(), letter.reason.as_str())).or_default();
        *count += 1;
        if *count > SAMPLES_MAX as u64 {
            return;
        }
        self.samples.push(DeadLetterSample {
            connector: letter.connector.clone(),
            reason: letter.reason.as_str(),
            detail: letter.detail.replace('\0', "\u{fffd}"),
            message_offset: letter.message_offset,
            record: letter.record,
            row: letter.row,
            bucket: letter.object.as_ref().map(|object| object.bucket.clone()),
            key: letter.object.as_ref().map(|object| object.key.clone()),
            version: letter.object_version.clone(),
            sample: letter.bytes[..letter.bytes.len().min(SAMPLE_BYTES_MAX)].to_vec(),
        });
    }

    fn append(&mut self, next: Self) {
        for sample in next.samples {
            let same = |known: &&DeadLetterSample| known.connector == sample.connector && known.reason == sample.reason;
            if self.samples.iter().filter(same).count() < SAMPLES_MAX {
                self.samples.push(sample);
            }
        }
        for (place, count) in next.counts {
            *self.counts.entry(place).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::RejectReason;

    fn letter(row: i64, reason: RejectReason) -> DeadLetter {
        DeadLetter {
            connector: "orders".to_owned(),
            reason,
            detail: String::new(),
            message_offset: 1,
            record: Some(0),
            row: Some(row),
            byte_offset: None,
            object: None,
            object_version: None,
            bytes: Bytes::from(vec![b'x'; 5000]),
        }
    }

    #[test]
    fn letters_in_parts_leave_the_samples_that_they_leave_together() {
        let reasons = [RejectReason::WrongType, RejectReason::TooDeep];
        let all: Vec<DeadLetter> = (0..60).map(|row| letter(row, reasons[usize::from(row % 7 == 0)])).collect();
        let mut together = Letters::default();
        all.iter().for_each(|letter| together.push(letter));
        for cut in [0, 3, 17, 60] {
            let mut parts = Letters::default();
            for part in [&all[..cut], &all[cut..]] {
                let mut letters = Letters::default();
                part.iter().for_each(|letter| letters.push(letter));
                parts.append(letters);
            }
            assert_eq!(parts.counts, together.counts);
            let rows = |letters: &Letters| letters.samples.iter().map(|sample| sample.row).collect::<Vec<_>>();
            let sorted = |letters: &Letters| {
                let mut rows = rows(letters);
                rows.sort_unstable();
                rows
            };
            assert_eq!(sorted(&parts), sorted(&together), "cut at {cut}");
        }
        assert_eq!(together.counts[&("orders".to_owned(), "too_deep")], 9);
        assert_eq!(together.samples.len(), SAMPLES_MAX + 9);
        assert!(together.samples.iter().all(|sample| sample.sample.len() == SAMPLE_BYTES_MAX));
    }
}
