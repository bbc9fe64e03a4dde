//! Replays: positions moved back, and what is committed over the offsets that are read again.

use deadpool_postgres::GenericClient;

use super::{CatalogError, SourcePartitionId};
use crate::types::{Fence, MicroBatchId, ObjectClaim, ObjectLocation, ObjectVersion, OffsetRange, Overwrite};

/// A live micro-batch or a skipped range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoveredRange {
    pub id: MicroBatchId,
    pub offsets: OffsetRange,
    pub skipped: bool,
}

/// Moves the position back to `requested`, aligned to the start of the live micro-batch that contains it; the replay
/// ends at `until`. Two statements: call it in a transaction. `None`: fenced.
pub async fn accept_replay(
    client: &impl GenericClient,
    id: SourcePartitionId,
    fence: Fence,
    requested: i64,
    until: i64,
) -> Result<Option<i64>, CatalogError> {
    let failed = || CatalogError::query("accept a replay");
    let row = client
        .query_opt(include_str!("sql/accept_replay.sql"), &[&id.0, &fence.0, &requested, &until])
        .await
        .map_err(failed())?;
    let Some(row) = row else { return Ok(None) };
    let start: i64 = row.get("next_offset");
    client
        .execute(include_str!("sql/insert_replay.sql"), &[&id.0, &requested, &start, &until])
        .await
        .map_err(failed())?;
    Ok(Some(start))
}

/// Moves the position to `end`, which ends a replay under way. `false`: fenced.
pub async fn cancel_replay(
    client: &impl GenericClient,
    id: SourcePartitionId,
    fence: Fence,
    end: i64,
) -> Result<bool, CatalogError> {
    let row = client
        .query_opt(include_str!("sql/cancel_replay.sql"), &[&id.0, &fence.0, &end])
        .await
        .map_err(CatalogError::query("cancel a replay"))?;
    Ok(row.is_some())
}

/// Notes that the position has reached the end of the replay.
pub async fn finish_replay(client: &impl GenericClient, id: SourcePartitionId, next: i64) -> Result<(), CatalogError> {
    client
        .execute(include_str!("sql/finish_replay.sql"), &[&id.0, &next])
        .await
        .map_err(CatalogError::query("finish a replay"))?;
    Ok(())
}

/// Moves the position over a micro-batch that stays as it is. `false`: fenced.
pub async fn pass_over(
    client: &impl GenericClient,
    id: SourcePartitionId,
    fence: Fence,
    offsets: OffsetRange,
) -> Result<bool, CatalogError> {
    let changed = client
        .execute(include_str!("sql/pass_over.sql"), &[&id.0, &fence.0, &offsets.first(), &offsets.next()])
        .await
        .map_err(CatalogError::query("pass over a micro-batch"))?;
    Ok(changed == 1)
}

/// What is committed from `from` on, in the order of offsets. A range that contains `from` comes whole.
pub async fn covered(
    client: &impl GenericClient,
    id: SourcePartitionId,
    from: i64,
) -> Result<Vec<CoveredRange>, CatalogError> {
    let rows = client
        .query(include_str!("sql/select_covered.sql"), &[&id.0, &from])
        .await
        .map_err(CatalogError::query("list what is committed"))?;
    let range = |row: &tokio_postgres::Row| {
        Some(CoveredRange {
            id: MicroBatchId(row.get("micro_batch_id")),
            offsets: OffsetRange::new(row.get("first"), row.get("next"))?,
            skipped: row.get::<_, &str>("state") == "skipped",
        })
    };
    Ok(rows.iter().filter_map(range).collect())
}

/// The claims of a micro-batch.
pub async fn claims_of(client: &impl GenericClient, id: MicroBatchId) -> Result<Vec<ObjectClaim>, CatalogError> {
    let rows = client
        .query(include_str!("sql/select_replaced_claims.sql"), &[&id.0])
        .await
        .map_err(CatalogError::query("list the claims of a micro-batch"))?;
    let claim = |row: &tokio_postgres::Row| ObjectClaim {
        version: ObjectVersion {
            location: ObjectLocation { bucket: row.get("bucket"), key: row.get("key") },
            version: row.get("version"),
            etag: row.get("etag"),
            last_modified: row.get("last_modified"),
            size_bytes: row.get::<_, i64>("size_bytes").unsigned_abs(),
        },
        message_offset: row.get("message_offset"),
        record: row.get("record"),
        connector: row.get("connector"),
        quarantined: row.get::<_, &str>("outcome") == "quarantined",
        announced_at: row.get("announced_at"),
        overwrite: Overwrite::parse(row.get("overwrite")),
    };
    Ok(rows.iter().map(claim).collect())
}

/// Whether a live micro-batch of the group emitted a newer version of the object.
pub async fn newer_is_claimed(
    client: &impl GenericClient,
    cluster_id: &str,
    consumer_group: &str,
    version: &ObjectVersion,
) -> Result<bool, CatalogError> {
    let location = &version.location;
    let row = client
        .query_one(
            include_str!("sql/select_newer_claim.sql"),
            &[&cluster_id, &consumer_group, &location.bucket, &location.key, &version.last_modified],
        )
        .await
        .map_err(CatalogError::query("look for a newer version of an object"))?;
    Ok(row.get(0))
}

/// Marks what is committed over `offsets` dead, in favour of `by`, which is inserted afterwards; returns it, with
/// whether the warehouse must hear of it. Claims of what is dead go.
pub async fn supersede(
    client: &impl GenericClient,
    id: SourcePartitionId,
    offsets: OffsetRange,
    by: MicroBatchId,
) -> Result<Vec<(CoveredRange, bool)>, CatalogError> {
    let rows = client
        .query(include_str!("sql/supersede.sql"), &[&id.0, &offsets.first(), &offsets.next(), &by.0])
        .await
        .map_err(CatalogError::query("supersede micro-batches"))?;
    let range = |row: &tokio_postgres::Row| {
        let covered = CoveredRange {
            id: MicroBatchId(row.get("micro_batch_id")),
            offsets: OffsetRange::new(row.get("first"), row.get("next"))?,
            skipped: row.get::<_, &str>("state") == "skipped",
        };
        Some((covered, row.get("needs_load")))
    };
    let dead: Vec<(CoveredRange, bool)> = rows.iter().filter_map(range).collect();
    let ids: Vec<uuid::Uuid> = dead.iter().map(|(range, _)| range.id.0).collect();
    client
        .execute(include_str!("sql/delete_claims.sql"), &[&ids])
        .await
        .map_err(CatalogError::query("give up the claims of superseded micro-batches"))?;
    Ok(dead)
}

/// The replay of each topic partition of a group, the newest of each.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ReplayStatus {
    pub topic: String,
    pub topic_partition: i32,
    pub requested_offset: i64,
    pub start_offset: i64,
    pub until_offset: i64,
    /// Where it stands; its end where it is over.
    pub position: i64,
    /// Micro-batches that it has replaced so far.
    pub replaced_count: i64,
    pub accepted_at: chrono::DateTime<chrono::Utc>,
    pub ended_at: Option<chrono::DateTime<chrono::Utc>>,
    /// `running`, or how it ended.
    pub state: String,
}

/// How far a replay is.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct ReplayProgress {
    /// Of its offsets. `None` where it was cancelled or replaced: nobody noted how far it had come.
    pub percent: Option<f64>,
    /// On average since it was accepted.
    pub offsets_per_s: Option<f64>,
    pub seconds_left: Option<f64>,
}

impl ReplayStatus {
    pub fn progress(&self, now: chrono::DateTime<chrono::Utc>) -> ReplayProgress {
        if !matches!(self.state.as_str(), "running" | "finished") {
            return ReplayProgress::default();
        }
        let (done, whole) = (self.position - self.start_offset, self.until_offset - self.start_offset);
        let seconds = (self.ended_at.unwrap_or(now) - self.accepted_at).num_milliseconds() as f64 / 1000.0;
        let offsets_per_s = (done > 0 && seconds > 0.0).then(|| done as f64 / seconds);
        let left = self.ended_at.is_none().then_some((whole - done) as f64);
        ReplayProgress {
            percent: Some(100.0 * done as f64 / whole as f64),
            offsets_per_s,
            seconds_left: left.zip(offsets_per_s).map(|(left, speed)| left / speed),
        }
    }
}

pub async fn replays(client: &impl GenericClient, group: &str) -> Result<Vec<ReplayStatus>, CatalogError> {
    let rows = client
        .query(include_str!("sql/select_replays.sql"), &[&group])
        .await
        .map_err(CatalogError::query("list the replays"))?;
    let status = |row: &tokio_postgres::Row| ReplayStatus {
        topic: row.get("topic"),
        topic_partition: row.get("topic_partition"),
        requested_offset: row.get("requested_offset"),
        start_offset: row.get("start_offset"),
        until_offset: row.get("until_offset"),
        position: row.get("position"),
        replaced_count: row.get("replaced_count"),
        accepted_at: row.get("accepted_at"),
        ended_at: row.get("ended_at"),
        state: row.get("state"),
    };
    Ok(rows.iter().map(status).collect())
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).expect("in range")
    }

    fn status(position: i64, state: &str, ended_at: Option<i64>) -> ReplayStatus {
        ReplayStatus {
            topic: "topic".into(),
            topic_partition: 0,
            requested_offset: 12,
            start_offset: 10,
            until_offset: 50,
            position,
            replaced_count: 1,
            accepted_at: at(100),
            ended_at: ended_at.map(at),
            state: state.into(),
        }
    }

    #[test]
    fn progress_is_told_by_offsets_and_the_time_left_by_the_speed_so_far() {
        let running = status(20, "running", None).progress(at(105));
        let told = ReplayProgress { percent: Some(25.0), offsets_per_s: Some(2.0), seconds_left: Some(15.0) };
        assert_eq!(running, told);
        let begun = status(10, "running", None).progress(at(105));
        assert_eq!(begun, ReplayProgress { percent: Some(0.0), ..ReplayProgress::default() });
        let finished = status(50, "finished", Some(110)).progress(at(999));
        assert_eq!(finished, ReplayProgress { percent: Some(100.0), offsets_per_s: Some(4.0), seconds_left: None });
        assert_eq!(status(50, "cancelled", Some(110)).progress(at(999)), ReplayProgress::default());
    }
}
