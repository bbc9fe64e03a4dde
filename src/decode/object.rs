//! One object, block by block.

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::blocks::{Blocks, Piece};
use super::csv::CsvRows;
use super::framing::Framing;
use super::json::{RowDecoder, RowFault};
use super::parquet::ParquetRows;
use super::unpack::StoredPoint;
use super::{DecodeError, DecodeLimits, LONG_RECORD_KEPT_BYTES, ObjectFault, RECORD_BYTES_MAX};
use crate::config::{Connector, FieldType, Format, SeenTypes, see};
use crate::types::{Decoded, DecodedBatch, RejectReason, RowReject, Span, kept_bytes, with_header};

/// Rows of one record batch at most; few enough to stay in a core's cache, enough to pay for the batch.
const BATCH_ROWS_MAX: usize = 8192;
/// A record batch is closed when its rows came from that many bytes.
const BATCH_BYTES_MAX: usize = 64 << 20;
/// Of one object. One growth takes every type of a block: more are needed where a grown column shows another misfit, and
/// where later blocks show more. Rows that need yet another are dead letters.
const GROWTHS_MAX: usize = 1024;

/// A place between two blocks of an object, from where on it can be decoded by another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumePoint {
    /// Where the stored bytes must be read from.
    pub stored: StoredPoint,
    /// In the unpacked object: behind the last block, at or behind [`StoredPoint::unpacked_offset`].
    pub unpacked_offset: u64,
    /// Number of the next row.
    pub next_row: i64,
}

/// Decodes an object a block at a time, in bounded memory however large it is: about 8 MiB of unpacked bytes, and their
/// rows. All blocks together are the same rows, whatever the bytes come from.
///
/// Where the connector evolves, a block is decoded by what its data made of the schema; the blocks before it have the
/// schema that they needed.
pub struct ObjectDecoder<'a> {
    pieces: Pieces<'a>,
    framing: Framing,
    rows: BlockDecoder,
    has_ended: bool,
}

impl<'a> ObjectDecoder<'a> {
    /// Of stored bytes in memory. What is not compressed is not copied.
    pub fn of_bytes(connector: &Arc<Connector>, stored: Bytes, limits: &DecodeLimits) -> Result<Self, DecodeError> {
        if connector.source.format == Format::Parquet {
            let rows = ParquetRows::of_bytes(connector, stored, limits)?;
            return Ok(Self::new(connector, Pieces::Parquet(Box::new(rows)), limits));
        }
        let framing = Framing::of(&connector.source.format, limits);
        Ok(Self::new(connector, Pieces::Blocks(Blocks::of_bytes(stored, framing, limits)?), limits))
    }

    /// Of stored bytes as they come. Reads the first few at once; Parquet whole.
    pub fn of_stream(
        connector: &Arc<Connector>,
        stored: impl Read + Send + 'a,
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeError> {
        if connector.source.format == Format::Parquet {
            let rows = ParquetRows::of_stream(connector, Box::new(stored), limits)?;
            return Ok(Self::new(connector, Pieces::Parquet(Box::new(rows)), limits));
        }
        let framing = Framing::of(&connector.source.format, limits);
        Ok(Self::new(connector, Pieces::Blocks(Blocks::of_stream(Box::new(stored), framing, limits)?), limits))
    }

    /// Goes on at a place where another decoder was, by the connector that it had there. `stored` begins at
    /// [`StoredPoint::stored_offset`]; what was decoded before is only unpacked again. Only of a format that has such places.
    pub fn resume(
        connector: &Arc<Connector>,
        stored: impl Read + Send + 'a,
        limits: &DecodeLimits,
        point: &ResumePoint,
    ) -> Result<Self, DecodeError> {
        let framing = Framing::of(&connector.source.format, limits);
        let blocks = Blocks::resume(Box::new(stored), framing, limits, point.stored, point.unpacked_offset)?;
        let mut decoder = Self::new(connector, Pieces::Blocks(blocks), limits);
        decoder.rows.next_row = point.next_row;
        Ok(decoder)
    }

    /// Behind the last block; `None` where what lies behind means nothing without what lies before.
    pub fn resume_point(&mut self) -> Option<ResumePoint> {
        let (unpacked_offset, next_row) = (self.pieces.at(), self.rows.next_row);
        let Pieces::Blocks(blocks) = &mut self.pieces else { return None };
        let stored = blocks.point();
        matches!(self.framing, Framing::Lines).then_some(ResumePoint { stored, unpacked_offset, next_row })
    }

    fn new(connector: &Arc<Connector>, mut pieces: Pieces<'a>, limits: &DecodeLimits) -> Self {
        let framing = Framing::of(&connector.source.format, limits);
        let mut rows = BlockDecoder::new(connector, limits);
        if let Pieces::Parquet(parquet) = &mut pieces {
            rows.seen = std::mem::take(&mut parquet.seen);
            // before any row is read: as text they would look like text
            rows.grow();
        }
        Self { pieces, framing, rows, has_ended: false }
    }

    /// Blocks of another size, which shows in nothing but how much is held; for tests.
    #[must_use]
    pub fn with_block_bytes(mut self, block_bytes: usize) -> Self {
        match &mut self.pieces {
            Pieces::Blocks(blocks) => blocks.block_bytes = block_bytes,
            Pieces::Parquet(rows) => rows.block_bytes = block_bytes,
        }
        self
    }

    /// The next block, which may be without rows. Row numbers and byte offsets are those of the object. `None`: the
    /// object has ended, and what was decoded is all of it. After an error, what was decoded is not to be used.
    pub fn next_block(&mut self) -> Result<Option<Decoded>, DecodeError> {
        if self.has_ended {
            return Ok(None);
        }
        let before = self.pieces.at();
        let Some(piece) = self.pieces.next()? else {
            self.has_ended = true;
            return Ok(None);
        };
        let unpacked_bytes = self.pieces.at() - before;
        let (next_row, has_header) = (self.rows.next_row, self.rows.wants_header());
        loop {
            self.decode(&piece, has_header)?;
            let decoded = self.rows.finish(unpacked_bytes);
            if !self.rows.grow() {
                return Ok(Some(decoded));
            }
            self.rows.next_row = next_row;
        }
    }

    /// What the object made of its connector so far: that of the last block's rows.
    pub fn connector(&self) -> &Arc<Connector> {
        self.rows.connector()
    }

    fn decode(&mut self, piece: &Piece, has_header: bool) -> Result<(), DecodeError> {
        match piece {
            Piece::Block { bytes, offset } => {
                self.rows.begin(bytes.clone(), *offset);
                let mut records = self.framing.records(bytes);
                if has_header
                    && let Some(range) = records.next()
                    && self.rows.wants_header()
                {
                    self.rows.header(range)?;
                }
                records.for_each(|range| self.rows.record(range));
            }
            Piece::Long { head, len, offset } => self.rows.reject_long(head.clone(), *len, *offset),
        }
        Ok(())
    }
}

/// Where the records of an object come from.
enum Pieces<'a> {
    Blocks(Blocks<'a>),
    Parquet(Box<ParquetRows>),
}

impl Pieces<'_> {
    fn at(&self) -> u64 {
        match self {
            Self::Blocks(blocks) => blocks.at(),
            Self::Parquet(rows) => rows.at(),
        }
    }

    fn next(&mut self) -> Result<Option<Piece>, DecodeError> {
        match self {
            Self::Blocks(blocks) => blocks.next(),
            Self::Parquet(rows) => Ok(rows.next()?),
        }
    }
}

/// How records of a format become rows.
enum Rows {
    Json(Box<RowDecoder>),
    Csv(Box<CsvRows>),
}

impl Rows {
    fn new(connector: &Arc<Connector>, json_depth_max: usize) -> Self {
        match &connector.source.format {
            Format::Json | Format::JsonValues | Format::Parquet => {
                Self::Json(Box::new(RowDecoder::new(connector, json_depth_max)))
            }
            Format::Csv(dialect) => Self::Csv(Box::new(CsvRows::new(connector, dialect, json_depth_max))),
        }
    }

    fn grown(&self, connector: &Arc<Connector>, json_depth_max: usize) -> Self {
        match self {
            Self::Json(_) => Self::new(connector, json_depth_max),
            Self::Csv(rows) => Self::Csv(Box::new(rows.grown(connector))),
        }
    }

    /// Of the last row, where it faulted by [`RowFault::Widens`].
    fn row_seen(&self) -> &[(String, FieldType)] {
        match self {
            Self::Json(rows) => rows.row_seen(),
            Self::Csv(rows) => rows.row_seen(),
        }
    }

    fn row(&mut self, row: i64, record: &[u8]) -> Result<(), RowFault> {
        match self {
            Self::Json(rows) => rows.row(row, record),
            Self::Csv(rows) => rows.row(row, record),
        }
    }

    fn finish(&mut self) -> RecordBatch {
        match self {
            Self::Json(rows) => rows.finish(),
            Self::Csv(rows) => rows.finish(),
        }
    }

    /// What a row's bytes mean nothing without; empty for most formats.
    fn header_line(&self) -> Bytes {
        match self {
            Self::Json(_) => Bytes::new(),
            Self::Csv(rows) => rows.header_line(),
        }
    }
}

/// Gathers the rows of one block after another.
pub(super) struct BlockDecoder {
    connector: Arc<Connector>,
    rows: Rows,
    json_depth_max: usize,
    /// Types that rows need which only a narrow schema keeps out.
    seen: SeenTypes,
    growth_count: usize,
    record_bytes_max: u64,
    /// Of a record that is too long.
    kept_bytes_max: usize,
    next_row: i64,
    block: Bytes,
    block_offset: u64,
    /// Lines of text that is UTF-8 as a whole need not be looked at one by one.
    is_utf8: bool,
    decoded: Decoded,
    /// Of the open batch.
    spans: Vec<Span>,
    batch_bytes: usize,
}

impl BlockDecoder {
    pub(super) fn new(connector: &Arc<Connector>, limits: &DecodeLimits) -> Self {
        Self {
            connector: Arc::clone(connector),
            rows: Rows::new(connector, limits.json_depth_max),
            json_depth_max: limits.json_depth_max,
            seen: SeenTypes::new(),
            growth_count: 0,
            record_bytes_max: limits.record_bytes_max.min(RECORD_BYTES_MAX),
            kept_bytes_max: LONG_RECORD_KEPT_BYTES,
            next_row: 0,
            block: Bytes::new(),
            block_offset: 0,
            is_utf8: true,
            decoded: Decoded::default(),
            spans: Vec::new(),
            batch_bytes: 0,
        }
    }

    /// A message holds its records whole, and nothing else does.
    pub(super) fn keeping_long_records(mut self) -> Self {
        self.kept_bytes_max = usize::MAX;
        self
    }

    pub(super) fn begin(&mut self, block: Bytes, offset: u64) {
        self.is_utf8 = simdutf8::basic::from_utf8(&block).is_ok();
        (self.block, self.block_offset) = (block, offset);
    }

    /// Whether the next record names columns.
    pub(super) fn wants_header(&self) -> bool {
        matches!(&self.rows, Rows::Csv(rows) if rows.wants_header())
    }

    /// `range`: within the block.
    pub(super) fn header(&mut self, range: Range<usize>) -> Result<(), ObjectFault> {
        let Rows::Csv(rows) = &mut self.rows else { return Ok(()) };
        if range.len() as u64 > self.record_bytes_max {
            return Err(ObjectFault::MalformedHeader { detail: "longer than limits.record_bytes_max".to_owned() });
        }
        rows.header(&self.block[range]).map_err(|detail| ObjectFault::MalformedHeader { detail })
    }

    /// `range`: within the block.
    pub(super) fn record(&mut self, range: Range<usize>) {
        let byte_offset = self.block_offset + range.start as u64;
        if range.len() as u64 > self.record_bytes_max {
            let head = range.start..range.start + range.len().min(self.kept_bytes_max);
            let head = kept_bytes(&self.block, head);
            return self.reject_long(head, range.len() as u64, byte_offset);
        }
        let row = self.next_row;
        if let Err((reason, detail)) = self.read(row, range.clone()) {
            let bytes = with_header(self.rows.header_line(), kept_bytes(&self.block, range));
            return self.reject(byte_offset, reason, detail, bytes);
        }
        self.next_row += 1;
        self.decoded.row_count += 1;
        self.spans.push(Span { byte_offset, len: range.len() as u32 });
        self.batch_bytes += range.len();
        if self.spans.len() >= BATCH_ROWS_MAX || self.batch_bytes >= BATCH_BYTES_MAX {
            self.close_batch();
        }
    }

    /// The one row of a message, behind a header of `header_len` bytes.
    pub(super) fn one_record(&mut self, start: usize, header_len: usize, end: usize) {
        let row = start + header_len..end;
        if self.wants_header()
            && let Err(fault) = self.header(start..row.start)
        {
            let bytes = self.block.clone();
            return self.reject(start as u64, RejectReason::MalformedCsv, fault.to_string(), bytes);
        }
        self.record(row);
    }

    fn read(&mut self, row: i64, range: Range<usize>) -> Result<(), (RejectReason, String)> {
        let record = &self.block[range];
        if !self.is_utf8
            && let Err(error) = simdutf8::compat::from_utf8(record)
        {
            return Err((RejectReason::InvalidUtf8, format!("no UTF-8 at byte {}", error.valid_up_to())));
        }
        let Err(fault) = self.rows.row(row, record) else { return Ok(()) };
        if matches!(fault, RowFault::Widens { .. }) {
            for (name, data_type) in self.rows.row_seen() {
                see(&mut self.seen, name, *data_type);
            }
        }
        Err((fault.reason(), fault.detail()))
    }

    fn reject_long(&mut self, head: Bytes, len: u64, byte_offset: u64) {
        let mut detail = format!("{len} bytes, limits.record_bytes_max allows {}", self.record_bytes_max);
        if (head.len() as u64) < len {
            detail.push_str(&format!(" (the first {} bytes are kept)", head.len()));
        }
        self.reject(byte_offset, RejectReason::RecordTooLong, detail, head);
    }

    fn reject(&mut self, byte_offset: u64, reason: RejectReason, detail: String, bytes: Bytes) {
        self.decoded.rejects.push(RowReject { row: self.next_row, byte_offset, reason, detail, bytes });
        self.next_row += 1;
        self.decoded.row_count += 1;
    }

    fn close_batch(&mut self) {
        self.batch_bytes = 0;
        self.decoded.batches.push(DecodedBatch {
            rows: self.rows.finish(),
            spans: std::mem::take(&mut self.spans),
            unpacked: self.block.clone(),
            unpacked_offset: self.block_offset,
            header_line: self.rows.header_line(),
        });
    }

    pub(super) fn connector(&self) -> &Arc<Connector> {
        &self.connector
    }

    /// Takes the schema that the rows since the last time would need. `true`: they are to be decoded again by it.
    pub(super) fn grow(&mut self) -> bool {
        let seen = std::mem::take(&mut self.seen);
        if seen.is_empty() || self.growth_count == GROWTHS_MAX {
            return false;
        }
        self.growth_count += 1;
        self.connector = Arc::new(self.connector.evolved(&seen));
        self.rows = self.rows.grown(&self.connector, self.json_depth_max);
        true
    }

    /// Ends the block.
    pub(super) fn finish(&mut self, unpacked_bytes: u64) -> Decoded {
        if !self.spans.is_empty() {
            self.close_batch();
        }
        self.block = Bytes::new();
        self.decoded.unpacked_bytes = unpacked_bytes;
        std::mem::take(&mut self.decoded)
    }
}
