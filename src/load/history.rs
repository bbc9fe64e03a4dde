//! Histories of dimensions (type 2): which there are, their tables, and the views that join facts with what was true when they happened.
//!
//! # Contract
//! The table `warehouse.dimension_history` says of which dimensions every load keeps the history, and of which columns: whatever the process
//! that loads was configured with. What a connector declares and the table does not say so is made from all versions of all
//! members, at start. A history that nobody declares any more is kept until its row and its table are removed.
//! The versions of a member are its row in the dimension and those in the dimension's shadow; a version holds from the time that ranks it
//! (`_newer_at`), and the last in rank of one time alone. Neighbours with equal values are one interval. The first reaches back for
//! ever and the last has no end, so that every member has a value at any time: the unknown one and inferred ones too.
//! Intervals are computed anew from the versions whenever a load touches a member (`touched_members`), which is what makes late
//! rows split them and retracted ones join them.
//! A fact that points at such a dimension has a view `…_as_of`, with the values at its event time, of the member that its key means today.
//!
//! # Ordering
//! Made under the dimension's lock, so that no load writes members of it, in one transaction with its row. Loads read the rows under
//! that lock, so that none misses a history that is made before it commits. Views change with the table of
//! histories locked against others who make them.

use std::collections::BTreeMap;

use deadpool_postgres::{GenericClient, Object, Transaction};
use serde::{Deserialize, Serialize};

use super::error::LoadError;
use super::history_sql;
use super::locks::{LockSet, shard_lock};
use super::merge_sql::table_name;
use super::plan::{IDENTIFIER_BYTES_MAX, TableKind, TablePlan, expect_type, shown};
use super::warehouse_table::{SCHEMA, WarehouseTable};
use crate::config::{Warehouse, member_key};

/// Of a dimension; as JSON it stands in the warehouse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct History {
    /// Its table, without the schema.
    pub dimension: String,
    /// `product_key`
    pub member_key: String,
    /// `product_id`
    pub natural_key: String,
    /// By name.
    pub columns: Vec<HistoryColumn>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HistoryColumn {
    pub name: String,
    /// Where the dimension's column becomes another, the history is made anew.
    pub type_name: String,
}

impl History {
    /// Its own table, without the schema.
    pub(super) fn table(&self) -> String {
        format!("{}_history", self.dimension)
    }

    /// `product`
    pub(super) fn member(&self) -> &str {
        self.member_key.trim_end_matches("_key")
    }

    fn new(columns: &[String], plan: &TablePlan, dimension: &WarehouseTable) -> Result<Self, String> {
        let name = &plan.table;
        let plural = name.strip_prefix("dim_").unwrap_or(name);
        let member_key = member_key(plural);
        expect_type(name, dimension, &member_key, "int8")?;
        let [natural_key] = &plan.key[..] else {
            return Err(format!("table {SCHEMA}.{name} has no history: its members have several natural keys"));
        };
        expect_type(name, dimension, natural_key, "text")?;
        let columns = columns.iter().map(|column| {
            let found = dimension.columns.get(column);
            let found = found.ok_or_else(|| {
                format!("table {SCHEMA}.{name} lacks column `{column}`, of which the history is to be kept")
            })?;
            Ok(HistoryColumn { name: column.clone(), type_name: shown(found) })
        });
        let columns = columns.collect::<Result<_, String>>()?;
        let history = Self { dimension: name.clone(), member_key, natural_key: natural_key.clone(), columns };
        if history.table().len() > IDENTIFIER_BYTES_MAX {
            return Err(format!("the name of table {SCHEMA}.{name} is too long for its history"));
        }
        Ok(history)
    }
}

/// What connectors say of histories, and the facts that views are made of.
#[derive(Debug, Default)]
pub(super) struct Declared {
    histories: Vec<History>,
    facts: BTreeMap<String, LinkedFact>,
}

/// A fact as people see it.
#[derive(Debug)]
pub(super) struct LinkedFact {
    pub time: String,
    /// Without lineage.
    pub columns: Vec<String>,
    /// Dimensions with the column that points at each, and whether members of it may be merged.
    pub links: BTreeMap<String, (String, bool)>,
}

impl Declared {
    /// The problem where the dimension lacks what is declared.
    pub(super) fn add(
        &mut self,
        warehouse: &Warehouse,
        plan: &TablePlan,
        tables: &BTreeMap<String, WarehouseTable>,
    ) -> Result<(), String> {
        let table = &tables[&plan.table];
        let TableKind::Fact { time, links } = &plan.kind else {
            if !warehouse.history.is_empty() {
                self.histories.push(History::new(&warehouse.history, plan, table)?);
            }
            return Ok(());
        };
        let columns = || table.columns.keys().filter(|name| !name.starts_with('_')).cloned().collect();
        let new = || LinkedFact { time: time.clone(), columns: columns(), links: BTreeMap::new() };
        let fact = self.facts.entry(plan.table.clone()).or_insert_with(new);
        for link in links {
            let may_merge = tables[&link.table].columns.contains_key("merged_into");
            fact.links.insert(link.table.clone(), (link.member_key.clone(), may_merge));
        }
        Ok(())
    }

    /// Names and statements of the views, by fact.
    fn views(&self, kept: &[History]) -> Vec<AsOfView> {
        let views = self.facts.iter().filter_map(|(name, fact)| {
            let linked: Vec<&History> =
                kept.iter().filter(|history| fact.links.contains_key(&history.dimension)).collect();
            let dimensions = linked.iter().map(|history| history.dimension.clone()).collect();
            let view = format!("{}_as_of", name.strip_prefix("fact_").unwrap_or(name));
            let sql = history_sql::view(&view, name, fact, &linked);
            (!linked.is_empty()).then_some(AsOfView { name: view, fact: name.clone(), dimensions, sql })
        });
        views.collect()
    }
}

#[derive(Debug)]
struct AsOfView {
    name: String,
    fact: String,
    dimensions: Vec<String>,
    sql: String,
}

/// Those of the dimensions, by name; `None`: of all.
pub(super) async fn kept(client: &impl GenericClient, dimensions: Option<&[&str]>) -> Result<Vec<History>, LoadError> {
    let failed = || LoadError::query("read which histories are kept");
    let statement = client.prepare_cached(include_str!("sql/select_histories.sql")).await.map_err(failed())?;
    let rows = client.query(&statement, &[&dimensions]).await.map_err(failed())?;
    let parsed = rows.iter().map(|row| {
        let dimension: String = row.get("dimension");
        serde_json::from_str(row.get("definition")).map_err(|source| LoadError::HistoryUnknown { dimension, source })
    });
    parsed.collect()
}

/// Makes what is declared and not kept so.
pub(super) async fn ensure(client: &mut Object, declared: &Declared) -> Result<(), LoadError> {
    let there = kept(&*client, None).await?;
    let new: Vec<&History> = declared.histories.iter().filter(|history| !there.contains(history)).collect();
    if new.is_empty() && !lacks_views(&*client, &declared.views(&there)).await? {
        return Ok(());
    }
    let transaction = client.transaction().await.map_err(LoadError::query("begin a history"))?;
    make(&transaction, declared, &new).await?;
    transaction.commit().await.map_err(LoadError::query("commit a history"))
}

async fn lacks_views(client: &impl GenericClient, views: &[AsOfView]) -> Result<bool, LoadError> {
    let failed = LoadError::query("read which views there are");
    let rows = client.query("SELECT name, definition FROM warehouse.as_of_view", &[]).await.map_err(failed)?;
    let is_there = |view: &AsOfView| {
        rows.iter().any(|row| row.get::<_, &str>(0) == view.name && row.get::<_, &str>(1) == view.sql)
    };
    Ok(!views.iter().all(is_there))
}

async fn make(transaction: &Transaction<'_>, declared: &Declared, new: &[&History]) -> Result<(), LoadError> {
    let failed = || LoadError::query("make a history");
    // it takes what it takes: to end it halfway would only begin it anew
    transaction.batch_execute("SET LOCAL statement_timeout = 0").await.map_err(failed())?;
    let locks: LockSet = new.iter().map(|history| shard_lock(&history.dimension, 0)).collect();
    for lock in locks {
        let sql = "SELECT pg_advisory_xact_lock($1, $2)";
        transaction.query_one(sql, &[&lock.class, &lock.object]).await.map_err(failed())?;
    }
    let alone = "LOCK TABLE warehouse.dimension_history IN SHARE ROW EXCLUSIVE MODE";
    transaction.batch_execute(alone).await.map_err(failed())?;
    let there = kept(transaction, None).await?;
    // another process may have been first
    for history in new.iter().filter(|history| !there.contains(history)) {
        build(transaction, history).await?;
    }
    for view in declared.views(&kept(transaction, None).await?) {
        show(transaction, &view).await?;
    }
    Ok(())
}

async fn build(transaction: &Transaction<'_>, history: &History) -> Result<(), LoadError> {
    let failed = || LoadError::query(format!("make {} from {}", history.table(), history.dimension));
    // they name columns that may go
    let views = include_str!("sql/delete_as_of_views.sql");
    for view in transaction.query(views, &[&history.dimension]).await.map_err(failed())? {
        let drop = format!("DROP VIEW IF EXISTS {}", table_name(view.get(0)));
        transaction.batch_execute(&drop).await.map_err(failed())?;
    }
    transaction.batch_execute(&history_sql::build(history)).await.map_err(failed())?;
    grant(transaction, &history.table()).await.map_err(failed())?;
    let definition = serde_json::to_string(history).expect("texts and lists are JSON");
    let upsert = include_str!("sql/upsert_history.sql");
    transaction.execute(upsert, &[&history.dimension, &definition]).await.map_err(failed())?;
    tracing::info!(component = "load", dimension = %history.dimension, "history made");
    Ok(())
}

/// Makes a view where there is none, or another.
async fn show(transaction: &Transaction<'_>, view: &AsOfView) -> Result<(), LoadError> {
    let failed = || LoadError::query(format!("make the view {}", view.name));
    let upsert = include_str!("sql/upsert_as_of_view.sql");
    let changed =
        transaction.query_opt(upsert, &[&view.name, &view.fact, &view.dimensions, &view.sql]).await.map_err(failed())?;
    let Some(changed) = changed else { return Ok(()) };
    if !changed.get::<_, bool>("is_new") {
        let drop = format!("DROP VIEW IF EXISTS {}", table_name(&view.name));
        transaction.batch_execute(&drop).await.map_err(failed())?;
    }
    transaction.batch_execute(&view.sql).await.map_err(failed())?;
    grant(transaction, &view.name).await.map_err(failed())
}

async fn grant(transaction: &Transaction<'_>, table: &str) -> Result<(), tokio_postgres::Error> {
    let grants = include_str!("sql/grant_rollup.sql").replace("$1", &table_name(table));
    transaction.batch_execute(&grants).await
}

/// For people: a history, and how many of its intervals are not as the versions of its dimension make them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryState {
    /// Its table, without the schema.
    pub name: String,
    pub dimension: String,
    pub interval_count: i64,
    /// Members whose tracked columns have changed at least once.
    pub changed_member_count: i64,
    /// Intervals that are there and should not be, or the other way round.
    pub difference_count: i64,
}

/// Compares every history with all versions of its dimension. Reads both whole, in one snapshot each.
pub async fn history_states(client: &impl GenericClient) -> Result<Vec<HistoryState>, LoadError> {
    let mut states = Vec::new();
    for history in kept(client, None).await? {
        let failed = LoadError::query(format!("compare {} with {}", history.table(), history.dimension));
        let row = client.query_one(&history_sql::compare(&history), &[]).await.map_err(failed)?;
        states.push(HistoryState {
            name: history.table(),
            interval_count: row.get("interval_count"),
            changed_member_count: row.get("changed_member_count"),
            difference_count: row.get("difference_count"),
            dimension: history.dimension,
        });
    }
    Ok(states)
}
