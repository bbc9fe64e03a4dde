//! One spelling for each value, so that what was generated and what was found compare by a hash.

use sha2::{Digest, Sha256};

/// A value as text: integers and decimals in plain digits (decimals with their scale), timestamps in
/// milliseconds since 1970, JSON with sorted keys, UUIDs in lower case; `None` is null.
pub type Canonical = Option<String>;

/// First 16 bytes of SHA-256 over the values, each with its length, null apart from empty.
pub fn row_hash(values: &[Canonical]) -> u128 {
    let mut hash = Sha256::new();
    for value in values {
        match value {
            None => hash.update([0]),
            Some(text) => {
                hash.update([1]);
                hash.update((text.len() as u64).to_be_bytes());
                hash.update(text.as_bytes());
            }
        }
    }
    first_half(&hash.finalize())
}

pub fn bytes_hash(bytes: &[u8]) -> u128 {
    first_half(&Sha256::digest(bytes))
}

fn first_half(digest: &[u8]) -> u128 {
    digest[..16].iter().fold(0, |hash, byte| hash << 8 | u128::from(*byte))
}

/// JSON with sorted keys and no white space; text that is no JSON stays as it is.
pub fn json(text: &str) -> String {
    serde_json::from_str::<serde_json::Value>(text).map_or_else(|_| text.to_owned(), |value| value.to_string())
}

/// Cents as `12.50`.
pub fn cents(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_empty_and_shifted_values_differ() {
        let of = |values: &[Option<&str>]| row_hash(&values.iter().map(|v| v.map(str::to_owned)).collect::<Vec<_>>());
        assert_ne!(of(&[None]), of(&[Some("")]));
        assert_ne!(of(&[Some("ab"), Some("c")]), of(&[Some("a"), Some("bc")]));
        assert_eq!(of(&[Some("a"), None]), of(&[Some("a"), None]));
    }

    #[test]
    fn cents_keep_their_scale() {
        assert_eq!([cents(1250), cents(-5), cents(0)], ["12.50", "-0.05", "0.00"]);
    }
}
