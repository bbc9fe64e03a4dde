use std::fmt;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    Data,
    DeadLetter,
}

impl FileKind {
    /// Spelling in `catalog.file.kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::DeadLetter => "dead_letter",
        }
    }

    /// First component of the published key.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::DeadLetter => "dead-letters",
        }
    }
}

/// A directory of Parquet files: `type=…/source=…/date=…/hour=…`, Hive-escaped, without slashes at its ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TablePartition(pub String);

impl fmt::Display for TablePartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A complete Parquet file of one micro-batch, encoded and not yet put anywhere.
#[derive(Debug, Clone)]
pub struct StagedFile {
    pub file_id: Uuid,
    pub kind: FileKind,
    pub dataset: String,
    pub connector: String,
    pub connector_revision: String,
    pub schema_revision: String,
    pub table_partition: TablePartition,
    pub row_count: u64,
    pub event_time_min: Option<DateTime<Utc>>,
    pub event_time_max: Option<DateTime<Utc>>,
    pub bytes: Bytes,
}
