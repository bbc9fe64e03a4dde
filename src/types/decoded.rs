use std::ops::Range;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;

use super::RowReject;

/// What became of the bytes of an object, or of a block of it: rows that decoded, rejects, and where each row's bytes stand.
#[derive(Debug, Clone, Default)]
pub struct Decoded {
    pub batches: Vec<DecodedBatch>,
    /// In the order of their rows.
    pub rejects: Vec<RowReject>,
    /// Good and rejected.
    pub row_count: u64,
    pub unpacked_bytes: u64,
}

impl Decoded {
    /// Adds the block behind it.
    pub fn append(&mut self, next: Self) {
        self.batches.extend(next.batches);
        self.rejects.extend(next.rejects);
        self.row_count += next.row_count;
        self.unpacked_bytes += next.unpacked_bytes;
    }
}

/// Some rows of one object.
#[derive(Debug, Clone)]
pub struct DecodedBatch {
    /// [`crate::config::Connector::decoded_schema`]; at least one row.
    pub rows: RecordBatch,
    /// Of each row, in their order.
    pub spans: Vec<Span>,
    /// The unpacked bytes that hold the rows: the whole object or a block of it, shared by its batches.
    pub unpacked: Bytes,
    /// Where `unpacked` begins in the unpacked object.
    pub unpacked_offset: u64,
    /// The object's header with its line end, where rows mean nothing without; else empty.
    pub header_line: Bytes,
}

/// Where a row stands in the unpacked object, without its line end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub byte_offset: u64,
    pub len: u32,
}

impl DecodedBatch {
    /// The row as it stood, behind the object's header where it has one; `index` counts the rows of this batch.
    pub fn row_bytes(&self, index: usize) -> Bytes {
        let span = self.spans[index];
        let start = (span.byte_offset - self.unpacked_offset) as usize;
        with_header(self.header_line.clone(), kept_bytes(&self.unpacked, start..start + span.len as usize))
    }
}

/// A row behind the header that gives it its meaning; the row alone where `header_line` is empty.
pub fn with_header(header_line: Bytes, row: Bytes) -> Bytes {
    if header_line.is_empty() { row } else { Bytes::from([header_line, row].concat()) }
}

/// A part of a buffer that outlives it. Small parts are copied: a few rejects must not keep a whole
/// object in memory.
pub fn kept_bytes(buffer: &Bytes, range: Range<usize>) -> Bytes {
    if range.len() >= buffer.len() / 2 { buffer.slice(range) } else { Bytes::copy_from_slice(&buffer[range]) }
}
