//! An object of any size → rows in memory where it is small, files in `_pending/` where it is large.
//!
//! # Contract
//! One that unpacks to no more than a chunk ([`TransformContext::chunk_bytes`]) is whole rows. Of a larger one each chunk is
//! cleaned, checked, deduped, encoded and put before the next but one is read, and then forgotten: what is left is its
//! books ([`StagedRows`]). So an object costs the memory of two chunks, one as rows and one as files, however large it is.
//! Where it is cut depends on its bytes alone, so a replay cuts it alike.
//! What looks at rows together sees a chunk at a time: dedupe and `unique`. Everything else is as of a small object: row
//! numbers run through all of it, expectations are concluded over all of it, one that stops the connector parks it
//! whole, and a fault in its last chunk quarantines it whole: then what its first chunks have written is deleted.
//! # Retries
//! Each part of the stored bytes and each file is tried again by itself. An object that is overwritten meanwhile, or is
//! claimed by another micro-batch, is given up ([`ObjectRows::Changed`]), to be found anew.
//! # Cancellation
//! Dropping it stops the thread at its next chunk and deletes what was put.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::sync::mpsc;

use super::build::{BuildError, build_part};
use super::context::TransformContext;
use super::decode_rows::{ChunkError, Chunks, processed};
use super::decode_task::{Fault, catching};
use super::object_stream::{Fetching, ObjectStream, stream};
use super::overrides::Overrides;
use super::process::{Manner, ProcessError, ProcessedRows};
use super::row_books::{RowBooks, Upload};
use super::staged::{PendingFiles, StagedRows, put_files};
use crate::client::retry::{RetryPolicy, retry};
use crate::config::Connector;
use crate::decode::{DecodeLimits, ObjectDecoder};
use crate::source::object_reader::{RangeError, RangedObject, ReadError};
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
}

/// Its stored bytes.
pub(super) enum StoredObject {
    Memory(Bytes),
    Ranges(Arc<RangedObject>),
}

pub(super) enum ObjectRows {
    Whole(ProcessedRows),
    Staged(StagedRows),
    /// With the first stored bytes, where they are not all in memory.
    Fault(Fault, Option<Bytes>),
    /// It is another object by now, or another micro-batch's.
    Changed,
}

/// A chunk on its way to the lake.
struct Part {
    connector: Arc<Connector>,
    books: RowBooks,
    uploads: Vec<Upload>,
}

enum Source {
    Memory(Bytes),
    Stream(ObjectStream),
}

/// What the thread says at its end.
enum Ended {
    Whole(ProcessedRows),
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
    job: ObjectJob,
    stored: StoredObject,
    retries: &RetryPolicy,
) -> Result<ObjectRows, ProcessError> {
    let (source, fetching) = match stored {
        StoredObject::Memory(bytes) => (Source::Memory(bytes), None),
        StoredObject::Ranges(object) => {
            let (stream, fetching) = stream(&object, retries);
            (Source::Stream(stream), Some(fetching))
        }
    };
    let job = Arc::new(job);
    let (sender, mut parts) = mpsc::channel(1);
    let work = {
        let (context, job) = (Arc::clone(context), Arc::clone(&job));
        tokio::task::spawn_blocking(move || stage_parts(&context, &job, source, &sender))
    };
    let mut staged: Option<StagedRows> = None;
    while let Some(part) = parts.recv().await {
        let staged = staged.get_or_insert_with(|| StagedRows {
            id: job.staged_as,
            connector: Arc::clone(&part.connector),
            books: RowBooks::default(),
            files: PendingFiles::new(context),
        });
        staged.files.expect(&part.uploads);
        put_files(context, retries, &part.uploads).await.map_err(ProcessError::Upload)?;
        staged.connector = part.connector;
        staged.books.append(part.books);
        let is_claimed = || context.objects.is_claimed(&job.object, job.replaced);
        if retry(retries, "catalog", ReadError::kind, is_claimed).await? {
            return Ok(ObjectRows::Changed);
        }
    }
    match work.await.map_err(ProcessError::Task)? {
        Ok(Ended::Whole(rows)) => Ok(ObjectRows::Whole(rows)),
        Ok(Ended::Staged) => Ok(ObjectRows::Staged(staged.expect("what is staged has a part"))),
        Err(PartError::Chunk(ChunkError::Fault(fault))) => {
            Ok(ObjectRows::Fault(fault, fetching.map(|fetching| fetching.head())))
        }
        Err(PartError::Chunk(ChunkError::Read(error))) => not_fetched(fetching, error).await,
        Err(PartError::Build(error)) => Err(error.into()),
    }
}

/// The bytes did not come: why.
async fn not_fetched(fetching: Option<Fetching>, error: std::io::Error) -> Result<ObjectRows, ProcessError> {
    let Some(fetching) = fetching else { return Err(ProcessError::Bytes(error)) };
    match fetching.ended().await.map_err(ProcessError::Task)? {
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
    parts: &mpsc::Sender<Part>,
) -> Result<Ended, PartError> {
    let limits = context.limits_of(&job.connector);
    let mut chunks = catching(|| {
        crate::telemetry::fail_point!("object.decoding"; job.object.location.key.as_str());
        Ok(open(context, job, source, &limits))
    })??;
    let mut is_first = true;
    loop {
        // not across the wait for whoever takes the part: a message that is tried alone waits for it
        let others = (job.manner == Manner::Together).then(|| context.alone.blocking_read());
        // `catching` takes faults; what else goes wrong is no fault of the object
        let (chunk, is_last) = catching(|| match chunks.next() {
            Err(ChunkError::Fault(fault)) => Err(fault),
            other => Ok(other),
        })??;
        let object = Some(job.object.clone());
        let rows = catching(|| processed(context, &job.overrides, &limits, job.origin.clone(), object, chunk))?;
        if is_first && is_last || rows.failed.is_some() {
            // its connector will be parked, and nothing of it kept
            return Ok(Ended::Whole(rows));
        }
        is_first = false;
        let ObjectJob { topic_partition, staged_as, announced_at, overrides, .. } = job;
        let built = build_part(context, topic_partition, *staged_as, &rows, *announced_at, overrides);
        let (books, uploads) = built.map_err(PartError::Build)?;
        drop(others);
        let part = Part { connector: Arc::clone(&rows.connector), books, uploads };
        drop(rows);
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
    let schema = context.schemas.current(&job.connector.name);
    let decoder = match source {
        Source::Memory(bytes) => ObjectDecoder::of_bytes(&schema.connector, bytes, limits)?,
        Source::Stream(stream) => ObjectDecoder::of_stream(&schema.connector, stream, limits)?,
    };
    Ok(Chunks::new(&context.schemas, schema, decoder, context.chunk_bytes))
}
