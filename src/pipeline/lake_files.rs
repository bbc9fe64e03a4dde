//! Reads files of micro-batches back from the lake, wherever they lie right now.

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::catalog::BatchFile;
use crate::client::s3::{Pin, S3Client, S3Error};
use crate::error::ErrorKind;
use crate::stage::FileLayout;

#[derive(Debug, Error)]
pub enum LakeFileError {
    #[error("could not read a file of the lake")]
    Read(#[source] S3Error),
    #[error("the lake's file `{key}` does not have the bytes that were committed")]
    Corrupt { key: String },
    #[error("the lake's file `{key}` is no readable Parquet")]
    Decode { key: String, source: parquet::errors::ParquetError },
    #[error("the lake's file `{key}` has rows that cannot be read")]
    Rows { key: String, source: arrow::error::ArrowError },
    #[error("a decoding task failed")]
    Task(#[source] tokio::task::JoinError),
}

impl LakeFileError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Read(error) if error.is_missing() => ErrorKind::Transient,
            Self::Read(error) => error.kind(),
            Self::Corrupt { .. } => ErrorKind::Transient,
            Self::Decode { .. } | Self::Rows { .. } | Self::Task(_) => ErrorKind::Halt,
        }
    }
}

/// A file as it was committed.
#[derive(Default)]
pub struct CommittedFile {
    pub batches: Vec<RecordBatch>,
    pub layout: FileLayout,
}

/// Its rows alone.
pub async fn read_rows(lake: &S3Client, bucket: &str, file: &BatchFile) -> Result<Vec<RecordBatch>, LakeFileError> {
    Ok(read_file(lake, bucket, file).await?.batches)
}

/// Some of their columns: those that the file has.
pub async fn read_columns(
    lake: &S3Client,
    bucket: &str,
    file: &BatchFile,
    columns: Vec<String>,
) -> Result<Vec<RecordBatch>, LakeFileError> {
    Ok(read(lake, bucket, file, Some(columns)).await?.batches)
}

/// Checked against the hash that was committed. From where the catalog says it lies; the publisher may have moved it
/// meanwhile.
pub async fn read_file(lake: &S3Client, bucket: &str, file: &BatchFile) -> Result<CommittedFile, LakeFileError> {
    read(lake, bucket, file, None).await
}

async fn read(
    lake: &S3Client,
    bucket: &str,
    file: &BatchFile,
    columns: Option<Vec<String>>,
) -> Result<CommittedFile, LakeFileError> {
    let keys = if file.published && !file.is_rewritten {
        [&file.published_key, &file.pending_key]
    } else {
        [&file.pending_key, &file.published_key]
    };
    let bytes = match get(lake, bucket, keys[0]).await {
        Err(LakeFileError::Read(error)) if error.is_missing() => get(lake, bucket, keys[1]).await?,
        read => read?,
    };
    let (key, sha256) = (file.published_key.clone(), file.sha256.clone());
    let work = move || {
        if Sha256::digest(&bytes).as_slice() != sha256 {
            return Err(LakeFileError::Corrupt { key });
        }
        decode(&key, bytes, columns.as_deref())
    };
    tokio::task::spawn_blocking(work).await.map_err(LakeFileError::Task)?
}

async fn get(lake: &S3Client, bucket: &str, key: &str) -> Result<Bytes, LakeFileError> {
    let object = lake.open(bucket, key, Pin::default()).await.map_err(LakeFileError::Read)?;
    object.read_all().await.map_err(LakeFileError::Read)
}

fn decode(key: &str, bytes: Bytes, columns: Option<&[String]>) -> Result<CommittedFile, LakeFileError> {
    let failed = |source| LakeFileError::Decode { key: key.to_owned(), source };
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(failed)?;
    let layout = FileLayout::of_file(builder.metadata());
    let builder = match columns {
        Some(columns) => {
            let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().map(String::as_str));
            builder.with_projection(mask)
        }
        None => builder,
    };
    let reader = builder.build().map_err(failed)?;
    let rows_failed = |source| LakeFileError::Rows { key: key.to_owned(), source };
    Ok(CommittedFile { batches: reader.collect::<Result<_, _>>().map_err(rows_failed)?, layout })
}
