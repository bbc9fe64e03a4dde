//! A connector after its data changed: columns added behind its own, columns widened.
//!
//! # Contract
//! The columns that were added come behind the declared ones, ordered by name, and each has the join of the
//! types seen: whatever the order in which objects come, the same fields make the same schema. Nothing is ever
//! narrowed or taken away. An evolved connector differs in `fields` and `schema_revision` alone.
//!
//! Added columns are never required, and always widen. Declared columns widen under `type_change: evolve`, except
//! those that something else relies on: `staging.time`, `staging.by` and `staging.sort_by`, clean steps but for `trim`,
//! `lowercase`, `uppercase` and `default`, the warehouse's table (of such a connector all of them); those that an expectation names stay numbers. Where a
//! text could not be had back (float64, timestamp_ms and uuid to utf8), they stay as they are as well.

use serde_json::{Value, json};

use super::check_columns::{parse_type, type_name};
use super::check_connector::is_name;
use super::type_lattice::SeenTypes;
use super::{
    Check, Connector, Expectation, Field, FieldType, NewField, PartitionBy, TimestampFormat, TypeChange, revision,
};

/// Columns that data may add to a connector.
pub const ADDED_COLUMNS_MAX: usize = 512;
/// Longest name of a column that data adds. Source: PostgreSQL, NAMEDATALEN - 1.
const NAME_BYTES_MAX: usize = 63;

impl FieldType {
    /// As a connector spells it.
    pub fn name(self) -> String {
        type_name(self)
    }
}

impl Connector {
    /// Whether a connector can have this name.
    pub fn is_name(name: &str) -> bool {
        is_name(name, &['-'])
    }

    /// Whether a column can.
    pub fn is_column_name(name: &str) -> bool {
        name.len() <= NAME_BYTES_MAX && is_name(name, &['_'])
    }

    /// Whether its data may change its schema.
    pub fn evolves(&self) -> bool {
        self.evolution.new_field == NewField::Evolve || self.evolution.type_change == TypeChange::Evolve
    }

    /// Whether the data added this column.
    pub fn is_added(&self, index: usize) -> bool {
        index + self.evolution.added_count >= self.fields.len()
    }

    /// Whether a field of this name, which the schema lacks, can become a column.
    pub fn can_add(&self, name: &str) -> bool {
        self.evolution.new_field == NewField::Evolve
            && self.evolution.added_count < ADDED_COLUMNS_MAX
            && Self::is_column_name(name)
            // a column of that name may have its value elsewhere
            && self.field(name).is_none()
    }

    /// The type to which a column is widened by a value that does not fit it; `None` where it stays as it is.
    pub fn widened(&self, index: usize, seen: FieldType) -> Option<FieldType> {
        let field = &self.fields[index];
        let wider = Some(field.data_type.join(seen)).filter(|wider| *wider != field.data_type)?;
        if self.is_added(index) {
            return Some(wider);
        }
        let stays = self.evolution.type_change != TypeChange::Evolve || self.relies_on(&field.name);
        let lossy = matches!(field.data_type, FieldType::Float64 | FieldType::TimestampMs | FieldType::Uuid);
        let asks =
            |expectation: &Expectation| matches!(&expectation.check, Check::Row(expr) if names(expr, &field.name));
        let stays_number = self.expectations.iter().any(asks);
        (!stays && !(wider == FieldType::Utf8 && (lossy || stays_number))).then_some(wider)
    }

    fn relies_on(&self, name: &str) -> bool {
        self.warehouse.is_some()
            || self.staging.time == name
            || self.staging.by.contains(&PartitionBy::Column(name.to_owned()))
            || self.staging.sort_by.iter().any(|column| column == name)
            || self.clean.iter().any(|step| step.is_typed() && step.columns().any(|column| column == name))
    }

    /// This connector with what was seen besides; `seen` of its own columns widens them.
    #[must_use]
    pub fn evolved(&self, seen: &SeenTypes) -> Self {
        let declared_count = self.fields.len() - self.evolution.added_count;
        let mut evolved = self.clone();
        for field in &mut evolved.fields {
            if let Some(data_type) = seen.get(&field.name) {
                field.data_type = field.data_type.join(*data_type);
            }
        }
        let room = ADDED_COLUMNS_MAX - self.evolution.added_count.min(ADDED_COLUMNS_MAX);
        let new = seen.iter().filter(|(name, _)| self.field(name).is_none()).take(room);
        evolved.fields.extend(new.map(|(name, data_type)| Field {
            name: name.clone(),
            data_type: *data_type,
            required: false,
            formats: Vec::new(),
            header: None,
            path: None,
        }));
        for field in &mut evolved.fields[declared_count..] {
            // only Parquet knows of an instant that it is one
            let is_instant = field.data_type == FieldType::TimestampMs;
            field.formats = if is_instant { vec![TimestampFormat::Rfc3339] } else { Vec::new() };
        }
        evolved.fields[declared_count..].sort_by(|one, other| one.name.cmp(&other.name));
        evolved.evolution.added_count = evolved.fields.len() - declared_count;
        evolved.schema_revision = revision::of_schema(&evolved);
        evolved
    }

    /// Names and types of the columns in which this connector and the one it evolved from differ.
    pub fn seen_since(&self, declared: &Self) -> SeenTypes {
        let differs =
            |field: &&Field| declared.field(&field.name).is_none_or(|known| known.data_type != field.data_type);
        self.fields.iter().filter(differs).map(|field| (field.name.clone(), field.data_type)).collect()
    }

    /// What both became: the schema that takes the rows of either. Both evolved from one connector.
    #[must_use]
    pub fn united(&self, other: &Self) -> Self {
        if self.schema_revision == other.schema_revision {
            return self.clone();
        }
        self.evolved(&other.seen_since(self))
    }
}

impl Connector {
    /// `[{"name": …, "type": …}, …]`
    pub fn fields_to_json(&self) -> Value {
        self.fields.iter().map(|field| json!({"name": field.name, "type": type_name(field.data_type)})).collect()
    }
}

/// Reads [`Connector::fields_to_json`]; types that this binary does not know are left out.
pub fn seen_from_json(fields: &Value) -> SeenTypes {
    let read = |field: &Value| {
        let data_type = parse_type(field.get("type")?.as_str()?).ok()?;
        Some((field.get("name")?.as_str()?.to_owned(), data_type))
    };
    fields.as_array().into_iter().flatten().filter_map(read).collect()
}

/// Whether an expression holds this word.
fn names(expr: &str, name: &str) -> bool {
    expr.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).any(|word| word.eq_ignore_ascii_case(name))
}
