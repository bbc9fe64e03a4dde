//! One measurement of the loader, or of the plain upsert beside it, on a server that `run` has started. Prints a line
//! of JSON: `{"phase", "rows", "seconds", "cpu_s", "client_cpu_s"}`, the CPU-seconds being PostgreSQL's and our own. Rows are made before the clock starts.
//!
//! | phase | what is measured |
//! |---|---|
//! | plain | the upsert as one would write it down: COPY into a temporary table, join the dimensions, ON CONFLICT DO UPDATE |
//! | streaming | our loader, as fast as it can, into a hot day: micro-batches wait, so they are joined as the load role joins them |
//! | single | the same with other rows into another hot day, one micro-batch a transaction |
//! | replay | the same micro-batches again, under new names: nothing changes |
//! | backfill | other rows into days that no row has reached before; the micro-batches wait, so that they are joined. Indexes are built and foreign keys checked |
//! | rows | no measurement: writes the rows with their keys as Parquet, for the writer that cannot look them up |

#[path = "../../../src/allocator.rs"]
mod allocator;
mod plain;
mod rows;
mod server;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, ensure};
use chrono::{DateTime, NaiveDate};
use clap::{Parser, ValueEnum};
use deadpool_postgres::Pool;
use sluice::catalog::{CatalogError, Database, LiveBatch, migrate};
use sluice::client::postgres;
use sluice::config::{Connectors, PostgresSettings, load_connectors};
use sluice::load::{BatchToLoad, LoadOutcome, LoadPart, Loader};
use sluice::pipeline::{JOINED, LOADS_IN_FLIGHT};
use sluice::types::{MicroBatchId, OffsetRange};
use tokio::task::JoinSet;

use self::rows::{DAY_MILLIS, Layout};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Phase {
    Prepare,
    Plain,
    Streaming,
    Single,
    Replay,
    Backfill,
    Rows,
}

#[derive(Clone, Parser)]
struct Options {
    #[arg(value_enum)]
    phase: Phase,
    #[arg(long)]
    dsn: String,
    /// The server's first process.
    #[arg(long)]
    pid: u32,
    #[arg(long, default_value_t = 500_000)]
    rows: usize,
    #[arg(long, default_value_t = 50_000)]
    batch_rows: usize,
    /// File of the phase `rows`.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/loadtest/benches/loading");
/// Backfilled rows are of so many days, one after the other, as old objects are announced.
const BACKFILL_DAYS: usize = 2;
/// Of rows that are no part of a measurement.
const OTHER_SOURCE: i64 = 9;
/// Numbers of sales that two phases do not share.
const SALES: u64 = 1 << 40;

impl Phase {
    /// Rows of its own; the streamed ones are replayed, and given to the others. Days are counted from the streamed one; backfilled
    /// ones are long over by any clock.
    fn layout(self, options: &Options) -> Layout {
        let (first, first_day, with_changes) = match self {
            Self::Backfill => (SALES, -400, false),
            Self::Single => (2 * SALES, -1, true),
            _ => (0, 0, true),
        };
        let batches_per_day = match self {
            Self::Backfill => (options.rows / options.batch_rows).div_ceil(BACKFILL_DAYS),
            _ => usize::MAX,
        };
        Layout { batch_rows: options.batch_rows, batches_per_day, with_changes, first, first_day }
    }

    fn source(self) -> i64 {
        match self {
            Self::Backfill => 2,
            Self::Single => 3,
            _ => 1,
        }
    }

    fn is_joined(self) -> bool {
        matches!(self, Self::Streaming | Self::Backfill)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let pool = postgres::pool(&PostgresSettings { dsn: options.dsn.clone().into(), pool_size_max: 8 }, "bench")?;
    let connectors = load_connectors(&Path::new(FOLDER).join("connectors")).context("the connector is not valid")?;
    let layout = options.phase.layout(&options);
    let bench = Bench { options, pool, connectors, layout };
    match bench.options.phase {
        Phase::Prepare => bench.prepare().await,
        Phase::Rows => bench.write_rows().await,
        Phase::Plain => bench.plain().await,
        Phase::Streaming | Phase::Single | Phase::Replay | Phase::Backfill => bench.load().await,
    }
}

#[derive(Clone)]
struct Bench {
    options: Options,
    pool: Pool,
    connectors: Connectors,
    layout: Layout,
}

impl Bench {
    async fn prepare(&self) -> anyhow::Result<()> {
        migrate(&self.pool, Database::Warehouse).await?;
        let client = postgres::get(&self.pool).await?;
        client.batch_execute("SET client_min_messages = warning").await?;
        let schema = std::fs::read_to_string(Path::new(FOLDER).join("schema.sql"))?;
        let (schema, vacuum) = schema.rsplit_once("VACUUM").context("the script ends with VACUUM")?;
        client.batch_execute(schema).await?;
        client.batch_execute(&format!("VACUUM{vacuum}")).await?;
        Ok(())
    }

    /// How many micro-batches fit into one transaction.
    fn joined(&self) -> usize {
        (JOINED.row_count_max as usize / self.options.batch_rows).clamp(1, JOINED.batch_count_max as usize)
    }

    fn batches(&self) -> usize {
        self.options.rows / self.options.batch_rows
    }

    /// Everything that is to be loaded.
    fn to_load(&self) -> anyhow::Result<Vec<BatchToLoad>> {
        (0..self.batches()).map(|number| self.batch_to_load(number)).collect()
    }

    fn batch_to_load(&self, number: usize) -> anyhow::Result<BatchToLoad> {
        let connector = self.connectors.by_name("sales").context("the connector is there")?;
        let rows = self.layout.rows(connector, number)?;
        let offset = number as i64;
        let object_time = DateTime::from_timestamp_millis(DAY_MILLIS).context("in range")?;
        Ok(BatchToLoad {
            micro_batch_id: MicroBatchId::generate(),
            source_partition_id: self.options.phase.source(),
            offsets: OffsetRange::new(offset, offset + 1).context("in order")?,
            origins: HashMap::from([((offset, 0), (object_time, offset))]),
            parts: vec![LoadPart { connector: Arc::clone(connector), batches: vec![rows], proposals: Vec::new() }],
            replaces: self.options.phase == Phase::Replay,
            mask_rev: 0,
        })
    }

    async fn load(&self) -> anyhow::Result<()> {
        let batches = self.to_load()?;
        let loader = Loader::new(self.pool.clone(), &self.connectors).await?;
        if matches!(self.options.phase, Phase::Streaming | Phase::Single) {
            self.begin_day(&loader).await?;
        }
        let joined = if self.options.phase.is_joined() { self.joined() } else { 1 };
        let work = Arc::new(Work { bench: self.clone(), loader, batches, joined, left: Mutex::default() });
        work.left.lock().expect("not poisoned").waiting = (0..work.batches.len().div_ceil(joined)).collect();
        let clock = Clock::start(&self.options);
        // as the load role: each of them prepares and loads what waits, one after the other
        let mut workers = JoinSet::new();
        for _ in 0..LOADS_IN_FLIGHT {
            let work = Arc::clone(&work);
            workers.spawn(async move {
                while let Some(number) = work.begin() {
                    work.load(number).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = workers.join_next().await {
            ended??;
        }
        clock.stop(self.options.phase);
        self.check("fact_sales", self.layout.with_changes).await
    }

    /// The day is hot, with a row in it, before its rows are streamed.
    async fn begin_day(&self, loader: &Loader) -> anyhow::Result<()> {
        let before = Layout { batch_rows: 1, first: self.layout.first + SALES / 2, ..self.layout };
        let mut batch = Self { layout: before, ..self.clone() }.batch_to_load(0)?;
        batch.source_partition_id = OTHER_SOURCE;
        loader.load(&batch, || live(batch.micro_batch_id)).await?;
        Ok(())
    }

    async fn plain(&self) -> anyhow::Result<()> {
        let connector = self.connectors.by_name("sales").context("the connector is there")?;
        let batches = (0..self.batches()).map(|number| plain::encode(&self.layout.rows(connector, number)?));
        let batches = batches.collect::<anyhow::Result<Vec<_>>>()?;
        let mut client = postgres::get(&self.pool).await?;
        let clock = Clock::start(&self.options);
        for batch in &batches {
            plain::upsert(&mut client, batch).await?;
        }
        clock.stop(self.options.phase);
        self.check("plain_sales", true).await
    }

    async fn write_rows(&self) -> anyhow::Result<()> {
        let connector = self.connectors.by_name("sales").context("the connector is there")?;
        let path = self.options.out.as_ref().context("--out says where")?;
        let layout = Layout { with_changes: false, ..self.layout };
        let mut writer =
            parquet::arrow::ArrowWriter::try_new(std::fs::File::create(path)?, connector.lake_schema(), None)?;
        for number in 0..self.batches() {
            writer.write(&layout.rows(connector, number)?)?;
        }
        writer.close()?;
        Ok(())
    }

    /// What stands in the table is what was made.
    async fn check(&self, table: &str, with_changes: bool) -> anyhow::Result<()> {
        let changed = if with_changes { self.options.batch_rows * 5 / 100 * (self.batches() - 1) } else { 0 };
        let expected = self.batches() * self.options.batch_rows - changed;
        let client = postgres::get(&self.pool).await?;
        let source = match table {
            "plain_sales" => String::new(),
            _ => format!("WHERE _source = {}", self.options.phase.source()),
        };
        let found: i64 =
            client.query_one(&format!("SELECT count(*) FROM warehouse.{table} {source}"), &[]).await?.get(0);
        ensure!(found == expected as i64, "{table} has {found} rows, not {expected}");
        Ok(())
    }
}

/// What the workers of one process share.
struct Work {
    bench: Bench,
    loader: Loader,
    batches: Vec<BatchToLoad>,
    /// So many micro-batches are one transaction.
    joined: usize,
    left: Mutex<Left>,
}

/// Numbers of groups of micro-batches.
#[derive(Default)]
struct Left {
    waiting: BTreeSet<usize>,
    loading: BTreeSet<usize>,
}

impl Work {
    fn begin(&self) -> Option<usize> {
        let mut left = self.left.lock().expect("not poisoned");
        let number = left.waiting.pop_first()?;
        left.loading.insert(number);
        Some(number)
    }

    async fn load(&self, number: usize) -> anyhow::Result<()> {
        let group = self.batches.chunks(self.joined).nth(number).context("there are as many")?;
        let mut prepared = self.loader.prepare(group).await?;
        if self.bench.options.phase == Phase::Backfill {
            prepared = prepared.awaiting(self.awaited(number)?);
        }
        let outcome = self.loader.load_prepared(group, &prepared, live).await?;
        let Some(LoadOutcome::Loaded(counts)) = outcome else { anyhow::bail!("not loaded: {outcome:?}") };
        if self.bench.options.phase == Phase::Replay {
            let table = counts.tables["fact_sales"];
            ensure!(table.inserted + table.updated + table.retracted == 0, "a replay changed rows: {table:?}");
        }
        self.left.lock().expect("not poisoned").loading.remove(&number);
        Ok(())
    }

    /// Days of which other groups have rows that are not loaded, as the catalog tells them.
    fn awaited(&self, number: usize) -> anyhow::Result<Vec<(NaiveDate, NaiveDate)>> {
        let left = self.left.lock().expect("not poisoned");
        let others = left.waiting.iter().chain(&left.loading).filter(|other| **other != number);
        let batches = others.flat_map(|group| group * self.joined..((group + 1) * self.joined).min(self.batches.len()));
        let days = batches.map(|batch| self.bench.layout.days_of(batch)).collect::<Option<Vec<_>>>();
        days.context("in range")
    }
}

async fn live(_: MicroBatchId) -> Result<Option<LiveBatch>, CatalogError> {
    Ok(Some(LiveBatch::default()))
}

struct Clock<'a> {
    options: &'a Options,
    cpu_s: f64,
    client_cpu_s: f64,
    began: Instant,
}

impl<'a> Clock<'a> {
    fn start(options: &'a Options) -> Self {
        let [cpu_s, client_cpu_s] = [options.pid, std::process::id()].map(server::cpu_seconds);
        Self { options, cpu_s, client_cpu_s, began: Instant::now() }
    }

    fn stop(self, phase: Phase) {
        let seconds = self.began.elapsed().as_secs_f64();
        let cpu_s = server::cpu_seconds(self.options.pid) - self.cpu_s;
        let client_cpu_s = server::cpu_seconds(std::process::id()) - self.client_cpu_s;
        let rows = self.options.rows / self.options.batch_rows * self.options.batch_rows;
        let phase = phase.to_possible_value().map(|value| value.get_name().to_owned());
        let line = serde_json::json!({"phase": phase, "rows": rows, "seconds": seconds, "cpu_s": cpu_s, "client_cpu_s": client_cpu_s});
        println!("{line}");
    }
}
