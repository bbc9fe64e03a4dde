//! Hive's spelling of partition directories, which DuckDB, Spark, Arrow and Trino read.

use std::fmt::Write as _;

/// Stands for null and for the empty string.
const DEFAULT_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

/// `name=value`, both escaped.
pub(super) fn level(name: &str, value: Option<&str>) -> String {
    let mut path = escape(name);
    path.push('=');
    match value {
        None | Some("") => path.push_str(DEFAULT_PARTITION),
        Some(value) => path.push_str(&escape(value)),
    }
    path
}

/// Source: Apache Hive, `FileUtils.escapePathName` and its list of characters, read 2026-11. Escaped besides, since
/// object stores and HTTP clients treat them specially at the ends of a path segment: space and a lone dot or two.
fn escape(text: &str) -> String {
    if text == "." || text == ".." {
        return text.replace('.', "%2E");
    }
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii_control() || " \"#%'*/:=?\\{[]^".contains(character) {
            // a String takes everything that is written to it
            let _ = write!(escaped, "%{:02X}", character as u32);
        } else {
            escaped.push(character);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_would_break_the_path_are_escaped() {
        for (value, expected) in [
            (Some("web"), "source=web"),
            (Some("a/b=c"), "source=a%2Fb%3Dc"),
            (Some("50%"), "source=50%25"),
            (Some("mobile app"), "source=mobile%20app"),
            (Some("größe"), "source=größe"),
            (Some("a\nb"), "source=a%0Ab"),
            (Some(".."), "source=%2E%2E"),
            (Some(""), "source=__HIVE_DEFAULT_PARTITION__"),
            (None, "source=__HIVE_DEFAULT_PARTITION__"),
        ] {
            assert_eq!(level("source", value), expected);
        }
    }
}
