//! One JSON object into the columns of its connector.
//!
//! A row is parsed into a scratch of one value a column first and appended only when it is whole
//! and good, so a row that fails leaves no trace in the builders.

use std::borrow::Cow;
use std::fmt;

use arrow::array::{
    ArrayRef, BooleanBuilder, Decimal128Builder, Float64Builder, Int32Builder, Int64Builder, StringBuilder,
    TimestampMillisecondBuilder,
};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Reject;
use super::value::{Value, read};
use crate::config::{Connector, Field, FieldType, NewField, UTC};
use crate::types::RejectReason;

/// Decodes rows of one connector, batch after batch.
pub(super) struct RowDecoder<'a> {
    connector: &'a Connector,
    schema: SchemaRef,
    builders: Vec<Builder>,
    rescued: Option<StringBuilder>,
    rows: Int64Builder,
    scratch: Scratch,
}

/// What is known of the row being read.
#[derive(Default)]
struct Scratch {
    values: Vec<Option<Value>>,
    seen: Vec<bool>,
    rescued: serde_json::Map<String, serde_json::Value>,
    /// Position of the column expected next: producers repeat the order of their fields.
    next: usize,
}

enum Builder {
    Utf8(StringBuilder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float64(Float64Builder),
    Boolean(BooleanBuilder),
    Decimal(Decimal128Builder),
    Timestamp(TimestampMillisecondBuilder),
}

impl<'a> RowDecoder<'a> {
    pub(super) fn new(connector: &'a Connector) -> Self {
        Self {
            connector,
            schema: connector.decoded_schema(),
            builders: connector.fields.iter().map(|field| Builder::new(field.data_type)).collect(),
            rescued: connector.rescues().then(StringBuilder::new),
            rows: Int64Builder::new(),
            scratch: Scratch::default(),
        }
    }

    /// Appends the row, or says why not.
    pub(super) fn decode(&mut self, text: &str, row: i64) -> Result<(), Reject> {
        self.scratch.reset(self.connector.fields.len());
        let mut fault = None;
        let seed = RowSeed { connector: self.connector, scratch: &mut self.scratch, fault: &mut fault };
        let mut parser = serde_json::Deserializer::from_str(text);
        let parsed = seed.deserialize(&mut parser).and_then(|()| parser.end());
        if let Err(error) = parsed {
            return Err(malformed(text, &error));
        }
        if let Some(reject) = fault {
            return Err(reject);
        }
        let fields = self.connector.fields.iter().zip(&self.scratch.values);
        if let Some((missing, _)) = fields.into_iter().find(|(field, value)| field.required && value.is_none()) {
            let detail = format!("`{}` is required and missing or null", missing.name);
            return Err(Reject::new(RejectReason::MissingRequired, detail));
        }
        self.append(row);
        Ok(())
    }

    fn append(&mut self, row: i64) {
        for (builder, value) in self.builders.iter_mut().zip(self.scratch.values.drain(..)) {
            builder.append(value);
        }
        if let Some(rescued) = &mut self.rescued {
            let text = (!self.scratch.rescued.is_empty())
                .then(|| serde_json::Value::Object(std::mem::take(&mut self.scratch.rescued)).to_string());
            rescued.append_option(text);
        }
        self.rows.append_value(row);
    }

    /// The rows appended since the last call.
    pub(super) fn finish_batch(&mut self) -> RecordBatch {
        let mut columns: Vec<ArrayRef> = self.builders.iter_mut().map(Builder::finish).collect();
        if let Some(rescued) = &mut self.rescued {
            columns.push(std::sync::Arc::new(rescued.finish()));
        }
        columns.push(std::sync::Arc::new(self.rows.finish()));
        RecordBatch::try_new(std::sync::Arc::clone(&self.schema), columns)
            .expect("builders are made from the schema's own fields, and each row appends to every one")
    }
}

fn malformed(text: &str, error: &serde_json::Error) -> Reject {
    if error.is_data() && !text.trim_start().starts_with('{') {
        return Reject::new(RejectReason::NotAnObject, "the line is JSON, but not an object");
    }
    let what = error.to_string();
    let what = what.split(" at line ").next().unwrap_or_default().to_owned();
    Reject::new(RejectReason::MalformedJson, format!("{what} at byte {}", error.column()))
}

impl Scratch {
    fn reset(&mut self, columns: usize) {
        self.values.clear();
        self.values.resize_with(columns, || None);
        self.seen.clear();
        self.seen.resize(columns, false);
        self.rescued.clear();
        self.next = 0;
    }

    fn column(&mut self, connector: &Connector, name: &str) -> Option<usize> {
        let found = match connector.fields.get(self.next) {
            Some(field) if field.name == name => Some(self.next),
            _ => connector.fields.iter().position(|field| field.name == name),
        };
        if let Some(index) = found {
            self.next = index + 1;
        }
        found
    }
}

/// Reads one object. Faults of values do not end the parse: whether the line is JSON at all is
/// decided first, so that the reason does not depend on the order of the fields.
struct RowSeed<'a, 'b> {
    connector: &'a Connector,
    scratch: &'b mut Scratch,
    fault: &'b mut Option<Reject>,
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // not `deserialize_map`: any other JSON value must be read to its end as well
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(Name)? {
            match self.scratch.column(self.connector, &name) {
                Some(index) if self.scratch.seen[index] => {
                    map.next_value::<IgnoredAny>()?;
                    fault(self.fault, RejectReason::DuplicateField, || format!("`{name}` stands twice"));
                }
                Some(index) => {
                    self.scratch.seen[index] = true;
                    let raw: &RawValue = map.next_value()?;
                    match read(&self.connector.fields[index], raw.get()) {
                        Ok(value) => self.scratch.values[index] = value,
                        Err(reject) => {
                            self.fault.get_or_insert(reject);
                        }
                    }
                }
                None => self.unknown(&name, &mut map)?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        not_an_object(self.fault)
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        not_an_object(self.fault)
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        not_an_object(self.fault)
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        not_an_object(self.fault)
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        not_an_object(self.fault)
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        not_an_object(self.fault)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        not_an_object(self.fault)
    }
}

impl RowSeed<'_, '_> {
    fn unknown<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match self.connector.evolution.new_field {
            NewField::Ignore => {
                map.next_value::<IgnoredAny>()?;
            }
            NewField::Reject => {
                map.next_value::<IgnoredAny>()?;
                fault(self.fault, RejectReason::UnknownField, || {
                    format!("`{name}` is not in the schema, and evolution.new_field is reject")
                });
            }
            NewField::Rescue => {
                let value = map.next_value::<serde_json::Value>()?;
                if self.scratch.rescued.insert(name.to_owned(), value).is_some() {
                    fault(self.fault, RejectReason::DuplicateField, || format!("`{name}` stands twice"));
                }
            }
        }
        Ok(())
    }
}

fn not_an_object<E>(slot: &mut Option<Reject>) -> Result<(), E> {
    fault(slot, RejectReason::NotAnObject, || "the line is JSON, but not an object".into());
    Ok(())
}

fn fault(slot: &mut Option<Reject>, reason: RejectReason, detail: impl FnOnce() -> String) {
    slot.get_or_insert_with(|| Reject::new(reason, detail()));
}

/// A field's name: borrowed unless it has escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a field name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

impl Builder {
    fn new(data_type: FieldType) -> Self {
        match data_type {
            FieldType::Utf8 | FieldType::Uuid | FieldType::Json => Self::Utf8(StringBuilder::new()),
            FieldType::Int32 => Self::Int32(Int32Builder::new()),
            FieldType::Int64 => Self::Int64(Int64Builder::new()),
            FieldType::Float64 => Self::Float64(Float64Builder::new()),
            FieldType::Boolean => Self::Boolean(BooleanBuilder::new()),
            FieldType::Decimal { .. } => {
                Self::Decimal(Decimal128Builder::new().with_data_type(crate::config::arrow_type(data_type)))
            }
            FieldType::TimestampMs => Self::Timestamp(TimestampMillisecondBuilder::new().with_timezone(UTC)),
        }
    }

    /// A value of another kind than the column's cannot come: both follow from the field's type.
    fn append(&mut self, value: Option<Value>) {
        match (self, value) {
            (Self::Utf8(builder), Some(Value::Text(text))) => builder.append_value(text),
            (Self::Int32(builder), Some(Value::Int32(number))) => builder.append_value(number),
            (Self::Int64(builder), Some(Value::Int64(number))) => builder.append_value(number),
            (Self::Float64(builder), Some(Value::Float64(number))) => builder.append_value(number),
            (Self::Boolean(builder), Some(Value::Boolean(truth))) => builder.append_value(truth),
            (Self::Decimal(builder), Some(Value::Decimal(unscaled))) => builder.append_value(unscaled),
            (Self::Timestamp(builder), Some(Value::TimestampMs(time))) => builder.append_value(time),
            (builder, value) => {
                debug_assert!(value.is_none(), "a value's kind follows from its column's type");
                builder.append_null();
            }
        }
    }

    fn append_null(&mut self) {
        match self {
            Self::Utf8(builder) => builder.append_null(),
            Self::Int32(builder) => builder.append_null(),
            Self::Int64(builder) => builder.append_null(),
            Self::Float64(builder) => builder.append_null(),
            Self::Boolean(builder) => builder.append_null(),
            Self::Decimal(builder) => builder.append_null(),
            Self::Timestamp(builder) => builder.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        use std::sync::Arc;
        match self {
            Self::Utf8(builder) => Arc::new(builder.finish()),
            Self::Int32(builder) => Arc::new(builder.finish()),
            Self::Int64(builder) => Arc::new(builder.finish()),
            Self::Float64(builder) => Arc::new(builder.finish()),
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder) => Arc::new(builder.finish()),
        }
    }
}

/// For messages: what a field holds.
pub(super) fn type_name(field: &Field) -> &'static str {
    match field.data_type {
        FieldType::Utf8 => "a string",
        FieldType::Int32 | FieldType::Int64 => "an integer",
        FieldType::Float64 => "a number",
        FieldType::Boolean => "true or false",
        FieldType::Decimal { .. } => "a decimal number",
        FieldType::TimestampMs => "a timestamp",
        FieldType::Uuid => "a UUID",
        FieldType::Json => "any JSON value",
    }
}
