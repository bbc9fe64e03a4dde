//! The one transaction of a load, step by step. See the module's *Ordering*.

use std::collections::{BTreeMap, BTreeSet};

use deadpool_postgres::{Object, Transaction};
use futures::SinkExt;
use tokio_postgres::IsolationLevel;

use super::append::{Append, Expected};
use super::bulk::{BulkDays, Sealable};
use super::digest::Digest;
use super::error::LoadError;
use super::locks::{AdvisoryLock, Hold, LockSet, SHARD_COUNT, shard_lock, source_lock};
use super::members::KnownMembers;
use super::plan::{Link, LoadTable, TableKind};
use super::steps::{AS_PLANNED, BY_KEY, Steps};
use super::touched::Touched;
use super::unchanged::unchanged;
use super::{
    BatchToLoad, LoadCounts, LoadOutcome, PreparedPart, TableCounts, decisions, key_map, merge_sql, reconcile_sql,
};
use crate::catalog::{CatalogError, LiveBatch};
use crate::telemetry::guarded;
use crate::types::MicroBatchId;

/// Of this transaction alone: room to sort by key and to join dimensions.
const SESSION: &str = "SET LOCAL work_mem = '64MB'";

/// Natural keys that facts name and that are no members yet, by dimension.
type MissingMembers<'a> = BTreeMap<&'a str, (&'a Link, BTreeSet<String>)>;

/// How a load shares its source topic partition with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Nobody has loaded rows of these offsets: there is nothing to retract.
    Fresh,
    /// Rows of these offsets may be there: alone on the source, and on every shard, because nobody knows beforehand
    /// which keys they have.
    Replacing,
}

pub(super) async fn is_loaded(client: &Object, id: MicroBatchId, mask_rev: i32) -> Result<bool, LoadError> {
    let row = client
        .query_one(include_str!("sql/select_load_state.sql"), &[&id.0, &mask_rev])
        .await
        .map_err(LoadError::query("read which micro-batches are loaded"))?;
    Ok(row.get(0))
}

/// One load: what is loaded, and where to.
pub(super) struct Load<'a> {
    /// One, or several that are loaded together: then nobody has loaded any of their offsets.
    pub(super) batches: &'a [BatchToLoad],
    /// Dimensions first.
    pub(super) parts: &'a [PreparedPart],
    /// Every table that any connector fills, dimensions first.
    pub(super) tables: &'a [LoadTable],
    pub(super) expected: &'a Expected,
    pub(super) members: &'a KnownMembers,
    /// Days without partition; all others that rows fall on have one.
    pub(super) bulk: &'a BulkDays,
    pub(super) sealable: &'a Sealable<'a>,
}

impl Load<'_> {
    /// `None`, and nothing written: several must be loaded one by one; a single one as one that replaces others, because rows of
    /// its offsets were found that the catalog knows nothing of, or because some of its rows are masked.
    pub(super) async fn run<F, Fut>(
        &self,
        client: &mut Object,
        still_live: &F,
    ) -> Result<Option<LoadOutcome>, LoadError>
    where
        F: Fn(MicroBatchId) -> Fut,
        Fut: Future<Output = Result<Option<LiveBatch>, CatalogError>>,
    {
        let missing = self.missing_members(client).await?;
        let replaces = self.batches.iter().any(|batch| batch.replaces);
        // what is taken away, and who decided about a name, is told by one micro-batch
        if self.are_several() && (replaces || self.parts.iter().any(|part| !part.proposals.is_empty())) {
            return Ok(None);
        }
        let mode = if replaces { Mode::Replacing } else { Mode::Fresh };
        self.attempt(client, mode, &missing, still_live).await
    }

    fn are_several(&self) -> bool {
        self.batches.len() > 1
    }

    /// `None`: it must be done again in the other mode, or one by one.
    async fn attempt<F, Fut>(
        &self,
        client: &mut Object,
        mode: Mode,
        missing: &MissingMembers<'_>,
        still_live: &F,
    ) -> Result<Option<LoadOutcome>, LoadError>
    where
        F: Fn(MicroBatchId) -> Fut,
        Fut: Future<Output = Result<Option<LiveBatch>, CatalogError>>,
    {
        let transaction = client
            .build_transaction()
            // Each statement must see what others committed while we waited for a lock.
            .isolation_level(IsolationLevel::ReadCommitted)
            .start()
            .await
            .map_err(LoadError::query("begin a load"))?;
        transaction.batch_execute(SESSION).await.map_err(LoadError::query("begin a load"))?;
        for (number, part) in self.parts.iter().enumerate().filter(|(_, part)| part.rows.table.is_none()) {
            copy_in(&transaction, number, part).await?;
        }
        crate::telemetry::fail_point!("load.copied", LoadError::StillLive);
        self.lock_sources(&transaction, mode).await?;
        if mode == Mode::Fresh && self.are_loaded_over(&transaction).await? {
            transaction.rollback().await.map_err(LoadError::query("roll back a load"))?;
            return Ok(None);
        }
        let bulk = self.bulk.lock(&transaction).await?;
        Hold::Alone.all(&transaction, &self.shards(mode, missing, &bulk), "the shards of a load").await?;
        crate::telemetry::fail_point!("load.locked", LoadError::StillLive);
        let live = match self.admit(&transaction, mode, still_live).await? {
            Admitted::Yes(live) => live,
            Admitted::No(outcome) => {
                transaction.rollback().await.map_err(LoadError::query("roll back a load"))?;
                return Ok((!self.are_several()).then_some(outcome));
            }
            Admitted::RowsAreThere => {
                transaction.rollback().await.map_err(LoadError::query("roll back a load"))?;
                return Ok(None);
            }
        };
        if !live.masked.is_empty() && (self.are_several() || !bulk.is_empty()) && guarded!("one_by_one") {
            // which rows they hide is told by each one's source, and by SQL alone
            transaction.rollback().await.map_err(LoadError::query("roll back a load"))?;
            return Ok(None);
        }
        self.leave_masked_out(&transaction, &live).await?;
        let stands = mode == Mode::Replacing && live.masked.is_empty() && self.stands(&transaction).await?;
        if mode == Mode::Replacing {
            self.forget_replaced(&transaction).await?;
        }
        let counts =
            if stands { unchanged(self.parts) } else { self.write(&transaction, mode, missing, &live, &bulk).await? };
        crate::telemetry::fail_point!("load.before_commit", LoadError::StillLive);
        transaction.commit().await.map_err(LoadError::Commit)?;
        Ok(Some(LoadOutcome::Loaded(counts)))
    }

    /// Asks the catalog for each micro-batch, and notes it as loaded. The masks are those of all.
    async fn admit<F, Fut>(
        &self,
        transaction: &Transaction<'_>,
        mode: Mode,
        still_live: &F,
    ) -> Result<Admitted, LoadError>
    where
        F: Fn(MicroBatchId) -> Fut,
        Fut: Future<Output = Result<Option<LiveBatch>, CatalogError>>,
    {
        let mut all = LiveBatch::default();
        for batch in self.batches {
            let live = match still_live(batch.micro_batch_id).await.map_err(LoadError::StillLive)? {
                None if guarded!("still_live") => return Ok(Admitted::No(LoadOutcome::NotLive)),
                asked => asked.unwrap_or_default(),
            };
            let digest = self.digest(batch).filter(|_| live.masked.is_empty());
            match insert_load_state(transaction, batch, live.mask_rev, digest).await? {
                None => return Ok(Admitted::No(LoadOutcome::AlreadyLoaded)),
                // another transaction has loaded it, with other masks, since we asked what is loaded
                Some(false) if mode == Mode::Fresh => return Ok(Admitted::RowsAreThere),
                Some(_) => {}
            }
            all.masked.extend(live.masked);
        }
        Ok(Admitted::Yes(all))
    }

    async fn missing_members(&self, client: &Object) -> Result<MissingMembers<'_>, LoadError> {
        let mut missing = MissingMembers::new();
        for part in self.parts {
            for (link, named) in part.plan.links().iter().zip(&part.rows.members) {
                let named: Vec<&str> = named.iter().map(String::as_str).collect();
                let rows = client
                    .query(&merge_sql::missing_members(link), &[&named])
                    .await
                    .map_err(LoadError::query(format!("look for members of {}", link.table)))?;
                if !rows.is_empty() {
                    let found = missing.entry(link.table.as_str()).or_insert_with(|| (link, BTreeSet::new()));
                    found.1.extend(rows.iter().map(|row| row.get::<_, String>(0)));
                }
            }
        }
        Ok(missing)
    }

    async fn lock_sources(&self, transaction: &Transaction<'_>, mode: Mode) -> Result<(), LoadError> {
        if !guarded!("source_lock") {
            return Ok(());
        }
        let hold = match mode {
            Mode::Fresh => Hold::Shared,
            Mode::Replacing => Hold::Alone,
        };
        let locks: LockSet = self.batches.iter().map(|batch| source_lock(batch.source_partition_id)).collect();
        hold.all(transaction, &locks, "the source of a load").await
    }

    /// Source and range, as the statements take them that retract: those know one micro-batch.
    pub(super) fn range(&self) -> (i64, i64, i64) {
        debug_assert!(!self.are_several(), "several are never retracted together");
        range(&self.batches[0])
    }

    async fn are_loaded_over(&self, transaction: &Transaction<'_>) -> Result<bool, LoadError> {
        for batch in self.batches {
            let (source, first, next) = range(batch);
            let row = transaction
                .query_one(include_str!("sql/select_loaded_over.sql"), &[&source, &first, &next])
                .await
                .map_err(LoadError::query("read what is loaded"))?;
            if row.get(0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn shards(&self, mode: Mode, missing: &MissingMembers<'_>, bulk: &BulkDays) -> LockSet {
        let every = |table: &LoadTable| -> Vec<AdvisoryLock> {
            let count = if table.is_fact { SHARD_COUNT as u8 } else { 1 };
            (0..count).map(|shard| shard_lock(&table.name, shard)).collect()
        };
        let dimension = |table: &str| guarded!("dimension_lock").then(|| shard_lock(table, 0));
        let mut locks = LockSet::new();
        // others may fill dimensions that no connector here does
        locks.extend(missing.keys().filter_map(|table| dimension(table)));
        locks.extend(decisions::dimensions(self.parts).iter().filter_map(|table| dimension(table)));
        if mode == Mode::Replacing {
            locks.extend(self.tables.iter().flat_map(every));
            return locks;
        }
        for part in self.parts {
            match part.plan.kind {
                TableKind::Fact { .. } if bulk.covers(&part.plan.table, &part.rows.days) => {}
                TableKind::Fact { .. } => {
                    debug_assert!(part.rows.shards.len() as u64 <= SHARD_COUNT, "a shard for each hash");
                    locks.extend(part.rows.shards.iter().map(|shard| shard_lock(&part.plan.table, *shard)));
                }
                TableKind::Dimension => locks.extend(dimension(&part.plan.table)),
            }
        }
        locks
    }

    async fn leave_masked_out(&self, transaction: &Transaction<'_>, live: &LiveBatch) -> Result<(), LoadError> {
        if live.masked.is_empty() {
            return Ok(());
        }
        let (offsets, records): (Vec<i64>, Vec<i32>) = live.masked.iter().copied().unzip();
        for (number, _) in self.parts.iter().enumerate().filter(|(_, part)| part.rows.table.is_none()) {
            transaction
                .execute(&merge_sql::delete_masked(number), &[&offsets, &records])
                .await
                .map_err(LoadError::query("leave masked rows out"))?;
        }
        Ok(())
    }

    async fn forget_replaced(&self, transaction: &Transaction<'_>) -> Result<(), LoadError> {
        let (source, first, next) = self.range();
        transaction
            .execute(
                include_str!("sql/delete_replaced_load_state.sql"),
                &[&source, &first, &next, &self.batches[0].micro_batch_id.0],
            )
            .await
            .map_err(LoadError::query("forget what was replaced"))?;
        Ok(())
    }

    /// Dimensions, inferred members, facts.
    async fn write(
        &self,
        transaction: &Transaction<'_>,
        mode: Mode,
        missing: &MissingMembers<'_>,
        live: &LiveBatch,
        bulk: &BulkDays,
    ) -> Result<LoadCounts, LoadError> {
        let touched: Vec<&LoadTable> = self
            .tables
            .iter()
            .filter(|table| mode == Mode::Replacing || self.parts.iter().any(|part| part.plan.table == table.name))
            .collect();
        let declared = bulk.dimensions(transaction).await?;
        lock_dimensions(transaction, &touched, missing, self.parts, &declared).await?;
        let mut counts = LoadCounts::default();
        let (facts, dimensions): (Vec<&LoadTable>, Vec<&LoadTable>) = touched.iter().partition(|table| table.is_fact);
        key_map::check(transaction, &facts).await?;
        let names: Vec<&str> = facts.iter().map(|table| table.name.as_str()).collect();
        let named = decisions::dimensions(self.parts);
        let mut written: BTreeSet<&str> = dimensions.iter().map(|table| table.name.as_str()).collect();
        written.extend(missing.keys().copied().chain(named.iter().map(String::as_str)));
        let written: Vec<&str> = written.into_iter().collect();
        let rollups = Touched::of_tables(transaction, &names, &written).await?;
        for table in dimensions {
            self.reconcile(&rollups, mode, table, live, bulk, &mut counts).await?;
        }
        for (link, keys) in missing.values() {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let inferred = transaction
                .execute(&merge_sql::insert_members(link), &[&keys])
                .await
                .map_err(LoadError::query(format!("infer members of {}", link.table)))?;
            counts.tables.entry(link.table.clone()).or_default().inferred += inferred;
            rollups.members.named(&link.table, &keys).await?;
        }
        decisions::write(&rollups, self.batches[0].micro_batch_id, self.parts, &mut counts).await?;
        for table in facts {
            self.reconcile(&rollups, mode, table, live, bulk, &mut counts).await?;
        }
        rollups.recompute().await?;
        Ok(counts)
    }

    /// Brings one table and its shadow to what the micro-batch makes of them: retract → promote → insert.
    async fn reconcile(
        &self,
        rollups: &Touched<'_>,
        mode: Mode,
        table: &LoadTable,
        live: &LiveBatch,
        bulk: &BulkDays,
        counts: &mut LoadCounts,
    ) -> Result<(), LoadError> {
        let transaction = rollups.transaction;
        let steps = Steps { transaction, table };
        steps.batch(&reconcile_sql::create_temporary(table)).await?;
        let mut row_count = 0;
        let mut found = TableCounts::default();
        let parts: Vec<(usize, &PreparedPart)> =
            self.parts.iter().enumerate().filter(|(_, part)| part.plan.table == table.name).collect();
        // others may fill the same keys, and masks are known to SQL alone
        let is_plain = mode == Mode::Fresh && live.masked.is_empty() && parts.len() == 1;
        let (mut waiting, mut are_held, mut is_asked) = (!is_plain, false, false);
        for (number, part) in parts {
            row_count += part.rows.row_count;
            counts.repaired_value_count += part.rows.repaired_count;
            let Some(rows) = &part.rows.table else {
                steps.execute(&merge_sql::resolve(&part.plan, table, number)).await?;
                waiting = true;
                continue;
            };
            let Self { expected, members, sealable, .. } = *self;
            let append = Append { transaction, table, plan: &part.plan, rows, expected, members, bulk, sealable };
            if is_plain {
                steps.batch(BY_KEY).await?;
                let appended = append.run().await?;
                steps.batch(AS_PLANNED).await?;
                rollups.appended(&append).await?;
                let chance = self.batches[0].micro_batch_id.0.as_u128();
                (found.other_time, is_asked) = (steps.count_other_times(&part.plan, rows, chance).await?, true);
                found.inserted = appended.new_count;
                are_held = appended.held_count > 0;
                waiting = are_held;
            } else {
                append.copy_all().await?;
                steps.leave_masked_out(live).await?;
            }
        }
        if mode == Mode::Replacing {
            waiting = self.give_way(rollups, &steps, row_count, &mut found).await?;
        }
        if row_count > 0 && waiting {
            rollups.members.arriving(table).await?;
            let outranked = steps.shadow_losers(rollups, are_held).await?;
            rollups.waiting(table).await?;
            let (inserted, updated) = steps.insert().await?;
            if !is_asked {
                found.other_time = self.count_other_times(&steps, inserted).await?;
            }
            // an outranked fact was taken away first and inserted anew
            let outranked = if table.is_fact { outranked } else { 0 };
            found.inserted += inserted - outranked;
            found.updated = updated + outranked;
        }
        found.unchanged_or_older = row_count.saturating_sub(found.inserted + found.updated);
        counts.tables.entry(table.name.clone()).or_default().add(found);
        Ok(())
    }
}

/// What the catalog and `load_state` say of a load.
enum Admitted {
    Yes(LiveBatch),
    No(LoadOutcome),
    /// They are to be replaced, not added to.
    RowsAreThere,
}

/// Source and range of offsets.
fn range(batch: &BatchToLoad) -> (i64, i64, i64) {
    (batch.source_partition_id, batch.offsets.first(), batch.offsets.next())
}

/// `None`: another transaction has loaded it. `false`: it stood there already.
async fn insert_load_state(
    transaction: &Transaction<'_>,
    batch: &BatchToLoad,
    mask_rev: i32,
    digest: Option<Digest>,
) -> Result<Option<bool>, LoadError> {
    let (source, first, next) = range(batch);
    let digest = digest.map(|digest| digest.bytes().to_vec());
    let row = transaction
        .query_opt(
            include_str!("sql/insert_load_state.sql"),
            &[&batch.micro_batch_id.0, &source, &first, &next, &batch.row_count(), &mask_rev, &digest],
        )
        .await
        .map_err(LoadError::query("write what is loaded"))?;
    Ok(row.map(|row| row.get("is_new")))
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

/// All of them before the first is written, by name: whoever attaches a partition does the same. `declared`: a foreign key of a fact
/// points at them, and partitions of it are attached.
async fn lock_dimensions(
    transaction: &Transaction<'_>,
    touched: &[&LoadTable],
    missing: &MissingMembers<'_>,
    parts: &[PreparedPart],
    declared: &BTreeSet<String>,
) -> Result<(), LoadError> {
    let merged = touched.iter().filter(|table| !table.is_fact).map(|table| table.name.clone());
    let mut written: BTreeSet<String> =
        merged.chain(missing.keys().map(|table| (*table).to_owned())).chain(decisions::dimensions(parts)).collect();
    written.extend(declared.iter().cloned());
    let lock = |name| {
        // foreign keys want them alone
        let mode = if declared.contains(name) { "SHARE ROW EXCLUSIVE" } else { "ROW EXCLUSIVE" };
        merge_sql::lock_tables(std::iter::once(name), mode)
    };
    let locks: Vec<String> = written.iter().filter_map(lock).collect();
    transaction.batch_execute(&locks.join("; ")).await.map_err(LoadError::query("lock the dimensions"))
}
