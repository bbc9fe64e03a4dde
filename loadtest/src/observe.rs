//! What is there: rows of the lake, dead letters, rows of the warehouse.

use anyhow::{Context, Result, bail};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, Int32Type, Int64Type, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::Endpoints;
use crate::canonical::{self, Canonical, bytes_hash, row_hash};
use crate::formats::FileFormat;
use crate::generate::{Dataset, Table};

/// Where a row comes from: topic partition, offset, record, row.
pub type Lineage = (String, i64, i32, i64);

/// A row of a data file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LakeRow {
    pub dataset: Dataset,
    pub file: String,
    pub lineage: Lineage,
    pub batch: String,
    pub key: String,
    pub order: i64,
    pub hash: u128,
}

/// A row of a dead letter file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterRow {
    pub dataset: Option<Dataset>,
    pub file: String,
    pub lineage: (String, i64, Option<i32>, Option<i64>),
    pub reason: String,
    pub bytes_hash: u128,
}

/// A row of the warehouse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarehouseRow {
    pub table: Table,
    pub key: String,
    pub hash: u128,
    /// Of a dimension: known from facts only.
    pub inferred: bool,
}

/// Everything there is.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    pub lake: Vec<LakeRow>,
    pub dead_letters: Vec<DeadLetterRow>,
    pub warehouse: Vec<WarehouseRow>,
    pub files: usize,
}

const GETS_IN_FLIGHT: usize = 8;

/// Reads lake and warehouse whole.
pub async fn observe(endpoints: &Endpoints) -> Result<Observed> {
    let mut observed = Observed { warehouse: warehouse(endpoints).await?, ..Observed::default() };
    let s3 = endpoints.lake.client();
    for (prefix, data) in [("data/", true), ("dead-letters/", false)] {
        let keys = list(&s3, &endpoints.lake_bucket, prefix).await?;
        observed.files += keys.len();
        let mut files =
            stream::iter(keys).map(|key| get(&s3, &endpoints.lake_bucket, key)).buffer_unordered(GETS_IN_FLIGHT);
        while let Some((key, bytes)) = files.try_next().await? {
            let batches = read_parquet(&key, bytes)?;
            for batch in &batches {
                if data {
                    observed.lake.extend(lake_rows(&key, batch)?);
                } else {
                    observed.dead_letters.extend(dead_letter_rows(&key, batch)?);
                }
            }
        }
    }
    Ok(observed)
}

async fn list(s3: &aws_sdk_s3::Client, bucket: &str, prefix: &str) -> Result<Vec<String>> {
    let mut pages = s3.list_objects_v2().bucket(bucket).prefix(prefix).into_paginator().send();
    let mut keys = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.with_context(|| format!("could not list {prefix} of bucket {bucket}"))?;
        keys.extend(page.contents().iter().filter_map(|object| object.key().map(ToOwned::to_owned)));
    }
    Ok(keys.into_iter().filter(|key| key.ends_with(".parquet")).collect())
}

async fn get(s3: &aws_sdk_s3::Client, bucket: &str, key: String) -> Result<(String, Bytes)> {
    let object =
        s3.get_object().bucket(bucket).key(&key).send().await.with_context(|| format!("could not read {key}"))?;
    let bytes = object.body.collect().await.with_context(|| format!("could not read {key}"))?.into_bytes();
    Ok((key, bytes))
}

fn read_parquet(key: &str, bytes: Bytes) -> Result<Vec<RecordBatch>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .with_context(|| format!("{key} is no Parquet"))?;
    reader.collect::<Result<_, _>>().with_context(|| format!("{key} cannot be read"))
}

/// `data/<connector>/…`
fn dataset_of(key: &str) -> Option<Dataset> {
    FileFormat::dataset(key.split('/').nth(1)?)
}

fn value(batch: &RecordBatch, name: &str, row: usize) -> Result<Canonical> {
    let column = batch.column_by_name(name).with_context(|| format!("column {name} is missing"))?;
    if column.is_null(row) {
        return Ok(None);
    }
    let text = match column.data_type() {
        DataType::Utf8 => {
            let text = column.as_string::<i32>().value(row);
            if matches!(name, "attributes" | "properties" | "_rescued") {
                canonical::json(text)
            } else {
                text.to_owned()
            }
        }
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Decimal128(_, _) => column.as_primitive::<Decimal128Type>().value_as_string(row),
        DataType::Timestamp(_, _) => column.as_primitive::<TimestampMillisecondType>().value(row).to_string(),
        other => bail!("column {name} has the unexpected type {other}"),
    };
    Ok(Some(text))
}

fn required(batch: &RecordBatch, name: &str, row: usize) -> Result<String> {
    value(batch, name, row)?.with_context(|| format!("column {name} is null"))
}

fn key_of(dataset: Dataset, value: impl Fn(&str) -> Result<String>) -> Result<String> {
    Ok(match dataset {
        Dataset::Transactions => format!("{}@{}", value("transaction_id")?, value("occurred_at")?),
        Dataset::Events | Dataset::DirectEvents => format!("{}@{}", value("event_id")?, value("occurred_at")?),
        Dataset::Users => value("user_id")?,
        Dataset::Products => value("product_id")?,
    })
}

fn lake_rows(key: &str, batch: &RecordBatch) -> Result<Vec<LakeRow>> {
    let dataset = dataset_of(key).with_context(|| format!("{key} belongs to no dataset of the load tool"))?;
    let mut names = dataset.columns().to_vec();
    if dataset == Dataset::Events {
        names.push("_rescued");
    }
    let row = |row: usize| -> Result<LakeRow> {
        let values = names.iter().map(|name| value(batch, name, row)).collect::<Result<Vec<_>>>()?;
        let order = value(batch, "updated_at", row).ok().flatten().and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(LakeRow {
            dataset,
            file: key.to_owned(),
            lineage: (
                required(batch, "_topic_partition", row)?,
                required(batch, "_offset", row)?.parse()?,
                required(batch, "_record", row)?.parse()?,
                required(batch, "_row", row)?.parse()?,
            ),
            batch: required(batch, "_batch", row)?,
            key: key_of(dataset, |name| required(batch, name, row))?,
            order,
            hash: row_hash(&values),
        })
    };
    (0..batch.num_rows()).map(row).collect::<Result<_>>().with_context(|| format!("{key} has an unexpected row"))
}

fn dead_letter_rows(key: &str, batch: &RecordBatch) -> Result<Vec<DeadLetterRow>> {
    let bytes = batch.column_by_name("bytes").context("column bytes is missing")?.as_binary::<i32>();
    let row = |row: usize| -> Result<DeadLetterRow> {
        let number =
            |name: &str| -> Result<Option<i64>> { Ok(value(batch, name, row)?.map(|text| text.parse()).transpose()?) };
        Ok(DeadLetterRow {
            dataset: dataset_of(key),
            file: key.to_owned(),
            lineage: (
                required(batch, "_topic_partition", row)?,
                required(batch, "_offset", row)?.parse()?,
                number("_record")?.map(|record| record as i32),
                number("_row")?,
            ),
            reason: required(batch, "reason", row)?,
            bytes_hash: bytes_hash(bytes.value(row)),
        })
    };
    (0..batch.num_rows()).map(row).collect::<Result<_>>().with_context(|| format!("{key} has an unexpected row"))
}

/// Each table's query gives the hashed columns as text, then `inferred` for dimensions.
fn query(table: Table) -> &'static str {
    match table {
        Table::Transactions => {
            "SELECT f.transaction_id::text, nullif(u.user_id, ''), nullif(p.product_id, ''), f.amount::text, f.currency,
                    f.quantity::text, f.source, round(extract(epoch FROM f.occurred_at) * 1000)::bigint::text,
                    round(extract(epoch FROM f.updated_at) * 1000)::bigint::text, f.attributes::text
               FROM warehouse.fact_transactions f
               LEFT JOIN warehouse.dim_users u USING (user_key) LEFT JOIN warehouse.dim_products p USING (product_key)"
        }
        Table::Events => {
            "SELECT f.event_id::text, nullif(u.user_id, ''), nullif(p.product_id, ''), f.event_type, f.session_id,
                    f.source, round(extract(epoch FROM f.occurred_at) * 1000)::bigint::text, f.properties::text
               FROM warehouse.fact_events f
               LEFT JOIN warehouse.dim_users u USING (user_key) LEFT JOIN warehouse.dim_products p USING (product_key)"
        }
        Table::Users => {
            "SELECT user_id, email, name, country, source,
                    round(extract(epoch FROM updated_at) * 1000)::bigint::text, inferred
               FROM warehouse.dim_users WHERE user_key <> 0"
        }
        Table::Products => {
            "SELECT product_id, name, brand, category, price::text, currency, source,
                    round(extract(epoch FROM updated_at) * 1000)::bigint::text, inferred
               FROM warehouse.dim_products WHERE product_key <> 0"
        }
    }
}

async fn warehouse(endpoints: &Endpoints) -> Result<Vec<WarehouseRow>> {
    let client = endpoints.warehouse().await?;
    let mut found = Vec::new();
    for dataset in Dataset::OBJECTS {
        let (table, names) = (dataset.table(), dataset.columns());
        let rows = client.query(query(table), &[]).await.with_context(|| format!("could not read {table:?}"))?;
        for row in rows {
            let values: Vec<Canonical> = names
                .iter()
                .enumerate()
                .map(|(index, name)| {
                    let text: Canonical = row.get(index);
                    if matches!(*name, "attributes" | "properties") {
                        text.map(|text| canonical::json(&text))
                    } else {
                        text
                    }
                })
                .collect();
            let named = |name: &str| -> Result<String> {
                let index = names.iter().position(|known| *known == name).context("a column of the table")?;
                values[index].clone().with_context(|| format!("{table:?}: {name} is null"))
            };
            found.push(WarehouseRow {
                table,
                key: key_of(*dataset, named)?,
                hash: row_hash(&values),
                inferred: row.len() > names.len() && row.get::<_, bool>(names.len()),
            });
        }
    }
    Ok(found)
}
