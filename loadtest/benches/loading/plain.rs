//! The upsert as one would write it down.

use std::sync::Arc;

use anyhow::Context;
use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use bytes::{Bytes, BytesMut};
use deadpool_postgres::Object;
use futures::SinkExt;
use pgpq::ArrowToPostgresBinaryEncoder;
use pgpq::encoders::{EncoderBuilder, StringEncoderBuilder};
use pgpq::pg_schema::PostgresType;

const COLUMNS: [&str; 11] = [
    "sale_id",
    "occurred_at",
    "user_id",
    "product_id",
    "store_id",
    "amount",
    "currency",
    "quantity",
    "source",
    "updated_at",
    "attributes",
];

const TEMPORARY: &str = "CREATE TEMPORARY TABLE incoming (sale_id uuid, occurred_at timestamptz, user_id text, product_id text, \
    store_id text, amount numeric(12, 2), currency text, quantity int4, source text, updated_at timestamptz, attributes jsonb) \
    ON COMMIT DROP";

const UPSERT: &str = "INSERT INTO warehouse.plain_sales AS t (sale_id, occurred_at, user_key, product_key, store_key, amount, currency, \
    quantity, source, updated_at, attributes) \
    SELECT i.sale_id, i.occurred_at, u.user_key, p.product_key, s.store_key, i.amount, i.currency, i.quantity, i.source, i.updated_at, i.attributes \
    FROM incoming i JOIN warehouse.dim_users u USING (user_id) JOIN warehouse.dim_products p USING (product_id) \
    JOIN warehouse.dim_stores s USING (store_id) \
    ON CONFLICT (sale_id, occurred_at) DO UPDATE SET user_key = EXCLUDED.user_key, product_key = EXCLUDED.product_key, \
    store_key = EXCLUDED.store_key, amount = EXCLUDED.amount, currency = EXCLUDED.currency, quantity = EXCLUDED.quantity, \
    source = EXCLUDED.source, updated_at = EXCLUDED.updated_at, attributes = EXCLUDED.attributes \
    WHERE t.updated_at < EXCLUDED.updated_at";

/// A stream for binary COPY.
pub(super) fn encode(rows: &RecordBatch) -> anyhow::Result<Bytes> {
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for name in COLUMNS {
        let column = rows.column_by_name(name).context("rows have every column")?;
        let column = match name {
            "sale_id" => {
                let ids =
                    column.as_string::<i32>().iter().flatten().map(|id| Ok(uuid::Uuid::try_parse(id)?.into_bytes()));
                let ids = ids.collect::<anyhow::Result<Vec<_>>>()?;
                Arc::new(arrow::array::FixedSizeBinaryArray::try_from_iter(ids.iter())?)
            }
            "occurred_at" | "updated_at" => {
                cast(column, &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))?
            }
            _ => Arc::clone(column),
        };
        fields.push(Field::new(name, column.data_type().clone(), true));
        columns.push(column);
    }
    let schema = Arc::new(Schema::new(fields));
    let mut builders: std::collections::HashMap<String, EncoderBuilder> =
        pgpq::build_encoders(schema.fields())?.into_iter().collect();
    let jsonb = StringEncoderBuilder::new_with_output(
        Arc::new(Field::new("attributes", DataType::Utf8, true)),
        PostgresType::Jsonb,
    )?;
    builders.insert("attributes".to_owned(), EncoderBuilder::String(jsonb));
    let mut encoder = ArrowToPostgresBinaryEncoder::try_new_with_encoders(&schema, &builders)?;
    let mut buffer = BytesMut::new();
    encoder.write_header(&mut buffer)?;
    encoder.write_batch(&RecordBatch::try_new(schema, columns)?, &mut buffer)?;
    encoder.write_footer(&mut buffer)?;
    Ok(buffer.freeze())
}

pub(super) async fn upsert(client: &mut Object, rows: &Bytes) -> anyhow::Result<()> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(TEMPORARY).await?;
    let sink = transaction.copy_in("COPY incoming FROM STDIN (FORMAT binary)").await?;
    let mut sink = std::pin::pin!(sink);
    let mut rest = rows.clone();
    while !rest.is_empty() {
        let chunk = rest.split_to(rest.len().min(256 * 1024));
        sink.feed(chunk).await?;
    }
    sink.finish().await?;
    transaction.execute(UPSERT, &[]).await?;
    transaction.commit().await?;
    Ok(())
}
