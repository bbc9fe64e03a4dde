//! Compression, told by the first bytes: gzip (RFC 1952, several members), zstd (RFC 8878, several frames,
//! skippable ones included), or none.
//!
//! # Contract
//! Gives out unpacked bytes as they are asked for and holds none of them (zstd's window besides, at most 128 MiB); more
//! than `bytes_max` are an error as soon as they are met: a bomb is noticed while it unpacks. A stream that ends
//! early, fails its checksum or is followed by anything but another stream of its kind is corrupt as a whole.

use std::error::Error;
use std::fmt;
use std::io::{self, BufRead, Read};

use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    fn of(bytes: &[u8]) -> Self {
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
pub(super) enum Stored<'r> {
    Memory(Bytes),
    Stream {
        reader: Box<dyn Read + Send + 'r>,
        buffer: Vec<u8>,
        /// What was taken out of the buffer.
        taken: usize,
    },
}

impl<'r> Stored<'r> {
    pub(super) fn stream(reader: Box<dyn Read + Send + 'r>) -> Self {
        Self::Stream { reader, buffer: Vec::new(), taken: 0 }
    }

    /// The first bytes, at least so many where there are, without taking them.
    fn first(&mut self, count: usize) -> io::Result<&[u8]> {
        match self {
            Self::Memory(bytes) => Ok(bytes),
            Self::Stream { reader, buffer, .. } => {
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
        if let Self::Stream { reader, buffer, taken } = self
            && *taken == buffer.len()
            && into.len() >= READ_BYTES
        {
            return reader.read(into).map_err(NotRead::mark);
        }
        let mut there = self.fill_buf()?;
        let count = there.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Stored<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self {
            Self::Memory(bytes) => Ok(bytes),
            Self::Stream { reader, buffer, taken } => {
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
        match self {
            Self::Memory(bytes) => bytes.advance(count),
            Self::Stream { taken, .. } => *taken += count,
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

pub(super) struct Unpacker<'r> {
    stream: Stream<'r>,
    /// What the first bytes say of the unpacked size.
    size_hint: Option<usize>,
    bytes_max: u64,
    unpacked_bytes: u64,
}

enum Stream<'r> {
    Plain(Stored<'r>),
    Gzip(Box<MultiGzDecoder<Stored<'r>>>),
    Zstd(zstd::stream::read::Decoder<'static, Stored<'r>>),
}

impl<'r> Unpacker<'r> {
    /// What is not compressed comes back as it is.
    pub(super) fn of_bytes(bytes: Bytes, bytes_max: u64) -> Result<Result<Bytes, Self>, DecodeError> {
        match Compression::of(&bytes) {
            Compression::None if bytes.len() as u64 > bytes_max => {
                let detail = format!("{} bytes, limits.object_bytes_max allows {bytes_max}", bytes.len());
                Err(ObjectFault::TooLarge { detail }.into())
            }
            Compression::None => Ok(Ok(bytes)),
            Compression::Gzip | Compression::Zstd => Self::new(Stored::Memory(bytes), bytes_max).map(Err),
        }
    }

    pub(super) fn new(mut stored: Stored<'r>, bytes_max: u64) -> Result<Self, DecodeError> {
        let is_in_memory = matches!(stored, Stored::Memory(_));
        let first = stored.first(MAGIC_BYTES_MAX).map_err(|error| failure(error, ""))?;
        let compression = Compression::of(first);
        let size_hint = match compression {
            Compression::Gzip if is_in_memory => gzip_size_hint(first),
            Compression::Zstd if is_in_memory => zstd_size_hint(first),
            _ => None,
        };
        let stream = match compression {
            Compression::None => Stream::Plain(stored),
            Compression::Gzip => Stream::Gzip(Box::new(MultiGzDecoder::new(stored))),
            Compression::Zstd => {
                let corrupt = |error| failure(error, "zstd");
                let mut decoder = zstd::stream::read::Decoder::with_buffer(stored).map_err(corrupt)?;
                decoder.window_log_max(window_log_max(bytes_max)).map_err(corrupt)?;
                Stream::Zstd(decoder)
            }
        };
        Ok(Self { stream, size_hint, bytes_max, unpacked_bytes: 0 })
    }

    /// Appends `count` bytes, fewer only at the end.
    pub(super) fn read(&mut self, into: &mut Vec<u8>, count: usize) -> Result<usize, DecodeError> {
        let rest = self.bytes_max - self.unpacked_bytes;
        // one more tells whether there are more
        let wanted = (count as u64).min(rest.saturating_add(1));
        let likely = self.size_hint.map_or(count, |hint| hint.max(CAPACITY_MIN).min(count));
        into.reserve_exact(likely.min(usize::try_from(wanted).unwrap_or(usize::MAX)));
        let read = match &mut self.stream {
            Stream::Plain(stored) => stored.take(wanted).read_to_end(into).map_err(|error| failure(error, "")),
            Stream::Gzip(decoder) => decoder.take(wanted).read_to_end(into).map_err(|error| failure(error, "gzip")),
            Stream::Zstd(decoder) => decoder.take(wanted).read_to_end(into).map_err(|error| failure(error, "zstd")),
        }?;
        if read as u64 > rest {
            let bytes_max = self.bytes_max;
            let holds = if matches!(self.stream, Stream::Plain(_)) { "has" } else { "unpacks to" };
            let detail = format!("{holds} more than {bytes_max} bytes, limits.object_bytes_max");
            return Err(ObjectFault::TooLarge { detail }.into());
        }
        self.unpacked_bytes += read as u64;
        Ok(read)
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
mod tests {
    use std::io::Write;

    use super::*;

    const TEXT: &[u8] = b"{\"a\":1}\n{\"a\":2}\n";
    const LIMIT: u64 = 1 << 20;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 3).unwrap()
    }

    fn skippable() -> Vec<u8> {
        vec![0x5e, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, b'x', b'y', b'z']
    }

    fn unpack(bytes: Bytes, bytes_max: u64) -> Result<Bytes, ObjectFault> {
        let mut streamed = Vec::new();
        let stored = Stored::stream(Box::new(io::Cursor::new(bytes.clone())));
        let streamed = Unpacker::new(stored, bytes_max).and_then(|mut unpacker| {
            while unpacker.read(&mut streamed, 7)? == 7 {}
            Ok(streamed)
        });
        let at_once = Unpacker::of_bytes(bytes, bytes_max).and_then(|found| match found {
            Ok(plain) => Ok(plain.to_vec()),
            Err(mut unpacker) => {
                let mut unpacked = Vec::new();
                unpacker.read(&mut unpacked, 1 << 30)?;
                Ok(unpacked)
            }
        });
        let fault = |error| match error {
            DecodeError::Fault(fault) => fault,
            DecodeError::Read(error) => panic!("{error}"),
        };
        let (streamed, at_once) = (streamed.map_err(fault), at_once.map_err(fault));
        assert_eq!(streamed.clone().map_err(|fault| fault.reason()), at_once.clone().map_err(|fault| fault.reason()));
        at_once.map(Bytes::from)
    }

    fn unpacked(bytes: Vec<u8>) -> Vec<u8> {
        unpack(Bytes::from(bytes), LIMIT).unwrap().to_vec()
    }

    fn reason(bytes: Vec<u8>, limit: u64) -> &'static str {
        unpack(Bytes::from(bytes), limit).unwrap_err().reason().as_str()
    }

    #[test]
    fn content_tells_the_compression() {
        assert_eq!(unpacked(TEXT.to_vec()), TEXT);
        assert_eq!(unpacked(gzip(TEXT)), TEXT);
        assert_eq!(unpacked(zstd(TEXT)), TEXT);
        assert_eq!(unpacked(Vec::new()), b"");
        assert_eq!(unpacked(gzip(b"")), b"");
        assert_eq!(unpacked(zstd(b"")), b"");
    }

    #[test]
    fn members_and_frames_follow_each_other() {
        let twice = [TEXT, TEXT].concat();
        assert_eq!(unpacked([gzip(TEXT), gzip(b""), gzip(TEXT)].concat()), twice);
        assert_eq!(unpacked([skippable(), zstd(TEXT), skippable(), zstd(TEXT), skippable()].concat()), twice);
        assert_eq!(unpacked(skippable()), b"");
    }

    #[test]
    fn a_stream_cut_anywhere_is_corrupt() {
        for packed in [gzip(TEXT), zstd(TEXT), [gzip(TEXT), gzip(TEXT)].concat()] {
            assert_eq!(reason(gzip(TEXT)[..2].to_vec(), LIMIT), "corrupt_compression");
            let whole_member = gzip(TEXT).len();
            for end in 4..packed.len() {
                if end != whole_member {
                    assert_eq!(reason(packed[..end].to_vec(), LIMIT), "corrupt_compression", "{end}");
                }
            }
        }
    }

    #[test]
    fn what_follows_a_stream_must_be_another_one() {
        for packed in [gzip(TEXT), zstd(TEXT)] {
            for tail in [&b"\0"[..], b"garbage", b"{}\n", &[0x1f]] {
                assert_eq!(reason([&packed, tail].concat(), LIMIT), "corrupt_compression");
            }
        }
        assert_eq!(reason([gzip(TEXT), zstd(TEXT)].concat(), LIMIT), "corrupt_compression");
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let mut packed = gzip(TEXT);
        let at = packed.len() - 6;
        packed[at] ^= 1;
        assert_eq!(reason(packed, LIMIT), "corrupt_compression");
    }

    #[test]
    fn the_limit_holds_to_the_byte() {
        let zeros = vec![b' '; 300_000];
        for packed in [zeros.clone(), gzip(&zeros), zstd(&zeros)] {
            assert_eq!(reason(packed.clone(), 299_999), "object_too_large");
            assert_eq!(unpack(Bytes::from(packed), 300_000).unwrap().len(), 300_000);
        }
        assert_eq!(reason(gzip(b"x"), 0), "object_too_large");
        assert_eq!(unpack(Bytes::from(gzip(b"")), 0).unwrap().len(), 0);
    }

    #[test]
    fn bytes_that_do_not_come_are_no_fault_of_the_object() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the line is dead"))
            }
        }
        let text = TEXT.repeat(1000);
        for packed in [text.clone(), gzip(&text), zstd(&text)] {
            let half = packed.len() / 2;
            let stored = Stored::stream(Box::new(Read::take(io::Cursor::new(packed), half as u64).chain(Broken)));
            let mut unpacker = Unpacker::new(stored, LIMIT).unwrap();
            let error = unpacker.read(&mut Vec::new(), text.len()).unwrap_err();
            assert!(matches!(error, DecodeError::Read(_)), "{error}");
        }
    }

    #[test]
    fn a_lying_size_is_only_a_hint() {
        let mut packed = gzip(TEXT);
        let at = packed.len() - 4;
        packed[at..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(reason(packed, LIMIT), "corrupt_compression");
        let streamed = {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
            encoder.write_all(TEXT).unwrap();
            encoder.finish().unwrap()
        };
        assert_eq!(unpacked(streamed), TEXT);
    }

    #[test]
    fn a_forged_size_does_not_ask_for_memory() {
        // Header with the size in eight bytes, one last block of one byte. Source: RFC 8878, 3.1.1.1.
        let frame = |size: u64| {
            let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1110_0000];
            frame.extend_from_slice(&size.to_le_bytes());
            frame.extend_from_slice(&[1 << 3 | 1, 0, 0, b'x']);
            frame
        };
        assert_eq!(zstd_size_hint(&frame(1 << 45)), None);
        assert_eq!(zstd_size_hint(&frame(300)), Some(300));
        assert_eq!(reason(frame(1 << 24), u64::MAX), "corrupt_compression");
        assert_eq!(unpacked(frame(1)), b"x");
        let zeros = zstd::bulk::compress(&vec![0; 8 << 20], 3).unwrap();
        assert_eq!(zstd_size_hint(&zeros), Some(8 << 20));
    }
}
