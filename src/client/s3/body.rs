//! The body of an object that is being read.

use aws_sdk_s3::primitives::ByteStream;
use bytes::{Bytes, BytesMut};

use super::{ObjectHead, S3Client, S3Error, get_error};

/// An object whose headers have come. Dropping it unread closes the connection.
#[derive(Debug)]
pub struct OpenObject {
    pub(super) client: S3Client,
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) head: ObjectHead,
    pub(super) body: ByteStream,
}

impl OpenObject {
    pub fn head(&self) -> &ObjectHead {
        &self.head
    }

    /// Reads it whole: exactly `size_bytes` of them. A body that breaks off, is longer than announced or
    /// does not match its checksum is a transient error; nothing of it is given out.
    pub async fn read_all(self) -> Result<Bytes, S3Error> {
        let announced = self.head.size_bytes;
        let mut reader = self;
        let bytes = reader.read_up_to(u64::MAX).await?;
        if bytes.len() as u64 != announced {
            let message = format!("got {} of {announced} bytes", bytes.len());
            return Err(reader.corrupt(&message, None));
        }
        Ok(bytes)
    }

    /// Reads the first `size_bytes` or what there is, and drops the rest unread and unchecked.
    pub async fn read_first(mut self, size_bytes: u64) -> Result<Bytes, S3Error> {
        let mut bytes = self.read_up_to(size_bytes).await?;
        bytes.truncate(usize::try_from(size_bytes).unwrap_or(usize::MAX));
        Ok(bytes)
    }

    /// At least `wanted` bytes, unless the body ends before; stops with the chunk that reaches it, or
    /// with the one that exceeds the announced size.
    async fn read_up_to(&mut self, wanted: u64) -> Result<Bytes, S3Error> {
        let announced = self.head.size_bytes;
        let capacity = usize::try_from(announced.min(wanted)).unwrap_or(usize::MAX);
        let mut all: Option<BytesMut> = None;
        let mut only = Bytes::new();
        let mut count = 0_u64;
        while let Some(chunk) = self.body.next().await {
            let chunk = chunk.map_err(|cause| {
                self.corrupt(&format!("the body broke off after {count} of {announced} bytes"), Some(cause.into()))
            })?;
            count += chunk.len() as u64;
            match &mut all {
                Some(all) => all.extend_from_slice(&chunk),
                // most small objects come in one chunk: no copy
                None if only.is_empty() => only = chunk,
                None => {
                    let mut joined = BytesMut::with_capacity(capacity.max(only.len() + chunk.len()));
                    joined.extend_from_slice(&only);
                    joined.extend_from_slice(&chunk);
                    all = Some(joined);
                }
            }
            if count >= wanted || count > announced {
                break;
            }
        }
        Ok(all.map_or(only, BytesMut::freeze))
    }

    fn corrupt(&self, message: &str, cause: Option<Box<dyn std::error::Error + Send + Sync>>) -> S3Error {
        get_error(&self.bucket, &self.key, self.client.place.corrupt(message, cause))
    }
}
