//! From processed messages to a proposal for the commit: dedupe, the last expectations, Parquet, ledgers, claims.
//!
//! Pure but for the CPU it takes: the same messages give the same proposal, so it is made again
//! whenever the commit finds that another micro-batch holds one of the claims.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use super::carry::Carried;
use super::checks::{Checks, Histories};
use super::context::TransformContext;
use super::evolution::{EvolutionError, EvolvedRows};
use super::overrides::Overrides;
use super::parking::parked_objects;
use super::process::{ProcessedMessage, ProcessedRows, announced_at};
use super::replay::Replaced;
use crate::catalog::{DeadLetterSample, FileRecord, SAMPLES_MAX, SchemaVersion};
use crate::commit::{Ledgers, Proposal, Redrive, Totals};
use crate::config::Connector;
use crate::error::chain;
use crate::stage;
use crate::transform::TransformError;
use crate::types::{
    DeadLetter, Fence, FileKind, MicroBatchId, ObjectClaim, ObjectOutcome, OffsetOutcome, OffsetRange, ParkedObject,
    RejectReason, RowOutcome, StagedFile, TopicPartition,
};

const SAMPLE_BYTES_MAX: usize = 4096;

/// A proposal, and the bytes of the files it names.
pub struct Built {
    pub proposal: Proposal,
    pub uploads: Vec<Upload>,
    /// By connector and reason.
    pub dead_letter_counts: BTreeMap<(String, &'static str), u64>,
    /// Connectors that must be parked, and why: then nothing of this may be committed.
    pub stops: Vec<(String, String)>,
}

pub struct Upload {
    pub key: String,
    pub dataset: String,
    pub bytes: bytes::Bytes,
    pub sha256: [u8; 32],
}

/// The messages of one offset range, in offset order; offsets without a message are absent, or carried over.
pub struct SealedBatch {
    pub topic_partition: TopicPartition,
    pub fence: Fence,
    pub offsets: OffsetRange,
    pub messages: Vec<ProcessedMessage>,
    /// In a replay: the micro-batch that it replaces.
    pub replaced: Option<Arc<Replaced>>,
    /// Messages before it are gone from the log; beyond the offsets but in a replay.
    pub log_first: i64,
    pub carried: Carried,
    /// The requests that it answers, where it is a re-drive.
    pub redrives: Option<Vec<i64>>,
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("could not dedupe or check the rows of connector `{connector}`: {detail}")]
    Dedupe { connector: String, detail: String },
    #[error("could not bring the rows of connector `{connector}` to one schema: {detail}")]
    Arrange { connector: String, detail: String },
    #[error("could not encode the files of connector `{connector}`: {detail}")]
    Encode { connector: String, detail: String },
}

/// What one pass over the messages collects.
#[derive(Default)]
struct Collected {
    ledgers: Ledgers,
    totals: Totals,
    claims: Vec<ObjectClaim>,
    rows: BTreeMap<String, EvolvedRows>,
    dead_letters: Vec<(DeadLetter, DateTime<Utc>)>,
    parked: Vec<ParkedObject>,
    checks: Checks,
    /// That rows were written with.
    schemas: Vec<Arc<Connector>>,
}

/// Builds the proposal of a sealed batch. CPU work: call it on a blocking thread.
pub fn build(context: &TransformContext, sealed: &SealedBatch, histories: &Histories) -> Result<Built, BuildError> {
    let id = MicroBatchId::generate();
    let mut collected = Collected::default();
    // what is carried over is claimed already: the same version announced again is a duplicate
    let mut claimed: HashSet<_> = sealed.carried.claims.iter().map(version_name).collect();
    let overrides = Overrides::of(sealed.replaced.as_deref());
    for message in &sealed.messages {
        collected.parked.extend(parked_objects(message, &overrides));
        collected.message(message, &mut claimed);
    }
    collected.carried(&sealed.carried);
    collected.offsets_without_messages(sealed);
    let mut files = collected.encode_rows(context, &sealed.topic_partition, id, histories)?;
    files.extend(encode_dead_letters(context, sealed, id, &collected.dead_letters)?);
    collected.totals.rows_out = count_rows(&files, FileKind::Data);
    collected.totals.dead_letters = count_rows(&files, FileKind::DeadLetter);
    let redrive = sealed.redrives.clone().map(|requests| Redrive {
        requests,
        failed_overrides: sealed.replaced.as_ref().map_or_else(Vec::new, |replaced| {
            replaced.overrides.failed(collected.dead_letters.iter().map(|(letter, _)| letter))
        }),
    });
    let last = sealed.messages.last().map(|processed| &processed.message);
    let (records, uploads) = files.into_iter().map(|file| file_record(id, file)).unzip();
    let proposal = Proposal {
        id,
        fence: sealed.fence,
        offsets: sealed.offsets,
        ledgers: collected.ledgers,
        totals: collected.totals,
        files: records,
        claims: collected.claims,
        parked: collected.parked,
        schemas: collected.schemas.iter().filter_map(|connector| schema_version(context, connector)).collect(),
        dead_letters: samples(&collected.dead_letters),
        expectations: collected.checks.records(),
        last_message: last.map(|message| (message.offset, message.timestamp_ms, message.sha256())),
        oldest_message_at: sealed.messages.iter().map(ProcessedMessage::announced_at).min(),
        outbox_topic: context.outbox_topic.clone(),
        replaces: sealed.replaced.iter().map(|replaced| replaced.id).collect(),
        version_orders: Vec::new(),
        redrive,
    };
    let mut dead_letter_counts = BTreeMap::new();
    for (letter, _) in &collected.dead_letters {
        *dead_letter_counts.entry((letter.connector.clone(), letter.reason.as_str())).or_insert(0) += 1;
    }
    Ok(Built { proposal, uploads, dead_letter_counts, stops: collected.checks.stops() })
}

/// `None` where it is the declared one.
fn schema_version(context: &TransformContext, connector: &Connector) -> Option<SchemaVersion> {
    let declared = context.connectors.by_name(&connector.name)?.dataset();
    (declared.schema_revision != connector.schema_revision).then(|| SchemaVersion {
        connector: connector.name.clone(),
        declared_revision: declared.schema_revision.clone(),
        schema_revision: connector.schema_revision.clone(),
        fields: connector.fields_to_json(),
    })
}

/// Bucket, key, version.
fn version_name(claim: &ObjectClaim) -> (String, String, String) {
    let location = &claim.version.location;
    (location.bucket.clone(), location.key.clone(), claim.version.version.clone())
}

fn count_rows(files: &[StagedFile], kind: FileKind) -> u64 {
    files.iter().filter(|file| file.kind == kind).map(|file| file.row_count).sum()
}

impl Collected {
    /// Rows count as they stand: how many were dropped on their way is not known any more.
    fn carried(&mut self, carried: &Carried) {
        for claim in &carried.claims {
            let outcome = if claim.quarantined { ObjectOutcome::Quarantined } else { ObjectOutcome::Carried };
            self.totals.objects += 1;
            self.ledgers.object(&claim.connector, outcome);
            self.claims.push(claim.clone());
        }
        for (connector, rows) in &carried.rows {
            self.checks.carried(&rows.origin);
            self.totals.rows_in += rows.batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
            self.rows.entry(connector.name.clone()).or_default().push(connector, rows.clone());
        }
        let claimed: HashSet<(i64, i32)> =
            carried.claims.iter().map(|claim| (claim.message_offset, claim.record)).collect();
        for (letter, time) in &carried.dead_letters {
            // one that the store never handed out has a dead letter and no claim
            let refused = letter
                .record
                .filter(|record| letter.row.is_none() && !claimed.contains(&(letter.message_offset, *record)));
            if refused.is_some() && letter.reason == RejectReason::ObjectRefused {
                self.totals.objects += 1;
                self.ledgers.object(&letter.connector, ObjectOutcome::Quarantined);
            }
            if letter.row.is_some() {
                self.totals.rows_in += 1;
                self.ledgers.rows_in(&letter.connector, RowOutcome::Rejected, 1);
            }
            self.dead_letters.push((letter.clone(), *time));
        }
    }

    fn offsets_without_messages(&mut self, sealed: &SealedBatch) {
        let gone = (sealed.log_first.min(sealed.offsets.next()) - sealed.offsets.first()).max(0).unsigned_abs();
        let rejected: HashSet<i64> = sealed
            .carried
            .dead_letters
            .iter()
            .filter(|(letter, _)| letter.record.is_none())
            .map(|(letter, _)| letter.message_offset)
            .collect();
        if sealed.replaced.is_some() {
            self.ledgers.offset(OffsetOutcome::Rejected, rejected.len() as u64);
            self.ledgers.offset(OffsetOutcome::Carried, gone - rejected.len() as u64);
        } else {
            // a range that was skipped before its messages were deleted
            self.ledgers.offset(OffsetOutcome::Skipped, gone);
        }
        let absent = sealed.offsets.count() - gone - sealed.messages.len() as u64;
        self.ledgers.offset(OffsetOutcome::Absent, absent);
    }

    fn message(&mut self, processed: &ProcessedMessage, claimed: &mut HashSet<(String, String, String)>) {
        let time = announced_at(&processed.message);
        self.ledgers.offset(processed.outcome, 1);
        self.dead_letters.extend(processed.dead_letter.clone().map(|letter| (letter, time)));
        if let Some(rows) = &processed.record {
            self.rows(rows, time);
        }
        for object in &processed.objects {
            let connector = object.connector.as_ref().map_or("", |connector| connector.name.as_str());
            self.totals.objects += 1;
            // the same version announced twice within one micro-batch
            let repeated = object.claim.as_ref().is_some_and(|claim| !claimed.insert(version_name(claim)));
            if repeated {
                self.ledgers.object(connector, ObjectOutcome::Duplicate);
                continue;
            }
            self.ledgers.object(connector, object.outcome);
            self.claims.extend(object.claim.clone());
            self.dead_letters.extend(object.dead_letter.clone().map(|letter| (letter, time)));
            if let Some(rows) = &object.rows {
                self.rows(rows, time);
            }
        }
    }

    fn rows(&mut self, rows: &ProcessedRows, time: DateTime<Utc>) {
        let name = &rows.connector.name;
        self.totals.rows_in += rows.row_count;
        self.ledgers.rows_in(name, RowOutcome::Filtered, rows.filtered);
        self.ledgers.rows_in(name, RowOutcome::Rejected, rows.rejects.len() as u64);
        let origin = &rows.rows.origin;
        let location = rows.object.as_ref().map(|version| &version.location);
        let letters = rows.rejects.iter().map(|reject| DeadLetter {
            object_version: rows.object.as_ref().map(|version| version.version.clone()),
            ..DeadLetter::of_row(name, origin, reject, location.cloned())
        });
        self.dead_letters.extend(letters.map(|letter| (letter, time)));
        self.checks.read(rows, time);
        self.rows.entry(name.clone()).or_default().push(&rows.connector, rows.rows.clone());
    }

    fn encode_rows(
        &mut self,
        context: &TransformContext,
        topic_partition: &TopicPartition,
        id: MicroBatchId,
        histories: &Histories,
    ) -> Result<Vec<StagedFile>, BuildError> {
        let mut files = Vec::new();
        for (name, rows) in std::mem::take(&mut self.rows) {
            let arrange =
                |error: EvolutionError| BuildError::Arrange { connector: name.clone(), detail: chain(&error) };
            let Some((connector, rows)) = rows.united().map_err(arrange)? else { continue };
            self.schemas.push(Arc::clone(&connector));
            let failed = |error: TransformError| BuildError::Dedupe { connector: name.clone(), detail: chain(&error) };
            let plan = context.schemas.plan(&connector).map_err(failed)?;
            let checked = self.checks.check(&plan, rows, histories).map_err(failed)?;
            self.ledgers.rows_in(&name, RowOutcome::Duplicate, checked.duplicates);
            self.ledgers.rows_in(&name, RowOutcome::Filtered, checked.filtered);
            self.ledgers.rows_in(&name, RowOutcome::Rejected, checked.dead_letters.len() as u64);
            self.dead_letters.extend(checked.dead_letters);
            let rows = checked.rows;
            let passed = rows.iter().flat_map(|origin| &origin.batches).map(|batch| batch.num_rows() as u64).sum();
            self.ledgers.rows_in(&name, RowOutcome::Passed, passed);
            self.ledgers.rows_out(&name, &connector.staging.dataset, passed);
            let encoded = stage::encode(&connector, topic_partition, id, &rows)
                .map_err(|error| BuildError::Encode { connector: name.clone(), detail: chain(&error) })?;
            files.extend(encoded);
        }
        Ok(files)
    }
}

fn encode_dead_letters(
    context: &TransformContext,
    sealed: &SealedBatch,
    id: MicroBatchId,
    letters: &[(DeadLetter, DateTime<Utc>)],
) -> Result<Vec<StagedFile>, BuildError> {
    let revision_of = |name: &str| {
        context
            .connectors
            .by_name(name)
            .map_or_else(Default::default, |connector| (connector.revision.clone(), connector.schema_revision.clone()))
    };
    stage::encode_dead_letters(&sealed.topic_partition, id, letters, revision_of)
        .map_err(|error| BuildError::Encode { connector: "dead letters".to_owned(), detail: chain(&error) })
}

fn file_record(id: MicroBatchId, file: StagedFile) -> (FileRecord, Upload) {
    let sha256: [u8; 32] = Sha256::digest(&file.bytes).into();
    let pending_key = stage::pending_key(id, file.file_id);
    let record = FileRecord {
        file_id: file.file_id,
        kind: file.kind.as_str(),
        published_key: stage::published_key(id, &file),
        pending_key: pending_key.clone(),
        connector: file.connector,
        connector_revision: file.connector_revision,
        schema_revision: file.schema_revision,
        table_partition: file.table_partition.0,
        row_count: file.row_count as i64,
        size_bytes: file.bytes.len() as i64,
        sha256: sha256.to_vec(),
        event_time_min: file.event_time_min,
        event_time_max: file.event_time_max,
        dataset: file.dataset.clone(),
    };
    (record, Upload { key: pending_key, dataset: file.dataset, bytes: file.bytes, sha256 })
}

fn samples(letters: &[(DeadLetter, DateTime<Utc>)]) -> Vec<DeadLetterSample> {
    let mut taken: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut samples = Vec::new();
    for (letter, _) in letters {
        let count = taken.entry((&letter.connector, letter.reason.as_str())).or_insert(0);
        *count += 1;
        if *count > SAMPLES_MAX {
            continue;
        }
        samples.push(DeadLetterSample {
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
    samples
}
