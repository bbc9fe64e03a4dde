//! Columns of long texts (documents rather than names), on their way into a file as views.
//!
//! Taking rows out of their batches, ordering them by partition, cutting them and joining them copies each text three times.
//! Of a long one only the view is copied (16 bytes); the text itself is read once, where it was decoded, by the encoder.
//! While the rows as they were read are still needed, it is in memory once. Files do not show it: their
//! bytes are those that the texts themselves would have made. (Sorted rows are cut where texts would need more offsets than 32
//! bits count, which views do not: beyond 1 GiB there are fewer files.)

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::encoding::LONG_TEXT_BYTES;
use super::gather::Source;
use super::sorted::text_bytes;
use crate::config::{CleanStep, Connector, DedupeWindow, PartitionBy};
use crate::types::OriginRows;

/// Indices of columns, the same in decoded rows and in the lake's schema.
#[derive(Debug, Default)]
pub(super) struct LongTexts(Vec<usize>);

impl LongTexts {
    /// Those of all rows together, and those that are views already; not what rows are deduped or partitioned by.
    pub(super) fn of<'a>(connector: &Connector, batches: impl Iterator<Item = &'a RecordBatch>) -> Self {
        let mut batches = batches.peekable();
        let Some(first) = batches.peek() else { return Self::default() };
        let but_for = told_apart_by(connector);
        let (mut long, mut texts) = (Vec::new(), Vec::new());
        for (column, array) in first.columns().iter().enumerate() {
            if but_for.contains(&first.schema_ref().field(column).name()) {
                continue;
            }
            match array.data_type() {
                DataType::Utf8View => long.push(column),
                DataType::Utf8 => texts.push(column),
                _ => {}
            }
        }
        let (mut bytes, mut row_count) = (vec![0; texts.len()], 0);
        for batch in batches {
            row_count += batch.num_rows();
            for (bytes, column) in bytes.iter_mut().zip(&texts) {
                *bytes += batch.column(*column).as_string_opt().map_or(0, text_bytes);
            }
        }
        let of_each = texts.into_iter().zip(bytes);
        long.extend(of_each.filter(|(_, bytes)| *bytes > LONG_TEXT_BYTES * row_count).map(|(column, _)| column));
        Self(long)
    }

    pub(super) fn of_source<'a>(&self, source: Source<'a>) -> Result<Source<'a>, ArrowError> {
        Ok(Source { rows: self.as_views(source.rows)?, ..source })
    }

    /// The same rows; nothing is copied.
    fn as_views(&self, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
        if self.0.is_empty() {
            return Ok(rows);
        }
        let mut columns = rows.columns().to_vec();
        for column in &self.0 {
            if let Some(texts) = columns[*column].as_string_opt::<i32>() {
                columns[*column] = Arc::new(StringViewArray::from(texts)) as ArrayRef;
            }
        }
        RecordBatch::try_new(self.schema(rows.schema_ref()), columns)
    }

    /// A schema of decoded rows or of the lake, as rows have it here.
    pub(super) fn schema(&self, schema: &SchemaRef) -> SchemaRef {
        if self.0.is_empty() {
            return Arc::clone(schema);
        }
        let fields = schema.fields().iter().enumerate().map(|(index, field)| {
            if self.0.contains(&index) { with_type(field, DataType::Utf8View) } else { field.as_ref().clone() }
        });
        Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
    }
}

/// The same rows.
pub(super) fn viewed(connector: &Connector, mut rows: Vec<OriginRows>) -> Result<Vec<OriginRows>, ArrowError> {
    let long_texts = LongTexts::of(connector, rows.iter().flat_map(|rows| &rows.batches));
    for rows in &mut rows {
        let batches = std::mem::take(&mut rows.batches).into_iter();
        rows.batches = batches.map(|batch| long_texts.as_views(batch)).collect::<Result<_, _>>()?;
    }
    Ok(rows)
}

/// Names of columns.
fn told_apart_by(connector: &Connector) -> Vec<&String> {
    let levels = connector.staging.by.iter().filter_map(|by| match by {
        PartitionBy::Column(name) => Some(name),
        PartitionBy::Date | PartitionBy::Hour => None,
    });
    let keys = connector.clean.iter().filter_map(|step| match step {
        CleanStep::Dedupe(key) | CleanStep::DedupeWithin(DedupeWindow { columns: key, .. }) => Some(key),
        _ => None,
    });
    levels.chain(keys.flatten()).collect()
}

/// What a file says that its columns are: texts.
pub(super) fn without_views(schema: &Schema) -> Schema {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Utf8View => with_type(field, DataType::Utf8),
        _ => field.as_ref().clone(),
    });
    Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone())
}

fn with_type(field: &Field, data_type: DataType) -> Field {
    field.clone().with_data_type(data_type)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray, TimestampMillisecondArray};
    use bytes::Bytes;
    use chrono::{DateTime, Utc};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::super::scatter::Layout;
    use super::super::{Encoder, in_order, sources};
    use super::*;
    use crate::config::{Field as Column, FieldType};
    use crate::types::{MicroBatchId, Origin, TopicPartition};

    fn connector(sort_by: &[&str]) -> Connector {
        let column = |name: &str, data_type, required| Column {
            name: name.to_owned(),
            data_type,
            required,
            formats: Vec::new(),
            header: None,
            path: None,
        };
        let fields = vec![
            column("source", FieldType::Utf8, false),
            column("note", FieldType::Json, false),
            column("at", FieldType::TimestampMs, true),
        ];
        let mut connector = Connector::of_objects("notes", fields, "at");
        connector.staging.by = vec![PartitionBy::Column("source".to_owned()), PartitionBy::Hour];
        connector.staging.sort_by = sort_by.iter().map(|name| (*name).to_owned()).collect();
        connector
    }

    /// Notes of 0 to 299 bytes, some null; sources of 100 bytes and more.
    fn rows(connector: &Connector, offset: i64, row_count: usize) -> OriginRows {
        let rows = 0..row_count;
        let sources: StringArray = rows.clone().map(|row| Some(format!("{:0100}", row * 7 % 3))).collect();
        let note = |row: usize| (!row.is_multiple_of(11)).then(|| format!("\"{}\"", "ö".repeat(row * 31 % 150)));
        let notes: StringArray = rows.clone().map(note).collect();
        let times = rows.clone().map(|row| (row as i64 % 5) * 1_800_000);
        let times = TimestampMillisecondArray::from_iter_values(times).with_timezone(crate::config::UTC);
        let numbers = Int64Array::from_iter_values(rows.map(|row| row as i64));
        let columns: Vec<ArrayRef> = vec![Arc::new(sources), Arc::new(notes), Arc::new(times), Arc::new(numbers)];
        let batch = RecordBatch::try_new(connector.decoded_schema(), columns).unwrap();
        // one that begins in the midst of its memory
        let batches = vec![batch.slice(row_count / 3, row_count - row_count / 3), batch.slice(0, row_count / 3)];
        let origin = Origin { message_offset: offset, record: 0, time: DateTime::<Utc>::UNIX_EPOCH, order_hash: 0 };
        OriginRows { origin, batches }
    }

    fn files(connector: &Connector, id: MicroBatchId, rows: Vec<OriginRows>, long: &LongTexts) -> Vec<Bytes> {
        let layout = Layout::new(connector).unwrap();
        let (origins, batches) = in_order(rows);
        let encoder = Encoder::new(connector, &TopicPartition::new("raw", 0), id, layout.time_column, long);
        let sources = sources(&origins, batches).map(|source| long.of_source(source?));
        let files = encoder.files(connector, &layout, sources).unwrap();
        files.into_iter().map(|file| file.bytes).collect()
    }

    #[test]
    fn files_with_views_are_byte_by_byte_those_of_the_texts() {
        for (sort_by, row_count) in [(&[][..], 20_000), (&["note"][..], 3_000), (&[][..], 40)] {
            let connector = connector(sort_by);
            let id = MicroBatchId::generate();
            let rows: Vec<OriginRows> = (0..4).map(|offset| rows(&connector, offset, row_count)).collect();
            let long = LongTexts::of(&connector, rows.iter().flat_map(|rows| &rows.batches));
            assert_eq!(long.0, [1], "the notes, not what decides where a row goes");
            let views = viewed(&connector, rows.clone()).unwrap();
            let again = LongTexts::of(&connector, views.iter().flat_map(|rows| &rows.batches));
            assert_eq!(again.0, [1], "views stay views");
            let with_views = files(&connector, id, views, &long);
            assert!(
                with_views == files(&connector, id, rows.clone(), &long),
                "made early, or when they are put together"
            );
            assert!(with_views == files(&connector, id, rows, &LongTexts::default()));
            let reader = ParquetRecordBatchReaderBuilder::try_new(with_views[0].clone()).unwrap();
            assert_eq!(reader.schema().fields(), connector.lake_schema().fields());
        }
    }
}
