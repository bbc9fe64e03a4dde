//! Rollups: which there are, and their tables.
//!
//! # Contract
//! The table `warehouse.rollup` says which aggregates every load keeps, whatever the process that loads was configured with: so those that
//! have not seen a new declaration yet keep it too. What a connector declares and the table does not say so is made from all
//! rows of the fact, at start. A rollup that nobody declares any more is kept until its row and its table are removed.
//!
//! # Ordering
//! Made under all shards of the fact and with no day of it being made whole, so that no load of it is under way, in one transaction
//! with its row. Loads read the rows under the same locks, so that none misses a rollup that is made before it commits.
//! Partitions get an index for it: who seals one of them is waited for, before the shards are taken, and begins none meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use deadpool_postgres::{GenericClient, Object, Transaction};
use serde::{Deserialize, Serialize};

use super::error::LoadError;
use super::locks::{Hold, SHARD_COUNT, partition_lock, shard_lock, whole_days_lock};
use super::merge_sql::table_name;
use super::plan::{TableKind, TablePlan};
use super::rollup_sql;
use super::seal::time_index_if_missing;
use super::warehouse_table::{SCHEMA, WarehouseTable};
use crate::config::{Rollup as Declared, RollupAggregate, RollupGrain};

/// Whether a partition is still being sealed is asked so often. Waiting for the lock itself, a statement would hold a snapshot, for
/// which the building of indexes waits.
const SEALING_WAIT: Duration = Duration::from_millis(100);

/// A rollup of a fact; as JSON it stands in the warehouse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rollup {
    /// Its table, without the schema.
    pub name: String,
    pub fact: String,
    /// The fact's event time.
    pub time: String,
    pub grain: RollupGrain,
    pub group: Vec<GroupColumn>,
    pub aggregates: Vec<RollupAggregate>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GroupColumn {
    pub name: String,
    /// PostgreSQL's: text, varchar, uuid, int4, int8 or bool.
    pub type_name: String,
}

impl GroupColumn {
    pub(super) fn is_text(&self) -> bool {
        matches!(self.type_name.as_str(), "text" | "varchar")
    }

    /// Some value of the type.
    pub(super) fn nought(&self) -> &'static str {
        match self.type_name.as_str() {
            "uuid" => "'00000000-0000-0000-0000-000000000000'::uuid",
            "int4" => "0",
            "int8" => "0::int8",
            "bool" => "false",
            _ => "''",
        }
    }
}

impl Rollup {
    /// What a connector declares of the fact that it fills; the problem where the fact lacks what it takes.
    pub(super) fn new(declared: &Declared, plan: &TablePlan, fact: &WarehouseTable) -> Result<Self, String> {
        let TableKind::Fact { time, .. } = &plan.kind else {
            return Err(format!("{SCHEMA}.{} is no fact, so it has no rollups", plan.table));
        };
        let lacks = |column: &str| {
            let name = &declared.name;
            format!("table {SCHEMA}.{} lacks column `{column}`, which rollup `{name}` takes", plan.table)
        };
        let group = declared.group.iter().map(|name| {
            let column = fact.columns.get(name).ok_or_else(|| lacks(name))?;
            Ok(GroupColumn { name: name.clone(), type_name: column.type_name.clone() })
        });
        let missing = declared.aggregates.iter().flat_map(|made| &made.columns);
        if let Some(column) = missing.into_iter().find(|column| !fact.columns.contains_key(*column)) {
            return Err(lacks(column));
        }
        Ok(Self {
            name: declared.table(),
            fact: plan.table.clone(),
            time: time.clone(),
            grain: declared.grain,
            group: group.collect::<Result<_, String>>()?,
            aggregates: declared.aggregates.clone(),
        })
    }
}

/// Those of the facts, by name; `None`: of all.
pub(super) async fn kept(client: &impl GenericClient, facts: Option<&[&str]>) -> Result<Vec<Rollup>, LoadError> {
    let failed = || LoadError::query("read which rollups are kept");
    let statement = client.prepare_cached(include_str!("sql/select_rollups.sql")).await.map_err(failed())?;
    let rows = client.query(&statement, &[&facts]).await.map_err(failed())?;
    rows.iter().map(|row| parsed(row.get("name"), row.get("definition"))).collect()
}

fn parsed(name: String, definition: &str) -> Result<Rollup, LoadError> {
    serde_json::from_str(definition).map_err(|source| LoadError::RollupUnknown { name, source })
}

/// Makes what is declared and not kept so. Returns which columns the rollups of each fact group by, those kept included.
pub(super) async fn ensure(
    client: &mut Object,
    declared: &[Rollup],
) -> Result<BTreeMap<String, BTreeSet<String>>, LoadError> {
    let there = kept(&*client, None).await?;
    for rollup in declared.iter().filter(|rollup| !there.contains(rollup)) {
        let transaction = client.transaction().await.map_err(LoadError::query("begin a rollup"))?;
        make(&transaction, rollup).await?;
        let failed = LoadError::query(format!("commit {}", rollup.name));
        transaction.commit().await.map_err(failed)?;
    }
    let mut columns: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for rollup in there.iter().chain(declared) {
        let names = rollup.group.iter().map(|column| column.name.clone());
        columns.entry(rollup.fact.clone()).or_default().extend(names);
    }
    Ok(columns)
}

/// With no load of the fact under way.
async fn make(transaction: &Transaction<'_>, rollup: &Rollup) -> Result<(), LoadError> {
    let failed = || LoadError::query(format!("make {} from {}", rollup.name, rollup.fact));
    // it takes what it takes: to end it halfway would only begin it anew
    transaction.batch_execute("SET LOCAL statement_timeout = 0").await.map_err(failed())?;
    // two that make rollups of one fact come one after the other
    let whole_days = [whole_days_lock(&rollup.fact)].into();
    Hold::Alone.all(transaction, &whole_days, "a fact whose days are made whole").await?;
    let mut partitions = BTreeSet::new();
    hold_partitions(transaction, rollup, &mut partitions).await?;
    let shards = (0..SHARD_COUNT as u8).map(|shard| shard_lock(&rollup.fact, shard)).collect();
    Hold::Alone.all(transaction, &shards, "the shards of a fact").await?;
    let found = transaction.query_opt(include_str!("sql/select_rollup.sql"), &[&rollup.name]).await.map_err(failed())?;
    if let Some(found) = &found
        && parsed(rollup.name.clone(), found.get("definition")).is_ok_and(|there| there == *rollup)
    {
        return Ok(()); // another process was first
    }
    hold_partitions(transaction, rollup, &mut partitions).await?;
    for partition in &partitions {
        let index = time_index_if_missing(partition, &rollup.time);
        transaction.batch_execute(&index).await.map_err(failed())?;
    }
    transaction.batch_execute(&rollup_sql::build(rollup)).await.map_err(failed())?;
    let grants = include_str!("sql/grant_rollup.sql").replace("$1", &table_name(&rollup.name));
    transaction.batch_execute(&grants).await.map_err(failed())?;
    let definition = serde_json::to_string(rollup).expect("texts and lists are JSON");
    transaction
        .execute(include_str!("sql/upsert_rollup.sql"), &[&rollup.name, &rollup.fact, &definition])
        .await
        .map_err(failed())?;
    tracing::info!(component = "load", rollup = %rollup.name, fact = %rollup.fact, "rollup made");
    Ok(())
}

/// Adds the partitions of the fact that are not `held`: nobody seals them until the end of the transaction.
async fn hold_partitions(
    transaction: &Transaction<'_>,
    rollup: &Rollup,
    held: &mut BTreeSet<String>,
) -> Result<(), LoadError> {
    let failed = || LoadError::query(format!("hold the partitions of {}", rollup.fact));
    let sql = include_str!("sql/select_partitions.sql");
    let rows = transaction.query(sql, &[&table_name(&rollup.fact)]).await.map_err(failed())?;
    let there: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    for name in there.difference(&held.clone()) {
        let lock = partition_lock(name);
        let sql = "SELECT pg_try_advisory_xact_lock($1, $2)";
        while !transaction.query_one(sql, &[&lock.class, &lock.object]).await.map_err(failed())?.get::<_, bool>(0) {
            tokio::time::sleep(SEALING_WAIT).await;
        }
        held.insert(name.clone());
    }
    Ok(())
}

/// For people: a rollup, and how many of its cells are not as the rows of its fact make them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RollupState {
    /// Its table, without the schema.
    pub name: String,
    pub fact: String,
    pub cell_count: i64,
    /// Cells that are there and should not be, or the other way round.
    pub difference_count: i64,
}

/// Compares every rollup with all rows of its fact. Reads both whole, in one snapshot each.
pub async fn rollup_states(client: &impl GenericClient) -> Result<Vec<RollupState>, LoadError> {
    let mut states = Vec::new();
    for rollup in kept(client, None).await? {
        let failed = || LoadError::query(format!("compare {} with {}", rollup.name, rollup.fact));
        let row = client.query_one(&rollup_sql::count_differences(&rollup), &[]).await.map_err(failed())?;
        let count = format!("SELECT count(*) FROM {}", table_name(&rollup.name));
        let cells = client.query_one(&count, &[]).await.map_err(failed())?;
        let (cell_count, difference_count) = (cells.get(0), row.get(0));
        states.push(RollupState { name: rollup.name, fact: rollup.fact, cell_count, difference_count });
    }
    Ok(states)
}
