//! One JSON object → one value in each column, in one pass over its bytes.
//!
//! Fields of a record nearly always come in the order of the record before: each name remembers which one came next,
//! so a name costs one comparison, and two where an optional field is missing. A field that paths lead into is taken whole first ([`super::nested`]).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use super::column::{Misfit, plain};
use super::infer;
use super::nested::Place;
use super::open_batch::OpenBatch;
use super::scan::{Bracket, Scanner, SyntaxError, Text};
use crate::config::{Connector, FieldType, NewField, TypeChange};
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
    /// Where a path goes on.
    NothingInside {
        field: String,
        expected: &'static str,
    },
    Missing {
        field: String,
    },
    /// It fits once the schema has grown by [`RowDecoder::row_seen`].
    Widens {
        field: String,
    },
    /// The byte of the record, from 0, and what should have stood there.
    Csv {
        at: usize,
        expected: &'static str,
    },
    Ragged {
        field_count: usize,
        column_count: usize,
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
            Self::Misfit { misfit: Misfit::WrongType { .. }, .. } | Self::NothingInside { .. } => {
                RejectReason::WrongType
            }
            Self::Misfit { misfit: Misfit::InvalidValue { .. }, .. } => RejectReason::InvalidValue,
            Self::Missing { .. } => RejectReason::MissingRequired,
            Self::Csv { .. } => RejectReason::MalformedCsv,
            Self::Ragged { .. } => RejectReason::RaggedRow,
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
            Self::NothingInside { field, expected } => {
                format!("field `{field}` is not {expected}, which paths lead into")
            }
            Self::Widens { field } => format!("the schema does not yet take field `{field}`"),
            Self::Missing { field } => format!("column `{field}` is required"),
            Self::Csv { at, expected } => format!("expected {expected} at byte {at}"),
            Self::Ragged { field_count, column_count } => format!("{field_count} fields for {column_count} columns"),
        }
    }
}

/// Reads records of one connector into one record batch after another.
pub(super) struct RowDecoder {
    pub(super) connector: Arc<Connector>,
    pub(super) batch: OpenBatch,
    names: Names,
    pub(super) unknown: UnknownFields,
    depth_max: usize,
    open: Vec<Bracket>,
    pub(super) scratch: Vec<u8>,
    /// Of the row at hand: columns and types by which the schema would have to grow.
    row_seen: Vec<(String, FieldType)>,
    fault_at: Option<usize>,
}

impl RowDecoder {
    pub(super) fn new(connector: &Arc<Connector>, depth_max: usize) -> Self {
        Self {
            connector: Arc::clone(connector),
            batch: OpenBatch::new(connector),
            names: Names::new(connector),
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
        self.names.begin();
        self.fault_at = None;
        let mut scanner = Scanner::new(record, std::mem::take(&mut self.open), self.depth_max);
        let read = self.record(&mut scanner);
        self.open = scanner.into_open();
        let added = match read {
            Ok(None) => self.batch.complete(&self.row_seen, self.unknown.kept()),
            Ok(Some(fault)) => Err(fault),
            Err(error) => {
                self.fault_at = Some(error.at());
                Err(RowFault::Syntax(error))
            }
        };
        self.batch.close_row(row, added)
    }

    /// The open batch; the next row opens another.
    pub(super) fn finish(&mut self) -> RecordBatch {
        self.batch.finish()
    }

    /// The first fault of a field; a fault of syntax anywhere behind it comes before it.
    fn record(&mut self, scanner: &mut Scanner<'_>) -> Result<Option<RowFault>, SyntaxError> {
        if scanner.peek() != b'{' {
            scanner.value()?;
            scanner.end()?;
            return Ok(Some(RowFault::NotAnObject));
        }
        let mut fault = None;
        let mut has_next = scanner.begin_object()?;
        while has_next {
            let at = scanner.at();
            let expected = self.names.take_expected(scanner);
            if fault.is_some() {
                if expected.is_none() {
                    scanner.key()?;
                }
                scanner.value()?;
            } else {
                fault = match expected {
                    Some(index) => self.value(scanner, index)?,
                    None => self.field(scanner)?,
                };
                if fault.is_some() {
                    self.fault_at = Some(scanner.skip_space(at));
                }
            }
            has_next = scanner.next_field()?;
        }
        scanner.end()?;
        Ok(fault)
    }

    fn field(&mut self, scanner: &mut Scanner<'_>) -> Result<Option<RowFault>, SyntaxError> {
        let key = scanner.key()?;
        let name = plain(key, &mut self.scratch);
        let Some(index) = self.names.find(name) else {
            return self.unknown_field(scanner, key);
        };
        self.value(scanner, index)
    }

    /// Of the name of that index.
    fn value(&mut self, scanner: &mut Scanner<'_>, index: usize) -> Result<Option<RowFault>, SyntaxError> {
        match self.names.targets.get(index) {
            // without paths
            None => self.column(scanner, index),
            Some(Target::Column(index)) => self.column(scanner, *index),
            Some(Target::Place(place)) => {
                let place = Arc::clone(place);
                let value = scanner.value()?;
                if self.names.places_seen.contains(&index) {
                    return Ok(Some(RowFault::Duplicate { field: shortened(self.names.name(index)) }));
                }
                self.names.places_seen.push(index);
                self.value_inside(&place, value)
            }
        }
    }

    /// Of the column of that index.
    fn column(&mut self, scanner: &mut Scanner<'_>, index: usize) -> Result<Option<RowFault>, SyntaxError> {
        let field = &self.connector.fields[index];
        if self.batch.has(index) {
            scanner.value()?;
            return Ok(Some(RowFault::Duplicate { field: field.name.clone() }));
        }
        let start = scanner.at();
        match self.batch.columns[index].read(scanner, &mut self.scratch)? {
            None => Ok(None),
            Some(misfit) => Ok(self.misfit(index, misfit, scanner.since(start).trim_ascii_start())),
        }
    }

    /// What the connector does with a value that does not fit its column.
    pub(super) fn misfit(&mut self, index: usize, misfit: Misfit, value: &[u8]) -> Option<RowFault> {
        let connector = &self.connector;
        let field = &connector.fields[index];
        let wider = infer::value_type(value).and_then(|seen| connector.widened(index, seen));
        if let Some(wider) = wider {
            self.row_seen.push((field.name.clone(), wider));
            self.batch.columns[index].push_null();
            return None;
        }
        let policy = if connector.is_added(index) { TypeChange::Rescue } else { connector.evolution.type_change };
        match policy {
            TypeChange::Ignore | TypeChange::Rescue if !field.required => {
                if policy == TypeChange::Rescue {
                    self.unknown.keep(field.place().as_bytes(), value);
                }
                self.batch.columns[index].push_null();
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
}

/// What the fields of a record are, by name.
struct Names {
    /// Each as records mostly spell it: `"name":`. Empty where that is not JSON.
    spelled: Vec<Vec<u8>>,
    plain: Vec<Box<[u8]>>,
    by_name: HashMap<Box<[u8]>, usize>,
    /// Behind each name the one that came next when it was last looked up; the last is that of a record's begin.
    next: Vec<usize>,
    /// Index in `next`: what the record at hand had last.
    last: usize,
    /// Empty without paths: then each name is the column of the same index.
    targets: Vec<Target>,
    /// Names that the row at hand has, among those with a place.
    places_seen: Vec<usize>,
}

/// What a name stands for.
enum Target {
    Column(usize),
    Place(Arc<Place>),
}

impl Names {
    fn new(connector: &Connector) -> Self {
        let (mut names, mut by_name, mut targets) = (Vec::new(), HashMap::new(), Vec::new());
        for (column, field) in connector.fields.iter().enumerate() {
            let name: Box<[u8]> = field.first_name().as_bytes().into();
            if by_name.contains_key(&name) {
                continue;
            }
            by_name.insert(name.clone(), names.len());
            names.push(name);
            let place = Place::of_field(connector, field.first_name());
            targets.push(place.map_or(Target::Column(column), Target::Place));
        }
        if names.len() == connector.fields.len() && targets.iter().all(|target| matches!(target, Target::Column(_))) {
            targets.clear();
        }
        let is_plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | 0..0x20);
        let spell = |name: &[u8]| if name.iter().all(is_plain) { [b"\"", name, b"\":"].concat() } else { Vec::new() };
        let spelled = names.iter().map(|name| spell(name)).collect();
        let begin = names.len();
        let next = (1..begin).chain([0, 0]).take(begin + 1).collect();
        Self { spelled, next, last: begin, plain: names, by_name, targets, places_seen: Vec::new() }
    }

    fn name(&self, index: usize) -> &[u8] {
        &self.plain[index]
    }

    /// Another record begins.
    fn begin(&mut self) {
        self.last = self.plain.len();
        self.places_seen.clear();
    }

    /// The name that comes next in most records, and the one behind it.
    fn expected(&self) -> [usize; 2] {
        let first = self.next[self.last];
        [first, self.next[first]]
    }

    /// Takes a name and its colon where they stand as they mostly do: one comparison instead of looking for the name's end,
    /// for the column and for the colon.
    fn take_expected(&mut self, scanner: &mut Scanner<'_>) -> Option<usize> {
        let index = self.expected().into_iter().find(|index| {
            let spelled = self.spelled.get(*index).map_or(&[][..], Vec::as_slice);
            !spelled.is_empty() && scanner.take(spelled)
        })?;
        self.last = index;
        Some(index)
    }

    fn find(&mut self, name: &[u8]) -> Option<usize> {
        let expected = self.expected().into_iter().find(|index| self.plain.get(*index).is_some_and(|p| **p == *name));
        let index = match expected {
            Some(index) => index,
            None => *self.by_name.get(name)?,
        };
        if expected.is_none() {
            self.next[self.last] = index;
        }
        self.last = index;
        Some(index)
    }
}

/// The fields of one record that the schema lacks.
#[derive(Default)]
pub(super) struct UnknownFields {
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
        if self.ends.is_empty() && self.json.is_empty() {
            return;
        }
        self.names.clear();
        self.ends.clear();
        self.many.clear();
        self.json.clear();
    }

    /// False where the name is there already.
    pub(super) fn insert(&mut self, name: &[u8]) -> bool {
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

    pub(super) fn keep(&mut self, raw_name: &[u8], value: &[u8]) {
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
pub(super) fn shortened(name: &[u8]) -> String {
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
