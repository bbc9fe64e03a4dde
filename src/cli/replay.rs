//! `sluice replay plan|status|reload`

mod plan;
mod reset_to;
mod status;

use std::io::Write;

use chrono::{DateTime, Utc};

use self::plan::PlanArgs;
use super::{EXIT_CONFIG, EXIT_DONE, OutputFormat, SettingsArgs};
use crate::catalog::ReloadFilter;
use crate::client::postgres;
use crate::config::Need;
use crate::pipeline::reload;

#[derive(Debug, Clone, clap::Args)]
pub struct ReplayArgs {
    #[command(subcommand)]
    pub action: ReplayAction,
}

#[derive(Debug, Clone, clap::Subcommand)]
pub enum ReplayAction {
    /// Show what a reset of the group's offsets would do, and how to order it; changes nothing
    Plan(PlanArgs),
    /// Show the newest replay of each topic partition
    Status(ReplayStatusArgs),
    /// Let the warehouse compare what it has loaded with the lake and mend the difference; no message is read
    Reload(ReloadArgs),
}

#[derive(Debug, Clone, clap::Args)]
pub struct ReplayStatusArgs {
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub output: OutputFormat,
}

#[derive(Debug, Clone, clap::Args)]
pub struct ReloadArgs {
    /// Only what came from this topic
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Only what came from this topic partition
    #[arg(long, value_name = "NUMBER", requires = "topic")]
    pub partition: Option<i32>,
    /// Only what was committed since then: 2026-11-20T00:00:00, UTC unless it says otherwise
    #[arg(long, value_name = "TIME", value_parser = reset_to::parse_time)]
    pub since: Option<DateTime<Utc>>,
}

pub async fn run(settings: &SettingsArgs, args: &ReplayArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    match &args.action {
        ReplayAction::Plan(args) => plan::run(settings, args, out).await,
        ReplayAction::Status(args) => status::run(settings, args, out).await,
        ReplayAction::Reload(args) => order_reload(settings, args, out).await,
    }
}

async fn order_reload(settings: &SettingsArgs, args: &ReloadArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let settings = settings.load(&[Need::Catalog, Need::Warehouse])?;
    let catalog = postgres::pool(&settings.catalog, "reload")?;
    let warehouse = postgres::pool(&settings.warehouse, "reload")?;
    let filter = ReloadFilter { topic: args.topic.clone(), topic_partition: args.partition, since: args.since };
    let ordered = reload(&catalog, &warehouse, &settings.kafka.group, &filter).await?;
    writeln!(
        out,
        "{} micro-batches with {} rows will be compared with the lake; `sluice settled --wait 600` waits for it",
        ordered.micro_batch_count, ordered.row_count
    )?;
    Ok(EXIT_DONE)
}

/// A topic that no connector reads: exit code 2.
fn unknown_topic(topic: &str, known: &[String]) -> u8 {
    eprintln!("error: no connector reads topic `{topic}`; connectors read {}", known.join(", "));
    EXIT_CONFIG
}
