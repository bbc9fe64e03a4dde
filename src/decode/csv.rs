//! One CSV record → one value in each column.
//!
//! # Contract
//! With a header, fields belong to the columns that it names, in whatever order; a name that the schema lacks follows
//! `evolution.new_field` (`evolve` adds a utf8 column), a column that it lacks is null in every row, and a name that
//! stands twice is a fault of the object. Without, fields stand in the schema's order. A row has as many fields as there are columns.
//!
//! A field that is one of the dialect's null spellings is null; in utf8 columns only where it stands without quotes, so
//! that `""` is an empty text there. Nothing is trimmed.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;

use super::csv_records::{FieldSpan, Marks, fields};
use super::json::{RowFault, shortened};
use super::open_batch::OpenBatch;
use crate::config::{Connector, CsvDialect, FieldType, NewField, TypeChange};

pub(super) struct CsvRows {
    connector: Arc<Connector>,
    dialect: CsvDialect,
    marks: Marks,
    json_depth_max: usize,
    batch: OpenBatch,
    /// Of each field of a row; `None`: the header has not been seen.
    places: Option<Vec<Place>>,
    header_line: Bytes,
    spans: Vec<FieldSpan>,
    scratch: Vec<u8>,
    /// `{"name":"value"`, still open.
    unknown: Vec<u8>,
    /// Of the row at hand: columns by which the schema would have to grow.
    row_seen: Vec<(String, FieldType)>,
}

/// Where a field goes.
enum Place {
    Column(usize),
    /// The schema lacks it.
    Unknown(String),
}

impl CsvRows {
    pub(super) fn new(connector: &Arc<Connector>, dialect: &CsvDialect, json_depth_max: usize) -> Self {
        let in_order = || (0..connector.fields.len()).map(Place::Column).collect();
        Self {
            connector: Arc::clone(connector),
            dialect: dialect.clone(),
            marks: Marks { delimiter: dialect.delimiter, quote: dialect.quote },
            json_depth_max,
            batch: OpenBatch::new(connector),
            places: (!dialect.has_header).then(in_order),
            header_line: Bytes::new(),
            spans: Vec::new(),
            scratch: Vec::new(),
            unknown: Vec::new(),
            row_seen: Vec::new(),
        }
    }

    /// Goes on in the same object by what its connector grew to.
    pub(super) fn grown(&self, connector: &Arc<Connector>) -> Self {
        let mut grown = Self::new(connector, &self.dialect, self.json_depth_max);
        if !self.header_line.is_empty() {
            grown.header(&self.header_line).expect("the same header was read before");
        }
        grown
    }

    /// Of the last row, where it faulted by [`RowFault::Widens`]: the columns that it would need.
    pub(super) fn row_seen(&self) -> &[(String, FieldType)] {
        &self.row_seen
    }

    pub(super) fn wants_header(&self) -> bool {
        self.places.is_none()
    }

    pub(super) fn header_line(&self) -> Bytes {
        self.header_line.clone()
    }

    /// What is wrong where the record cannot name columns.
    pub(super) fn header(&mut self, record: &[u8]) -> Result<(), String> {
        let trimmed = record.trim_ascii_end();
        if let Err(error) = simdutf8::compat::from_utf8(record) {
            return Err(format!("no UTF-8 at byte {}", error.valid_up_to()));
        }
        let fault = |at, expected| format!("expected {expected} at byte {at}");
        let end = fields(record, self.marks, &mut self.spans).map_err(|f| fault(f.at, f.expected))?;
        if end < trimmed.len() {
            return Err(fault(end, "the end of the header"));
        }
        let mut names = std::collections::HashSet::new();
        let mut places = Vec::with_capacity(self.spans.len());
        for span in &self.spans {
            let name = String::from_utf8_lossy(text(record, span, self.marks, &mut self.scratch)).into_owned();
            if !names.insert(name.clone()) {
                return Err(format!("column `{}` stands twice", shortened(name.as_bytes())));
            }
            let column = self.connector.fields.iter().position(|field| field.header_name() == name);
            places.push(column.map_or(Place::Unknown(name), Place::Column));
        }
        self.places = Some(places);
        self.header_line = Bytes::from([record.strip_suffix(b"\n").unwrap_or(record), b"\n"].concat());
        Ok(())
    }

    /// Adds a row to the open batch, or nothing at all.
    pub(super) fn row(&mut self, row: i64, record: &[u8]) -> Result<(), RowFault> {
        let read = self.read(record);
        self.batch.close_row(row, read)
    }

    /// The open batch; the next row opens another.
    pub(super) fn finish(&mut self) -> RecordBatch {
        self.batch.finish()
    }

    fn read(&mut self, record: &[u8]) -> Result<(), RowFault> {
        let end = fields(record, self.marks, &mut self.spans)
            .map_err(|fault| RowFault::Csv { at: fault.at, expected: fault.expected })?;
        if !record[end..].trim_ascii().is_empty() || record.is_empty() {
            return Err(RowFault::Csv { at: end, expected: "one row" });
        }
        let places = self.places.as_deref().unwrap_or_default();
        if self.spans.len() != places.len() {
            return Err(RowFault::Ragged { field_count: self.spans.len(), column_count: places.len() });
        }
        self.unknown.clear();
        self.row_seen.clear();
        for (span, place) in self.spans.iter().zip(places) {
            let text = text(record, span, self.marks, &mut self.scratch);
            let is_null = self.dialect.nulls.iter().any(|null| null.as_bytes() == text);
            match place {
                Place::Column(index) => {
                    let (field, column) = (&self.connector.fields[*index], &mut self.batch.columns[*index]);
                    if is_null && !(span.is_quoted && field.data_type == FieldType::Utf8) {
                        column.push_null();
                        continue;
                    }
                    let Err(misfit) = column.push_field(field.data_type, text, self.json_depth_max) else { continue };
                    match self.connector.evolution.type_change {
                        TypeChange::Ignore if !field.required => column.push_null(),
                        TypeChange::Rescue if !field.required => {
                            keep(&mut self.unknown, field.header_name(), Some(&String::from_utf8_lossy(text)));
                            column.push_null();
                        }
                        _ => {
                            let (field, data_type) = (field.name.clone(), field.data_type);
                            return Err(RowFault::Misfit { field, data_type, misfit });
                        }
                    }
                }
                Place::Unknown(name) => match self.connector.evolution.new_field {
                    NewField::Ignore => {}
                    NewField::Reject => return Err(RowFault::Unknown { field: shortened(name.as_bytes()) }),
                    // text, whatever it holds: of what became a number the spelling could not be had back
                    NewField::Evolve if self.connector.can_add(name) => {
                        if !is_null || span.is_quoted {
                            self.row_seen.push((name.clone(), FieldType::Utf8));
                        }
                    }
                    NewField::Rescue | NewField::Evolve => {
                        let text = (!is_null || span.is_quoted).then(|| String::from_utf8_lossy(text));
                        keep(&mut self.unknown, name, text.as_deref());
                    }
                },
            }
        }
        if !self.unknown.is_empty() {
            self.unknown.push(b'}');
        }
        self.batch.complete(&self.row_seen, Some(self.unknown.as_slice()).filter(|json| !json.is_empty()))
    }
}

/// What a field means, in place where nothing in it is doubled.
pub(super) fn text<'a>(record: &'a [u8], span: &FieldSpan, marks: Marks, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let raw = &record[span.range.clone()];
    let Some(quote) = marks.quote.filter(|_| span.has_doubled_quotes) else { return raw };
    scratch.clear();
    let mut at = 0;
    while let Some(found) = memchr::memchr(quote, &raw[at..]) {
        scratch.extend_from_slice(&raw[at..=at + found]);
        at += found + 2;
    }
    scratch.extend_from_slice(raw.get(at..).unwrap_or_default());
    scratch
}

fn keep(json: &mut Vec<u8>, name: &str, value: Option<&str>) {
    json.push(if json.is_empty() { b'{' } else { b',' });
    json.extend_from_slice(serde_json::Value::from(name).to_string().as_bytes());
    json.push(b':');
    json.extend_from_slice(serde_json::Value::from(value).to_string().as_bytes());
}
