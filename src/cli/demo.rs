//! `sluice demo`: the main job on this machine alone.
//!
//! Starts the embedded servers, produces seeded rows, runs the pipeline of production against them until nothing
//! is in flight, verifies the outcome from outside, sells a few products by name, prints a summary. Exit code 1 where a
//! row is not as it must be.

mod names;
mod rollup;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use comfy_table::{Table, presets};
use prometheus::core::Collector as _;
use sluice_loadtest::{Endpoints, ProducePlan, ProduceReport, S3Target, VerifyReport, produce, verify};

use super::progress::Progress;
use super::{EXIT_DONE, EXIT_FAILED, EXIT_REFUSED};
use crate::catalog::{self, Database, migrate};
use crate::client::postgres;
use crate::config::{Connectors, Settings, load_connectors};
use crate::embedded::{Addresses, Embedded, PostgresCluster};
use crate::pipeline::{self, InFlight, Role, RunHandle, in_flight};
use crate::telemetry::{self, Health, metrics};

use names::Named;

/// Says that a folder is a demo's, to be replaced by the next one.
const MARKER: &str = ".sluice-demo";
/// So long may nothing move before the demo gives up.
const STUCK_AFTER: Duration = Duration::from_mins(2);
const CONNECTORS: &[(&str, &str)] = &[
    ("transactions.yaml", include_str!("../../connectors/transactions.yaml")),
    ("events.yaml", include_str!("../../connectors/events.yaml")),
    ("direct-events.yaml", include_str!("../../connectors/direct-events.yaml")),
    ("users.yaml", include_str!("../../connectors/users.yaml")),
    ("products.yaml", include_str!("../../connectors/products.yaml")),
    ("partner-sales.yaml", include_str!("../../connectors/partner-sales.yaml")),
];

#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// Where everything is kept; an earlier demo there is replaced
    #[arg(long, value_name = "DIR", default_value = "sluice-demo")]
    pub folder: PathBuf,
    /// Rows to produce
    #[arg(long, default_value_t = 200_000)]
    pub rows: u64,
    /// Share of rows that do not fit
    #[arg(long, default_value_t = 0.01)]
    pub dirty: f64,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Keep everything running until Ctrl-C
    #[arg(long)]
    pub hold: bool,
}

pub async fn run(args: &DemoArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    telemetry::init_logs_quiet();
    if !prepare(&args.folder)? {
        writeln!(out, "{} exists and is no demo's folder: give another with --folder", args.folder.display())?;
        return Ok(EXIT_REFUSED);
    }
    let progress = Progress::start("starting broker, object store and PostgreSQL");
    let embedded = Embedded::start(&args.folder).await?;
    progress.finish();
    let addresses = embedded.addresses();
    let outcome = job(args, &addresses, out).await;
    embedded.stop().await?;
    let code = outcome?;
    look_further(&args.folder, out)?;
    Ok(code)
}

/// `false` where the folder is somebody else's.
fn prepare(folder: &Path) -> anyhow::Result<bool> {
    if folder.join(MARKER).exists() {
        PostgresCluster::stop_left_over(&folder.join("postgres"));
        std::fs::remove_dir_all(folder).with_context(|| format!("could not remove {}", folder.display()))?;
    } else if folder.exists() && std::fs::read_dir(folder)?.next().is_some() {
        return Ok(false);
    }
    let connectors = folder.join("connectors");
    std::fs::create_dir_all(&connectors).with_context(|| format!("could not create {}", connectors.display()))?;
    std::fs::write(folder.join(MARKER), "")?;
    for (name, text) in CONNECTORS {
        std::fs::write(connectors.join(name), text)?;
    }
    Ok(true)
}

fn settings(folder: &Path, addresses: &Addresses) -> anyhow::Result<(Settings, Connectors)> {
    let given = [
        ("SLUICE_KAFKA__BROKERS", addresses.kafka_brokers.clone()),
        ("SLUICE_S3__RAW__ENDPOINT", addresses.s3_endpoint.clone()),
        ("SLUICE_S3__RAW__ACCESS_KEY_ID", addresses.s3_access_key_id.clone()),
        ("SLUICE_S3__RAW__SECRET_ACCESS_KEY", addresses.s3_secret_access_key.clone()),
        ("SLUICE_CATALOG__DSN", addresses.catalog_dsn.clone()),
        ("SLUICE_WAREHOUSE__DSN", addresses.warehouse_dsn.clone()),
        ("SLUICE_CONNECTORS_DIR", folder.join("connectors").to_string_lossy().into_owned()),
        ("SLUICE_TELEMETRY__LISTEN", "127.0.0.1:0".to_owned()),
    ];
    let given = given.into_iter().map(|(name, value)| (name.to_owned(), value));
    let settings = Settings::load(None, given, &[])?;
    let connectors = load_connectors(&settings.connectors_dir)?;
    Ok((settings, connectors))
}

/// Produces, runs, verifies, prints; the servers are there.
async fn job(args: &DemoArgs, addresses: &Addresses, out: &mut dyn Write) -> anyhow::Result<u8> {
    let (settings, connectors) = settings(&args.folder, addresses)?;
    let catalog_pool = postgres::pool(&settings.catalog, "demo")?;
    migrate(&catalog_pool, Database::Catalog).await?;
    migrate(&postgres::pool(&settings.warehouse, "demo")?, Database::Warehouse).await?;
    let health = Health::default();
    let telemetry_address = telemetry::serve(settings.telemetry.listen, health.clone()).await?;
    let mut running = pipeline::run(&settings, &connectors, Role::ALL, &health).await?;

    let ledger = args.folder.join("ledger");
    let started = Instant::now();
    let endpoints = endpoints(&settings, addresses);
    let produced = produce(&endpoints, &plan(args), &ledger).await?;
    let settled = settle(&settings, &connectors, &catalog_pool, &mut running).await;
    let elapsed = started.elapsed();
    settled?;
    let progress = Progress::start("verifying lake and warehouse against the ledger");
    let report = verify(&endpoints, &ledger).await?;
    progress.finish();
    names::put_products(&endpoints, &args.folder).await?;
    settle(&settings, &connectors, &catalog_pool, &mut running).await?;
    names::put_sales(&endpoints, &args.folder).await?;
    settle(&settings, &connectors, &catalog_pool, &mut running).await?;
    let named = names::look(&settings).await?;
    let latency = latency(&catalog_pool, &settings).await?;
    let letters = dead_letters(&catalog_pool, &settings).await?;
    summarise(&produced, &report, &letters, &named, elapsed, latency, out)?;
    let warehouse = postgres::pool(&settings.warehouse, "demo")?;
    let is_right = rollup::show(&postgres::get(&warehouse).await?, out).await?;
    write!(out, "{}", report.display(10))?;
    for finding in &named.findings {
        writeln!(out, "{finding}")?;
    }
    if args.hold {
        writeln!(out, "holding until Ctrl-C")?;
        writeln!(out, "  psql {}", addresses.warehouse_dsn)?;
        writeln!(out, "  curl http://{telemetry_address}/metrics   (also /healthz and /readyz)")?;
        out.flush()?;
        tokio::signal::ctrl_c().await?;
    }
    running.drain().await;
    let is_right = is_right && report.is_clean() && named.findings.is_empty();
    Ok(if is_right { EXIT_DONE } else { EXIT_FAILED })
}

fn plan(args: &DemoArgs) -> ProducePlan {
    ProducePlan {
        seed: args.seed,
        rows: args.rows,
        rows_per_object: 2_000,
        dirty_share: args.dirty,
        key_prefix: "demo".into(),
        // files lie by hour and source: few hours make files of a size as in production
        hours: 4,
        late_share: 0.001,
        show_progress: true,
        ..ProducePlan::default()
    }
}

fn endpoints(settings: &Settings, addresses: &Addresses) -> Endpoints {
    let store = S3Target {
        endpoint: Some(addresses.s3_endpoint.clone()),
        region: settings.s3.raw.region.clone(),
        access_key_id: addresses.s3_access_key_id.clone(),
        secret_access_key: addresses.s3_secret_access_key.clone(),
    };
    Endpoints {
        kafka_brokers: addresses.kafka_brokers.clone(),
        raw: store.clone(),
        lake: store,
        lake_bucket: settings.s3.lake_bucket.clone(),
        warehouse_dsn: addresses.warehouse_dsn.clone(),
    }
}

/// Waits until nothing is in flight; fails where nothing moves any more.
async fn settle(
    settings: &Settings,
    connectors: &Connectors,
    pool: &deadpool_postgres::Pool,
    running: &mut RunHandle,
) -> anyhow::Result<()> {
    let mut progress = Progress::start("running until nothing is in flight");
    let (mut last, mut moved) = (String::new(), Instant::now());
    loop {
        let found: InFlight = tokio::select! {
            found = in_flight(settings, connectors, pool) => found?,
            error = running.failed() => return Err(error.into()),
        };
        if found.is_settled() {
            progress.finish();
            return Ok(());
        }
        let now = format!(
            "in flight: {} messages, {} files to publish, {} micro-batches to load",
            found.messages_unread, found.backlog.files_pending, found.backlog.batches_unloaded
        );
        if now != last {
            (last, moved) = (now.clone(), Instant::now());
        }
        if moved.elapsed() > STUCK_AFTER {
            bail!("nothing moved for {} s: {now}", STUCK_AFTER.as_secs());
        }
        progress.say(now);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Seconds from an object's announcement to its rows in the warehouse: p50 and p99.
async fn latency(pool: &deadpool_postgres::Pool, settings: &Settings) -> anyhow::Result<Option<(f64, f64)>> {
    let announced = catalog::announced(&postgres::get(pool).await?).await?;
    let warehouse = postgres::pool(&settings.warehouse, "demo")?;
    let loaded = crate::load::loaded_at(&postgres::get(&warehouse).await?).await?;
    let mut seconds: Vec<f64> = announced
        .iter()
        .filter_map(|(batch, at)| Some((*loaded.get(batch)? - at).num_milliseconds() as f64 / 1000.0))
        .collect();
    seconds.sort_by(f64::total_cmp);
    let at = |share: f64| seconds.get(((seconds.len() as f64 * share) as usize).min(seconds.len().saturating_sub(1)));
    Ok(at(0.5).zip(at(0.99)).map(|(p50, p99)| (*p50, *p99)))
}

/// Dead letters as the pipeline itself counts them; the verifier counts those that it finds in the lake.
struct DeadLetters {
    /// What the catalog's ledgers call rejected or quarantined: each is one dead letter (BOOK-1).
    total: i64,
    /// The catalog keeps samples by reason, no counts: these are the process's own, taken at each commit.
    by_reason: BTreeMap<String, u64>,
}

async fn dead_letters(pool: &deadpool_postgres::Pool, settings: &Settings) -> anyhow::Result<DeadLetters> {
    let sums = catalog::outcome_sums(&postgres::get(pool).await?, &settings.kafka.group).await?;
    let total = sums.iter().filter(|sum| ["rejected", "quarantined"].contains(&sum.outcome.as_str()));
    let mut by_reason = BTreeMap::new();
    for family in metrics().dead_letters.collect() {
        for metric in family.get_metric() {
            let reason = metric.get_label().iter().find(|label| label.name() == "reason");
            let reason = reason.map_or_else(String::new, |label| label.value().to_owned());
            *by_reason.entry(reason).or_default() += metric.get_counter().get_value() as u64;
        }
    }
    Ok(DeadLetters { total: total.map(|sum| sum.count).sum(), by_reason })
}

fn summarise(
    produced: &ProduceReport,
    report: &VerifyReport,
    letters: &DeadLetters,
    named: &Named,
    elapsed: Duration,
    latency: Option<(f64, f64)>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let seconds = elapsed.as_secs_f64();
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(["summary", ""]);
    let mut rows = vec![
        ("objects", produced.objects.to_string()),
        ("rows", produced.rows.to_string()),
        ("staged", report.rows_staged.to_string()),
        ("loaded", report.rows_loaded.to_string()),
        ("dead letters", letters.total.to_string()),
    ];
    let by_reason: Vec<_> = letters.by_reason.iter().map(|(reason, count)| (format!("  {reason}"), count)).collect();
    rows.extend(by_reason.iter().map(|(reason, count)| (reason.as_str(), count.to_string())));
    rows.extend([
        ("first PUT to settled", format!("{seconds:.1} s")),
        (
            "speed",
            format!(
                "{:.1} MB/s, {:.0} rows/s",
                produced.row_bytes as f64 / 1e6 / seconds,
                produced.rows as f64 / seconds
            ),
        ),
        (
            "notification to row",
            latency.map_or_else(|| "-".into(), |(p50, p99)| format!("p50 {p50:.2} s, p99 {p99:.2} s")),
        ),
    ]);
    let Named { resolved, review, new, .. } = named;
    rows.push(("products by name", format!("{resolved} resolved, {review} to review, {new} new")));
    for (name, value) in rows {
        table.add_row([name.to_owned(), value]);
    }
    writeln!(out, "{table}")?;
    Ok(())
}

fn look_further(folder: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let folder = folder.display();
    writeln!(out, "everything is stopped and kept in {folder}: look further with")?;
    writeln!(
        out,
        "  duckdb -c \"SELECT source, count(*) FROM read_parquet('{folder}/s3/lake/data/transactions/**/*.parquet', hive_partitioning=true) GROUP BY 1\""
    )?;
    writeln!(out, "  pg_ctl -D {folder}/postgres/data start     # the catalog and the warehouse")?;
    writeln!(out, "  make clean-demo                            # removes it")?;
    Ok(())
}
