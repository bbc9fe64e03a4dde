//! The files that one thread of [`super::local`] writes: open for one micro-batch after another, so that a table partition
//! has few files, however small the objects and their micro-batches are.
//!
//! # Contract
//! Memory is bounded: files and dead letters are written when they hold [`HELD_BYTES_MAX`] together. Rows of another schema
//! go into other files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::local::{LocalError, StageReport};
use crate::config::Connector;
use crate::stage::{self, OpenFiles, StageError};
use crate::types::{DeadLetter, FileKind, MicroBatchId, OriginRows, StagedFile, TopicPartition};

/// Of one thread: about half a GiB of JSON lines.
const HELD_BYTES_MAX: usize = 96 << 20;

pub(super) struct LocalFiles<'a> {
    out: &'a Path,
    connector: &'a Connector,
    topic_partition: TopicPartition,
    /// Of what is open.
    id: MicroBatchId,
    open: Option<OpenFiles>,
    dead_letters: Vec<(DeadLetter, DateTime<Utc>)>,
    letter_bytes: usize,
    folders: BTreeSet<PathBuf>,
    /// Written since [`LocalFiles::record`].
    recorded: Option<Vec<PathBuf>>,
}

impl<'a> LocalFiles<'a> {
    pub(super) fn new(out: &'a Path, connector: &'a Connector) -> Self {
        Self {
            out,
            connector,
            topic_partition: TopicPartition::new("local", 0),
            id: MicroBatchId::generate(),
            open: None,
            dead_letters: Vec::new(),
            letter_bytes: 0,
            folders: BTreeSet::new(),
            recorded: None,
        }
    }

    /// `rows`: of the connector, which may be any that the declared one grew to.
    pub(super) fn add(
        &mut self,
        connector: &Arc<Connector>,
        rows: Vec<OriginRows>,
        report: &mut StageReport,
    ) -> Result<(), LocalError> {
        let is_of = |open: &OpenFiles| open.connector().schema_revision == connector.schema_revision;
        if self.open.as_ref().is_some_and(|open| !is_of(open)) {
            self.write(report)?;
        }
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(OpenFiles::new(connector, &self.topic_partition, self.id)?),
        };
        Ok(open.add(rows)?)
    }

    /// It is time to write them.
    pub(super) fn are_full(&self) -> bool {
        self.open.as_ref().map_or(0, OpenFiles::held_bytes) + self.letter_bytes >= HELD_BYTES_MAX
    }

    pub(super) fn keep(&mut self, letter: DeadLetter, time: DateTime<Utc>) {
        self.letter_bytes += letter.bytes.len();
        self.dead_letters.push((letter, time));
    }

    /// Closes and writes everything.
    pub(super) fn write(&mut self, report: &mut StageReport) -> Result<(), LocalError> {
        let id = std::mem::replace(&mut self.id, MicroBatchId::generate());
        let mut files = self.open.take().map(OpenFiles::finish).transpose()?.unwrap_or_default();
        files.extend(self.encode_letters(id)?);
        for file in &files {
            self.put(id, file, report)?;
        }
        Ok(())
    }

    fn encode_letters(&mut self, id: MicroBatchId) -> Result<Vec<StagedFile>, StageError> {
        self.letter_bytes = 0;
        let letters = std::mem::take(&mut self.dead_letters);
        let revisions = |_: &str| (self.connector.revision.clone(), self.connector.schema_revision.clone());
        stage::encode_dead_letters(&self.topic_partition, id, &letters, revisions)
    }

    fn put(&mut self, id: MicroBatchId, file: &StagedFile, report: &mut StageReport) -> Result<(), LocalError> {
        let path = self.out.join(stage::published_key(id, file));
        let failed = |source| LocalError::Write { path: path.clone(), source };
        if let Some(folder) = path.parent().filter(|folder| !self.folders.contains(*folder)) {
            std::fs::create_dir_all(folder).map_err(failed)?;
            self.folders.insert(folder.to_owned());
        }
        if let Some(recorded) = &mut self.recorded {
            recorded.push(path.clone());
        }
        std::fs::write(&path, &file.bytes).map_err(failed)?;
        report.files_out += 1;
        report.bytes_out += file.bytes.len() as u64;
        if file.kind == FileKind::Data {
            report.rows_out += file.row_count;
        }
        Ok(())
    }

    /// What is added from now on can be taken back, until [`LocalFiles::settle`]. Nothing is open.
    pub(super) fn record(&mut self) {
        self.recorded = Some(Vec::new());
    }

    pub(super) fn settle(&mut self) {
        self.recorded = None;
    }

    /// Takes back what was added since [`LocalFiles::record`].
    pub(super) fn discard(&mut self) -> Result<(), LocalError> {
        let Some(recorded) = self.recorded.take() else { return Ok(()) };
        self.open = None;
        self.dead_letters.clear();
        self.letter_bytes = 0;
        for path in recorded {
            std::fs::remove_file(&path).map_err(|source| LocalError::Write { path, source })?;
        }
        Ok(())
    }
}
