//! The one transaction of a load, step by step. See the module's *Ordering*.

use std::collections::{BTreeMap, BTreeSet};

use deadpool_postgres::{Object, Transaction};
use futures::SinkExt;
use tokio_postgres::IsolationLevel;

use super::error::LoadError;
use super::locks::{LockSet, SHARD_COUNT, shard_lock};
use super::plan::{Link, TableKind, TablePlan};
use super::{BatchToLoad, LoadCounts, LoadOutcome, PreparedPart, TableCounts, merge_sql};
use crate::catalog::CatalogError;
use crate::types::MicroBatchId;

/// Of this transaction alone: room to sort by key and to join dimensions.
const SESSION: &str = "SET LOCAL work_mem = '64MB'";

/// Natural keys that facts name and that are no members yet, by dimension.
type MissingMembers<'a> = BTreeMap<&'a str, (&'a Link, BTreeSet<String>)>;

pub(super) async fn is_loaded(client: &Object, id: MicroBatchId) -> Result<bool, LoadError> {
    let row = client
        .query_one(include_str!("sql/select_load_state.sql"), &[&id.0])
        .await
        .map_err(LoadError::query("read which micro-batches are loaded"))?;
    Ok(row.get(0))
}

/// Facts that name nobody point at it, so it must be there.
pub(super) async fn check_unknown_members(client: &Object, plan: &TablePlan) -> Result<(), LoadError> {
    for link in plan.links() {
        let row = client
            .query_one(&merge_sql::unknown_member_exists(link), &[])
            .await
            .map_err(LoadError::query(format!("look for the unknown member of {}", link.table)))?;
        if !row.get::<_, bool>(0) {
            let (table, natural_key, member_key) = (&link.table, &link.natural_key, &link.member_key);
            let problem = format!(
                "warehouse.{table} lacks the unknown member: a row with {member_key} = 0 and {natural_key} = ''"
            );
            return Err(LoadError::Mismatch { connector: plan.connector.clone(), problem });
        }
    }
    Ok(())
}

pub(super) async fn load_prepared<F>(
    client: &mut Object,
    batch: &BatchToLoad,
    parts: &[PreparedPart],
    still_live: F,
) -> Result<LoadOutcome, LoadError>
where
    F: AsyncFnOnce() -> Result<bool, CatalogError>,
{
    let missing = missing_members(client, parts).await?;
    let transaction = client
        .build_transaction()
        // Each statement must see what others committed while we waited for a lock.
        .isolation_level(IsolationLevel::ReadCommitted)
        .start()
        .await
        .map_err(LoadError::query("begin a load"))?;
    transaction.batch_execute(SESSION).await.map_err(LoadError::query("begin a load"))?;
    for (number, part) in parts.iter().enumerate() {
        copy_in(&transaction, number, part).await?;
    }
    crate::telemetry::fail_point!("load.copied", LoadError::StillLive);
    lock_shards(&transaction, &locks(parts, &missing)).await?;
    crate::telemetry::fail_point!("load.locked", LoadError::StillLive);
    if !still_live().await.map_err(LoadError::StillLive)? {
        transaction.rollback().await.map_err(LoadError::query("roll back a load"))?;
        return Ok(LoadOutcome::NotLive);
    }
    if !insert_load_state(&transaction, batch, parts).await? {
        transaction.rollback().await.map_err(LoadError::query("roll back a load"))?;
        return Ok(LoadOutcome::AlreadyLoaded);
    }
    let counts = write(&transaction, parts, &missing).await?;
    crate::telemetry::fail_point!("load.before_commit", LoadError::StillLive);
    transaction.commit().await.map_err(LoadError::Commit)?;
    Ok(LoadOutcome::Loaded(counts))
}

async fn missing_members<'a>(client: &Object, parts: &'a [PreparedPart]) -> Result<MissingMembers<'a>, LoadError> {
    let mut missing = MissingMembers::new();
    for part in parts {
        for (link, named) in part.plan.links().iter().zip(&part.rows.members) {
            let named: Vec<&str> = named.iter().map(String::as_str).collect();
            let rows = client
                .query(&merge_sql::missing_members(link), &[&named])
                .await
                .map_err(LoadError::query(format!("look for members of {}", link.table)))?;
            if !rows.is_empty() {
                let found = missing.entry(&link.table).or_insert_with(|| (link, BTreeSet::new()));
                found.1.extend(rows.iter().map(|row| row.get::<_, String>(0)));
            }
        }
    }
    Ok(missing)
}

async fn copy_in(transaction: &Transaction<'_>, number: usize, part: &PreparedPart) -> Result<(), LoadError> {
    let failed = || LoadError::query(format!("copy rows for {}", part.plan.table));
    transaction.batch_execute(&merge_sql::create_temporary(&part.plan, number)).await.map_err(failed())?;
    let sink = transaction.copy_in(&merge_sql::copy_in(number)).await.map_err(failed())?;
    let mut sink = std::pin::pin!(sink);
    for chunk in &part.rows.copy {
        sink.feed(chunk.clone()).await.map_err(failed())?;
    }
    sink.finish().await.map_err(failed())?;
    Ok(())
}

fn locks(parts: &[PreparedPart], missing: &MissingMembers<'_>) -> LockSet {
    let mut locks = LockSet::new();
    for part in parts {
        match part.plan.kind {
            TableKind::Fact { .. } => {
                debug_assert!(part.rows.shards.len() as u64 <= SHARD_COUNT, "a shard for each hash");
                locks.extend(part.rows.shards.iter().map(|shard| shard_lock(&part.plan.table, *shard)));
            }
            TableKind::Dimension => {
                locks.insert(shard_lock(&part.plan.table, 0));
            }
        }
    }
    locks.extend(missing.keys().map(|table| shard_lock(table, 0)));
    locks
}

/// One after the other: in one statement their order would be the planner's.
async fn lock_shards(transaction: &Transaction<'_>, locks: &LockSet) -> Result<(), LoadError> {
    let failed = || LoadError::query("lock the shards of a load");
    let statement = transaction.prepare_cached("SELECT pg_advisory_xact_lock($1, $2)").await.map_err(failed())?;
    for lock in locks {
        transaction.query_one(&statement, &[&lock.class, &lock.object]).await.map_err(failed())?;
    }
    Ok(())
}

/// `false`: another transaction has loaded it.
async fn insert_load_state(
    transaction: &Transaction<'_>,
    batch: &BatchToLoad,
    parts: &[PreparedPart],
) -> Result<bool, LoadError> {
    let row_count = parts.iter().map(|part| part.rows.row_count as i64).sum::<i64>();
    let (first, next) = (batch.offsets.first(), batch.offsets.next());
    let inserted = transaction
        .execute(
            include_str!("sql/insert_load_state.sql"),
            &[&batch.micro_batch_id.0, &batch.source_partition_id, &first, &next, &row_count],
        )
        .await
        .map_err(LoadError::query("write what is loaded"))?;
    Ok(inserted == 1)
}

/// Dimensions, inferred members, facts. The parts are in that order.
async fn write(
    transaction: &Transaction<'_>,
    parts: &[PreparedPart],
    missing: &MissingMembers<'_>,
) -> Result<LoadCounts, LoadError> {
    lock_dimensions(transaction, parts, missing).await?;
    let mut counts = LoadCounts::default();
    let (facts, dimensions): (Vec<_>, Vec<_>) = parts.iter().enumerate().partition(|(_, part)| part.plan.is_fact());
    for (number, part) in dimensions {
        merge(transaction, number, part, &mut counts).await?;
    }
    for (link, keys) in missing.values() {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let inferred = transaction
            .execute(&merge_sql::insert_members(link), &[&keys])
            .await
            .map_err(LoadError::query(format!("infer members of {}", link.table)))?;
        counts.tables.entry(link.table.clone()).or_default().inferred += inferred;
    }
    for (number, part) in facts {
        merge(transaction, number, part, &mut counts).await?;
    }
    Ok(counts)
}

/// All of them before the first is written, by name: whoever attaches a partition does the same.
async fn lock_dimensions(
    transaction: &Transaction<'_>,
    parts: &[PreparedPart],
    missing: &MissingMembers<'_>,
) -> Result<(), LoadError> {
    let merged = parts.iter().filter(|part| !part.plan.is_fact()).map(|part| part.plan.table.clone());
    let written: BTreeSet<String> = merged.chain(missing.keys().map(|table| (*table).to_owned())).collect();
    if let Some(lock) = merge_sql::lock_tables(written.iter(), "ROW EXCLUSIVE") {
        transaction.batch_execute(&lock).await.map_err(LoadError::query("lock the dimensions"))?;
    }
    Ok(())
}

async fn merge(
    transaction: &Transaction<'_>,
    number: usize,
    part: &PreparedPart,
    counts: &mut LoadCounts,
) -> Result<(), LoadError> {
    let table = &part.plan.table;
    let before = changes(transaction, table).await?;
    transaction
        .execute(&merge_sql::merge(&part.plan, number), &[])
        .await
        .map_err(LoadError::query(format!("merge rows into {table}")))?;
    let after = changes(transaction, table).await?;
    let (inserted, updated) = (after.0 - before.0, after.1 - before.1);
    let found = counts.tables.entry(table.clone()).or_default();
    let unchanged_or_older = part.rows.row_count.saturating_sub(inserted + updated);
    *found = TableCounts {
        inserted: found.inserted + inserted,
        updated: found.updated + updated,
        unchanged_or_older: found.unchanged_or_older + unchanged_or_older,
        inferred: found.inferred,
    };
    counts.repaired_value_count += part.rows.repaired_count;
    Ok(())
}

/// Rows this transaction has inserted into and updated in a table so far.
async fn changes(transaction: &Transaction<'_>, table: &str) -> Result<(u64, u64), LoadError> {
    let row = transaction
        .query_one(include_str!("sql/select_changes.sql"), &[&merge_sql::table_name(table)])
        .await
        .map_err(LoadError::query(format!("count the changes of {table}")))?;
    Ok((row.get::<_, i64>("inserted").unsigned_abs(), row.get::<_, i64>("updated").unsigned_abs()))
}
