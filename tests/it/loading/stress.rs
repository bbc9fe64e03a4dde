//! Many loaders, few keys, late rows, replays, and a server that dies in the middle.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use sluice::catalog::LiveBatch;
use sluice::error::{ErrorKind, chain};
use sluice::load::{BatchToLoad, LoadError, LoadOutcome, Loader};
use sluice::types::MicroBatchId;
use tokio::sync::Semaphore;

use super::checker;
use super::fixtures::{Warehouse, pool, time, transaction, user, uuid};
use crate::database::Cluster;

const LOADERS: usize = 8;
const SOURCES: i64 = 4;
const OFFSETS: i64 = 18;
const ROWS: u64 = 30;
const KEYS: u64 = 40;
const SEEN_AT: &str = "2026-11-23T10:00:00Z";
/// A server that dies costs each loader a few tries of some milliseconds.
const DEADLINE: Duration = Duration::from_secs(120);

/// What the catalog would say, and who has still to be loaded.
#[derive(Default)]
struct Board {
    live: HashSet<MicroBatchId>,
    waiting: VecDeque<Vec<BatchToLoad>>,
    /// Whom a micro-batch replaces.
    orders: HashMap<MicroBatchId, Vec<MicroBatchId>>,
    /// Rows of each (source, offset) as they stand in the end.
    rows: BTreeMap<(i64, i64), Vec<Value>>,
}

struct Stress {
    warehouse: Warehouse,
    dsn: String,
    board: Mutex<Board>,
    /// One permit for each group that is done.
    done: Semaphore,
    errors: Mutex<Vec<String>>,
}

/// Splitmix64.
fn noise(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Version `version` of the rows at an offset: a few hot keys, on days that come in no order, and in each version of the
/// micro-batch some rows more and others less.
fn rows_of(source: i64, offset: i64, version: u64) -> Vec<Value> {
    let place = (source * 1000 + offset).unsigned_abs();
    let kept = (0..ROWS).filter(|row| version == 0 || !(row + version).is_multiple_of(5));
    let row = |row: u64| {
        let dice = noise(place * 1000 + row + version * 7 * (row % 3));
        let key = dice % KEYS;
        let stamp = format!("2026-11-23T09:{:02}:{:02}Z", dice / 64 % 60, dice / 4096 % 60);
        let mut fact = transaction(key, &format!("{place}.{row:02}"), Some(&stamp));
        fact["user_id"] = json!(format!("u-{}", dice / 7 % 9));
        fact["product_id"] = json!(format!("p-{}", dice / 11 % 9));
        fact["occurred_at"] = json!(format!("2026-11-{:02}T09:00:00Z", 10 + key % 4));
        fact
    };
    kept.map(row).collect()
}

impl Stress {
    fn batch(&self, source: i64, offset: i64, version: u64) -> BatchToLoad {
        let rows = rows_of(source, offset, version);
        let members = [user(&format!("u-{}", offset % 9), &format!("{source} {offset}"), SEEN_AT)];
        let with_members: [(&str, &[Value]); 2] = [("transactions", &rows), ("users", &members)];
        let parts = if offset % 3 == 0 { &with_members[..] } else { &with_members[..1] };
        let mut batch = self.warehouse.batch(offset, SEEN_AT, parts);
        batch.source_partition_id = source;
        // as of objects of their own
        batch.origins = HashMap::from([((offset, 0), (time(SEEN_AT), source * 1000 + offset))]);
        self.board.lock().expect("not poisoned").rows.insert((source, offset), rows);
        batch
    }

    /// Everything that is to be loaded: single micro-batches and groups of them, and, six groups later, such as replace some: the
    /// first may be loaded by then, or be loading, or not.
    fn deal(&self) {
        let (mut waiting, mut replaced) = (VecDeque::<Vec<BatchToLoad>>::new(), VecDeque::new());
        for offset in 0..OFFSETS {
            for source in 1..=SOURCES {
                let batch = self.batch(source, offset, 0);
                let is_replaced = (offset * SOURCES + source) % 5 == 0;
                if is_replaced {
                    replaced.push_back((waiting.len() + 6, source, offset, vec![batch.micro_batch_id]));
                }
                match waiting.back_mut() {
                    Some(group) if (offset + source) % 3 == 0 && !group[0].replaces => group.push(batch),
                    _ => waiting.push_back(vec![batch]),
                }
                let is_last = offset == OFFSETS - 1 && source == SOURCES;
                while replaced.front().is_some_and(|(at, ..)| *at <= waiting.len() || is_last) {
                    let Some((_, source, offset, mut old)) = replaced.pop_front() else { break };
                    for version in [1, 1, 2] {
                        let again = BatchToLoad { replaces: true, ..self.batch(source, offset, version) };
                        old.push(again.micro_batch_id);
                        self.board.lock().expect("not poisoned").orders.insert(again.micro_batch_id, old.clone());
                        waiting.push_back(vec![again]);
                    }
                }
            }
        }
        self.board.lock().expect("not poisoned").waiting = waiting;
    }

    /// The next group. What replaces others lives from now on, and they do not.
    fn next(&self) -> Option<Vec<BatchToLoad>> {
        let mut board = self.board.lock().expect("not poisoned");
        let group = board.waiting.pop_front()?;
        for batch in &group {
            for old in board.orders.remove(&batch.micro_batch_id).unwrap_or_default() {
                board.live.remove(&old);
            }
            board.live.insert(batch.micro_batch_id);
        }
        Some(group)
    }

    fn is_live(&self, id: MicroBatchId) -> Option<LiveBatch> {
        self.board.lock().expect("not poisoned").live.contains(&id).then(LiveBatch::default)
    }

    /// As a load worker: joined where that can be, else one by one; what fails is tried again.
    async fn work(&self) {
        let loader = loop {
            match Loader::new(pool(&self.dsn), &self.warehouse.connectors).await {
                Ok(loader) => break loader,
                Err(error) => self.note(&error),
            }
        };
        loop {
            let Some(group) = self.next() else { return };
            while let Err(error) = self.load(&loader, &group).await {
                self.note(&error);
                tokio::task::yield_now().await;
            }
            self.done.add_permits(1);
        }
    }

    async fn load(&self, loader: &Loader, group: &[BatchToLoad]) -> Result<(), LoadError> {
        if group.len() > 1 {
            let prepared = loader.prepare(group).await?;
            let joined = loader.load_prepared(group, &prepared, |id| async move { Ok(self.is_live(id)) }).await?;
            if matches!(joined, Some(LoadOutcome::Loaded(_))) {
                return Ok(());
            }
        }
        for batch in group {
            loader.load(batch, || async { Ok(self.is_live(batch.micro_batch_id)) }).await?;
        }
        Ok(())
    }

    fn note(&self, error: &LoadError) {
        assert_eq!(error.kind(), ErrorKind::Transient, "{}", chain(error));
        self.errors.lock().expect("not poisoned").push(chain(error));
    }

    /// (key, time, amount) of the rows that must stand, and of those that must have lost.
    fn expected(&self) -> (Vec<String>, Vec<String>) {
        let board = self.board.lock().expect("not poisoned");
        let mut of_keys: BTreeMap<(String, String), Vec<(String, i64, usize, String)>> = BTreeMap::new();
        for ((source, offset), rows) in &board.rows {
            for (number, row) in rows.iter().enumerate() {
                let text = |name: &str| row[name].as_str().expect("a text").to_owned();
                let rank = (text("updated_at"), source * 1000 + offset, number, text("amount"));
                of_keys.entry((text("transaction_id"), text("occurred_at"))).or_default().push(rank);
            }
        }
        let (mut winners, mut losers) = (Vec::new(), Vec::new());
        for ((key, _), mut ranks) in of_keys {
            ranks.sort();
            let lines = ranks.into_iter().map(|(.., amount)| format!("{key} {amount}"));
            let mut lines: Vec<String> = lines.collect();
            winners.extend(lines.pop());
            losers.extend(lines);
        }
        losers.sort();
        winners.sort();
        (winners, losers)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_loaders_lose_nothing_when_keys_are_hot_and_the_server_dies() {
    let mut cluster = Cluster::start();
    let dsn = cluster.database("stress").await;
    let warehouse = Warehouse::on(&dsn).await;
    let (board, errors) = (Mutex::default(), Mutex::default());
    let stress = Arc::new(Stress { warehouse, dsn, board, done: Semaphore::new(0), errors });
    stress.deal();
    let groups = stress.board.lock().expect("not poisoned").waiting.len();
    let workers: Vec<_> = (0..LOADERS)
        .map(|_| {
            let stress = Arc::clone(&stress);
            tokio::spawn(async move { stress.work().await })
        })
        .collect();
    let half = u32::try_from(groups / 2).expect("few");
    let _ =
        tokio::time::timeout(DEADLINE, stress.done.acquire_many(half)).await.expect("half of them load").expect("open");
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.restart();
        cluster
    });
    let cluster = cluster.await.expect("no panic");
    for worker in workers {
        tokio::time::timeout(DEADLINE, worker).await.expect("ends").expect("no panic");
    }

    // connections that died with the server may be in the pool
    while stress.warehouse.execute("SELECT 1").await.is_err() {}
    let rows = async |table: &str| -> Vec<String> {
        let sql = format!("SELECT transaction_id || ' ' || amount FROM warehouse.{table}");
        let mut rows: Vec<String> = stress.warehouse.column(&sql).await.into_iter().flatten().collect();
        rows.sort();
        rows
    };
    let (winners, losers) = stress.expected();
    assert_eq!(rows("fact_transactions").await, winners);
    assert_eq!(rows("fact_transactions_shadow").await, losers);
    let loaded = stress.warehouse.column("SELECT micro_batch_id FROM warehouse.load_state ORDER BY 1").await;
    let live: Vec<MicroBatchId> = stress.board.lock().expect("not poisoned").live.iter().copied().collect();
    let mut live: Vec<Option<String>> = live.iter().map(|id| Some(id.0.to_string())).collect();
    live.sort();
    assert_eq!(loaded, live, "each live micro-batch is loaded, and no other");
    assert_eq!(stress.warehouse.value("SELECT count(*) FROM warehouse.dim_users WHERE NOT inferred").await, "4");
    checker::check(&stress.warehouse).await;
    assert!(!cluster.log().contains("deadlock detected"), "{}", cluster.log());
    let errors = stress.errors.lock().expect("not poisoned");
    assert!(!errors.is_empty(), "the server died and nobody noticed");
    let uninvited: Vec<&String> = errors.iter().filter(|error| error.contains("deadlock")).collect();
    assert!(uninvited.is_empty(), "{uninvited:?}");
    assert!(winners.iter().any(|row| row.starts_with(&uuid(1))), "keys are what rows say");
}
