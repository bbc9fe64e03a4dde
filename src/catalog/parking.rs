//! Connectors that are stopped, and the objects that wait for them.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use deadpool_postgres::GenericClient;
use serde::Serialize;

use super::{CatalogError, PartitionKey};
use crate::types::{MicroBatchId, ParkedObject};

#[derive(Debug, Clone, Serialize)]
pub struct ParkedConnector {
    pub connector: String,
    pub reason: String,
    pub parked_at: DateTime<Utc>,
    /// A process, or a person.
    pub parked_by: String,
    /// Objects that wait for `resume`.
    pub objects: i64,
}

pub async fn parked_connectors(client: &impl GenericClient, group: &str) -> Result<Vec<ParkedConnector>, CatalogError> {
    let rows = client
        .query(include_str!("sql/select_parked.sql"), &[&group])
        .await
        .map_err(CatalogError::query("list the parked connectors"))?;
    let parked = |row: &tokio_postgres::Row| ParkedConnector {
        connector: row.get("connector"),
        reason: row.get("reason"),
        parked_at: row.get("parked_at"),
        parked_by: row.get("parked_by"),
        objects: row.get("object_count"),
    };
    Ok(rows.iter().map(parked).collect())
}

/// `false`: it is parked already, and its reason stands.
pub async fn park_connector(
    client: &impl GenericClient,
    group: &str,
    connector: &str,
    reason: &str,
    by: &str,
) -> Result<bool, CatalogError> {
    let inserted = client
        .execute(include_str!("sql/park_connector.sql"), &[&group, &connector, &reason, &by])
        .await
        .map_err(CatalogError::query("park a connector"))?;
    Ok(inserted == 1)
}

/// Ends the parking and announces what waits, through the outbox. Two statements: call it in a transaction.
/// Returns the number of objects; `None`: it is not parked.
pub async fn resume_connector(
    client: &impl GenericClient,
    group: &str,
    connector: &str,
) -> Result<Option<u64>, CatalogError> {
    let failed = || CatalogError::query("resume a connector");
    let delete = "DELETE FROM catalog.parked_connector WHERE consumer_group = $1 AND connector = $2";
    if client.execute(delete, &[&group, &connector]).await.map_err(failed())? == 0 {
        return Ok(None);
    }
    let announced =
        client.execute(include_str!("sql/announce_parked.sql"), &[&group, &connector]).await.map_err(failed())?;
    Ok(Some(announced))
}

/// Keeps what is parked for `resume`; announces again what was resumed while the micro-batch was built.
pub async fn insert_parked_objects(
    client: &impl GenericClient,
    key: &PartitionKey,
    id: MicroBatchId,
    objects: &[ParkedObject],
) -> Result<(), CatalogError> {
    let failed = || CatalogError::query("keep the parked objects of a micro-batch");
    let column = |text: fn(&ParkedObject) -> &str| objects.iter().map(text).collect::<Vec<_>>();
    let connectors = column(|object| &object.connector);
    let held = client
        .query(include_str!("sql/hold_parked.sql"), &[&key.consumer_group, &connectors])
        .await
        .map_err(failed())?;
    let held: HashSet<String> = held.iter().map(|row| row.get(0)).collect();
    client
        .execute(
            include_str!("sql/insert_parked_objects.sql"),
            &[
                &id.0,
                &objects.iter().map(|object| object.message_offset).collect::<Vec<_>>(),
                &objects.iter().map(|object| object.record).collect::<Vec<_>>(),
                &connectors,
                &column(|object| &object.bucket),
                &column(|object| &object.key),
                &objects.iter().map(|object| object.version.as_deref()).collect::<Vec<_>>(),
                &objects.iter().map(|object| &object.announcement).collect::<Vec<_>>(),
                &connectors.iter().map(|connector| held.contains(*connector)).collect::<Vec<_>>(),
                &key.topic_partition.topic.as_ref(),
            ],
        )
        .await
        .map_err(failed())?;
    Ok(())
}
