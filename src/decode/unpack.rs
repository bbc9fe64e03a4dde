//! Compression, told by the first bytes: gzip (RFC 1952, several members), zstd (RFC 8878, several frames,
//! skippable ones included), or none.
//!
//! # Contract
//! Gives out unpacked bytes as they are asked for and holds none of them (zstd's window besides, at most 128 MiB); more
//! than [`UnpackLimits`] allow are an error as soon as they are met: a bomb is noticed while it unpacks. A stream that ends
//! early, fails its checksum or is followed by anything but another stream of its kind is corrupt as a whole.
//!
//! Unpacking can begin anew at a [`StoredPoint`]: anywhere in what is not compressed, else where a gzip member or a
//! zstd frame begins.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::io::{self, BufRead, Read};

use bytes::{Buf, Bytes};
use flate2::bufread::GzDecoder;
use serde::{Deserialize, Serialize};
use zstd::zstd_safe::{self, DCtx, DParameter, InBuffer, OutBuffer};

use super::{DecodeError, ObjectFault};

/// First bytes of a gzip member. Source: RFC 1952, 2.3.1 (8: deflate, the only method there is).
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
/// First bytes of a zstd frame. Source: RFC 8878, 3.1.1.
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Skippable frames begin with 0x184D2A50 to 0x184D2A5F, little-endian. Source: RFC 8878, 3.1.2.
const ZSTD_SKIPPABLE_MAGIC: &[u8] = &[0x2a, 0x4d, 0x18];
/// The longest of them.
const MAGIC_BYTES_MAX: usize = 4;
/// Windows of the ordinary levels, 1 to 19, end here. Source: zstd 1.5.7, ZSTD_defaultCParameters.
const ZSTD_WINDOW_LOG_ORDINARY: u32 = 23;
/// What decoders must take, and take at most unless told otherwise. Source: zstd 1.5.7, ZSTD_WINDOWLOG_LIMIT_DEFAULT.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const CAPACITY_MIN: usize = 64 << 10;
/// Of stored bytes that come as a stream.
const READ_BYTES: usize = 256 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A place where unpacking can begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPoint {
    pub compression: Compression,
    /// In the stored object.
    pub stored_offset: u64,
    /// What it unpacks to stands there in the unpacked object.
    pub unpacked_offset: u64,
}

impl Compression {
    /// Of an object that begins so.
    pub fn of(bytes: &[u8]) -> Self {
        let is_skippable = bytes.len() >= 4 && bytes[0] & 0xf0 == 0x50 && bytes[1..].starts_with(ZSTD_SKIPPABLE_MAGIC);
        if bytes.starts_with(GZIP_MAGIC) {
            Self::Gzip
        } else if bytes.starts_with(ZSTD_MAGIC) || is_skippable {
            Self::Zstd
        } else {
            Self::None
        }
    }
}

/// Stored bytes, buffered.
pub(super) struct Stored<'r> {
    bytes: StoredBytes<'r>,
    /// Where what comes next stands in the stored object.
    offset: u64,
}

enum StoredBytes<'r> {
    Memory(Bytes),
    Stream {
        reader: Box<dyn Read + Send + 'r>,
        buffer: Vec<u8>,
        /// What was taken out of the buffer.
        taken: usize,
    },
}

impl<'r> Stored<'r> {
    pub(super) fn memory(bytes: Bytes) -> Self {
        Self { bytes: StoredBytes::Memory(bytes), offset: 0 }
    }

    /// `offset`: where its first byte stands in the stored object.
    pub(super) fn stream(reader: Box<dyn Read + Send + 'r>, offset: u64) -> Self {
        Self { bytes: StoredBytes::Stream { reader, buffer: Vec::new(), taken: 0 }, offset }
    }

    /// Takes as many bytes, fewer only at the end. They are read to where they stay: nothing is zeroed before.
    fn append(&mut self, into: &mut Vec<u8>, count: u64) -> io::Result<usize> {
        let len = into.len();
        match &mut self.bytes {
            StoredBytes::Memory(bytes) => {
                let there = bytes.split_to(usize::try_from(count).unwrap_or(usize::MAX).min(bytes.len()));
                into.extend_from_slice(&there);
            }
            StoredBytes::Stream { reader, buffer, taken } => {
                let held = usize::try_from(count).unwrap_or(usize::MAX).min(buffer.len() - *taken);
                into.extend_from_slice(&buffer[*taken..*taken + held]);
                *taken += held;
                reader.by_ref().take(count - held as u64).read_to_end(into).map_err(NotRead::mark)?;
            }
        }
        let read = into.len() - len;
        self.offset += read as u64;
        Ok(read)
    }

    /// The first bytes, at least so many where there are, without taking them.
    fn first(&mut self, count: usize) -> io::Result<&[u8]> {
        match &mut self.bytes {
            StoredBytes::Memory(bytes) => Ok(bytes),
            StoredBytes::Stream { reader, buffer, .. } => {
                while buffer.len() < count && read_more(reader, buffer)? > 0 {}
                Ok(buffer)
            }
        }
    }
}

/// At least one byte, but at the end.
fn read_more(reader: &mut dyn Read, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let len = buffer.len();
    buffer.resize(len + READ_BYTES, 0);
    let read = loop {
        match reader.read(&mut buffer[len..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read.map_err(NotRead::mark),
        }
    };
    buffer.truncate(len + *read.as_ref().unwrap_or(&0));
    read
}

impl Read for Stored<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut there = self.fill_buf()?;
        let count = there.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Stored<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match &mut self.bytes {
            StoredBytes::Memory(bytes) => Ok(bytes),
            StoredBytes::Stream { reader, buffer, taken } => {
                if *taken == buffer.len() {
                    buffer.clear();
                    *taken = 0;
                    read_more(reader, buffer)?;
                }
                Ok(&buffer[*taken..])
            }
        }
    }

    fn consume(&mut self, count: usize) {
        self.offset += count as u64;
        match &mut self.bytes {
            StoredBytes::Memory(bytes) => bytes.advance(count),
            StoredBytes::Stream { taken, .. } => *taken += count,
        }
    }
}

/// Marks an error of the reader, to tell it from one of the decoder.
#[derive(Debug)]
struct NotRead(io::Error);

impl NotRead {
    fn mark(error: io::Error) -> io::Error {
        io::Error::new(error.kind(), Self(error))
    }
}

impl fmt::Display for NotRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for NotRead {}

/// How much an object may unpack to.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnpackLimits {
    pub(super) bytes_max: u64,
    /// Unpacked bytes for each stored one, where they are more than [`RATIO_FREE_BYTES`].
    pub(super) ratio_max: u64,
}

/// Small objects may shrink as they like; of large ones the ratio is looked at each time that so many more bytes are
/// unpacked, so that it does not matter how they are read.
const RATIO_FREE_BYTES: u64 = 64 << 20;

pub(super) struct Unpacker<'r> {
    stream: Stream<'r>,
    /// What the first bytes say of the unpacked size.
    size_hint: Option<usize>,
    limits: UnpackLimits,
    unpacked_bytes: u64,
}

enum Stream<'r> {
    Plain(Stored<'r>),
    Gzip(Members<'r>),
    Zstd(Box<Frames<'r>>),
}

/// Where members or frames begin: stored and unpacked offset, ascending.
type Boundaries = VecDeque<(u64, u64)>;

/// The members of a gzip stream. `None`: it has ended.
struct Members<'r> {
    open: Option<Box<GzDecoder<Stored<'r>>>>,
    unpacked_offset: u64,
    boundaries: Boundaries,
}

impl Read for Members<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.open {
            let count = decoder.read(into)?;
            if count > 0 || into.is_empty() {
                self.unpacked_offset += count as u64;
                return Ok(count);
            }
            let Some(mut stored) = self.open.take().map(|decoder| decoder.into_inner()) else { break };
            if !stored.fill_buf()?.is_empty() {
                note(&mut self.boundaries, stored.offset, self.unpacked_offset);
                self.open = Some(Box::new(GzDecoder::new(stored)));
            }
        }
        Ok(0)
    }
}

/// Beyond so many points those nearer to each other than a distance are not kept: of small or empty members there may be
/// any number.
const BOUNDARIES_CLOSE_MAX: usize = 1024;
const BOUNDARY_DISTANCE_BYTES: u64 = 64 << 10;

/// Keeps where a member or frame begins. An earlier point serves as well as one that is left out.
fn note(boundaries: &mut Boundaries, stored_offset: u64, unpacked_offset: u64) {
    let are_many = boundaries.len() >= BOUNDARIES_CLOSE_MAX;
    match boundaries.back_mut() {
        Some((stored, unpacked)) if *unpacked == unpacked_offset => *stored = stored_offset,
        Some((_, unpacked)) if are_many && unpacked_offset - *unpacked < BOUNDARY_DISTANCE_BYTES => {}
        _ => boundaries.push_back((stored_offset, unpacked_offset)),
    }
}

/// The frames of a zstd stream.
struct Frames<'r> {
    context: DCtx<'static>,
    stored: Stored<'r>,
    is_between: bool,
    unpacked_offset: u64,
    boundaries: Boundaries,
}

impl<'r> Frames<'r> {
    fn new(stored: Stored<'r>, unpacked_offset: u64, bytes_max: u64) -> Result<Self, usize> {
        let mut context = DCtx::create();
        context.init()?;
        context.set_parameter(DParameter::WindowLogMax(window_log_max(bytes_max)))?;
        let boundaries = VecDeque::from([(stored.offset, unpacked_offset)]);
        Ok(Self { context, stored, is_between: true, unpacked_offset, boundaries })
    }
}

impl Read for Frames<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            let there = self.stored.fill_buf()?;
            let has_ended = there.is_empty();
            if has_ended && self.is_between {
                return Ok(0);
            }
            let (mut input, mut output) = (InBuffer::around(there), OutBuffer::around(&mut *into));
            let missing = self.context.decompress_stream(&mut output, &mut input).map_err(zstd_failure)?;
            let (taken, count) = (input.pos(), output.pos());
            self.stored.consume(taken);
            self.unpacked_offset += count as u64;
            self.is_between = missing == 0;
            if self.is_between {
                note(&mut self.boundaries, self.stored.offset, self.unpacked_offset);
            }
            if count > 0 {
                return Ok(count);
            }
            if has_ended {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "incomplete frame"));
            }
        }
    }
}

fn zstd_failure(code: usize) -> io::Error {
    io::Error::other(zstd_safe::get_error_name(code))
}

impl<'r> Unpacker<'r> {
    /// What is not compressed comes back as it is.
    pub(super) fn of_bytes(bytes: Bytes, limits: UnpackLimits) -> Result<Result<Bytes, Self>, DecodeError> {
        let bytes_max = limits.bytes_max;
        match Compression::of(&bytes) {
            Compression::None if bytes.len() as u64 > bytes_max => {
                let detail = format!("{} bytes, limits.object_bytes_max allows {bytes_max}", bytes.len());
                Err(ObjectFault::TooLarge { detail }.into())
            }
            Compression::None => Ok(Ok(bytes)),
            Compression::Gzip | Compression::Zstd => Self::new(Stored::memory(bytes), limits).map(Err),
        }
    }

    pub(super) fn new(mut stored: Stored<'r>, limits: UnpackLimits) -> Result<Self, DecodeError> {
        let is_in_memory = matches!(stored.bytes, StoredBytes::Memory(_));
        let first = stored.first(MAGIC_BYTES_MAX).map_err(|error| failure(error, ""))?;
        let compression = Compression::of(first);
        let size_hint = match compression {
            Compression::Gzip if is_in_memory => gzip_size_hint(first),
            Compression::Zstd if is_in_memory => zstd_size_hint(first),
            _ => None,
        };
        let unpacker = Self::from_point(stored, compression, 0, limits)?;
        Ok(Self { size_hint, ..unpacker })
    }

    /// Goes on at a [`StoredPoint`], where `stored` begins.
    pub(super) fn from_point(
        stored: Stored<'r>,
        compression: Compression,
        unpacked_offset: u64,
        limits: UnpackLimits,
    ) -> Result<Self, DecodeError> {
        let stream = match compression {
            Compression::None => Stream::Plain(stored),
            Compression::Gzip => {
                let boundaries = VecDeque::from([(stored.offset, unpacked_offset)]);
                Stream::Gzip(Members { open: Some(Box::new(GzDecoder::new(stored))), unpacked_offset, boundaries })
            }
            Compression::Zstd => {
                let frames = Frames::new(stored, unpacked_offset, limits.bytes_max);
                Stream::Zstd(Box::new(frames.map_err(|code| failure(zstd_failure(code), "zstd"))?))
            }
        };
        Ok(Self { stream, size_hint: None, limits, unpacked_bytes: unpacked_offset })
    }

    /// The last point that is not behind `unpacked_offset`, which never goes back.
    pub(super) fn point(&mut self, unpacked_offset: u64) -> StoredPoint {
        let (compression, boundaries) = match &mut self.stream {
            Stream::Plain(_) => {
                return StoredPoint { compression: Compression::None, stored_offset: unpacked_offset, unpacked_offset };
            }
            Stream::Gzip(members) => (Compression::Gzip, &mut members.boundaries),
            Stream::Zstd(frames) => (Compression::Zstd, &mut frames.boundaries),
        };
        while boundaries.get(1).is_some_and(|(_, unpacked)| *unpacked <= unpacked_offset) {
            boundaries.pop_front();
        }
        let (stored_offset, unpacked_offset) = boundaries[0];
        StoredPoint { compression, stored_offset, unpacked_offset }
    }

    /// Appends `count` bytes, fewer only at the end.
    pub(super) fn read(&mut self, into: &mut Vec<u8>, count: usize) -> Result<usize, DecodeError> {
        let mut read = 0;
        while read < count {
            let to_look = RATIO_FREE_BYTES - self.unpacked_bytes % RATIO_FREE_BYTES;
            let step = (count - read).min(usize::try_from(to_look).unwrap_or(usize::MAX));
            let more = self.read_on(into, step)?;
            read += more;
            if more < step {
                break;
            }
            self.check_ratio()?;
        }
        Ok(read)
    }

    fn read_on(&mut self, into: &mut Vec<u8>, count: usize) -> Result<usize, DecodeError> {
        let bytes_max = self.limits.bytes_max;
        let rest = bytes_max.saturating_sub(self.unpacked_bytes);
        // one more tells whether there are more
        let wanted = (count as u64).min(rest.saturating_add(1));
        let likely = self.size_hint.map_or(count, |hint| hint.max(CAPACITY_MIN).min(count));
        into.reserve_exact(likely.min(usize::try_from(wanted).unwrap_or(usize::MAX)));
        let read = match &mut self.stream {
            Stream::Plain(stored) => stored.append(into, wanted).map_err(|error| failure(error, "")),
            Stream::Gzip(members) => members.take(wanted).read_to_end(into).map_err(|error| failure(error, "gzip")),
            Stream::Zstd(frames) => {
                frames.as_mut().take(wanted).read_to_end(into).map_err(|error| failure(error, "zstd"))
            }
        }?;
        if read as u64 > rest {
            let holds = if matches!(self.stream, Stream::Plain(_)) { "has" } else { "unpacks to" };
            let detail = format!("{holds} more than {bytes_max} bytes, limits.object_bytes_max");
            return Err(ObjectFault::TooLarge { detail }.into());
        }
        self.unpacked_bytes += read as u64;
        Ok(read)
    }

    fn check_ratio(&self) -> Result<(), DecodeError> {
        let UnpackLimits { ratio_max, .. } = self.limits;
        let stored_bytes = match &self.stream {
            Stream::Plain(_) => return Ok(()),
            Stream::Gzip(members) => members.open.as_ref().map(|decoder| decoder.get_ref().offset),
            Stream::Zstd(frames) => Some(frames.stored.offset),
        };
        let is_due = self.unpacked_bytes.is_multiple_of(RATIO_FREE_BYTES) && self.unpacked_bytes > 0;
        match stored_bytes {
            Some(stored_bytes) if is_due && self.unpacked_bytes > stored_bytes.saturating_mul(ratio_max) => {
                let detail = format!(
                    "its first {stored_bytes} bytes unpack to {}, limits.unpacked_ratio_max is {ratio_max}",
                    self.unpacked_bytes
                );
                Err(ObjectFault::TooLarge { detail }.into())
            }
            _ => Ok(()),
        }
    }
}

/// `format`: of the decoder that was at work.
fn failure(error: io::Error, format: &str) -> DecodeError {
    if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<NotRead>) || format.is_empty() {
        return DecodeError::Read(error);
    }
    ObjectFault::CorruptCompression { detail: format!("broken {format} stream: {error}") }.into()
}

/// What the last member says of itself, modulo 2^32; right for the ordinary object of one member.
fn gzip_size_hint(bytes: &[u8]) -> Option<usize> {
    /// Deflate cannot do better. Source: RFC 1951 (258 bytes for 2 bits), as zlib's technical details put it.
    const RATIO_MAX: usize = 1032;
    let (_, size) = bytes.split_last_chunk::<4>()?;
    let size = u32::from_le_bytes(*size) as usize;
    (size / RATIO_MAX <= bytes.len()).then_some(size)
}

/// What the first frame says of itself, if anything that its length makes possible: a few forged bytes must not
/// ask for more memory than there is.
fn zstd_size_hint(bytes: &[u8]) -> Option<usize> {
    /// No block is smaller or unpacks to more. Source: RFC 8878, 3.1.1.2 (RLE: 3 + 1 bytes for up to 128 KiB).
    const RATIO_MAX: usize = (128 << 10) / 4;
    let size = usize::try_from(zstd::zstd_safe::get_frame_content_size(bytes).ok()??).ok()?;
    (size / RATIO_MAX <= bytes.len()).then_some(size)
}

fn window_log_max(bytes_max: u64) -> u32 {
    let needed = bytes_max.clamp(1, 1 << ZSTD_WINDOW_LOG_MAX).next_power_of_two().trailing_zeros();
    needed.clamp(ZSTD_WINDOW_LOG_ORDINARY, ZSTD_WINDOW_LOG_MAX)
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
