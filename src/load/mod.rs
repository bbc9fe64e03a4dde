//! The last step: rows of a committed micro-batch into the warehouse's facts and dimensions.
//!
//! # Contract
//! One micro-batch is one transaction: its rows and its `load_state` appear together (LOAD-1). Several that wait may be joined
//! into one, which then is as if each had been loaded alone ([`Loader::load_prepared`]). Of rows
//! with one key the newest stands in the table, by an order that comes from the data alone (LOAD-2), and the
//! others in its shadow, so that any order of arrival, any repetition and any number of loaders end in the same
//! tables. A micro-batch that replaces others retracts what they loaded over its offsets and it does not make again;
//! the best of the shadow takes the place of what was taken away (LOAD-3).
//! Rollups of a fact are what its rows make, in the same transaction (LOAD-4, `touched`; which there are, `rollups`).
//! Earlier values of members, where a connector tracks them, are what all its versions make, in the same transaction (LOAD-5, `history`).
//! A row is named by its key and its event time; where a connector says that times change, by its key alone (`key_map`), and otherwise keys
//! of several times are counted (`other_times`).
//! Dimensions go before facts. A fact that names a member which has not arrived makes an inferred one,
//! completed when it does; a fact that names nobody (null or empty) points at the unknown member, key 0,
//! which no row can change. Values that PostgreSQL cannot hold are mended by fixed rules (`repair`).
//! What the load needs of the tables is checked at start (`plan`).
//! A partition is hot until its day is over, with its unique key alone, then it is sealed (`seal`): foreign keys, indexes, statistics.
//!
//! # Ways
//! Rows of one connector into one fact, of offsets that nobody has loaded, are ranked and resolved in the process, keys that the
//! table holds are asked for once, and all others are copied straight into it (`append`). Many rows of a day that has no partition make it whole: copied, indexed, attached,
//! and sealed where the day is over (`bulk`); loads of different days do so at once. Everything else is ranked by SQL:
//! dimensions, members told by names, masks, replays. A replay that makes the very rows that `load_state` tells of (`digest`), and
//! finds as many there, writes nothing else; one that makes every row again exactly ends after one comparison. What people changed in
//! the warehouse by hand is looked for where a reload is ordered.
//!
//! # Ordering
//! Within a load: partitions for new days (transactions of their own, `days`); rows copied into temporary
//! tables; the source's lock, shared, or alone where rows are to be retracted; the days that are made whole (`bulk`), which need no
//! shard; the shards' locks, ascending (`locks`), all of them where rows are to be retracted, because their keys are not known
//! beforehand; **then** the catalog is asked whether the micro-batch is still live; `load_state`; table locks by name; dimensions,
//! inferred members, facts, each: retract, promote, insert (`reconcile_sql`); histories of touched members; the cells of rollups,
//! sorted, and what they come to.
//! A micro-batch that was replaced while its loader waited is found dead then; one that was loaded before its
//! successor waits is seen in `load_state`. So whoever comes last leaves what is live. One that another loader has loaded
//! meanwhile, with the masks of before, is begun anew as one that replaces those rows.
//! Rows are copied before the locks, which others wait for, and nothing is decided from them before.
//! Names that nobody has decided about get their decision before the facts are written, in the same transaction: the first
//! one wins, and what is not decided for a known member becomes an inferred one (`decisions`).
//! A dimension is locked where its rows or a missing member are to be written: members never go away,
//! so one that was there before the transaction needs no lock.
//!
//! # Retries
//! Transient errors may be tried again for ever. Where the connection is lost during COMMIT nobody knows
//! what happened; loading again finds `load_state` there ([`LoadOutcome::AlreadyLoaded`]) or not.
//!
//! # Cancellation
//! Dropping a load rolls it back, or leaves a COMMIT under way in the state just described.

mod answers;
mod append;
mod bulk;
mod counts;
mod days;
mod decisions;
mod digest;
mod error;
mod give_way;
mod history;
mod history_sql;
mod key_map;
mod locks;
mod members;
mod merge_sql;
mod other_times;
mod plan;
#[cfg(test)]
mod plan_tests;
mod rates;
mod reconcile_sql;
mod repair;
mod rollup_sql;
mod rollups;
mod rows;
mod seal;
mod state;
mod steps;
mod table_rows;
mod touched;
mod touched_members;
mod transaction;
mod unchanged;
mod wanted;
mod warehouse_table;
mod wire_type;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use arrow::record_batch::RecordBatch;
use chrono::{DateTime, NaiveDate, Utc};
use deadpool_postgres::{Object, Pool};

use self::append::Expected;
use self::bulk::{BulkDays, Sealable};
use self::days::KnownDays;
use self::members::KnownMembers;
use self::plan::{LoadTable, TablePlan};
use self::rollups::Rollup;
use self::rows::{Converted, PreparedRows, SourceRows, convert_rows};
use self::seal::SealPlan;
use self::wanted::Wanted;
use crate::catalog::{CatalogError, LiveBatch};
use crate::client::postgres;
use crate::config::{Connector, Connectors};
use crate::telemetry::metrics;
use crate::types::{MicroBatchId, NameProposal, OffsetRange};

pub use answers::{AnswerError, DimensionName, OpenProposal, accept, merge, open_proposals, reject, unmerge};
pub use counts::{LoadCounts, TableCounts};
pub use error::LoadError;
pub use history::{HistoryState, history_states};
pub use other_times::{OtherTimes, other_times};
pub use rates::{LoadRates, load_rates};
pub use rollups::{RollupState, rollup_states};
pub use seal::{PartitionState, SealOutcome, partition_states};
pub use state::{LoadedSum, loaded_at, loaded_over, mark_stale};

/// Rows of one live micro-batch, as they stand in the lake.
#[derive(Debug, Clone)]
pub struct BatchToLoad {
    pub micro_batch_id: MicroBatchId,
    pub source_partition_id: i64,
    pub offsets: OffsetRange,
    /// Object time and order hash of each (offset, record); the message's time and the offset for direct records.
    pub origins: HashMap<(i64, i32), (DateTime<Utc>, i64)>,
    pub parts: Vec<LoadPart>,
    /// Whether it replaces another micro-batch: rows of these offsets may be loaded.
    pub replaces: bool,
    /// The masks that its loader knows of; [`LiveBatch`] tells which count.
    pub mask_rev: i32,
}

impl BatchToLoad {
    /// Rows for the warehouse.
    fn row_count(&self) -> i64 {
        let parts = self.parts.iter().filter(|part| part.connector.warehouse.is_some());
        parts.flat_map(|part| &part.batches).map(|rows| rows.num_rows() as i64).sum()
    }

    /// What its rows hold.
    pub fn memory_bytes(&self) -> usize {
        self.parts.iter().flat_map(|part| &part.batches).map(RecordBatch::get_array_memory_size).sum()
    }
}

/// Rows of one connector.
#[derive(Debug, Clone)]
pub struct LoadPart {
    pub connector: Arc<Connector>,
    /// [`Connector::lake_schema`], of this revision or an older one.
    pub batches: Vec<RecordBatch>,
    /// What names in the rows mean, as far as nobody has decided it yet.
    pub proposals: Vec<NameProposal>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadOutcome {
    Loaded(LoadCounts),
    /// `load_state` has it: rows and all.
    AlreadyLoaded,
    /// The catalog calls it dead; nothing was written.
    NotLive,
}

/// Loads micro-batches into one warehouse. Any number of loads may run at once, here and elsewhere.
#[derive(Debug)]
pub struct Loader {
    warehouse: Pool,
    /// By the connector's name.
    plans: HashMap<String, Arc<TablePlan>>,
    /// Likewise, of those that do not load all their rows.
    wanted: HashMap<String, Arc<Wanted>>,
    /// Dimensions first, then by name.
    tables: Vec<LoadTable>,
    known_days: KnownDays,
    known_members: KnownMembers,
    /// By fact.
    seals: BTreeMap<String, SealPlan>,
    expected: Expected,
}

/// Micro-batches whose rows are ready to be written: the work that the server has no part in, but for looking up members.
pub struct PreparedBatches {
    parts: Vec<PreparedPart>,
    awaited: Option<Vec<(NaiveDate, NaiveDate)>>,
}

impl PreparedBatches {
    /// Tells of which days more rows wait: the first and the last day of each stretch. Other days may be sealed with this load,
    /// if they are over and it makes their partitions.
    #[must_use]
    pub fn awaiting(self, days: Vec<(NaiveDate, NaiveDate)>) -> Self {
        Self { awaited: Some(days), ..self }
    }
}

/// The rows of one connector, of all micro-batches that are prepared together.
struct PlannedPart {
    plan: Arc<TablePlan>,
    rows: Vec<SourceRows>,
    proposals: Vec<NameProposal>,
}

/// A part on its way: where it goes, and its rows ready to be copied.
struct PreparedPart {
    plan: Arc<TablePlan>,
    rows: PreparedRows,
    proposals: Vec<NameProposal>,
}

impl Loader {
    /// Compares every connector that has a warehouse table with that table, and makes rollups and histories that are new or changed.
    pub async fn new(warehouse: Pool, connectors: &Connectors) -> Result<Self, LoadError> {
        Self::checked(warehouse, connectors, true).await
    }

    /// The same, but rollups and histories stay as they are.
    pub async fn for_sealing(warehouse: Pool, connectors: &Connectors) -> Result<Self, LoadError> {
        Self::checked(warehouse, connectors, false).await
    }

    async fn checked(warehouse: Pool, connectors: &Connectors, makes_rollups: bool) -> Result<Self, LoadError> {
        let mut client = postgres::get(&warehouse).await.map_err(LoadError::Connect)?;
        let row = client.query_one("SHOW server_encoding", &[]).await.map_err(LoadError::query("read the encoding"))?;
        let found: String = row.get(0);
        if found != "UTF8" {
            return Err(LoadError::NotUtf8 { found });
        }
        let wanted = connectors.all.iter().map(Connector::dataset);
        let wanted = wanted.filter_map(|connector| Some((connector, connector.warehouse.as_ref()?)));
        let names: BTreeSet<String> = wanted.clone().flat_map(|(_, warehouse)| plan::tables_of(warehouse)).collect();
        let tables = warehouse_table::read_tables(&**client, &names.into_iter().collect::<Vec<_>>()).await?;
        let (mut checked, mut seals, mut rollups) = (Vec::new(), BTreeMap::new(), Vec::new());
        let mut histories = history::Declared::default();
        let mut filters = HashMap::new();
        let mut load_tables: BTreeMap<(bool, String), LoadTable> = BTreeMap::new();
        for (connector, target) in wanted {
            let plan = TablePlan::new(connector, target, &tables)?;
            members::check_unknown_members(&client, &plan).await?;
            let mismatch = |problem| LoadError::Mismatch { connector: connector.name.clone(), problem };
            let table = LoadTable::new(&plan, &tables).map_err(mismatch)?;
            match load_tables.entry((table.is_fact, table.name.clone())) {
                Entry::Occupied(known) if known.get().identity != table.identity => {
                    return Err(mismatch(format!("another connector names the rows of {} otherwise", table.name)));
                }
                entry => _ = entry.or_insert(table),
            }
            if let Some(filter) = Wanted::new(connector)? {
                filters.insert(connector.name.clone(), Arc::new(filter));
            }
            for rollup in &target.rollups {
                rollups.push(Rollup::new(rollup, &plan, &tables[&plan.table]).map_err(mismatch)?);
            }
            histories.add(target, &plan, &tables).map_err(mismatch)?;
            SealPlan::add(&mut seals, &plan);
            checked.push(plan);
        }
        key_map::ensure(&mut client, load_tables.values(), makes_rollups).await?;
        let made = if makes_rollups { &rollups[..] } else { &[] };
        let grouped = rollups::ensure(&mut client, made).await?;
        if makes_rollups {
            history::ensure(&mut client, &histories).await?;
        }
        drop(client);
        for (fact, seal) in &mut seals {
            seal.index_time = grouped.contains_key(fact);
        }
        let mut plans = HashMap::new();
        for mut plan in checked {
            plan.grouped = grouped.get(&plan.table).cloned().unwrap_or_default();
            plans.insert(plan.connector.clone(), Arc::new(plan));
        }
        let tables = load_tables.into_values().enumerate().map(|(number, table)| LoadTable { number, ..table });
        Ok(Self {
            warehouse,
            plans,
            wanted: filters,
            tables: tables.collect(),
            known_days: KnownDays::default(),
            known_members: KnownMembers::default(),
            seals,
            expected: Expected::default(),
        })
    }

    /// The rows of a connector that are to be loaded; the others stay in the lake.
    pub async fn wanted(&self, connector: &str, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, LoadError> {
        let Some(filter) = self.wanted.get(connector) else { return Ok(rows) };
        let (filter, count) = (Arc::clone(filter), |rows: &[RecordBatch]| rows.iter().map(RecordBatch::num_rows).sum());
        let given: usize = count(&rows);
        let work = move || rows.iter().map(|rows| filter.filter(rows)).collect::<Result<Vec<_>, _>>();
        let wanted = tokio::task::spawn_blocking(work).await.map_err(LoadError::Prepare)??;
        let kept: usize = count(&wanted);
        let table = self.plans.get(connector).map_or("", |plan| plan.table.as_str());
        metrics().rows_loaded.with_label_values(&[table, "not_wanted"]).inc_by((given - kept) as u64);
        Ok(wanted)
    }

    /// Loads a micro-batch unless it is loaded. `still_live` asks the catalog; it is called with shards and days locked. Rows
    /// that are masked then are left out, or taken away.
    pub async fn load<F, Fut>(&self, batch: &BatchToLoad, still_live: F) -> Result<LoadOutcome, LoadError>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<Option<LiveBatch>, CatalogError>>,
    {
        let client = postgres::get(&self.warehouse).await.map_err(LoadError::Connect)?;
        if transaction::is_loaded(&client, batch.micro_batch_id, batch.mask_rev).await? {
            return Ok(LoadOutcome::AlreadyLoaded);
        }
        drop(client);
        let batches = std::slice::from_ref(batch);
        let prepared = self.prepare(batches).await?;
        let outcome = self.load_prepared(batches, &prepared, |_| still_live()).await?;
        Ok(outcome.expect("only several are refused"))
    }

    /// The second half of [`Loader::load`]: while it waits for the server, others can be prepared. Several micro-batches become
    /// one transaction, as if they were one: all are loaded, or none. `None`, and nothing written: they are to be loaded one by
    /// one, because of one of them there is more to do than to add its rows.
    pub async fn load_prepared<F, Fut>(
        &self,
        batches: &[BatchToLoad],
        prepared: &PreparedBatches,
        still_live: F,
    ) -> Result<Option<LoadOutcome>, LoadError>
    where
        F: Fn(MicroBatchId) -> Fut,
        Fut: Future<Output = Result<Option<LiveBatch>, CatalogError>>,
    {
        let started = Instant::now();
        let parts = &prepared.parts;
        let mut client = postgres::get(&self.warehouse).await.map_err(LoadError::Connect)?;
        let bulk = if batches.iter().any(|batch| batch.replaces) {
            BulkDays::default()
        } else {
            BulkDays::choose(&client, &self.known_days, parts).await?
        };
        self.ensure_days(&mut client, parts, &bulk).await?;
        let (expected, members, tables) = (&self.expected, &self.known_members, &self.tables);
        let sealable = Sealable { now: Utc::now(), awaited: prepared.awaited.as_deref(), seals: &self.seals };
        let mut load =
            transaction::Load { batches, parts, tables, expected, members, bulk: &bulk, sealable: &sealable };
        let mut outcome = load.run(&mut client, &still_live).await;
        if let (Ok(None), [batch]) = (&outcome, batches) {
            // some rows are masked, or are there and the catalog knows nothing of them: it was restored from a backup
            let (none, batch) = (BulkDays::default(), [BatchToLoad { replaces: true, ..batch.clone() }]);
            self.ensure_days(&mut client, parts, &none).await?;
            (load.batches, load.bulk) = (&batch, &none);
            outcome = load.run(&mut client, &still_live).await;
        }
        match &outcome {
            Ok(Some(LoadOutcome::Loaded(counts))) => {
                bulk::check_foreign_keys(&mut client, &bulk, &sealable).await;
                metrics().load_seconds.with_label_values::<&str>(&[]).observe(started.elapsed().as_secs_f64());
                counts::record(batches, counts);
            }
            Ok(_) => {}
            Err(_) => parts.iter().for_each(|part| self.known_days.forget(&part.plan.table)),
        }
        outcome
    }

    /// Makes the partitions that rows need and that the load does not make itself.
    async fn ensure_days(&self, client: &mut Object, parts: &[PreparedPart], bulk: &BulkDays) -> Result<(), LoadError> {
        for part in parts {
            let dimensions = part.plan.links().iter().map(|link| link.table.clone()).collect();
            let table = &part.plan.table;
            let days = part.rows.days.iter().filter(|day| !bulk.contains(table, **day)).copied().collect();
            self.known_days.ensure(client, table, &dimensions, self.seals.get(table), &days).await?;
        }
        Ok(())
    }

    /// Seals a partition that is due at `now`. `false`: none is, others are at it, or something was in the way.
    pub async fn seal_next(&self, now: DateTime<Utc>) -> Result<bool, LoadError> {
        let client = postgres::get(&self.warehouse).await.map_err(LoadError::Connect)?;
        seal::seal_next(&client, &self.seals, now).await
    }

    /// Seals what is not sealed of the days up to `last`, whether they are over or not; of one fact, or of all that connectors
    /// fill. Each partition that was to be sealed, and what became of it.
    pub async fn seal_through(
        &self,
        fact: Option<&str>,
        last: NaiveDate,
    ) -> Result<Vec<(String, SealOutcome)>, LoadError> {
        let client = postgres::get(&self.warehouse).await.map_err(LoadError::Connect)?;
        seal::seal_through(&client, &self.seals, fact, last).await
    }

    /// The facts that connectors fill.
    pub fn facts(&self) -> impl Iterator<Item = &str> {
        self.seals.keys().map(String::as_str)
    }

    /// The first half of [`Loader::load`]. Nothing is written, and nothing decided but among the rows themselves.
    pub async fn prepare(&self, batches: &[BatchToLoad]) -> Result<PreparedBatches, LoadError> {
        let mut parts = Vec::new();
        for PlannedPart { plan, rows, proposals } in self.planned(batches)? {
            let converting = Arc::clone(&plan);
            let work = move || convert_rows(&converting, &rows);
            let converted = tokio::task::spawn_blocking(work).await.map_err(LoadError::Prepare)??;
            let rows = self.resolve(&plan, converted).await?;
            parts.push(PreparedPart { plan, rows, proposals });
        }
        Ok(PreparedBatches { parts, awaited: None })
    }

    /// Dimensions first, then by table, so that every load takes the same order.
    fn planned(&self, batches: &[BatchToLoad]) -> Result<Vec<PlannedPart>, LoadError> {
        let mut planned = BTreeMap::new();
        for batch in batches {
            for part in batch.parts.iter().filter(|part| part.connector.warehouse.is_some()) {
                let name = &part.connector.name;
                let plan = self.plans.get(name).ok_or_else(|| LoadError::UnknownConnector(name.clone()))?;
                let place = (plan.is_fact(), plan.table.clone(), plan.connector.clone());
                let new = || PlannedPart { plan: Arc::clone(plan), rows: Vec::new(), proposals: Vec::new() };
                let found: &mut PlannedPart = planned.entry(place).or_insert_with(new);
                found.rows.push(SourceRows {
                    micro_batch_id: batch.micro_batch_id,
                    source_partition_id: batch.source_partition_id,
                    origins: batch.origins.clone(),
                    batches: part.batches.clone(),
                });
                found.proposals.extend(part.proposals.iter().cloned());
            }
        }
        Ok(planned.into_values().collect())
    }

    /// Gives the members that rows name their keys, as far as they are there.
    async fn resolve(&self, plan: &Arc<TablePlan>, converted: Converted) -> Result<PreparedRows, LoadError> {
        let (mut prepared, ranked) = match converted {
            Converted::Prepared(prepared) => return Ok(prepared),
            Converted::Ranked(prepared, ranked) => (prepared, ranked),
        };
        let mut keys = Vec::with_capacity(plan.links().len());
        let client = postgres::get(&self.warehouse).await.map_err(LoadError::Connect)?;
        for (link, names) in plan.links().iter().zip(ranked.names()) {
            keys.push(self.known_members.keys(&client, link, &names.distinct).await?);
        }
        drop(client);
        let encoding = Arc::clone(plan);
        let encode = move || ranked.encode(&encoding, &keys);
        let table = tokio::task::spawn_blocking(encode).await.map_err(LoadError::Prepare)??;
        prepared.members.clone_from(&table.unresolved);
        prepared.table = Some(table);
        Ok(prepared)
    }
}
