//! Listings: what lies under a prefix, and the versions of one key.

use chrono::{DateTime, Utc};
use futures::{Stream, TryStreamExt, stream};

use super::{S3Client, S3Error, time, unquoted};

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    pub key: String,
    /// Without quotes.
    pub etag: String,
    /// As precise as the store tells: milliseconds at best.
    pub last_modified: DateTime<Utc>,
    pub size_bytes: u64,
}

/// Up to 1000 objects in key order, and where to go on.
/// Source: Amazon S3 API Reference, ListObjectsV2 (up to 1000 keys), read 2026-11.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage {
    pub objects: Vec<ListedObject>,
    /// `None`: this was the last page.
    pub next: Option<String>,
}

/// A version of one key; delete markers are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedVersion {
    /// `null` for what was written while the bucket kept no versions.
    pub version_id: String,
    /// Without quotes.
    pub etag: String,
    /// As precise as the store tells: milliseconds at best.
    pub last_modified: DateTime<Utc>,
    pub size_bytes: u64,
}

impl S3Client {
    /// One page of what lies under a prefix; `next` of the page before, or `None` to begin.
    pub async fn list_page(&self, bucket: &str, prefix: &str, next: Option<String>) -> Result<ListPage, S3Error> {
        self.rate.until_ready().await;
        let failed = |source| S3Error::List { bucket: bucket.to_owned(), prefix: prefix.to_owned(), source };
        let output = self
            .sdk
            .list_objects_v2()
            .bucket(bucket)
            .prefix(prefix)
            .set_continuation_token(next)
            .send()
            .await
            .map_err(|error| failed(self.place.failure(bucket, error)))?;
        let objects = output.contents().iter().map(|object| {
            Some(ListedObject {
                key: object.key()?.to_owned(),
                etag: unquoted(object.e_tag()),
                last_modified: time(object.last_modified()?)?,
                size_bytes: u64::try_from(object.size()?).ok()?,
            })
        });
        let objects: Option<Vec<_>> = objects.collect();
        let objects = objects.ok_or_else(|| failed(self.place.corrupt("an entry lacks key, time or size", None)))?;
        let next = output.next_continuation_token().filter(|_| output.is_truncated() == Some(true));
        if output.is_truncated() == Some(true) && next.is_none() {
            return Err(failed(self.place.corrupt("a page has a successor but no token for it", None)));
        }
        Ok(ListPage { objects, next: next.map(ToOwned::to_owned) })
    }

    /// Everything under a prefix, in key order, page by page as it is consumed.
    pub fn list<'a>(
        &'a self,
        bucket: &'a str,
        prefix: &'a str,
    ) -> impl Stream<Item = Result<ListedObject, S3Error>> + Send + 'a {
        // None: begin; Some(None): nothing left
        stream::try_unfold(Some(None::<String>), move |state| async move {
            let Some(token) = state else { return Ok(None) };
            let page = self.list_page(bucket, prefix, token).await?;
            let objects = stream::iter(page.objects.into_iter().map(Ok));
            Ok::<_, S3Error>(Some((objects, page.next.map(Some))))
        })
        .try_flatten()
    }

    /// Every version of exactly this key, newest first: the store's own order.
    pub async fn list_versions(&self, bucket: &str, key: &str) -> Result<Vec<ListedVersion>, S3Error> {
        let failed = |source| S3Error::ListVersions { bucket: bucket.to_owned(), key: key.to_owned(), source };
        let mut versions = Vec::new();
        let (mut key_marker, mut version_marker) = (None::<String>, None::<String>);
        loop {
            self.rate.until_ready().await;
            let output = self
                .sdk
                .list_object_versions()
                .bucket(bucket)
                .prefix(key)
                .set_key_marker(key_marker)
                .set_version_id_marker(version_marker)
                .send()
                .await
                .map_err(|error| failed(self.place.failure(bucket, error)))?;
            for version in output.versions().iter().filter(|version| version.key() == Some(key)) {
                let last_modified = version.last_modified().and_then(time);
                let size_bytes = version.size().and_then(|size| u64::try_from(size).ok());
                let (Some(last_modified), Some(size_bytes)) = (last_modified, size_bytes) else {
                    return Err(failed(self.place.corrupt("a version lacks its time or size", None)));
                };
                versions.push(ListedVersion {
                    version_id: version.version_id().filter(|id| !id.is_empty()).unwrap_or("null").to_owned(),
                    etag: unquoted(version.e_tag()),
                    last_modified,
                    size_bytes,
                });
            }
            key_marker = output.next_key_marker().map(ToOwned::to_owned);
            version_marker = output.next_version_id_marker().filter(|id| !id.is_empty()).map(ToOwned::to_owned);
            // keys come in order and this one is the least with its prefix: once past it, it is done
            let is_past = key_marker.as_deref().is_some_and(|marker| marker > key);
            if output.is_truncated() != Some(true) || is_past {
                return Ok(versions);
            }
            if key_marker.is_none() {
                return Err(failed(self.place.corrupt("a page has a successor but no marker for it", None)));
            }
        }
    }
}
