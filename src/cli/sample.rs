//! Objects for commands that only look: local files without any server, or `s3://bucket/key`.

use std::path::Path;

use anyhow::Context;
use bytes::Bytes;

use crate::client::rate::RequestRate;
use crate::client::s3::{Pin, S3Client};
use crate::config::{Need, Settings};

/// Where objects to look at are.
pub(super) enum Sampled<'a> {
    File(&'a Path),
    /// Bucket, and key or prefix.
    Store(&'a str, &'a str),
}

impl<'a> Sampled<'a> {
    pub(super) fn parse(place: &'a str) -> anyhow::Result<Self> {
        let Some(rest) = place.strip_prefix("s3://") else { return Ok(Self::File(Path::new(place))) };
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        anyhow::ensure!(!bucket.is_empty(), "`{place}` names no bucket: write s3://bucket/key");
        Ok(Self::Store(bucket, key))
    }

    /// What the command needs of the settings.
    pub(super) fn needs(&self) -> &'static [Need] {
        match self {
            Self::File(_) => &[],
            Self::Store(..) => &[Need::Raw],
        }
    }

    /// The whole object, as it is stored.
    pub(super) async fn read(&self, settings: &Settings) -> anyhow::Result<Bytes> {
        match self {
            Self::File(path) => {
                let read = tokio::fs::read(path).await;
                Ok(read.with_context(|| format!("could not read {}", path.display()))?.into())
            }
            Self::Store(bucket, key) => {
                let object = store(settings).open(bucket, key, Pin::default()).await?;
                Ok(object.read_all().await?)
            }
        }
    }
}

/// The store of raw objects.
pub(super) fn store(settings: &Settings) -> S3Client {
    S3Client::new("raw", &settings.s3.raw, RequestRate::new(settings.limits.s3_requests_per_s))
}
