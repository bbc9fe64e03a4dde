//! Values that Parquet holds and PostgreSQL cannot: each becomes the nearest value it can hold, so that
//! no row keeps the loader from going on. The lake keeps the original.
//!
//! | value | becomes |
//! |---|---|
//! | U+0000 in text, `\u0000` and lone surrogates in JSON strings | U+FFFD |
//! | a JSON number beyond `numeric` | a JSON string of its digits |
//! | JSON nested deeper than [`JSON_DEPTH_MAX`] | a JSON string of the whole value |
//! | text in a key, longer than [`KEY_BYTES_MAX`] | its start, `…sha256:` and its hash |
//!
//! Every function returns `None` where the value can stand as it is.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// A B-tree entry holds at most a third of a page: 2,704 bytes. Two text columns fit so.
/// Source: PostgreSQL 15, `BTMaxItemSize` in `access/nbtree.h`.
const KEY_BYTES_MAX: usize = 1024;
/// What remains of a longer one, before the hash.
const KEY_START_BYTES: usize = 256;
/// The server's parser recurses on its stack (`max_stack_depth`, 2 MiB by default).
const JSON_DEPTH_MAX: usize = 512;
/// Digits of a `numeric` before and behind the point.
/// Source: PostgreSQL 15 documentation, table 8.2.
const NUMERIC_WHOLE_DIGITS_MAX: i64 = 131_072;
const NUMERIC_FRACTION_DIGITS_MAX: i64 = 16_383;

const REPLACEMENT: char = '\u{fffd}';

pub(super) fn repaired_text(text: &str) -> Option<String> {
    text.as_bytes().contains(&0).then(|| text.replace('\0', "\u{fffd}"))
}

/// For text that stands in a unique key. Equal keys stay equal, different ones different.
pub(super) fn repaired_key(text: &str) -> Option<String> {
    let repaired = repaired_text(text);
    let whole = repaired.as_deref().unwrap_or(text);
    if whole.len() <= KEY_BYTES_MAX {
        return repaired;
    }
    let mut short = whole[..whole.floor_char_boundary(KEY_START_BYTES)].to_owned();
    short.push_str("…sha256:");
    for byte in Sha256::digest(whole.as_bytes()) {
        let _ = write!(short, "{byte:02x}");
    }
    Some(short)
}

/// For a JSON value; what is no JSON is returned with its strings mended and left to the server to refuse.
pub(super) fn repaired_json(text: &str) -> Option<String> {
    let mut scan = JsonScan { text, mended: String::new(), copied_to: 0 };
    let bytes = text.as_bytes();
    let (mut at, mut depth, mut depth_max) = (0, 0_usize, 0);
    while let Some(byte) = bytes.get(at) {
        at = match byte {
            b'"' => scan.string(at + 1),
            b'-' | b'0'..=b'9' => scan.number(at),
            b'{' | b'[' => {
                depth += 1;
                depth_max = depth_max.max(depth);
                at + 1
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at + 1
            }
            _ => at + 1,
        };
    }
    if depth_max > JSON_DEPTH_MAX {
        return Some(serde_json::Value::String(text.to_owned()).to_string());
    }
    scan.finish()
}

struct JsonScan<'a> {
    text: &'a str,
    mended: String,
    /// How much of `text` stands in `mended`, as it was or replaced.
    copied_to: usize,
}

impl JsonScan<'_> {
    /// Returns the place behind the closing quote.
    fn string(&mut self, mut at: usize) -> usize {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'"' => return at + 1,
                b'\\' => at = self.escape(at),
                0..=0x1f => {
                    self.replace(at, at + 1, REPLACEMENT.encode_utf8(&mut [0; 4]));
                    at += 1;
                }
                _ => at += 1,
            }
        }
        at
    }

    fn escape(&mut self, at: usize) -> usize {
        let Some(unit) = self.escaped_unit(at) else { return at + 2 };
        match unit {
            0xd800..=0xdbff if matches!(self.escaped_unit(at + 6), Some(0xdc00..=0xdfff)) => at + 12,
            0 | 0xd800..=0xdfff => {
                self.replace(at, at + 6, "\\ufffd");
                at + 6
            }
            _ => at + 6,
        }
    }

    /// The code unit of a `\uXXXX` that starts at `at`.
    fn escaped_unit(&self, at: usize) -> Option<u16> {
        let digits = self.text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    }

    /// Returns the place behind the number.
    fn number(&mut self, start: usize) -> usize {
        let rest = &self.text.as_bytes()[start..];
        let length = rest
            .iter()
            .position(|byte| !matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
            .unwrap_or(rest.len());
        let end = start + length;
        let number = &self.text[start..end];
        if !fits_numeric(number) {
            self.replace(start, end, &format!("\"{number}\""));
        }
        end
    }

    fn replace(&mut self, from: usize, to: usize, with: &str) {
        self.mended.push_str(&self.text[self.copied_to..from]);
        self.mended.push_str(with);
        self.copied_to = to;
    }

    fn finish(mut self) -> Option<String> {
        if self.copied_to == 0 {
            return None;
        }
        self.mended.push_str(&self.text[self.copied_to..]);
        Some(self.mended)
    }
}

fn fits_numeric(number: &str) -> bool {
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => match exponent.parse::<i64>() {
            Ok(exponent) if exponent.abs() < 1_000_000 => (mantissa, exponent),
            _ => return false,
        },
        None => (number, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let whole_digits = whole.trim_start_matches('-').len() as i64;
    whole_digits + exponent <= NUMERIC_WHOLE_DIGITS_MAX
        && fraction.len() as i64 - exponent <= NUMERIC_FRACTION_DIGITS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_values_stand_as_they_are() {
        assert_eq!(repaired_text("grün"), None);
        assert_eq!(repaired_key("u-1"), None);
        for json in
            [r#"{"a":[1,-2.5e3,"x\n\"\\u0000","\ud83d\ude00"],"b":null}"#, "\"ü\"", "12345678901234567890.5", "[]"]
        {
            assert_eq!(repaired_json(json), None, "{json}");
        }
    }

    #[test]
    fn nul_becomes_the_replacement_character() {
        assert_eq!(repaired_text("a\0b").as_deref(), Some("a\u{fffd}b"));
        assert_eq!(repaired_json(r#"{"a\u0000":"\u0000x"}"#).as_deref(), Some(r#"{"a\ufffd":"\ufffdx"}"#));
    }

    #[test]
    fn lone_surrogates_become_the_replacement_character() {
        assert_eq!(repaired_json(r#""\ud800x""#).as_deref(), Some(r#""\ufffdx""#));
        assert_eq!(repaired_json(r#""\udc00\ud800\ud83d\ude00""#).as_deref(), Some(r#""\ufffd\ufffd\ud83d\ude00""#));
    }

    #[test]
    fn numbers_beyond_numeric_become_strings() {
        assert_eq!(repaired_json("[1e400000,1]").as_deref(), Some(r#"["1e400000",1]"#));
        assert_eq!(repaired_json("-1E-20000").as_deref(), Some(r#""-1E-20000""#));
        assert_eq!(repaired_json("1e99999999999999999999").as_deref(), Some(r#""1e99999999999999999999""#));
        assert_eq!(repaired_json("1e300"), None);
    }

    #[test]
    fn deep_json_becomes_a_string() {
        let deep = format!("{}{}", "[".repeat(600), "]".repeat(600));
        assert_eq!(repaired_json(&deep), Some(format!("\"{deep}\"")));
    }

    #[test]
    fn long_keys_are_shortened_and_stay_different() {
        let (one, two) = ("ü".repeat(2000), format!("{}x", "ü".repeat(1999)));
        let (short_one, short_two) = (repaired_key(&one).expect("long"), repaired_key(&two).expect("long"));
        assert!(short_one.len() <= KEY_BYTES_MAX);
        assert_ne!(short_one, short_two);
        assert_eq!(repaired_key(&short_one), None);
    }
}
