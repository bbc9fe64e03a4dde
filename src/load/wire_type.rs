//! What values become on their way into columns of the warehouse, and which columns can hold them.

use super::warehouse_table::TableColumn;
use crate::config::FieldType;

/// What a value becomes on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WireType {
    Text,
    /// Text in a unique key: of limited length.
    KeyText,
    Uuid,
    Int4,
    Int8,
    Float8,
    Bool,
    Numeric,
    Timestamptz,
    Jsonb,
    /// JSON into a text column.
    JsonText,
}

impl WireType {
    /// The type of the temporary table's column; COPY reads its binary form.
    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::Text | Self::KeyText | Self::JsonText => "text",
            Self::Uuid => "uuid",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Float8 => "float8",
            Self::Bool => "bool",
            Self::Numeric => "numeric",
            Self::Timestamptz => "timestamptz",
            Self::Jsonb => "jsonb",
        }
    }
}

/// `None` where the column cannot hold every value of the field.
pub(super) fn wire_type(field: FieldType, column: &TableColumn, in_key: bool) -> Option<WireType> {
    let text = if in_key { WireType::KeyText } else { WireType::Text };
    match (field, column.type_name.as_str()) {
        (FieldType::Utf8 | FieldType::Uuid, "text") => Some(text),
        (FieldType::Utf8 | FieldType::Uuid, "varchar") if column.text_length_max.is_none() => Some(text),
        (FieldType::Uuid, "uuid") => Some(WireType::Uuid),
        (FieldType::Int32, "int4") => Some(WireType::Int4),
        (FieldType::Int32 | FieldType::Int64, "int8") => Some(WireType::Int8),
        (FieldType::Float64, "float8") => Some(WireType::Float8),
        (FieldType::Boolean, "bool") => Some(WireType::Bool),
        (FieldType::Decimal { precision, scale }, "numeric") => {
            let fits = match (column.numeric_precision, column.numeric_scale) {
                (Some(wide), Some(deep)) => {
                    deep >= i32::from(scale) && wide - deep >= i32::from(precision) - i32::from(scale)
                }
                _ => true,
            };
            fits.then_some(WireType::Numeric)
        }
        (FieldType::TimestampMs, "timestamptz") => Some(WireType::Timestamptz),
        (FieldType::Json, "jsonb") => Some(WireType::Jsonb),
        (FieldType::Json, "text") => Some(WireType::JsonText),
        _ => None,
    }
}

pub(super) fn needed_type(field: FieldType) -> String {
    match field {
        FieldType::Utf8 => "utf8 (text)".to_owned(),
        FieldType::Uuid => "uuid (uuid or text)".to_owned(),
        FieldType::Int32 => "int32 (int4 or int8)".to_owned(),
        FieldType::Int64 => "int64 (int8)".to_owned(),
        FieldType::Float64 => "float64 (float8)".to_owned(),
        FieldType::Boolean => "boolean (bool)".to_owned(),
        FieldType::Decimal { precision, scale } => format!("decimal({precision},{scale}) (numeric as wide)"),
        FieldType::TimestampMs => "timestamp_ms (timestamptz)".to_owned(),
        FieldType::Json => "json (jsonb or text)".to_owned(),
    }
}

pub(super) fn shown(column: &TableColumn) -> String {
    match (column.numeric_precision, column.numeric_scale, column.text_length_max) {
        (Some(precision), Some(scale), _) if column.type_name == "numeric" => format!("numeric({precision},{scale})"),
        (_, _, Some(length)) => format!("{}({length})", column.type_name),
        _ => column.type_name.clone(),
    }
}
