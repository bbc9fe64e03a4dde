//! An object of any size → rows in memory where it is small, files in `_pending/` where it is large.
//!
//! # Contract
//! One that unpacks to no more than a chunk ([`TransformContext::chunk_bytes`]) is whole rows. Of a larger one each chunk is
//! cleaned, checked, deduped, encoded and put, and then forgotten: what is left is its books ([`StagedRows`]). While one
//! is put another waits and a third is read, so an object costs the memory of three chunks, two of them as files,
//! however large it is.
//! Where it is cut depends on its bytes alone, so a replay cuts it alike.
//! What looks at rows together sees a chunk at a time: dedupe and `unique`. A dedupe within a window sees the chunks before
//! it as well, and nothing of earlier micro-batches, which may not be committed yet. Everything else is as of a small object: row
//! numbers run through all of it, expectations are concluded over all of it, one that stops the connector parks it
//! whole, and a fault in its last chunk quarantines it whole: then what its first chunks have written is deleted.
//! # Retries
//! Each part of the stored bytes and each file is tried again by itself. An object that is overwritten meanwhile, or is
//! claimed by another micro-batch, is given up ([`ObjectRows::Changed`]), to be found anew.
//! # Crash consistency
//! Chunks that are complete are recorded ([`super::chunk_log`]), and who reads the object next goes on behind them.
//! # Cancellation
//! Dropping it stops the thread at its next chunk. What is recorded, or may be, stays; other files are deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::sync::mpsc;

use super::build::{BuildError, build_part};
use super::chunk_log::{Adopted, ChunkLog, chunked_object};
use super::context::{CpuTurn, TransformContext};
use super::decode_rows::{ChunkError, Chunks, begin_decoding, processed};
use super::decode_task::{Fault, catching};
use super::evolution::CurrentSchema;
use super::object_stream::{Fetching, ObjectStream, stream};
use super::overrides::Overrides;
use super::process::{Manner, ProcessError, ProcessedRows};
use super::row_books::{RowBooks, Upload};
use super::staged::{PendingFiles, StagedRows, put_files};
use super::stored_books::{ChunkState, StoredBooks, StoredSchema};
use crate::catalog::ObjectChunk;
use crate::client::retry::{RetryPolicy, retry};
use crate::config::Connector;
use crate::decode::{DecodeLimits, ObjectDecoder, ResumePoint};
use crate::source::object_reader::{RangeError, RangedObject, ReadError};
use crate::transform::Window;
use crate::types::{MicroBatchId, ObjectVersion, Origin, TopicPartition};

/// What is read, and what for.
pub(super) struct ObjectJob {
    pub(super) connector: Arc<Connector>,
    pub(super) topic_partition: TopicPartition,
    pub(super) origin: Origin,
    pub(super) announced_at: DateTime<Utc>,
    pub(super) object: ObjectVersion,
    pub(super) overrides: Overrides,
    pub(super) manner: Manner,
    /// The micro-batch that files are staged for.
    pub(super) staged_as: MicroBatchId,
    /// In a replay: the one whose claims do not count.
    pub(super) replaced: Option<MicroBatchId>,
    /// Where chunks of it may be recorded.
    pub(super) log: Option<ChunkLog>,
}

/// Its stored bytes.
pub(super) enum StoredObject {
    Memory(Bytes),
    Ranges(Arc<RangedObject>),
}

pub(super) enum ObjectRows {
    Whole(Box<ProcessedRows>),
    Staged(Box<StagedRows>),
    Fault(Fault),
    /// It is another object by now, or another micro-batch's.
    Changed,
}

/// A chunk on its way to the lake.
struct Part {
    connector: Arc<Connector>,
    books: RowBooks,
    uploads: Vec<Upload>,
    /// Where the next one begins, and by which schema. `None`: it is the last, or the next means nothing by itself.
    next: Option<(ResumePoint, Arc<Connector>)>,
}

enum Source {
    Memory(Bytes),
    Stream(ObjectStream),
    /// Behind chunks that are staged already.
    Rest(ObjectStream, ResumePoint, CurrentSchema),
}

/// What the thread says at its end.
enum Ended {
    Whole(Box<ProcessedRows>),
    /// Every chunk is sent.
    Staged,
}

enum PartError {
    Chunk(ChunkError),
    Build(BuildError),
}

impl From<Fault> for PartError {
    fn from(fault: Fault) -> Self {
        Self::Chunk(ChunkError::Fault(fault))
    }
}

impl From<ChunkError> for PartError {
    fn from(error: ChunkError) -> Self {
        Self::Chunk(error)
    }
}

/// Reads an object to its end.
pub(super) async fn read_object(
    context: &Arc<TransformContext>,
    mut job: ObjectJob,
    stored: StoredObject,
    retries: &RetryPolicy,
) -> Result<ObjectRows, ProcessError> {
    let mut staging = Staging::begin(context, &mut job, retries, &stored).await?;
    let (source, fetching) = match stored {
        StoredObject::Memory(bytes) => (Source::Memory(bytes), None),
        StoredObject::Ranges(object) => match staging.rest.take() {
            None => {
                let (stream, fetching) = stream(&object, 0, retries);
                (Source::Stream(stream), Some(fetching))
            }
            Some((point, schema)) => {
                let (stream, fetching) = stream(&object, point.stored.stored_offset, retries);
                (Source::Rest(stream, point, schema), Some(fetching))
            }
        },
    };
    let job = Arc::new(job);
    let (sender, mut parts) = mpsc::channel(1);
    // waited for here, where it costs no thread
    let turn = context.cpu_turn(job.manner).await;
    let work = {
        let (context, job) = (Arc::clone(context), Arc::clone(&job));
        tokio::task::spawn_blocking(move || stage_parts(&context, &job, source, turn, &sender))
    };
    while let Some(part) = parts.recv().await {
        staging.put(&job, part).await?;
        let is_claimed = || context.objects.is_claimed(&job.object, job.replaced);
        if retry(retries, "catalog", ReadError::kind, is_claimed).await? {
            staging.discard().await?;
            return Ok(ObjectRows::Changed);
        }
    }
    let rows = match work.await.map_err(ProcessError::Task)? {
        Ok(Ended::Staged) => {
            return Ok(ObjectRows::Staged(Box::new(staging.staged.expect("what is staged has a part"))));
        }
        Ok(Ended::Whole(rows)) => ObjectRows::Whole(rows),
        Err(PartError::Chunk(ChunkError::Fault(fault))) => ObjectRows::Fault(fault),
        Err(PartError::Chunk(ChunkError::Read(error))) => not_fetched(fetching, error).await?,
        Err(PartError::Build(error)) => return Err(error.into()),
    };
    staging.discard().await?;
    Ok(rows)
}

/// The chunks of one object that are put.
struct Staging<'a> {
    context: &'a Arc<TransformContext>,
    retries: &'a RetryPolicy,
    staged: Option<StagedRows>,
    /// Number of the next chunk.
    next: i32,
    /// Where there are chunks already: from where on it is to be read.
    rest: Option<(ResumePoint, CurrentSchema)>,
    log: Option<ChunkLog>,
}

impl<'a> Staging<'a> {
    /// Takes up what another owner has left of the object; the job is staged as that was, then.
    async fn begin(
        context: &'a Arc<TransformContext>,
        job: &mut ObjectJob,
        retries: &'a RetryPolicy,
        stored: &StoredObject,
    ) -> Result<Self, ProcessError> {
        // who went on behind chunks that another has put would not know their keys
        let resumes = job.connector.dataset().dedupe_window().is_none();
        let log = job.log.take().filter(|_| resumes && matches!(stored, StoredObject::Ranges(_)));
        let mut staging = Self { context, retries, staged: None, next: 0, rest: None, log };
        let Some(log) = &staging.log else { return Ok(staging) };
        let object = chunked_object(context, &job.connector, &job.object);
        let Some(adopted) = log.adopt(context, retries, &object).await? else { return Ok(staging) };
        let Adopted { id, count, books, point, schema } = adopted;
        tracing::info!(
            component = "source",
            key = job.object.location.key,
            chunks = count,
            unpacked_offset = point.unpacked_offset,
            stored_offset = point.stored.stored_offset,
            "chunks of an object are there, reading on behind them"
        );
        let files = PendingFiles::recorded(context, log);
        job.staged_as = id;
        staging.staged = Some(StagedRows { id, connector: Arc::clone(&schema.connector), books, files });
        (staging.next, staging.rest) = (count, Some((point, schema)));
        Ok(staging)
    }

    async fn put(&mut self, job: &ObjectJob, part: Part) -> Result<(), ProcessError> {
        let Part { connector, books, uploads, next } = part;
        let staged = self.staged.get_or_insert_with(|| StagedRows {
            id: job.staged_as,
            connector: Arc::clone(&connector),
            books: RowBooks::default(),
            files: PendingFiles::new(self.context),
        });
        staged.files.expect(&uploads);
        put_files(self.context, self.retries, &uploads).await.map_err(ProcessError::Upload)?;
        if let (Some(log), Some((point, schema))) = (&self.log, next) {
            let state = ChunkState { point, schema: StoredSchema::of(&schema), books: StoredBooks::of(&books) };
            let chunk = ObjectChunk {
                number: self.next,
                id: staged.id,
                object: chunked_object(self.context, &job.connector, &job.object),
                pending_keys: uploads.into_iter().map(|upload| upload.key).collect(),
                state: serde_json::to_value(state).expect("plain data with text as keys"),
            };
            staged.files.let_go(log);
            if log.record(self.retries, &chunk).await? {
                self.next += 1;
            } else {
                // there is another owner: the commit will say so
                self.log = None;
            }
        }
        staged.connector = connector;
        staged.books.append(books);
        Ok(())
    }

    async fn discard(self) -> Result<(), ProcessError> {
        match self.staged {
            Some(staged) => Ok(staged.files.discard(self.retries).await?),
            None => Ok(()),
        }
    }
}

/// The bytes did not come: why.
async fn not_fetched(fetching: Option<Fetching>, error: std::io::Error) -> Result<ObjectRows, ProcessError> {
    let Some(fetching) = fetching else { return Err(ProcessError::Bytes(error)) };
    match fetching.await.map_err(ProcessError::Task)? {
        Ok(()) => Err(ProcessError::Bytes(error)),
        Err(RangeError::Changed) => Ok(ObjectRows::Changed),
        Err(RangeError::Read(error)) => Err(error.into()),
    }
}

/// CPU work, and waits for stored bytes and for whoever takes the parts: on a thread for that.
fn stage_parts(
    context: &TransformContext,
    job: &ObjectJob,
    source: Source,
    turn: CpuTurn,
    parts: &mpsc::Sender<Part>,
) -> Result<Ended, PartError> {
    let limits = context.limits_of(&job.connector);
    let is_begin = !matches!(source, Source::Rest(..));
    let mut chunks = catching(|| {
        begin_decoding(Some(&job.object));
        Ok(open(context, job, source, &limits))
    })??;
    let mut windows = job
        .connector
        .dataset()
        .dedupe_window()
        .map_or_else(BTreeMap::new, |window| BTreeMap::from([(job.connector.name.clone(), Window::new(window))]));
    let (mut is_first, mut first_turn) = (is_begin, Some(turn));
    loop {
        // not across the wait for whoever takes the part: others want it, and a message that is tried alone waits for it
        let turn = first_turn.take().unwrap_or_else(|| context.cpu_turn_blocking(job.manner));
        // `catching` takes faults; what else goes wrong is no fault of the object
        let (chunk, is_last) = catching(|| match chunks.next() {
            Err(ChunkError::Fault(fault)) => Err(fault),
            other => Ok(other),
        })??;
        let object = Some(job.object.clone());
        let next = chunks.resume_point().filter(|_| !is_last).map(|point| (point, Arc::clone(&chunk.schema.connector)));
        let rows = catching(|| processed(context, &job.overrides, &limits, job.origin.clone(), object, chunk))?;
        if is_first && is_last || rows.failed.is_some() {
            // its connector will be parked, and nothing of it kept
            return Ok(Ended::Whole(Box::new(rows)));
        }
        is_first = false;
        let ObjectJob { topic_partition, staged_as, announced_at, overrides, .. } = job;
        let connector = Arc::clone(&rows.connector);
        let built = build_part(context, topic_partition, *staged_as, rows, *announced_at, overrides, &mut windows);
        let (books, uploads) = built.map_err(PartError::Build)?;
        drop(turn);
        let part = Part { connector, books, uploads, next };
        // where nobody takes it nobody wants the rest
        if parts.blocking_send(part).is_err() || is_last {
            return Ok(Ended::Staged);
        }
    }
}

fn open<'a>(
    context: &'a TransformContext,
    job: &ObjectJob,
    source: Source,
    limits: &DecodeLimits,
) -> Result<Chunks<'a>, ChunkError> {
    let current = context.schemas.current(&job.connector.name);
    let (schema, decoder) = match source {
        Source::Memory(bytes) => {
            let decoder = ObjectDecoder::of_bytes(&current.connector, bytes, limits)?;
            (current, decoder)
        }
        Source::Stream(stream) => {
            let decoder = ObjectDecoder::of_stream(&current.connector, stream, limits)?;
            (current, decoder)
        }
        Source::Rest(stream, point, schema) => {
            let decoder = ObjectDecoder::resume(&schema.connector, stream, limits, &point)?;
            (schema, decoder)
        }
    };
    Ok(Chunks::new(&context.schemas, schema, decoder, context.chunk_bytes))
}
