//! What readers see while micro-batches are loaded, and while they are replaced: one that lists `data/` and one that
//! asks the view `lake.files`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use aws_sdk_s3::operation::get_object::GetObjectError;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sluice_loadtest::{Dataset, ProducePlan};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{produce_onto, reset, run_until_settled};
use crate::pipeline::plan;
use crate::stack::{World, wait_for};

/// How often readers look.
const PAUSE: Duration = Duration::from_millis(50);
const GETS_IN_FLIGHT: usize = 16;

/// Offset, record, row: there is one topic partition.
type Lineage = (i64, i32, i64);
/// Of each row: the micro-batch that made it, and where it comes from. A file never changes under its name.
type Rows = Arc<Vec<(String, Lineage)>>;

/// A store that remembers files.
struct Lake {
    client: aws_sdk_s3::Client,
    bucket: String,
    known: HashMap<String, Rows>,
}

impl Lake {
    fn of(world: &World) -> Self {
        let endpoints = world.endpoints();
        Self { client: endpoints.lake.client(), bucket: endpoints.lake_bucket, known: HashMap::new() }
    }

    async fn list(&self) -> Vec<String> {
        let mut pages = self.client.list_objects_v2().bucket(&self.bucket).prefix("data/").into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.expect("the lake answers");
            keys.extend(page.contents().iter().filter_map(|object| object.key().map(ToOwned::to_owned)));
        }
        keys
    }

    /// The rows of these files, by `name`; those that went meanwhile are left out.
    async fn read(&mut self, files: impl Iterator<Item = (String, String)>) -> Vec<Rows> {
        let (known, wanted): (Vec<_>, Vec<_>) = files.partition(|(name, _)| self.known.contains_key(name));
        let mut found: Vec<Rows> = known.iter().map(|(name, _)| Arc::clone(&self.known[name])).collect();
        let (client, bucket) = (&self.client, &self.bucket);
        let get = |(name, key): (String, String)| async move {
            let object = client.get_object().bucket(bucket).key(&key).send().await;
            let object = match object {
                Ok(object) => object,
                Err(error) if error.as_service_error().is_some_and(GetObjectError::is_no_such_key) => return None,
                Err(error) => panic!("the lake does not answer: {error:?}"),
            };
            Some((name, rows(object.body.collect().await.ok()?.into_bytes())))
        };
        let read: Vec<_> = stream::iter(wanted).map(get).buffer_unordered(GETS_IN_FLIGHT).collect().await;
        for (name, rows) in read.into_iter().flatten() {
            found.push(Arc::clone(&rows));
            self.known.insert(name, rows);
        }
        found
    }
}

fn rows(bytes: Bytes) -> Rows {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("Parquet").build().expect("Parquet");
    let mut found = Vec::new();
    for batch in reader {
        let batch = batch.expect("whole");
        let column = |name: &str| batch.column_by_name(name).expect("files carry their lineage");
        let made_by = arrow::compute::cast(column("_batch"), &arrow::datatypes::DataType::Utf8).expect("text");
        let (offsets, records) =
            (column("_offset").as_primitive::<Int64Type>(), column("_record").as_primitive::<Int32Type>());
        let numbers = column("_row").as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let lineage = (offsets.value(row), records.value(row), numbers.value(row));
            found.push((made_by.as_string::<i32>().value(row).to_owned(), lineage));
        }
    }
    Arc::new(found)
}

/// What a reader saw, all in all.
#[derive(Default)]
struct Seen {
    looks: Arc<AtomicU64>,
    /// Sets of micro-batches that were there at once.
    states: HashSet<BTreeSet<String>>,
    /// Looks at which a row of a micro-batch and of the one that replaced it were there at once.
    mixed: u64,
    findings: Vec<String>,
}

impl Seen {
    /// Micro-batches, each with its rows; notes a row that a micro-batch has twice.
    fn look(&mut self, files: &[Rows]) -> HashMap<String, HashSet<Lineage>> {
        let mut by_batch: HashMap<String, HashSet<Lineage>> = HashMap::new();
        for (made_by, lineage) in files.iter().flat_map(|rows| rows.iter()) {
            if !by_batch.entry(made_by.clone()).or_default().insert(*lineage) {
                self.findings.push(format!("{made_by} has {lineage:?} twice"));
            }
        }
        self.states.insert(by_batch.keys().cloned().collect());
        self.looks.fetch_add(1, Ordering::AcqRel);
        by_batch
    }
}

/// Rows that several micro-batches have.
fn doubled<'a>(batches: impl Iterator<Item = &'a HashSet<Lineage>>) -> usize {
    let mut seen = HashSet::new();
    batches.flatten().filter(|lineage| !seen.insert(**lineage)).count()
}

/// Lists `data/` again and again until it is told to stop.
async fn reads_listings(
    mut lake: Lake,
    catalog: tokio_postgres::Client,
    stop: watch::Receiver<bool>,
    looks: Arc<AtomicU64>,
) -> Seen {
    let mut seen = Seen { looks, ..Seen::default() };
    while !*stop.borrow() {
        let keys = lake.list().await;
        let files = lake.read(keys.into_iter().map(|key| (key.clone(), key))).await;
        let by_batch = seen.look(&files);
        let sql = "SELECT micro_batch_id::text, state FROM catalog.micro_batch";
        let known = catalog.query(sql, &[]).await.expect("the catalog answers");
        let known: HashMap<String, String> = known.iter().map(|row| (row.get(0), row.get(1))).collect();
        let uncommitted = by_batch.keys().filter(|made_by| !known.contains_key(*made_by));
        seen.findings.extend(uncommitted.map(|made_by| format!("{made_by} is listed and not committed")));
        let live = by_batch.iter().filter(|(made_by, _)| known.get(*made_by).is_some_and(|state| state == "live"));
        let twice = doubled(live.map(|(_, rows)| rows));
        if twice > 0 {
            seen.findings.push(format!("{twice} rows are listed twice among live micro-batches"));
        }
        seen.mixed += u64::from(doubled(by_batch.values()) > 0);
        tokio::time::sleep(PAUSE).await;
    }
    seen
}

/// Asks the view again and again until it is told to stop.
async fn reads_the_view(
    mut lake: Lake,
    catalog: tokio_postgres::Client,
    stop: watch::Receiver<bool>,
    looks: Arc<AtomicU64>,
) -> Seen {
    let mut seen = Seen { looks, ..Seen::default() };
    while !*stop.borrow() {
        let sql = "SELECT file_id::text, key, micro_batch_id::text, lower(offsets), upper(offsets)
                     FROM lake.files WHERE kind = 'data'";
        let named = catalog.query(sql, &[]).await.expect("the catalog answers");
        let mut ranges: Vec<(i64, i64, String)> =
            named.iter().map(|row| (row.get(3), row.get(4), row.get(2))).collect();
        ranges.sort();
        ranges.dedup();
        let overlap = ranges.windows(2).filter(|pair| pair[0].1 > pair[1].0);
        seen.findings.extend(overlap.map(|pair| format!("the view names {:?} and {:?} at once", pair[0], pair[1])));
        // a file that moves from `_pending/` to `data/` meanwhile is read at the next look
        let files = lake.read(named.iter().map(|row| (row.get(0), row.get(1)))).await;
        let by_batch = seen.look(&files);
        seen.mixed += u64::from(doubled(by_batch.values()) > 0);
        tokio::time::sleep(PAUSE).await;
    }
    seen
}

/// Micro-batches with published rows that are live now.
async fn live(world: &World) -> BTreeSet<String> {
    let sql = "SELECT DISTINCT micro_batch_id::text FROM lake.files WHERE kind = 'data' AND state = 'published'";
    let rows = world.catalog().await.query(sql, &[]).await.expect("the catalog answers");
    rows.iter().map(|row| row.get(0)).collect()
}

async fn rows_in_the_lake(world: &World) -> i64 {
    super::count(world, "SELECT sum(row_count)::bigint FROM lake.files WHERE kind = 'data'").await
}

/// A reader at work.
struct Reader {
    task: JoinHandle<Seen>,
    stop: watch::Sender<bool>,
    looks: Arc<AtomicU64>,
}

impl Reader {
    fn new<F>(read: impl FnOnce(watch::Receiver<bool>, Arc<AtomicU64>) -> F) -> Self
    where
        F: Future<Output = Seen> + Send + 'static,
    {
        let (stop, told) = watch::channel(false);
        let looks = Arc::default();
        Self { task: tokio::spawn(read(told, Arc::clone(&looks))), stop, looks }
    }

    /// Until a look has begun and ended since.
    async fn has_looked(&self) {
        let enough = self.looks.load(Ordering::Acquire) + 2;
        wait_for("the reader to look", || async { self.looks.load(Ordering::Acquire) >= enough }).await;
    }

    async fn stopped(self) -> Seen {
        self.has_looked().await;
        self.stop.send_replace(true);
        self.task.await.expect("the reader does not panic")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_the_old_and_the_new_state_and_never_a_row_twice_or_too_early() {
    let mut world = World::new(1).await;
    world.without_connector("direct-events");
    world.env.insert("SLUICE_LIMITS__MICRO_BATCH_OFFSETS_MAX".into(), "4".into());
    let plan = ProducePlan {
        rows: 1_600,
        rows_per_object: 40,
        duplicate_share: 0.1,
        datasets: vec![Dataset::Transactions, Dataset::Events],
        ..plan(&world)
    };
    produce_onto(&world, plan, &[0]).await;
    let (catalog, view) = (world.catalog().await, world.catalog().await);
    let lister = Reader::new(|stop, looks| reads_listings(Lake::of(&world), catalog, stop, looks));
    let asker = Reader::new(|stop, looks| reads_the_view(Lake::of(&world), view, stop, looks));

    run_until_settled(&world).await;
    lister.has_looked().await;
    asker.has_looked().await;
    let (old, old_rows) = (live(&world).await, rows_in_the_lake(&world).await);
    world.edit_connectors(|text| {
        let drops = "expectations:\n  - {name: only_web, expr: \"source <> 'web'\", on_fail: drop}\n";
        text.replace("expectations:\n", drops)
    });
    reset(&world, &world.notifications, &["--to-earliest"]).await;
    run_until_settled(&world).await;
    let (new, new_rows) = (live(&world).await, rows_in_the_lake(&world).await);
    assert!(old.is_disjoint(&new) && new_rows < old_rows, "{old_rows} rows became {new_rows}");

    let (lister, asker) = (lister.stopped().await, asker.stopped().await);
    for (who, seen) in [("the lister", &lister), ("the asker", &asker)] {
        let looks = seen.looks.load(Ordering::Acquire);
        println!("{who}: {looks} looks, {} states, {} with old and new rows", seen.states.len(), seen.mixed);
        let findings = seen.findings.iter().take(10).collect::<Vec<_>>();
        assert!(findings.is_empty(), "{who}: {findings:?}");
        assert!(seen.states.contains(&old) && seen.states.contains(&new), "{who} missed a state");
        assert!(seen.states.len() > 4, "{who} saw too little of the way: {} states", seen.states.len());
    }
    assert_eq!(asker.mixed, 0, "the view names the old or the new, never both");
}
