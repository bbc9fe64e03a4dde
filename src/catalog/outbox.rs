//! Manifests waiting to be sent to downstream consumers, at least once.

use deadpool_postgres::GenericClient;

use super::CatalogError;

#[derive(Debug, Clone)]
pub struct OutboxEntry {
    pub outbox_id: i64,
    pub topic: String,
    pub message_key: String,
    pub payload: serde_json::Value,
}

/// `pg_advisory_xact_lock` of whoever sends: the letters `sluice_o`.
const OUTBOX_LOCK: i64 = 0x736c_7569_6365_5f6f;

/// Takes up to `count` unsent entries for whoever sends until the transaction ends; none where somebody else does, for
/// two would send them out of order.
pub async fn unsent(client: &impl GenericClient, count: i64) -> Result<Vec<OutboxEntry>, CatalogError> {
    let locked = client
        .query_one("SELECT pg_try_advisory_xact_lock($1)", &[&OUTBOX_LOCK])
        .await
        .map_err(CatalogError::query("lock the outbox"))?;
    if !locked.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let rows = client
        .query(include_str!("sql/select_unsent_outbox.sql"), &[&count])
        .await
        .map_err(CatalogError::query("read unsent manifests"))?;
    let entry = |row: &tokio_postgres::Row| OutboxEntry {
        outbox_id: row.get(0),
        topic: row.get(1),
        message_key: row.get(2),
        payload: row.get(3),
    };
    Ok(rows.iter().map(entry).collect())
}

/// How far the outbox has come: entries unsent, and entries ever made (those of a transaction that is not committed yet
/// count, too).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxProgress {
    pub unsent: i64,
    pub made: i64,
}

impl OutboxProgress {
    /// At most so many entries were sent since `earlier`.
    pub fn sent_since(self, earlier: Self) -> i64 {
        earlier.unsent + self.made - earlier.made
    }
}

pub async fn outbox_progress(client: &impl GenericClient) -> Result<OutboxProgress, CatalogError> {
    let row = client
        .query_one(include_str!("sql/select_outbox_progress.sql"), &[])
        .await
        .map_err(CatalogError::query("look how far the outbox has come"))?;
    Ok(OutboxProgress { unsent: row.get("unsent"), made: row.get("made") })
}

pub async fn mark_sent(client: &impl GenericClient, ids: &[i64]) -> Result<(), CatalogError> {
    client
        .execute(include_str!("sql/mark_sent.sql"), &[&ids])
        .await
        .map_err(CatalogError::query("mark manifests sent"))?;
    Ok(())
}
