//! The way from bytes to files without any server: local files in, the files of a lake out.
//!
//! # Contract
//! What happens to a row is what the pipeline does with it: the same decoding, cleaning, expectations, dedupe and
//! encoding, in micro-batches cut by the same limits of offsets, rows and bytes, each with files of its own
//! ([`LocalFiles`]). A local file stands for an object, its place in the list for the message's offset, its modification time for the object's. Nothing is committed: a run
//! that ends early leaves whole files behind, and a run is refused where its folder holds files already. Where the
//! pipeline would park the connector (`on_fail: fail`), the run ends; corrections of dead letters, the breaker and what
//! is measured by earlier micro-batches are the pipeline's alone. A local file counts as announced when it was modified.
//!
//! # Large files
//! A file is read block by block, so memory is bounded however large it is. One of more than a chunk
//! (`limits.chunk_bytes`, unpacked) is staged chunk by chunk, each a micro-batch of its own; where it is cut depends on its
//! bytes alone. It is quarantined as a whole all the same: what its first chunks have written is deleted then.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::checks::{Checked, Checks, Histories};
use super::decode_rows::{ChunkError, Chunks, ReadRows, decode_limits};
use super::decode_task::{Fault, catching};
use super::evolution::{EvolutionError, EvolvedRows, EvolvedSchemas};
use super::local_files::LocalFiles;
use crate::commit::{BatchLimits, Fill};
use crate::config::{Connector, Limits};
use crate::decode::{DecodeLimits, ObjectDecoder};
use crate::error::ErrorKind;
use crate::stage;
use crate::transform::{TransformError, Window};
use crate::types::{DeadLetter, FileKind, ObjectLocation, Origin, OriginRows, RejectReason};

/// Bucket of dead letters whose object was a local file.
const LOCAL_BUCKET: &str = "file";
/// Smaller files are read at once.
const STREAMED_BYTES_MIN: u64 = 8 << 20;
/// Larger files are not kept whole in their dead letter; they lie where they lay.
const LETTER_BYTES_MAX: u64 = 64 << 20;
/// What is kept of them then.
const HEAD_BYTES: u64 = 1 << 20;

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
    #[error("{reason}, which stops connector `{connector}`")]
    BatchStopped { connector: String, reason: String },
    #[error("could not plan, dedupe or check")]
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
            Self::Stopped { .. } | Self::BatchStopped { .. } => ErrorKind::Halt,
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
    // what a window holds depends on the order of the files
    let threads_max = if job.connector.dataset().dedupe_window().is_some() { 1 } else { job.files.len().max(1) };
    let threads = job.threads.clamp(1, threads_max);
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
    fill: Fill,
    rows: EvolvedRows,
    checks: Checks,
    files: LocalFiles<'a>,
    report: StageReport,
    /// The file at hand is staged in chunks: the report and the window as they stood without them.
    cut: Option<(StageReport, Option<Window>)>,
    /// What has passed, where rows are deduped within one.
    window: Option<Window>,
}

/// Why a file is not staged.
enum FileError {
    Chunk(ChunkError),
    Local(LocalError),
}

impl From<ChunkError> for FileError {
    fn from(error: ChunkError) -> Self {
        Self::Chunk(error)
    }
}

impl From<Fault> for FileError {
    fn from(fault: Fault) -> Self {
        Self::Chunk(ChunkError::Fault(fault))
    }
}

impl<'a> Worker<'a> {
    fn new(job: &'a StageJob, schemas: &'a EvolvedSchemas) -> Self {
        Self {
            job,
            schemas,
            batch_limits: BatchLimits::new(&job.limits),
            decode_limits: decode_limits(&job.limits, &job.connector),
            fill: Fill::default(),
            rows: EvolvedRows::default(),
            checks: Checks::default(),
            files: LocalFiles::new(&job.out, &job.connector),
            report: StageReport::default(),
            cut: None,
            window: job.connector.dataset().dedupe_window().map(Window::new),
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
            if self.batch_limits.reached(self.fill) || self.files.are_full() {
                self.close()?;
            }
        }
        self.close()?;
        Ok(self.report)
    }

    fn read(&mut self, number: usize, path: &Path) -> Result<(), LocalError> {
        let failed = |source| LocalError::Read { path: path.to_owned(), source };
        let metadata = std::fs::metadata(path).map_err(failed)?;
        let time = metadata.modified().map_err(failed)?.into();
        let object = ObjectLocation { bucket: LOCAL_BUCKET.to_owned(), key: path.to_string_lossy().into_owned() };
        let origin = Origin { message_offset: number as i64, record: 0, time, order_hash: 0 };
        self.report.files_in += 1;
        self.report.bytes_in += metadata.len();
        self.fill.offsets += 1;
        match self.stage(path, metadata.len(), &origin, &object) {
            Ok(()) => {}
            Err(FileError::Local(error)) => {
                self.discard()?;
                return Err(error);
            }
            Err(FileError::Chunk(ChunkError::Read(source))) => {
                self.discard()?;
                return Err(failed(source));
            }
            Err(FileError::Chunk(ChunkError::Fault(fault))) => {
                self.discard()?;
                self.report.quarantined += 1;
                let kept = kept(path, metadata.len(), fault).map_err(failed)?;
                self.keep(quarantined(&self.job.connector.name, &origin, object, kept), origin.time);
            }
        }
        if self.cut.take().is_some() {
            self.close()?;
            self.files.settle();
        }
        Ok(())
    }

    /// Takes a file's rows into the open micro-batch, or writes them where they are more than a chunk.
    fn stage(&mut self, path: &Path, len: u64, origin: &Origin, object: &ObjectLocation) -> Result<(), FileError> {
        let mut chunks = catching(|| Ok(self.open(path, len)))??;
        loop {
            // `catching` takes faults; what else goes wrong is no fault of the file
            let (chunk, is_last) = catching(|| match chunks.next() {
                Err(ChunkError::Fault(fault)) => Err(fault),
                other => Ok(other),
            })??;
            if !is_last && self.cut.is_none() {
                // what is open now does not belong to this file
                self.close().map_err(FileError::Local)?;
                self.files.record();
                self.cut = Some((self.report.clone(), self.window.clone()));
            }
            self.take(chunk, path, origin, object).map_err(FileError::Local)?;
            if self.cut.is_some() {
                self.close().map_err(FileError::Local)?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    fn open(&self, path: &Path, len: u64) -> Result<Chunks<'a>, ChunkError> {
        let (schema, limits) = (self.schemas.current(&self.job.connector.name), &self.decode_limits);
        let decoder = if len < STREAMED_BYTES_MIN {
            let bytes = std::fs::read(path).map_err(ChunkError::Read)?;
            ObjectDecoder::of_bytes(&schema.connector, Bytes::from(bytes), limits)?
        } else {
            let file = std::fs::File::open(path).map_err(ChunkError::Read)?;
            ObjectDecoder::of_stream(&schema.connector, file, limits)?
        };
        Ok(Chunks::new(self.schemas, schema, decoder, self.job.limits.chunk_bytes))
    }

    fn take(
        &mut self,
        chunk: ReadRows,
        path: &Path,
        origin: &Origin,
        object: &ObjectLocation,
    ) -> Result<(), LocalError> {
        let ReadRows { schema, transformed, row_count, unpacked_bytes } = chunk;
        let connector = &self.job.connector;
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
            self.keep(DeadLetter::of_row(&connector.name, origin, reject, Some(object.clone())), origin.time);
        }
        for reject in &transformed.held {
            let letter = DeadLetter::of_row(&connector.name, origin, reject, Some(object.clone()));
            self.checks.hold(origin, reject.row, letter, origin.time);
        }
        self.checks.count(&connector.name, &transformed.tallies, origin.time);
        self.rows.push(&schema.connector, OriginRows { origin: origin.clone(), batches: transformed.batches });
        Ok(())
    }

    /// Takes back what the chunks of the file at hand have written.
    fn discard(&mut self) -> Result<(), LocalError> {
        let Some(before) = self.cut.take() else { return Ok(()) };
        (self.report, self.window) = before;
        self.files.discard()
    }

    fn keep(&mut self, letter: DeadLetter, time: DateTime<Utc>) {
        *self.report.dead_letters.entry(letter.reason.as_str()).or_default() += 1;
        self.files.keep(letter, time);
    }

    /// Dedupes, checks, encodes and writes the open micro-batch; the next file opens another.
    fn close(&mut self) -> Result<(), LocalError> {
        self.fill = Fill::default();
        let mut checks = std::mem::take(&mut self.checks);
        let mut left = None;
        if let Some((connector, rows)) = std::mem::take(&mut self.rows).united()? {
            let plan = self.schemas.plan(&connector)?;
            let Checked { rows, duplicates, filtered, dead_letters, seen } =
                checks.check(&plan, rows, self.window.as_ref())?;
            self.window.iter_mut().for_each(|window| window.extend(seen.iter().copied()));
            checks.conclude(|_| Arc::clone(&connector), &Histories::default());
            if let Some((connector, reason)) = checks.stops().into_iter().next() {
                return Err(LocalError::BatchStopped { connector, reason });
            }
            self.report.duplicates += duplicates;
            self.report.filtered += filtered;
            self.report.rejected += dead_letters.len() as u64;
            for (letter, time) in dead_letters {
                self.keep(letter, time);
            }
            left = Some((connector, rows));
        }
        self.files.write(left, &mut self.report)
    }
}

/// What a dead letter keeps of a file, and why it is one.
fn kept(path: &Path, len: u64, fault: Fault) -> std::io::Result<(RejectReason, String, Bytes)> {
    let reason = fault.reason;
    if len <= LETTER_BYTES_MAX {
        let (bytes, detail) = fault.keep(Bytes::from(std::fs::read(path)?));
        return Ok((reason, detail, bytes));
    }
    let mut head = Vec::new();
    std::fs::File::open(path)?.take(HEAD_BYTES).read_to_end(&mut head)?;
    let detail = format!("{} (the first {HEAD_BYTES} of {len} stored bytes are kept)", fault.detail);
    Ok((reason, detail, Bytes::from(head)))
}

/// A file that cannot be read as a whole.
fn quarantined(
    connector: &str,
    origin: &Origin,
    object: ObjectLocation,
    (reason, detail, bytes): (RejectReason, String, Bytes),
) -> DeadLetter {
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
