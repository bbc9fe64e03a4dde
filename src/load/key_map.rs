//! Times of keys: of facts whose connectors say that the event time of a key may change (`warehouse.time_changes`).
//!
//! # Contract
//! Such a fact has one row a key, whatever its time: of all rows of a key the newest stands in the fact, in the partition of its time, and the
//! others in the shadow (LOAD-2). The unique key of a partitioned table contains the time, so the table `warehouse.fact_…_keys` keeps
//! the time of every key in the same transaction, and tells in which partition a key stands.
//! The table `warehouse.key_map` says of which facts times are kept. A load of such a fact by a process whose connectors do not say
//! so is refused, and the other way round.
//!
//! # Ordering
//! Made with no load of the fact under way (its lock of whole days, then all shards), in one transaction with its row: rows of keys that have several times then go to the shadow, but for
//! the newest, and rollups of the fact are made anew. A load looks at `warehouse.key_map` under its locks.

use deadpool_postgres::{GenericClient, Object, Transaction};

use super::error::LoadError;
use super::locks::{Hold, SHARD_COUNT, shard_lock, whole_days_lock};
use super::merge_sql::{quoted, table_name};
use super::plan::LoadTable;
use super::{reconcile_sql, rollup_sql, rollups};

/// `fact_orders_keys`
pub(super) fn name_of(fact: &str) -> String {
    format!("{fact}_keys")
}

/// Facts of which times are kept.
async fn kept(client: &impl GenericClient, facts: &[&str]) -> Result<Vec<String>, LoadError> {
    let failed = || LoadError::query("read of which facts times are kept");
    let statement = client.prepare_cached(include_str!("sql/select_key_maps.sql")).await.map_err(failed())?;
    let rows = client.query(&statement, &[&facts]).await.map_err(failed())?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Whether the warehouse keeps times of these facts just as their connectors say.
pub(super) async fn check(client: &impl GenericClient, facts: &[&LoadTable]) -> Result<(), LoadError> {
    if facts.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = facts.iter().map(|fact| fact.name.as_str()).collect();
    let kept = kept(client, &names).await?;
    let other = facts.iter().find(|fact| kept.contains(&fact.name) != fact.changing_time.is_some());
    other.map_or(Ok(()), |fact| Err(LoadError::TimesKept { fact: fact.name.clone() }))
}

/// Makes what is declared and not kept; what is kept and not declared is an error.
pub(super) async fn ensure(
    client: &mut Object,
    tables: impl Iterator<Item = &LoadTable>,
    makes: bool,
) -> Result<(), LoadError> {
    let facts: Vec<&LoadTable> = tables.filter(|table| table.is_fact).collect();
    for fact in facts.iter().filter(|_| makes) {
        let Some(time) = &fact.changing_time else { continue };
        if !kept(&*client, &[&fact.name]).await?.is_empty() {
            continue;
        }
        let transaction = client.transaction().await.map_err(LoadError::query("begin a key map"))?;
        make(&transaction, fact, time).await?;
        transaction.commit().await.map_err(LoadError::query(format!("commit {}", fact.key_map())))?;
    }
    let facts: Vec<&LoadTable> = facts.into_iter().filter(|fact| makes || fact.changing_time.is_none()).collect();
    check(&*client, &facts).await
}

/// With no load of the fact under way.
async fn make(transaction: &Transaction<'_>, fact: &LoadTable, time: &str) -> Result<(), LoadError> {
    let failed = || LoadError::query(format!("make {} from {}", fact.key_map(), fact.name));
    // it takes what it takes: to end it halfway would only begin it anew
    transaction.batch_execute("SET LOCAL statement_timeout = 0").await.map_err(failed())?;
    // loads that make days whole hold no shards
    let whole_days = [whole_days_lock(&fact.name)].into();
    Hold::Alone.all(transaction, &whole_days, "a fact whose days are made whole").await?;
    let shards = (0..SHARD_COUNT as u8).map(|shard| shard_lock(&fact.name, shard)).collect();
    Hold::Alone.all(transaction, &shards, "the shards of a fact").await?;
    if !kept(transaction, &[&fact.name]).await?.is_empty() {
        return Ok(()); // another process was first
    }
    let moved = transaction.execute(&reconcile_sql::shadow_doubled(fact, time), &[]).await.map_err(failed())?;
    transaction.batch_execute(&build(fact, time)).await.map_err(failed())?;
    let grants = include_str!("sql/grant_rollup.sql").replace("$1", &table_name(&fact.key_map()));
    transaction.batch_execute(&grants).await.map_err(failed())?;
    if moved > 0 {
        for rollup in rollups::kept(transaction, Some(&[&fact.name])).await? {
            transaction.batch_execute(&rollup_sql::build(&rollup)).await.map_err(failed())?;
            let grants = include_str!("sql/grant_rollup.sql").replace("$1", &table_name(&rollup.name));
            transaction.batch_execute(&grants).await.map_err(failed())?;
        }
    }
    // what was counted is mended
    transaction.execute("DELETE FROM warehouse.other_time WHERE fact = $1", &[&fact.name]).await.map_err(failed())?;
    transaction.execute("INSERT INTO warehouse.key_map (fact) VALUES ($1)", &[&fact.name]).await.map_err(failed())?;
    tracing::info!(component = "load", fact = %fact.name, moved_row_count = moved, "times of keys are kept");
    Ok(())
}

fn build(fact: &LoadTable, time: &str) -> String {
    let (map, name) = (table_name(&fact.key_map()), table_name(&fact.name));
    let key: Vec<String> = fact.identity.iter().map(|column| quoted(column)).collect();
    let (key, shown, time) = (key.join(", "), fact.name.as_str(), quoted(time));
    let mut sql = format!(
        "DROP TABLE IF EXISTS {map};\nCREATE TABLE {map} AS SELECT {key}, {time} FROM {name};\n\
         ALTER TABLE {map} ALTER COLUMN {time} SET NOT NULL, ADD PRIMARY KEY ({key});\n\
         COMMENT ON TABLE {map} IS 'the event time of every key of {shown}, where it may change; kept exactly by every load';\n\
         COMMENT ON COLUMN {map}.{time} IS 'the event time of its row; tells the partition';\n"
    );
    for column in &fact.identity {
        sql.push_str(&format!("COMMENT ON COLUMN {map}.{} IS 'key of {shown}';\n", quoted(column)));
    }
    sql
}
