//! Sends the manifests of committed micro-batches to downstream consumers, at least once.

use deadpool_postgres::Pool;
use futures::future::try_join_all;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;

use super::PublishError;
use crate::catalog::{self, CatalogError};
use crate::client::kafka::KafkaError;
use crate::client::postgres;
use crate::telemetry::metrics;

const ENTRIES_PER_ROUND: i64 = 256;

/// Sends one round of unsent manifests in the order of their commits; returns how many.
///
/// One worker sends at a time, in order; a crash after the acknowledgement and before the mark sends them again.
pub async fn send_outbox(catalog: &Pool, producer: &FutureProducer) -> Result<usize, PublishError> {
    let mut client = postgres::get(catalog).await.map_err(CatalogError::Connect)?;
    let transaction = client.transaction().await.map_err(CatalogError::query("begin sending manifests"))?;
    let entries = catalog::unsent(&transaction, ENTRIES_PER_ROUND).await?;
    if entries.is_empty() {
        return Ok(0);
    }
    let sends = entries.iter().map(|entry| async move {
        let payload = entry.payload.to_string();
        let record = FutureRecord::to(&entry.topic).key(&entry.message_key).payload(&payload);
        let sent = producer.send(record, Timeout::Never).await;
        sent.map_err(|(source, _)| KafkaError::Send { topic: entry.topic.clone(), source })
    });
    try_join_all(sends).await?;
    crate::telemetry::fail_point!("outbox.sent", PublishError::Catalog);
    let ids: Vec<i64> = entries.iter().map(|entry| entry.outbox_id).collect();
    catalog::mark_sent(&transaction, &ids).await?;
    transaction.commit().await.map_err(CatalogError::query("mark manifests sent"))?;
    for entry in &entries {
        metrics().outbox_sent.with_label_values(&[&entry.topic]).inc();
    }
    Ok(entries.len())
}
