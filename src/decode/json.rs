//! JSON lines: finds the lines, decodes each, keeps what fails.

use bytes::Bytes;

use super::row::RowDecoder;
use super::{DecodeLimits, Reject};
use crate::config::Connector;
use crate::types::{Decoded, DecodedBatch, RejectReason, Span};

/// Rows of one `RecordBatch`: large enough to share costs, small enough to stay in the cache.
const BATCH_ROWS_MAX: usize = 8_192;
/// Source: serde_json's recursion limit of 128, which counts from the value itself.
const PARSER_DEPTH_MAX: usize = 127;
const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];

pub(super) fn decode_lines(connector: &Connector, unpacked: Bytes, limits: &DecodeLimits) -> Decoded {
    let mut sink = Sink::new(connector, unpacked.clone(), limits);
    let mut start = if unpacked.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    while start < unpacked.len() {
        let end = memchr::memchr(b'\n', &unpacked[start..]).map_or(unpacked.len(), |length| start + length);
        if !unpacked[start..end].iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
            sink.row(start, end);
        }
        start = end + 1;
    }
    sink.finish()
}

pub(super) fn decode_one(connector: &Connector, value: Bytes, limits: &DecodeLimits) -> Decoded {
    let mut sink = Sink::new(connector, value.clone(), limits);
    sink.row(0, value.len());
    sink.finish()
}

struct Sink<'a> {
    limits: &'a DecodeLimits,
    decoder: RowDecoder<'a>,
    unpacked: Bytes,
    spans: Vec<Span>,
    decoded: Decoded,
}

impl<'a> Sink<'a> {
    fn new(connector: &'a Connector, unpacked: Bytes, limits: &'a DecodeLimits) -> Self {
        let decoded = Decoded { unpacked_bytes: unpacked.len() as u64, ..Decoded::default() };
        Self { limits, decoder: RowDecoder::new(connector), unpacked, spans: Vec::new(), decoded }
    }

    fn row(&mut self, start: usize, end: usize) {
        let row = self.decoded.row_count as i64;
        self.decoded.row_count += 1;
        let line = &self.unpacked[start..end];
        let checked = check(line, self.limits).and_then(|text| self.decoder.decode(text, row));
        match checked {
            Ok(()) => {
                self.spans.push(Span { byte_offset: start as u64, len: (end - start) as u32 });
                if self.spans.len() == BATCH_ROWS_MAX {
                    self.flush();
                }
            }
            Err(reject) => {
                self.decoded.rejects.push(reject.at(row, start as u64, self.unpacked.slice(start..end)));
            }
        }
    }

    fn flush(&mut self) {
        if self.spans.is_empty() {
            return;
        }
        let rows = self.decoder.finish_batch();
        let spans = std::mem::take(&mut self.spans);
        self.decoded.batches.push(DecodedBatch { rows, spans, unpacked: self.unpacked.clone() });
    }

    fn finish(mut self) -> Decoded {
        self.flush();
        self.decoded
    }
}

/// What can be said of a line before it is parsed.
fn check<'a>(line: &'a [u8], limits: &DecodeLimits) -> Result<&'a str, Reject> {
    if line.len() as u64 > limits.record_bytes_max {
        let detail = format!("{} bytes, limits.record_bytes_max is {}", line.len(), limits.record_bytes_max);
        return Err(Reject::new(RejectReason::RecordTooLong, detail));
    }
    let text = std::str::from_utf8(line).map_err(|error| {
        Reject::new(RejectReason::InvalidUtf8, format!("invalid UTF-8 at byte {}", error.valid_up_to()))
    })?;
    let (depth, depth_max) = (depth(line), limits.json_depth_max.min(PARSER_DEPTH_MAX));
    if depth > depth_max {
        let detail = format!("nested {depth} deep, limits.json_depth_max is {depth_max}");
        return Err(Reject::new(RejectReason::TooDeep, detail));
    }
    Ok(text)
}

/// Deepest nesting of brackets outside strings.
fn depth(line: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0usize, false, false);
    for byte in line {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
