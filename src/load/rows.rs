//! Rows of the lake made ready for the warehouse: lineage and order added, values it cannot hold
//! repaired, encoded for binary COPY. CPU work only; runs on a blocking thread.
//!
//! A part's rows take one of two ways: as they are, their members named, for SQL to resolve and to rank
//! ([`prepare_rows`]); or ranked and resolved here, in the form of the table itself (`table_rows`).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::compute::{CastOptions, cast, cast_with_options, concat_batches};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMillisecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, NaiveDate, Utc};
use pgpq::ArrowToPostgresBinaryEncoder;
use pgpq::encoders::{EncoderBuilder, StringEncoderBuilder};
use pgpq::pg_schema::PostgresType;
use uuid::Uuid;

use super::digest::Digest;
use super::error::LoadError;
use super::locks::{KeyHash, SHARD_COUNT};
use super::plan::{LINEAGE_COLUMNS, PlanColumn, TableKind, TablePlan, WireType};
use super::repair::{repaired_json, repaired_key, repaired_text};
use super::table_rows::{RankedRows, TableRows};
use crate::config::{OFFSET_COLUMN, RECORD_COLUMN, ROW_COLUMN, UTC, arrow_type};
use crate::types::MicroBatchId;

/// Object time and order hash of each (offset, record).
pub(super) type Origins = HashMap<(i64, i32), (DateTime<Utc>, i64)>;

/// Size of a message of the COPY protocol, about.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

#[derive(Default)]
pub(super) struct PreparedRows {
    /// A complete binary COPY stream; empty where `table` has the rows.
    pub copy: Vec<Bytes>,
    /// Where rows are ranked and resolved in the process.
    pub table: Option<TableRows>,
    pub row_count: u64,
    /// Of a fact: the days (UTC) its rows fall on.
    pub days: BTreeSet<NaiveDate>,
    /// Of a fact: the shards its keys fall into.
    pub shards: BTreeSet<u8>,
    /// For each dimension link, the natural keys that rows name; sorted, without the unknown member's.
    pub members: Vec<BTreeSet<String>>,
    /// Values that PostgreSQL could not hold as they were.
    pub repaired_count: u64,
    /// Of each micro-batch's rows.
    pub digests: HashMap<MicroBatchId, Digest>,
}

impl PreparedRows {
    fn add_to_digest(&mut self, plan: &TablePlan, source: &SourceRows, rows: &RecordBatch) -> Result<(), LoadError> {
        let failed = |source| LoadError::Column { connector: plan.connector.clone(), column: String::new(), source };
        let digest = self.digests.entry(source.micro_batch_id).or_default();
        *digest = digest.plus(Digest::of(&plan.table, &plan.shape(), rows).map_err(failed)?);
        Ok(())
    }
}

/// Rows of one connector in one micro-batch.
pub(super) struct SourceRows {
    pub micro_batch_id: MicroBatchId,
    pub source_partition_id: i64,
    pub origins: Origins,
    pub batches: Vec<RecordBatch>,
}

/// What a part's rows look like before their members are known.
pub(super) enum Converted {
    Prepared(PreparedRows),
    /// The rest is done when the names have their keys.
    Ranked(PreparedRows, RankedRows),
}

/// Converts all rows of one part, and ranks them where that can be done here.
pub(super) fn convert_rows(plan: &TablePlan, sources: &[SourceRows]) -> Result<Converted, LoadError> {
    if !RankedRows::suits(plan) {
        return prepare_rows(plan, sources).map(Converted::Prepared);
    }
    let schema = copy_schema(plan);
    let mut prepared = PreparedRows { members: vec![BTreeSet::new(); plan.links().len()], ..PreparedRows::default() };
    let mut complete = Vec::new();
    for (source, batch) in with_rows(sources) {
        let rows = Rows { plan, batch };
        let mut columns = rows.plan_columns(&mut prepared.repaired_count)?;
        rows.collect_days_and_shards(&columns, &mut prepared)?;
        columns.extend(rows.lineage(source)?);
        let rows = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|e| rows.column_error("", e))?;
        prepared.add_to_digest(plan, source, &rows)?;
        complete.push(rows);
        prepared.row_count += batch.num_rows() as u64;
    }
    let failed = |source| LoadError::Column { connector: plan.connector.clone(), column: String::new(), source };
    let complete = concat_batches(&schema, &complete).map_err(failed)?;
    let ranked = RankedRows::new(plan, complete).map_err(failed)?;
    Ok(Converted::Ranked(prepared, ranked))
}

/// Prepares all rows of one part.
fn prepare_rows(plan: &TablePlan, sources: &[SourceRows]) -> Result<PreparedRows, LoadError> {
    let schema = copy_schema(plan);
    let failed = |source| LoadError::Encode { connector: plan.connector.clone(), source };
    let mut encoder = encoder(&schema, &jsonb_columns(plan)).map_err(failed)?;
    let mut prepared = PreparedRows { members: vec![BTreeSet::new(); plan.links().len()], ..PreparedRows::default() };
    let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
    encoder.write_header(&mut buffer).map_err(failed)?;
    for (source, batch) in with_rows(sources) {
        let rows = Rows { plan, batch };
        let mut columns = rows.plan_columns(&mut prepared.repaired_count)?;
        rows.collect_days_and_shards(&columns, &mut prepared)?;
        rows.collect_members(&columns, &mut prepared)?;
        columns.extend(rows.lineage(source)?);
        let complete = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|e| rows.column_error("", e))?;
        prepared.add_to_digest(plan, source, &complete)?;
        encoder.write_batch(&complete, &mut buffer).map_err(failed)?;
        prepared.row_count += batch.num_rows() as u64;
        while buffer.len() >= CHUNK_BYTES {
            prepared.copy.push(buffer.split_to(CHUNK_BYTES).freeze());
        }
    }
    encoder.write_footer(&mut buffer).map_err(failed)?;
    prepared.copy.push(buffer.freeze());
    prepared.members.iter_mut().for_each(|keys| {
        keys.remove("");
    });
    Ok(prepared)
}

fn with_rows(sources: &[SourceRows]) -> impl Iterator<Item = (&SourceRows, &RecordBatch)> {
    let all = sources.iter().flat_map(|source| source.batches.iter().map(move |batch| (source, batch)));
    all.filter(|(_, batch)| batch.num_rows() > 0)
}

fn copy_schema(plan: &TablePlan) -> SchemaRef {
    let own = plan.columns.iter().map(|column| Field::new(&column.name, copy_type(column), true));
    let lineage = LINEAGE_COLUMNS.iter().map(|(name, sql)| {
        let data_type = match *sql {
            "int4" => DataType::Int32,
            "timestamptz" => microseconds(),
            _ => DataType::Int64,
        };
        Field::new(*name, data_type, false)
    });
    Arc::new(Schema::new(own.chain(lineage).collect::<Vec<_>>()))
}

/// What stands in the stream. `uuid` reads the 16 bytes that Arrow's binary type writes, `timestamptz`
/// the same microseconds as `timestamp`.
fn copy_type(column: &PlanColumn) -> DataType {
    match column.wire {
        WireType::Uuid => DataType::FixedSizeBinary(16),
        WireType::Int8 => DataType::Int64,
        _ => arrow_type(column.field_type),
    }
}

fn microseconds() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()))
}

pub(super) fn jsonb_columns(plan: &TablePlan) -> Vec<&str> {
    let columns = plan.columns.iter().filter(|column| column.wire == WireType::Jsonb);
    columns.map(|column| column.name.as_str()).collect()
}

pub(super) fn encoder(
    schema: &SchemaRef,
    jsonb_columns: &[&str],
) -> Result<ArrowToPostgresBinaryEncoder, pgpq::error::ErrorKind> {
    let mut builders: HashMap<String, EncoderBuilder> = pgpq::build_encoders(schema.fields())?.into_iter().collect();
    for column in jsonb_columns.iter().filter(|name| schema.index_of(name).is_ok()) {
        let field = Arc::new(Field::new(*column, DataType::Utf8, true));
        let jsonb = StringEncoderBuilder::new_with_output(field, PostgresType::Jsonb)?;
        builders.insert((*column).to_owned(), EncoderBuilder::String(jsonb));
    }
    ArrowToPostgresBinaryEncoder::try_new_with_encoders(schema, &builders)
}

struct Rows<'a> {
    plan: &'a TablePlan,
    batch: &'a RecordBatch,
}

impl Rows<'_> {
    fn plan_columns(&self, repaired_count: &mut u64) -> Result<Vec<ArrayRef>, LoadError> {
        self.plan.columns.iter().map(|column| self.plan_column(column, repaired_count)).collect()
    }

    fn plan_column(&self, column: &PlanColumn, repaired_count: &mut u64) -> Result<ArrayRef, LoadError> {
        let array = self.column(&column.name, &arrow_type(column.field_type))?;
        Ok(match column.wire {
            WireType::Text | WireType::JsonText => repaired(array, repaired_text, repaired_count),
            WireType::KeyText => repaired(array, repaired_key, repaired_count),
            WireType::Jsonb => repaired(array, repaired_json, repaired_count),
            WireType::Uuid => self.uuids(&column.name, array.as_string())?,
            WireType::Int8 => cast(&array, &DataType::Int64).map_err(|e| self.column_error(&column.name, e))?,
            WireType::Int4 | WireType::Float8 | WireType::Bool | WireType::Numeric | WireType::Timestamptz => array,
        })
    }

    /// The lake's column as `data_type`; a column that the file lacks is null (its schema was older).
    fn column(&self, name: &str, data_type: &DataType) -> Result<ArrayRef, LoadError> {
        let Some(array) = self.batch.column_by_name(name) else {
            return Ok(new_null_array(data_type, self.batch.num_rows()));
        };
        if array.data_type() == data_type {
            return Ok(Arc::clone(array));
        }
        // a value that the column cannot hold is an error, not a null
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(array, data_type, &strict).map_err(|e| self.column_error(name, e))
    }

    fn required_column(&self, name: &str, data_type: &DataType) -> Result<ArrayRef, LoadError> {
        let array = self.column(name, data_type)?;
        if array.null_count() > 0 {
            return Err(LoadError::UnexpectedNull { connector: self.plan.connector.clone(), column: name.to_owned() });
        }
        Ok(array)
    }

    fn uuids(&self, name: &str, texts: &StringArray) -> Result<ArrayRef, LoadError> {
        let failed =
            |source| LoadError::NotUuid { connector: self.plan.connector.clone(), column: name.to_owned(), source };
        let parsed: Vec<Option<[u8; 16]>> = texts
            .iter()
            .map(|text| text.map(|text| Uuid::try_parse(text).map(Uuid::into_bytes)).transpose())
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        let array = FixedSizeBinaryArray::try_from_sparse_iter_with_size(parsed.into_iter(), 16)
            .map_err(|e| self.column_error(name, e))?;
        Ok(Arc::new(array))
    }

    fn collect_days_and_shards(&self, columns: &[ArrayRef], prepared: &mut PreparedRows) -> Result<(), LoadError> {
        let TableKind::Fact { time, .. } = &self.plan.kind else { return Ok(()) };
        let times = self.required_column(time, &arrow_type(crate::config::FieldType::TimestampMs))?;
        let mut last_day = None;
        for millis in times.as_primitive::<TimestampMillisecondType>().values() {
            let day = millis.div_euclid(86_400_000);
            if last_day.replace(day) != Some(day)
                && let Some(time) = DateTime::from_timestamp_millis(*millis)
            {
                prepared.days.insert(time.date_naive());
            }
        }
        let key: Vec<&ArrayRef> = self.plan.key.iter().filter_map(|name| self.planned(columns, name)).collect();
        let formatters = key
            .iter()
            .map(|array| ArrayFormatter::try_new(array, &FormatOptions::default()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| self.column_error(&self.plan.key.join(", "), e))?;
        let mut seen = [false; SHARD_COUNT as usize];
        for row in 0..self.batch.num_rows() {
            let mut hash = KeyHash::new();
            for (array, formatter) in key.iter().zip(&formatters) {
                match array.data_type() {
                    DataType::Utf8 => hash.add(array.as_string::<i32>().value(row).as_bytes()),
                    DataType::FixedSizeBinary(_) => hash.add(array.as_fixed_size_binary().value(row)),
                    _ => hash.add(formatter.value(row).to_string().as_bytes()),
                }
            }
            seen[usize::from(hash.shard())] = true;
        }
        prepared.shards.extend((0..SHARD_COUNT as u8).filter(|shard| seen[usize::from(*shard)]));
        Ok(())
    }

    fn collect_members(&self, columns: &[ArrayRef], prepared: &mut PreparedRows) -> Result<(), LoadError> {
        for (link, members) in self.plan.links().iter().zip(&mut prepared.members) {
            let Some(column) = &link.column else { continue };
            let Some(array) = self.planned(columns, column) else { continue };
            let texts = self.member_names(array, column)?;
            for text in texts.as_string::<i32>().iter().flatten() {
                if !members.contains(text) {
                    members.insert(text.to_owned());
                }
            }
        }
        Ok(())
    }

    fn planned<'c>(&self, columns: &'c [ArrayRef], name: &str) -> Option<&'c ArrayRef> {
        columns.get(self.plan.columns.iter().position(|column| column.name == name)?)
    }

    fn member_names(&self, array: &ArrayRef, name: &str) -> Result<ArrayRef, LoadError> {
        match array.data_type() {
            // as the server spells them: the lake's text is lower case with hyphens already
            DataType::FixedSizeBinary(_) => self.column(name, &DataType::Utf8),
            _ => Ok(Arc::clone(array)),
        }
    }

    /// In the order of [`LINEAGE_COLUMNS`].
    fn lineage(&self, source: &SourceRows) -> Result<Vec<ArrayRef>, LoadError> {
        let offsets = self.required_column(OFFSET_COLUMN, &DataType::Int64)?;
        let records = self.required_column(RECORD_COLUMN, &DataType::Int32)?;
        let rows = self.required_column(ROW_COLUMN, &DataType::Int64)?;
        let count = self.batch.num_rows();
        let (mut times, mut hashes) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let places = offsets.as_primitive::<Int64Type>().values().iter();
        for (offset, record) in places.zip(records.as_primitive::<Int32Type>().values()) {
            let Some((time, hash)) = source.origins.get(&(*offset, *record)) else {
                return Err(LoadError::OriginMissing { offset: *offset, record: *record });
            };
            times.push(time.timestamp_micros());
            hashes.push(*hash);
        }
        let newer = self.newer_at(&times)?;
        let stamps =
            |values: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(values).with_timezone(UTC)) as ArrayRef;
        let source = Arc::new(Int64Array::from_value(source.source_partition_id, count)) as ArrayRef;
        Ok(vec![source, offsets, records, rows, stamps(newer), stamps(times), Arc::new(Int64Array::from(hashes))])
    }

    /// Microseconds: the `newer_by` column; the object's time where there is none, or where it is null.
    fn newer_at(&self, object_times: &[i64]) -> Result<Vec<i64>, LoadError> {
        let Some(name) = &self.plan.newer_by else { return Ok(object_times.to_vec()) };
        let column = self.column(name, &arrow_type(crate::config::FieldType::TimestampMs))?;
        let millis = column.as_primitive::<TimestampMillisecondType>().iter();
        Ok(millis.zip(object_times).map(|(own, object)| own.map_or(*object, |millis| millis * 1000)).collect())
    }

    fn column_error(&self, column: &str, source: arrow::error::ArrowError) -> LoadError {
        LoadError::Column { connector: self.plan.connector.clone(), column: column.to_owned(), source }
    }
}

/// The array itself where every value can stand as it is, which is nearly always.
fn repaired(array: ArrayRef, repair: fn(&str) -> Option<String>, repaired_count: &mut u64) -> ArrayRef {
    let texts = array.as_string::<i32>();
    let mut changed: HashMap<usize, String> = HashMap::new();
    for (row, text) in texts.iter().enumerate() {
        if let Some(better) = text.and_then(repair) {
            changed.insert(row, better);
        }
    }
    if changed.is_empty() {
        return array;
    }
    *repaired_count += changed.len() as u64;
    let better = |(row, text)| changed.get(&row).map(String::as_str).or(text);
    Arc::new(texts.iter().enumerate().map(better).collect::<StringArray>())
}
