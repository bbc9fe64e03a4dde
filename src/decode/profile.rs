//! What a sample of objects looks like: the fields, their types, what is missing. For `sluice infer`.
//!
//! # Contract
//! Pure: bytes in, a profile out; the same objects give the same profile, in whatever order. No value is kept.
//! Rows of every format are looked at as JSON: a field of CSV that is a number or a boolean counts as one, and rows of
//! Parquet are read as the pipeline reads them, with the types that the files declare.

use std::collections::{BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;

use super::blocks::{Blocks, Piece};
use super::column::plain;
use super::csv::text;
use super::csv_records::{FieldSpan, Marks, fields};
use super::framing::Framing;
use super::infer::{text_type, value_type};
use super::number;
use super::parquet::ParquetRows;
use super::scan::{Scanner, SyntaxError, whole_number};
use super::{DecodeLimits, ObjectFault, of_memory};
use crate::config::{Connector, CsvDialect, FieldType, Format, NewField};

/// Milliseconds since 1970 of the years 2000 to 2099: a whole number there may be an instant.
const INSTANTS_MS: std::ops::Range<i64> = 946_684_800_000..4_102_444_800_000;
/// Texts that mean null where a field of CSV is nothing else; more would be guessing.
const NULLS: [&str; 6] = ["", "null", "NULL", "\\N", "N/A", "n/a"];
/// Fields of a sample that are told apart.
const FIELDS_MAX: usize = 2_000;

#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// Rows that were read.
    pub row_count: u64,
    /// Records that are no rows: no JSON objects, or CSV with another number of fields.
    pub unreadable_count: u64,
    /// In the order in which they were met first.
    pub fields: Vec<FieldProfile>,
    /// Spellings of null that stood in fields of CSV.
    pub nulls: BTreeSet<&'static str>,
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
    /// As the files themselves say, where they do (Parquet).
    pub declared: Option<FieldType>,
    /// All whole numbers are instants, if they are milliseconds.
    pub may_be_epoch_ms: bool,
    /// No value stands twice.
    pub is_distinct: bool,
    hashes: HashSet<u64>,
}

impl Profile {
    /// Adds an object, packed or not, until the profile has `row_count_max` rows.
    pub fn add(
        &mut self,
        format: &Format,
        stored: Bytes,
        limits: &DecodeLimits,
        row_count_max: u64,
    ) -> Result<(), ObjectFault> {
        match format {
            Format::Parquet => self.add_parquet(stored, limits, row_count_max),
            Format::Json | Format::JsonValues | Format::Csv(_) => {
                let mut rows = CsvSample::default();
                let framing = Framing::of(format, limits);
                let mut blocks = Blocks::of_bytes(stored, framing, limits).map_err(of_memory)?;
                while let Some(piece) = blocks.next().map_err(of_memory)? {
                    let Piece::Block { bytes, .. } = piece else {
                        self.unreadable_count += 1;
                        continue;
                    };
                    for record in framing.records(&bytes).map(|range| &bytes[range]) {
                        if self.is_full(row_count_max) {
                            return Ok(());
                        }
                        match format {
                            Format::Csv(dialect) => rows.add(self, dialect, record),
                            _ => self.add_json(record, limits),
                        }
                    }
                }
                Ok(())
            }
        }
    }

    /// Whether no more rows are wanted.
    pub fn is_full(&self, row_count_max: u64) -> bool {
        self.row_count + self.unreadable_count >= row_count_max
    }

    fn add_json(&mut self, record: &[u8], limits: &DecodeLimits) {
        match fields_of(record, limits.json_depth_max) {
            Ok(fields) if simdutf8::basic::from_utf8(record).is_ok() => self.row(&fields),
            _ => self.unreadable_count += 1,
        }
    }

    fn add_parquet(&mut self, stored: Bytes, limits: &DecodeLimits, row_count_max: u64) -> Result<(), ObjectFault> {
        let mut reader = Connector::of_objects("sample", Vec::new(), "");
        reader.evolution.new_field = NewField::Evolve;
        let mut rows = ParquetRows::of_bytes(&Arc::new(reader), stored, limits).map_err(of_memory)?;
        while let Some(piece) = rows.next()? {
            let Piece::Block { bytes, .. } = piece else { continue };
            for record in Framing::Lines.records(&bytes).map(|range| &bytes[range]) {
                if self.is_full(row_count_max) {
                    break;
                }
                self.add_json(record, limits);
            }
            if self.is_full(row_count_max) {
                break;
            }
        }
        for field in &mut self.fields {
            if let Some(declared) = rows.seen.get(&field.name) {
                field.declared = Some(field.declared.map_or(*declared, |known| known.join(*declared)));
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
            declared: None,
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

/// Records of one CSV object on their way into a profile.
#[derive(Default)]
struct CsvSample {
    /// Of the header, or `column_1` and so on; `None` before the first record.
    names: Option<Vec<String>>,
    spans: Vec<FieldSpan>,
    scratch: Vec<u8>,
}

impl CsvSample {
    fn add(&mut self, profile: &mut Profile, dialect: &CsvDialect, record: &[u8]) {
        let marks = Marks { delimiter: dialect.delimiter, quote: dialect.quote };
        let is_read = simdutf8::basic::from_utf8(record).is_ok() && fields(record, marks, &mut self.spans).is_ok();
        if !is_read {
            profile.unreadable_count += 1;
            return;
        }
        let mut values = Vec::with_capacity(self.spans.len());
        for span in &self.spans {
            let value = String::from_utf8_lossy(text(record, span, marks, &mut self.scratch)).into_owned();
            values.push((value, span.is_quoted));
        }
        let Some(names) = &self.names else {
            if dialect.has_header {
                self.names = Some(values.into_iter().map(|(name, _)| name).collect());
                return;
            }
            self.names = Some((1..=values.len()).map(|number| format!("column_{number}")).collect());
            return self.add(profile, dialect, record);
        };
        if names.len() != values.len() {
            profile.unreadable_count += 1;
            return;
        }
        let json = values.iter().map(|(value, is_quoted)| match NULLS.iter().find(|null| **null == *value) {
            Some(null) if !is_quoted => {
                profile.nulls.insert(null);
                "null".to_owned()
            }
            _ => json_spelling(value),
        });
        let json: Vec<String> = json.collect();
        let row: Vec<(String, &[u8])> = names.iter().cloned().zip(json.iter().map(String::as_bytes)).collect();
        profile.row(&row);
    }
}

/// Of a field's text: numbers and booleans as such, all else as a string.
fn json_spelling(text: &str) -> String {
    if whole_number(text.as_bytes()).is_some() || text == "true" || text == "false" {
        return text.to_owned();
    }
    serde_json::Value::from(text).to_string()
}
