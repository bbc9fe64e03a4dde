//! One JSON object → one value in each column, in one pass over its bytes.
//!
//! Fields of a record nearly always come in the order of the record before: each place remembers its column,
//! so a name costs one comparison.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use super::column::{Column, Misfit, plain};
use super::infer;
use super::scan::{Bracket, Scanner, SyntaxError, Text};
use crate::config::{Connector, Field, FieldType, NewField, TypeChange};
use crate::types::RejectReason;

/// Why a record is no row.
#[derive(Debug)]
pub(super) enum RowFault {
    Syntax(SyntaxError),
    NotAnObject,
    Duplicate {
        field: String,
    },
    Unknown {
        field: String,
    },
    Misfit {
        field: String,
        data_type: FieldType,
        misfit: Misfit,
    },
    Missing {
        field: String,
    },
    /// It fits once the schema has grown by [`RowDecoder::row_seen`].
    Widens {
        field: String,
    },
}

impl RowFault {
    pub(super) fn reason(&self) -> RejectReason {
        match self {
            Self::Syntax(SyntaxError::Malformed { .. }) => RejectReason::MalformedJson,
            Self::Syntax(SyntaxError::TooDeep { .. }) => RejectReason::TooDeep,
            Self::NotAnObject => RejectReason::NotAnObject,
            Self::Duplicate { .. } => RejectReason::DuplicateField,
            Self::Unknown { .. } | Self::Widens { .. } => RejectReason::UnknownField,
            Self::Misfit { misfit: Misfit::WrongType { .. }, .. } => RejectReason::WrongType,
            Self::Misfit { misfit: Misfit::InvalidValue { .. }, .. } => RejectReason::InvalidValue,
            Self::Missing { .. } => RejectReason::MissingRequired,
        }
    }

    /// For a person; names fields, never values.
    pub(super) fn detail(&self) -> String {
        match self {
            Self::Syntax(SyntaxError::Malformed { at, expected }) => format!("expected {expected} at byte {at}"),
            Self::Syntax(SyntaxError::TooDeep { at }) => format!("deeper than limits.json_depth_max at byte {at}"),
            Self::NotAnObject => "a row is a JSON object".to_owned(),
            Self::Duplicate { field } => format!("field `{field}` stands twice"),
            Self::Unknown { field } => format!("the schema lacks field `{field}`"),
            Self::Misfit { field, data_type, misfit: Misfit::WrongType { found } } => {
                format!("column `{field}` is {}, not {found}", type_name(*data_type))
            }
            Self::Misfit { field, data_type, misfit: Misfit::InvalidValue { expected } } => {
                format!("column `{field}` is {}: expected {expected}", type_name(*data_type))
            }
            Self::Widens { field } => format!("the schema does not yet take field `{field}`"),
            Self::Missing { field } => format!("column `{field}` is required"),
        }
    }
}

/// Reads records of one connector into one record batch after another.
pub(super) struct RowDecoder<'c> {
    connector: &'c Connector,
    schema: SchemaRef,
    columns: Vec<Column>,
    rescued: Option<Column>,
    /// Numbers of the rows in the open batch.
    rows: Vec<i64>,
    names: Names<'c>,
    unknown: UnknownFields,
    depth_max: usize,
    open: Vec<Bracket>,
    scratch: Vec<u8>,
    /// Of the row at hand: columns and types by which the schema would have to grow.
    row_seen: Vec<(String, FieldType)>,
    fault_at: Option<usize>,
}

impl<'c> RowDecoder<'c> {
    pub(super) fn new(connector: &'c Connector, depth_max: usize) -> Self {
        Self {
            connector,
            schema: connector.decoded_schema(),
            columns: columns(connector),
            rescued: connector.rescues().then(Column::json),
            rows: Vec::new(),
            names: Names::new(&connector.fields),
            unknown: UnknownFields::default(),
            depth_max,
            open: Vec::new(),
            scratch: Vec::new(),
            row_seen: Vec::new(),
            fault_at: None,
        }
    }

    /// Of the last row, where it faulted: the byte at which its field or the flaw of its syntax begins.
    pub(super) fn fault_at(&self) -> Option<usize> {
        self.fault_at
    }

    /// Of the last row, where it faulted by [`RowFault::Widens`]: the types that its columns would need.
    pub(super) fn row_seen(&self) -> &[(String, FieldType)] {
        &self.row_seen
    }

    /// Adds a row to the open batch, or nothing at all.
    pub(super) fn row(&mut self, row: i64, record: &[u8]) -> Result<(), RowFault> {
        self.unknown.clear();
        self.row_seen.clear();
        self.fault_at = None;
        let mut scanner = Scanner::new(record, std::mem::take(&mut self.open), self.depth_max);
        let read = self.record(&mut scanner);
        self.open = scanner.into_open();
        let added = match read {
            Ok(None) => self.complete(),
            Ok(Some(fault)) => Err(fault),
            Err(error) => {
                self.fault_at = Some(error.at());
                Err(RowFault::Syntax(error))
            }
        };
        if added.is_ok() {
            self.rows.push(row);
        } else {
            let rows = self.rows.len();
            self.columns.iter_mut().chain(&mut self.rescued).for_each(|column| column.truncate(rows));
        }
        added
    }

    /// The open batch; the next row opens another.
    pub(super) fn finish(&mut self) -> RecordBatch {
        let rows = std::mem::take(&mut self.rows);
        let mut arrays: Vec<ArrayRef> = self.columns.iter_mut().chain(&mut self.rescued).map(Column::finish).collect();
        arrays.push(Arc::new(Int64Array::from(rows)));
        RecordBatch::try_new(Arc::clone(&self.schema), arrays)
            .expect("every column took one value a row, and required ones no null")
    }

    /// The first fault of a field; a fault of syntax anywhere behind it comes before it.
    fn record(&mut self, scanner: &mut Scanner<'_>) -> Result<Option<RowFault>, SyntaxError> {
        if scanner.peek() != b'{' {
            scanner.value()?;
            scanner.end()?;
            return Ok(Some(RowFault::NotAnObject));
        }
        let mut fault = None;
        let mut place = 0;
        let mut has_next = scanner.begin_object()?;
        while has_next {
            scanner.peek();
            let at = scanner.at();
            let key = scanner.key()?;
            if fault.is_none() {
                fault = self.field(scanner, place, key)?;
                if fault.is_some() {
                    self.fault_at = Some(at);
                }
            } else {
                scanner.value()?;
            }
            place += 1;
            has_next = scanner.next_field()?;
        }
        scanner.end()?;
        Ok(fault)
    }

    fn field(
        &mut self,
        scanner: &mut Scanner<'_>,
        place: usize,
        key: Text<'_>,
    ) -> Result<Option<RowFault>, SyntaxError> {
        let name = plain(key, &mut self.scratch);
        let Some(index) = self.names.find(place, name) else {
            return self.unknown_field(scanner, key);
        };
        let field = &self.connector.fields[index];
        let column = &mut self.columns[index];
        if column.len() > self.rows.len() {
            scanner.value()?;
            return Ok(Some(RowFault::Duplicate { field: field.name.clone() }));
        }
        scanner.peek();
        let start = scanner.at();
        match column.read(scanner, &mut self.scratch)? {
            None => Ok(None),
            Some(misfit) => Ok(self.misfit(index, misfit, key, scanner.since(start))),
        }
    }

    /// What the connector does with a value that does not fit its column.
    fn misfit(&mut self, index: usize, misfit: Misfit, key: Text<'_>, value: &[u8]) -> Option<RowFault> {
        let connector = self.connector;
        let field = &connector.fields[index];
        let wider = infer::value_type(value).and_then(|seen| connector.widened(index, seen));
        if let Some(wider) = wider {
            self.row_seen.push((field.name.clone(), wider));
            self.columns[index].push_null();
            return None;
        }
        let policy = if connector.is_added(index) { TypeChange::Rescue } else { connector.evolution.type_change };
        match policy {
            TypeChange::Ignore | TypeChange::Rescue if !field.required => {
                if policy == TypeChange::Rescue {
                    self.unknown.keep(key.raw, value);
                }
                self.columns[index].push_null();
                None
            }
            _ => Some(RowFault::Misfit { field: field.name.clone(), data_type: field.data_type, misfit }),
        }
    }

    fn unknown_field(&mut self, scanner: &mut Scanner<'_>, key: Text<'_>) -> Result<Option<RowFault>, SyntaxError> {
        let value = scanner.value()?;
        let name = plain(key, &mut self.scratch);
        if !self.unknown.insert(name) {
            return Ok(Some(RowFault::Duplicate { field: shortened(name) }));
        }
        match self.connector.evolution.new_field {
            NewField::Ignore => Ok(None),
            NewField::Reject => Ok(Some(RowFault::Unknown { field: shortened(name) })),
            NewField::Evolve if self.connector.can_add(&String::from_utf8_lossy(name)) => {
                // null has no type: nothing to add a column for
                if let Some(seen) = infer::value_type(value) {
                    self.row_seen.push((String::from_utf8_lossy(name).into_owned(), seen));
                } else if value != b"null" {
                    self.unknown.keep(key.raw, value);
                }
                Ok(None)
            }
            NewField::Rescue | NewField::Evolve => {
                self.unknown.keep(key.raw, value);
                Ok(None)
            }
        }
    }

    /// Nulls where the record had no field.
    fn complete(&mut self) -> Result<(), RowFault> {
        let rows = self.rows.len();
        for (field, column) in self.connector.fields.iter().zip(&mut self.columns) {
            if column.len() == rows {
                column.push_null();
            }
            let widens = || self.row_seen.iter().any(|(name, _)| *name == field.name);
            if field.required && column.last_is_null() && !widens() {
                return Err(RowFault::Missing { field: field.name.clone() });
            }
        }
        if let Some((field, _)) = self.row_seen.first() {
            return Err(RowFault::Widens { field: shortened(field.as_bytes()) });
        }
        if let Some(column) = &mut self.rescued {
            match self.unknown.kept() {
                Some(json) => column.push_json(json),
                None => column.push_null(),
            }
        }
        Ok(())
    }
}

fn columns(connector: &Connector) -> Vec<Column> {
    let widens = |index| connector.is_added(index) || connector.evolution.type_change == TypeChange::Evolve;
    let takes_text = |index: usize, field: &Field| {
        // a declared JSON column takes everything; only one that data added may have to become text
        widens(index) && (field.data_type != FieldType::Json || connector.is_added(index))
    };
    connector.fields.iter().enumerate().map(|(index, field)| Column::new(field, takes_text(index, field))).collect()
}

/// Columns by name.
struct Names<'c> {
    fields: &'c [Field],
    by_name: HashMap<&'c [u8], usize>,
    /// The column that the field at each place of the last record belonged to.
    by_place: Vec<usize>,
}

impl<'c> Names<'c> {
    fn new(fields: &'c [Field]) -> Self {
        let by_name = fields.iter().enumerate().map(|(index, field)| (field.name.as_bytes(), index)).collect();
        Self { fields, by_name, by_place: (0..fields.len()).collect() }
    }

    fn find(&mut self, place: usize, name: &[u8]) -> Option<usize> {
        let expected = self.by_place.get(place).copied();
        if expected.is_some_and(|index| self.fields[index].name.as_bytes() == name) {
            return expected;
        }
        let index = *self.by_name.get(name)?;
        if let Some(last) = self.by_place.get_mut(place) {
            *last = index;
        }
        Some(index)
    }
}

/// The fields of one record that the schema lacks.
#[derive(Default)]
struct UnknownFields {
    /// Their names, one behind the other.
    names: Vec<u8>,
    ends: Vec<usize>,
    /// The names again, once they are too many to be compared one by one.
    many: HashSet<Box<[u8]>>,
    /// `{"name":value,"name":value`, still open; empty where there are none.
    json: Vec<u8>,
}

impl UnknownFields {
    const FEW: usize = 16;

    fn clear(&mut self) {
        if self.ends.is_empty() {
            return;
        }
        self.names.clear();
        self.ends.clear();
        self.many.clear();
        self.json.clear();
    }

    /// False where the name is there already.
    fn insert(&mut self, name: &[u8]) -> bool {
        if self.ends.len() < Self::FEW {
            if self.iter().any(|earlier| earlier == name) {
                return false;
            }
            self.names.extend_from_slice(name);
            self.ends.push(self.names.len());
            return true;
        }
        if self.many.is_empty() {
            self.many = self.iter().map(Box::from).collect();
        }
        self.many.insert(Box::from(name))
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(start, end)| &self.names[*start..*end])
    }

    fn keep(&mut self, raw_name: &[u8], value: &[u8]) {
        self.json.extend_from_slice(if self.json.is_empty() { b"{\"" } else { b",\"" });
        self.json.extend_from_slice(raw_name);
        self.json.extend_from_slice(b"\":");
        self.json.extend_from_slice(value);
    }

    fn kept(&mut self) -> Option<&[u8]> {
        if self.json.is_empty() {
            return None;
        }
        self.json.push(b'}');
        Some(&self.json)
    }
}

/// A name that comes from the data: cut, and without control characters.
fn shortened(name: &[u8]) -> String {
    const CHARACTERS_MAX: usize = 64;
    let name = String::from_utf8_lossy(name);
    let mut characters = name.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c });
    let mut short: String = characters.by_ref().take(CHARACTERS_MAX).collect();
    if characters.next().is_some() {
        short.push('…');
    }
    short
}

fn type_name(data_type: FieldType) -> String {
    match data_type {
        FieldType::Utf8 => "utf8".to_owned(),
        FieldType::Int32 => "int32".to_owned(),
        FieldType::Int64 => "int64".to_owned(),
        FieldType::Float64 => "float64".to_owned(),
        FieldType::Boolean => "boolean".to_owned(),
        FieldType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        FieldType::TimestampMs => "timestamp_ms".to_owned(),
        FieldType::Uuid => "uuid".to_owned(),
        FieldType::Json => "json".to_owned(),
    }
}
