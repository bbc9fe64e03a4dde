//! Which format an object has, told by its first bytes, unpacked. For `sluice infer`.
//!
//! | begins with | is |
//! |---|---|
//! | `PAR1` | Parquet |
//! | `[`, or `{` and its first line is no whole object | JSON values |
//! | `{` | JSON lines |
//! | records of the same number of fields, more than one, by `,` `;` tab or `\|` | CSV |
//! | anything else | JSON lines |
//!
//! CSV has a header where all fields of its first record are texts that differ from each other.

use std::collections::HashSet;

use bytes::Bytes;

use super::csv_records::{CsvRecords, FieldSpan, Marks, fields};
use super::infer::text_type;
use super::scan::{Scanner, whole_number};
use super::unpack::Unpacker;
use super::{DecodeLimits, ObjectFault, of_memory};
use crate::config::{CsvDialect, FieldType, Format};

/// Looked at.
const HEAD_BYTES: usize = 64 << 10;
const RECORDS_MAX: usize = 50;
/// Where two give as many fields, the first: a comma may stand in numbers.
const DELIMITERS: [u8; 4] = [b';', b'\t', b'|', b','];

/// `stored` may be packed.
pub fn sniff(stored: Bytes, limits: &DecodeLimits) -> Result<Format, ObjectFault> {
    let head = match Unpacker::of_bytes(stored, limits.unpacking()).map_err(of_memory)? {
        Ok(bytes) => bytes.slice(..bytes.len().min(HEAD_BYTES)),
        Err(mut unpacker) => {
            let mut head = Vec::new();
            unpacker.read(&mut head, HEAD_BYTES).map_err(of_memory)?;
            Bytes::from(head)
        }
    };
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&head).trim_ascii_start();
    Ok(match text.first() {
        Some(b'P') if text.starts_with(b"PAR1") => Format::Parquet,
        Some(b'[') => Format::JsonValues,
        Some(b'{') if is_one_object(first_line(text), limits) => Format::Json,
        // one long line tells nothing
        Some(b'{') if first_line(text).len() == text.len() && head.len() == HEAD_BYTES => Format::Json,
        Some(b'{') => Format::JsonValues,
        _ => dialect(text, head.len() == HEAD_BYTES).map_or(Format::Json, Format::Csv),
    })
}

fn first_line(text: &[u8]) -> &[u8] {
    &text[..memchr::memchr(b'\n', text).unwrap_or(text.len())]
}

fn is_one_object(line: &[u8], limits: &DecodeLimits) -> bool {
    let mut scanner = Scanner::new(line, Vec::new(), limits.json_depth_max);
    scanner.value().is_ok() && scanner.end().is_ok()
}

/// The delimiter that gives every record the same number of fields, and most of them.
fn dialect(text: &[u8], is_cut: bool) -> Option<CsvDialect> {
    let standard = CsvDialect::default();
    let by = |delimiter| {
        let dialect = CsvDialect { delimiter, ..standard.clone() };
        let marks = Marks { delimiter, quote: dialect.quote };
        let mut records = sample(text, marks, is_cut);
        let first = records.next()?;
        let is_even = first.len() > 1 && records.all(|record| record.len() == first.len());
        is_even.then(|| (first.len(), CsvDialect { has_header: is_header(&first), ..dialect }))
    };
    // of as many fields the first
    let found = DELIMITERS.into_iter().filter_map(by).rev().max_by_key(|(count, _)| *count);
    found.map(|(_, dialect)| dialect)
}

/// The fields of the first records; one that cannot be read has none.
fn sample(text: &[u8], marks: Marks, is_cut: bool) -> impl Iterator<Item = Vec<&[u8]>> {
    let mut records = CsvRecords::new(text, marks, HEAD_BYTES).peekable();
    let mut spans: Vec<FieldSpan> = Vec::new();
    let whole = std::iter::from_fn(move || {
        let range = records.next()?;
        // the last one may go on behind what is looked at
        (!is_cut || records.peek().is_some()).then_some(range)
    });
    whole.take(RECORDS_MAX).map(move |range| {
        let record = &text[range];
        let is_read = fields(record, marks, &mut spans).is_ok();
        spans.iter().filter(|_| is_read).map(|span| &record[span.range.clone()]).collect()
    })
}

fn is_header(first: &[&[u8]]) -> bool {
    let mut names = HashSet::new();
    let is_name = |text: &&[u8]| !text.is_empty() && whole_number(text).is_none() && text_type(text) == FieldType::Utf8;
    first.iter().all(|text| is_name(text) && names.insert(*text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: DecodeLimits = DecodeLimits {
        record_bytes_max: 1 << 20,
        json_depth_max: 32,
        object_bytes_max: 1 << 24,
        unpacked_ratio_max: 500,
    };

    fn csv(delimiter: u8, has_header: bool) -> Format {
        Format::Csv(CsvDialect { has_header, delimiter, ..CsvDialect::default() })
    }

    #[test]
    fn formats_are_told_by_content_packed_or_not() {
        let cases: [(&[u8], Format); 12] = [
            (b"{\"a\":1}\n{\"a\":2}\n", Format::Json),
            (b"\xef\xbb\xbf {\"a\":\"}\"}", Format::Json),
            (b"{\n  \"a\": 1\n}\n", Format::JsonValues),
            (b"{\"a\":1}{\"a\":2}", Format::JsonValues),
            (b"\n[{\"a\":1},\n{\"a\":2}]", Format::JsonValues),
            (b"PAR1\x15\x04", Format::Parquet),
            (b"id,name\n1,\"a;b;c\"\n2,\"d\ne\"\n", csv(b',', true)),
            (b"1;2,5\n3;4,5\n", csv(b';', false)),
            (b"id\tat\r\nx\ty\r\n", csv(b'\t', true)),
            (b"a|a\nb|c\n", csv(b'|', false)),
            (b"no format at all\n", Format::Json),
            (b"", Format::Json),
        ];
        for (object, expected) in cases {
            let packed = zstd::encode_all(object, 1).expect("memory takes it");
            for stored in [object.to_vec(), packed] {
                let found = sniff(Bytes::from(stored), &LIMITS).expect("it can be unpacked");
                assert_eq!(found, expected, "{}", String::from_utf8_lossy(object));
            }
        }
    }

    #[test]
    fn a_record_that_is_cut_by_the_end_of_the_sample_says_nothing() {
        let object = "id,name,note\n1,a,b\n".to_owned() + &"2,b,xxxxxxxxxxxxx\n".repeat(HEAD_BYTES / 18);
        assert_eq!(sniff(Bytes::from(object), &LIMITS).expect("plain"), csv(b',', true));
    }
}
