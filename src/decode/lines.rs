//! Cuts unpacked bytes into lines.

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Length of the UTF-8 byte order mark at the start, or 0.
pub(super) fn byte_order_mark(bytes: &[u8]) -> usize {
    if bytes.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 }
}

/// The lines that are rows, each with its first byte's place and without its end (`\n` or `\r\n`).
/// Blank lines are left out; the last line needs no end.
pub(super) struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: byte_order_mark(bytes) }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.bytes.len() {
            let start = self.at;
            let rest = &self.bytes[start..];
            let line = if let Some(end) = memchr::memchr(b'\n', rest) {
                self.at = start + end + 1;
                rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end])
            } else {
                self.at = self.bytes.len();
                rest
            };
            if !line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
                return Some((start, line));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<(usize, &[u8])> {
        Lines::new(bytes).collect()
    }

    #[test]
    fn lines_end_with_newline_carriage_return_or_the_object() {
        assert_eq!(lines(b"a\nbb\r\nccc"), [(0, &b"a"[..]), (2, b"bb"), (6, b"ccc")]);
        assert_eq!(lines(b"a\r\r\n b \n"), [(0, &b"a\r"[..]), (4, b" b ")]);
    }

    #[test]
    fn blank_lines_are_no_lines() {
        assert!(lines(b"").is_empty());
        assert!(lines(b"\n\r\n \t\n\n  ").is_empty());
        assert_eq!(lines(b"\n\na\n \nb"), [(2, &b"a"[..]), (6, b"b")]);
    }

    #[test]
    fn a_byte_order_mark_is_skipped_at_the_start_only() {
        assert_eq!(lines(b"\xef\xbb\xbfa\n\xef\xbb\xbfb"), [(3, &b"a"[..]), (5, b"\xef\xbb\xbfb")]);
        assert!(lines(b"\xef\xbb\xbf").is_empty());
    }
}
