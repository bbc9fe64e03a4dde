//! The Arrow schemas a connector stands for: one place, so that decoding, staging and loading agree.
//!
//! | schema | columns |
//! |---|---|
//! | decoded | the connector's, in its order · `_rescued` where it rescues · `_row` |
//! | lake | as decoded without `_row` · `_topic_partition` · `_offset` · `_record` · `_row` · `_origin_time` · `_batch` |

use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef, TimeUnit};

use super::{Connector, FieldType, NewField, TypeChange};

/// JSON object of the fields that the schema lacks or that do not fit it; null where there were none.
pub const RESCUED_COLUMN: &str = "_rescued";
/// `topic/3`
pub const TOPIC_PARTITION_COLUMN: &str = "_topic_partition";
/// Offset of the message.
pub const OFFSET_COLUMN: &str = "_offset";
/// Index of the record within the message.
pub const RECORD_COLUMN: &str = "_record";
/// Number of the row within its object.
pub const ROW_COLUMN: &str = "_row";
/// Last-modified of the object; the message's timestamp for direct records.
pub const ORIGIN_TIME_COLUMN: &str = "_origin_time";
/// Id of the micro-batch.
pub const BATCH_COLUMN: &str = "_batch";

/// Time zone of every timestamp column.
pub const UTC: &str = "UTC";

pub fn arrow_type(field_type: FieldType) -> DataType {
    match field_type {
        FieldType::Utf8 | FieldType::Uuid | FieldType::Json => DataType::Utf8,
        FieldType::Int32 => DataType::Int32,
        FieldType::Int64 => DataType::Int64,
        FieldType::Float64 => DataType::Float64,
        FieldType::Boolean => DataType::Boolean,
        FieldType::Decimal { precision, scale } => DataType::Decimal128(precision, scale),
        FieldType::TimestampMs => DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into())),
    }
}

impl Connector {
    /// The connector's own columns as Arrow fields, in its order: nullable unless required.
    pub fn arrow_fields(&self) -> Vec<ArrowField> {
        self.fields
            .iter()
            .map(|field| ArrowField::new(&field.name, arrow_type(field.data_type), !field.required))
            .collect()
    }

    pub fn rescues(&self) -> bool {
        matches!(self.evolution.new_field, NewField::Rescue | NewField::Evolve)
            || self.evolution.type_change == TypeChange::Rescue
    }

    /// What decoding makes and cleaning keeps: the columns, `_rescued` (utf8) where the connector
    /// rescues, `_row` (int64, not null).
    pub fn decoded_schema(&self) -> SchemaRef {
        let mut fields = self.data_fields();
        fields.push(ArrowField::new(ROW_COLUMN, DataType::Int64, false));
        Arc::new(Schema::new(fields))
    }

    /// What a Parquet file in the lake holds: the columns, `_rescued` where the connector rescues, the lineage.
    pub fn lake_schema(&self) -> SchemaRef {
        let mut fields = self.data_fields();
        fields.extend([
            ArrowField::new(TOPIC_PARTITION_COLUMN, DataType::Utf8, false),
            ArrowField::new(OFFSET_COLUMN, DataType::Int64, false),
            ArrowField::new(RECORD_COLUMN, DataType::Int32, false),
            ArrowField::new(ROW_COLUMN, DataType::Int64, false),
            ArrowField::new(ORIGIN_TIME_COLUMN, arrow_type(FieldType::TimestampMs), false),
            ArrowField::new(BATCH_COLUMN, DataType::Utf8, false),
        ]);
        Arc::new(Schema::new(fields))
    }

    fn data_fields(&self) -> Vec<ArrowField> {
        let mut fields = self.arrow_fields();
        if self.rescues() {
            fields.push(ArrowField::new(RESCUED_COLUMN, DataType::Utf8, true));
        }
        fields
    }
}
