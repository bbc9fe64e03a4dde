//! A Parquet object → blocks of JSON lines, one line a row.
//!
//! # Contract
//! A row becomes the JSON object of its columns, in the file's order, and is decoded as such: every rule of JSON holds,
//! and the text is what a dead letter keeps and what corrects it. Byte offsets count in that text, which is the unpacked object.
//! `parquet_text` says how each type is spelt; text columns must hold UTF-8, or the file is broken.
//!
//! Columns that the connector has no use for (`new_field: ignore`) are not read. Row groups are read one behind the
//! other, [`BATCH_ROWS`] rows at a time; a few MiB of text are a block. The file itself is held whole: its end says where
//! everything is.
//!
//! Nothing is allocated by what the file claims before `parquet_bounds` has looked at it. The reader may still panic on
//! broken pages: that is caught, and the object is as broken as by an error.

use std::io::Read;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, FieldRef, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::{LogicalType, Type as PhysicalType};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::schema::types::TypePtr;

use super::blocks::{BLOCK_BYTES, Piece};
use super::parquet_bounds::{self, ChunkClaim};
use super::parquet_text::{Cell, For, RowText, Taker, cells, object};
use super::unpack::{Stored, Unpacker};
use super::{DecodeError, DecodeLimits, ObjectFault, RECORD_BYTES_MAX};
use crate::config::{Connector, DECIMAL_DIGITS_MAX, FieldType, NewField, SeenTypes, TimestampFormat, see};
use crate::telemetry;

const BATCH_ROWS: usize = 8192;
/// Of values of fixed size in one batch: they are copied, unlike text.
const FIXED_BYTES_MAX: usize = 64 << 20;

pub(super) fn malformed(detail: impl Into<String>) -> ObjectFault {
    ObjectFault::MalformedParquet { detail: detail.into() }
}

pub(super) fn too_large(detail: String) -> ObjectFault {
    ObjectFault::TooLarge { detail }
}

/// What the Parquet reader makes of broken bytes.
fn guarded<T>(work: impl FnOnce() -> Result<T, ObjectFault>) -> Result<T, ObjectFault> {
    telemetry::caught(work).unwrap_or_else(|_| Err(malformed("its pages do not fit its metadata")))
}

pub(super) struct ParquetRows {
    reader: ParquetRecordBatchReader,
    takers: Vec<Taker>,
    open: Option<OpenBatch>,
    /// As the footer says.
    row_count: u64,
    read_count: u64,
    /// Of the text.
    at: u64,
    bytes_max: u64,
    record_bytes_max: usize,
    pub(super) block_bytes: usize,
    /// Columns that the file would add to the schema.
    pub(super) seen: SeenTypes,
}

struct OpenBatch {
    write: Cell,
    row_count: usize,
    next: usize,
}

impl ParquetRows {
    pub(super) fn of_bytes(
        connector: &Arc<Connector>,
        stored: Bytes,
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeError> {
        let file = match Unpacker::of_bytes(stored, limits.unpacking())? {
            Ok(file) => file,
            Err(unpacker) => whole(unpacker)?,
        };
        Ok(guarded(|| Self::new(connector, file, limits))?)
    }

    pub(super) fn of_stream(
        connector: &Arc<Connector>,
        stored: Box<dyn Read + Send + '_>,
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeError> {
        let file = whole(Unpacker::new(Stored::stream(stored, 0), limits.unpacking())?)?;
        Ok(guarded(|| Self::new(connector, file, limits))?)
    }

    fn new(connector: &Arc<Connector>, file: Bytes, limits: &DecodeLimits) -> Result<Self, ObjectFault> {
        let metadata = metadata(&file)?;
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let parquet_schema = metadata.file_metadata().schema_descr();
        let types = parquet_schema.root_schema().get_fields();
        let plain = ArrowReaderMetadata::try_new(Arc::clone(&metadata), options.clone()).map_err(broken)?;
        let schema = Schema::new(plain.schema().fields().iter().zip(types).map(read_as).collect::<Vec<_>>());
        let arrow = ArrowReaderMetadata::try_new(Arc::clone(&metadata), options.with_schema(Arc::new(schema)));
        let arrow = arrow.map_err(broken)?;
        let fields = arrow.schema().fields().clone();
        let mut names = std::collections::HashSet::new();
        if let Some(twice) = fields.iter().find(|field| !names.insert(field.name())) {
            return Err(malformed(format!(
                "column `{}` stands twice",
                super::json::shortened(twice.name().as_bytes())
            )));
        }
        let is_read =
            |field: &FieldRef| connector.evolution.new_field != NewField::Ignore || connector.reads(field.name());
        let read: Vec<usize> = (0..fields.len()).filter(|index| is_read(&fields[*index])).collect();
        let mask = ProjectionMask::roots(parquet_schema, read.iter().copied());
        let uncompressed = check_pages(&file, &metadata, &mask)?;
        if uncompressed > limits.object_bytes_max {
            let detail =
                format!("pages of {uncompressed} bytes, limits.object_bytes_max allows {}", limits.object_bytes_max);
            return Err(too_large(detail));
        }
        let is_uuid =
            |index: usize| matches!(types[index].get_basic_info().logical_type_ref(), Some(LogicalType::Uuid));
        let takers = read.iter().map(|index| taker(connector, fields[*index].name(), is_uuid(*index))).collect();
        let mut seen = SeenTypes::new();
        for index in &read {
            let field = &fields[*index];
            if !connector.reads(field.name()) && connector.can_add(field.name()) {
                see(&mut seen, field.name(), column_type(field.data_type(), is_uuid(*index)));
            }
        }
        let width: usize = read.iter().map(|index| fixed_bytes(fields[*index].data_type())).sum();
        if width > FIXED_BYTES_MAX {
            return Err(too_large(format!("a row of {width} bytes in columns of fixed size")));
        }
        let batch_rows = (FIXED_BYTES_MAX / width.max(1)).clamp(1, BATCH_ROWS);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, arrow)
            .with_projection(mask)
            .with_batch_size(batch_rows)
            .build()
            .map_err(broken)?;
        let row_count =
            u64::try_from(metadata.file_metadata().num_rows()).map_err(|_| malformed("a negative number of rows"))?;
        Ok(Self {
            reader,
            takers,
            open: None,
            row_count,
            read_count: 0,
            at: 0,
            bytes_max: limits.object_bytes_max,
            record_bytes_max: usize::try_from(limits.record_bytes_max.min(RECORD_BYTES_MAX)).expect("at most 1 GiB"),
            block_bytes: BLOCK_BYTES,
            seen,
        })
    }

    pub(super) fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn next(&mut self) -> Result<Option<Piece>, ObjectFault> {
        guarded(|| self.piece())
    }

    fn piece(&mut self) -> Result<Option<Piece>, ObjectFault> {
        let mut block = Vec::new();
        let mut row = RowText { bytes: Vec::new(), len_max: self.record_bytes_max };
        while block.len() < self.block_bytes {
            if self.open.is_none() && !self.read_batch()? {
                break;
            }
            let Some(open) = &mut self.open else { break };
            row.bytes.clear();
            (open.write)(open.next, &mut row);
            open.next += 1;
            if open.next == open.row_count {
                self.open = None;
            }
            block.extend_from_slice(&row.bytes);
            block.push(b'\n');
            if self.at + block.len() as u64 > self.bytes_max {
                let detail =
                    format!("its rows are more than {} bytes of JSON text, limits.object_bytes_max", self.bytes_max);
                return Err(too_large(detail));
            }
        }
        if block.is_empty() {
            return Ok(None);
        }
        let offset = self.at;
        self.at += block.len() as u64;
        Ok(Some(Piece::Block { bytes: Bytes::from(block), offset }))
    }

    fn read_batch(&mut self) -> Result<bool, ObjectFault> {
        loop {
            match self.reader.next() {
                None if self.read_count != self.row_count => {
                    return Err(malformed("it has another number of rows than its footer says"));
                }
                None => return Ok(false),
                Some(batch) => {
                    let batch = batch.map_err(|error| malformed(error.to_string()))?;
                    self.read_count += batch.num_rows() as u64;
                    if batch.num_rows() > 0 {
                        self.open = Some(OpenBatch {
                            write: row_cells(&batch, &self.takers),
                            row_count: batch.num_rows(),
                            next: 0,
                        });
                        return Ok(true);
                    }
                }
            }
        }
    }
}

fn row_cells(batch: &RecordBatch, takers: &[Taker]) -> Cell {
    let schema = batch.schema();
    let names = schema.fields().iter().map(|field| field.name().as_str());
    let columns = batch.columns().iter().zip(takers).map(|(column, taker)| cells(column, taker));
    object(names.zip(columns))
}

fn broken(error: parquet::errors::ParquetError) -> ObjectFault {
    malformed(error.to_string())
}

/// The unpacked bytes, all of them.
fn whole(mut unpacker: Unpacker<'_>) -> Result<Bytes, DecodeError> {
    let mut bytes = Vec::new();
    while unpacker.read(&mut bytes, BLOCK_BYTES)? > 0 {}
    Ok(Bytes::from(bytes))
}

fn metadata(file: &Bytes) -> Result<Arc<ParquetMetaData>, ObjectFault> {
    parquet_bounds::footer(file)?;
    let metadata = ParquetMetaDataReader::new().parse_and_finish(file).map_err(broken)?;
    let in_groups: i64 = metadata.row_groups().iter().map(parquet::file::metadata::RowGroupMetaData::num_rows).sum();
    if in_groups != metadata.file_metadata().num_rows() {
        return Err(malformed("its row groups have another number of rows than its footer says"));
    }
    Ok(Arc::new(metadata))
}

/// Of the columns that are read. Returns the uncompressed size of their pages.
fn check_pages(file: &Bytes, metadata: &ParquetMetaData, mask: &ProjectionMask) -> Result<u64, ObjectFault> {
    let mut uncompressed = 0;
    for group in metadata.row_groups() {
        for (leaf, column) in group.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf)) {
            let (offset, len) = column.byte_range();
            let descriptor = metadata.file_metadata().schema_descr().column(leaf);
            let claim = ChunkClaim {
                offset,
                len,
                value_count: column.num_values(),
                row_count: group.num_rows(),
                repeats: descriptor.max_rep_level() > 0,
            };
            uncompressed += parquet_bounds::pages(file, &claim)?;
        }
    }
    Ok(uncompressed)
}

/// Instants of 96 bits in microseconds: in nanoseconds they would end in 2262, and wrap.
fn read_as((field, parquet): (&FieldRef, &TypePtr)) -> FieldRef {
    if parquet.is_primitive() && parquet.get_physical_type() == PhysicalType::INT96 {
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        return Arc::new(field.as_ref().clone().with_data_type(micros));
    }
    viewed(field)
}

/// Text as views: values of a dictionary are not copied for every row that has them.
fn viewed(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Utf8 => DataType::Utf8View,
        DataType::Binary => DataType::BinaryView,
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(viewed).collect()),
        DataType::List(item) => DataType::List(viewed(item)),
        DataType::Map(entries, is_sorted) => DataType::Map(viewed(entries), *is_sorted),
        _ => return Arc::clone(field),
    };
    Arc::new(ArrowField::new(field.name(), data_type, field.is_nullable()).with_metadata(field.metadata().clone()))
}

fn fixed_bytes(data_type: &DataType) -> usize {
    match data_type {
        DataType::FixedSizeBinary(len) => usize::try_from(*len).unwrap_or(usize::MAX >> 16),
        DataType::Struct(fields) => fields.iter().map(|field| fixed_bytes(field.data_type())).sum(),
        DataType::List(item) => fixed_bytes(item.data_type()),
        DataType::Map(entries, _) => fixed_bytes(entries.data_type()),
        _ => 16,
    }
}

/// Who takes a column of the file, and the values inside it.
fn taker(connector: &Connector, name: &str, is_uuid: bool) -> Taker {
    let own = if is_uuid { For::Uuid } else { For::Anything };
    let mut taker = Taker::of(own);
    for (index, field) in connector.fields.iter().enumerate().filter(|(_, field)| field.first_name() == name) {
        let steps = field.path.as_ref().map_or(&[][..], |path| path.rest());
        let is_uuid = is_uuid && steps.is_empty();
        let taken = match field.data_type {
            FieldType::TimestampMs if !field.formats.contains(&TimestampFormat::Rfc3339) => For::EpochMs,
            FieldType::TimestampMs => For::Instant,
            // a column that the data added was seen by what it is, so it stays spelt that way
            FieldType::Utf8 if !is_uuid && !connector.is_added(index) => For::Text,
            FieldType::Uuid => For::Uuid,
            _ if is_uuid => For::Uuid,
            _ => For::Anything,
        };
        taker.add(steps, taken);
    }
    taker
}

/// The column that takes every value of a Parquet column.
fn column_type(data_type: &DataType, is_uuid: bool) -> FieldType {
    let exact = |digits: u8, scale: i8| FieldType::Decimal { precision: digits, scale };
    match data_type {
        DataType::Boolean => FieldType::Boolean,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => FieldType::Int32,
        DataType::Int64 | DataType::UInt32 => FieldType::Int64,
        DataType::UInt64 => exact(20, 0),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => FieldType::Float64,
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
            if *scale >= 0 && *precision <= DECIMAL_DIGITS_MAX =>
        {
            exact(*precision, *scale)
        }
        DataType::Timestamp(..) => FieldType::TimestampMs,
        DataType::Struct(_) | DataType::List(_) | DataType::Map(..) => FieldType::Json,
        DataType::FixedSizeBinary(16) if is_uuid => FieldType::Uuid,
        _ => FieldType::Utf8,
    }
}
