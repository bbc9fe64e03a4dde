//! From an announced object to the bytes of exactly one version of it.
//!
//! Which version an announcement means:
//! - it names one: that one;
//! - it names none and the bucket keeps versions: the oldest version with the announced ETag that no live
//!   micro-batch has claimed and nobody in this process is reading;
//! - the bucket keeps no versions: what is there now, if it still has the announced ETag. Its version is then
//!   `etag@last-modified`, in whole seconds, because that is all a GET tells.
//!
//! The GET is pinned to that version. A version that is claimed already is a duplicate, and not read.
//! A large object is read in parts, each pinned likewise ([`RangedObject`]): one that is overwritten meanwhile is noticed.
//!
//! # Concurrency
//! Announcements of one key are resolved one after the other, and each holds a [`Reservation`] until its
//! micro-batch is committed or dropped, so that two announcements in flight take two versions where there are
//! two. Between processes nothing is reserved: there the commit finds one version claimed twice, and the loser
//! must call [`ObjectReader::read`] again (its reservation dropped before), not write the object off: a second
//! version with that ETag may be waiting.
//!
//! # Retries
//! A missing object is looked for a few times within two seconds; some stores announce earlier than they
//! show. Other errors go to the caller with their kind.
//!
//! # Cancellation
//! Futures may be dropped at any time; reservations and permits go with them.

use std::collections::HashSet;
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::notification::ObjectEvent;
use crate::client::s3::{OpenObject, Pin, S3Client, S3Error, Versioning};
use crate::config::{KeyEncoding, Limits};
use crate::error::{ErrorKind, chain};
use crate::types::{MicroBatchId, ObjectLocation, ObjectVersion};

mod ranged;
mod reservation;
mod version;
mod versioning;

pub use ranged::{RangeError, RangedObject};
pub use reservation::Reservation;
use reservation::Reservations;
use version::{choose, identity, matching};
use versioning::VersioningCache;

/// How long to wait before each further look for a missing object.
const MISSING_WAITS: &[Duration] =
    &[Duration::from_millis(200), Duration::from_millis(500), Duration::from_millis(1200)];

/// What is kept of an object that is too large.
const HEAD_BYTES: u64 = 1 << 20;

/// Which object versions live micro-batches have claimed: what the catalog knows.
pub trait Claims: Send + Sync {
    /// Those of `versions` that are claimed, by another micro-batch than `replaced`. Must see every commit that
    /// finished before the call.
    fn claimed(
        &self,
        location: &ObjectLocation,
        versions: &[String],
        replaced: Option<MicroBatchId>,
    ) -> impl Future<Output = Result<HashSet<String>, ClaimsError>> + Send;
}

/// Why claims could not be looked up; the catalog's own error and kind.
#[derive(Debug)]
pub struct ClaimsError {
    pub kind: ErrorKind,
    pub source: Box<dyn Error + Send + Sync>,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Store(#[from] S3Error),
    #[error("cannot look up who claimed object `{key}` of bucket `{bucket}`")]
    Claims {
        bucket: String,
        key: String,
        kind: ErrorKind,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl ReadError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Claims { kind, .. } => *kind,
        }
    }
}

/// What became of an announced object.
#[derive(Debug)]
pub enum ReadOutcome {
    Read {
        version: ObjectVersion,
        bytes: Bytes,
        reservation: Reservation,
    },
    /// Larger than `limits.object_bytes_max` as stored; `head` is its first MiB.
    TooLarge {
        version: ObjectVersion,
        head: Bytes,
        reservation: Reservation,
    },
    /// Its first MiB, where no more was asked for.
    Head {
        version: ObjectVersion,
        head: Bytes,
        reservation: Reservation,
    },
    /// Every version that it can mean is claimed.
    Duplicate,
    /// It was overwritten before it could be read.
    Stale,
    Missing,
    /// It is there, perhaps, and the store does not hand it out, today as tomorrow: what it said.
    Refused(String),
}

/// The same before the body is read.
#[derive(Debug)]
pub enum Opened {
    Ready(Box<OpenedObject>),
    Duplicate,
    Stale,
    Missing,
    Refused(String),
}

/// A version whose headers have come and whose body waits. Holds one of `limits.objects_in_flight_max`
/// permits and a connection: read it soon or drop it.
#[derive(Debug)]
pub struct OpenedObject {
    version: ObjectVersion,
    /// As the store names it.
    version_id: Option<String>,
    body: OpenObject,
    is_too_large: bool,
    reservation: Reservation,
    permit: OwnedSemaphorePermit,
}

impl OpenedObject {
    pub fn version(&self) -> &ObjectVersion {
        &self.version
    }

    /// Takes it as [`ReadOutcome::TooLarge`] where it has more stored bytes.
    pub fn refuse_beyond(&mut self, bytes_max: u64) {
        self.is_too_large = self.is_too_large || self.version.size_bytes > bytes_max;
    }

    /// Whether it has more stored bytes and may be read.
    pub fn is_longer_than(&self, bytes: u64) -> bool {
        !self.is_too_large && self.version.size_bytes > bytes
    }

    /// Memory that [`OpenedObject::read`] will take.
    pub fn wanted_bytes(&self) -> u64 {
        if self.is_too_large { HEAD_BYTES } else { self.version.size_bytes }
    }

    /// Gives [`ReadOutcome::Head`].
    pub async fn read_head(self) -> Result<ReadOutcome, ReadError> {
        let Self { version, body, reservation, .. } = self;
        let head = body.read_first(HEAD_BYTES).await?;
        Ok(ReadOutcome::Head { version, head, reservation })
    }

    /// Gives [`ReadOutcome::Read`] or [`ReadOutcome::TooLarge`].
    pub async fn read(self) -> Result<ReadOutcome, ReadError> {
        let Self { version, body, is_too_large, reservation, permit, .. } = self;
        let outcome = if is_too_large {
            let head = body.read_first(HEAD_BYTES).await?;
            ReadOutcome::TooLarge { version, head, reservation }
        } else {
            let bytes = body.read_all().await?;
            ReadOutcome::Read { version, bytes, reservation }
        };
        drop(permit);
        Ok(outcome)
    }
}

/// Resolves and reads announced objects of one store. One per process: reservations are its own.
pub struct ObjectReader<C> {
    s3: S3Client,
    claims: C,
    versioning: VersioningCache,
    reservations: Reservations,
    in_flight: Arc<Semaphore>,
    object_bytes_max: u64,
}

impl<C: Claims> ObjectReader<C> {
    pub fn new(s3: S3Client, claims: C, limits: &Limits) -> Self {
        Self {
            s3,
            claims,
            versioning: VersioningCache::default(),
            reservations: Reservations::default(),
            in_flight: Arc::new(Semaphore::new(limits.objects_in_flight_max.max(1))),
            object_bytes_max: limits.object_bytes_max,
        }
    }

    /// Resolves and reads.
    pub async fn read(&self, event: &ObjectEvent, encoding: KeyEncoding) -> Result<ReadOutcome, ReadError> {
        match self.open(event, encoding, None).await? {
            Opened::Ready(object) => object.read().await,
            Opened::Duplicate => Ok(ReadOutcome::Duplicate),
            Opened::Stale => Ok(ReadOutcome::Stale),
            Opened::Missing => Ok(ReadOutcome::Missing),
            Opened::Refused(answer) => Ok(ReadOutcome::Refused(answer)),
        }
    }

    /// Whether a live micro-batch, another than `replaced`, has claimed the version by now.
    pub async fn is_claimed(&self, version: &ObjectVersion, replaced: Option<MicroBatchId>) -> Result<bool, ReadError> {
        Resolution { reader: self, replaced }.is_claimed(&version.location, &version.version).await
    }

    /// Goes on to read an object in parts.
    pub fn in_ranges(&self, object: OpenedObject) -> RangedObject {
        let OpenedObject { version, version_id, reservation, permit, .. } = object;
        RangedObject::new(self.s3.clone(), version, version_id, reservation, permit)
    }

    /// The versions of an object as claims name them, the oldest first.
    pub async fn versions(&self, location: &ObjectLocation) -> Result<Vec<String>, ReadError> {
        let listed = self.s3.list_versions(&location.bucket, &location.key).await?;
        Ok(matching(&listed, None).into_iter().map(|candidate| candidate.version).collect())
    }

    /// Resolves and waits for the headers, for callers that reserve memory before they read. In a replay
    /// `replaced` is the micro-batch whose claims do not count, because it goes when the new one comes.
    pub async fn open(
        &self,
        event: &ObjectEvent,
        encoding: KeyEncoding,
        replaced: Option<MicroBatchId>,
    ) -> Result<Opened, ReadError> {
        let locations: Vec<ObjectLocation> = event
            .key_candidates(encoding)
            .into_iter()
            .map(|key| ObjectLocation { bucket: event.bucket.clone(), key })
            .collect();
        let resolution = Resolution { reader: self, replaced };
        let mut waits = MISSING_WAITS.iter();
        loop {
            match (resolution.open_any(event, &locations).await?, waits.next()) {
                (Opened::Missing, Some(wait)) => tokio::time::sleep(*wait).await,
                (opened, _) => return Ok(opened),
            }
        }
    }
}

/// One announcement on its way to a version.
struct Resolution<'a, C> {
    reader: &'a ObjectReader<C>,
    replaced: Option<MicroBatchId>,
}

impl<C: Claims> Resolution<'_, C> {
    /// The first spelling under which there is something to say.
    async fn open_any(&self, event: &ObjectEvent, locations: &[ObjectLocation]) -> Result<Opened, ReadError> {
        let mut nothing = Opened::Missing;
        for location in locations {
            match self.open_at(event, location).await? {
                Opened::Missing => {}
                Opened::Stale => nothing = Opened::Stale,
                found => return Ok(found),
            }
        }
        Ok(nothing)
    }

    async fn open_at(&self, event: &ObjectEvent, location: &ObjectLocation) -> Result<Opened, ReadError> {
        if let Some(version_id) = &event.version_id {
            return self.open_version(location, version_id).await;
        }
        let etag = event.etag.as_deref();
        let (versioning, is_remembered) = self.reader.versioning.of(&self.reader.s3, &location.bucket).await?;
        if versioning != Versioning::Off {
            return self.open_listed(location, etag).await;
        }
        let opened = self.open_current(location, etag).await?;
        if is_remembered && matches!(opened, Opened::Stale | Opened::Missing) {
            // the bucket may have begun to keep versions; then the announced one may still be there
            self.reader.versioning.forget(&location.bucket);
            if self.reader.versioning.of(&self.reader.s3, &location.bucket).await?.0 != Versioning::Off {
                return self.open_listed(location, etag).await;
            }
        }
        Ok(opened)
    }

    /// The announcement names the version.
    async fn open_version(&self, location: &ObjectLocation, version_id: &str) -> Result<Opened, ReadError> {
        let key = self.reader.reservations.lock(location).await;
        if self.is_claimed(location, version_id).await? {
            return Ok(Opened::Duplicate);
        }
        let reservation = key.reserve(version_id);
        drop(key);
        let pin = Pin { version_id: Some(version_id), etag: None };
        self.open_pinned(location, pin, |_| version_id.to_owned(), reservation).await
    }

    /// The announcement names no version, the bucket keeps them.
    async fn open_listed(&self, location: &ObjectLocation, etag: Option<&str>) -> Result<Opened, ReadError> {
        let key = self.reader.reservations.lock(location).await;
        let listed = {
            let _permit = self.permit().await;
            self.reader.s3.list_versions(&location.bucket, &location.key).await?
        };
        if listed.is_empty() {
            return Ok(Opened::Missing);
        }
        let candidates = matching(&listed, etag);
        if candidates.is_empty() {
            return Ok(Opened::Stale);
        }
        // Reservations first, claims second: a micro-batch commits before it gives its reservations up, so
        // what is neither reserved now nor claimed a moment later is free.
        let reserved = key.reserved();
        let versions: Vec<String> = candidates.iter().map(|candidate| candidate.version.clone()).collect();
        let claimed = self.claimed(location, &versions).await?;
        let Some(chosen) = choose(&candidates, &claimed, &reserved) else {
            return Ok(Opened::Duplicate);
        };
        let reservation = key.reserve(&chosen.version);
        drop(key);
        // what is written while versions are suspended overwrites: pin its content, too
        let is_null = chosen.listed.version_id == "null";
        let pin =
            Pin { version_id: Some(&chosen.listed.version_id), etag: is_null.then_some(chosen.listed.etag.as_str()) };
        let opened = self.open_pinned(location, pin, |_| chosen.version.clone(), reservation).await?;
        Ok(match opened {
            Opened::Ready(mut object) => {
                // finer than the header's
                object.version.last_modified = chosen.listed.last_modified;
                Opened::Ready(object)
            }
            other => other,
        })
    }

    /// The bucket keeps no versions.
    async fn open_current(&self, location: &ObjectLocation, etag: Option<&str>) -> Result<Opened, ReadError> {
        let unsettled = self.reader.reservations.lock(location).await.reserve("");
        let pin = Pin { version_id: None, etag };
        let opened = self
            .open_pinned(
                location,
                pin,
                |body| {
                    let head = body.head();
                    match head.version_id.as_deref() {
                        None | Some("null") => identity(&head.etag, head.last_modified),
                        Some(version_id) => version_id.to_owned(),
                    }
                },
                unsettled,
            )
            .await?;
        let Opened::Ready(mut object) = opened else { return Ok(opened) };
        if self.is_claimed(location, &object.version.version).await? {
            return Ok(Opened::Duplicate);
        }
        object.reservation.rename(&object.version.version);
        Ok(Opened::Ready(object))
    }

    async fn open_pinned(
        &self,
        location: &ObjectLocation,
        pin: Pin<'_>,
        name: impl FnOnce(&OpenObject) -> String,
        reservation: Reservation,
    ) -> Result<Opened, ReadError> {
        let permit = self.permit().await;
        let body = match self.reader.s3.open(&location.bucket, &location.key, pin).await {
            Ok(body) => body,
            Err(error) if error.is_missing() => return Ok(Opened::Missing),
            Err(error) if error.is_precondition_failed() => return Ok(Opened::Stale),
            Err(error) if error.is_object_refused() => return Ok(Opened::Refused(chain(&error))),
            Err(error) => return Err(error.into()),
        };
        let head = body.head();
        let version = ObjectVersion {
            location: location.clone(),
            version: name(&body),
            etag: head.etag.clone(),
            last_modified: head.last_modified,
            size_bytes: head.size_bytes,
        };
        let is_too_large = version.size_bytes > self.reader.object_bytes_max;
        let version_id = pin.version_id.map(ToOwned::to_owned).or_else(|| head.version_id.clone());
        let opened = OpenedObject { version, version_id, body, is_too_large, reservation, permit };
        Ok(Opened::Ready(Box::new(opened)))
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.reader.in_flight).acquire_owned().await.expect("the semaphore is never closed")
    }

    async fn is_claimed(&self, location: &ObjectLocation, version: &str) -> Result<bool, ReadError> {
        Ok(self.claimed(location, &[version.to_owned()]).await?.contains(version))
    }

    async fn claimed(&self, location: &ObjectLocation, versions: &[String]) -> Result<HashSet<String>, ReadError> {
        self.reader.claims.claimed(location, versions, self.replaced).await.map_err(|error| ReadError::Claims {
            bucket: location.bucket.clone(),
            key: location.key.clone(),
            kind: error.kind,
            source: error.source,
        })
    }
}
