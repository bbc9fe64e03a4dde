//! How a store spelt an object's key, from what the message gives away.
//!
//! The same text can mean two keys: `a+b` is `a b` where the store form-encodes and `a+b` where it does
//! not. Both objects may exist, even with equal content, so that an ETag cannot tell them apart. Guessing
//! is therefore the last resort: MinIO repeats the plain key, versitygw puts it into the ARN, and a text
//! with characters that form encoding never leaves cannot be form-encoded.

use percent_encoding::percent_decode;

use crate::config::KeyEncoding;

/// What the message itself tells about the spelling of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySpelling {
    /// Form-encoded for certain.
    Form,
    /// As it is, for certain.
    Literal,
    /// As it is, most likely: it holds characters that form encoding replaces.
    LiteralLikely,
    /// As it is: EventBridge does not encode.
    EventBridge,
    /// Nothing: AWS form-encodes, so that is tried first.
    Unknown,
}

/// Spelling in an entry of `Records[]`; `plain_location` is MinIO's `bucket/key`, `arn` the bucket's.
pub(super) fn of_record(bucket: &str, key: &str, plain_location: Option<&str>, arn: Option<&str>) -> KeySpelling {
    let plain_key = plain_location.and_then(|location| location.strip_prefix(bucket)?.strip_prefix('/'));
    if let Some(plain_key) = plain_key {
        if plain_key == key {
            return KeySpelling::Literal;
        }
        if form_decoded(key).as_deref() == Some(plain_key) {
            return KeySpelling::Form;
        }
    }
    // versitygw 1.6.0 gives `arn:aws:s3:::/bucket/key` for the bucket's ARN; nobody else does
    let arn_key = arn.and_then(|arn| arn.strip_prefix("arn:aws:s3:::/")?.strip_prefix(bucket)?.strip_prefix('/'));
    if arn_key == Some(key) {
        return KeySpelling::Literal;
    }
    if key.bytes().all(is_left_by_form_encoding) { KeySpelling::Unknown } else { KeySpelling::LiteralLikely }
}

/// Letters, digits, what AWS (Java's URLEncoder but for `/`) and MinIO (Go's url.QueryEscape) leave as it
/// is, and what they write for the rest.
fn is_left_by_form_encoding(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~*/+%!'()".contains(&byte)
}

pub(super) fn candidates(key: &str, spelling: KeySpelling, encoding: KeyEncoding) -> Vec<String> {
    let literal = key.to_owned();
    let decoded = form_decoded(key).filter(|decoded| !decoded.is_empty() && !decoded.contains('\0'));
    let (first, second) = match (encoding, spelling) {
        // a configured encoding speaks of `Records[]`; EventBridge never encodes
        (KeyEncoding::Literal, _)
        | (KeyEncoding::Form, KeySpelling::EventBridge)
        | (KeyEncoding::Auto, KeySpelling::Literal) => (literal, None),
        (KeyEncoding::Form, _) | (KeyEncoding::Auto, KeySpelling::Form) => (decoded.unwrap_or(literal), None),
        (KeyEncoding::Auto, KeySpelling::LiteralLikely | KeySpelling::EventBridge) => (literal, decoded),
        (KeyEncoding::Auto, KeySpelling::Unknown) => match decoded {
            Some(decoded) => (decoded, Some(literal)),
            None => (literal, None),
        },
    };
    let second = second.filter(|second| *second != first);
    std::iter::once(first).chain(second).collect()
}

/// `None` where the result is not UTF-8, which no key may be.
pub(super) fn form_decoded(key: &str) -> Option<String> {
    let spaced: Vec<u8> = key.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect();
    percent_decode(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}
