//! A file of rows beside a connector: CSV with a header, JSON lines or Parquet, told by the end of its name.
//!
//! # Contract
//! Columns are those that are declared, or else all of the file, each of the narrowest type that takes its values: numbers
//! without a point are whole, those with one are decimals, `true` and `false` are booleans, RFC 3339 is a timestamp, and
//! what begins with a zero that means nothing is text. A value that is missing, or empty in CSV, is null. Any value that
//! does not fit is a problem of the file: no row of it is left out.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options, concat_batches};
use bytes::Bytes;
use chrono::DateTime;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::value::RawValue;

use super::check_columns::type_name;
use super::error::did_you_mean;
use super::join_table::schema_of;
use super::query::field_type;
use super::table_rows::{TABLE_BYTES_MAX, TableRows, TableRowsError};
use super::{DECIMAL_DIGITS_MAX, Field, FieldType, JoinTable, TimestampFormat};

/// What is wrong with a file; lines count from 1, 0 is the file as a whole.
#[derive(Debug)]
pub(super) struct FileProblem {
    pub(super) line: u32,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl FileProblem {
    fn at(line: u32, message: impl Into<String>, help: impl Into<Option<String>>) -> Self {
        Self { line, message: message.into(), help: help.into() }
    }
}

/// A column of a table, not required, of all formats.
pub(super) fn column(name: &str, data_type: FieldType) -> Field {
    let formats = match data_type {
        FieldType::TimestampMs => vec![TimestampFormat::Rfc3339, TimestampFormat::EpochMs],
        _ => Vec::new(),
    };
    Field { name: name.to_owned(), data_type, required: false, formats, header: None, path: None }
}

/// `declared`: its columns; empty: all that the file has.
pub(super) fn read(
    name: &str,
    path: &Path,
    bytes: &[u8],
    declared: Vec<Field>,
    hash: String,
) -> Result<JoinTable, FileProblem> {
    if bytes.len() > TABLE_BYTES_MAX {
        let help = "a table that is joined is held in memory: leave out rows or columns".to_owned();
        return Err(FileProblem::at(0, format!("the file has more than {} MiB", TABLE_BYTES_MAX >> 20), help));
    }
    let texts = match path.extension().and_then(|end| end.to_str()) {
        Some("csv") => csv(bytes)?,
        Some("json" | "jsonl" | "ndjson") => json_lines(bytes)?,
        Some("parquet") => return parquet(name, bytes, declared, hash),
        _ => {
            let help = "name it .csv, .json, .jsonl, .ndjson or .parquet".to_owned();
            return Err(FileProblem::at(0, "the end of its name does not say what is in it", help));
        }
    };
    let fields = if declared.is_empty() { texts.inferred() } else { declared };
    let places = fields.iter().map(|field| texts.place(&field.name)).collect::<Result<Vec<_>, _>>()?;
    let mut rows = TableRows::new(&fields);
    for (line, values) in &texts.rows {
        let values = places.iter().map(|place| values[*place].as_ref().map(|value| value.text.as_str()));
        rows.push(values).map_err(|error| misfit(*line, error))?;
    }
    let rows = rows.finish(schema_of(&fields));
    Ok(JoinTable::of_file(name.to_owned(), fields, hash, rows))
}

fn misfit(line: u32, error: TableRowsError) -> FileProblem {
    match error {
        TableRowsError::Misfit { column, type_name, expected } => FileProblem::at(
            line,
            format!("a value of column `{column}` is no {type_name}"),
            format!("expected {expected}"),
        ),
        TableRowsError::TooLarge => FileProblem::at(line, error.to_string(), None),
    }
}

/// A file of texts.
struct Texts {
    names: Vec<String>,
    /// Each with its line, and a value for each name.
    rows: Vec<(u32, Vec<Option<Value>>)>,
}

struct Value {
    text: String,
    spelling: Spelling,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// Of CSV, or a JSON number or boolean.
    Plain,
    JsonString,
    /// An object or a list.
    Json,
}

impl Texts {
    fn place(&self, name: &str) -> Result<usize, FileProblem> {
        self.names.iter().position(|known| known == name).ok_or_else(|| {
            let help = did_you_mean(name, "its columns", self.names.iter().map(String::as_str));
            FileProblem::at(1, format!("the file has no column `{name}`"), help)
        })
    }

    fn inferred(&self) -> Vec<Field> {
        let type_of = |place: usize| {
            let values = self.rows.iter().filter_map(|(_, values)| values[place].as_ref());
            values.map(Value::data_type).reduce(FieldType::join).unwrap_or(FieldType::Utf8)
        };
        self.names.iter().enumerate().map(|(place, name)| column(name, type_of(place))).collect()
    }
}

impl Value {
    fn data_type(&self) -> FieldType {
        let text = self.text.as_str();
        match self.spelling {
            Spelling::Json => return FieldType::Json,
            Spelling::Plain if matches!(text, "true" | "false") => return FieldType::Boolean,
            Spelling::Plain => {
                if let Some(number) = number_type(text) {
                    return number;
                }
            }
            Spelling::JsonString => {}
        }
        if DateTime::parse_from_rfc3339(text).is_ok() { FieldType::TimestampMs } else { FieldType::Utf8 }
    }
}

/// Of a number without a sign or a zero that means nothing; others are codes.
fn number_type(text: &str) -> Option<FieldType> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let are_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !are_digits(whole) || (whole.len() > 1 && whole.starts_with('0')) {
        return None;
    }
    if digits.len() == whole.len() {
        let is_int32 = text.parse::<i32>().is_ok();
        let is_int64 = text.parse::<i64>().is_ok();
        return if is_int32 { Some(FieldType::Int32) } else { is_int64.then_some(FieldType::Int64) };
    }
    let count = whole.len() + fraction.len();
    if fraction.is_empty() || !are_digits(fraction) {
        // 1.5e3
        return text.parse::<f64>().ok().filter(|number| number.is_finite()).map(|_| FieldType::Float64);
    }
    if count > usize::from(DECIMAL_DIGITS_MAX) {
        return Some(FieldType::Float64);
    }
    Some(FieldType::Decimal { precision: count as u8, scale: fraction.len() as i8 })
}

fn csv(bytes: &[u8]) -> Result<Texts, FileProblem> {
    let line_of = |error: &csv::Error| error.position().map_or(0, |position| position.line() as u32);
    let broken = |error: csv::Error| FileProblem::at(line_of(&error), format!("this is no CSV: {error}"), None);
    let mut reader = csv::ReaderBuilder::new().from_reader(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
    let names: Vec<String> = reader.headers().map_err(broken)?.iter().map(str::to_owned).collect();
    if let Some(name) = names.iter().enumerate().find_map(|(at, name)| names[..at].contains(name).then_some(name)) {
        return Err(FileProblem::at(1, format!("the header has `{name}` twice"), None));
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(broken)?;
        let line = record.position().map_or(0, |position| position.line() as u32);
        let value = |text: &str| Value { text: text.to_owned(), spelling: Spelling::Plain };
        rows.push((line, record.iter().map(|text| (!text.is_empty()).then(|| value(text))).collect()));
    }
    Ok(Texts { names, rows })
}

/// Columns in the order of their names.
fn json_lines(bytes: &[u8]) -> Result<Texts, FileProblem> {
    let text = std::str::from_utf8(bytes).map_err(|_| FileProblem::at(0, "the file is no UTF-8", None))?;
    let mut objects: Vec<(u32, BTreeMap<String, Box<RawValue>>)> = Vec::new();
    for (line, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let line = line as u32 + 1;
        let object = serde_json::from_str(text);
        let broken =
            |error| FileProblem::at(line, format!("this is no JSON object: {error}"), "one object a line".to_owned());
        objects.push((line, object.map_err(broken)?));
    }
    let mut names: Vec<String> = objects.iter().flat_map(|(_, object)| object.keys()).cloned().collect();
    names.sort_unstable();
    names.dedup();
    let rows = objects.iter().map(|(line, object)| {
        let values = names.iter().map(|name| object.get(name).and_then(|value| json_value(value.get())));
        (*line, values.collect())
    });
    Ok(Texts { rows: rows.collect(), names })
}

fn json_value(json: &str) -> Option<Value> {
    match json.as_bytes().first() {
        Some(b'n') => None,
        // a whole document was read, so it is one
        Some(b'"') => serde_json::from_str(json).ok().map(|text| Value { text, spelling: Spelling::JsonString }),
        Some(b'{' | b'[') => Some(Value { text: json.to_owned(), spelling: Spelling::Json }),
        _ => Some(Value { text: json.to_owned(), spelling: Spelling::Plain }),
    }
}

fn parquet(name: &str, bytes: &[u8], declared: Vec<Field>, hash: String) -> Result<JoinTable, FileProblem> {
    let broken = |error: &dyn std::error::Error| FileProblem::at(0, format!("this is no Parquet: {error}"), None);
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(Bytes::copy_from_slice(bytes)).map_err(|error| broken(&error))?;
    let schema = std::sync::Arc::clone(builder.schema());
    let batches = builder.build().map_err(|error| broken(&error))?;
    let batches = batches.collect::<Result<Vec<_>, _>>().map_err(|error| broken(&error))?;
    let rows = concat_batches(&schema, &batches).map_err(|error| broken(&error))?;
    if rows.get_array_memory_size() > 2 * TABLE_BYTES_MAX {
        return Err(FileProblem::at(0, TableRowsError::TooLarge.to_string(), None));
    }
    let wanted = if declared.is_empty() {
        let fields = schema.fields().iter().map(|field| {
            let data_type = field_type(field).ok_or_else(|| {
                let help = "declare `columns` without it".to_owned();
                let message = format!("column `{}` is {}, which no column holds", field.name(), field.data_type());
                FileProblem::at(0, message, help)
            });
            data_type.map(|data_type| column(field.name(), data_type))
        });
        fields.collect::<Result<Vec<_>, _>>()?
    } else {
        declared
    };
    let target = schema_of(&wanted);
    let mut columns = Vec::with_capacity(wanted.len());
    for (field, target) in wanted.iter().zip(target.fields()) {
        let Some((place, found)) = schema.column_with_name(&field.name) else {
            let help =
                did_you_mean(&field.name, "its columns", schema.fields().iter().map(|field| field.name().as_str()));
            return Err(FileProblem::at(0, format!("the file has no column `{}`", field.name), help));
        };
        let misfit = || {
            let message =
                format!("column `{}` is {}, which is no {}", field.name, found.data_type(), type_name(field.data_type));
            FileProblem::at(0, message, "declare a type that takes every value of it".to_owned())
        };
        // text may be anything that its values spell
        let is_text = |data_type| matches!(data_type, FieldType::Utf8 | FieldType::Uuid | FieldType::Json);
        let widens = field_type(found).is_some_and(|data_type| {
            data_type.join(field.data_type) == field.data_type || (is_text(data_type) && is_text(field.data_type))
        });
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let cast = cast_with_options(rows.column(place), target.data_type(), &strict);
        let cast = cast.ok().filter(|_| widens).ok_or_else(misfit)?;
        columns.push(match field.data_type {
            FieldType::Uuid | FieldType::Json => spelt(field, &cast)?,
            _ => cast,
        });
    }
    let rows = RecordBatch::try_new(target, columns).map_err(|error| broken(&error))?;
    Ok(JoinTable::of_file(name.to_owned(), wanted, hash, rows))
}

/// Texts as values of a type that not every text spells.
fn spelt(field: &Field, texts: &ArrayRef) -> Result<ArrayRef, FileProblem> {
    let fields = std::slice::from_ref(field);
    let mut rows = TableRows::new(fields);
    for text in texts.as_string::<i32>() {
        rows.push(std::iter::once(text)).map_err(|error| FileProblem::at(0, error.to_string(), None))?;
    }
    Ok(Arc::clone(rows.finish(schema_of(fields)).column(0)))
}
