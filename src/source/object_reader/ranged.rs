//! A large object, read in parts: each part is a GET of its own that can be tried again.

use std::ops::Range;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::{ReadError, Reservation};
use crate::client::s3::{Pin, S3Client};
use crate::error::ErrorKind;
use crate::types::ObjectVersion;

/// A version that waits to be read. Holds one of `limits.objects_in_flight_max` permits, and no connection.
#[derive(Debug)]
pub struct RangedObject {
    s3: S3Client,
    version: ObjectVersion,
    /// As the store names it; `None` where the bucket keeps no versions.
    version_id: Option<String>,
    reservation: Reservation,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// It is gone, or another object by now: find the announced one anew.
    #[error("the object was overwritten or deleted while it was read")]
    Changed,
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl RangeError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Changed => ErrorKind::Invalid,
            Self::Read(error) => error.kind(),
        }
    }
}

impl RangedObject {
    pub(super) fn new(
        s3: S3Client,
        version: ObjectVersion,
        version_id: Option<String>,
        reservation: Reservation,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self { s3, version, version_id, reservation, _permit: permit }
    }

    pub fn version(&self) -> &ObjectVersion {
        &self.version
    }

    /// Keeps the version from others beyond the reading.
    pub fn reservation(&self) -> Reservation {
        self.reservation.again()
    }

    /// Stored bytes of exactly this version, all of them or an error.
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes, RangeError> {
        let location = &self.version.location;
        // a version that is called `null` may be overwritten, and so may what has none
        let etag = Some(self.version.etag.as_str()).filter(|etag| !etag.is_empty());
        let pin = Pin { version_id: self.version_id.as_deref(), etag };
        let changed = |error: crate::client::s3::S3Error| {
            if error.is_missing() || error.is_precondition_failed() {
                RangeError::Changed
            } else {
                RangeError::Read(error.into())
            }
        };
        let part = self.s3.open_range(&location.bucket, &location.key, pin, range).await.map_err(changed)?;
        if part.head().etag != self.version.etag {
            return Err(RangeError::Changed);
        }
        part.read_all().await.map_err(changed)
    }
}
