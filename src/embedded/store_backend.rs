//! The S3 operations that Sluice and ordinary clients use, over [`StoreFiles`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rdkafka::producer::{FutureProducer, FutureRecord};
use s3s::dto::{
    CommonPrefix, CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, CreateBucketInput,
    CreateBucketOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, ETag,
    ETagCondition, GetBucketVersioningInput, GetBucketVersioningOutput, GetObjectInput, GetObjectOutput,
    HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output,
    Object, PutObjectInput, PutObjectOutput, StreamingBlob, Timestamp,
};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use sha2::{Digest, Sha256};

use super::store_files::{ObjectInfo, Refusal, StoreFiles};

/// Source: Amazon S3 API Reference, ListObjectsV2 (up to 1,000 keys a page), read 2026-11.
const PAGE_KEYS_MAX: i32 = 1_000;
/// What form encoding leaves as it is, and the slash, as AWS announces keys.
const KEY_LEAVES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'*').remove(b'/');

pub(super) struct Backend {
    pub(super) files: Arc<StoreFiles>,
    pub(super) announcer: Option<Announcer>,
}

/// Announces new objects as S3 does.
pub(super) struct Announcer {
    producer: FutureProducer,
    topic: String,
    bucket: String,
    sequence: AtomicU64,
}

impl Announcer {
    pub(super) fn new(producer: FutureProducer, topic: String, bucket: String) -> Self {
        Self { producer, topic, bucket, sequence: AtomicU64::new(1) }
    }

    async fn announce(&self, bucket: &str, key: &str, info: &ObjectInfo, event: &str) -> S3Result<()> {
        if bucket != self.bucket {
            return Ok(());
        }
        let payload = self.message(bucket, key, info, event).to_string();
        let message_key = format!("{bucket}/{key}");
        let record = FutureRecord::to(&self.topic).key(&message_key).payload(&payload);
        match self.producer.send(record, Duration::from_secs(10)).await {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(s3_error!(ServiceUnavailable, "the object is stored but not announced: {error}")),
        }
    }

    fn message(&self, bucket: &str, key: &str, info: &ObjectInfo, event: &str) -> serde_json::Value {
        let encoded = utf8_percent_encode(key, KEY_LEAVES).to_string().replace("%20", "+");
        let time = chrono::DateTime::<chrono::Utc>::from(info.modified);
        serde_json::json!({"Records": [{
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": "us-east-1",
            "eventTime": time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            "eventName": event,
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "embedded",
                "bucket": {"name": bucket, "arn": format!("arn:aws:s3:::{bucket}")},
                "object": {
                    "key": encoded,
                    "size": info.size,
                    "eTag": info.etag,
                    "sequencer": format!("{:016X}", self.sequence.fetch_add(1, Ordering::Relaxed)),
                },
            },
        }]})
    }
}

impl Backend {
    fn check_bucket(&self, bucket: &str) -> S3Result<()> {
        if self.files.has_bucket(bucket) { Ok(()) } else { Err(s3_error!(NoSuchBucket)) }
    }

    fn info(&self, bucket: &str, key: &str) -> S3Result<ObjectInfo> {
        self.check_bucket(bucket)?;
        self.files.info(bucket, key).ok_or_else(|| s3_error!(NoSuchKey))
    }

    async fn read(&self, bucket: String, key: String) -> S3Result<(ObjectInfo, Bytes)> {
        self.check_bucket(&bucket)?;
        let files = Arc::clone(&self.files);
        let read = tokio::task::spawn_blocking(move || files.read(&bucket, &key)).await;
        read.map_err(|error| s3_error!(InternalError, "{error}"))?.ok_or_else(|| s3_error!(NoSuchKey))
    }

    async fn write(&self, bucket: String, key: String, bytes: Bytes, only_new: bool) -> S3Result<ObjectInfo> {
        self.check_bucket(&bucket)?;
        let files = Arc::clone(&self.files);
        let written = tokio::task::spawn_blocking(move || files.write(&bucket, &key, &bytes, only_new)).await;
        written.map_err(|error| s3_error!(InternalError, "{error}"))?.map_err(|refusal| match refusal {
            Refusal::AlreadyExists => s3_error!(PreconditionFailed),
            Refusal::KeyNotStorable => s3_error!(InvalidArgument, "this store cannot keep an object under that key"),
            Refusal::Io(error) => s3_error!(InternalError, "{error}"),
        })
    }

    async fn announce(&self, bucket: &str, key: &str, info: &ObjectInfo, event: &str) -> S3Result<()> {
        match &self.announcer {
            Some(announcer) => announcer.announce(bucket, key, info, event).await,
            None => Ok(()),
        }
    }
}

fn check_if_match(condition: Option<&ETagCondition>, info: &ObjectInfo) -> S3Result<()> {
    match condition {
        Some(ETagCondition::ETag(wanted)) if wanted.value() != info.etag => Err(s3_error!(PreconditionFailed)),
        _ => Ok(()),
    }
}

async fn collect(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let Some(mut body) = body else { return Ok(Bytes::new()) };
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk.map_err(|error| s3_error!(IncompleteBody, "{error}"))?);
    }
    Ok(bytes.freeze())
}

fn check_sha256(given: Option<&str>, bytes: &[u8]) -> S3Result<()> {
    let computed = || aws_smithy_types::base64::encode(Sha256::digest(bytes));
    match given {
        Some(given) if given != computed() => Err(s3_error!(BadDigest)),
        _ => Ok(()),
    }
}

#[async_trait::async_trait]
impl S3 for Backend {
    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        let bytes = collect(input.body).await?;
        check_sha256(input.checksum_sha256.as_deref(), &bytes)?;
        let only_new = matches!(input.if_none_match, Some(ETagCondition::Any));
        let info = self.write(input.bucket.clone(), input.key.clone(), bytes, only_new).await?;
        self.announce(&input.bucket, &input.key, &info, "ObjectCreated:Put").await?;
        Ok(S3Response::new(PutObjectOutput { e_tag: Some(ETag::Strong(info.etag)), ..PutObjectOutput::default() }))
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = req.input;
        let CopySource::Bucket { bucket, key, .. } = input.copy_source else {
            return Err(s3_error!(NotImplemented, "only bucket/key can be copied"));
        };
        let (source, bytes) = self.read(bucket.into(), key.into()).await?;
        check_if_match(input.copy_source_if_match.as_ref(), &source)?;
        let info = self.write(input.bucket.clone(), input.key.clone(), bytes, false).await?;
        self.announce(&input.bucket, &input.key, &info, "ObjectCreated:Copy").await?;
        let result = CopyObjectResult {
            e_tag: Some(ETag::Strong(info.etag)),
            last_modified: Some(Timestamp::from(info.modified)),
            ..CopyObjectResult::default()
        };
        Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(result), ..CopyObjectOutput::default() }))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        let (info, bytes) = self.read(input.bucket, input.key).await?;
        check_if_match(input.if_match.as_ref(), &info)?;
        let (bytes, content_range) = match input.range {
            None => (bytes, None),
            Some(range) => {
                let wanted = range.check(info.size)?;
                let text = format!("bytes {}-{}/{}", wanted.start, wanted.end.saturating_sub(1), info.size);
                (bytes.slice(wanted.start as usize..wanted.end as usize), Some(text))
            }
        };
        let length = bytes.len() as i64;
        let body = StreamingBlob::wrap(futures::stream::once(async move { Ok::<_, std::io::Error>(bytes) }));
        Ok(S3Response::new(GetObjectOutput {
            body: Some(body),
            content_length: Some(length),
            content_range,
            e_tag: Some(ETag::Strong(info.etag)),
            last_modified: Some(Timestamp::from(info.modified)),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let info = self.info(&req.input.bucket, &req.input.key)?;
        check_if_match(req.input.if_match.as_ref(), &info)?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(info.size as i64),
            e_tag: Some(ETag::Strong(info.etag)),
            last_modified: Some(Timestamp::from(info.modified)),
            ..HeadObjectOutput::default()
        }))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.check_bucket(&req.input.bucket)?;
        self.files.delete(&req.input.bucket, &req.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.check_bucket(&req.input.bucket)?;
        for object in &req.input.delete.objects {
            self.files.delete(&req.input.bucket, &object.key);
        }
        Ok(S3Response::new(DeleteObjectsOutput::default()))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        self.check_bucket(&input.bucket)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        // the token is the last key of the page before
        let after = input.continuation_token.as_deref().or(input.start_after.as_deref());
        let keys_max = input.max_keys.unwrap_or(PAGE_KEYS_MAX).clamp(0, PAGE_KEYS_MAX) as usize;
        let found = self.files.list(&input.bucket, &prefix, after);
        let (mut contents, mut prefixes, mut last) = (Vec::new(), BTreeSet::new(), None);
        let mut truncated = false;
        for (key, info) in found {
            let group = input.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty()).and_then(|delimiter| {
                let rest = &key[prefix.len()..];
                rest.find(delimiter).map(|at| key[..prefix.len() + at + delimiter.len()].to_owned())
            });
            let known = group.as_ref().is_some_and(|group| prefixes.contains(group));
            if !known && contents.len() + prefixes.len() == keys_max {
                truncated = true;
                break;
            }
            last = Some(key.clone());
            match group {
                Some(group) => drop(prefixes.insert(group)),
                None => contents.push(Object {
                    key: Some(key),
                    size: Some(info.size as i64),
                    e_tag: Some(ETag::Strong(info.etag)),
                    last_modified: Some(Timestamp::from(info.modified)),
                    ..Object::default()
                }),
            }
        }
        let common = prefixes.into_iter().map(|prefix| CommonPrefix { prefix: Some(prefix) }).collect::<Vec<_>>();
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            key_count: Some((contents.len() + common.len()) as i32),
            max_keys: Some(keys_max as i32),
            is_truncated: Some(truncated),
            next_continuation_token: truncated.then_some(last).flatten(),
            contents: Some(contents),
            common_prefixes: Some(common),
            ..ListObjectsV2Output::default()
        }))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.check_bucket(&req.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        if self.files.has_bucket(&req.input.bucket) {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        Err(s3_error!(NotImplemented, "buckets are created when the store starts"))
    }

    async fn get_bucket_versioning(
        &self,
        req: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        self.check_bucket(&req.input.bucket)?;
        Ok(S3Response::new(GetBucketVersioningOutput::default()))
    }
}
