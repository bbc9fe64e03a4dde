//! Steps that make one text of another.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, StringArray, StringBuilder};
use arrow::buffer::Buffer;
use arrow::error::ArrowError;
use hmac::{Hmac, Mac};
use regex::Regex;
use sha2::Sha256;

use super::Applied;
use crate::config::{Mask, Otherwise};

/// What stands for a hidden character.
const HIDDEN: char = '*';

#[derive(Clone)]
pub(super) enum TextStep {
    Trim,
    Lowercase,
    Uppercase,
    Nulls(Arc<HashSet<String>>),
    Replace(Regex, String),
    Map(Arc<HashMap<String, String>>, Otherwise),
    Mask(Mask),
    Hash(Hmac<Sha256>),
}

/// The key of a hash is shown nowhere.
impl fmt::Debug for TextStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trim => "Trim",
            Self::Lowercase => "Lowercase",
            Self::Uppercase => "Uppercase",
            Self::Nulls(_) => "Nulls",
            Self::Replace(..) => "Replace",
            Self::Map(..) => "Map",
            Self::Mask(_) => "Mask",
            Self::Hash(_) => "Hash",
        })
    }
}

/// What becomes of one text.
enum Change<'a> {
    Same,
    Null,
    To(Cow<'a, str>),
    Failed,
}

impl TextStep {
    pub(super) fn nulls(values: &[String]) -> Self {
        Self::Nulls(Arc::new(values.iter().cloned().collect()))
    }

    pub(super) fn replace(pattern: &str, with: &str) -> Result<Self, regex::Error> {
        Ok(Self::Replace(Regex::new(pattern)?, with.to_owned()))
    }

    pub(super) fn map(values: &[(String, String)], otherwise: Otherwise) -> Self {
        Self::Map(Arc::new(values.iter().cloned().collect()), otherwise)
    }

    pub(super) fn hash(hasher: Hmac<Sha256>) -> Self {
        Self::Hash(hasher)
    }

    pub(super) fn makes_nulls(&self) -> bool {
        matches!(self, Self::Nulls(_) | Self::Map(_, Otherwise::Clear))
    }

    pub(super) fn apply(&self, texts: &StringArray) -> Result<Applied, ArrowError> {
        Ok(match self {
            Self::Trim => {
                rewrite(texts, |text| if needs_trim(text) { becomes(text, text.trim().into()) } else { Change::Same })
            }
            Self::Lowercase => match ascii_case(texts, u8::is_ascii_uppercase, <[u8]>::make_ascii_lowercase)? {
                Some(applied) => applied,
                None => rewrite(texts, |text| becomes(text, text.to_lowercase().into())),
            },
            Self::Uppercase => match ascii_case(texts, u8::is_ascii_lowercase, <[u8]>::make_ascii_uppercase)? {
                Some(applied) => applied,
                None => rewrite(texts, |text| becomes(text, text.to_uppercase().into())),
            },
            Self::Nulls(values) => {
                rewrite(texts, |text| if values.contains(text) { Change::Null } else { Change::Same })
            }
            Self::Replace(pattern, with) => {
                rewrite(texts, |text| becomes(text, pattern.replace_all(text, with.as_str())))
            }
            Self::Map(values, otherwise) => rewrite(texts, |text| match (values.get(text), otherwise) {
                (Some(value), _) => becomes(text, Cow::Borrowed(value)),
                (None, Otherwise::Keep) => Change::Same,
                (None, Otherwise::Clear) => Change::Null,
                (None, Otherwise::Reject) => Change::Failed,
            }),
            Self::Mask(Mask::Fixed(mask)) => rewrite(texts, |text| becomes(text, Cow::Borrowed(mask))),
            Self::Mask(Mask::KeepLast(count)) => rewrite(texts, |text| becomes(text, masked(text, *count).into())),
            Self::Hash(hasher) => rewrite(texts, |text| Change::To(hashed(hasher, text).into())),
        })
    }
}

fn becomes<'a>(text: &str, changed: Cow<'a, str>) -> Change<'a> {
    if text == changed { Change::Same } else { Change::To(changed) }
}

/// Does `change` to every text; copies from the first one on that changes.
fn rewrite<'a>(texts: &'a StringArray, change: impl Fn(&'a str) -> Change<'a>) -> Applied {
    let mut builder: Option<StringBuilder> = None;
    let mut changed = 0;
    let mut failed = Vec::new();
    for row in 0..texts.len() {
        let text = texts.is_valid(row).then(|| texts.value(row));
        let new = match text.map_or(Change::Same, &change) {
            Change::Null => None,
            Change::To(text) => Some(text),
            same => {
                failed.extend(matches!(same, Change::Failed).then_some(row));
                if let Some(builder) = &mut builder {
                    builder.append_option(text);
                }
                continue;
            }
        };
        changed += 1;
        builder.get_or_insert_with(|| copied(texts, row)).append_option(new);
    }
    Applied { column: builder.map(|mut builder| Arc::new(builder.finish()) as _), changed, failed }
}

/// The first `count` of the texts, with room for all.
fn copied(texts: &StringArray, count: usize) -> StringBuilder {
    let mut builder = StringBuilder::with_capacity(texts.len(), texts.value_data().len());
    for row in 0..count {
        builder.append_option(texts.is_valid(row).then(|| texts.value(row)));
    }
    builder
}

/// False where both ends are plainly no white space; bytes of longer characters may be.
fn needs_trim(text: &str) -> bool {
    let may_be_space = |byte: Option<&u8>| byte.is_some_and(|byte| !byte.is_ascii_graphic());
    may_be_space(text.as_bytes().first()) || may_be_space(text.as_bytes().last())
}

/// Changes the case of all texts at once, where they are ASCII: their lengths stay. `None` where they are
/// not.
fn ascii_case(
    texts: &StringArray,
    is_other_case: impl Fn(&u8) -> bool,
    change: impl Fn(&mut [u8]),
) -> Result<Option<Applied>, ArrowError> {
    let bytes = texts.value_data();
    if !bytes.is_ascii() {
        return Ok(None);
    }
    if !bytes.iter().any(&is_other_case) {
        return Ok(Some(Applied::NOTHING));
    }
    let changed = texts.iter().flatten().filter(|text| text.as_bytes().iter().any(&is_other_case)).count() as u64;
    let mut bytes = bytes.to_vec();
    change(&mut bytes);
    let array = StringArray::try_new(texts.offsets().clone(), Buffer::from(bytes), texts.nulls().cloned())?;
    Ok(Some(Applied::to(Arc::new(array), changed)))
}

/// All but the last characters hidden; all of them where there are not more than those.
fn masked(text: &str, keep_last: usize) -> String {
    let hidden = match text.chars().count() {
        count if count > keep_last => count - keep_last,
        count => count,
    };
    text.chars().enumerate().map(|(place, letter)| if place < hidden { HIDDEN } else { letter }).collect()
}

fn hashed(hasher: &Hmac<Sha256>, text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hasher = hasher.clone();
    hasher.update(text.as_bytes());
    let digits = hasher.finalize().into_bytes();
    digits.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| DIGITS[usize::from(digit)] as char).collect()
}
