//! Where CSV records and their fields stand (RFC 4180, any delimiter and quote).
//!
//! # Contract
//! A record ends at `\n` or `\r\n` outside quotes, or with the object; lines without any byte are no records. A quote
//! opens a field as its first byte only, is doubled inside, and closes it before a delimiter or the record's end:
//! anything else is a fault, as is a quote that is not closed within `record_bytes_max` bytes of the record.
//!
//! A record with a fault is its first line alone, and reading goes on at the next one: what stood behind a lost quote
//! is read as if it had not been there. An open line has an odd number of quotes, and what follows it up to the fault
//! an even one a line, so that no byte is looked at more than a few times.

use std::ops::Range;

use crate::config::CsvDialect;

#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    pub(super) delimiter: u8,
    pub(super) quote: Option<u8>,
}

/// A field's bytes, its outer quotes left aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldSpan {
    pub(super) range: Range<usize>,
    pub(super) is_quoted: bool,
    pub(super) has_doubled_quotes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CsvFault {
    pub(super) at: usize,
    pub(super) expected: &'static str,
}

pub(super) struct CsvRecords<'a> {
    bytes: &'a [u8],
    at: usize,
    marks: Marks,
    record_bytes_max: usize,
    fields: Vec<FieldSpan>,
}

impl<'a> CsvRecords<'a> {
    pub(super) fn new(bytes: &'a [u8], marks: Marks, record_bytes_max: usize) -> Self {
        Self { bytes, at: 0, marks, record_bytes_max, fields: Vec::new() }
    }
}

impl Iterator for CsvRecords<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        while self.at < self.bytes.len() {
            let start = self.at;
            let rest = &self.bytes[start..];
            let mut len = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let is_quoted = self.marks.quote.is_some_and(|quote| memchr::memchr(quote, &rest[..len]).is_some());
            if is_quoted {
                // with its line end
                let window = &rest[..rest.len().min(self.record_bytes_max.saturating_add(2))];
                if let Ok(end) = fields(window, self.marks, &mut self.fields)
                    && (end < window.len() || window.len() == rest.len())
                {
                    len = end;
                }
            }
            self.at = (start + len + 1).min(self.bytes.len());
            let record = rest[..len].strip_suffix(b"\r").unwrap_or(&rest[..len]);
            if !record.is_empty() {
                return Some(start..start + record.len());
            }
        }
        None
    }
}

/// Finds the fields of the record that `bytes` begin with; gives the place of its `\n`, or the length of `bytes`.
pub(super) fn fields(bytes: &[u8], marks: Marks, found: &mut Vec<FieldSpan>) -> Result<usize, CsvFault> {
    found.clear();
    let mut at = 0;
    loop {
        let (field, end) = if marks.quote.is_some() && bytes.get(at) == marks.quote.as_ref() {
            quoted(bytes, at, bytes[at])?
        } else {
            let end = memchr::memchr2(marks.delimiter, b'\n', &bytes[at..]).map_or(bytes.len(), |end| at + end);
            let mut range = at..end;
            if bytes.get(end) != Some(&marks.delimiter) && bytes[range.clone()].ends_with(b"\r") {
                range.end -= 1;
            }
            if let Some(inside) = marks.quote.and_then(|quote| memchr::memchr(quote, &bytes[range.clone()])) {
                return Err(CsvFault {
                    at: at + inside,
                    expected: "a field without quotes, or one that begins with one",
                });
            }
            (FieldSpan { range, is_quoted: false, has_doubled_quotes: false }, end)
        };
        found.push(field);
        match bytes.get(end) {
            Some(byte) if *byte == marks.delimiter => at = end + 1,
            Some(b'\n') | None => return Ok(end),
            Some(b'\r') if matches!(bytes.get(end + 1), None | Some(b'\n')) => return Ok((end + 1).min(bytes.len())),
            Some(_) => return Err(CsvFault { at: end, expected: "a delimiter or the end of the row behind a quote" }),
        }
    }
}

/// The field whose opening quote stands at `start`, and the place behind its closing one.
fn quoted(bytes: &[u8], start: usize, quote: u8) -> Result<(FieldSpan, usize), CsvFault> {
    let mut has_doubled_quotes = false;
    let mut at = start + 1;
    loop {
        let Some(found) = memchr::memchr(quote, &bytes[at..]) else {
            return Err(CsvFault { at: start, expected: "a quote that is closed" });
        };
        at += found;
        if bytes.get(at + 1) != Some(&quote) {
            return Ok((FieldSpan { range: start + 1..at, is_quoted: true, has_doubled_quotes }, at + 1));
        }
        has_doubled_quotes = true;
        at += 2;
    }
}

/// Length of the first record with its line end, and of empty lines before it.
pub(super) fn first_len(bytes: &[u8], dialect: &CsvDialect) -> usize {
    let marks = Marks { delimiter: dialect.delimiter, quote: dialect.quote };
    let mut records = CsvRecords::new(bytes, marks, bytes.len());
    records.next().map_or(0, |_| records.at)
}
