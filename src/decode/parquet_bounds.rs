//! What a Parquet file claims, held against what it is, before anything is allocated by it.
//!
//! # Contract
//! Reads the footer and the headers of pages in the Thrift compact protocol, with no memory of its own to speak of. Behind it
//! the Parquet reader meets no list longer than the bytes that should hold it, no schema too deep or too wide, no page
//! larger than allowed, and as many values as the row groups say. Sources: apache/parquet-format, parquet.thrift and
//! README.md, version 2.12; apache/thrift, doc/specs/thrift-compact-protocol.md.

use super::ObjectFault;
use super::parquet::{malformed, too_large};

const MAGIC: &[u8] = b"PAR1";
/// Of a file whose footer is encrypted.
const MAGIC_ENCRYPTED: &[u8] = b"PARE";
/// Footer length and magic.
const TAIL_BYTES: usize = 8;
const FOOTER_BYTES_MAX: usize = 64 << 20;
/// Of any list in a footer; lists of them stay small in memory.
const LIST_LEN_MAX: u64 = 1 << 16;
/// Structures within structures; those of the format end at 7.
const THRIFT_DEPTH_MAX: usize = 32;
/// Groups within groups: readers walk them by recursion.
const SCHEMA_DEPTH_MAX: usize = 64;
/// Leaves of the schema.
const COLUMNS_MAX: usize = 10_000;
/// Uncompressed; writers make pages of 1 MiB.
const PAGE_BYTES_MAX: u64 = 256 << 20;
/// Values of a column that repeats, in one row group, whatever their bytes.
const REPEATED_VALUES_FREE: i64 = 1 << 24;
/// Beyond them, values a byte.
const REPEATED_VALUES_PER_BYTE_MAX: i64 = 64;

/// The footer's place and schema.
pub(super) fn footer(file: &[u8]) -> Result<(), ObjectFault> {
    if file.ends_with(MAGIC_ENCRYPTED) {
        return Err(malformed("it is encrypted"));
    }
    if file.len() < MAGIC.len() + TAIL_BYTES || !file.starts_with(MAGIC) || !file.ends_with(MAGIC) {
        return Err(malformed("it does not begin and end with PAR1"));
    }
    let tail = file.len() - TAIL_BYTES;
    let len = u32::from_le_bytes(file[tail..tail + 4].try_into().expect("four bytes")) as usize;
    if len > FOOTER_BYTES_MAX {
        return Err(too_large(format!("a footer of {len} bytes, {FOOTER_BYTES_MAX} are allowed")));
    }
    if len + MAGIC.len() > tail {
        return Err(malformed("its footer would begin before the file"));
    }
    let mut thrift = Thrift { bytes: &file[tail - len..tail], at: 0 };
    let mut schema = SchemaShape { open: Vec::new(), leaf_count: 0 };
    let mut last = 0;
    while let Some((id, kind)) = thrift.field(&mut last)? {
        match (id, kind) {
            // FileMetaData.schema: list<SchemaElement>
            (2, LIST) => {
                for _ in 0..thrift.list()?.0 {
                    let (mut last, mut child_count) = (0, 0);
                    while let Some((id, kind)) = thrift.field(&mut last)? {
                        match (id, kind) {
                            (5, I32) => child_count = thrift.integer()?,
                            _ => thrift.skip(kind, THRIFT_DEPTH_MAX)?,
                        }
                    }
                    schema.element(child_count)?;
                }
            }
            _ => thrift.skip(kind, THRIFT_DEPTH_MAX)?,
        }
    }
    Ok(())
}

/// The tree of a schema, from its list in depth-first order.
struct SchemaShape {
    /// Of each open group: children still to come.
    open: Vec<i64>,
    leaf_count: usize,
}

impl SchemaShape {
    fn element(&mut self, child_count: i64) -> Result<(), ObjectFault> {
        if let Some(left) = self.open.last_mut() {
            *left -= 1;
        }
        if child_count > 0 {
            self.open.push(child_count);
            if self.open.len() > SCHEMA_DEPTH_MAX {
                return Err(malformed(format!("groups nested deeper than {SCHEMA_DEPTH_MAX}")));
            }
        } else {
            self.leaf_count += 1;
            if self.leaf_count > COLUMNS_MAX {
                return Err(too_large(format!("more than {COLUMNS_MAX} columns")));
            }
        }
        while self.open.last() == Some(&0) {
            self.open.pop();
        }
        Ok(())
    }
}

/// What the footer says of a column of a row group.
pub(super) struct ChunkClaim {
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) value_count: i64,
    pub(super) row_count: i64,
    pub(super) repeats: bool,
}

/// Walks the pages of a column; `page` sees the bytes and the uncompressed size of each. Returns the uncompressed bytes.
pub(super) fn pages(file: &[u8], claim: &ChunkClaim) -> Result<u64, ObjectFault> {
    let end = claim.offset.checked_add(claim.len).filter(|end| *end <= file.len() as u64);
    let end = end.ok_or_else(|| malformed("a column lies outside of the file"))?;
    let mut thrift = Thrift { bytes: &file[..end as usize], at: claim.offset as usize };
    let (mut value_count, mut uncompressed_bytes) = (0_i64, 0_u64);
    while value_count < claim.value_count && thrift.at < thrift.bytes.len() {
        let header = thrift.page_header()?;
        let compressed = u64::try_from(header.compressed).ok().filter(|len| *len <= thrift.left() as u64);
        let compressed = compressed.ok_or_else(|| malformed("a page ends outside of its column"))?;
        let uncompressed = u64::try_from(header.uncompressed).map_err(|_| malformed("a page of negative size"))?;
        if uncompressed > PAGE_BYTES_MAX {
            return Err(too_large(format!("a page of {uncompressed} bytes, {PAGE_BYTES_MAX} are allowed")));
        }
        if header.value_count < 0 || (header.is_dictionary && header.value_count as u64 > uncompressed) {
            return Err(malformed("a page claims more values than it can hold"));
        }
        if !header.is_dictionary {
            value_count += header.value_count;
        }
        uncompressed_bytes += uncompressed;
        thrift.at += compressed as usize;
    }
    if value_count != claim.value_count || (!claim.repeats && value_count != claim.row_count) {
        return Err(malformed("its pages have another number of values than its footer says"));
    }
    let free = REPEATED_VALUES_FREE
        .max(i64::try_from(uncompressed_bytes).unwrap_or(i64::MAX).saturating_mul(REPEATED_VALUES_PER_BYTE_MAX));
    if claim.repeats && value_count > free {
        return Err(too_large(format!("{value_count} values in one column of a row group")));
    }
    Ok(uncompressed_bytes)
}

struct PageHeader {
    uncompressed: i64,
    compressed: i64,
    value_count: i64,
    is_dictionary: bool,
}

/// Kinds of the compact protocol.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const I8: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;

struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Thrift<'_> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn byte(&mut self) -> Result<u8, ObjectFault> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| malformed("its metadata end early"))?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64, ObjectFault> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed("a number of its metadata does not end"))
    }

    fn integer(&mut self) -> Result<i64, ObjectFault> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Id and kind of a structure's next field; `None` at its end.
    fn field(&mut self, last: &mut i64) -> Result<Option<(i64, u8)>, ObjectFault> {
        let head = self.byte()?;
        if head == 0 {
            return Ok(None);
        }
        *last = if head >> 4 == 0 { self.integer()? } else { *last + i64::from(head >> 4) };
        Ok(Some((*last, head & 0x0f)))
    }

    /// Length and kind of the elements.
    fn list(&mut self) -> Result<(u64, u8), ObjectFault> {
        let head = self.byte()?;
        let len = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
        if len > LIST_LEN_MAX || len > self.left() as u64 {
            return Err(malformed("a list of its metadata is too long"));
        }
        Ok((len, head & 0x0f))
    }

    fn skip_bytes(&mut self, count: u64) -> Result<(), ObjectFault> {
        if count > self.left() as u64 {
            return Err(malformed("its metadata end early"));
        }
        self.at += count as usize;
        Ok(())
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Result<(), ObjectFault> {
        let deeper = depth.checked_sub(1).ok_or_else(|| malformed("its metadata are nested too deep"))?;
        match kind {
            TRUE | FALSE => {}
            I8 => self.skip_bytes(1)?,
            I16 | I32 | I64 => _ = self.varint()?,
            DOUBLE => self.skip_bytes(8)?,
            BINARY => {
                let len = self.varint()?;
                self.skip_bytes(len)?;
            }
            LIST | SET => {
                let (len, kind) = self.list()?;
                for _ in 0..len {
                    // booleans of a list have a byte, those of a structure have none
                    if matches!(kind, TRUE | FALSE) { self.skip_bytes(1)? } else { self.skip(kind, deeper)? }
                }
            }
            MAP => return Err(malformed("its metadata have a map")),
            STRUCT => {
                let mut last = 0;
                while let Some((_, kind)) = self.field(&mut last)? {
                    self.skip(kind, deeper)?;
                }
            }
            _ => return Err(malformed("its metadata are no Thrift")),
        }
        Ok(())
    }

    fn page_header(&mut self) -> Result<PageHeader, ObjectFault> {
        let mut header = PageHeader { uncompressed: -1, compressed: -1, value_count: 0, is_dictionary: false };
        let mut last = 0;
        while let Some((id, kind)) = self.field(&mut last)? {
            match (id, kind) {
                (2, I32) => header.uncompressed = self.integer()?,
                (3, I32) => header.compressed = self.integer()?,
                // the headers of data pages, of both versions, and of dictionaries
                (5 | 7 | 8, STRUCT) => {
                    header.is_dictionary = id == 7;
                    let mut last = 0;
                    while let Some((id, kind)) = self.field(&mut last)? {
                        match (id, kind) {
                            (1, I32) => header.value_count = self.integer()?,
                            _ => self.skip(kind, THRIFT_DEPTH_MAX)?,
                        }
                    }
                }
                _ => self.skip(kind, THRIFT_DEPTH_MAX)?,
            }
        }
        Ok(header)
    }
}
