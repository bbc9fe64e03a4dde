//! Cuts an unpacked object into blocks that end where a record ends.
//!
//! # Contract
//! Blocks follow each other without a gap but for a byte order mark at the very start. They are cut at the same places
//! whether the bytes lie in memory or come as a stream: behind the last record that ends within the size of a block,
//! else behind the first one that ends later. Of a stream never more is held than two blocks, or one record of
//! `record_bytes_max` where that is more: of a longer one the first bytes are kept and the others read over.

use std::io::Read;

use bytes::Bytes;

use super::framing::Framing;
use super::unpack::{Compression, Stored, StoredPoint, Unpacker};
use super::{DecodeError, DecodeLimits, LONG_RECORD_KEPT_BYTES, ObjectFault, RECORD_BYTES_MAX};

/// Few enough for several objects at once, enough that what is done once for each block costs nothing.
pub(super) const BLOCK_BYTES: usize = 8 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Length of the UTF-8 byte order mark at the start, or 0.
pub(super) fn byte_order_mark(bytes: &[u8]) -> usize {
    if bytes.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 }
}

/// What comes next of an object. Offsets are those of the unpacked object.
#[derive(Debug)]
pub(super) enum Piece {
    /// Whole records.
    Block { bytes: Bytes, offset: u64 },
    /// A record beyond `record_bytes_max`, of which only the beginning was kept. `len` is without its end.
    Long { head: Bytes, len: u64, offset: u64 },
}

pub(super) struct Blocks<'r> {
    source: Source<'r>,
    framing: Framing,
    pub(super) block_bytes: usize,
    /// Longer records are no longer held.
    record_bytes_max: u64,
    /// Behind the last piece.
    at: u64,
}

enum Source<'r> {
    Memory(Bytes),
    Stream {
        unpacker: Unpacker<'r>,
        /// Read behind the last piece.
        rest: Vec<u8>,
        has_ended: bool,
    },
}

impl<'r> Blocks<'r> {
    pub(super) fn of_bytes(bytes: Bytes, framing: Framing, limits: &DecodeLimits) -> Result<Self, DecodeError> {
        let source = match Unpacker::of_bytes(bytes, limits.unpacking())? {
            Ok(unpacked) => Source::Memory(unpacked),
            Err(unpacker) => Source::Stream { unpacker, rest: Vec::new(), has_ended: false },
        };
        Ok(Self::new(source, framing, limits))
    }

    pub(super) fn of_stream(
        stored: Box<dyn Read + Send + 'r>,
        framing: Framing,
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeError> {
        let unpacker = Unpacker::new(Stored::stream(stored, 0), limits.unpacking())?;
        Ok(Self::new(Source::Stream { unpacker, rest: Vec::new(), has_ended: false }, framing, limits))
    }

    /// Goes on at `at` in the unpacked object; `stored` begins at `point`.
    pub(super) fn resume(
        stored: Box<dyn Read + Send + 'r>,
        framing: Framing,
        limits: &DecodeLimits,
        point: StoredPoint,
        at: u64,
    ) -> Result<Self, DecodeError> {
        let StoredPoint { compression, stored_offset, unpacked_offset } = point;
        let stored = Stored::stream(stored, stored_offset);
        let mut unpacker = Unpacker::from_point(stored, compression, unpacked_offset, limits.unpacking())?;
        let mut passed_over = Vec::new();
        let mut missing = at - unpacked_offset;
        while missing > 0 {
            passed_over.clear();
            let step = missing.min(BLOCK_BYTES as u64);
            let read = unpacker.read(&mut passed_over, step as usize)? as u64;
            if read < step {
                let detail = format!("ends {missing} bytes before the place where it was read last");
                return Err(ObjectFault::CorruptCompression { detail }.into());
            }
            missing -= step;
        }
        let source = Source::Stream { unpacker, rest: Vec::new(), has_ended: false };
        Ok(Self { at, ..Self::new(source, framing, limits) })
    }

    /// From where on stored bytes must be read again to go on behind the last piece.
    pub(super) fn point(&mut self) -> StoredPoint {
        match &mut self.source {
            Source::Memory(_) => {
                StoredPoint { compression: Compression::None, stored_offset: self.at, unpacked_offset: self.at }
            }
            Source::Stream { unpacker, .. } => unpacker.point(self.at),
        }
    }

    fn new(source: Source<'r>, framing: Framing, limits: &DecodeLimits) -> Self {
        let record_bytes_max = limits.record_bytes_max.min(RECORD_BYTES_MAX);
        Self { source, framing, block_bytes: BLOCK_BYTES, record_bytes_max, at: 0 }
    }

    /// Unpacked bytes given out or read over so far.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn next(&mut self) -> Result<Option<Piece>, DecodeError> {
        let is_first = self.at == 0;
        let (offset, block_bytes, framing) = (self.at, self.block_bytes, self.framing);
        let block = match &mut self.source {
            Source::Memory(bytes) => {
                let mark = if is_first { byte_order_mark(bytes) } else { 0 };
                self.at += mark as u64;
                let mut rest = bytes.split_off(mark);
                let end = if rest.len() < block_bytes { None } else { framing.cut(&rest, block_bytes) };
                *bytes = rest.split_off(end.unwrap_or(rest.len()));
                rest
            }
            Source::Stream { unpacker, rest, has_ended } => {
                let mut buffer = std::mem::take(rest);
                let mark = if is_first {
                    *has_ended = fill(unpacker, &mut buffer, BYTE_ORDER_MARK.len())?;
                    byte_order_mark(&buffer)
                } else {
                    0
                };
                buffer.drain(..mark);
                self.at += mark as u64;
                // what a record may have at most, and a line end of two bytes
                let held_max = if framing.is_whole() { u64::MAX } else { self.record_bytes_max + 2 };
                let held_max = usize::try_from(held_max).unwrap_or(usize::MAX);
                let mut wanted = block_bytes;
                loop {
                    *has_ended = *has_ended || fill(unpacker, &mut buffer, wanted)?;
                    if buffer.len() < block_bytes {
                        break;
                    }
                    if let Some(end) = framing.cut(&buffer, block_bytes) {
                        *rest = buffer.split_off(end);
                        break;
                    }
                    if *has_ended {
                        break;
                    }
                    if buffer.len() >= held_max {
                        return self.long(buffer).map(Some);
                    }
                    wanted = buffer.len().saturating_mul(2).min(held_max);
                }
                if buffer.capacity() / 2 > buffer.len() {
                    buffer.shrink_to_fit();
                }
                Bytes::from(buffer)
            }
        };
        if block.is_empty() && self.at == offset {
            return Ok(None);
        }
        let offset = self.at;
        self.at += block.len() as u64;
        Ok(Some(Piece::Block { bytes: block, offset }))
    }

    /// Reads over the rest of a record that is longer than any may be.
    fn long(&mut self, begun: Vec<u8>) -> Result<Piece, DecodeError> {
        let Source::Stream { unpacker, rest, has_ended } = &mut self.source else {
            unreachable!("records in memory are not read over")
        };
        let (framing, offset) = (self.framing, self.at);
        let mut is_blank = framing.is_blank(&begun);
        let mut last = begun[begun.len().saturating_sub(1)..].to_vec();
        let mut len = begun.len() as u64;
        let mut head = begun;
        head.truncate(LONG_RECORD_KEPT_BYTES);
        head.shrink_to_fit();
        loop {
            let mut more = Vec::new();
            *has_ended = fill(unpacker, &mut more, self.block_bytes)?;
            let end = framing.end(&more);
            let tail = more.split_off(end.unwrap_or(more.len()));
            is_blank = is_blank && framing.is_blank(&more);
            head.extend_from_slice(&more[..more.len().min(LONG_RECORD_KEPT_BYTES - head.len())]);
            len += more.len() as u64;
            last.extend_from_slice(&more[more.len().saturating_sub(2)..]);
            last.drain(..last.len().saturating_sub(2));
            if end.is_some() || *has_ended {
                *rest = tail;
                break;
            }
        }
        self.at += len;
        if is_blank {
            return Ok(Piece::Block { bytes: Bytes::new(), offset });
        }
        let len = len - framing.end_len(&last) as u64;
        head.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(Piece::Long { head: Bytes::from(head), len, offset })
    }
}

/// Reads until `buffer` holds `wanted` bytes; `true`: it never will.
fn fill(unpacker: &mut Unpacker<'_>, buffer: &mut Vec<u8>, wanted: usize) -> Result<bool, DecodeError> {
    let missing = wanted.saturating_sub(buffer.len());
    Ok(unpacker.read(buffer, missing)? < missing)
}
