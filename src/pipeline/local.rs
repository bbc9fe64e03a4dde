//! The way from bytes to files without any server: local files in, the files of a lake out.
//!
//! # Contract
//! What happens to a row is what the pipeline does with it: the same decoding, cleaning, expectations, dedupe and
//! encoding, in micro-batches cut by the same limits of offsets, rows and bytes. A file stands for an object, its
//! place in the list for the message's offset, its modification time for the object's. Nothing is committed: a run
//! that ends early leaves whole files behind, and a run is refused where its folder holds files already. Where the
//! pipeline would park the connector (`on_fail: fail`), the run ends; corrections of dead letters and the breaker
//! are the pipeline's alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::decode_rows::{Input, ReadRows, read_rows};
use super::decode_task::{Fault, catching};
use super::evolution::{EvolutionError, EvolvedRows, EvolvedSchemas};
use crate::commit::{BatchLimits, Fill};
use crate::config::{Connector, Limits};
use crate::decode::DecodeLimits;
use crate::error::ErrorKind;
use crate::stage;
use crate::transform::{self, TransformError};
use crate::types::{
    DeadLetter, FileKind, MicroBatchId, ObjectLocation, Origin, OriginRows, StagedFile, TopicPartition,
};

/// Bucket of dead letters whose object was a local file.
const LOCAL_BUCKET: &str = "file";

#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("{} holds files already: give an empty folder or a new one", folder.display())]
    FolderInUse { folder: PathBuf },
    #[error("could not read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("could not write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("a row of {} fails expectation `{expectation}`, which stops connector `{connector}`", path.display())]
    Stopped { connector: String, expectation: String, path: PathBuf },
    #[error("could not plan or dedupe")]
    Transform(#[from] TransformError),
    #[error("could not bring rows to one schema")]
    Arrange(#[from] EvolutionError),
    #[error("could not encode")]
    Encode(#[from] stage::StageError),
}

impl LocalError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::FolderInUse { .. } | Self::Read { .. } | Self::Write { .. } => ErrorKind::Invalid,
            Self::Stopped { .. } => ErrorKind::Halt,
            Self::Transform(source) => source.kind(),
            Self::Arrange(_) => ErrorKind::Halt,
            Self::Encode(source) => source.kind(),
        }
    }
}

pub struct StageJob {
    pub connector: Arc<Connector>,
    pub limits: Limits,
    /// Each is an object, in the order of their offsets.
    pub files: Vec<PathBuf>,
    /// `data/…` and `dead-letters/…` are written below it.
    pub out: PathBuf,
    /// Micro-batches worked on at once, each on a thread of its own.
    pub threads: usize,
}

/// What became of every row: `rows_in = rows_out + filtered + duplicates + rejected` (`rows_in` of objects that could be
/// read at all).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StageReport {
    pub files_in: u64,
    /// As they lie on disk.
    pub bytes_in: u64,
    pub unpacked_bytes: u64,
    pub rows_in: u64,
    pub rows_out: u64,
    pub filtered: u64,
    pub duplicates: u64,
    pub rejected: u64,
    /// Files that could not be read as a whole; each is one dead letter.
    pub quarantined: u64,
    /// Rows and files, by reason.
    pub dead_letters: BTreeMap<&'static str, u64>,
    pub files_out: u64,
    pub bytes_out: u64,
}

impl StageReport {
    fn add(&mut self, other: Self) {
        self.files_in += other.files_in;
        self.bytes_in += other.bytes_in;
        self.unpacked_bytes += other.unpacked_bytes;
        self.rows_in += other.rows_in;
        self.rows_out += other.rows_out;
        self.filtered += other.filtered;
        self.duplicates += other.duplicates;
        self.rejected += other.rejected;
        self.quarantined += other.quarantined;
        for (reason, count) in other.dead_letters {
            *self.dead_letters.entry(reason).or_default() += count;
        }
        self.files_out += other.files_out;
        self.bytes_out += other.bytes_out;
    }
}

/// Blocks until every file is staged, or one cannot be: then the other threads end with the micro-batch at hand.
pub fn stage_files(job: &StageJob) -> Result<StageReport, LocalError> {
    for kind in [FileKind::Data, FileKind::DeadLetter] {
        let folder = job.out.join(kind.prefix());
        if folder.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(LocalError::FolderInUse { folder });
        }
    }
    let schemas = EvolvedSchemas::new(std::slice::from_ref(&job.connector))?;
    let next_file = AtomicUsize::new(0);
    let threads = job.threads.clamp(1, job.files.len().max(1));
    let results: Vec<Result<StageReport, LocalError>> = std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| Worker::new(job, &schemas).run(&next_file))).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut report = StageReport::default();
    for result in results {
        report.add(result?);
    }
    Ok(report)
}

/// One thread's open micro-batch.
struct Worker<'a> {
    job: &'a StageJob,
    schemas: &'a EvolvedSchemas,
    batch_limits: BatchLimits,
    decode_limits: DecodeLimits,
    topic_partition: TopicPartition,
    fill: Fill,
    rows: EvolvedRows,
    dead_letters: Vec<(DeadLetter, DateTime<Utc>)>,
    folders: BTreeSet<PathBuf>,
    report: StageReport,
}

impl<'a> Worker<'a> {
    fn new(job: &'a StageJob, schemas: &'a EvolvedSchemas) -> Self {
        Self {
            job,
            schemas,
            batch_limits: BatchLimits::new(&job.limits),
            decode_limits: DecodeLimits::new(&job.limits),
            topic_partition: TopicPartition::new("local", 0),
            fill: Fill::default(),
            rows: EvolvedRows::default(),
            dead_letters: Vec::new(),
            folders: BTreeSet::new(),
            report: StageReport::default(),
        }
    }

    fn run(mut self, next_file: &AtomicUsize) -> Result<StageReport, LocalError> {
        loop {
            let number = next_file.fetch_add(1, Ordering::Relaxed);
            let Some(path) = self.job.files.get(number) else { break };
            if let Err(error) = self.read(number, path) {
                // nobody begins another one
                next_file.store(self.job.files.len(), Ordering::Relaxed);
                return Err(error);
            }
            if self.batch_limits.reached(self.fill) {
                self.write()?;
            }
        }
        self.write()?;
        Ok(self.report)
    }

    fn read(&mut self, number: usize, path: &Path) -> Result<(), LocalError> {
        let failed = |source| LocalError::Read { path: path.to_owned(), source };
        let bytes = Bytes::from(std::fs::read(path).map_err(failed)?);
        let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).map_err(failed)?;
        let origin = Origin { message_offset: number as i64, record: 0, time: modified.into(), order_hash: 0 };
        self.report.files_in += 1;
        self.report.bytes_in += bytes.len() as u64;
        self.fill.offsets += 1;
        let object = ObjectLocation { bucket: LOCAL_BUCKET.to_owned(), key: path.to_string_lossy().into_owned() };
        let connector = &self.job.connector;
        let input = Input::Object(bytes.clone());
        let current = self.schemas.current(&connector.name);
        let ReadRows { schema, transformed, row_count, unpacked_bytes } =
            match catching(|| read_rows(&current, self.schemas, &self.decode_limits, input)) {
                Ok(rows) => rows,
                Err(fault) => {
                    self.report.quarantined += 1;
                    self.keep(quarantined(&connector.name, &origin, object, fault, bytes), &origin);
                    return Ok(());
                }
            };
        drop(bytes);
        if let Some(expectation) = transformed.failed {
            let connector = connector.name.clone();
            return Err(LocalError::Stopped { connector, expectation, path: path.to_owned() });
        }
        self.fill.rows += row_count;
        self.fill.bytes += unpacked_bytes;
        self.report.rows_in += row_count;
        self.report.unpacked_bytes += unpacked_bytes;
        self.report.filtered += transformed.filtered;
        self.report.rejected += transformed.rejects.len() as u64;
        for reject in &transformed.rejects {
            self.keep(DeadLetter::of_row(&connector.name, &origin, reject, Some(object.clone())), &origin);
        }
        self.rows.push(&schema.connector, OriginRows { origin, batches: transformed.batches });
        Ok(())
    }

    fn keep(&mut self, letter: DeadLetter, origin: &Origin) {
        *self.report.dead_letters.entry(letter.reason.as_str()).or_default() += 1;
        self.dead_letters.push((letter, origin.time));
    }

    /// Dedupes, encodes and writes the open micro-batch; the next file opens another.
    fn write(&mut self) -> Result<(), LocalError> {
        self.fill = Fill::default();
        let id = MicroBatchId::generate();
        let connector = &self.job.connector;
        let mut files = Vec::new();
        if let Some((connector, rows)) = std::mem::take(&mut self.rows).united()? {
            let (rows, duplicates) = transform::dedupe(&connector, rows)?;
            self.report.duplicates += duplicates;
            files = stage::encode(&connector, &self.topic_partition, id, &rows)?;
        }
        let dead_letters = std::mem::take(&mut self.dead_letters);
        let revisions = |_: &str| (connector.revision.clone(), connector.schema_revision.clone());
        files.extend(stage::encode_dead_letters(&self.topic_partition, id, &dead_letters, revisions)?);
        for file in &files {
            self.put(id, file)?;
        }
        Ok(())
    }

    fn put(&mut self, id: MicroBatchId, file: &StagedFile) -> Result<(), LocalError> {
        let path = self.job.out.join(stage::published_key(id, file));
        let failed = |source| LocalError::Write { path: path.clone(), source };
        if let Some(folder) = path.parent().filter(|folder| !self.folders.contains(*folder)) {
            std::fs::create_dir_all(folder).map_err(failed)?;
            self.folders.insert(folder.to_owned());
        }
        std::fs::write(&path, &file.bytes).map_err(failed)?;
        self.report.files_out += 1;
        self.report.bytes_out += file.bytes.len() as u64;
        if file.kind == FileKind::Data {
            self.report.rows_out += file.row_count;
        }
        Ok(())
    }
}

/// A file that cannot be read as a whole.
fn quarantined(connector: &str, origin: &Origin, object: ObjectLocation, fault: Fault, bytes: Bytes) -> DeadLetter {
    let reason = fault.reason;
    let (bytes, detail) = fault.keep(bytes);
    DeadLetter {
        connector: connector.to_owned(),
        reason,
        detail,
        message_offset: origin.message_offset,
        record: Some(origin.record),
        row: None,
        byte_offset: None,
        object: Some(object),
        object_version: None,
        bytes,
    }
}
