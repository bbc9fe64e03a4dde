//! `sluice settled`

use std::io::Write;
use std::time::{Duration, Instant};

use super::{EXIT_DONE, EXIT_FAILED, OutputFormat, SettingsArgs};
use crate::catalog::Backlog;
use crate::client::postgres;
use crate::config::Need;
use crate::error::ErrorKind;
use crate::pipeline::{InFlight, backlog, in_flight};

const POLL_WAIT: Duration = Duration::from_millis(300);

#[derive(Debug, Clone, clap::Args)]
pub struct SettledArgs {
    /// Wait until nothing is in flight, for so many seconds at most
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub wait: u64,
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub output: OutputFormat,
}

/// Exit code 0 when settled, 1 when not (or not in time).
pub async fn run(settings: &SettingsArgs, args: &SettledArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let (settings, connectors) = settings.load_project(&[Need::Kafka, Need::Catalog])?;
    let pool = postgres::pool(&settings.catalog, "settled")?;
    let deadline = Instant::now() + Duration::from_secs(args.wait);
    loop {
        // the broker is not asked while the catalog says enough: each look takes a connection of its own
        let is_busy = Instant::now() < deadline && backlog(&pool).await.is_ok_and(|found| found != Backlog::default());
        if is_busy {
            tokio::time::sleep(POLL_WAIT).await;
            continue;
        }
        let found = match in_flight(&settings, &connectors, &pool).await {
            // a broker that has just started does not know yet who coordinates the group
            Err(error) if error.kind() == ErrorKind::Transient && Instant::now() < deadline => {
                tokio::time::sleep(POLL_WAIT).await;
                continue;
            }
            found => found?,
        };
        if found.is_settled() || Instant::now() >= deadline {
            print(&found, args.output, out)?;
            return Ok(if found.is_settled() { EXIT_DONE } else { EXIT_FAILED });
        }
        tokio::time::sleep(POLL_WAIT).await;
    }
}

fn print(found: &InFlight, output: OutputFormat, out: &mut dyn Write) -> anyhow::Result<()> {
    match output {
        OutputFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(found)?)?,
        OutputFormat::Table if found.is_settled() => writeln!(out, "settled: nothing is in flight")?,
        OutputFormat::Table => {
            let backlog = &found.backlog;
            writeln!(
                out,
                "in flight: {} messages unread, {} resets waiting, {} replays running, {} re-drives open, {} files pending, {} files to hide, \
                 {} files to rewrite, {} manifests unsent, {} micro-batches unloaded",
                found.messages_unread,
                found.resets_waiting,
                backlog.replays_running,
                backlog.redrives_open,
                backlog.files_pending,
                backlog.files_to_hide,
                backlog.files_to_rewrite,
                backlog.outbox_pending,
                backlog.batches_unloaded
            )?;
        }
    }
    for partition in &found.partitions {
        if let Some(reason) = &partition.halted_reason {
            writeln!(out, "halted: {}/{}: {reason}", partition.topic, partition.topic_partition)?;
        }
    }
    Ok(())
}
