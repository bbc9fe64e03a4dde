//! One message: what it says, the objects it announces, their rows. Nothing here is written anywhere.
//!
//! # Retries
//! Transient errors of the store and the catalog are retried for ever with capped backoff, until the
//! owner stops. Whatever the same input would do again is an outcome, not an error.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::build::BuildError;
use super::careful::KILLED;
use super::chunk_log::ChunkOwner;
use super::context::TransformContext;
use super::decode_rows::{DecodeJob, Input, count_read, decode_rows};
use super::overrides::Overrides;
use super::parking::PARKED;
use super::read_object::Reading;
use super::replay::Replaced;
use super::staged::StagedRows;
use crate::catalog::CatalogError;
use crate::client::kafka::Message;
use crate::client::retry::RetryPolicy;
use crate::client::s3::S3Error;
use crate::config::Connector;
use crate::source::notification::{self, Announcement, ObjectEvent};
use crate::source::object_reader::{ReadError, Reservation};
use crate::transform::Tallies;
use crate::types::{
    DeadLetter, MicroBatchId, ObjectClaim, ObjectOutcome, ObjectVersion, OffsetOutcome, Origin, OriginRows,
    RejectReason, RowReject, TopicPartition,
};

use super::budget::MemoryShare;

/// A message with everything it brings, and the memory that is accounted to it.
#[derive(Debug)]
pub struct ProcessedMessage {
    pub message: Message,
    pub outcome: OffsetOutcome,
    pub objects: Vec<ProcessedObject>,
    /// Rows of a direct record.
    pub record: Option<ProcessedRows>,
    /// Where the whole message is a dead letter.
    pub dead_letter: Option<DeadLetter>,
    pub memory: MemoryShare,
    /// Under which rows of its objects are staged before the micro-batch is built.
    pub staged_as: MicroBatchId,
}

/// One announced object.
#[derive(Debug)]
pub struct ProcessedObject {
    pub record: i32,
    /// `None` where no connector wants it.
    pub connector: Option<Arc<Connector>>,
    pub outcome: ObjectOutcome,
    pub claim: Option<ObjectClaim>,
    pub rows: Option<ProcessedRows>,
    /// Where they are more than is held in memory.
    pub staged: Option<StagedRows>,
    /// Where the object is quarantined.
    pub dead_letter: Option<DeadLetter>,
    /// A replay found it gone: its rows and dead letters are those of the replaced micro-batch.
    pub carried: bool,
    /// Keeps other announcements of the process from choosing the same version until the commit.
    pub reservation: Option<Reservation>,
}

/// Rows of one origin after decoding, cleaning and expectations.
#[derive(Debug)]
pub struct ProcessedRows {
    pub connector: Arc<Connector>,
    pub rows: OriginRows,
    pub rejects: Vec<RowReject>,
    /// Rows read, rejected ones included.
    pub row_count: u64,
    pub filtered: u64,
    /// An expectation that stops the connector.
    pub failed: Option<String>,
    pub tallies: Tallies,
    /// Of rows that may fail an expectation before the load.
    pub held: Vec<RowReject>,
    pub unpacked_bytes: u64,
    /// Location and version of the object they come from.
    pub object: Option<ObjectVersion>,
}

impl ProcessedObject {
    pub(super) fn without_rows(record: i32, connector: Option<Arc<Connector>>, outcome: ObjectOutcome) -> Self {
        Self {
            record,
            connector,
            outcome,
            claim: None,
            rows: None,
            staged: None,
            dead_letter: None,
            carried: false,
            reservation: None,
        }
    }
}

impl ProcessedMessage {
    fn empty(message: Message, outcome: OffsetOutcome, memory: MemoryShare) -> Self {
        let staged_as = MicroBatchId::generate();
        Self { message, outcome, objects: Vec::new(), record: None, dead_letter: None, memory, staged_as }
    }

    /// When the message was written; 1970 where it carries no time.
    pub fn announced_at(&self) -> DateTime<Utc> {
        announced_at(&self.message)
    }

    /// Rows that are staged already.
    pub fn staged(&self) -> impl Iterator<Item = &StagedRows> {
        self.objects.iter().filter_map(|object| object.staged.as_ref())
    }

    /// Of all its rows.
    pub fn connectors(&self) -> impl Iterator<Item = &Arc<Connector>> {
        self.rows().map(|rows| &rows.connector).chain(self.staged().map(|staged| &staged.connector))
    }

    /// All rows it brings in memory.
    pub fn rows(&self) -> impl Iterator<Item = &ProcessedRows> {
        self.record.iter().chain(self.objects.iter().filter_map(|object| object.rows.as_ref()))
    }
}

pub fn announced_at(message: &Message) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(message.timestamp_ms).unwrap_or_default()
}

/// Arrow rows, their unpacked bytes and the staged file together, for each byte of a stored object.
const MEMORY_FACTOR: u64 = 6;
/// For objects whose announcement tells no size, until the store tells it. Large: it is completed multipart uploads that
/// some stores announce so (versitygw 1.0), and a small estimate would let all of them in at once.
const OBJECT_BYTES_UNKNOWN: u64 = 64 << 20;
/// Sums of estimates must not overflow, whatever messages claim.
const MESSAGE_MEMORY_MAX: u64 = 1 << 50;

/// Memory for an object of so many stored bytes, of which no more than a chunk is held at a time.
pub(super) fn object_memory(stored_bytes: u64, chunk_bytes: u64) -> u64 {
    let of_chunk = decoded_memory(chunk_bytes).saturating_add(stored_bytes.min(chunk_bytes));
    stored_bytes.saturating_mul(MEMORY_FACTOR).min(of_chunk)
}

/// Memory for rows that were decoded from so many unpacked bytes: the bytes, which rejected rows hold, Arrow rows and the
/// staged file.
pub(super) fn decoded_memory(unpacked_bytes: u64) -> u64 {
    unpacked_bytes.saturating_mul(3)
}

/// What the memory budget is asked for before the message is processed: bytes. `of_object`: for an object as its
/// announcement tells.
pub fn memory_estimate(message: &Message, of_object: impl Fn(&ObjectEvent) -> u64) -> u64 {
    let announced = message.payload.as_deref().and_then(|payload| notification::decode(payload).ok());
    let objects: u64 = match announced {
        Some(Announcement::Objects(events)) => events.iter().map(of_object).fold(0, u64::saturating_add),
        _ => 0,
    };
    message.size_bytes().saturating_add(objects).min(MESSAGE_MEMORY_MAX)
}

/// Memory for an object as its announcement tells.
pub(super) fn announced_memory(event: &ObjectEvent, chunk_bytes: u64) -> u64 {
    object_memory(event.size_bytes.filter(|size| *size > 0).unwrap_or(OBJECT_BYTES_UNKNOWN), chunk_bytes)
}

/// Why a message could not be processed now: its owner stopped, or something only a human can mend.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("a decoding task was cancelled")]
    Task(#[source] tokio::task::JoinError),
    #[error("could not stage a part of an object")]
    Build(#[from] BuildError),
    #[error("could not put a file into the lake")]
    Upload(#[source] S3Error),
    #[error("the bytes of an object ended early")]
    Bytes(#[source] std::io::Error),
}

impl ProcessError {
    pub fn kind(&self) -> crate::error::ErrorKind {
        match self {
            Self::Read(source) => source.kind(),
            Self::Catalog(source) => source.kind(),
            Self::Upload(source) => source.kind(),
            Self::Task(_) | Self::Build(_) | Self::Bytes(_) => crate::error::ErrorKind::Halt,
        }
    }
}

/// Who reads a message.
#[derive(Debug, Clone)]
pub struct Reader {
    pub topic_partition: TopicPartition,
    /// Where it may record what it has put of large objects.
    pub chunks: Option<ChunkOwner>,
}

impl Reader {
    /// Of a message with so many objects.
    fn log(&self, object_count: usize, replaced: Option<&Replaced>) -> Option<ChunkOwner> {
        self.chunks.filter(|_| object_count == 1 && replaced.is_none())
    }
}

/// How a message is processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// While others are.
    Together,
    /// The caller holds [`TransformContext::alone`].
    Alone,
    /// It kills the process: nothing of it is decoded.
    SetAside,
}

/// Processes one message to its end.
pub async fn process(
    context: Arc<TransformContext>,
    reader: Reader,
    message: Message,
    mut memory: MemoryShare,
    retries: RetryPolicy,
    replaced: Option<Arc<Replaced>>,
    manner: Manner,
) -> Result<ProcessedMessage, ProcessError> {
    let overrides = Overrides::of(replaced.as_deref());
    if let Some(connector) = context.connectors.for_records(&reader.topic_partition.topic).cloned() {
        return process_record(&context, connector, message, memory, overrides, manner).await;
    }
    let Some(announced) = overrides.announcement(&message) else {
        return Ok(ProcessedMessage::empty(message, OffsetOutcome::Ignored, memory));
    };
    let events = match announced {
        Ok(Announcement::Objects(events)) => events,
        Ok(Announcement::Ignored(_)) => return Ok(ProcessedMessage::empty(message, OffsetOutcome::Ignored, memory)),
        Err(error) => {
            let (reason, detail) = (RejectReason::MalformedNotification, crate::error::chain(&error));
            return Ok(dead_message(message, None, reason, detail, memory));
        }
    };
    if manner == Manner::SetAside && events.len() > 1 {
        return Ok(dead_message(message, None, RejectReason::KilledTheProcess, KILLED.to_owned(), memory));
    }
    let mut objects = Vec::with_capacity(events.len());
    let staged_as = replaced.as_ref().map_or_else(MicroBatchId::generate, |replaced| replaced.staged_as);
    let reading = Reading {
        context: &context,
        topic_partition: &reader.topic_partition,
        message: &message,
        retries: &retries,
        replaced: replaced.as_deref(),
        manner,
        staged_as,
        log: reader.log(events.len(), replaced.as_deref()),
    };
    for event in events {
        objects.push(reading.process_event(event, &mut memory).await?);
    }
    Ok(ProcessedMessage { objects, staged_as, ..ProcessedMessage::empty(message, OffsetOutcome::Decoded, memory) })
}

async fn process_record(
    context: &Arc<TransformContext>,
    connector: Arc<Connector>,
    message: Message,
    memory: MemoryShare,
    overrides: Overrides,
    manner: Manner,
) -> Result<ProcessedMessage, ProcessError> {
    let Some(value) = message.payload.clone() else {
        return Ok(ProcessedMessage::empty(message, OffsetOutcome::Ignored, memory));
    };
    if context.parked.contains(&connector.name) {
        let reason = RejectReason::ConnectorParked;
        return Ok(dead_message(message, Some(&connector), reason, PARKED.to_owned(), memory));
    }
    if manner == Manner::SetAside {
        let reason = RejectReason::KilledTheProcess;
        return Ok(dead_message(message, Some(&connector), reason, KILLED.to_owned(), memory));
    }
    let origin =
        Origin { message_offset: message.offset, record: 0, time: announced_at(&message), order_hash: message.offset };
    count_read(&connector, value.len() as u64);
    let job = DecodeJob { connector, input: Input::Record(value), origin, object: None, overrides, manner };
    let rows = decode_rows(context, job).await?;
    Ok(match rows {
        Ok(rows) => {
            let empty = ProcessedMessage::empty(message, OffsetOutcome::Decoded, memory);
            ProcessedMessage { record: Some(rows), ..empty }
        }
        Err(fault) => dead_message(message, None, fault.reason, fault.detail, memory),
    })
}

/// Reads the objects again whose claims another micro-batch holds: they are duplicates now, or, where the
/// announcement names no version, the next version that nobody has claimed.
pub async fn process_again(
    context: &Arc<TransformContext>,
    reader: &Reader,
    processed: &mut ProcessedMessage,
    lost: &HashSet<(i64, i32)>,
    retries: &RetryPolicy,
    replaced: Option<&Replaced>,
) -> Result<(), ProcessError> {
    let message = processed.message.clone();
    let kills = |object: &ProcessedObject| {
        object.dead_letter.as_ref().is_some_and(|letter| letter.reason == RejectReason::KilledTheProcess)
    };
    let manner = if processed.objects.iter().any(kills) { Manner::SetAside } else { Manner::Together };
    let Some(Ok(Announcement::Objects(events))) = Overrides::of(replaced).announcement(&message) else {
        return Ok(());
    };
    let (staged_as, log) = (processed.staged_as, reader.log(events.len(), replaced));
    let topic_partition = &reader.topic_partition;
    let reading = Reading { context, topic_partition, message: &message, retries, replaced, manner, staged_as, log };
    for event in events {
        if !lost.contains(&(message.offset, event.record)) {
            continue;
        }
        if let Some(object) = processed.objects.iter_mut().find(|object| object.record == event.record) {
            // before the reader looks: it would pass over a version that is still reserved
            object.reservation = None;
            if let Some(staged) = object.staged.take() {
                staged.files.discard(retries).await?;
            }
            *object = reading.process_event(event, &mut processed.memory).await?;
        }
    }
    Ok(())
}

/// A message as a whole.
pub(super) fn dead_letter(
    message: &Message,
    connector: Option<&Arc<Connector>>,
    reason: RejectReason,
    detail: String,
) -> DeadLetter {
    DeadLetter {
        connector: connector.map_or_else(String::new, |connector| connector.name.clone()),
        reason,
        detail,
        message_offset: message.offset,
        record: None,
        row: None,
        byte_offset: None,
        object: None,
        object_version: None,
        bytes: message.payload.clone().unwrap_or_default(),
    }
}

/// A message of which nothing is processed.
pub(super) fn dead_message(
    message: Message,
    connector: Option<&Arc<Connector>>,
    reason: RejectReason,
    detail: String,
    memory: MemoryShare,
) -> ProcessedMessage {
    let letter = dead_letter(&message, connector, reason, detail);
    let empty = ProcessedMessage::empty(message, OffsetOutcome::Rejected, memory);
    ProcessedMessage { dead_letter: Some(letter), ..empty }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For an announcement of an object of so many bytes.
    fn estimate(size_bytes: u64) -> u64 {
        let payload = serde_json::json!({"Records": [{
            "eventSource": "aws:s3", "eventName": "ObjectCreated:CompleteMultipartUpload", "eventVersion": "2.1",
            "s3": {"bucket": {"name": "raw"}, "object": {"key": "a", "size": size_bytes, "eTag": "0a-2"}},
        }]});
        let payload = Some(bytes::Bytes::from(payload.to_string()));
        memory_estimate(&Message { offset: 0, timestamp_ms: 0, key: None, payload }, |event| {
            announced_memory(event, 64 << 20)
        })
    }

    #[test]
    fn an_object_of_unknown_size_is_taken_for_a_large_one() {
        assert!(estimate(10 << 10) < 1 << 20);
        assert!(estimate(0) >= 64 << 20, "stores that tell no size of multipart uploads write 0");
    }
}
