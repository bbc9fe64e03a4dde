//! The object reader and the S3 client against a real object store. Each test makes a bucket of its own.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use bytes::Bytes;
use secrecy::SecretString;
use serde_json::json;
use sluice::client::rate::RequestRate;
use sluice::client::s3::{Pin, S3Client};
use sluice::config::{Limits, S3Endpoint};
use sluice::source::notification::{Announcement, ObjectEvent, decode};
use sluice::source::object_reader::{Claims, ClaimsError, ObjectReader};
use sluice::types::{MicroBatchId, ObjectLocation};

mod client;
mod keys;
mod unversioned;
mod versioned;

/// A bucket of its own, and a reader over it whose claims live in memory.
struct Store {
    s3: S3Client,
    bucket: String,
    reader: ObjectReader<&'static MemoryClaims>,
    claims: &'static MemoryClaims,
}

#[derive(Default)]
struct MemoryClaims {
    claimed: Mutex<HashSet<(ObjectLocation, String)>>,
}

impl Claims for &'static MemoryClaims {
    async fn claimed(
        &self,
        location: &ObjectLocation,
        versions: &[String],
        _replaced: Option<MicroBatchId>,
    ) -> Result<HashSet<String>, ClaimsError> {
        let claimed = self.claimed.lock().expect("no test panics while it holds it");
        let is_claimed = |version: &&String| claimed.contains(&(location.clone(), (*version).clone()));
        Ok(versions.iter().filter(is_claimed).cloned().collect())
    }
}

impl MemoryClaims {
    /// As a commit would; false where it was claimed before.
    fn claim(&self, location: &ObjectLocation, version: &str) -> bool {
        self.claimed.lock().expect("no test panics while it holds it").insert((location.clone(), version.to_owned()))
    }
}

pub(crate) fn endpoint() -> S3Endpoint {
    let get = |name: &str| crate::stack::stack().get(&format!("SLUICE_S3__RAW__{name}")).to_owned();
    S3Endpoint {
        endpoint: Some(get("ENDPOINT")),
        region: get("REGION"),
        access_key_id: get("ACCESS_KEY_ID"),
        secret_access_key: SecretString::from(get("SECRET_ACCESS_KEY")),
        path_style: true,
    }
}

fn limits() -> Limits {
    Limits {
        memory_bytes_max: 256 << 20,
        micro_batch_rows_max: 200_000,
        micro_batch_bytes_max: 64 << 20,
        micro_batch_age_max: Duration::from_secs(1),
        micro_batch_offsets_max: 10_000,
        objects_in_flight_max: 16,
        object_bytes_max: 4 << 20,
        unpacked_ratio_max: 500,
        chunk_bytes: 64 << 20,
        record_bytes_max: 1 << 20,
        json_depth_max: 64,
        s3_requests_per_s: None,
        drain_deadline: Duration::from_secs(25),
        start_deadline: Duration::from_mins(1),
        sweep_interval: Duration::from_secs(3600),
        attempts_max: 3,
    }
}

impl Store {
    async fn unversioned() -> Self {
        let s3 = S3Client::new("raw", &endpoint(), RequestRate::default());
        let bucket = format!("objects-{}", uuid::Uuid::new_v4().simple());
        s3.sdk().create_bucket().bucket(&bucket).send().await.expect("a new bucket");
        let claims: &'static MemoryClaims = Box::leak(Box::default());
        let reader = ObjectReader::new(s3.clone(), claims, &limits());
        Self { s3, bucket, reader, claims }
    }

    async fn versioned() -> Self {
        let store = Self::unversioned().await;
        store.set_versioning(BucketVersioningStatus::Enabled).await;
        store
    }

    async fn set_versioning(&self, status: BucketVersioningStatus) {
        let config = VersioningConfiguration::builder().status(status).build();
        let request = self.s3.sdk().put_bucket_versioning().bucket(&self.bucket).versioning_configuration(config);
        request.send().await.expect("versioning is switched");
    }

    /// Gives (etag, version id).
    async fn put(&self, key: &str, content: &str) -> (String, Option<String>) {
        let content = Bytes::copy_from_slice(content.as_bytes());
        let written = self.s3.put(&self.bucket, key, content, None, false).await.expect("it is written");
        (written.etag, written.version_id)
    }

    /// Overwrites the object until the store's clock shows another second than `etag@last-modified` did:
    /// in a bucket without versions a second is all that tells two equal contents apart.
    async fn put_a_second_later(&self, key: &str, content: &str) -> String {
        let before = self.s3.head(&self.bucket, key, Pin::default()).await.expect("it exists").last_modified;
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let (etag, _) = self.put(key, content).await;
            let now = self.s3.head(&self.bucket, key, Pin::default()).await.expect("it exists").last_modified;
            if now > before {
                return etag;
            }
            assert!(Instant::now() < deadline, "the store's clock stands still");
        }
    }
}

/// A notification as AWS would send it, decoded.
fn announced(bucket: &str, key_as_sent: &str, etag: Option<&str>, version_id: Option<&str>) -> ObjectEvent {
    let message = json!({"Records": [{
        "eventVersion": "2.1", "eventSource": "aws:s3", "eventTime": "2026-11-23T10:00:00.000Z",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": bucket, "arn": format!("arn:aws:s3:::{bucket}")},
               "object": {"key": key_as_sent, "size": 1, "eTag": etag, "versionId": version_id}}
    }]});
    only_event(&message)
}

/// The same as versitygw would: key as it is, given away by the ARN.
fn announced_by_versitygw(bucket: &str, key: &str, etag: &str) -> ObjectEvent {
    let message = json!({"Records": [{
        "eventVersion": "2.2", "eventSource": "aws:s3", "eventTime": "2026-11-23T10:00:00Z",
        "eventName": "s3:ObjectCreated:Put",
        "s3": {"bucket": {"name": bucket, "arn": format!("arn:aws:s3:::/{bucket}/{key}")},
               "object": {"key": key, "size": 1, "eTag": format!("\"{etag}\""), "versionId": null}}
    }]});
    only_event(&message)
}

fn only_event(message: &serde_json::Value) -> ObjectEvent {
    match decode(message.to_string().as_bytes()) {
        Ok(Announcement::Objects(mut events)) if events.len() == 1 => events.remove(0),
        other => panic!("one event expected, got {other:?}"),
    }
}
