//! `sluice doctor`

mod rates;

use std::io::Write;
use std::time::Duration;

use deadpool_postgres::Pool;

use super::{EXIT_DONE, EXIT_FAILED, SettingsArgs};
use crate::client::postgres;
use crate::config::{Connectors, Need};
use crate::error::chain;
use crate::pipeline::{StartError, check_buckets, check_catalog, check_kafka, check_warehouse};

/// How long one check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long rollups and histories are compared with all that they are made of.
const COMPARE_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, clap::Args)]
pub struct DoctorArgs {}

/// Checks every dependency once and says what to do; then whether what is loaded fits one PostgreSQL, by what was measured, and whether
/// what is kept of it is right. Exit code 1 where one fails.
pub async fn run(settings: &SettingsArgs, _args: &DoctorArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let (settings, connectors) = settings.load_project(Need::ALL)?;
    connectors.require_keys()?;
    writeln!(out, "ok      connectors: {} read from {}", connectors.all.len(), settings.connectors_dir.display())?;
    let catalog = postgres::pool(&settings.catalog, "doctor")?;
    let warehouse = postgres::pool(&settings.warehouse, "doctor")?;
    let kafka = async { check_kafka(settings.kafka.clone(), connectors.topics()).await.map(|_| ()) };
    let (kafka, in_catalog, in_warehouse, buckets) = tokio::join!(
        within(kafka),
        within(check_catalog(&catalog)),
        within(check_warehouse(&warehouse)),
        within(check_buckets(&settings, &connectors)),
    );
    let answer = in_catalog.is_ok() && in_warehouse.is_ok();
    let mut code = EXIT_DONE;
    for (name, found, what) in [
        ("kafka", kafka, "the cluster answers, every topic exists"),
        ("catalog", in_catalog, "the database answers, its schema fits"),
        ("warehouse", in_warehouse, "the database answers, its schema fits"),
        ("s3", buckets, "every bucket is there and may be listed"),
    ] {
        match found {
            Ok(()) => writeln!(out, "ok      {name}: {what}")?,
            Err(problem) => {
                code = EXIT_FAILED;
                writeln!(out, "failed  {name}: {problem}")?;
            }
        }
    }
    if answer && !look(&catalog, &warehouse, &connectors, out).await? {
        code = EXIT_FAILED;
    }
    Ok(code)
}

/// What is in the two databases, where both answer. `false`: something there is wrong.
async fn look(catalog: &Pool, warehouse: &Pool, connectors: &Connectors, out: &mut dyn Write) -> anyhow::Result<bool> {
    let (catalog, warehouse) = (postgres::get(catalog).await?, postgres::get(warehouse).await?);
    rates::show(&catalog, &warehouse, connectors, out).await?;
    match tokio::time::timeout(COMPARE_TIMEOUT, rates::show_kept(&warehouse, out)).await {
        Ok(is_right) => is_right,
        Err(_) => {
            let seconds = COMPARE_TIMEOUT.as_secs();
            writeln!(out, "warning rollups and histories: not compared within {seconds} s")?;
            Ok(true)
        }
    }
}

async fn within(check: impl Future<Output = Result<(), StartError>>) -> Result<(), String> {
    match tokio::time::timeout(CHECK_TIMEOUT, check).await {
        Ok(Ok(())) => Ok(()),
        // the line's own beginning names the dependency
        Ok(Err(error)) => Err(std::error::Error::source(&error).map_or_else(|| error.to_string(), chain)),
        Err(_) => Err(format!("no answer within {} s: check address and network", CHECK_TIMEOUT.as_secs())),
    }
}
