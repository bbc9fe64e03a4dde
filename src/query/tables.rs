//! Datasets as tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Int32Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DFSchema;
use datafusion::datasource::file_format::FileFormat as _;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, JoinType, TableProviderFilterPushDown, TableType};
use datafusion::object_store::{ObjectMeta, ObjectStore};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use serde::Serialize;

use super::store::{LakeStore, location};
use crate::catalog::{LakeFile, MaskedRecord};
use crate::config::{BATCH_COLUMN, FieldType, OFFSET_COLUMN, RECORD_COLUMN, arrow_type};

const DEAD_LETTERS: &str = "dead_letters";
const URL: &str = "sluice://lake";

/// A table and what stands behind it.
#[derive(Debug, Clone, Serialize)]
pub struct TableSummary {
    pub name: String,
    pub rows: i64,
    pub files: usize,
    pub size_bytes: u64,
    /// Of the rows' own times.
    pub first: Option<DateTime<Utc>>,
    pub last: Option<DateTime<Utc>>,
}

fn table_name(file: &LakeFile) -> String {
    if file.is_data { file.dataset.replace('-', "_") } else { DEAD_LETTERS.to_owned() }
}

/// By name.
pub fn summaries(files: &[LakeFile]) -> Vec<TableSummary> {
    let mut tables = BTreeMap::<String, TableSummary>::new();
    for file in files {
        let name = table_name(file);
        let table = tables.entry(name.clone()).or_insert_with(|| TableSummary {
            name,
            rows: 0,
            files: 0,
            size_bytes: 0,
            first: None,
            last: None,
        });
        table.rows += file.row_count;
        table.files += 1;
        table.size_bytes += file.size_bytes;
        if let Some((first, last)) = file.event_times {
            table.first = Some(table.first.map_or(first, |earlier| earlier.min(first)));
            table.last = Some(table.last.map_or(last, |later| later.max(last)));
        }
    }
    tables.into_values().collect()
}

/// Makes the tables known. One footer is read for each schema that a table ever had.
pub(super) async fn register(
    context: &SessionContext,
    store: &Arc<LakeStore>,
    files: Vec<LakeFile>,
    masked: &[MaskedRecord],
) -> Result<(), DataFusionError> {
    let url = ObjectStoreUrl::parse(URL)?;
    context.register_object_store(url.as_ref(), Arc::clone(store) as Arc<dyn ObjectStore>);
    let mut tables = BTreeMap::<String, Vec<LakeFile>>::new();
    for file in files {
        tables.entry(table_name(&file)).or_default().push(file);
    }
    let masked = masked_rows(masked)?;
    for (name, files) in tables {
        let schema = schema_of(context, store, &files).await?;
        let files = files.iter().filter_map(|file| store.meta(&location(file))).collect();
        let table = Arc::new(LakeTable { schema, files });
        if name == DEAD_LETTERS || masked.num_rows() == 0 {
            context.register_table(name.as_str(), table)?;
            continue;
        }
        let lineage = [BATCH_COLUMN, OFFSET_COLUMN, RECORD_COLUMN];
        let all = context.read_table(table)?;
        let hidden = context.read_batch(masked.clone())?;
        let visible = all.join(hidden, JoinType::LeftAnti, &lineage, &MASKED_COLUMNS, None)?;
        context.register_table(name.as_str(), visible.into_view())?;
    }
    Ok(())
}

/// Apart from the names of the lineage, so that nothing is ambiguous.
const MASKED_COLUMNS: [&str; 3] = ["masked_batch", "masked_offset", "masked_record"];

fn masked_rows(masked: &[MaskedRecord]) -> Result<RecordBatch, DataFusionError> {
    let [batch, offset, record] = MASKED_COLUMNS;
    let schema = Schema::new(vec![
        Field::new(batch, DataType::Utf8, false),
        Field::new(offset, DataType::Int64, false),
        Field::new(record, DataType::Int32, false),
    ]);
    let batches: StringArray = masked.iter().map(|row| Some(row.micro_batch_id.as_str())).collect();
    let offsets: Int64Array = masked.iter().map(|row| row.offset).collect();
    let records: Int32Array = masked.iter().map(|row| row.record).collect();
    Ok(RecordBatch::try_new(Arc::new(schema), vec![Arc::new(batches), Arc::new(offsets), Arc::new(records)])?)
}

/// The columns of all files, each of the type that takes the values of all.
async fn schema_of(
    context: &SessionContext,
    store: &Arc<LakeStore>,
    files: &[LakeFile],
) -> Result<SchemaRef, DataFusionError> {
    let one_each: BTreeMap<(&str, &str), &LakeFile> =
        files.iter().map(|file| ((file.dataset.as_str(), file.schema_revision.as_str()), file)).collect();
    let dynamic = Arc::clone(store) as Arc<dyn ObjectStore>;
    let (state, format) = (context.state(), ParquetFormat::default().with_force_view_types(false));
    let mut fields = Vec::<Field>::new();
    for file in one_each.into_values() {
        let meta: Vec<ObjectMeta> = store.meta(&location(file)).into_iter().collect();
        let schema = format.infer_schema(&state, &dynamic, &meta).await?;
        for field in schema.fields() {
            match fields.iter_mut().find(|known| known.name() == field.name()) {
                Some(known) => *known = Field::new(known.name(), joined(known.data_type(), field.data_type()), true),
                None => fields.push(field.as_ref().clone().with_nullable(true)),
            }
        }
    }
    // lineage last, whatever was added when
    fields.sort_by_key(|field| field.name().starts_with('_'));
    Ok(Arc::new(Schema::new(fields)))
}

/// The type of a column that was widened on the way.
fn joined(one: &DataType, other: &DataType) -> DataType {
    match (field_type(one), field_type(other)) {
        (Some(one), Some(other)) => arrow_type(one.join(other)),
        _ if one == other => one.clone(),
        _ => DataType::Utf8,
    }
}

fn field_type(data_type: &DataType) -> Option<FieldType> {
    Some(match data_type {
        DataType::Utf8 => FieldType::Utf8,
        DataType::Int32 => FieldType::Int32,
        DataType::Int64 => FieldType::Int64,
        DataType::Float64 => FieldType::Float64,
        DataType::Boolean => FieldType::Boolean,
        DataType::Decimal128(precision, scale) => FieldType::Decimal { precision: *precision, scale: *scale },
        DataType::Timestamp(..) => FieldType::TimestampMs,
        _ => return None,
    })
}

#[derive(Debug)]
struct LakeTable {
    schema: SchemaRef,
    files: Vec<ObjectMeta>,
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let mut source = ParquetSource::new(Arc::clone(&self.schema))
            .with_table_parquet_options(state.table_options().parquet.clone())
            .with_pushdown_filters(true);
        if let Some(filter) = conjunction(filters.to_vec()) {
            let schema = DFSchema::try_from(Arc::clone(&self.schema))?;
            source = source.with_predicate(state.create_physical_expr(filter, &schema)?);
        }
        let files = self.files.iter().cloned().map(PartitionedFile::from).collect();
        let groups = FileGroup::new(files).split_files(state.config().target_partitions());
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(URL)?, Arc::new(source))
            .with_file_groups(groups)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit.filter(|_| filters.is_empty()))
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}
