//! Cuts unpacked bytes into lines.

use std::ops::Range;

/// The lines that are rows, without their end (`\n` or `\r\n`). Blank lines are left out; the last line needs no end.
pub(super) struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl Iterator for Lines<'_> {
    type Item = Range<usize>;

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
            if !is_blank(line) {
                return Some(start..start + line.len());
            }
        }
        None
    }
}

pub(super) fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
}

/// Behind the last line that ends within the first `wanted` bytes, else behind the first one that ends later.
pub(super) fn cut(bytes: &[u8], wanted: usize) -> Option<usize> {
    let wanted = wanted.min(bytes.len());
    let later = || memchr::memchr(b'\n', &bytes[wanted..]).map(|end| wanted + end);
    memchr::memrchr(b'\n', &bytes[..wanted]).or_else(later).map(|end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<(usize, &[u8])> {
        Lines::new(bytes).map(|line| (line.start, &bytes[line])).collect()
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
    fn a_cut_is_behind_the_last_line_that_fits_or_the_first_that_does_not() {
        assert_eq!(cut(b"a\nbb\nccc\n", 1), Some(2));
        assert_eq!(cut(b"a\nbb\nccc\n", 2), Some(2));
        assert_eq!(cut(b"a\nbb\nccc\n", 6), Some(5));
        assert_eq!(cut(b"a\nbb\nccc\n", 100), Some(9));
        assert_eq!(cut(b"abc", 2), None);
    }
}
