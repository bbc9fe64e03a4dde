//! Parquet files of one table partition, one behind the other: when one is large enough the next begins.

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ArrowWriter, add_encoded_arrow_schema_to_metadata};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, KeyValue, ParquetMetaData, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use uuid::Uuid;

use super::encoding;
use super::long_texts::without_views;
use crate::config::Staging;
use crate::types::{FileKind, StagedFile, TablePartition};

/// A page is compressed, and what it takes in memory until then given back, when its values have so many.
const PAGE_BYTES_MAX: usize = 128 << 10;

/// What all files of a series have in common.
#[derive(Debug, Clone)]
pub(super) struct Label {
    pub(super) kind: FileKind,
    pub(super) dataset: String,
    pub(super) connector: String,
    pub(super) connector_revision: String,
    pub(super) schema_revision: String,
    pub(super) table_partition: TablePartition,
    /// A file that has reached it is closed.
    pub(super) file_size_bytes_target: u64,
    pub(super) layout: FileLayout,
}

/// What files have besides the rows: as a connector wants it, or as another file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLayout {
    /// Columns that the rows are sorted by.
    sort_by: Vec<String>,
    bloom_filter: Vec<String>,
    page_index: bool,
}

impl FileLayout {
    pub(super) fn of(staging: &Staging) -> Self {
        let Staging { sort_by, bloom_filter, page_index, .. } = staging;
        Self { sort_by: sort_by.clone(), bloom_filter: bloom_filter.clone(), page_index: *page_index }
    }

    /// As of a file that this program has written: its first row group tells.
    pub fn of_file(metadata: &ParquetMetaData) -> Self {
        let Some(group) = metadata.row_groups().first() else { return Self::default() };
        let name = |column: &ColumnChunkMetaData| column.column_path().string();
        let sorted = group.sorting_columns().into_iter().flatten();
        let with_filter = group.columns().iter().filter(|column| column.bloom_filter_offset().is_some());
        Self {
            sort_by: sorted.map(|sorted| name(group.column(sorted.column_idx as usize))).collect(),
            bloom_filter: with_filter.map(name).collect(),
            page_index: group.columns().iter().any(|column| column.offset_index_offset().is_some()),
        }
    }
}

impl Default for FileLayout {
    fn default() -> Self {
        Self { sort_by: Vec::new(), bloom_filter: Vec::new(), page_index: true }
    }
}

pub(super) struct FileSeries {
    label: Label,
    schema: SchemaRef,
    open: Option<OpenFile>,
    files: Vec<StagedFile>,
}

struct OpenFile {
    writer: ArrowWriter<Vec<u8>>,
    row_count: u64,
    /// Smallest and greatest event time, milliseconds.
    event_time_ms: Option<(i64, i64)>,
}

impl FileSeries {
    pub(super) fn new(label: Label, schema: SchemaRef) -> Self {
        Self { label, schema, open: None, files: Vec::new() }
    }

    /// `event_time_ms`: smallest and greatest of the batch.
    pub(super) fn write(&mut self, batch: &RecordBatch, event_time_ms: Option<(i64, i64)>) -> Result<(), ParquetError> {
        let mut file = match self.open.take() {
            Some(file) => file,
            None => OpenFile { writer: self.writer(batch)?, row_count: 0, event_time_ms: None },
        };
        file.writer.write(batch)?;
        file.row_count += batch.num_rows() as u64;
        file.event_time_ms = match (file.event_time_ms, event_time_ms) {
            (Some((min, max)), Some((batch_min, batch_max))) => Some((min.min(batch_min), max.max(batch_max))),
            (one, other) => one.or(other),
        };
        let size_bytes = file.writer.bytes_written() + file.writer.in_progress_size();
        if size_bytes as u64 >= self.label.file_size_bytes_target {
            self.close(file)
        } else {
            self.open = Some(file);
            Ok(())
        }
    }

    fn writer(&self, first: &RecordBatch) -> Result<ArrowWriter<Vec<u8>>, ParquetError> {
        let Label { connector, connector_revision, schema_revision, .. } = &self.label;
        let mut properties = properties(connector, connector_revision, schema_revision, &self.label.layout, first);
        add_encoded_arrow_schema_to_metadata(&without_views(&self.schema), &mut properties);
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        ArrowWriter::try_new_with_options(Vec::new(), self.schema.clone(), options)
    }

    /// What is written next stands in another file.
    pub(super) fn roll(&mut self) -> Result<(), ParquetError> {
        self.open.take().map_or(Ok(()), |file| self.close(file))
    }

    pub(super) fn finish(mut self) -> Result<Vec<StagedFile>, ParquetError> {
        self.roll()?;
        Ok(self.files)
    }

    fn close(&mut self, file: OpenFile) -> Result<(), ParquetError> {
        let time = |ms| DateTime::<Utc>::from_timestamp_millis(ms);
        let label = self.label.clone();
        let mut bytes = file.writer.into_inner()?;
        // it has grown by doubling, and is held until it is uploaded, as are a thousand others
        bytes.shrink_to_fit();
        self.files.push(StagedFile {
            file_id: Uuid::now_v7(),
            kind: label.kind,
            dataset: label.dataset,
            connector: label.connector,
            connector_revision: label.connector_revision,
            schema_revision: label.schema_revision,
            table_partition: label.table_partition,
            row_count: file.row_count,
            event_time_min: file.event_time_ms.and_then(|(min, _)| time(min)),
            event_time_max: file.event_time_ms.and_then(|(_, max)| time(max)),
            bytes: Bytes::from(bytes),
        });
        Ok(())
    }
}

/// Rows of an existing file, in their order, as a file of the same kind. At least one batch, all of one schema.
pub fn encode_again(
    connector: &str,
    connector_revision: &str,
    schema_revision: &str,
    layout: &FileLayout,
    batches: &[RecordBatch],
) -> Result<Bytes, ParquetError> {
    let first = batches.first().ok_or_else(|| ParquetError::General("a file without rows".to_owned()))?;
    let properties = properties(connector, connector_revision, schema_revision, layout, first);
    let mut writer = ArrowWriter::try_new(Vec::new(), first.schema(), Some(properties))?;
    for batch in batches {
        writer.write(batch)?;
    }
    Ok(Bytes::from(writer.into_inner()?))
}

/// `first`: the rows that the file begins with.
fn properties(
    connector: &str,
    connector_revision: &str,
    schema_revision: &str,
    layout: &FileLayout,
    first: &RecordBatch,
) -> WriterProperties {
    let metadata = [
        ("sluice.connector", connector),
        ("sluice.connector_revision", connector_revision),
        ("sluice.schema_revision", schema_revision),
    ];
    let properties = WriterProperties::builder()
        .set_created_by(concat!("sluice version ", env!("CARGO_PKG_VERSION")).to_owned())
        // Level 1: of all the CPU a row costs, stronger compression would soon be most.
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(if layout.page_index { EnabledStatistics::Page } else { EnabledStatistics::Chunk })
        .set_offset_index_disabled(!layout.page_index)
        .set_data_page_size_limit(PAGE_BYTES_MAX)
        .set_sorting_columns(sorting_columns(layout, first.schema_ref()))
        .set_key_value_metadata(Some(
            metadata.map(|(key, value)| KeyValue::new(key.to_owned(), value.to_owned())).to_vec(),
        ));
    let properties = layout.bloom_filter.iter().fold(properties, |properties, name| {
        properties.set_column_bloom_filter_enabled(ColumnPath::from(name.as_str()), true)
    });
    encoding::by_column(properties, first).build()
}

fn sorting_columns(layout: &FileLayout, schema: &Schema) -> Option<Vec<SortingColumn>> {
    let columns = layout.sort_by.iter().filter_map(|name| schema.index_of(name).ok());
    let columns: Vec<SortingColumn> =
        columns.map(|index| SortingColumn { column_idx: index as i32, descending: false, nulls_first: true }).collect();
    (!columns.is_empty()).then_some(columns)
}
