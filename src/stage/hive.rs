//! Table partitions as Hive spells them: `name=value/name=value`.

use sha2::{Digest, Sha256};

/// What stands for null and for the empty text. Source: Apache Hive, ConfVars.DEFAULTPARTITIONNAME.
const DEFAULT_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

/// Longer values are cut, and told apart by a hash: a key may have 1,024 bytes (Amazon S3 User Guide, Object key
/// names), and stores on a file system take 255 for each level (`NAME_MAX`). A value of data must never make
/// a file that cannot be put.
const VALUE_BYTES_MAX: usize = 160;

/// Appends `name=value`; the value escaped.
pub(super) fn push_level(path: &mut String, name: &str, value: Option<&str>) {
    if !path.is_empty() {
        path.push('/');
    }
    escape(path, name);
    path.push('=');
    match value {
        None | Some("") => path.push_str(DEFAULT_PARTITION),
        Some(value) => {
            let start = path.len();
            escape(path, value);
            if path.len() - start > VALUE_BYTES_MAX {
                shorten(path, start, value);
            }
        }
    }
}

/// Percent signs instead of what Hive escapes: control characters and `"#%'*/:=?\{[]^`, the closing brace
/// not among them; characters beyond ASCII stand for themselves. Blanks and a value of dots alone are escaped
/// besides: stores and HTTP clients treat them specially at the ends of a segment, and readers undo them all the same.
/// Source: Apache Hive 4, FileUtils.escapePathName (`charToEscape`), read 2026-11; Spark's
/// ExternalCatalogUtils has the same list.
fn escape(path: &mut String, text: &str) {
    let is_dots = matches!(text, "." | "..");
    for character in text.chars() {
        let is_escaped = is_dots || character.is_ascii_control() || " \"#%'*/:=?\\{[]^".contains(character);
        if is_escaped {
            path.push('%');
            push_hex(path, character as u8, b"0123456789ABCDEF");
        } else {
            path.push(character);
        }
    }
}

/// Cuts the escaped value that begins at `start`: `value~0123456789abcdef`.
fn shorten(path: &mut String, start: usize, value: &str) {
    const HASH_BYTES: usize = 8;
    let mut end = start + VALUE_BYTES_MAX - 1 - 2 * HASH_BYTES;
    while !path.is_char_boundary(end) {
        end -= 1;
    }
    // Not in the middle of an escape: a percent sign stands for nothing else.
    if let Some(percent) = path[start..end].rfind('%').filter(|percent| start + percent + 3 > end) {
        end = start + percent;
    }
    path.truncate(end);
    path.push('~');
    for byte in &Sha256::digest(value)[..HASH_BYTES] {
        push_hex(path, *byte, b"0123456789abcdef");
    }
}

fn push_hex(path: &mut String, byte: u8, digits: &[u8; 16]) {
    path.push(char::from(digits[usize::from(byte >> 4)]));
    path.push(char::from(digits[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(value: &str) -> String {
        let mut path = String::new();
        push_level(&mut path, "source", Some(value));
        path.strip_prefix("source=").unwrap().to_owned()
    }

    #[test]
    fn what_hive_escapes_and_nothing_else() {
        for (value, escaped) in [
            ("web", "web"),
            ("a b", "a%20b"),
            (" ", "%20"),
            ("a/b", "a%2Fb"),
            ("a=b", "a%3Db"),
            ("100%", "100%25"),
            (".", "%2E"),
            ("..", "%2E%2E"),
            ("...", "..."),
            ("../x", "..%2Fx"),
            ("\"#%'*/:=?\\{[]^", "%22%23%25%27%2A%2F%3A%3D%3F%5C%7B%5B%5D%5E"),
            ("\0\t\n\r\u{1f}\u{7f}", "%00%09%0A%0D%1F%7F"),
            ("}!$&()+,-.;<>@_`|~", "}!$&()+,-.;<>@_`|~"),
            ("ümläut/日本", "ümläut%2F日本"),
            ("\u{80}\u{9f}", "\u{80}\u{9f}"),
        ] {
            assert_eq!(level(value), escaped, "{value:?}");
        }
    }

    #[test]
    fn null_and_empty_have_a_name_of_their_own() {
        let mut path = String::new();
        push_level(&mut path, "a", None);
        push_level(&mut path, "b", Some(""));
        assert_eq!(path, "a=__HIVE_DEFAULT_PARTITION__/b=__HIVE_DEFAULT_PARTITION__");
    }

    #[test]
    fn long_values_are_cut_and_stay_distinct() {
        for unit in ["x", "/", "ü", "日", "x/ü"] {
            let long = unit.repeat(1000);
            let cut = level(&long);
            assert!(cut.len() <= VALUE_BYTES_MAX, "{}", cut.len());
            assert!(cut.len() > VALUE_BYTES_MAX - 5);
            assert_ne!(cut, level(&format!("{long}y")));
            assert_eq!(cut, level(&long));
            let body = &cut[..cut.find('~').unwrap()];
            assert!(body.split('%').skip(1).all(|escape| escape.starts_with("2F")), "{body}");
        }
        assert_eq!(level(&"x".repeat(160)), "x".repeat(160));
    }
}
