//! Compression, told by content: gzip (several members in a row), zstd (several frames, skippable ones too), none.

use std::io::Read;

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;

use super::ObjectFault;

/// Source: RFC 1952, section 2.3.1.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
/// Source: RFC 8878, section 3.1.1.
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// 0x184D2A50 to 0x184D2A5F, little-endian. Source: RFC 8878, section 3.1.2.
const SKIPPABLE_TAIL: &[u8] = &[0x2a, 0x4d, 0x18];
/// Windows up to 128 MiB, as the zstd command accepts by default.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// The unpacked bytes; the limit is checked while unpacking, so a bomb never gets its memory.
pub(super) fn unpack(bytes: Bytes, object_bytes_max: u64) -> Result<Bytes, ObjectFault> {
    if bytes.starts_with(GZIP_MAGIC) {
        return read_all("gzip", MultiGzDecoder::new(bytes.as_ref()), object_bytes_max);
    }
    let skippable = bytes.len() >= 4 && bytes[0] & 0xf0 == 0x50 && bytes[1..4] == *SKIPPABLE_TAIL;
    if bytes.starts_with(ZSTD_MAGIC) || skippable {
        let broken =
            |error: std::io::Error| ObjectFault::CorruptCompression { format: "zstd", detail: error.to_string() };
        let mut decoder = zstd::Decoder::with_buffer(bytes.as_ref()).map_err(broken)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(broken)?;
        return read_all("zstd", decoder, object_bytes_max);
    }
    if bytes.len() as u64 > object_bytes_max {
        return Err(ObjectFault::TooLarge { object_bytes_max });
    }
    Ok(bytes)
}

fn read_all(format: &'static str, reader: impl Read, object_bytes_max: u64) -> Result<Bytes, ObjectFault> {
    let mut unpacked = Vec::new();
    reader
        .take(object_bytes_max.saturating_add(1))
        .read_to_end(&mut unpacked)
        .map_err(|error| ObjectFault::CorruptCompression { format, detail: error.to_string() })?;
    if unpacked.len() as u64 > object_bytes_max {
        return Err(ObjectFault::TooLarge { object_bytes_max });
    }
    Ok(unpacked.into())
}
