//! One announced object: found, read, decoded, or said what became of it. Nothing here is written anywhere.

use std::sync::Arc;

use bytes::Bytes;

use super::budget::MemoryShare;
use super::careful::KILLED;
use super::context::TransformContext;
use super::decode_rows::{DecodeJob, Input, count_read, decode_rows};
use super::decode_task::Fault;
use super::overrides::Overrides;
use super::process::{
    Manner, ProcessError, ProcessedObject, announced_at, announced_memory, dead_letter, decoded_memory, object_memory,
};
use super::replay::Replaced;
use crate::catalog::{self, CatalogError};
use crate::client::kafka::Message;
use crate::client::postgres;
use crate::client::retry::{RetryPolicy, retry};
use crate::config::{Connector, SourceKind};
use crate::source::notification::{EventKind, ObjectEvent};
use crate::source::object_reader::{Opened, ReadError, ReadOutcome, Reservation};
use crate::types::{
    DeadLetter, ObjectClaim, ObjectOutcome, ObjectVersion, Origin, Overwrite, RejectReason, TopicPartition,
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
}

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
        let replaced_id = self.replaced.map(|replaced| replaced.id);
        // what is held for this object: estimated, then told by the store, then known
        let memory = tokio::sync::Mutex::new((memory, announced_memory(&event)));
        let outcome = retry(self.retries, "s3", ReadError::kind, || async {
            match self.context.objects.open(&event, key_encoding, replaced_id).await? {
                Opened::Ready(object) => {
                    let (memory, held) = &mut *memory.lock().await;
                    let known = object_memory(object.wanted_bytes());
                    memory.correct(std::mem::replace(held, known), known);
                    if self.manner == Manner::SetAside { object.read_head().await } else { object.read().await }
                }
                Opened::Duplicate => Ok(ReadOutcome::Duplicate),
                Opened::Stale => Ok(ReadOutcome::Stale),
                Opened::Missing => Ok(ReadOutcome::Missing),
                Opened::Refused(answer) => Ok(ReadOutcome::Refused(answer)),
            }
        })
        .await?;
        let (memory, held) = memory.into_inner();
        let wanted = Wanted {
            context: self.context,
            connector: &connector,
            message: self.message,
            record: event.record,
            overrides: Overrides::of(self.replaced),
            manner: self.manner,
        };
        let object = match outcome {
            ReadOutcome::Duplicate => without_rows(Some(Arc::clone(&connector)), ObjectOutcome::Duplicate),
            ReadOutcome::Stale => self.gone(event.record, Arc::clone(&connector), ObjectOutcome::Stale).await?,
            ReadOutcome::Missing => self.gone(event.record, Arc::clone(&connector), ObjectOutcome::Missing).await?,
            ReadOutcome::Refused(answer) => self.refused(event.record, Arc::clone(&connector), answer).await?,
            ReadOutcome::Head { version, head, reservation } => {
                let fault = Fault { reason: RejectReason::KilledTheProcess, detail: KILLED.to_owned() };
                wanted.quarantined(version, head, reservation, fault)
            }
            ReadOutcome::TooLarge { version, head, reservation } => {
                let detail =
                    format!("the object has {} bytes, limits.object_bytes_max allows fewer", version.size_bytes);
                let fault = Fault { reason: RejectReason::ObjectTooLarge, detail };
                wanted.quarantined(version, head, reservation, fault)
            }
            ReadOutcome::Read { version, bytes, reservation } => wanted.decoded(version, bytes, reservation).await?,
        };
        let unpacked = object.rows.as_ref().map(|rows| rows.unpacked_bytes);
        if let Some(unpacked) = unpacked.map(decoded_memory) {
            memory.correct(held, unpacked);
        }
        wanted.overrides.correct_object(self.context, self.message.offset, object, self.manner).await
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

/// An object that a connector wants.
struct Wanted<'a> {
    context: &'a Arc<TransformContext>,
    connector: &'a Arc<Connector>,
    message: &'a Message,
    record: i32,
    overrides: Overrides,
    manner: Manner,
}

impl Wanted<'_> {
    fn claim(&self, version: &ObjectVersion, quarantined: bool) -> ObjectClaim {
        ObjectClaim {
            version: version.clone(),
            message_offset: self.message.offset,
            record: self.record,
            connector: self.connector.name.clone(),
            quarantined,
            announced_at: announced_at(self.message),
            overwrite: match self.connector.source.kind {
                SourceKind::Objects { overwrite, .. } => overwrite,
                SourceKind::Records => Overwrite::Append,
            },
        }
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
            message_offset: self.message.offset,
            record: Some(self.record),
            row: None,
            byte_offset: None,
            object: Some(version.location.clone()),
            object_version: Some(version.version.clone()),
            bytes,
        };
        ProcessedObject {
            record: self.record,
            connector: Some(Arc::clone(self.connector)),
            outcome: ObjectOutcome::Quarantined,
            claim: Some(self.claim(&version, true)),
            rows: None,
            dead_letter: Some(letter),
            carried: false,
            reservation: Some(reservation),
        }
    }

    async fn decoded(
        &self,
        version: ObjectVersion,
        bytes: Bytes,
        reservation: Reservation,
    ) -> Result<ProcessedObject, ProcessError> {
        count_read(self.connector, bytes.len() as u64);
        let origin = Origin {
            message_offset: self.message.offset,
            record: self.record,
            time: version.last_modified,
            order_hash: version.order_hash(),
        };
        let job = DecodeJob {
            connector: Arc::clone(self.connector),
            input: Input::Object(bytes.clone()),
            origin,
            object: Some(version.clone()),
            overrides: self.overrides.clone(),
            manner: self.manner,
        };
        let rows = decode_rows(self.context, job).await?;
        Ok(match rows {
            Err(fault) => self.quarantined(version, bytes, reservation, fault),
            Ok(rows) => ProcessedObject {
                record: self.record,
                connector: Some(Arc::clone(self.connector)),
                outcome: ObjectOutcome::Emitted,
                claim: Some(self.claim(&version, false)),
                rows: Some(rows),
                dead_letter: None,
                carried: false,
                reservation: Some(reservation),
            },
        })
    }
}
