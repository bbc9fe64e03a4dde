//! Puts local files into a bucket, each under its own name, and sees that every one is announced.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aws_sdk_s3::primitives::{ByteStream, Length};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;

use crate::Endpoints;
use crate::announce::{self, AnnouncedObject};

/// Larger files are put in parts of this size. Source: Amazon S3 API Reference, PutObject (5 GiB at most in one
/// request, parts of 5 MiB to 5 GiB, up to 10,000 of them), read 2026-11.
const PART_BYTES: u64 = 64 << 20;

#[derive(Debug, Clone)]
pub struct PutPlan {
    /// Its files are put, not its folders' files; `expected.json` is left out.
    pub folder: PathBuf,
    pub bucket: String,
    /// Before each file's name.
    pub prefix: String,
    /// PUTs at once.
    pub concurrency: usize,
    /// Topic on which the store announces objects.
    pub announced_on: String,
    /// How long the store has to announce what was put.
    pub announce_wait: Duration,
    /// Each file is deleted when the store has its bytes: a large object then takes its size twice, not three times.
    pub remove: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PutReport {
    pub objects: usize,
    pub bytes: u64,
    /// Objects that the store did not announce by itself.
    pub announced_again: usize,
}

/// Returns when the store has every file and the topic an announcement of each.
pub async fn put_files(endpoints: &Endpoints, plan: &PutPlan) -> Result<PutReport> {
    let files = files_of(&plan.folder)?;
    ensure!(!files.is_empty(), "no files in {}", plan.folder.display());
    let topic_end = announce::topic_end(endpoints, &plan.announced_on).await?;
    let s3 = endpoints.raw.client();
    let objects: Vec<AnnouncedObject> = stream::iter(&files)
        .map(|path| put(&s3, plan, path))
        .buffer_unordered(plan.concurrency.max(1))
        .try_collect()
        .await?;
    let announced_again =
        announce::announce_the_rest(endpoints, &plan.announced_on, topic_end, &objects, plan.announce_wait).await?;
    let bytes = objects.iter().map(|object| object.size).sum();
    Ok(PutReport { objects: objects.len(), bytes, announced_again })
}

/// In the order of their names.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("could not read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_file() && path.file_name().is_some_and(|name| name != "expected.json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

async fn put(s3: &aws_sdk_s3::Client, plan: &PutPlan, path: &Path) -> Result<AnnouncedObject> {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let key = format!("{}{name}", plan.prefix);
    let size = std::fs::metadata(path).with_context(|| format!("could not look at {}", path.display()))?.len();
    let (etag, version_id) = if size > PART_BYTES {
        put_in_parts(s3, plan, &key, path, size).await
    } else {
        put_whole(s3, plan, &key, path).await
    }
    .with_context(|| format!("could not put s3://{}/{key}", plan.bucket))?;
    let etag = etag.unwrap_or_default().trim_matches('"').to_owned();
    Ok(AnnouncedObject { bucket: plan.bucket.clone(), key, etag, size, version_id })
}

/// Number, first byte, length.
fn part_ranges(size: u64) -> impl Iterator<Item = (i32, u64, u64)> {
    (1..)
        .zip((0..size).step_by(PART_BYTES as usize))
        .map(move |(number, start)| (number, start, PART_BYTES.min(size - start)))
}

type Names = (Option<String>, Option<String>);

async fn put_whole(s3: &aws_sdk_s3::Client, plan: &PutPlan, key: &str, path: &Path) -> Result<Names> {
    let body = ByteStream::from_path(path).await?;
    let put = s3.put_object().bucket(&plan.bucket).key(key).body(body).send().await?;
    if plan.remove {
        std::fs::remove_file(path)?;
    }
    Ok((put.e_tag, put.version_id))
}

async fn put_in_parts(s3: &aws_sdk_s3::Client, plan: &PutPlan, key: &str, path: &Path, size: u64) -> Result<Names> {
    let bucket = &plan.bucket;
    let begun = s3.create_multipart_upload().bucket(bucket).key(key).send().await?;
    let upload_id = begun.upload_id.context("the store gave no upload id")?;
    let mut parts = CompletedMultipartUpload::builder();
    for (number, start, length) in part_ranges(size) {
        let body = ByteStream::read_from().path(path).offset(start).length(Length::Exact(length)).build().await?;
        let put = s3.upload_part().bucket(bucket).key(key).upload_id(&upload_id).part_number(number);
        let put = put.body(body).send().await?;
        parts = parts.parts(CompletedPart::builder().part_number(number).set_e_tag(put.e_tag).build());
    }
    // a store may hold the parts and the object at once
    if plan.remove {
        std::fs::remove_file(path)?;
    }
    let done = s3.complete_multipart_upload().bucket(bucket).key(key).upload_id(&upload_id);
    let done = done.multipart_upload(parts.build()).send().await?;
    Ok((done.e_tag, done.version_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_are_the_files_of_the_folder_in_order_but_not_what_is_expected_of_them() {
        let folder = std::env::temp_dir().join(format!("sluice-put-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(folder.join("folder")).expect("a writable temporary folder");
        for name in ["b.json", "expected.json", "a.json", "folder/c.json"] {
            std::fs::write(folder.join(name), name).expect("a writable folder");
        }
        let found = files_of(&folder).expect("the folder is there");
        assert_eq!(found, ["a.json", "b.json"].map(|name| folder.join(name)));
        assert!(files_of(&folder.join("elsewhere")).is_err());
        std::fs::remove_dir_all(&folder).expect("the test's own folder");
    }

    #[test]
    fn parts_cover_a_file_without_gap_or_overlap() {
        for size in [1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES - 1] {
            let parts: Vec<(i32, u64, u64)> = part_ranges(size).collect();
            let mut next = 0;
            for (at, (number, start, length)) in parts.iter().enumerate() {
                assert_eq!((*number, *start), (at as i32 + 1, next));
                assert!((1..=PART_BYTES).contains(length));
                next += length;
            }
            assert_eq!(next, size);
        }
    }
}
