//! Objects as files: complete or not there, each under its own key.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use md5::{Digest, Md5};

/// Name of the folder for unfinished files; no bucket may be called so.
const UNFINISHED: &str = ".unfinished";
/// Longest name of a file on common file systems, in bytes.
const SEGMENT_BYTES_MAX: usize = 255;

/// What is known of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ObjectInfo {
    /// MD5 of the content in hex, as S3 has it for objects put whole.
    pub(super) etag: String,
    pub(super) size: u64,
    pub(super) modified: SystemTime,
}

/// Why a write did not happen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    KeyNotStorable,
    AlreadyExists,
    Io(String),
}

/// The folder and what lies in it.
#[derive(Debug)]
pub(super) struct StoreFiles {
    root: PathBuf,
    /// By bucket, by key: in the order in which S3 lists, which is that of UTF-8 bytes.
    index: Mutex<BTreeMap<String, BTreeMap<String, ObjectInfo>>>,
}

impl StoreFiles {
    /// Reads what an earlier run left. ETags are computed again: they are of the content.
    pub(super) fn open(root: &Path, buckets: &[String]) -> io::Result<Self> {
        fs::create_dir_all(root.join(UNFINISHED))?;
        let mut index = BTreeMap::new();
        for bucket in buckets {
            let folder = root.join(bucket);
            fs::create_dir_all(&folder)?;
            let mut objects = BTreeMap::new();
            scan(&folder, "", &mut objects)?;
            index.insert(bucket.clone(), objects);
        }
        Ok(Self { root: root.to_owned(), index: Mutex::new(index) })
    }

    fn index(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<String, ObjectInfo>>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_bucket(&self, bucket: &str) -> bool {
        self.index().contains_key(bucket)
    }

    pub(super) fn info(&self, bucket: &str, key: &str) -> Option<ObjectInfo> {
        self.index().get(bucket)?.get(key).cloned()
    }

    /// The object whole, with what was true of it when it was read.
    pub(super) fn read(&self, bucket: &str, key: &str) -> Option<(ObjectInfo, Bytes)> {
        let path = self.path(bucket, key)?;
        // under the lock: the file and its entry change together
        let index = self.index();
        let info = index.get(bucket)?.get(key)?.clone();
        let bytes = fs::read(path).ok()?;
        Some((info, bytes.into()))
    }

    /// Writes an object whole, unless it exists and `only_new`.
    pub(super) fn write(&self, bucket: &str, key: &str, bytes: &[u8], only_new: bool) -> Result<ObjectInfo, Refusal> {
        let path = self.path(bucket, key).ok_or(Refusal::KeyNotStorable)?;
        let io = |error: io::Error| Refusal::Io(error.to_string());
        let unfinished = self.root.join(UNFINISHED).join(uuid::Uuid::new_v4().to_string());
        let mut file = File::create(&unfinished).map_err(io)?;
        file.write_all(bytes).and_then(|()| file.sync_data()).map_err(io)?;
        let etag = hex(&Md5::digest(bytes));
        let mut index = self.index();
        let objects = index.get_mut(bucket).ok_or(Refusal::KeyNotStorable)?;
        if only_new && objects.contains_key(key) {
            let _ = fs::remove_file(&unfinished);
            return Err(Refusal::AlreadyExists);
        }
        let placed = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::rename(&unfinished, &path));
        if placed.is_err() {
            // `a` and `a/b` cannot both be files
            let _ = fs::remove_file(&unfinished);
            return Err(Refusal::KeyNotStorable);
        }
        let info = ObjectInfo { etag, size: bytes.len() as u64, modified: SystemTime::now() };
        objects.insert(key.to_owned(), info.clone());
        Ok(info)
    }

    /// Deleting what is not there is fine.
    pub(super) fn delete(&self, bucket: &str, key: &str) {
        let Some(path) = self.path(bucket, key) else { return };
        let mut index = self.index();
        if index.get_mut(bucket).and_then(|objects| objects.remove(key)).is_none() {
            return;
        }
        let _ = fs::remove_file(&path);
        // folders exist only for their objects; `remove_dir` refuses those that are not empty
        let bucket_folder = self.root.join(bucket);
        for folder in path.ancestors().skip(1).take_while(|folder| *folder != bucket_folder) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }

    /// Keys behind `after` that begin with `prefix`, in order.
    pub(super) fn list(&self, bucket: &str, prefix: &str, after: Option<&str>) -> Vec<(String, ObjectInfo)> {
        let index = self.index();
        let Some(objects) = index.get(bucket) else { return Vec::new() };
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.to_owned()),
            _ => Bound::Included(prefix.to_owned()),
        };
        objects
            .range((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, info)| (key.clone(), info.clone()))
            .collect()
    }

    /// The file of a key; `None` for keys that are no safe path.
    fn path(&self, bucket: &str, key: &str) -> Option<PathBuf> {
        let storable = |segment: &str| {
            !matches!(segment, "" | "." | "..") && segment.len() <= SEGMENT_BYTES_MAX && !segment.contains(['\0', '\\'])
        };
        (bucket != UNFINISHED && storable(bucket) && key.split('/').all(storable))
            .then(|| self.root.join(bucket).join(key))
    }
}

fn scan(folder: &Path, prefix: &str, objects: &mut BTreeMap<String, ObjectInfo>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().map(ToOwned::to_owned) else { continue };
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            scan(&entry.path(), &format!("{prefix}{name}/"), objects)?;
        } else {
            let bytes = fs::read(entry.path())?;
            let info = ObjectInfo {
                etag: hex(&Md5::digest(&bytes)),
                size: bytes.len() as u64,
                modified: metadata.modified()?,
            };
            objects.insert(format!("{prefix}{name}"), info);
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (PathBuf, StoreFiles) {
        let root = std::env::temp_dir().join(format!("sluice-store-{}", uuid::Uuid::new_v4()));
        let files = StoreFiles::open(&root, &["b".to_owned()]).expect("the folder is ours");
        (root, files)
    }

    #[test]
    fn what_was_written_is_read_listed_and_found_again() {
        let (root, files) = store();
        for key in ["a b+c é.json", "x/2", "x/10", "x%2F"] {
            files.write("b", key, key.as_bytes(), false).expect("a storable key");
        }
        assert_eq!(files.read("b", "x/2").map(|(_, bytes)| bytes), Some(Bytes::from_static(b"x/2")));
        let keys = |files: &StoreFiles| files.list("b", "x", None).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(&files), ["x%2F", "x/10", "x/2"]);
        assert_eq!(files.list("b", "x/", Some("x/10")).len(), 1);
        let again = StoreFiles::open(&root, &["b".to_owned()]).expect("the folder is ours");
        assert_eq!(keys(&again), keys(&files));
        assert_eq!(again.info("b", "x/2").map(|info| info.etag), files.info("b", "x/2").map(|info| info.etag));
        fs::remove_dir_all(root).expect("the folder is ours");
    }

    #[test]
    fn a_second_conditional_write_is_refused_and_unsafe_keys_too() {
        let (root, files) = store();
        assert!(files.write("b", "k", b"1", true).is_ok());
        assert_eq!(files.write("b", "k", b"2", true), Err(Refusal::AlreadyExists));
        for key in ["../k", "a//b", "a/", "/a", ".", "k/below-a-file"] {
            assert_eq!(files.write("b", key, b"", false), Err(Refusal::KeyNotStorable), "{key}");
        }
        files.delete("b", "k");
        assert!(files.write("b", "k/below", b"", false).is_ok(), "the file is gone");
        fs::remove_dir_all(root).expect("the folder is ours");
    }
}
