//! How often an ownership or a message was begun and is not known to have ended alive.

use deadpool_postgres::GenericClient;
use uuid::Uuid;

use super::{CatalogError, SourcePartitionId};
use crate::types::Fence;

/// An ownership that begins at `position`, with messages ahead.
#[derive(Debug, Clone, Copy)]
pub struct OwnershipBegin<'a> {
    pub id: SourcePartitionId,
    pub fence: Fence,
    pub position: i64,
    /// Where messages need no more care if they do now.
    pub stretch_end: i64,
    /// Ownerships without a commit before messages are read one at a time.
    pub attempts_max: u32,
    pub process: &'a str,
}

/// Counts an ownership. Returns the offset before which messages are to be read one at a time, if any are.
pub async fn begin_ownership(
    client: &impl GenericClient,
    begin: OwnershipBegin<'_>,
) -> Result<Option<i64>, CatalogError> {
    let attempts_max = i32::try_from(begin.attempts_max).unwrap_or(i32::MAX);
    let row = client
        .query_one(
            include_str!("sql/begin_ownership.sql"),
            &[&begin.id.0, &begin.fence.0, &begin.position, &begin.stretch_end, &attempts_max, &begin.process],
        )
        .await
        .map_err(CatalogError::query("count an ownership"))?;
    Ok(row.get(0))
}

/// The ownership of `fence`, which began at `position`, has ended alive.
pub async fn end_ownership(
    client: &impl GenericClient,
    id: SourcePartitionId,
    position: i64,
    fence: Fence,
) -> Result<(), CatalogError> {
    client
        .execute(include_str!("sql/end_ownership.sql"), &[&id.0, &position, &fence.0])
        .await
        .map_err(CatalogError::query("record that an ownership has ended"))?;
    Ok(())
}

/// Counts an attempt at a message, once however often it is called with the same `attempt`. Returns how many there
/// are now. `None`: fenced.
pub async fn begin_attempt(
    client: &impl GenericClient,
    id: SourcePartitionId,
    fence: Fence,
    offset: i64,
    attempt: Uuid,
    process: &str,
) -> Result<Option<u32>, CatalogError> {
    let row = client
        .query_opt(include_str!("sql/begin_attempt.sql"), &[&id.0, &fence.0, &offset, &attempt, &process])
        .await
        .map_err(CatalogError::query("count an attempt"))?;
    Ok(row.map(|row| row.get::<_, i32>(0).unsigned_abs()))
}

/// The attempt ended alive, and says nothing about the message.
pub async fn withdraw_attempt(
    client: &impl GenericClient,
    id: SourcePartitionId,
    offset: i64,
    attempt: Uuid,
) -> Result<(), CatalogError> {
    client
        .execute(include_str!("sql/withdraw_attempt.sql"), &[&id.0, &offset, &attempt])
        .await
        .map_err(CatalogError::query("withdraw an attempt"))?;
    Ok(())
}

/// The message did no harm.
pub async fn pass_attempt(
    client: &impl GenericClient,
    id: SourcePartitionId,
    offset: i64,
    attempt: Uuid,
) -> Result<(), CatalogError> {
    client
        .execute(include_str!("sql/pass_attempt.sql"), &[&id.0, &offset, &attempt])
        .await
        .map_err(CatalogError::query("forget the attempts at a message"))?;
    Ok(())
}
