//! From processed messages to a proposal for the commit: dedupe, the last expectations, Parquet, ledgers, claims.
//!
//! Pure but for the CPU it takes: the same messages give the same proposal, so it is made again
//! whenever the commit finds that another micro-batch holds one of the claims. Of an object that was staged in chunks only
//! the books are left, which are added to those of the other rows.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::carry::Carried;
use super::checks::{Checks, Histories};
use super::context::TransformContext;
use super::evolution::{EvolutionError, EvolvedRows};
use super::overrides::Overrides;
use super::parking::parked_objects;
use super::process::{ProcessedMessage, ProcessedRows, announced_at};
use super::replay::Replaced;
use super::row_books::{RowBooks, Upload};
use super::staged::StagedRows;
use crate::catalog::{FileRecord, SchemaVersion};
use crate::commit::{Proposal, Redrive};
use crate::config::Connector;
use crate::error::chain;
use crate::stage;
use crate::transform::{Seen, TransformError, Window};
use crate::types::{
    DeadLetter, Fence, FileKind, MicroBatchId, ObjectClaim, ObjectOutcome, OffsetOutcome, OffsetRange, OriginRows,
    ParkedObject, RejectReason, RowOutcome, StagedFile, TopicPartition,
};

/// A proposal, and the bytes of the files it names.
pub struct Built {
    pub proposal: Proposal,
    pub uploads: Vec<Upload>,
    /// By connector and reason.
    pub dead_letter_counts: BTreeMap<(String, &'static str), u64>,
    /// Connectors that must be parked, and why: then nothing of this may be committed.
    pub stops: Vec<(String, String)>,
    /// By connector: keys of rows that pass, where it dedupes within a window.
    pub seen: BTreeMap<String, Vec<Seen>>,
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

impl SealedBatch {
    /// The one under which rows are staged already, if any are.
    fn id(&self) -> MicroBatchId {
        let mut staged = self.messages.iter().flat_map(ProcessedMessage::staged).chain(&self.carried.staged);
        staged.next().map_or_else(MicroBatchId::generate, |staged| staged.id)
    }

    /// Rows whose files lie in `_pending/` already.
    pub(super) fn staged_mut(&mut self) -> impl Iterator<Item = &mut StagedRows> {
        let objects = self.messages.iter_mut().flat_map(|message| &mut message.objects);
        objects.filter_map(|object| object.staged.as_mut()).chain(&mut self.carried.staged)
    }
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
    books: RowBooks,
    claims: Vec<ObjectClaim>,
    rows: BTreeMap<String, EvolvedRows>,
    dead_letters: Vec<(DeadLetter, DateTime<Utc>)>,
    parked: Vec<ParkedObject>,
    checks: Checks,
    seen: BTreeMap<String, Vec<Seen>>,
}

/// Builds the proposal of a sealed batch. CPU work: call it on a blocking thread.
pub fn build(
    context: &TransformContext,
    sealed: &SealedBatch,
    histories: &Histories,
    windows: &BTreeMap<String, Window>,
) -> Result<Built, BuildError> {
    let id = sealed.id();
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
    let uploads = collected.encode(context, &sealed.topic_partition, id, &overrides, windows)?;
    collected.checks.conclude(|name| context.schemas.current(name).connector, histories);
    let Collected { books, claims, parked, checks, seen, .. } = collected;
    let failed_overrides = books.failed_overrides;
    let redrive = sealed.redrives.clone().map(|requests| Redrive { requests, failed_overrides });
    let last = sealed.messages.last().map(|processed| &processed.message);
    let proposal = Proposal {
        id,
        fence: sealed.fence,
        offsets: sealed.offsets,
        ledgers: books.ledgers,
        totals: books.totals,
        needs_load: books.files.iter().any(|file| is_for_warehouse(context, file)),
        files: books.files,
        claims,
        parked,
        schemas: books.schemas.iter().filter_map(|connector| schema_version(context, connector)).collect(),
        dead_letters: books.letters.samples,
        expectations: checks.records(),
        last_message: last.map(|message| (message.offset, message.timestamp_ms, message.sha256())),
        oldest_message_at: sealed.messages.iter().map(ProcessedMessage::announced_at).min(),
        outbox_topic: context.outbox_topic.clone(),
        replaces: sealed.replaced.iter().map(|replaced| replaced.id).collect(),
        version_orders: Vec::new(),
        redrive,
    };
    Ok(Built { proposal, uploads, dead_letter_counts: books.letters.counts, stops: checks.stops(), seen })
}

/// The same for a part of an object, without the conclusions: its files, and what the commit must know of its rows.
/// `announced_at`: as the message says.
pub(super) fn build_part(
    context: &TransformContext,
    topic_partition: &TopicPartition,
    id: MicroBatchId,
    rows: ProcessedRows,
    announced_at: DateTime<Utc>,
    overrides: &Overrides,
    windows: &mut BTreeMap<String, Window>,
) -> Result<(RowBooks, Vec<Upload>), BuildError> {
    let mut collected = Collected::default();
    collected.rows(&rows, announced_at);
    // what is encoded is let go on the way
    drop(rows);
    let uploads = collected.encode(context, topic_partition, id, overrides, windows)?;
    for (name, seen) in std::mem::take(&mut collected.seen) {
        if let Some(window) = windows.get_mut(&name) {
            window.extend(seen);
        }
    }
    Ok((RowBooks { counted: collected.checks.counted(), ..collected.books }, uploads))
}

/// The same for rows that are carried over.
pub(super) fn build_carried(
    context: &TransformContext,
    topic_partition: &TopicPartition,
    id: MicroBatchId,
    rows: Vec<(Arc<Connector>, OriginRows)>,
) -> Result<(RowBooks, Vec<Upload>), BuildError> {
    let mut collected = Collected::default();
    collected.carried(&Carried { rows, ..Carried::default() });
    let uploads = collected.encode(context, topic_partition, id, &Overrides::default(), &BTreeMap::new())?;
    Ok((collected.books, uploads))
}

/// The loader passes over what no warehouse wants: it must not be waited for either.
fn is_for_warehouse(context: &TransformContext, file: &FileRecord) -> bool {
    let connector = context.connectors.by_name(&file.connector);
    file.kind == FileKind::Data.as_str() && connector.is_some_and(|connector| connector.warehouse.is_some())
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
            self.books.totals.objects += 1;
            self.books.ledgers.object(&claim.connector, outcome);
            self.claims.push(claim.clone());
        }
        for (connector, rows) in &carried.rows {
            self.checks.carried(&rows.origin);
            self.books.totals.rows_in += rows.batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
            self.rows.entry(connector.name.clone()).or_default().push(connector, rows.clone());
        }
        if let Some(staged) = &carried.staged {
            self.books.append(staged.books.clone());
        }
        let claimed: HashSet<(i64, i32)> =
            carried.claims.iter().map(|claim| (claim.message_offset, claim.record)).collect();
        for (letter, time) in &carried.dead_letters {
            // one that the store never handed out has a dead letter and no claim
            let refused = letter
                .record
                .filter(|record| letter.row.is_none() && !claimed.contains(&(letter.message_offset, *record)));
            if refused.is_some() && letter.reason == RejectReason::ObjectRefused {
                self.books.totals.objects += 1;
                self.books.ledgers.object(&letter.connector, ObjectOutcome::Quarantined);
            }
            if letter.row.is_some() {
                self.books.totals.rows_in += 1;
                self.books.ledgers.rows_in(&letter.connector, RowOutcome::Rejected, 1);
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
            self.books.ledgers.offset(OffsetOutcome::Rejected, rejected.len() as u64);
            self.books.ledgers.offset(OffsetOutcome::Carried, gone - rejected.len() as u64);
        } else {
            // a range that was skipped before its messages were deleted
            self.books.ledgers.offset(OffsetOutcome::Skipped, gone);
        }
        let absent = sealed.offsets.count() - gone - sealed.messages.len() as u64;
        self.books.ledgers.offset(OffsetOutcome::Absent, absent);
    }

    fn message(&mut self, processed: &ProcessedMessage, claimed: &mut HashSet<(String, String, String)>) {
        let time = announced_at(&processed.message);
        self.books.ledgers.offset(processed.outcome, 1);
        self.dead_letters.extend(processed.dead_letter.clone().map(|letter| (letter, time)));
        if let Some(rows) = &processed.record {
            self.rows(rows, time);
        }
        for object in &processed.objects {
            let connector = object.connector.as_ref().map_or("", |connector| connector.name.as_str());
            self.books.totals.objects += 1;
            // the same version announced twice within one micro-batch
            let repeated = object.claim.as_ref().is_some_and(|claim| !claimed.insert(version_name(claim)));
            if repeated {
                self.books.ledgers.object(connector, ObjectOutcome::Duplicate);
                continue;
            }
            self.books.ledgers.object(connector, object.outcome);
            self.claims.extend(object.claim.clone());
            self.dead_letters.extend(object.dead_letter.clone().map(|letter| (letter, time)));
            if let Some(rows) = &object.rows {
                self.rows(rows, time);
            }
            if let Some(staged) = &object.staged {
                self.checks.append(&staged.books.counted);
                self.books.append(staged.books.clone());
            }
        }
    }

    fn rows(&mut self, rows: &ProcessedRows, time: DateTime<Utc>) {
        let name = &rows.connector.name;
        self.books.totals.rows_in += rows.row_count;
        self.books.ledgers.rows_in(name, RowOutcome::Filtered, rows.filtered);
        self.books.ledgers.rows_in(name, RowOutcome::Rejected, rows.rejects.len() as u64);
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

    /// All rows and dead letters as files.
    fn encode(
        &mut self,
        context: &TransformContext,
        topic_partition: &TopicPartition,
        id: MicroBatchId,
        overrides: &Overrides,
        windows: &BTreeMap<String, Window>,
    ) -> Result<Vec<Upload>, BuildError> {
        let mut files = self.encode_rows(context, topic_partition, id, windows)?;
        files.extend(encode_dead_letters(context, topic_partition, id, &self.dead_letters)?);
        self.books.totals.rows_out += count_rows(&files, FileKind::Data);
        self.books.totals.dead_letters += count_rows(&files, FileKind::DeadLetter);
        let letters = self.dead_letters.iter().map(|(letter, _)| letter);
        self.books.failed_overrides.extend(overrides.failed(letters.clone()));
        letters.for_each(|letter| self.books.letters.push(letter));
        Ok(files.into_iter().map(|file| self.books.file(id, file)).collect())
    }

    fn encode_rows(
        &mut self,
        context: &TransformContext,
        topic_partition: &TopicPartition,
        id: MicroBatchId,
        windows: &BTreeMap<String, Window>,
    ) -> Result<Vec<StagedFile>, BuildError> {
        let mut files = Vec::new();
        for (name, rows) in std::mem::take(&mut self.rows) {
            let arrange =
                |error: EvolutionError| BuildError::Arrange { connector: name.clone(), detail: chain(&error) };
            let Some((connector, rows)) = rows.united().map_err(arrange)? else { continue };
            self.books.schema(Arc::clone(&connector));
            let failed = |error: TransformError| BuildError::Dedupe { connector: name.clone(), detail: chain(&error) };
            let plan = context.schemas.plan(&connector).map_err(failed)?;
            let checked = self.checks.check(&plan, rows, windows.get(&name)).map_err(failed)?;
            self.seen.insert(name.clone(), checked.seen);
            self.books.ledgers.rows_in(&name, RowOutcome::Duplicate, checked.duplicates);
            self.books.ledgers.rows_in(&name, RowOutcome::Filtered, checked.filtered);
            self.books.ledgers.rows_in(&name, RowOutcome::Rejected, checked.dead_letters.len() as u64);
            self.dead_letters.extend(checked.dead_letters);
            let rows = checked.rows;
            let passed = rows.iter().flat_map(|origin| &origin.batches).map(|batch| batch.num_rows() as u64).sum();
            self.books.ledgers.rows_in(&name, RowOutcome::Passed, passed);
            self.books.ledgers.rows_out(&name, &connector.staging.dataset, passed);
            let encoded = stage::encode_owned(&connector, topic_partition, id, rows)
                .map_err(|error| BuildError::Encode { connector: name.clone(), detail: chain(&error) })?;
            files.extend(encoded);
        }
        Ok(files)
    }
}

fn encode_dead_letters(
    context: &TransformContext,
    topic_partition: &TopicPartition,
    id: MicroBatchId,
    letters: &[(DeadLetter, DateTime<Utc>)],
) -> Result<Vec<StagedFile>, BuildError> {
    let revision_of = |name: &str| {
        context
            .connectors
            .by_name(name)
            .map_or_else(Default::default, |connector| (connector.revision.clone(), connector.schema_revision.clone()))
    };
    stage::encode_dead_letters(topic_partition, id, letters, revision_of)
        .map_err(|error| BuildError::Encode { connector: "dead letters".to_owned(), detail: chain(&error) })
}
