//! `sluice seal`

use std::io::Write;

use chrono::{Days, NaiveDate, Utc};

use super::{EXIT_CONFIG, EXIT_DONE, EXIT_FAILED, SettingsArgs};
use crate::client::postgres;
use crate::config::Need;
use crate::load::{Loader, SealOutcome};

#[derive(Debug, Clone, clap::Args)]
pub struct SealArgs {
    /// Only the partitions of this fact, as in fact_events
    #[arg(long, value_name = "FACT")]
    pub fact: Option<String>,
    /// Up to this day (UTC); without it, up to yesterday
    #[arg(long, value_name = "DAY")]
    pub through: Option<NaiveDate>,
}

/// Exit code 0 when all of them are sealed, 1 when something was in the way.
pub async fn run(settings: &SettingsArgs, args: &SealArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let (settings, connectors) = settings.load_project(&[Need::Warehouse])?;
    let warehouse = postgres::pool(&settings.warehouse, "seal")?;
    let loader = Loader::for_sealing(warehouse, &connectors).await?;
    if let Some(fact) = args.fact.as_deref().filter(|fact| loader.facts().all(|known| known != *fact)) {
        let known: Vec<&str> = loader.facts().collect();
        eprintln!("error: no connector fills `{fact}`; connectors fill {}", known.join(", "));
        return Ok(EXIT_CONFIG);
    }
    let today = Utc::now().date_naive();
    let last = args.through.unwrap_or_else(|| today.checked_sub_days(Days::new(1)).unwrap_or(today));
    let outcomes = loader.seal_through(args.fact.as_deref(), last).await?;
    for (partition, outcome) in &outcomes {
        let text = match outcome {
            SealOutcome::Sealed => "sealed",
            SealOutcome::LoadsAreInTheWay => "not sealed: loads hold a dimension, try again",
            SealOutcome::OthersAreAtIt => "not sealed: another process is at it",
        };
        writeln!(out, "{partition}: {text}")?;
    }
    if outcomes.is_empty() {
        writeln!(out, "nothing to seal: every partition up to {last} is sealed")?;
    }
    Ok(if outcomes.iter().all(|(_, outcome)| *outcome == SealOutcome::Sealed) { EXIT_DONE } else { EXIT_FAILED })
}
