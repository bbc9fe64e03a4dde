//! Compression, told by the first bytes: gzip (RFC 1952, several members), zstd (RFC 8878, several frames,
//! skippable ones included), or none.
//!
//! # Contract
//! Never holds more than `bytes_max` unpacked bytes (zstd's window besides, at most 128 MiB): a bomb is
//! noticed while it unpacks. A stream that ends early, fails its checksum or is followed by anything but
//! another stream of its kind is corrupt as a whole.

use std::io::{self, Read};

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;

use super::ObjectFault;

/// First bytes of a gzip member. Source: RFC 1952, 2.3.1 (8: deflate, the only method there is).
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
/// First bytes of a zstd frame. Source: RFC 8878, 3.1.1.
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Skippable frames begin with 0x184D2A50 to 0x184D2A5F, little-endian. Source: RFC 8878, 3.1.2.
const ZSTD_SKIPPABLE_MAGIC: &[u8] = &[0x2a, 0x4d, 0x18];
/// Windows of the ordinary levels, 1 to 19, end here. Source: zstd 1.5.7, ZSTD_defaultCParameters.
const ZSTD_WINDOW_LOG_ORDINARY: u32 = 23;
/// What decoders must take, and take at most unless told otherwise. Source: zstd 1.5.7, ZSTD_WINDOWLOG_LIMIT_DEFAULT.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const CAPACITY_MIN: usize = 64 << 10;

#[derive(Clone, Copy, PartialEq, Eq)]
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

pub(super) fn unpack(bytes: Bytes, bytes_max: u64) -> Result<Bytes, ObjectFault> {
    match Compression::of(&bytes) {
        Compression::None if bytes.len() as u64 > bytes_max => {
            let detail = format!("{} bytes, limits.object_bytes_max allows {bytes_max}", bytes.len());
            Err(ObjectFault::TooLarge { detail })
        }
        Compression::None => Ok(bytes),
        Compression::Gzip => read(MultiGzDecoder::new(&bytes[..]), gzip_size_hint(&bytes), bytes_max)
            .map_err(|failure| failure.fault("gzip", bytes_max)),
        Compression::Zstd => {
            let corrupt = |error| Failure::Corrupt(error).fault("zstd", bytes_max);
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&bytes[..]).map_err(corrupt)?;
            decoder.window_log_max(window_log_max(bytes_max)).map_err(corrupt)?;
            read(decoder, zstd_size_hint(&bytes), bytes_max).map_err(|failure| failure.fault("zstd", bytes_max))
        }
    }
}

enum Failure {
    Corrupt(io::Error),
    TooLarge,
}

impl Failure {
    fn fault(self, name: &str, bytes_max: u64) -> ObjectFault {
        match self {
            Self::Corrupt(error) => {
                ObjectFault::CorruptCompression { detail: format!("broken {name} stream: {error}") }
            }
            Self::TooLarge => ObjectFault::TooLarge {
                detail: format!("unpacks to more than {bytes_max} bytes, limits.object_bytes_max"),
            },
        }
    }
}

fn read(mut decoder: impl Read, size_hint: Option<usize>, bytes_max: u64) -> Result<Bytes, Failure> {
    let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let mut unpacked = Vec::with_capacity(size_hint.unwrap_or(0).max(CAPACITY_MIN).min(bytes_max));
    loop {
        let room = unpacked.capacity().min(bytes_max) - unpacked.len();
        let read = (&mut decoder).take(room as u64).read_to_end(&mut unpacked).map_err(Failure::Corrupt)?;
        if read < room {
            break;
        }
        // Full, which need not mean that something is left.
        let mut next = [0];
        match decoder.read(&mut next) {
            Ok(0) => break,
            Ok(_) if unpacked.len() == bytes_max => return Err(Failure::TooLarge),
            Ok(_) => {
                unpacked.reserve_exact(unpacked.len().clamp(1, bytes_max - unpacked.len()));
                unpacked.push(next[0]);
            }
            Err(error) => return Err(Failure::Corrupt(error)),
        }
    }
    if unpacked.capacity() / 2 > unpacked.len() {
        unpacked.shrink_to_fit();
    }
    Ok(Bytes::from(unpacked))
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
