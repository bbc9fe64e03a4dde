//! The object store, as Sluice uses it: pinned reads, checked writes, copies, listings.
//!
//! # Retries
//! None here: every call is one request ([`crate::client::retry`] tries again), so that waits, counts and
//! log lines lie in one place. Reads are idempotent; writes are made so by unique keys and conditions.
//!
//! # Integrity
//! A body is accepted whole or not at all: its length must be the announced one and match the checksum
//! where the server sends one. Writes carry a SHA-256 that the server verifies before it answers.
//!
//! # Cancellation
//! Futures may be dropped at any time; a dropped write may have happened.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketVersioningStatus, ChecksumMode, Delete, MetadataDirective, ObjectIdentifier};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use super::rate::RequestRate;
use crate::config::S3Endpoint;

mod body;
mod error;
mod list;
#[cfg(test)]
mod tests;

pub use body::OpenObject;
use error::Place;
pub use error::{Failure, FailureClass, S3Error};
pub use list::{ListPage, ListedObject, ListedVersion};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// To the first byte of the answer, the sending of the request included: 128 MiB at 2 MB/s take a minute.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(2);
/// A body that stands still for this long is given up.
const STALL_TIMEOUT: Duration = Duration::from_secs(20);

/// What RFC 3986 leaves unreserved, and the slashes of keys.
const COPY_SOURCE_LEAVES: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// One object store. Clones share connections and rate.
#[derive(Debug, Clone)]
pub struct S3Client {
    sdk: Client,
    rate: RequestRate,
    place: Place,
    owner: Option<String>,
}

/// Metadata of every object that is written for somebody.
const OWNER: &str = "sluice-catalog";

/// Which state of an object is meant; both `None`: whatever is current.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pin<'a> {
    pub version_id: Option<&'a str>,
    /// Without quotes.
    pub etag: Option<&'a str>,
}

/// What the store says about an object version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectHead {
    /// `None` where the bucket keeps no versions; `null` for what was written while it kept none.
    pub version_id: Option<String>,
    /// Without quotes.
    pub etag: String,
    /// Whole seconds: HTTP has no finer.
    pub last_modified: DateTime<Utc>,
    pub size_bytes: u64,
    /// Where the store keeps one.
    pub sha256: Option<[u8; 32]>,
}

/// What a write made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Without quotes.
    pub etag: String,
    pub version_id: Option<String>,
}

/// Whether a bucket keeps versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versioning {
    /// Never did.
    Off,
    /// New objects get version ids.
    Enabled,
    /// Did, and has old versions perhaps; new objects get the version id `null`.
    Suspended,
}

impl S3Client {
    /// `section` names the settings (`raw`, `lake`) in messages. Sends nothing yet.
    pub fn new(section: &'static str, endpoint: &S3Endpoint, rate: RequestRate) -> Self {
        let credentials = Credentials::new(
            endpoint.access_key_id.clone(),
            endpoint.secret_access_key.expose_secret(),
            None,
            None,
            "sluice settings",
        );
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(endpoint.region.clone()))
            .credentials_provider(credentials)
            .force_path_style(endpoint.path_style)
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(ANSWER_TIMEOUT).build(),
            )
            .stalled_stream_protection(StalledStreamProtectionConfig::enabled().grace_period(STALL_TIMEOUT).build())
            // Where we write we give the SHA-256 ourselves; the SDK's default besides is a CRC that older
            // servers of other makers refuse. Where we read we check whatever the server has.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenSupported);
        if let Some(address) = &endpoint.endpoint {
            config = config.endpoint_url(address.clone());
        }
        let address = endpoint.endpoint.clone().unwrap_or_else(|| format!("AWS ({})", endpoint.region));
        Self { sdk: Client::from_conf(config.build()), rate, place: Place { section, address }, owner: None }
    }

    /// Marks what it writes: `owner` must be plain ASCII. Copies keep the mark.
    #[must_use]
    pub fn owned_by(self, owner: impl ToString) -> Self {
        Self { owner: Some(owner.to_string()), ..self }
    }

    /// Whether an object bears this client's mark. `false` where it is gone, or where there is no mark.
    pub async fn is_owned(&self, bucket: &str, key: &str) -> Result<bool, S3Error> {
        self.rate.until_ready().await;
        match self.sdk.head_object().bucket(bucket).key(key).send().await {
            Ok(output) => {
                let mark = output.metadata().and_then(|metadata| metadata.get(OWNER));
                Ok(mark.is_some() && mark == self.owner.as_ref())
            }
            Err(error) => {
                let source = self.place.failure(bucket, error).of_head();
                let error = S3Error::Head { bucket: bucket.to_owned(), key: key.to_owned(), source };
                if error.is_missing() { Ok(false) } else { Err(error) }
            }
        }
    }

    /// The SDK's client, for what only tests, tools and `doctor` need; unlimited in rate.
    pub fn sdk(&self) -> &Client {
        &self.sdk
    }

    /// Where requests go, for people.
    pub fn address(&self) -> &str {
        &self.place.address
    }

    /// Starts to read; the body follows by [`OpenObject::read_all`] or is dropped unread.
    pub async fn open(&self, bucket: &str, key: &str, pin: Pin<'_>) -> Result<OpenObject, S3Error> {
        self.get(bucket, key, pin, None).await
    }

    /// A part of an object, as [`S3Client::open`] begins; its head's `size_bytes` are those of the part. Checked by its
    /// length alone: a checksum is that of the whole object.
    pub async fn open_range(
        &self,
        bucket: &str,
        key: &str,
        pin: Pin<'_>,
        range: Range<u64>,
    ) -> Result<OpenObject, S3Error> {
        let len = range.end - range.start;
        let part = self.get(bucket, key, pin, Some(range)).await?;
        if part.head.size_bytes != len {
            let what = format!("asked for {len} bytes, {} are announced", part.head.size_bytes);
            return Err(get_error(bucket, key, self.place.corrupt(&what, None)));
        }
        Ok(part)
    }

    async fn get(
        &self,
        bucket: &str,
        key: &str,
        pin: Pin<'_>,
        range: Option<Range<u64>>,
    ) -> Result<OpenObject, S3Error> {
        self.rate.until_ready().await;
        let request = self
            .sdk
            .get_object()
            .bucket(bucket)
            .key(key)
            .set_version_id(pin.version_id.map(ToOwned::to_owned))
            .set_if_match(pin.etag.map(quoted))
            .set_checksum_mode(range.is_none().then_some(ChecksumMode::Enabled))
            .set_range(range.as_ref().map(|range| format!("bytes={}-{}", range.start, range.end.saturating_sub(1))));
        let sent = if range.is_none() {
            request.send().await
        } else {
            // settings of its own are made anew for each request, which costs as much as a small one
            let validation = ResponseChecksumValidation::WhenRequired;
            let settings = aws_sdk_s3::config::Builder::new().response_checksum_validation(validation);
            request.customize().config_override(settings).send().await
        };
        let output = sent.map_err(|error| {
            get_error(bucket, key, self.place.failure(bucket, error).of_version(pin.version_id).of_object())
        })?;
        let checksum = output.checksum_sha256().filter(|_| range.is_none());
        let head =
            head_of(output.version_id(), output.e_tag(), output.last_modified(), output.content_length(), checksum)
                .map_err(|what| get_error(bucket, key, self.place.corrupt(&what, None)))?;
        Ok(OpenObject { client: self.clone(), bucket: bucket.to_owned(), key: key.to_owned(), head, body: output.body })
    }

    /// Without the body. An answer to HEAD has no words: a missing bucket, and on some servers an unknown
    /// user, look like a missing object. Where that matters, use [`S3Client::open`].
    pub async fn head(&self, bucket: &str, key: &str, pin: Pin<'_>) -> Result<ObjectHead, S3Error> {
        self.rate.until_ready().await;
        let failed = |source| S3Error::Head { bucket: bucket.to_owned(), key: key.to_owned(), source };
        let output = self
            .sdk
            .head_object()
            .bucket(bucket)
            .key(key)
            .set_version_id(pin.version_id.map(ToOwned::to_owned))
            .set_if_match(pin.etag.map(quoted))
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await
            .map_err(|error| failed(self.place.failure(bucket, error).of_version(pin.version_id).of_head()))?;
        head_of(
            output.version_id(),
            output.e_tag(),
            output.last_modified(),
            output.content_length(),
            output.checksum_sha256(),
        )
        .map_err(|what| failed(self.place.corrupt(&what, None)))
    }

    /// Writes an object whole. `sha256` is that of `bytes`, computed here where `None`; the server checks it.
    /// `if_none_match`: fail ([`S3Error::is_precondition_failed`]) where the key exists.
    pub async fn put(
        &self,
        bucket: &str,
        key: &str,
        bytes: Bytes,
        sha256: Option<[u8; 32]>,
        if_none_match: bool,
    ) -> Result<Written, S3Error> {
        self.rate.until_ready().await;
        let sha256 = sha256.unwrap_or_else(|| Sha256::digest(&bytes).into());
        let output = self
            .sdk
            .put_object()
            .bucket(bucket)
            .key(key)
            .checksum_sha256(aws_smithy_types::base64::encode(sha256))
            .set_metadata(self.owner.clone().map(|owner| HashMap::from([(OWNER.to_owned(), owner)])))
            .set_if_none_match(if_none_match.then(|| "*".to_owned()))
            .body(ByteStream::from(bytes))
            .send()
            .await
            .map_err(|error| S3Error::Put {
                bucket: bucket.to_owned(),
                key: key.to_owned(),
                source: self.place.failure(bucket, error),
            })?;
        Ok(Written { etag: unquoted(output.e_tag()), version_id: output.version_id().map(ToOwned::to_owned) })
    }

    /// Copies within a bucket, on the server; up to 5 GiB.
    /// Source: Amazon S3 API Reference, CopyObject (up to 5 GB in one call), read 2026-11.
    /// `if_match` (without quotes): fail where the source has another ETag.
    pub async fn copy(&self, bucket: &str, from: &str, to: &str, if_match: Option<&str>) -> Result<Written, S3Error> {
        self.rate.until_ready().await;
        let source = utf8_percent_encode(&format!("{bucket}/{from}"), COPY_SOURCE_LEAVES).to_string();
        let output = self
            .sdk
            .copy_object()
            .bucket(bucket)
            .key(to)
            .copy_source(source)
            .metadata_directive(MetadataDirective::Copy)
            .set_copy_source_if_match(if_match.map(quoted))
            .send()
            .await
            .map_err(|error| S3Error::Copy {
                bucket: bucket.to_owned(),
                from: from.to_owned(),
                to: to.to_owned(),
                source: self.place.failure(bucket, error),
            })?;
        let etag = output.copy_object_result().and_then(|result| result.e_tag());
        Ok(Written { etag: unquoted(etag), version_id: output.version_id().map(ToOwned::to_owned) })
    }

    /// Deletes objects by the thousand; a missing one is as good.
    /// Source: Amazon S3 API Reference, DeleteObjects (up to 1000 keys), read 2026-11.
    pub async fn delete_all(&self, bucket: &str, keys: &[&str]) -> Result<(), S3Error> {
        for keys in keys.chunks(1000) {
            self.rate.until_ready().await;
            let identified = keys.iter().map(|key| ObjectIdentifier::builder().key(*key).build());
            let identified = identified.collect::<Result<Vec<_>, _>>().expect("each has a key");
            let delete = Delete::builder().set_objects(Some(identified)).quiet(true).build();
            let delete = delete.expect("there is at least one");
            let output = self.sdk.delete_objects().bucket(bucket).delete(delete).send().await.map_err(|error| {
                let source = self.place.failure(bucket, error);
                S3Error::Delete { bucket: bucket.to_owned(), key: keys[0].to_owned(), source }
            })?;
            // one by one, for an error of its own
            for key in output.errors().iter().filter_map(|error| error.key()) {
                self.delete(bucket, key).await?;
            }
        }
        Ok(())
    }

    /// Deletes what is current; where the bucket keeps versions this only hides it. No error where there is nothing.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<(), S3Error> {
        self.rate.until_ready().await;
        match self.sdk.delete_object().bucket(bucket).key(key).send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let source = self.place.failure(bucket, error);
                let error = S3Error::Delete { bucket: bucket.to_owned(), key: key.to_owned(), source };
                if error.is_missing() { Ok(()) } else { Err(error) }
            }
        }
    }

    /// Servers that know nothing of versions count as [`Versioning::Off`].
    pub async fn versioning(&self, bucket: &str) -> Result<Versioning, S3Error> {
        self.rate.until_ready().await;
        match self.sdk.get_bucket_versioning().bucket(bucket).send().await {
            Ok(output) => Ok(match output.status() {
                Some(BucketVersioningStatus::Enabled) => Versioning::Enabled,
                Some(BucketVersioningStatus::Suspended) => Versioning::Suspended,
                _ => Versioning::Off,
            }),
            Err(error) => {
                let source = self.place.failure(bucket, error);
                let error = S3Error::GetVersioning { bucket: bucket.to_owned(), source };
                if error.is_unsupported() { Ok(Versioning::Off) } else { Err(error) }
            }
        }
    }

    /// That the bucket exists and the credentials open it.
    pub async fn check_bucket(&self, bucket: &str) -> Result<(), S3Error> {
        // a listing of nothing, not HeadBucket: its errors come with a code and words
        self.rate.until_ready().await;
        let answer = self.sdk.list_objects_v2().bucket(bucket).max_keys(1).send().await;
        let failed =
            |error| S3Error::HeadBucket { bucket: bucket.to_owned(), source: self.place.failure(bucket, error) };
        answer.map(|_| ()).map_err(failed)
    }
}

fn get_error(bucket: &str, key: &str, source: Failure) -> S3Error {
    S3Error::Get { bucket: bucket.to_owned(), key: key.to_owned(), source }
}

fn head_of(
    version_id: Option<&str>,
    etag: Option<&str>,
    last_modified: Option<&aws_smithy_types::DateTime>,
    content_length: Option<i64>,
    sha256: Option<&str>,
) -> Result<ObjectHead, String> {
    let last_modified = last_modified.and_then(time).ok_or("the answer lacks a valid Last-Modified")?;
    let size_bytes = content_length.and_then(|length| u64::try_from(length).ok());
    Ok(ObjectHead {
        version_id: version_id.filter(|id| !id.is_empty()).map(ToOwned::to_owned),
        etag: unquoted(etag),
        last_modified,
        size_bytes: size_bytes.ok_or("the answer lacks a Content-Length")?,
        sha256: sha256.and_then(|text| aws_smithy_types::base64::decode(text).ok()?.try_into().ok()),
    })
}

fn time(time: &aws_smithy_types::DateTime) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.secs(), time.subsec_nanos())
}

fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

fn unquoted(etag: Option<&str>) -> String {
    etag.unwrap_or_default().trim_matches('"').to_owned()
}
