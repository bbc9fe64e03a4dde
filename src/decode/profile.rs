//! What a sample of objects looks like: the fields, their types, what is missing. For `sluice infer`.
//!
//! # Contract
//! Pure: bytes in, a profile out; the same objects give the same profile, in whatever order. No value is kept.
//! The profile knows nothing of formats: whoever reads another one hands in each row's fields ([`Profile::row`]).

use std::collections::{BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;

use super::blocks::{Blocks, Piece};
use super::column::plain;
use super::framing::Framing;
use super::infer::{text_type, value_type};
use super::number;
use super::scan::{Scanner, SyntaxError};
use super::{DecodeLimits, ObjectFault, of_memory};
use crate::config::{FieldType, Format};

/// Milliseconds since 1970 of the years 2000 to 2099: a whole number there may be an instant.
const INSTANTS_MS: std::ops::Range<i64> = 946_684_800_000..4_102_444_800_000;
/// Fields of a sample that are told apart.
const FIELDS_MAX: usize = 2_000;

#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// Rows that were read.
    pub row_count: u64,
    /// Rows that are no JSON objects.
    pub unreadable_count: u64,
    /// In the order in which they were met first.
    pub fields: Vec<FieldProfile>,
}

#[derive(Debug, Clone)]
pub struct FieldProfile {
    pub name: String,
    /// Rows with a value that is not null.
    pub value_count: u64,
    /// Of values, each kind by its name; several are mixed types.
    pub kinds: BTreeSet<&'static str>,
    /// The narrowest that takes every value; `None` where there was none but null.
    pub data_type: Option<FieldType>,
    /// All whole numbers are instants, if they are milliseconds.
    pub may_be_epoch_ms: bool,
    /// No value stands twice.
    pub is_distinct: bool,
    hashes: HashSet<u64>,
}

impl Profile {
    /// Adds JSON lines, packed or not, until the profile has `row_count_max` rows.
    pub fn add_json(&mut self, bytes: Bytes, limits: &DecodeLimits, row_count_max: u64) -> Result<(), ObjectFault> {
        let framing = Framing::of(&Format::Json, limits);
        let mut blocks = Blocks::of_bytes(bytes, framing, limits).map_err(of_memory)?;
        while let Some(piece) = blocks.next().map_err(of_memory)? {
            let Piece::Block { bytes, .. } = piece else {
                self.unreadable_count += 1;
                continue;
            };
            for line in framing.records(&bytes).map(|range| &bytes[range]) {
                if self.row_count + self.unreadable_count >= row_count_max {
                    return Ok(());
                }
                match fields_of(line, limits.json_depth_max) {
                    Ok(fields) if simdutf8::basic::from_utf8(line).is_ok() => self.row(&fields),
                    _ => self.unreadable_count += 1,
                }
            }
        }
        Ok(())
    }

    /// Adds one row: the name of each field, and its value as JSON spells it.
    pub fn row(&mut self, fields: &[(String, &[u8])]) {
        self.row_count += 1;
        for (name, value) in fields {
            let index = match self.fields.iter().position(|field| field.name == *name) {
                Some(index) => index,
                None if self.fields.len() < FIELDS_MAX => {
                    self.fields.push(FieldProfile::new(name));
                    self.fields.len() - 1
                }
                None => continue,
            };
            self.fields[index].value(value);
        }
    }
}

impl FieldProfile {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            value_count: 0,
            kinds: BTreeSet::new(),
            data_type: None,
            may_be_epoch_ms: true,
            is_distinct: true,
            hashes: HashSet::new(),
        }
    }

    fn value(&mut self, value: &[u8]) {
        let Some(mut seen) = value_type(value) else { return };
        if let [b'"', text @ .., b'"'] = value {
            let mut scratch = Vec::new();
            let has_escapes = text.contains(&b'\\');
            seen = text_type(plain(super::scan::Text { raw: text, has_escapes }, &mut scratch));
        }
        // numbers with a point are a kind of their own, and so are those beyond 64 bits
        if matches!(seen, FieldType::Int32 | FieldType::Int64) {
            self.may_be_epoch_ms &= number::integer(value).is_some_and(|value| INSTANTS_MS.contains(&value));
        }
        self.kinds.insert(match seen {
            FieldType::Boolean => "boolean",
            FieldType::Json => "object or list",
            FieldType::TimestampMs => "timestamp",
            FieldType::Uuid => "uuid",
            FieldType::Utf8 => "text",
            FieldType::Int32 | FieldType::Int64 => "whole number",
            FieldType::Decimal { .. } => "decimal number",
            FieldType::Float64 => "floating number",
        });
        self.value_count += 1;
        self.data_type = Some(self.data_type.map_or(seen, |known| known.join(seen)));
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        // two values of one hash would only cost a field the guess that it is a key
        self.is_distinct = self.is_distinct && self.hashes.insert(hasher.finish());
        if !self.is_distinct {
            self.hashes = HashSet::new();
        }
    }
}

/// Name and value of each field of an object, as they stand.
fn fields_of(record: &[u8], depth_max: usize) -> Result<Vec<(String, &[u8])>, SyntaxError> {
    let mut scanner = Scanner::new(record, Vec::new(), depth_max);
    let (mut fields, mut scratch) = (Vec::new(), Vec::new());
    if scanner.peek() != b'{' {
        return Err(SyntaxError::Malformed { at: scanner.at(), expected: "an object" });
    }
    let mut has_next = scanner.begin_object()?;
    while has_next {
        let key = scanner.key()?;
        let name = String::from_utf8_lossy(plain(key, &mut scratch)).into_owned();
        fields.push((name, scanner.value()?));
        has_next = scanner.next_field()?;
    }
    scanner.end()?;
    Ok(fields)
}
