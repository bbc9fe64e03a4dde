//! Where the records of a format stand in its bytes: whole blocks are cut and read by it.
//!
//! # Contract
//! Every slice given to a framing begins where a record, or what stands between two, begins. Where it cuts depends on
//! the bytes up to the cut and on `wanted` alone, never on how many more lie behind: so a stream is cut as the same
//! bytes in memory are.

use std::ops::Range;

use super::DecodeLimits;
use super::csv_records::{CsvRecords, Marks};
use super::json_values::JsonValues;
use super::lines::{self, Lines};
use crate::config::Format;

#[derive(Debug, Clone, Copy)]
pub(super) enum Framing {
    /// Records end at a newline.
    Lines,
    /// CSV: the whole object is one block, since a quote is told from a mistake by what stands far behind it.
    Csv { marks: Marks, record_bytes_max: usize },
    /// JSON values: likewise one block, since the end of a broken one is told by what stands far behind it.
    JsonValues { depth_max: usize, record_bytes_max: usize },
}

impl Framing {
    pub(super) fn of(format: &Format, limits: &DecodeLimits) -> Self {
        let record_bytes_max = usize::try_from(limits.record_bytes_max).unwrap_or(usize::MAX);
        match format {
            // rows of Parquet are read as lines
            Format::Json | Format::Parquet => Self::Lines,
            Format::JsonValues => Self::JsonValues { depth_max: limits.json_depth_max, record_bytes_max },
            Format::Csv(dialect) => {
                Self::Csv { marks: Marks { delimiter: dialect.delimiter, quote: dialect.quote }, record_bytes_max }
            }
        }
    }

    /// Whether an object is held as one block.
    pub(super) fn is_whole(self) -> bool {
        matches!(self, Self::Csv { .. } | Self::JsonValues { .. })
    }

    /// Behind the last record that ends within the first `wanted` bytes, else behind the first one that ends later.
    /// `None`: no record ends within `bytes`.
    pub(super) fn cut(self, bytes: &[u8], wanted: usize) -> Option<usize> {
        match self {
            Self::Lines => lines::cut(bytes, wanted),
            Self::Csv { .. } | Self::JsonValues { .. } => None,
        }
    }

    /// Behind the end of a record that began before `bytes`.
    pub(super) fn end(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Lines => memchr::memchr(b'\n', bytes).map(|end| end + 1),
            Self::Csv { .. } | Self::JsonValues { .. } => None,
        }
    }

    /// Whether bytes within a record, line ends left aside, make it no row.
    pub(super) fn is_blank(self, bytes: &[u8]) -> bool {
        match self {
            Self::Lines | Self::Csv { .. } | Self::JsonValues { .. } => {
                lines::is_blank(bytes.strip_suffix(b"\n").unwrap_or(bytes))
            }
        }
    }

    /// How much of a record's last bytes is its end, not the record.
    pub(super) fn end_len(self, last: &[u8]) -> usize {
        match self {
            _ if last.ends_with(b"\r\n") => 2,
            _ => usize::from(last.ends_with(b"\n")),
        }
    }

    /// The records of a block, without what stands between them.
    pub(super) fn records(self, block: &[u8]) -> Records<'_> {
        match self {
            Self::Lines => Records::Lines(Lines::new(block)),
            Self::Csv { marks, record_bytes_max } => Records::Csv(CsvRecords::new(block, marks, record_bytes_max)),
            Self::JsonValues { depth_max, record_bytes_max } => {
                Records::JsonValues(JsonValues::new(block, depth_max, record_bytes_max))
            }
        }
    }
}

pub(super) enum Records<'a> {
    Lines(Lines<'a>),
    Csv(CsvRecords<'a>),
    JsonValues(JsonValues<'a>),
}

impl Iterator for Records<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        match self {
            Self::Lines(lines) => lines.next(),
            Self::Csv(records) => records.next(),
            Self::JsonValues(values) => values.next(),
        }
    }
}
