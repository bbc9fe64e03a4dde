//! One announced object: found, read, decoded, or said what became of it. Nothing here is written anywhere.

use std::sync::Arc;

use bytes::Bytes;

use super::budget::MemoryShare;
use super::careful::KILLED;
use super::chunk_log::{ChunkLog, ChunkOwner};
use super::context::TransformContext;
use super::decode_rows::count_read;
use super::decode_task::Fault;
use super::overrides::Overrides;
use super::process::{
    Manner, ProcessError, ProcessedObject, ProcessedRows, announced_at, announced_memory, dead_letter, decoded_memory,
    object_memory,
};
use super::read_chunks::{ObjectJob, ObjectRows, StoredObject, read_object};
use super::replay::Replaced;
use super::staged::StagedRows;
use crate::catalog::{self, CatalogError};
use crate::client::kafka::Message;
use crate::client::postgres;
use crate::client::retry::{RetryPolicy, retry};
use crate::config::{Connector, KeyEncoding, SourceKind};
use crate::decode::is_read_whole;
use crate::source::notification::{EventKind, ObjectEvent};
use crate::source::object_reader::{Opened, RangeError, RangedObject, ReadError, ReadOutcome, Reservation};
use crate::types::{
    DeadLetter, MicroBatchId, ObjectClaim, ObjectOutcome, ObjectVersion, Origin, Overwrite, RejectReason,
    TopicPartition,
};

/// What the objects of one message are read with.
pub(super) struct Reading<'a> {
    pub(super) context: &'a Arc<TransformContext>,
    pub(super) topic_partition: &'a TopicPartition,
    pub(super) message: &'a Message,
    pub(super) retries: &'a RetryPolicy,
    /// In a replay: the micro-batch that the message belonged to.
    pub(super) replaced: Option<&'a Replaced>,
    pub(super) manner: Manner,
    /// The micro-batch that rows are staged for before it is built.
    pub(super) staged_as: MicroBatchId,
    /// Who may record chunks of the message's only object.
    pub(super) log: Option<ChunkOwner>,
}

/// What is kept of a large object that cannot be read.
const HEAD_BYTES: u64 = 1 << 20;

impl Reading<'_> {
    pub(super) async fn process_event(
        &self,
        event: ObjectEvent,
        memory: &mut MemoryShare,
    ) -> Result<ProcessedObject, ProcessError> {
        let connector = self.context.connector_for(self.topic_partition, &event);
        let without_rows = |connector, outcome| ProcessedObject::without_rows(event.record, connector, outcome);
        let Some(connector) = connector.filter(|_| event.kind == EventKind::Created) else {
            return Ok(without_rows(None, ObjectOutcome::Filtered));
        };
        let SourceKind::Objects { key_encoding, .. } = connector.source.kind else {
            return Ok(without_rows(None, ObjectOutcome::Filtered));
        };
        if self.manner != Manner::SetAside && self.context.parked.contains(&connector.name) {
            return Ok(without_rows(Some(connector), ObjectOutcome::Parked));
        }
        // what is held for this object: estimated, then told by the store, then known
        let mut held = announced_memory(&event, self.context.chunk_bytes_of(&connector));
        let wanted = Wanted {
            context: self.context,
            connector: &connector,
            reading: self,
            record: event.record,
            overrides: Overrides::of(self.replaced),
        };
        let object = loop {
            let found = self.find(&event, key_encoding, &connector, memory, &mut held).await?;
            let outcome = match found {
                Found::Ranges(object) => match wanted.in_chunks(object).await? {
                    Some(object) => break object,
                    None => continue,
                },
                Found::Read(outcome) => *outcome,
            };
            break match outcome {
                ReadOutcome::Duplicate => without_rows(Some(Arc::clone(&connector)), ObjectOutcome::Duplicate),
                ReadOutcome::Stale => self.gone(event.record, Arc::clone(&connector), ObjectOutcome::Stale).await?,
                ReadOutcome::Missing => self.gone(event.record, Arc::clone(&connector), ObjectOutcome::Missing).await?,
                ReadOutcome::Refused(answer) => self.refused(event.record, Arc::clone(&connector), answer).await?,
                ReadOutcome::Head { version, head, reservation } => {
                    let fault = Fault { reason: RejectReason::KilledTheProcess, detail: KILLED.to_owned() };
                    wanted.quarantined(version, head, reservation, fault)
                }
                ReadOutcome::TooLarge { version, head, reservation } => {
                    let detail = wanted.too_large(version.size_bytes);
                    let fault = Fault { reason: RejectReason::ObjectTooLarge, detail };
                    wanted.quarantined(version, head, reservation, fault)
                }
                ReadOutcome::Read { version, bytes, reservation } => {
                    match wanted.decoded(version, bytes, reservation).await? {
                        Some(object) => object,
                        None => continue,
                    }
                }
            };
        };
        // a chunk's share is kept to the commit: who is announced the same object again then finds it claimed
        let unpacked = object.rows.as_ref().map(|rows| rows.unpacked_bytes);
        if let Some(unpacked) = unpacked.map(decoded_memory) {
            memory.correct(held, unpacked);
        }
        wanted.overrides.correct_object(self.context, self.message.offset, object, self.manner).await
    }

    /// Resolves an announcement, and reads what is small.
    async fn find(
        &self,
        event: &ObjectEvent,
        key_encoding: KeyEncoding,
        connector: &Arc<Connector>,
        memory: &mut MemoryShare,
        held: &mut u64,
    ) -> Result<Found, ReadError> {
        let (context, replaced) = (self.context, self.replaced.map(|replaced| replaced.id));
        let memory = tokio::sync::Mutex::new((memory, held));
        retry(self.retries, "s3", ReadError::kind, || async {
            let outcome = match context.objects.open(event, key_encoding, replaced).await? {
                Opened::Ready(mut object) => {
                    object.refuse_beyond(context.limits_of(connector).object_bytes_max);
                    let (memory, held) = &mut *memory.lock().await;
                    let chunk_bytes = context.chunk_bytes_of(connector);
                    let known = object_memory(object.wanted_bytes(), chunk_bytes);
                    memory.correct(std::mem::replace(*held, known), known);
                    match self.manner {
                        Manner::SetAside => object.read_head().await?,
                        _ if object.is_longer_than(chunk_bytes) => {
                            return Ok(Found::Ranges(Box::new(context.objects.in_ranges(*object))));
                        }
                        _ => object.read().await?,
                    }
                }
                Opened::Duplicate => ReadOutcome::Duplicate,
                Opened::Stale => ReadOutcome::Stale,
                Opened::Missing => ReadOutcome::Missing,
                Opened::Refused(answer) => ReadOutcome::Refused(answer),
            };
            Ok(Found::Read(Box::new(outcome)))
        })
        .await
    }

    /// An object that the store has and does not hand out: archived, perhaps. Where its rows do not stand already, it
    /// is a dead letter with its announcement.
    async fn refused(
        &self,
        record: i32,
        connector: Arc<Connector>,
        answer: String,
    ) -> Result<ProcessedObject, ProcessError> {
        let object = self.gone(record, Arc::clone(&connector), ObjectOutcome::Quarantined).await?;
        if object.claim.is_some() {
            return Ok(object);
        }
        let letter = dead_letter(self.message, Some(&connector), RejectReason::ObjectRefused, answer);
        Ok(ProcessedObject { dead_letter: Some(DeadLetter { record: Some(record), ..letter }), ..object })
    }

    /// An object that is not there, or not as announced. In a replay its rows stand, unless a newer version has
    /// taken their place.
    async fn gone(
        &self,
        record: i32,
        connector: Arc<Connector>,
        outcome: ObjectOutcome,
    ) -> Result<ProcessedObject, ProcessError> {
        let plain = ProcessedObject::without_rows(record, Some(connector), outcome);
        let Some(claim) = self.replaced.and_then(|replaced| replaced.claims.get(&(self.message.offset, record))) else {
            return Ok(plain);
        };
        let is_outranked = retry(self.retries, "catalog", CatalogError::kind, || async {
            let client = postgres::get(&self.context.catalog).await.map_err(CatalogError::Connect)?;
            let (cluster_id, group) = (&self.context.cluster_id, &self.context.consumer_group);
            catalog::newer_is_claimed(&client, cluster_id, group, &claim.version).await
        })
        .await?;
        if is_outranked {
            return Ok(plain);
        }
        tracing::info!(
            component = "source",
            key = claim.version.location.key,
            "raw object is gone, its rows are carried over"
        );
        let outcome = if claim.quarantined { ObjectOutcome::Quarantined } else { ObjectOutcome::Carried };
        Ok(ProcessedObject { outcome, claim: Some(claim.clone()), carried: true, ..plain })
    }
}

/// What is known of an announced object.
enum Found {
    Read(Box<ReadOutcome>),
    /// It is more than a chunk as stored.
    Ranges(Box<RangedObject>),
}

/// An object that a connector wants.
struct Wanted<'a> {
    context: &'a Arc<TransformContext>,
    connector: &'a Arc<Connector>,
    reading: &'a Reading<'a>,
    record: i32,
    overrides: Overrides,
}

impl Wanted<'_> {
    fn claim(&self, version: &ObjectVersion, quarantined: bool) -> ObjectClaim {
        ObjectClaim {
            version: version.clone(),
            message_offset: self.reading.message.offset,
            record: self.record,
            connector: self.connector.name.clone(),
            quarantined,
            announced_at: announced_at(self.reading.message),
            overwrite: match self.connector.source.kind {
                SourceKind::Objects { overwrite, .. } => overwrite,
                SourceKind::Records => Overwrite::Append,
            },
        }
    }

    fn too_large(&self, size_bytes: u64) -> String {
        let limit = if is_read_whole(&self.connector.source.format) {
            "limits.object_bytes_max and limits.memory_bytes_max allow"
        } else {
            "limits.object_bytes_max allows"
        };
        format!("the object has {size_bytes} bytes, {limit} fewer")
    }

    fn quarantined(
        &self,
        version: ObjectVersion,
        bytes: Bytes,
        reservation: Reservation,
        fault: Fault,
    ) -> ProcessedObject {
        let reason = fault.reason;
        let (bytes, detail) = fault.keep(bytes);
        let letter = DeadLetter {
            connector: self.connector.name.clone(),
            reason,
            detail,
            message_offset: self.reading.message.offset,
            record: Some(self.record),
            row: None,
            byte_offset: None,
            object: Some(version.location.clone()),
            object_version: Some(version.version.clone()),
            bytes,
        };
        ProcessedObject {
            claim: Some(self.claim(&version, true)),
            dead_letter: Some(letter),
            reservation: Some(reservation),
            ..self.without_rows(ObjectOutcome::Quarantined)
        }
    }

    fn without_rows(&self, outcome: ObjectOutcome) -> ProcessedObject {
        ProcessedObject::without_rows(self.record, Some(Arc::clone(self.connector)), outcome)
    }

    /// `None`: it is to be found anew.
    async fn decoded(
        &self,
        version: ObjectVersion,
        bytes: Bytes,
        reservation: Reservation,
    ) -> Result<Option<ProcessedObject>, ProcessError> {
        count_read(self.connector, bytes.len() as u64);
        let rows = self.rows(&version, StoredObject::Memory(bytes.clone())).await?;
        Ok(Some(match rows {
            ObjectRows::Changed => return Ok(None),
            ObjectRows::Fault(fault) => self.quarantined(version, bytes, reservation, fault),
            ObjectRows::Whole(rows) => self.emitted(&version, reservation, Some(*rows), None),
            ObjectRows::Staged(staged) => self.emitted(&version, reservation, None, Some(*staged)),
        }))
    }

    /// The same of one whose stored bytes are not held.
    async fn in_chunks(&self, object: Box<RangedObject>) -> Result<Option<ProcessedObject>, ProcessError> {
        let (version, object) = (object.version().clone(), Arc::new(*object));
        let rows = self.rows(&version, StoredObject::Ranges(Arc::clone(&object))).await?;
        count_read(self.connector, version.size_bytes);
        let reservation = object.reservation();
        Ok(Some(match rows {
            ObjectRows::Changed => return Ok(None),
            ObjectRows::Fault(fault) => {
                let head = 0..version.size_bytes.min(HEAD_BYTES);
                let head = retry(self.reading.retries, "s3", RangeError::kind, || object.read(head.clone())).await;
                let head = match head {
                    Err(RangeError::Changed) => return Ok(None),
                    Err(RangeError::Read(error)) => return Err(error.into()),
                    Ok(head) => head,
                };
                let kept = format!(" (the first {} of {} stored bytes are kept)", head.len(), version.size_bytes);
                let fault = Fault { detail: fault.detail + &kept, ..fault };
                self.quarantined(version, head, reservation, fault)
            }
            ObjectRows::Whole(rows) => self.emitted(&version, reservation, Some(*rows), None),
            ObjectRows::Staged(staged) => self.emitted(&version, reservation, None, Some(*staged)),
        }))
    }

    async fn rows(&self, version: &ObjectVersion, stored: StoredObject) -> Result<ObjectRows, ProcessError> {
        let Reading { topic_partition, message, retries, replaced, manner, staged_as, log, .. } = self.reading;
        let job = ObjectJob {
            connector: Arc::clone(self.connector),
            topic_partition: (*topic_partition).clone(),
            origin: Origin {
                message_offset: message.offset,
                record: self.record,
                time: version.last_modified,
                order_hash: version.order_hash(),
            },
            announced_at: announced_at(message),
            object: version.clone(),
            overrides: self.overrides.clone(),
            manner: *manner,
            staged_as: *staged_as,
            replaced: replaced.map(|replaced| replaced.id),
            log: log.map(|owner| ChunkLog::new(self.context, owner, Some(message.offset))),
        };
        read_object(self.context, job, stored, retries).await
    }

    fn emitted(
        &self,
        version: &ObjectVersion,
        reservation: Reservation,
        rows: Option<ProcessedRows>,
        staged: Option<StagedRows>,
    ) -> ProcessedObject {
        ProcessedObject {
            claim: Some(self.claim(version, false)),
            rows,
            staged,
            reservation: Some(reservation),
            ..self.without_rows(ObjectOutcome::Emitted)
        }
    }
}
