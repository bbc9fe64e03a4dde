//! Files of the lake for DataFusion, by their ids: ranged reads and no more.
//!
//! # Contract
//! A file is read from where the catalog says that it lies, or from where it was published meanwhile; every range of it is
//! of one state, or the read fails as replaced ([`is_replaced`]). Transient errors are tried again.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use datafusion::error::DataFusionError;
use datafusion::object_store::path::Path;
use datafusion::object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use crate::catalog::LakeFile;
use crate::client::retry::{RetryPolicy, retry};
use crate::client::s3::{Pin, S3Client, S3Error};

const STORE: &str = "lake";
const HEADS_IN_FLIGHT: usize = 16;
/// Of one range, its retries included.
const DEADLINE: Duration = Duration::from_mins(1);

pub(super) struct LakeStore {
    s3: S3Client,
    bucket: String,
    files: HashMap<Path, Place>,
    retries: RetryPolicy,
}

struct Place {
    key: String,
    published_key: String,
    size_bytes: u64,
    /// Of the first range that was read.
    etag: Mutex<Option<String>>,
}

/// Under which a file is known here.
pub(super) fn location(file: &LakeFile) -> Path {
    Path::from(format!("{}.parquet", file.file_id.simple()))
}

/// Whether a file was deleted or rewritten before it was read to its end.
pub(super) fn is_replaced(error: &DataFusionError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let of_s3 = |error: &S3Error| error.is_missing() || error.is_precondition_failed();
        if error.downcast_ref::<S3Error>().is_some_and(of_s3) {
            return true;
        }
        // Arrow's and DataFusion's errors hold one another
        cause = error.source();
    }
    false
}

impl LakeStore {
    /// Asks the store for the sizes of rewritten files.
    pub(super) async fn new(s3: S3Client, bucket: &str, files: &[LakeFile]) -> Result<Self> {
        let mut store =
            Self { s3, bucket: bucket.to_owned(), files: HashMap::new(), retries: RetryPolicy::until(DEADLINE) };
        let mut places = stream::iter(files.iter().map(|file| store.place(file))).buffered(HEADS_IN_FLIGHT);
        let mut found = HashMap::with_capacity(files.len());
        while let Some(place) = places.next().await {
            let (location, place) = place.map_err(|error| Error::Generic { store: STORE, source: error.into() })?;
            found.insert(location, place);
        }
        drop(places);
        store.files = found;
        Ok(store)
    }

    async fn place(&self, file: &LakeFile) -> Result<(Path, Place), S3Error> {
        let (mut size_bytes, mut etag) = (file.size_bytes, None);
        if file.is_rewritten {
            let head = || self.s3.head(&self.bucket, &file.key, Pin::default());
            let head = retry(&self.retries, "s3", S3Error::kind, head).await?;
            (size_bytes, etag) = (head.size_bytes, Some(head.etag));
        }
        let (key, published_key) = (file.key.clone(), file.published_key.clone());
        Ok((location(file), Place { key, published_key, size_bytes, etag: Mutex::new(etag) }))
    }

    /// What is known of a file of this store.
    pub(super) fn meta(&self, location: &Path) -> Option<ObjectMeta> {
        self.files.get(location).map(|place| meta(location, place.size_bytes))
    }

    async fn read(&self, place: &Place, range: Range<u64>) -> Result<Bytes, S3Error> {
        retry(&self.retries, "s3", S3Error::kind, || async {
            match self.read_at(place, &place.key, range.clone()).await {
                Err(error) if error.is_missing() && place.key != place.published_key => {
                    self.read_at(place, &place.published_key, range.clone()).await
                }
                read => read,
            }
        })
        .await
    }

    async fn read_at(&self, place: &Place, key: &str, range: Range<u64>) -> Result<Bytes, S3Error> {
        let etag = place.etag.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let pin = Pin { etag: etag.as_deref(), ..Pin::default() };
        let part = self.s3.open_range(&self.bucket, key, pin, range).await?;
        place.etag.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| part.head().etag.clone());
        part.read_all().await
    }
}

fn meta(location: &Path, size: u64) -> ObjectMeta {
    let location = location.clone();
    ObjectMeta { location, last_modified: DateTime::<Utc>::UNIX_EPOCH, size, e_tag: None, version: None }
}

fn refused<T>(operation: &str) -> Result<T> {
    Err(Error::NotImplemented { operation: operation.to_owned(), implementer: STORE.to_owned() })
}

#[async_trait]
impl ObjectStore for LakeStore {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let unknown = || Error::NotFound { path: location.to_string(), source: "no file of the lake".into() };
        let place = self.files.get(location).ok_or_else(unknown)?;
        let meta = meta(location, place.size_bytes);
        let failed = |source| Error::Generic { store: STORE, source };
        let range = match &options.range {
            None => 0..place.size_bytes,
            Some(range) => range.as_range(place.size_bytes).map_err(|error| failed(error.into()))?,
        };
        let bytes = if options.head || range.is_empty() {
            Bytes::new()
        } else {
            self.read(place, range.clone()).await.map_err(|error| failed(error.into()))?
        };
        let payload = GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed());
        Ok(GetResult { payload, meta, range, attributes: Attributes::default() })
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        refused("put")
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        refused("put")
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::once(async { refused("delete") }).boxed()
    }

    fn list(&self, _: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        stream::once(async { refused("list") }).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        refused("list")
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        refused("copy")
    }
}

impl fmt::Display for LakeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STORE)
    }
}

impl fmt::Debug for LakeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LakeStore")
            .field("bucket", &self.bucket)
            .field("files", &self.files.len())
            .finish_non_exhaustive()
    }
}
